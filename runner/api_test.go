//go:build unix

package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/report"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

// says is prog that writes its arguments, but for those that prog knows, to
// stdout; the program no is not there.
func says(c *runner.Cmd) runnertest.Behaviour {
	b := prog(c)
	if c.Args[0] == "no" {
		b.Err = &runner.StartError{Path: "no", Code: 127, Msg: "no: not found", Err: os.ErrNotExist}
	}
	for _, a := range c.Args[1:] {
		if !strings.HasPrefix(a, "for=") && !strings.HasPrefix(a, "exit=") && a != "ignore" {
			b.Output += a + "\n"
		}
	}
	return b
}

// need skips a test where a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// stdoutOf returns what the first stage of a step wrote.
func stdoutOf(t *testing.T, res *runner.Result, name string) string {
	t.Helper()
	st := res.Step(name)
	if st == nil || len(st.Stages) == 0 {
		t.Fatalf("there is no result of %s", name)
	}
	b, err := st.Stages[0].Stdout(0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var errWhy = errors.New("why")

// TestRunError: the error of Run is nil only where all went well; else it says
// which step, and what, and wraps it.
func TestRunError(t *testing.T) {
	type as struct {
		step, reason, command, signal string
		code                          int
	}
	for _, tt := range []struct {
		name, src string
		ctx       func(context.Context) (context.Context, context.CancelFunc)
		text      string // of the error; "": there is none
		code      int    // of the result
		failed    *as    // nil: the error is of no step
		is        []error
		as        []any
	}{
		{name: "success", src: `steps: [{name: a, spawn: [x]}]`},
		{name: "a failure that nobody minds", src: `steps: [{name: a, continueOnError: true, spawn: [x, exit=3]}]`},
		{name: "a step that is skipped", src: `steps: [{name: a, if: "1 > 2", spawn: [x]}]`},
		{name: "exit code", src: "\nsteps:\n  - name: a\n    spawn: [x, exit=3]", text: "test.yaml:3:5: step a failed: exit status 3", code: 3, failed: &as{"a", "exit", "x exit=3", "", 3}},
		{name: "no such program", src: "steps: [{spawn: [no]}]", text: "test.yaml:1:9: step #1 no failed: no: not found", code: 127, failed: &as{"#1 no", "spawn", "no", "", 127}, is: []error{os.ErrNotExist}, as: []any{new(*runner.StartError)}},
		{name: "expression", src: `steps: [{name: a, spawn: [x, "${{ args[1] }}"]}]`, text: "test.yaml:1:9: step a failed: argument 1: ${{ args[1] }}: ", code: 1, failed: &as{"a", "expression", "", "", 1}},
		{name: "condition", src: `steps: [{name: a, if: "args[1] == 'x'", spawn: [x]}]`, text: "test.yaml:1:9: step a failed: ", code: 1, failed: &as{"a", "expression", "", "", 1}},
		{name: "an instance", src: `steps: [{name: a, forEach: "['p', 'q']", spawn: [x, "exit=${{ item == 'q' ? 4 : 0 }}"]}]`, text: "test.yaml:1:9: step a[q] failed: exit status 4", code: 4, failed: &as{"a[q]", "exit", "x exit=4", "", 4}},
		{name: "timeout", src: `steps: [{name: a, timeout: 1s, spawn: [x, for=9s]}]`, text: "test.yaml:1:9: step a failed: timed out after 1s", code: 124, failed: &as{"a", "timeout", "x for=9s", "", 124}, is: []error{context.DeadlineExceeded}},
		{name: "idleTimeout", src: `steps: [{name: a, idleTimeout: 1s, spawn: [x, for=9s]}]`, text: "test.yaml:1:9: step a failed: gave no output for 1s (idleTimeout)", code: 124, failed: &as{"a", "idleTimeout", "x for=9s", "", 124}, is: []error{context.DeadlineExceeded}},
		{name: "timeout of the pipeline", src: "timeout: 1s\nsteps: [{name: a, spawn: [x, for=9s]}]", text: "test.yaml: the pipeline took longer than its timeout of 1s", code: 124, is: []error{context.DeadlineExceeded}},
		{name: "deadline of the context", src: `steps: [{name: a, spawn: [x, for=9s]}]`, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		},
			text: "context deadline exceeded", code: 1, is: []error{context.DeadlineExceeded}},
		{name: "a context that is done before", src: `steps: [{name: a, spawn: [x]}]`, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, text: "context canceled", code: 1, is: []error{context.Canceled}},
		{name: "a cause", src: `steps: [{name: a, spawn: [x, for=9s]}]`, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, errWhy)
		}, text: "why", code: 1, is: []error{errWhy, context.DeadlineExceeded}},
		{name: "a signal", src: `steps: [{name: a, spawn: [x, for=9s]}]`, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(&runner.Interrupt{Signal: syscall.SIGTERM}) })
			return ctx, func() { cancel(nil) }
		}, text: "interrupted by SIGTERM", code: 143, is: []error{context.Canceled}, as: []any{new(*runner.Interrupt)}},
		{name: "a signal while it cleans up", src: "steps: [{name: a, spawn: [x, exit=3]}, {if: always(), spawn: [x, for=9s]}]", ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(&runner.Interrupt{Signal: syscall.SIGINT}) })
			return ctx, func() { cancel(nil) }
		}, text: "interrupted by SIGINT\ntest.yaml:1:9: step a failed: exit status 3", code: 130, failed: &as{"a", "exit", "x exit=3", "", 3}, is: []error{context.Canceled}, as: []any{new(*runner.Interrupt)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := parse(t, tt.src)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if tt.ctx != nil {
					ctx, cancel = tt.ctx(ctx)
				}
				defer cancel()
				res, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}}).Run(ctx, p)
				if res == nil {
					t.Fatalf("there is no result: %v", err)
				}
				if (err == nil) != (tt.text == "") || err != nil && !strings.HasPrefix(err.Error(), tt.text) || res.ExitCode != tt.code {
					t.Fatalf("%v, exit code %d\nexpected %s, %d", err, res.ExitCode, tt.text, tt.code)
				}
				var se *runner.StepError
				if found := errors.As(err, &se); found != (tt.failed != nil) {
					t.Fatalf("%#v", err)
				}
				if want := tt.failed; want != nil {
					got := as{se.Step, string(se.Reason), se.Command, se.Signal, se.ExitCode}
					got.signal = "" // of a timeout it depends
					if got != *want || se.File != "test.yaml" || !se.Pos.IsValid() || res.Cause == nil || res.Cause.Label != se.Step {
						t.Errorf("%+v\nexpected %+v", got, *want)
					}
				}
				for _, target := range tt.is {
					if !errors.Is(err, target) {
						t.Errorf("%v is not %v", err, target)
					}
				}
				for _, target := range tt.as {
					if !errors.As(err, target) {
						t.Errorf("%v is no %T", err, target)
					}
				}
				for _, other := range []error{context.Canceled, context.DeadlineExceeded} {
					if err != nil && errors.Is(err, other) && !slices.Contains(tt.is, other) {
						t.Errorf("%v is %v", err, other)
					}
				}
			})
		})
	}
}

