//go:build unix

package runner_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

// started is what an engine was given.
type started struct {
	Args []string
	Dir  string
	Env  []string
}

// noting is an engine that notes what it is given, by step and stage.
type noting struct {
	runnertest.Engine
	mu   sync.Mutex
	seen map[string]started
}

func (e *noting) Start(ctx context.Context, c *runner.Cmd) (runner.Process, error) {
	e.mu.Lock()
	if e.seen == nil {
		e.seen = map[string]started{}
	}
	e.seen[fmt.Sprint(c.Step, "/", c.Stage)] = started{slices.Clone(c.Args), c.Dir, slices.Sorted(slices.Values(c.Env))}
	e.mu.Unlock()
	return e.Engine.Start(ctx, c)
}

// TestExplainAgrees: Explain and Plan tell what a run starts.
func TestExplainAgrees(t *testing.T) {
	t.Parallel()
	for _, src := range []string{
		`steps: [{name: a, spawn: [x, y z, "$HOME"]}]`,
		`steps: [{name: a, spawn: [x], argv0: other, env: {}}]`,
		"cwd: sub\nenv: {A: a}\nsteps: [{name: a, spawn: [x, '${{ params.p }}', '${{ args }}'], env: {B: '${{ env.HOME }}'}, extendEnv: [LANG]}]\nparams: {p: {type: path, default: f}}",
		"unset: [HOME]\nsteps: [{name: a, cwd: s, execFile: [x]}]",
		"steps: [{name: a, forEach: '[1, 2]', spawn: [x, '${{ item }}']}]",
		"steps: [{name: a, matrix: {n: [p, q]}, spawn: [x, '${{ matrix.n }}']}]",
		"steps: [{name: a, env: {A: a}, pipe: [{spawn: [x]}, {tee: [[{spawn: [b, c]}], {spawn: [d]}]}, {cwd: e, spawn: [f], env: {B: b}}]}]",
		"mode: async\nsteps: [{name: a, exec: 'x y', shell: sh, set: [errexit]}]",
	} {
		dir := t.TempDir()
		for _, sub := range []string{"sub", "s", "e"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		p := parse(t, src)
		e := &noting{}
		r := runner.Runner{Engine: e, Dir: dir, Env: []string{"HOME=/h", "LANG=C"}}
		in := runner.Input{Args: []string{"one", "two words"}}
		explained, err := r.Explain(p, "a", in)
		if err != nil {
			t.Fatalf("%v: %s", err, src)
		}
		plan, err := r.Plan(p, in)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.seen) != 0 {
			t.Fatalf("looking starts %v", e.seen)
		}
		res, err := r.Run(t.Context(), p, in)
		if err != nil {
			t.Fatalf("%v: %s", err, src)
		}
		command := res.Steps[0].Command
		if res.Steps[0].Each != nil {
			command = "" // it is the first instance's that is planned as it is written
		}
		if len(plan) != 1 || !strings.HasPrefix(plan[0], "a: ") || command != "" && !strings.HasSuffix(plan[0], command) {
			t.Errorf("planned %q, and run %q", plan, command)
		}
		label := "a"
		if res.Steps[0].Each != nil {
			label = res.Steps[0].Each[0].Label
		}
		var ran []started
		for n := range 10 {
			if s, ok := e.seen[fmt.Sprint(label, "/", n)]; ok {
				ran = append(ran, s)
			}
		}
		if len(ran) != len(explained) {
			t.Fatalf("%s: explained %d, started %v", src, len(explained), e.seen)
		}
		for i, x := range explained {
			got := started{Args: x.Args, Dir: x.Dir, Env: []string{}}
			for _, v := range x.Env {
				if o := v.Origins[len(v.Origins)-1]; !o.Unset {
					got.Env = append(got.Env, v.Name+"="+o.Value)
				}
			}
			if x.Args == nil { // shell text
				got.Args = ran[i].Args
				if x.Shell != "sh" || x.Text != "x y" || !strings.HasSuffix(ran[i].Args[2], x.Text) || !strings.Contains(x.String(), "shell text, for sh:\n    x y\n") {
					t.Errorf("%+v", x)
				}
			}
			if ran[i].Env == nil {
				ran[i].Env = []string{}
			}
			if !reflect.DeepEqual(got, ran[i]) {
				t.Errorf("%s\nexplained %+v\nstarted   %+v", src, got, ran[i])
			}
		}
	}
}

