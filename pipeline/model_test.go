package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestModel(t *testing.T) {
	d := func(n time.Duration) *time.Duration { return &n }
	four, bytes := 4, int64(4096)
	p := &Pipeline{}
	if p.Parallelism(8) != 8 || p.CleanupLimit() != 30*time.Second {
		t.Error("defaults of a pipeline")
	}
	p.MaxParallel, p.CleanupTimeout = &four, d(0)
	if p.Parallelism(8) != 4 || p.CleanupLimit() != 0 {
		t.Error("limits of a pipeline")
	}
	st := ExecFileStage("/bin/ls", "-l")
	if !st.Buffered() || st.UsesShell() || st.BufferLimit() != 1<<20 || !st.Success(0) || st.Success(1) {
		t.Error("defaults of a stage")
	}
	st.MaxBuffer, st.SuccessCodes = &bytes, []int{1, 3}
	if st.BufferLimit() != 4096 || st.Success(0) || !st.Success(3) {
		t.Error("settings of a stage")
	}
	if s := ExecStage("x"); !s.UsesShell() || !s.Buffered() || TeeStage().UsesShell() || SpawnStage("x").Buffered() {
		t.Error("kinds of stages")
	}
	if PipeStep("", st).IsPipe() || !PipeStep("", st, st).IsPipe() {
		t.Error("pipes")
	}
	p.Steps = []*Step{{Name: "a"}, PipeStep("", st), RunStep("", p), {}, ExecStep("", "x"), SpawnStep("", "dir/")}
	for i, want := range []string{"a", "#2 ls", "#3 run", "#4 ?", "#5 exec", "#6 dir/"} {
		if got := p.Label(i); got != want {
			t.Errorf("label %d is %q, expected %q", i, got, want)
		}
	}
	for _, tt := range []struct {
		v    fmt.Stringer
		want string
	}{{ModeSync, "sync"}, {ModeAsync, "async"}, {ParamList, "list"}, {ActionExecFile, "execFile"}, {OverflowKill, "kill"}, {RestartOnFailure, "on-failure"}, {Literal("l"), "l"}} {
		if tt.v.String() != tt.want {
			t.Errorf("%s, expected %s", tt.v, tt.want)
		}
	}
	r := &Restart{}
	if r.FirstDelay() != time.Second || r.RestartLimit() != 10 || r.Span() != 10*time.Minute {
		t.Error("defaults of restart")
	}
	r.Delay, r.MaxRestarts, r.Window = d(3), &four, d(0)
	if r.FirstDelay() != 3 || r.RestartLimit() != 4 || r.Span() != 0 {
		t.Error("settings of restart")
	}
	ready := &Ready{}
	if ready.Limit() != 30*time.Second || ready.Matches([]byte("x")) {
		t.Error("defaults of ready")
	}
	if ready.Timeout = d(5); ready.Limit() != 5 {
		t.Error("settings of ready")
	}
}

func TestDelayAfter(t *testing.T) {
	for _, tt := range []struct {
		r    Retry
		want []time.Duration
	}{
		{Retry{Delay: 2}, []time.Duration{2, 2, 2}},
		{Retry{Delay: 2, Exponential: true}, []time.Duration{2, 4, 8}},
		{Retry{Delay: 2, Exponential: true, MaxDelay: 5}, []time.Duration{2, 4, 5}},
		{Retry{Delay: time.Hour}, []time.Duration{5 * time.Minute, 5 * time.Minute}},
		{Retry{}, []time.Duration{0, 0}},
	} {
		for i, want := range tt.want {
			if got := tt.r.DelayAfter(i + 1); got != want {
				t.Errorf("%+v: after attempt %d %v, expected %v", tt.r, i+1, got, want)
			}
		}
	}
	r := Retry{Delay: 1, Exponential: true}
	if got := r.DelayAfter(MaxAttempts); got != 5*time.Minute {
		t.Errorf("the longest delay is %v", got)
	}
}

// TestOptions: the inner level wins, for each setting on its own.
func TestOptions(t *testing.T) {
	p, err := Parse("f", []byte(`
shell: sh
set: [errexit]
steps:
  - exec: "true"
  - killSignal: INT
    killAfter: 1s
    drain: 0
    sigpipe: fail
    uid: 1
    pipe:
      - {exec: "true", shell: builtin, set: [nounset], uid: 2, gid: 3, killSignal: 9, sigpipe: ok}
      - {spawn: [wc]}
`))
	if err != nil {
		t.Fatal(err)
	}
	o := p.Options(p.Steps[0], p.Steps[0].Stages[0])
	if o.Shell != "sh" || !slices.Equal(o.Set, []string{"errexit"}) || !o.SetGiven() || o.KillSignal != syscall.SIGTERM || o.KillAfter != 5*time.Second || o.Drain != time.Second || o.UID != nil {
		t.Errorf("%+v", o)
	}
	s := p.Steps[1]
	o = p.Options(s, s.Stages[0])
	if o.Shell != ShellBuiltin || !slices.Equal(o.Set, []string{"nounset"}) || *o.UID != 2 || *o.GID != 3 || o.KillSignal != syscall.SIGKILL || o.KillAfter != time.Second || o.Drain != 0 || o.SigpipeErr {
		t.Errorf("%+v", o)
	}
	if o = p.Options(s, s.Stages[1]); !o.SigpipeErr || *o.UID != 1 || o.GID != nil || o.KillSignal != syscall.SIGINT {
		t.Errorf("%+v", o)
	}
	if got := len(p.Levels(s, s.Stages[0])); got != 3 {
		t.Errorf("%d levels", got)
	}
	plain := &Pipeline{Steps: []*Step{ExecStep("", "x")}}
	if o = plain.Options(plain.Steps[0], plain.Steps[0].Stages[0]); o.SetGiven() || !slices.Equal(o.Set, []string{"errexit", "pipefail"}) || o.Shell != ShellBuiltin {
		t.Errorf("%+v", o)
	}
}