// TestBuiltError: the error of a pipeline without a file names no place.
func TestBuiltError(t *testing.T) {
	t.Parallel()
	p := &pipeline.Pipeline{Steps: []*pipeline.Step{pipeline.SpawnStep("a", "x", "exit=7")}}
	res, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}}).Run(t.Context(), p)
	var se *runner.StepError
	if !errors.As(err, &se) || err.Error() != "step a failed: exit status 7" || se.File != "" || len(se.Stages) != 1 || se.Stages[0].Exit.Code != 7 {
		t.Errorf("%v", err)
	}
	if st := res.Step("a"); st == nil || st != &res.Steps[0] || res.Step("b") != nil || res.Step("") != nil {
		t.Errorf("%v", st)
	}
	var none *runner.Result
	none.Close() // of a run that did not start
}

// TestNotStarted: what is wrong with what is given is said before anything starts.
func TestNotStarted(t *testing.T) {
	t.Parallel()
	good := `params: {i: {type: int, default: 1}}
steps: [{name: a, spawn: [x]}]`
	var list pipeline.Errors
	for _, tt := range []struct {
		name string
		p    *pipeline.Pipeline
		r    runner.Runner
		in   []runner.Input
		text string
		bad  bool // it wraps ErrParams
		as   any
	}{
		{"no pipeline", nil, runner.Runner{}, nil, "runner: the pipeline is nil", true, nil},
		{"two inputs", parse(t, good), runner.Runner{}, make([]runner.Input, 2), "runner: a run takes one Input", true, nil},
		{"a parameter", parse(t, good), runner.Runner{}, []runner.Input{{Params: map[string][]string{"i": {"x"}}}}, `parameter i: "x" is not a whole number`, true, nil},
		{"a step", parse(t, good), runner.Runner{}, []runner.Input{{Steps: []string{"b"}}}, "", true, nil},
		{"a root", parse(t, good), runner.Runner{Root: "/no/such"}, nil, "root /no/such: no such file or directory", true, nil},
		{"outside of the root", parse(t, good), runner.Runner{Root: t.TempDir(), Dir: "/"}, nil, "the caller's folder /: ", true, nil},
		{"a pipeline that is wrong", &pipeline.Pipeline{Steps: []*pipeline.Step{{Name: "a"}}}, runner.Runner{}, nil, "", false, &list},
		{"a resumed run without state", parse(t, good), runner.Runner{}, []runner.Input{{Resume: &runner.PastRun{}}}, "a run that is to be resumed needs the folder of its state", false, nil},
	} {
		e := &runnertest.Engine{}
		tt.r.Engine = e
		res, err := tt.r.Run(t.Context(), tt.p, tt.in...)
		if res != nil || err == nil || !strings.HasPrefix(err.Error(), tt.text) || errors.Is(err, runner.ErrParams) != tt.bad || len(e.Started()) != 0 {
			t.Errorf("%s: %v, %v", tt.name, res, err)
		}
		if tt.as != nil && !errors.As(err, tt.as) || tt.name == "a root" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %T", tt.name, err)
		}
	}
	secret := parse(t, "secrets: [S]\nsteps: [{spawn: [x]}]")
	if _, err := (&runner.Runner{Env: []string{"S=qqq"}}).Run(t.Context(), secret); !errors.Is(err, runner.ErrParams) || strings.Contains(err.Error(), "qqq") {
		t.Errorf("a short secret: %v", err)
	}
	lock := parse(t, "lock: {name: one, wait: 0}\nsteps: [{name: a, lock: {name: one, wait: 0}, spawn: [x]}]")
	r := runner.Runner{Engine: &runnertest.Engine{}, Env: []string{"PIPE_STATE_DIR=" + filepath.Join(t.TempDir(), "s")}}
	var le *runner.LockError
	if res, err := r.Run(t.Context(), lock); res == nil || !errors.As(err, &le) || le.Name != "one" { // its own run holds it
		t.Errorf("%v, %v", res, err)
	}
	if _, err := (&runner.Runner{Env: []string{}}).Run(t.Context(), lock); !errors.Is(err, runner.ErrNoState) {
		t.Errorf("%v", err)
	}
}