// TestExplain: what is shown of a step before it runs.
func TestExplain(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml": `
secrets: [TOKEN]
steps:
  - {name: first, execFile: [x]}
  - {name: reads, spawn: [x, "${{ steps.first.stdout }}"], env: {T: "${{ env.TOKEN }}", A: a}, unset: [A], extendEnv: [HOME]}
  - {name: later, forEach: "lines(steps.first.stdout)", spawn: [x, "${{ item }}"]}
  - {name: nested, run: inner.yaml, with: {a: "x y"}, env: {}}
  - {name: shell, exec: "echo token-12345"}
  - {name: each, forEach: "['p', 'q', 'r', 's', 't']", spawn: [x, "${{ item }}"]}
  - {name: bad, spawn: [x, "${{ args[7] }}"]}
`, "inner.yaml": "params: {a: {}}\nsteps: [{spawn: [y]}]",
	})
	r := runner.Runner{Engine: &runnertest.Engine{}, Dir: "/", Env: []string{"TOKEN=token-12345", "HOME=/h"}}
	text := parse(t, "steps: [{name: a, exec: \"one\\ntwo\\n\"}, {name: b, spawn: [x, '${{ args[0] }}']}, {name: c, matrix: {n: [p, q]}, spawn: [x]}]")
	if plan, err := r.Plan(text, runner.Input{Args: []string{"y"}}); err != nil || !slices.Equal(plan, []string{"a: one\n    two", "b: x y", "c: x  (for p, q)"}) {
		t.Errorf("%q, %v", plan, err)
	}
	for _, tt := range []struct{ step, want string }{
		{"reads", "arguments: x '${{ steps.first.stdout }}'\nprogram: x\ncwd: /\nenvironment:\n    A is not set  (unset), hides a (env, " + p.File + ":5)\n    HOME=/h  (inherited)\n    T='***'  (env, " + p.File + ":5)\n"},
		{"later", "arguments: x '${{ item }}'\nprogram: x\n"},
		{"nested", "arguments: pipe run inner.yaml -p 'a=x y'\ncwd: /\nenvironment:\n    (empty)\n"},
		{"shell", "shell text, for builtin:\n    echo ***\ncwd: /\n"},
		{"each", "arguments: x p\n"},
		{"each[q]", "arguments: x q\n"},
	} {
		x, err := r.Explain(p, tt.step)
		if err != nil || len(x) != 1 || !strings.HasPrefix(x[0].String(), tt.want) {
			t.Errorf("%s: %v\n%s\nexpected\n%s", tt.step, err, x, tt.want)
		}
	}
	for name, want := range map[string]string{
		"nope": "", "each[z]": "step each has no [z]; it has p, q, r, and 2 more", "reads[z]": "step reads runs once, and has no [z]", "bad": "argument 1: ${{ args[7] }}: ",
	} {
		_, err := r.Explain(p, name)
		if err == nil || !strings.HasPrefix(err.Error(), want) || errors.Is(err, runner.ErrParams) != (name != "bad") {
			t.Errorf("%s: %v", name, err)
		}
		if _, uerr := r.UpToDate(p, name); name != "bad" && (uerr == nil || uerr.Error() != err.Error()) {
			t.Errorf("%s: %v", name, uerr)
		}
	}
	plan, err := r.Plan(p, runner.Input{Steps: []string{"reads", "nested", "bad"}})
	want := []string{"first: x", "reads: x ${{ steps.first.stdout }}", "nested: run inner.yaml a='x y'", "bad: x '${{ args[7] }}'"}
	if err != nil || len(plan) != 4 || plan[0] != want[0] || plan[1] != want[1] || plan[2] != want[2] || !strings.HasPrefix(plan[3], "bad: ") {
		t.Errorf("%q, %v", plan, err)
	}
	async := parse(t, "mode: async\nsteps: [{name: a, spawn: [x]}, {name: b, needs: [a], if: always(), pipe: [{spawn: [y]}, {tee: [{file: /f}, [{spawn: [p]}, {spawn: [q]}]]}, {spawn: [z]}]}]")
	plan, err = r.Plan(async)
	if err != nil || !slices.Equal(plan, []string{"a: x", "b: y | tee [> /f; p | q] | z  (needs a)  (if always())"}) {
		t.Errorf("%q, %v", plan, err)
	}
	for _, err := range []error{
		func() error { _, err := r.Explain(nil, "a"); return err }(), func() error { _, err := r.Plan(nil); return err }(),
		func() error { _, err := r.UpToDate(nil, "a"); return err }(), func() error { _, err := r.BindJob(nil, "a"); return err }(),
		func() error { _, err := r.Sources(nil, nil); return err }(),
	} {
		if !errors.Is(err, runner.ErrParams) {
			t.Errorf("%v", err)
		}
	}
}

// TestUpToDate: what UpToDate says is what a run then does, and Sources knows
// the files that decide.
func TestUpToDate(t *testing.T) {
	t.Parallel()
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.src", "a")
	write("b.src", "b")
	p := parse(t, "params: {w: {default: x}}\nsteps: [{name: a, sources: ['*.src'], execFile: [x, '${{ params.w }}']}, {name: plain, spawn: [y]}, {name: reads, sources: [a.src], spawn: [x, '${{ steps.a.stdout }}']}]")
	var again []string
	e := &runnertest.Engine{Behave: says}
	r := runner.Runner{Engine: e, Dir: dir, State: state, Env: []string{}, Sink: func(ev runner.Event) {
		if ev.Type == runner.EventRerun && ev.Label == "a" {
			again = append(again, ev.Message)
		}
	}}
	look := func(in ...runner.Input) string {
		t.Helper()
		got, err := r.UpToDate(p, "a", in...)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	run := func(in ...runner.Input) *runner.StepResult {
		t.Helper()
		again = nil
		res, err := r.Run(t.Context(), p, in...)
		if err != nil {
			t.Fatal(err)
		}
		if got := stdoutOf(t, res, "a"); got == "" {
			t.Error("the output is gone")
		}
		res.Close()
		return res.Step("a")
	}
	before, err := r.Sources(p, nil)
	if err != nil || len(before.Sums) != 2 || len(before.Unknown) != 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	if got := look(); got != "it runs: no earlier success is recorded" || run().Reused != "" || again != nil {
		t.Errorf("the first time: %q, %q", got, again)
	}
	if got := look(); !strings.HasPrefix(got, "up to date, since run ") || run().Reused != "up to date" {
		t.Errorf("the second time: %q", got)
	}
	other := runner.Input{Params: map[string][]string{"w": {"other"}}}
	if got := look(other); got != "it runs: argument 1 changed" || run(other).Reused != "" || !slices.Equal(again, []string{"argument 1 changed"}) {
		t.Errorf("another value: %q, %q", got, again)
	}
	if got := look(); got != "it runs: argument 1 changed" || run().Reused != "" {
		t.Errorf("and back: %q", got)
	}
	write("a.src", "A")
	now, err := r.Sources(p, before)
	if err != nil || !slices.Equal(now.Changed(before), []string{filepath.Join(dir, "a.src")}) {
		t.Errorf("%v, %v", now, err)
	}
	if got := look(); got != "it runs: a.src changed" || run().Reused != "" || !slices.Equal(again, []string{"a.src changed"}) {
		t.Errorf("another content: %q, %q", got, again)
	}
	r.Force = true
	if run().Reused != "" || !slices.Equal(again, []string{"--force"}) {
		t.Errorf("by force: %q", again)
	}
	r.Force = false
	for name, want := range map[string]string{"plain": "", "reads": ""} {
		if got, err := r.UpToDate(p, name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	r.State = ""
	if got := look(); got != "it runs: there is no folder where it would be remembered" {
		t.Errorf("%q", got)
	}
	r.State = filepath.Join(dir, "a.src")
	if got := look(); !strings.HasPrefix(got, "it runs: nothing is remembered: ") {
		t.Errorf("%q", got)
	}
	warned := ""
	r.Sink = func(ev runner.Event) {
		if ev.Type == runner.EventWarning {
			warned += ev.Message
		}
	}
	if _, err := r.Run(t.Context(), p); err != nil || !strings.HasPrefix(warned, "nothing of this run is kept: ") {
		t.Errorf("%q, %v", warned, err)
	}
}

// TestSources: the sources of nested pipelines and of instances are watched, and
// of what is known during a run only it is told.
func TestSources(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml": `
steps:
  - {name: plain, execFile: [x]}
  - {name: n, cwd: sub, run: inner.yaml, with: {f: in.src}}
  - {name: each, forEach: "['p', 'q']", sources: ["${{ item }}.src"], spawn: [x]}
  - {name: later, forEach: "lines(steps.plain.stdout)", sources: [s], spawn: [x]}
  - {name: reads, sources: ["${{ steps.plain.stdout }}"], spawn: [x]}
  - {name: bad, sources: ["${{ args[3] }}"], spawn: [x]}
`, "inner.yaml": "params: {f: {}}\nsteps: [{sources: ['${{ params.f }}'], spawn: [y]}]",
	})
	dir := t.TempDir()
	for _, name := range []string{"sub/in.src", "p.src", "q.src"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	w, err := (&runner.Runner{Dir: dir}).Sources(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "p.src"), filepath.Join(dir, "q.src"), filepath.Join(dir, "sub/in.src")}
	if got := slices.Sorted(maps.Keys(w.Sums)); !slices.Equal(got, want) || !slices.Contains(w.Unknown, "later") || !slices.Contains(w.Unknown, "reads") || slices.Contains(w.Unknown, "each") {
		t.Errorf("%v, unknown %v", got, w.Unknown)
	}
}

// TestResume: a run that failed goes on where it stopped, and nested steps too.
func TestResume(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml":  "steps: [{name: a, execFile: [x, said]}, {name: n, run: inner.yaml}, {name: reads, spawn: [x, '${{ steps.a.stdout }}']}]",
		"inner.yaml": "steps: [{name: one, spawn: [x]}, {name: two, spawn: [fails]}]",
	})
	code := 7
	var mu sync.Mutex
	var rerun []string
	e := &runnertest.Engine{Behave: func(c *runner.Cmd) runnertest.Behaviour {
		b := says(c)
		if c.Args[0] == "fails" {
			b.Status.Code = code
		}
		return b
	}}
	r := runner.Runner{Engine: e, Dir: t.TempDir(), State: filepath.Join(t.TempDir(), "state"), Env: []string{"A=a"}, Sink: func(ev runner.Event) {
		if ev.Type == runner.EventRerun {
			mu.Lock()
			rerun = append(rerun, ev.Label+": "+ev.Message)
			mu.Unlock()
		}
	}}
	if res, err := r.Run(t.Context(), p); err == nil || res.ExitCode != 7 {
		t.Fatal(res, err)
	}
	last := func() *runner.PastRun {
		t.Helper()
		past, err := runner.OpenRun(r.State, "last", r.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return past
	}
	if past := last(); past.Status != runner.RunEnded || past.ExitCode != 7 || past.Cause != "n" || len(past.Results) != 5 {
		t.Errorf("%+v", past)
	}
	code = 0
	n := len(e.Started())
	res, err := r.Run(t.Context(), p, runner.Input{Resume: last()})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Started()[n:]; !slices.Equal(got, []string{"two", "reads"}) {
		t.Errorf("started %v", got)
	}
	if !slices.Equal(rerun, []string{"n/two: it failed with exit code 7", "reads: it was skipped"}) {
		t.Errorf("%q", rerun)
	}
	if a := res.Step("a"); !strings.HasPrefix(a.Reused, "run ") || stdoutOf(t, res, "a") != "said\n" || res.Step("n").Sub.Step("one").Reused == "" || a.Duration() > time.Minute {
		t.Errorf("%+v", a)
	}
	if n, err := runner.PruneRuns(r.State, 1); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if runs, err := runner.Runs(r.State); len(runs) != 1 || err != nil || runs[0].ExitCode != 0 {
		t.Errorf("%v, %v", runs, err)
	}
	if dir, err := runner.StateDir([]string{"HOME=/h"}); dir != "/h/.local/state/pipe" || err != nil {
		t.Errorf("%s, %v", dir, err)
	}
}

// jobs are jobs that end as they are told.
type jobs struct {
	mu    sync.Mutex
	specs []*runner.JobSpec
	err   error // Start fails with it
	end   runner.JobEnd
	kept  bool
	stay  bool // they do not end
}

func (j *jobs) Start(_ context.Context, spec *runner.JobSpec) (runner.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, j.err
	}
	j.specs = append(j.specs, spec)
	return j, nil
}

func (j *jobs) ID() string { return "0badcafe" }
func (j *jobs) Kept() bool { return j.kept }
func (j *jobs) Wait(ctx context.Context, output func(runner.Stream, []byte)) (runner.JobEnd, error) {
	output(runner.StreamStdout, []byte("job out\n"))
	output(runner.StreamStderr, []byte("job err\n"))
	if j.stay {
		<-ctx.Done()
		return runner.JobEnd{}, context.Cause(ctx)
	}
	return j.end, j.err
}

// TestJobs: a detached step is handed over with what BindJob binds, and waited
// for unless it is unref.
func TestJobs(t *testing.T) {
	t.Parallel()
	failed := runner.JobEnd{Exit: runner.Status{Code: 143, Signal: syscall.SIGTERM}, Reason: runner.ReasonSignal, Err: errWhy}
	for _, tt := range []struct {
		name, keys string
		j          *jobs // nil: there are none
		foreground bool
		want       string // of the step
		code       int
		out        string // of the run
	}{
		{"unref", "unref: true, ", &jobs{}, false, "success", 0, ""},
		{"waited for", "", &jobs{}, false, "success", 0, "job out\n"},
		{"failed", "", &jobs{end: failed}, false, "failure", 143, "job out\n"},
		{"kept", "unref: true, ", &jobs{kept: true}, false, "success", 0, ""},
		{"not started", "unref: true, ", &jobs{err: &runner.StartError{Code: 126, Msg: "no"}}, false, "failure", 126, ""},
		{"none", "unref: true, ", nil, false, "failure", 126, ""},
		{"in the foreground", "unref: true, ", &jobs{}, true, "success", 0, "x\n"},
		{"longer than the run", "", &jobs{stay: true}, false, "cancelled", 124, "job out\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := "timeout: 0\n"
			if tt.j != nil && tt.j.stay {
				limit = "timeout: 20ms\n"
			}
			p := parse(t, limit+"params: {w: {default: x}}\nsteps: [{name: a, detached: true, "+tt.keys+"spawn: [x, '${{ params.w }}'], cwd: ., env: {A: a}}]")
			var out, errs strings.Builder
			var label string
			r := runner.Runner{Engine: &runnertest.Engine{Behave: says}, Stdout: &out, Stderr: &errs, Foreground: tt.foreground, Env: []string{}}
			if tt.j != nil {
				r.Jobs = tt.j
			}
			in := runner.Input{Params: map[string][]string{"w": {"x"}}}
			res, err := r.Run(t.Context(), p, in)
			if res == nil {
				t.Fatal(err)
			}
			st := res.Step("a")
			if st.Status.String() != tt.want || res.ExitCode != tt.code || out.String() != tt.out || (tt.out == "job out\n") != (errs.String() == "job err\n") {
				t.Errorf("%s, %d, %q, %q, %v", st.Status, res.ExitCode, out.String(), errs.String(), err)
			}
			if tt.name == "failed" && !errors.Is(err, errWhy) {
				t.Errorf("%v", err)
			}
			if tt.j == nil || tt.j.err != nil || tt.foreground {
				return
			}
			bound, err := r.BindJob(p, "a", in)
			if err != nil || len(tt.j.specs) != 1 || !reflect.DeepEqual(bound, tt.j.specs[0]) || st.Job != "0badcafe" {
				t.Errorf("bound %+v, %v\nstarted %+v", bound, err, tt.j.specs)
			}
			r.Sink = func(e runner.Event) {
				if e.Type == runner.EventJob {
					label = e.Label + " " + e.Message
				}
			}
			_, _ = r.Run(t.Context(), p, in)
			if label != "a 0badcafe" || tt.out != out.String() { // with a sink it is told, and not written
				t.Errorf("%q, %q", label, out.String())
			}
		})
	}
}

// TestBindJob: what job a detached step is now.
func TestBindJob(t *testing.T) {
	t.Parallel()
	p := parse(t, `
steps:
  - {name: first, execFile: [x]}
  - {name: reads, detached: true, unref: true, spawn: [x, "${{ steps.first.stdout }}"]}
  - {name: each, forEach: "['p', 'q']", detached: true, unref: true, spawn: [x, "${{ item }}"]}
  - {name: bad, forEach: "args[3]", detached: true, unref: true, spawn: [x]}
  - {detached: true, unref: true, spawn: [x, "${{ args[3] }}"]}`)
	r := runner.Runner{Dir: "/", Env: []string{}}
	if spec, err := r.BindJob(p, "each[q]"); err != nil || spec.Label != "each[q]" || !slices.Equal(spec.Stages[0].Args, []string{"x", "q"}) {
		t.Errorf("%+v, %v", spec, err)
	}
	for label, want := range map[string]string{
		"first": "test.yaml has no detached step first any more", "each": "test.yaml has no detached step each any more", "each[z]": "test.yaml has no detached step each[z] any more",
		"reads": "reads takes values from steps that have to run before it; ", "bad[x]": "", "#5 x": "argument 1: ${{ args[3] }}: ",
	} {
		if spec, err := r.BindJob(p, label); err == nil || !strings.HasPrefix(err.Error(), want) || spec != nil {
			t.Errorf("%s: %v, %v", label, spec, err)
		}
	}
}

// TestConfinedJob: a job whose folder or files are outside of the root is not
// handed over.
func TestConfinedJob(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "in"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for keys, want := range map[string]int{
		"": 0, ", cwd: /": 126, ", cwd: ..": 126, ", stdout: {file: out}": 0, ", stdout: {file: /tmp/x}": 126, ", stdin: {file: in}": 0, ", stdin: {file: nope}": 126, ", stderr: {file: ../x}": 126,
	} {
		j := &jobs{}
		r := runner.Runner{Root: root, Dir: root, Jobs: j, Env: []string{}}
		res, err := r.Run(t.Context(), parse(t, "steps: [{name: a, detached: true, unref: true, spawn: [x]"+keys+"}]"))
		if res == nil || res.ExitCode != want || len(j.specs) != 1-want/126 {
			t.Errorf("%q: %v, %v", keys, res, err)
		}
	}
}

// TestServices: others go on when a service is ready, and it is ended with the
// pipeline, the last one first; one that ends before is a failure.
func TestServices(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, src, want string
		keep            bool
		code            int
		took            time.Duration
	}{
		{"ready at once", "steps: [{name: s, background: true, spawn: [x, for=1h]}, {name: a, spawn: [x, for=1s]}]", "s:success a:success", false, 0, time.Second},
		{"two", "steps: [{name: s, background: true, spawn: [x, for=1h]}, {name: t, background: true, spawn: [x, for=1h]}, {name: a, spawn: [x, for=1s]}]", "s:success t:success a:success", false, 0, time.Second},
		{"never ready", "steps: [{name: s, background: true, ready: {log: up, timeout: 3s}, spawn: [x, for=1h]}, {name: a, spawn: [x]}]", "s:failure a:skipped", false, 1, 3 * time.Second},
		{"a line", "steps: [{name: s, background: true, ready: {log: up}, spawn: [x, up, for=1h]}, {name: a, spawn: [x]}]", "s:success a:success", false, 0, 0},
		{"it ends while others lean on it", "steps: [{name: s, background: true, spawn: [x, for=2s, exit=4]}, {name: a, spawn: [x, for=9s]}, {name: c, if: failure(), spawn: [x]}]", "s:failure a:cancelled c:success", false, 4, 2 * time.Second},
		{"it ends well, but too early", "steps: [{name: s, background: true, spawn: [x, for=2s]}, {name: a, spawn: [x, for=9s]}]", "s:failure a:cancelled", false, 1, 2 * time.Second},
		{"nobody minds", "steps: [{name: s, background: true, continueOnError: true, spawn: [x, for=2s]}, {name: a, spawn: [x, for=9s]}]", "s:failure a:success", false, 0, 9 * time.Second},
		{"what needs it does not start", "mode: async\nmaxParallel: 0\nsteps: [{name: s, background: true, spawn: [x, for=2s]}, {name: a, needs: [s], spawn: [x, for=3s]}, {name: b, needs: [a], spawn: [x]}, {name: c, needs: [b], if: failure(), spawn: [x]}, {name: d, needs: [s, a], spawn: [x]}]",
			"s:failure a:success b:success c:success d:skipped", true, 1, 3 * time.Second},
		{"the run is over", "steps: [{name: s, background: true, killAfter: 2s, spawn: [x, for=1h, ignore]}, {name: a, spawn: [x, exit=3]}]", "s:success a:failure", false, 3, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := parse(t, tt.src)
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ready := 0
				var mu sync.Mutex
				r := runner.Runner{Engine: &runnertest.Engine{Behave: says}, KeepGoing: tt.keep, Sink: func(e runner.Event) {
					mu.Lock()
					defer mu.Unlock()
					if e.Type == runner.EventReady {
						ready++
					}
				}}
				res, err := r.Run(t.Context(), p)
				if res == nil || statuses(res) != tt.want || res.ExitCode != tt.code || time.Since(began) != tt.took {
					t.Errorf("%s, exit code %d after %s (%v)\nexpected %s, %d, %s", statuses(res), res.ExitCode, time.Since(began), err, tt.want, tt.code, tt.took)
				}
				if st := &res.Steps[0]; st.Status == runner.StatusSuccess && st.CancelledBy != "" {
					t.Errorf("a service that ended with the run was cancelled by %s", st.CancelledBy)
				}
				if services := strings.Count(tt.src, "background"); ready != services && tt.name != "never ready" {
					t.Errorf("%d are ready", ready)
				}
			})
		})
	}
}

// TestTimeoutOfBuilt: a pipeline without a file has no position to name.
func TestTimeoutOfBuilt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pipeline.Pipeline{Timeout: time.Second, Steps: []*pipeline.Step{pipeline.SpawnStep("a", "x", "for=9s")}}
		_, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}}).Run(t.Context(), p)
		if err == nil || !strings.HasPrefix(err.Error(), "the pipeline took longer than its timeout of 1s") {
			t.Error(err)
		}
	})
}

// TestServiceSeen: a step may evaluate what it says of a service while that ends;
// the race detector would tell.
func TestServiceSeen(t *testing.T) {
	t.Parallel()
	need(t, "sh", "cat", "mkfifo")
	dir := t.TempDir()
	r := runner.Runner{Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH")}, Sink: func(runner.Event) {}}
	p := parse(t, `
mode: async
steps:
  - {name: f, spawn: [mkfifo, go, over]}
  - {name: s, needs: [f], background: true, continueOnError: true, spawn: [sh, -c, "cat go; echo over >over"]}
  - {name: a, needs: [s], spawn: [sh, -c, "echo go >go; cat over; echo $1", sh, "${{ steps.s.status }}"]}
`)
	res, err := r.Run(t.Context(), p)
	if res == nil || res.Step("a").Status != runner.StatusSuccess {
		t.Error(err)
	}
}

// TestResults: what is said of each end.
func TestResults(t *testing.T) {
	t.Parallel()
	need(t, "sh", "seq")
	var warned strings.Builder
	var mu sync.Mutex
	run := func(src string, env ...string) *runner.Result {
		t.Helper()
		r := runner.Runner{Sink: func(e runner.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Type == runner.EventWarning {
				warned.WriteString(e.Message + "\n")
			}
		}, Env: append(env, "PATH="+os.Getenv("PATH"))}
		res, err := r.Run(t.Context(), parse(t, src))
		if res == nil {
			t.Fatal(err)
		}
		t.Cleanup(res.Close)
		return res
	}
	for src, want := range map[string]string{
		`steps: [{spawn: [sh, -c, 'kill -9 $$']}]`:                                     "killed by SIGKILL 137",
		`steps: [{execFile: [seq, "10000"], maxBuffer: 10, onOverflow: kill}]`:         "its output is larger than maxBuffer (onOverflow: kill) 1",
		`steps: [{spawn: [sh, -c, 'exit 3'], successCodes: [3]}]`:                      "success 0",
		`steps: [{spawn: [sh, -c, 'exit 0'], successCodes: [3]}]`:                      "exit status 0 1",
		`steps: [{timeout: 20ms, spawn: [sleep, "100"]}]`:                              "timed out, ended by SIGTERM 124",
		`steps: [{idleTimeout: 20ms, spawn: [sleep, "100"]}]`:                          "gave no output for its idleTimeout, ended by SIGTERM 124",
		`steps: [{retry: {attempts: 2, on: [SIGKILL]}, spawn: [sh, -c, 'kill $$']}]`:   "killed by SIGTERM 143",
		`steps: [{retry: {attempts: 2, on: [SIGTERM]}, spawn: [sh, -c, 'kill $$']}]`:   "killed by SIGTERM 143",
		`steps: [{retry: {attempts: 2, on: [timeout]}, spawn: [no-such-prog-at-all]}]`: "program \"no-such-prog-at-all\" not found in PATH",
	} {
		res := run(src)
		st := &res.Steps[0]
		if got := fmt.Sprint(st, " ", res.ExitCode); !strings.HasPrefix(got, want) {
			t.Errorf("%s\n%q, expected %q", src, got, want)
		}
		if strings.Contains(src, "on: [SIGTERM]") != (len(st.Attempts) == 1) {
			t.Errorf("%s: %d attempts before", src, len(st.Attempts))
		}
	}
	res := run("secrets: [TOKEN]\nsteps: [{name: a, extendEnv: [TOKEN, PATH], exec: 'echo $TOKEN; echo err $TOKEN >&2; exit 3'}, {name: b, if: always(), extendEnv: [PATH], spawn: [no-such-token-12345]}]", "TOKEN=token-12345")
	errs, err := res.Step("a").Stages[0].Stderr(6)
	if out := stdoutOf(t, res, "a"); out != "***\n" || err != nil || string(errs) != "err **" {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if b := res.Step("b"); strings.Contains(b.Command+b.Err.Error()+b.Stages[0].Command, "token-1") {
		t.Errorf("%+v", b)
	}
	res.Close()
	if _, err := res.Step("a").Stages[0].Stdout(0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	warned.Reset()
	res = run("outputs: {good: steps.a.exitCode, bad: fromJSON(steps.a.stdout), sig: 'steps.a.stages[0].signal', second: 'steps.f.each[1].stdout + steps.f.each[1].item'}\nsteps: [{name: a, continueOnError: true, execFile: [sh, -c, 'kill $$']}, {name: e, forEach: '[]', spawn: [x]}, {name: f, forEach: \"['p', 'q']\", execFile: [sh, -c, 'echo $1', sh, '${{ item }}']}]")
	if res.Outputs["good"] != 143 || res.Outputs["sig"] != "SIGTERM" || res.Outputs["second"] != "qq" || res.Outputs["bad"] != nil || !strings.Contains(warned.String(), "output bad: ") || !strings.Contains(warned.String(), "there is nothing to run it for: the list is empty") {
		t.Errorf("%v, %s", res.Outputs, warned.String())
	}
	var running runner.StepResult
	if running.Duration() != 0 {
		t.Error("a step that has not started took a while")
	}
	if running.Start = time.Now().Add(-time.Hour); running.Duration() < time.Hour {
		t.Error("a step that goes on took no time")
	}
}
