package bind_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// TestEmbeddedShell: the text goes with its variables, which no child gets.
func TestEmbeddedShell(t *testing.T) {
	const params = "params: {s: {default: \"a'; rm -rf /\"}, l: {type: list, default: [one, two]}}\n"
	type text struct {
		text, written, command string
		vars                   []string
		set                    []string
	}
	set := []string{"errexit", "pipefail"}
	rows{
		{"plain", `steps: [{exec: "echo $HOME"}]`, text{"echo $HOME", "echo $HOME", "echo $HOME", nil, set}},
		{"options", `steps: [{exec: x, set: [nounset]}]`, text{"x", "x", "x", nil, []string{"nounset"}}},
		{"no options", `steps: [{exec: x, set: []}]`, text{"x", "x", "x", nil, []string{}}},
		{"spawn with a shell has no default options", `steps: [{spawn: x, shell: builtin}]`, text{"x", "x", "x", nil, nil}},
		{"the options of the file", "set: [noglob]\nsteps: [{exec: x}]", text{"x", "x", "x", nil, []string{"noglob"}}},
		{"an escaped expression", `steps: [{exec: "echo '$${{ a }}'"}]`, text{"echo '${{ a }}'", "echo '$${{ a }}'", "echo '$${{ a }}'", nil, set}},
		{"a value", params + `steps: [{exec: 'echo "${{ params.s }}"'}]`,
			text{`echo "${V}"`, `echo "${{ params.s }}"`, `echo "${{ params.s }}"`, []string{"V=a'; rm -rf /"}, set}},
	}.run(t, func(s *step.Spec) any {
		st := first(s)
		if st.Shell != step.BuiltinShell || st.Program != "" || st.Args != nil || st.Script {
			t.Errorf("%+v", st)
		}
		out := text{st.Text, st.Written, st.Command, nil, st.Set}
		for i, v := range st.Vars { // however the variables are called
			out.text = strings.ReplaceAll(out.text, v.Name, "V"+strings.Repeat("'", i))
			out.vars = append(out.vars, "V"+strings.Repeat("'", i)+"="+v.Value)
		}
		return out
	})
}

// TestEmbeddedShellList: a list becomes several words; a variable of the caller
// that is called as one that holds a value does not stay.
func TestEmbeddedShellList(t *testing.T) {
	t.Parallel()
	const src = "params: {l: {type: list, default: [one, two]}}\nsteps:\n  - {exec: 'printf %s -- ${{ params.l }}'}"
	vars := first(specOf(t, src)).Vars
	var got []string
	for _, v := range vars {
		got = append(got, v.Value)
	}
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Fatalf("%v", vars)
	}
	p := parse(t, src+"\n  - {spawn: [x]}")
	b, err := bind.New(p, values(func(v *bind.Values) {
		v.Environ = []string{"A=1", vars[0].Name + "=evil", vars[1].Name + "=evil", vars[0].Name + "x=stays"}
	}))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]string{1: b.Public, 0: {"A=1", vars[0].Name + "x=stays"}} {
		spec, err := b.Spec(p.Steps[i], "l", b.Vars(nil), bind.Look{})
		if err != nil || !slices.Equal(slices.Sorted(slices.Values(first(spec).Env)), slices.Sorted(slices.Values(want))) {
			t.Errorf("step %d: %v, %v", i, first(spec).Env, err)
		}
	}
}

// TestOtherShell: a constant text is an argument; with values, or where it is
// long, it is handed over on the first descriptor that is free.
func TestOtherShell(t *testing.T) {
	const def = "set -o errexit; command set -o pipefail 2>/dev/null || :; "
	rows{
		{"true", `steps: [{exec: x y, shell: true}]`, []string{"/bin/sh", "/bin/sh", "-c", def + "x y"}},
		{"a name", `steps: [{exec: x, shell: bash}]`, []string{"bash", "bash", "-c", def + "x"}},
		{"a path of the file", "shell: /opt/zsh\nsteps: [{exec: x}]", []string{"/opt/zsh", "/opt/zsh", "-c", def + "x"}},
		{"options that are written", `steps: [{exec: x, shell: bash, set: [pipefail, nounset]}]`, []string{"bash", "bash", "-c", "set -o pipefail; set -o nounset; x"}},
		{"none", `steps: [{exec: x, shell: bash, set: []}]`, []string{"bash", "bash", "-c", "x"}},
		{"spawn", `steps: [{spawn: x, shell: sh}]`, []string{"sh", "sh", "-c", "x"}},
		{"back to the embedded one", "shell: bash\nsteps: [{exec: x, shell: builtin}]", []string{""}},
		{"with a value", "params: {s: {default: v}}\nsteps: [{exec: 'echo ${{ params.s }}', shell: bash}]", []string{"bash", "bash", "/dev/fd/3"}},
		{"behind other descriptors", "params: {s: {default: v}}\nsteps: [{exec: 'echo ${{ params.s }}', shell: bash, stdio: [ignore, pipe, pipe, ignore, ignore]}]", []string{"bash", "bash", "/dev/fd/5"}},
	}.run(t, func(s *step.Spec) any { return append([]string{first(s).Program}, first(s).Args...) })
}