// TestManyAtOnce: one Runner runs many pipelines at once, each with its Input.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	var events sync.Map
	r := runner.Runner{Engine: &runnertest.Engine{Behave: says}, Dir: t.TempDir(), Env: []string{"A=a"}, Sink: func(e runner.Event) { events.Store(e.Pipeline, true) }}
	pipelines := []*pipeline.Pipeline{
		parse(t, "params: {p: {}}\nsteps: [{name: a, execFile: [x, '${{ params.p }}']}]"),
		parse(t, "mode: async\nparams: {p: {}}\nsteps: [{name: a, execFile: [x, '${{ params.p }}']}, {execFile: [y]}]"),
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			word := fmt.Sprint("word-", i)
			res, err := r.Run(t.Context(), pipelines[i%2], runner.Input{Params: map[string][]string{"p": {word}}})
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Close()
			if got := stdoutOf(t, res, "a"); got != word+"\n" {
				t.Errorf("%q instead of %s", got, word)
			}
		})
	}
	wg.Wait()
	for _, p := range pipelines {
		if _, ok := events.Load(p); !ok {
			t.Error("a pipeline has no events")
		}
	}
}

// TestStdinReader: what one step does not take of a reader is left for the next,
// and what none takes keeps nothing.
func TestStdinReader(t *testing.T) {
	t.Parallel()
	need(t, "sh", "cat")
	p := parse(t, `
steps:
  - {name: a, stdin: inherit, execFile: [sh, -c, 'read line; echo "a: $line"']}
  - {name: n, execFile: [cat]}
  - {name: b, stdin: inherit, execFile: [cat]}
  - {name: c, stdin: inherit, execFile: [cat]}`)
	res, err := (&runner.Runner{Sink: func(runner.Event) {}}).Run(t.Context(), p, runner.Input{Stdin: strings.NewReader("one\ntwo\nthree")})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	for name, want := range map[string]string{"a": "a: one\n", "n": "", "b": "two\nthree", "c": ""} {
		if got := stdoutOf(t, res, name); got != want {
			t.Errorf("%s: %q, expected %q", name, got, want)
		}
	}
	few := parse(t, `steps: [{stdin: inherit, spawn: [sh, -c, 'read line']}]`)
	if _, err := (&runner.Runner{Stdout: io.Discard}).Run(t.Context(), few, runner.Input{Stdin: strings.NewReader(strings.Repeat("x\n", 1<<20))}); err != nil {
		t.Error(err)
	}
	nobody := parse(t, `steps: [{execFile: [cat]}]`)
	if _, err := (&runner.Runner{}).Run(t.Context(), nobody, runner.Input{Stdin: readerFunc(func([]byte) (int, error) {
		t.Error("what no step reads is read")
		return 0, io.EOF
	})}); err != nil {
		t.Error(err)
	}
	for _, src := range []string{`steps: [{stdio: [{fd: 0}], execFile: [cat]}]`, `steps: [{stdio: [ignore, pipe, pipe, {fd: 0}], execFile: [sh, -c, "cat <&3"]}]`} {
		res, err := (&runner.Runner{Sink: func(runner.Event) {}}).Run(t.Context(), parse(t, src), runner.Input{Stdin: strings.NewReader("x")})
		if err != nil || stdoutOf(t, res, res.Steps[0].Label) != "x" {
			t.Errorf("%s: %v", src, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestSharedWriter: steps that write at once to a writer which is none of the
// system's do so one at a time, also where stdout and stderr are the same.
func TestSharedWriter(t *testing.T) {
	t.Parallel()
	need(t, "sh")
	var src strings.Builder
	src.WriteString("mode: async\nmaxParallel: 0\nsteps:\n")
	for range 12 {
		src.WriteString("  - {stdio: inherit, spawn: [sh, -c, 'for i in 1 2 3 4 5; do echo 123456789; echo 123456789 >&2; done'], stdin: ignore}\n")
	}
	for name, sink := range map[string]func(runner.Event){"no sink": nil, "a sink": func(runner.Event) {}} {
		var both bytes.Buffer // the race detector sees it if two write at once
		if _, err := (&runner.Runner{Stdout: &both, Stderr: &both, Sink: sink}).Run(t.Context(), parse(t, src.String())); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(both.String(), "123456789\n"); lines != 120 || both.Len() != 1200 {
			t.Errorf("%s: %d lines in %d bytes", name, lines, both.Len())
		}
	}
	var out, errs bytes.Buffer
	one := parse(t, `steps: [{stdout: inherit, stderr: inherit, spawn: [sh, -c, "echo out; echo err >&2"]}]`)
	if _, err := (&runner.Runner{Stdout: &out, Stderr: &errs}).Run(t.Context(), one); err != nil || out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("%q, %q, %v", out.String(), errs.String(), err)
	}
	odd := []io.Writer{writers{&out}, writers{&errs}} // they cannot be compared
	if _, err := (&runner.Runner{Stdout: odd[0], Stderr: odd[1]}).Run(t.Context(), one); err != nil || out.String() != "out\nout\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// writers is a writer that cannot be compared.
type writers []io.Writer

func (w writers) Write(b []byte) (int, error) { return w[0].Write(b) }

// TestFiles: a file that is given goes to the child itself.
func TestFiles(t *testing.T) {
	t.Parallel()
	need(t, "stat")
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc/self/fd")
	}
	dir := t.TempDir()
	open := func(name string) (*os.File, string) {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Skip("no inode numbers")
		}
		return f, fmt.Sprint(st.Ino)
	}
	in, inode0 := open("in")
	out, inode1 := open("out")
	errs, inode2 := open("err")
	p := parse(t, `steps: [{stdio: inherit, spawn: [stat, -L, -c, "%i", /proc/self/fd/0, /proc/self/fd/1, /proc/self/fd/2]}]`)
	if _, err := (&runner.Runner{Stdout: out, Stderr: errs}).Run(t.Context(), p, runner.Input{Stdin: in}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out.Name())
	if want := inode0 + "\n" + inode1 + "\n" + inode2 + "\n"; err != nil || string(got) != want {
		t.Errorf("the child sees %q, expected %q (%v)", got, want, err)
	}
}

type keyType struct{}

// valued is an engine that notes which processes are started with the value of
// the run's context.
type valued struct {
	runnertest.Engine
	mu   sync.Mutex
	seen map[string]any
}

func (e *valued) Start(ctx context.Context, c *runner.Cmd) (runner.Process, error) {
	e.mu.Lock()
	if e.seen == nil {
		e.seen = map[string]any{}
	}
	e.seen[strings.Join(c.Args, " ")] = ctx.Value(keyType{})
	e.mu.Unlock()
	return e.Engine.Start(ctx, c)
}

// TestContextValues: the values of the context reach whoever starts a process,
// from wherever that is.
func TestContextValues(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml": `
steps:
  - {name: service, background: true, ready: {exec: [probe]}, spawn: [server, for=1h]}
  - {spawn: [plain]}
  - {exec: "inshell one; (inshell two) | inshell three"}
  - {pipe: [{spawn: [stage, "1"]}, {tee: [{spawn: [branch]}, {file: /dev/null}]}, {spawn: [stage, "2"]}]}
  - {timeout: 1h, run: inner.yaml}
  - {if: always(), spawn: [cleanup]}`,
		"inner.yaml": "steps: [{forEach: '[1, 2]', exec: 'nested ${{ item }}'}]",
	})
	e := &valued{}
	e.Behave = prog
	ctx := context.WithValue(t.Context(), keyType{}, "value")
	if _, err := (&runner.Runner{Engine: e, Env: []string{}}).Run(ctx, p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"probe", "server for=1h", "plain", "inshell one", "inshell two", "inshell three", "stage 1", "stage 2", "branch", "nested 1", "nested 2", "cleanup"} {
		if got, ok := e.seen[want]; got != "value" {
			t.Errorf("%s was started: %v; the value is %v", want, ok, got)
		}
	}
}

// TestChangedPipeline: a pipeline that is changed between two runs is checked
// again, and runs as it is.
func TestChangedPipeline(t *testing.T) {
	t.Parallel()
	run := func(p *pipeline.Pipeline) ([]string, error) {
		e := &valued{}
		e.Behave = prog
		_, err := (&runner.Runner{Engine: e, Env: []string{}}).Run(t.Context(), p)
		var out []string
		for args := range e.seen {
			out = append(out, args)
		}
		return out, err
	}
	p := &pipeline.Pipeline{Steps: []*pipeline.Step{pipeline.ExecStep("a", "one"), pipeline.SpawnStep("b", "x")}}
	if got, err := run(p); err != nil || len(got) != 2 || !slices.Contains(got, "one") {
		t.Fatal(got, err)
	}
	p.Steps[1].Stages[0].Args = append(p.Steps[1].Stages[0].Args, pipeline.Literal("more"))
	if got, err := run(p); err != nil || !slices.Contains(got, "x more") {
		t.Errorf("another argument: %v, %v", got, err)
	}
	for name, change := range map[string]func(){
		"shell text that is none": func() { p.Steps[0].Stages[0].Text = "one '" },
		"a step twice":            func() { p.Steps[1].Name = "a" },
		"no program":              func() { p.Steps[1].Stages[0].Args = []pipeline.Template{pipeline.Literal("")} },
	} {
		t.Run(name, func(t *testing.T) {
			p = &pipeline.Pipeline{Steps: []*pipeline.Step{pipeline.ExecStep("a", "one"), pipeline.SpawnStep("b", "x")}}
			if _, err := run(p); err != nil {
				t.Fatal(err)
			}
			change()
			var list pipeline.Errors
			if _, err := run(p); !errors.As(err, &list) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestConsole: the zero console is a sink.
func TestConsole(t *testing.T) {
	t.Parallel()
	var zero report.Console
	p := parse(t, "steps: [{name: a, spawn: [x]}]")
	res, err := (&runner.Runner{Engine: &runnertest.Engine{}, Sink: zero.Event}).Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	zero.Summary(p, res)
	var out, errs bytes.Buffer
	c := report.Console{Out: &out, Err: &errs}
	p = parse(t, "steps: [{name: a, spawn: [x, hello, exit=3]}, {name: b, spawn: [y]}]")
	res, _ = (&runner.Runner{Engine: &runnertest.Engine{Behave: says}, Sink: c.Event}).Run(t.Context(), p)
	c.Summary(p, res)
	if out.String() != "hello\n" || !strings.Contains(errs.String(), "step a failed: exit status 3") || !strings.Contains(errs.String(), "not run because of it: b") {
		t.Errorf("%q, %q", out.String(), errs.String())
	}
}

// TestLogged: events and results are groups of attributes for a structured log.
func TestLogged(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var text bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&text, nil))
	p := parse(t, "steps: [{name: a, retry: {attempts: 2}, execFile: [x, hello, exit=3]}, {name: b, if: always(), spawn: [no]}, {name: c, if: always(), forEach: '[]', spawn: [x]}]")
	res, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}, Sink: func(e runner.Event) {
		mu.Lock()
		defer mu.Unlock()
		log.Info("event", "e", e)
	}}).Run(t.Context(), p)
	if err == nil {
		t.Fatal(res)
	}
	stopped, stop := context.WithCancelCause(t.Context())
	stop(errWhy)
	over, _ := (&runner.Runner{Engine: &runnertest.Engine{}}).Run(stopped, p)
	log.Info("over", "o", over)
	log.Info("result", "r", res)
	type attrs = map[string]any
	var got []attrs
	for _, line := range strings.Split(strings.TrimSpace(text.String()), "\n") {
		var m attrs
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, m)
	}
	find := func(typ, step string) attrs {
		for _, m := range got {
			if e, ok := m["e"].(attrs); ok && e["type"] == typ && (step == "" || e["step"] == step) {
				return e
			}
		}
		t.Errorf("no event %s of %s:\n%s", typ, step, text.String())
		return attrs{}
	}
	if e := find("retry", "a"); e["attempt"] != 1.0 || e["delay"] != 0.0 {
		t.Errorf("%v", e)
	}
	if e := find("data", "a"); e["stream"] != "stdout" || e["bytes"] != 6.0 || e["stage"] != 0.0 {
		t.Errorf("%v", e)
	}
	if e := find("exit", "a"); e["exit"] != "exit status 3" {
		t.Errorf("%v", e)
	}
	if e := find("close", "a"); e["stage"] != 0.0 {
		t.Errorf("%v", e)
	}
	find("spawn", "a")
	if e := find("runEnd", ""); e["step"] != nil {
		t.Errorf("%v", e)
	}
	r, _ := find("stepEnd", "b")["result"].(attrs)
	if r["status"] != "failure" || r["reason"] != "spawn" || r["error"] != "no: not found" || r["exitCode"] != 127.0 || r["command"] != "no" {
		t.Errorf("%v", r)
	}
	if strings.Contains(text.String(), "hello\\n") {
		t.Error("the output is in the log")
	}
	if e := find("warning", "c"); e["message"] != "there is nothing to run it for: the list is empty" {
		t.Errorf("%v", e)
	}
	if o, _ := got[len(got)-2]["o"].(attrs); o["interrupted"] != "why" || o["exitCode"] != 1.0 || o["cause"] != nil {
		t.Errorf("%v", o)
	}
	last, _ := got[len(got)-1]["r"].(attrs)
	cause, _ := last["cause"].(attrs)
	if last["exitCode"] != 3.0 || last["steps"] != 3.0 || cause["step"] != "a" || cause["signal"] != nil {
		t.Errorf("%v", last)
	}
	for typ, want := range map[runner.EventType]string{runner.EventStepStart: "stepStart", runner.EventJob: "job", runner.EventReady: "ready", runner.EventRerun: "rerun"} {
		if typ.String() != want {
			t.Errorf("%s", typ)
		}
	}
	if runner.StreamStderr.String() != "stderr" || runner.StreamStdout.String() != "stdout" {
		t.Error("the names of the streams")
	}
}

// TestUnknown: values that this package does not have are named, too.
func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		of   fmt.Stringer
		want string
	}{
		{runner.EventType(99), "event 99"}, {runner.EventRetry, "retry"}, {runner.StepStatus(99), "status 99"}, {runner.StatusCancelled, "cancelled"},
	} {
		if got := tt.of.String(); got != tt.want {
			t.Errorf("%q, expected %q", got, tt.want)
		}
	}
}

// TestStepErrorOfAnother: a StepError that another package has built says how the
// step failed.
func TestStepErrorOfAnother(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]*runner.StepError{
		"step a failed: exit status 3":     {Step: "a", Reason: runner.ReasonExit, ExitCode: 3},
		"step a failed: killed by SIGKILL": {Step: "a", Reason: runner.ReasonSignal, Signal: "SIGKILL", ExitCode: 137},
		"step a failed: timed out":         {Step: "a", Reason: runner.ReasonTimeout},
		"step a failed: why":               {Step: "a", Err: errWhy},
	} {
		if e.Error() != want {
			t.Errorf("%q, expected %q", e, want)
		}
	}
}