func TestParamValues(t *testing.T) {
	p, err := Parse("f", []byte(`
params:
  must: {help: has to be there}
  i: {type: int, default: 1}
  n: {type: number, default: 1.5}
  b: {type: bool, default: false}
  p: {type: path, default: .}
  l: {type: list, default: [a], enum: [a, b]}
  s: {default: x, pattern: "[a-z]+"}
steps: [{spawn: [a]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.ParamValues(map[string][]string{"must": {""}, "i": {"-7"}, "n": {"2"}, "b": {"true"}, "p": {"-rf"}, "l": {"b", "a"}})
	if want := map[string]any{"must": "", "i": -7, "n": 2.0, "b": true, "p": "./-rf", "l": []string{"b", "a"}, "s": "x"}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v; expected %v", got, err, want)
	}
	_, err = p.ParamValues(map[string][]string{"i": {"x"}, "n": {"inf"}, "b": {"yes"}, "p": {""}, "l": {"c"}, "s": {"X"}, "muts": {"x"}})
	want := `parameter b: "yes" is not true or false
parameter i: "x" is not a whole number
parameter l: "c" is not one of a or b; did you mean "a"?
parameter must must be given: -p must=VALUE (has to be there)
parameter n: "inf" is not a number
parameter p: the path is empty; . is the current folder
parameter s: "X" does not match the pattern [a-z]+
unknown parameter "muts"; did you mean "must"?`
	var one *ParamError
	if err == nil || err.Error() != want || !errors.As(err, &one) || one.Name != "b" {
		t.Errorf("got\n%v\nexpected\n%s", err, want)
	}
	for name, words := range map[string][]string{"s": {"a", "b"}, "must": {"a\x00"}} {
		if _, err := p.ParamValues(map[string][]string{"must": {""}, name: words}); err == nil {
			t.Errorf("%s: %q is taken", name, words)
		}
	}
	none := &Pipeline{}
	if _, err := none.ParamValues(map[string][]string{"x": {"y"}}); err == nil || err.Error() != `unknown parameter "x"; the pipeline has none` {
		t.Errorf("%v", err)
	}
}

func TestErrors(t *testing.T) {
	_, err := Parse("f.yaml", []byte("steps:\n\t- x"))
	if err == nil || !strings.Contains(err.Error(), "f.yaml:2:1: not valid YAML: a tab in the indentation") {
		t.Errorf("%v", err)
	}
	_, err = Parse("f.yaml", []byte("steps:\n  - {spawn: [é,\t\"${{ x }}\"]}\n  - {nope: a}\n"))
	var list Errors
	if !errors.As(err, &list) || len(list.Unwrap()) != 3 {
		t.Fatalf("%v", err)
	}
	var one *Error
	if !errors.As(err, &one) || one.Pos != (Pos{2, 18}) || !one.Pos.IsValid() {
		t.Errorf("%+v", one)
	}
	var b strings.Builder
	list[:1].Render(&b, true)
	if want := "f.yaml:2:18: unknown name \"x\" in ${{ x }}; there are params, args, env, steps, pipeline, host\n      - {spawn: [é,\t\"${{ x }}\"]}\n                   \t ^\n"; b.String() != want {
		t.Errorf("rendered as\n%s\nexpected\n%s", b.String(), want)
	}
	many := make(Errors, maxShown+3)
	for i := range many {
		many[i] = &Error{File: "f", Pos: Pos{Line: 3}, Msg: "m"}
	}
	b.Reset()
	many.Render(&b, false)
	if lines := strings.Split(b.String(), "\n"); len(lines) != maxShown+2 || lines[0] != "f:3: m" || lines[maxShown] != "… and 3 more errors" {
		t.Errorf("%d lines, %q", len(lines), lines[maxShown:])
	}
	if got := (&Error{File: "f", Msg: "m"}).Error(); got != "f: m" {
		t.Errorf("%q", got)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"spawn", "exec", "execFile", "stdout"}
	for word, want := range map[string]string{"spwan": "spawn", "EXEC": "exec", "execfile": "execFile", "stdot": "stdout", "zzz": "", "execFiles": "execFile", "": ""} {
		if got := nearest(word, known); got != want {
			t.Errorf("%q is near to %q, expected %q", word, got, want)
		}
	}
}

// TestNotYAML: what no pipeline is made of is refused with its place.
func TestNotYAML(t *testing.T) {
	for src, want := range map[string]string{
		"":                                   "f: the file is empty",
		"# nothing\n":                        "f: the file is empty",
		"a\x00b":                             "f:1:2: NUL byte",
		"é: \xff":                            "f:1:4: the file is not UTF-8: byte 0xff",
		"- a":                                "f:1:1: a pipeline is a mapping with the key steps, not a list",
		"text":                               "f:1:1: a pipeline is a mapping with the key steps, not \"text\"",
		"~":                                  "f:1:1: a pipeline is a mapping with the key steps, not nothing",
		strings.Repeat("x", 50):              "not text",
		"steps: []\n---\nsteps: []":          "f:2:1: the file has a second document",
		"steps: []\n--- [":                   "f:2: not valid YAML",
		"{[a]: b}":                           "f:1:2: a key must be text, not a list",
		"name: a\nname: b":                   "f:2:1: duplicate key \"name\"; it stands already in line 1",
		"steps: &a [*a]":                     "the anchor \"a\" contains itself",
		"<<: [x]":                            "<< takes a mapping",
		"if: !always()":                      "text that begins with ! needs quotes",
		"name: !!binary aGk=":                "custom tag !!binary",
		"name: x":                            "f: the pipeline has no steps; add some",
		strings.Repeat(" ", MaxFile) + "\n ": "at most 67108864 are read",
		"x-a: &a [1,1,1,1,1,1,1,1,1,1]\nx-b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nx-c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nx-d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\nname: *d\nsteps: *d": "aliases stand for more than",
	} {
		if _, err := Parse("f", []byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, expected %q", src, err, want)
		}
	}
	if _, err := Parse("f", []byte("\xef\xbb\xbfsteps: [{spawn: [a]}]")); err != nil {
		t.Errorf("with a byte order mark: %v", err)
	}
}

// TestInclude: pipelines that run others, with the errors of both.
func TestInclude(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sub.yaml":  "params: {p: {}, q: {default: x}}\nsteps: [{spawn: [a]}]",
		"loop.yaml": "steps: [{run: loop2.yaml}]", "loop2.yaml": "steps: [{run: loop.yaml}]",
		"bad.yaml": "steps: [{spwan: [a]}]",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "main.yaml")
	p, err := Parse(file, []byte("params: {a: {default: 1}}\nsteps:\n  - {name: s, run: sub.yaml, with: {p: \"${{ params.a }}\"}}\n  - {spawn: [a, \"${{ steps.s.outputs.x }}\"]}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Files(); !slices.Equal(got, []string{file, filepath.Join(dir, "sub.yaml")}) {
		t.Errorf("files are %q", got)
	}
	for src, want := range map[string]string{
		"run: sub.yaml":                     ":1:15: sub.yaml must be given its parameter p: add with: {p: …}",
		"run: sub.yaml, with: {p: a, r: b}": `unknown parameter "r" of sub.yaml`,
		"run: sub.yaml, with: {p: [a]}":     "a list is given as an expression",
		"run: none.yaml":                    "none.yaml: no such file",
		"run: .":                            "is not a regular file",
		"run: loop.yaml":                    "pipelines run each other in a loop: loop.yaml -> loop2.yaml -> loop.yaml",
		"run: bad.yaml":                     `bad.yaml:1:10: unknown key "spwan"`,
		"run: main.yaml":                    "in a loop: main.yaml -> main.yaml",
		"run: sub.yaml, name: s, with: {p: \"${{ steps.s.stdout }}\"}": `a step with run has no "stdout"`,
	} {
		if _, err := Parse(file, []byte("steps: [{"+src+"}]")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, expected %q", src, err, want)
		}
	}
	big := filepath.Join(dir, "big")
	if f, err := os.Create(big); err != nil || f.Truncate(MaxFile+100) != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if src, err := ReadFile(big); err != nil || len(src) != MaxFile+1 {
		t.Errorf("%d bytes, %v", len(src), err)
	}
}

func TestReadyMatches(t *testing.T) {
	p, err := Parse("f", []byte("steps: [{background: true, spawn: [a], ready: {log: \"^up [0-9]+$\", timeout: 1s}}, {background: true, spawn: [a], ready: {exec: [curl, x]}}, {background: true, spawn: [a], ready: {exec: \"test -f x\"}}, {spawn: [b]}]"))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Steps[0].Ready
	if !r.Matches([]byte("up 12")) || r.Matches([]byte("is up 12")) || r.Limit() != time.Second {
		t.Errorf("%+v", r)
	}
	if p.Steps[1].Ready.Exec.Action != ActionExecFile || p.Steps[2].Ready.Exec.Text != "test -f x" {
		t.Error("probes")
	}
}

func TestSignals(t *testing.T) {
	if s, err := ParseSignal("int"); err != nil || s != syscall.SIGINT || SignalName(s) != "SIGINT" || SignalName(0) != "" {
		t.Errorf("%v %v", s, err)
	}
}