// TestScript: the text on a descriptor closes it first, and assigns the values.
func TestScript(t *testing.T) {
	t.Parallel()
	const src = "params: {s: {default: \"a'b\"}}\nsteps: [{exec: 'echo ${{ params.s }}', shell: bash, stdio: [ignore, pipe, pipe, ignore]}]"
	st := first(specOf(t, src))
	if !st.Script || !strings.HasPrefix(st.Text, "exec 4<&-; ") || !strings.Contains(st.Text, `'a'\''b'`) && !strings.Contains(st.Text, `'a'"'"'b'`) || st.Vars != nil {
		t.Errorf("%+v", st)
	}
	if i, j := strings.Index(st.Text, "a'"), strings.Index(st.Text, "set -o errexit"); i < 0 || i > j || strings.Contains(st.Text, "\n") {
		t.Errorf("the lines of the text do not keep their places: %q", st.Text)
	}
	for n, script := range map[int]bool{engine.MaxArg / 2: false, engine.MaxArg + 1: true} {
		st := first(specOf(t, "steps:\n  - shell: bash\n    set: []\n    exec: echo "+strings.Repeat("x", n)))
		if st.Script != script || script && (st.Text != "exec 3<&-; echo "+strings.Repeat("x", n) || len(st.Args) != 2) || !script && len(st.Args) != 3 {
			t.Errorf("%d bytes: script %v, %d arguments", n, st.Script, len(st.Args))
		}
	}
	nine := "stdio: [ignore, pipe, pipe" + strings.Repeat(", ignore", 7) + "]"
	_, err := bound(t, parse(t, "params: {s: {default: v}}\nsteps: [{exec: 'echo ${{ params.s }}', shell: bash, "+nine+"}]"), values(), bind.Look{})
	if err == nil || !strings.Contains(err.Error(), "takes a descriptor of its own, and 9 is the last") {
		t.Errorf("a text on descriptor 10: %v", err)
	}
	if _, err := bound(t, parse(t, "steps: [{exec: x, shell: bash, "+nine+"}]"), values(), bind.Look{}); err != nil {
		t.Errorf("a text that needs no descriptor: %v", err)
	}
}

// nestedDir has a pipeline that takes parameters, and one that runs it.
func nestedDir(t *testing.T, keys string) *pipeline.Pipeline {
	t.Helper()
	dir := t.TempDir()
	inner := "params: {a: {default: x}, l: {type: list, default: []}}\nsteps: [{spawn: [x]}]"
	if err := os.WriteFile(filepath.Join(dir, "inner.yaml"), []byte(inner), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(filepath.Join(dir, "outer.yaml"), []byte("params: {w: {default: word}, f: {type: path, default: sub}, e: {type: list, default: [p, q]}}\nsteps: [{run: inner.yaml, "+keys+"}]"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestNested: a pipeline that a step runs is given parameters, a folder and an
// environment.
func TestNested(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keys string
		with []step.Param
		dir  string
		env  []string
	}{
		{"cwd: .", nil, "/d", nil},
		{`with: {a: "v ${{ params.w }}"}`, []step.Param{{Name: "a", Values: []string{"v word"}}}, "/d", nil},
		{`with: {l: "${{ params.e }}", a: 3.10}`, []step.Param{{Name: "l", Values: []string{"p", "q"}}, {Name: "a", Values: []string{"3.10"}}}, "/d", nil},
		{"cwd: sub, env: {A: a}, extendEnv: [HOME], unset: [X]", nil, "/d/sub", []string{"A=a", "HOME=/h"}},
		{"env: {}", nil, "/d", []string{}},
	} {
		p := nestedDir(t, tt.keys)
		spec, err := bound(t, p, values(), bind.Look{})
		if err != nil {
			t.Fatal(err)
		}
		n := spec.Nested
		if n.Path != "inner.yaml" || n.File != filepath.Join(p.Dir, "inner.yaml") || spec.Stages != nil || spec.Command() != "pipe run inner.yaml" {
			t.Errorf("%s: %+v", tt.keys, n)
		}
		if !reflect.DeepEqual(n.With, tt.with) || n.Dir != tt.dir || tt.env != nil && !slices.Equal(n.Env, tt.env) || n.Inherits != (tt.env == nil) {
			t.Errorf("%s: %+v", tt.keys, n)
		}
		if strings.Contains(tt.keys, "unset") && (!slices.Equal(n.Unset, []string{"X"}) || !slices.Equal(n.Declared, []string{"A"})) {
			t.Errorf("%s: %+v", tt.keys, n)
		}
	}
	// A relative path of the caller is the caller's there, too.
	spec, err := bound(t, nestedDir(t, `cwd: e, with: {a: "${{ params.f }}"}`), values(), bind.Look{})
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Nested.With[0].Values[0]; got == "sub" {
		t.Log("a path that is given to a pipeline which runs elsewhere is taken for one there, for now")
	} else if got != "/d/sub" {
		t.Errorf("%q", got)
	}
	_, err = bound(t, nestedDir(t, `with: {a: "${{ args[3] }}"}`), values(), bind.Look{})
	if err == nil || !strings.HasPrefix(err.Error(), "with a: ${{ args[3] }}: ") {
		t.Errorf("%v", err)
	}
	built := &pipeline.Pipeline{Steps: []*pipeline.Step{{Name: "n", Run: &pipeline.Include{Pipeline: &pipeline.Pipeline{Steps: []*pipeline.Step{pipeline.SpawnStep("x", "x")}}}}}}
	if err := built.Check(); err != nil {
		t.Fatal(err)
	}
	if spec, err := bound(t, built, values(), bind.Look{}); err != nil || spec.Nested.File != "" || spec.Nested.Path != "" {
		t.Errorf("one without a file: %+v, %v", spec, err)
	}
}

// TestReady: how it is known that a service can be used.
func TestReady(t *testing.T) {
	const half = 30 * time.Second
	rows{
		{"at once", `steps: [{background: true, spawn: [x]}]`, (*step.Ready)(nil)},
		{"tcp", `steps: [{background: true, ready: {tcp: "localhost:${{ env.LANG }}"}, spawn: [x]}]`, &step.Ready{TCP: "localhost:C", Timeout: half}},
		{"http", `steps: [{background: true, ready: {http: "http://${{ env.LANG }}/"}, spawn: [x]}]`, &step.Ready{HTTP: "http://C/", Timeout: half}},
		{"log", `steps: [{background: true, ready: {log: "^up$", timeout: 1s}, spawn: [x]}]`, &step.Ready{Log: "^up$", Timeout: time.Second}},
		{"notify", `steps: [{background: true, ready: {notify: true, timeout: 0}, spawn: [x]}]`, &step.Ready{Notify: true}},
	}.run(t, func(s *step.Spec) any { return s.Service.Ready })
	t.Run("exec", func(t *testing.T) {
		t.Parallel()
		spec := specOf(t, `steps: [{background: true, cwd: sub, env: {A: a}, ready: {exec: [probe, "${{ env.HOME }}"]}, spawn: [x], stdin: inherit}]`)
		st := spec.Service.Ready.Exec
		kinds := []step.StdioKind{st.Stdio[0].Kind, st.Stdio[1].Kind, st.Stdio[2].Kind}
		if !slices.Equal(st.Args, []string{"probe", "/h"}) || st.Dir != "/d/sub" || !slices.Equal(st.Env, []string{"A=a"}) || !slices.Equal(kinds, []step.StdioKind{"ignore", "ignore", "ignore"}) || st.Keep != nil {
			t.Errorf("%+v", st)
		}
		spec = specOf(t, `steps: [{background: true, ready: {exec: "test -e f"}, pipe: [{spawn: [x], env: {B: b}}, {spawn: [y]}]}]`)
		if st := spec.Service.Ready.Exec; st.Text != "test -e f" || st.Shell != step.BuiltinShell || !slices.Equal(st.Env, []string{"B=b"}) {
			t.Errorf("%+v", st)
		}
	})
}

// TestJob: what a job is besides, and when it is started again.
func TestJob(t *testing.T) {
	rows{
		{"none", `steps: [{detached: true, spawn: [x]}]`, step.Restart{Policy: step.RestartNever, Delay: time.Second, Most: 10, Window: 10 * time.Minute}},
		{"a word", `steps: [{detached: true, restart: always, spawn: [x]}]`, step.Restart{Policy: step.RestartAlways, Delay: time.Second, Most: 10, Window: 10 * time.Minute}},
		{"all", `steps: [{detached: true, restart: {policy: on-failure, delay: 3s, backoff: fixed, maxRestarts: 7, window: 1h}, spawn: [x]}]`,
			step.Restart{Policy: step.RestartOnFailure, Delay: 3 * time.Second, Fixed: true, Most: 7, Window: time.Hour}},
		{"no limit", `steps: [{detached: true, restart: {policy: always, maxRestarts: 0, window: 0, delay: 0}, spawn: [x]}]`, step.Restart{Policy: step.RestartAlways}},
	}.run(t, func(s *step.Spec) any { return s.Job.Restart })
	t.Run("of what run", func(t *testing.T) {
		t.Parallel()
		spec := specOf(t, "params: {a: {default: x}}\nsecrets: [TOKEN]\nsteps: [{detached: true, unref: true, spawn: [x]}]", given("a", "y"), func(v *bind.Values) {
			v.Args, v.Nested, v.Hidden = []string{"z"}, true, []string{"outer-secret"}
		})
		want := &step.Job{
			Unref: true, File: "/f/test.yaml", Dir: "/d", Params: map[string][]string{"a": {"y"}}, Args: []string{"z"}, Nested: true,
			Hidden: []string{"token-12345", "outer-secret"}, Restart: spec.Job.Restart,
		}
		if !reflect.DeepEqual(spec.Job, want) {
			t.Errorf("%+v", spec.Job)
		}
	})
}

// TestGlobs: a value in a pattern stands for itself.
func TestGlobs(t *testing.T) {
	const params = "params: {s: {default: 'a*[b]'}, l: {type: list, default: ['x?', y]}, p: {type: path, default: p}}\n"
	globs := func(list ...string) (out []step.Glob) {
		for _, g := range list {
			p, not := strings.CutPrefix(g, "!")
			out = append(out, step.Glob{Pattern: p, Not: not})
		}
		return out
	}
	rows{
		{"none", `steps: [{spawn: [x]}]`, [][]step.Glob{nil, nil}},
		{"as written", `steps: [{sources: ["**/*.go", "!**/*_test.go", /abs/f], generates: bin/app, spawn: [x]}]`, [][]step.Glob{globs("**/*.go", "!**/*_test.go", "/abs/f"), globs("bin/app")}},
		{"a value", params + `steps: [{sources: ["${{ params.s }}/*"], spawn: [x]}]`, [][]step.Glob{globs(`a\*\[b]/*`), nil}},
		{"raw", params + `steps: [{sources: ["${{ raw(params.s) }}"], spawn: [x]}]`, [][]step.Glob{globs(`a*[b]`), nil}},
		{"a list", params + `steps: [{sources: ["${{ params.l }}", "!${{ params.l }}"], spawn: [x]}]`, [][]step.Glob{globs(`x\?`, "y", `!x\?`, "!y"), nil}},
		{"a path elsewhere", params + `steps: [{cwd: e, generates: ["${{ params.p }}/*"], sources: ["${{ params.p }}"], spawn: [x]}]`, [][]step.Glob{globs("/d/p"), globs("/d/p/*")}},
		{"of a pipe, of its first stage", params + `steps: [{sources: ["${{ params.p }}"], pipe: [{spawn: [x]}, {cwd: e, spawn: [y]}]}]`, [][]step.Glob{globs("p"), nil}},
	}.run(t, func(s *step.Spec) any { return [][]step.Glob{s.Sources, s.Generates} })
}

// TestErrors: what cannot be had is named by its key.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, src, want string }{
		{"cwd", `steps: [{spawn: [x], cwd: "${{ args[1] }}"}]`, "cwd: ${{ args[1] }}: "},
		{"an empty cwd", `steps: [{spawn: [x], cwd: "${{ env.NONE ?? '' }}"}]`, "cwd is empty; . is the current folder"},
		{"env", `steps: [{spawn: [x], env: {NAME: "${{ args[1] }}"}}]`, "env NAME: ${{ args[1] }}: "},
		{"a NUL in env", `steps: [{spawn: [x], env: {NAME: "${{ fromJSON('\"a\\u0000b\"') }}"}}]`, "env NAME: "},
		{"argument", `steps: [{spawn: [x, y, "${{ args[1] }}"]}]`, "argument 2: ${{ args[1] }}: "},
		{"the program", `steps: [{spawn: ["${{ args[1] }}"]}]`, "argument 0: ${{ args[1] }}: "},
		{"an empty program", `steps: [{spawn: ["${{ env.EMPTY }}", x]}]`, "the program's name is empty"},
		{"no program", "params: {l: {type: list, default: []}}\nsteps: [{spawn: ['${{ params.l }}']}]", "the program's name is empty"},
		{"program text", "params: {l: {type: list, default: [sh, -c, evil]}}\nsteps: [{spawn: ['${{ params.l }}']}]", "argument "},
		{"argv0", `steps: [{spawn: [x], argv0: "${{ args[1] }}"}]`, "argv0: ${{ args[1] }}: "},
		{"stdin", `steps: [{spawn: [x], stdin: {file: "${{ args[1] }}"}}]`, "stdin: ${{ args[1] }}: "},
		{"stdout", `steps: [{spawn: [x], stdout: {file: "${{ args[1] }}"}}]`, "stdout: ${{ args[1] }}: "},
		{"stderr", `steps: [{spawn: [x], stderr: {file: "${{ args[1] }}"}}]`, "stderr: ${{ args[1] }}: "},
		{"another descriptor", `steps: [{spawn: [x], stdio: [ignore, pipe, pipe, ignore, {file: "${{ args[1] }}"}]}]`, "stdio[4]: ${{ args[1] }}: "},
		{"input", `steps: [{spawn: [x], input: "${{ args[1] }}"}]`, "input: ${{ args[1] }}: "},
		{"shell text", `steps: [{exec: "echo ${{ args[1] }}"}]`, "shell text: ${{ args[1] }}: "},
		{"of another shell", `steps: [{exec: "echo ${{ args[1] }}", shell: bash}]`, "shell text: ${{ args[1] }}: "},
		{"a tee", `steps: [{pipe: [{spawn: [x]}, {tee: [{file: "${{ args[1] }}"}, {spawn: [y]}]}]}]`, "tee: ${{ args[1] }}: "},
		{"a cwd around a tee", `steps: [{cwd: "${{ args[1] }}", pipe: [{spawn: [x]}, {tee: [{file: f}, {spawn: [y]}]}]}]`, "cwd: ${{ args[1] }}: "},
		{"in a branch", `steps: [{pipe: [{spawn: [x]}, {tee: [[{spawn: [y]}, {spawn: [z, "${{ args[1] }}"]}], {file: f}]}]}]`, "argument 1: ${{ args[1] }}: "},
		{"sources", `steps: [{sources: ["${{ args[1] }}"], spawn: [x]}]`, "sources: ${{ args[1] }}: "},
		{"generates", `steps: [{sources: [a], generates: ["b", "${{ args[1] }}"], spawn: [x]}]`, "generates: ${{ args[1] }}: "},
		{"tcp", `steps: [{background: true, ready: {tcp: "${{ args[1] }}"}, spawn: [x]}]`, "ready: tcp: ${{ args[1] }}: "},
		{"http", `steps: [{background: true, ready: {http: "${{ args[1] }}"}, spawn: [x]}]`, "ready: http: ${{ args[1] }}: "},
		{"a probe", `steps: [{background: true, ready: {exec: [y, "${{ args[1] }}"]}, spawn: [x]}]`, "ready: exec: argument 1: ${{ args[1] }}: "},
		{"a step that has not run", `steps: [{name: a, execFile: [x]}, {spawn: [x, "${{ fromJSON(steps.a.stdout) }}"]}]`, "argument 1: ${{ fromJSON(steps.a.stdout) }}: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := bound(t, parse(t, tt.src), values(func(v *bind.Values) { v.Environ = []string{"EMPTY="} }), bind.Look{})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%v, expected %s", err, tt.want)
			}
		})
	}
	var se *engine.StartError
	_, err := bound(t, parse(t, `steps: [{spawn: [x], envFile: /nope/f}]`), values(), bind.Look{})
	if !errors.As(err, &se) || se.Path != "/nope/f" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that cannot be read: %#v", err)
	}
}

// TestLook: what is looked at before the run is shown as it is written; where
// each variable comes from is noted.
func TestLook(t *testing.T) {
	t.Parallel()
	const src = "steps: [{name: a, execFile: [x]}, {cwd: '${{ steps.a.stdout }}', sources: ['${{ fromJSON(steps.a.stdout).x }}'], spawn: [x, '${{ fromJSON(steps.a.stdout) }}', 'a b'], input: 'n ${{ steps.a.stages[0].exitCode }}'}]"
	var reads []bool
	spec, err := bound(t, parse(t, src), values(), bind.Look{AsWritten: func(r bool) bool { reads = append(reads, r); return r }})
	if err != nil {
		t.Fatal(err)
	}
	st := first(spec)
	if st.Dir != "/d/${{ steps.a.stdout }}" || st.Args[1] != "${{ fromJSON(steps.a.stdout) }}" || st.Command != "x ${{ fromJSON(steps.a.stdout) }} 'a b'" ||
		st.Input != "n ${{ steps.a.stages[0].exitCode }}" || spec.Sources[0].Pattern != "${{ fromJSON(steps.a.stdout).x }}" {
		t.Errorf("%+v", st)
	}
	if len(reads) != 3 || slices.Contains(reads, false) {
		t.Errorf("asked of %v", reads)
	}
	for _, src := range []string{ // what reads no step is an error all the same
		`steps: [{spawn: [x, "${{ args[1] }}"]}]`, `steps: [{exec: "x ${{ args[1] }}"}]`, `steps: [{spawn: [x], sources: ["${{ args[1] }}"]}]`,
	} {
		if spec, err := bound(t, parse(t, src), values(), bind.Look{AsWritten: func(reads bool) bool { return reads }}); err == nil {
			t.Errorf("%s: %+v", src, spec)
		}
		if _, err := bound(t, parse(t, src), values(), bind.Look{AsWritten: func(bool) bool { return true }}); err != nil {
			t.Errorf("%s: %v", src, err)
		}
	}
	spec, err = bound(t, parse(t, "steps: [{name: a, execFile: [x]}, {exec: 'echo ${{ fromJSON(steps.a.stdout) }}'}]"), values(), bind.Look{AsWritten: func(bool) bool { return true }})
	if err != nil || first(spec).Text != "echo ${{ fromJSON(steps.a.stdout) }}" || first(spec).Vars != nil {
		t.Errorf("%+v, %v", spec, err)
	}
	p := nestedDir(t, `with: {a: "${{ args[3] }}"}`)
	if spec, err := bound(t, p, values(), bind.Look{AsWritten: func(bool) bool { return true }}); err != nil || spec.Nested.With[0].Values[0] != "${{ args[3] }}" {
		t.Errorf("%+v, %v", spec, err)
	}
}

// TestTrace: the origins of a variable, the one that holds last.
func TestTrace(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "vars")
	if err := os.WriteFile(file, []byte("A=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := parse(t, "extendEnv: [HOME, A]\nenv: {HOME: outer}\nunset: [B]\nsteps:\n  - envFile: "+file+"\n    env: {HOME: inner, B: b}\n    unset: [B]\n    spawn: [x]\n")
	spec, err := bound(t, p, values(), bind.Look{Trace: true})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]safety.Origin{
		"HOME": {{Source: "inherited", Value: "/h"}, {Source: "env, /f/test.yaml:2", Value: "outer"}, {Source: "env, /f/test.yaml:6", Value: "inner"}},
		"A":    {{Source: "envFile " + file, Value: "file"}},
		"B":    {{Source: "env, /f/test.yaml:6", Value: "b"}, {Source: "unset", Unset: true}},
	}
	if got := first(spec).Origins; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	spec, err = bound(t, parse(t, "steps: [{spawn: [x]}]"), values(), bind.Look{Trace: true})
	if got := first(spec).Origins["HOME"]; err != nil || len(got) != 1 || got[0].Source != "inherited" || !first(spec).Inherits {
		t.Errorf("%+v, %v", got, err)
	}
	if first(specOf(t, "steps: [{spawn: [x], env: {A: a}}]")).Origins != nil {
		t.Error("the origins are noted though nobody asked")
	}
}

// TestUnknown: what stands for the result of a step that has not run.
func TestUnknown(t *testing.T) {
	t.Parallel()
	got, err := bind.Unknown("a")
	if err != nil {
		t.Fatal(err)
	}
	keys := slices.Sorted(maps.Keys(got))
	if !slices.Equal(keys, []string{"duration", "exitCode", "job", "reason", "signal", "stages", "status", "stderr", "stdout"}) || got["stdout"] != "${{ steps.a.stdout }}" || got["exitCode"] != 0 {
		t.Errorf("%v", got)
	}
}

// TestVars: what expressions read outside of any step.
func TestVars(t *testing.T) {
	rows{
		{"pipeline", "name: n\nsteps: [{spawn: ['${{ pipeline.name }}', '${{ pipeline.file }}', '${{ pipeline.dir }}', '${{ pipeline.runId }}']}]", []string{"n", "/f/test.yaml", "/f", "run-1"}},
		{"no args are an empty list", "steps: [{spawn: [x, '${{ toJSON(args) }}']}]", []string{"x", "[]"}},
		{"env", "steps: [{spawn: [x, '${{ env.EQ }}']}]", []string{"x", "a=b"}},
	}.run(t, func(s *step.Spec) any { return first(s).Args })
	t.Run("a root hides what is outside", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for _, name := range []string{"in/a", "out"} {
			if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700), os.WriteFile(filepath.Join(dir, name), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		root, err := safety.OpenDir(filepath.Join(dir, "in"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		spec := specOf(t, `steps: [{spawn: [x, "${{ glob('*') }}", "${{ glob('../*') }}"]}]`, func(v *bind.Values) { v.Dir, v.Root = filepath.Join(dir, "in"), root })
		if got := strings.Join(first(spec).Args, " "); got != "x a ." {
			t.Errorf("%s", got)
		}
	})
}

// TestParamError: what is wrong with what the caller gave is of one type, and
// tells no secret.
func TestParamError(t *testing.T) {
	t.Parallel()
	const src = "params: {i: {type: int, default: 1}, s: {}}\nsecrets: [TOKEN, SHORT]\nsteps: [{spawn: [x]}]"
	for _, tt := range []struct {
		change func(*bind.Values)
		want   string
	}{
		{func(*bind.Values) {}, "parameter s must be given: -p s=VALUE"},
		{func(v *bind.Values) { given("s", "a")(v); given("i", "x")(v) }, `parameter i: "x" is not a whole number`},
		{func(v *bind.Values) { given("s", "a")(v); given("i", "token-12345")(v) }, `parameter i: "***" is not a whole number`},
		{func(v *bind.Values) { given("s", "a", "b")(v) }, "parameter s: given 2 times; only a list may be repeated"},
		{func(v *bind.Values) { given("s", "a")(v); given("q", "a")(v) }, `unknown parameter "q"`},
		{func(v *bind.Values) { given("s", "a\x00")(v) }, "parameter s: the value holds a NUL byte"},
		{func(v *bind.Values) { given("s", "a")(v); v.Environ = []string{"TOKEN=long-enough", "SHORT=12345"} }, "secret SHORT is shorter than 6 bytes"},
	} {
		_, err := bind.New(parse(t, src), values(tt.change))
		var pe *bind.ParamError
		if !errors.As(err, &pe) || errors.Unwrap(err) == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "token-1") {
			t.Errorf("%v (%T), expected %s", err, err, tt.want)
		}
	}
	for _, environ := range [][]string{{"TOKEN=", "SHORT="}, nil} { // not set, or empty: there is nothing to mask
		if b, err := bind.New(parse(t, src), values(given("s", "a"), func(v *bind.Values) { v.Environ = environ })); err != nil || b.Redactor != nil {
			t.Errorf("%v: %v, %v", environ, b, err)
		}
	}
}

// TestBinder: what is known of a run besides its steps.
func TestBinder(t *testing.T) {
	t.Parallel()
	b, err := bind.New(parse(t, "secrets: [TOKEN]\nsteps: [{spawn: [x]}]"), values(func(v *bind.Values) { v.Hidden = []string{"outer-secret"} }))
	if err != nil {
		t.Fatal(err)
	}
	if b.RunID() != "run-1" || !slices.Equal(b.Hidden, []string{"token-12345", "outer-secret"}) || len(b.Public) != len(callers)-1 || slices.Contains(b.Public, "TOKEN=token-12345") {
		t.Errorf("%+v", b)
	}
	if got := b.Redactor.String("a token-12345 outer-secret"); got != "a *** ***" {
		t.Errorf("%s", got)
	}
	if spec := specOf(t, `steps: [{spawn: [x, "token-12345"]}]`, func(v *bind.Values) { v.Hidden = []string{"token-12345"} }); first(spec).Command != "x '***'" || first(spec).Args[1] != "token-12345" {
		t.Errorf("of a nested pipeline: %q", first(spec).Command)
	}
	if spec := specOf(t, "secrets: [TOKEN]\nsteps: [{exec: 'echo token-12345'}]"); first(spec).Command != "echo ***" || first(spec).Written != "echo token-12345" {
		t.Errorf("of shell text: %+v", first(spec))
	}
}

// TestMaskValue: secrets are masked wherever they are in a value.
func TestMaskValue(t *testing.T) {
	t.Parallel()
	r, err := safety.NewRedactor([]string{"token-12345"})
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]any{"token-12345": []any{"a token-12345", 3, nil, []string{"token-12345", "b"}, map[string]any{"k": "token-12345"}, true, 1.5}}
	want := map[string]any{"***": []any{"a ***", 3, nil, []string{"***", "b"}, map[string]any{"k": "***"}, true, 1.5}}
	if got := bind.MaskValue(r, in); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if in["token-12345"].([]any)[0] != "a token-12345" {
		t.Error("the value itself is changed")
	}
	if got := bind.MaskValue(nil, in); !reflect.DeepEqual(got, in) {
		t.Errorf("%v", got)
	}
}

// everything has a bit of all that a Spec can hold.
var everything = []string{`
params: {l: {type: list, default: [a, b]}, s: {default: "v"}}
secrets: [TOKEN]
mode: async
set: [errexit]
unset: [U]
env: {A: a}
steps:
  - name: a
    timeout: 1s
    idleTimeout: 2s
    sources: ["**/*.go", "!x"]
    generates: [out]
    unset: [V]
    uid: 1
    gid: 2
    pipe:
      - {spawn: [x, "${{ params.l }}", "<&>"], stdin: {file: in}, successCodes: [0, 3], env: {B: b}, argv0: z}
      - tee: [[{exec: 'echo "${{ params.s }}"'}, {execFile: [y], maxBuffer: 7, onOverflow: kill}], {file: f, append: true}]
      - {exec: 'echo "${{ params.s }}"', shell: bash, set: [nounset], stderr: stdout}
`, `
params: {s: {default: v}}
secrets: [TOKEN]
steps:
  - {name: j, detached: true, unref: true, restart: {policy: always, delay: 3s, backoff: fixed}, extendEnv: [TOKEN], input: "a\u2028b", stdout: ignore, stderr: {file: e}, exec: "cat; ${{ raw(params.s) }}"}
`, `
params: {s: {default: v}}
steps:
  - {name: s, background: true, ready: {exec: [probe], timeout: 1s}, uid: 7, spawn: [x]}
`}

// TestPlainData: a Spec goes through JSON and comes back as it was.
func TestPlainData(t *testing.T) {
	t.Parallel()
	var specs []*step.Spec
	for _, src := range everything {
		spec, err := bound(t, parse(t, src), values(given("s", "w x")), bind.Look{Trace: true})
		if err != nil {
			t.Fatal(err)
		}
		specs = append(specs, spec)
	}
	nested, err := bound(t, nestedDir(t, "with: {l: '${{ params.e }}'}, cwd: sub, env: {A: a}"), values(), bind.Look{Trace: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range append(specs, nested) {
		data, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		back := &step.Spec{}
		if err := d.Decode(back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(spec, back) {
			again, _ := json.Marshal(back)
			t.Errorf("%s\ncomes back as\n%s\n%s", spec.Label, data, again)
		}
	}
}

// TestOwnData: whatever is done to a Spec, the pipeline and what the caller gave
// stay as they are. Specs share the environment of stages that say nothing of it.
func TestOwnData(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*step.Spec)
		shared bool // it is the pipeline's own, for now
	}{
		{"Args", func(s *step.Spec) { s.Stages[0].Args[1] = "changed" }, false},
		{"Env", func(s *step.Spec) { s.Stages[0].Env[0] = "changed" }, false},
		{"Declared", func(s *step.Spec) { s.Stages[0].Declared[0] = "changed" }, false},
		{"Unset", func(s *step.Spec) { s.Stages[0].Unset[0] = "changed" }, false},
		{"Stdio", func(s *step.Spec) { s.Stages[0].Stdio[0].Path = "changed" }, false},
		{"Origins", func(s *step.Spec) { s.Stages[0].Origins["A"][0].Value = "changed" }, false},
		{"Tee", func(s *step.Spec) { s.Stages[1].Tee[0].Chain[0].Text, s.Stages[1].Tee[1].File = "changed", "changed" }, false},
		{"Vars", func(s *step.Spec) { s.Stages[1].Tee[0].Chain[0].Vars[0].Value = "changed" }, false},
		{"Keep", func(s *step.Spec) { s.Stages[2].Keep.Max = 99 }, false},
		{"Sources", func(s *step.Spec) { s.Sources[0].Pattern, s.Generates[0].Pattern = "changed", "changed" }, false},
		{"UID", func(s *step.Spec) { *s.Stages[0].UID = 99 }, true},
		{"GID", func(s *step.Spec) { *s.Stages[0].GID = 99 }, true},
		{"SuccessCodes", func(s *step.Spec) { s.Stages[0].SuccessCodes[0] = 99 }, true},
		{"Set", func(s *step.Spec) { s.Stages[2].Set[0] = "changed" }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := parse(t, everything[0])
			bindAnew := func() (*step.Spec, string) {
				spec, err := bound(t, p, values(), bind.Look{Trace: true})
				if err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(spec)
				if err != nil {
					t.Fatal(err)
				}
				return spec, string(text)
			}
			spec, before := bindAnew()
			tt.change(spec)
			if changed, _ := json.Marshal(spec); string(changed) == before {
				t.Fatal("nothing was changed")
			}
			if _, after := bindAnew(); after != before {
				if tt.shared {
					t.Errorf("a Spec shares %s with the pipeline", tt.name)
				}
				t.Errorf("a Spec that is changed changes the next one:\n%s\n%s", before, after)
			}
		})
	}
	v := values(given("s", "w"), func(v *bind.Values) { v.Args, v.Environ = []string{"arg"}, slices.Clone(callers) })
	spec, err := bound(t, parse(t, everything[1]), v, bind.Look{})
	if err != nil {
		t.Fatal(err)
	}
	first(spec).Env[0] = "changed"
	if !slices.Equal(v.Environ, callers) {
		t.Errorf("a Spec that is changed changes the caller's environment: %q", v.Environ)
	}
}

// TestConcurrent: one Binder makes many Specs at once, all the same.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	p := parse(t, everything[0])
	b, err := bind.New(p, values())
	if err != nil {
		t.Fatal(err)
	}
	plain := parse(t, "steps: [{exec: 'echo x'}]")
	pb, err := bind.New(plain, values())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	got := make([]string, 16)
	for i := range got {
		wg.Go(func() {
			for range 20 {
				spec, err := b.Spec(p.Steps[0], "l", b.Vars(bind.Unknown), bind.Look{Trace: i%2 == 0})
				if err != nil {
					t.Error(err)
					return
				}
				spec.Each(func(st *step.Stage) { st.Origins = nil })
				other, err := pb.Spec(plain.Steps[0], "l", pb.Vars(bind.Unknown), bind.Look{})
				if err != nil {
					t.Error(err)
					return
				}
				text, err := json.Marshal([]*step.Spec{spec, other})
				if err != nil {
					t.Error(err)
				}
				got[i] = string(text)
			}
		})
	}
	wg.Wait()
	for _, text := range got {
		if text != got[0] || text == "" {
			t.Fatalf("%s\nand at the same time\n%s", got[0], text)
		}
	}
}
