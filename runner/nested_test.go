//go:build unix

package runner_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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

// files writes pipelines, and returns main.yaml.
func files(t *testing.T, texts map[string]string) *pipeline.Pipeline {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := pipeline.Parse(filepath.Join(dir, "main.yaml"), []byte(texts["main.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestNestedError: the error leads to the innermost step that failed, and to why.
func TestNestedError(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml":  "steps: [{name: outer, run: mid.yaml}]",
		"mid.yaml":   "\nsteps: [{name: mid, run: inner.yaml}]",
		"inner.yaml": "\n\nsteps: [{name: fine, spawn: [x]}, {name: inner, spawn: [no]}, {name: after, spawn: [x]}]",
	})
	res, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}}).Run(t.Context(), p)
	if res == nil || res.ExitCode != 127 {
		t.Fatal(res, err)
	}
	var names []string
	for e := err; ; {
		var se *runner.StepError
		if !errors.As(e, &se) {
			break
		}
		names = append(names, filepath.Base(se.File)+" "+se.Step)
		if se.ExitCode != 127 {
			t.Errorf("%s: %d", se.Step, se.ExitCode)
		}
		e = se.Err
	}
	if got := strings.Join(names, ", "); got != "main.yaml outer, mid.yaml mid, inner.yaml inner" {
		t.Errorf("%s", got)
	}
	var start *runner.StartError
	if !errors.As(err, &start) || start.Path != "no" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	inner := res.Step("outer").Sub.Step("mid").Sub
	if got := statuses(inner); got != "fine:success inner:failure after:skipped" || inner.Cause.Label != "inner" {
		t.Errorf("%s", got)
	}
	if want := "step outer failed: step mid of "; !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

// TestNestedEnds: what ends a run, or a step, ends what is inside.
func TestNestedEnds(t *testing.T) {
	type result struct {
		outer, inner string
		reason       runner.Reason
		code         int
		took         time.Duration
	}
	const stubborn = "steps: [{name: a, killAfter: 10s, spawn: [x, for=60s, ignore]}, {name: b, spawn: [x]}, {name: c, if: always(), spawn: [x, for=3s]}]"
	const willing = "steps: [{name: a, spawn: [x, for=60s]}, {name: b, spawn: [x]}, {name: c, if: always(), spawn: [x, for=3s]}]"
	interrupt := func(again bool) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancelCause(ctx)
			by := &runner.Interrupt{Signal: syscall.SIGINT}
			if again {
				force := make(chan struct{})
				by.Again = force
				time.AfterFunc(2*time.Second, func() { close(force) })
			}
			time.AfterFunc(time.Second, func() { cancel(by) })
			return ctx
		}
	}
	for _, tt := range []struct {
		name, keys, inner string
		ctx               func(context.Context) context.Context
		want              result
	}{
		{"a signal", "", willing, interrupt(false), result{"outer:cancelled", "a:cancelled b:skipped c:success", "", 130, 4 * time.Second}},
		{"a signal, and SIGKILL after the grace", "", stubborn, interrupt(false), result{"outer:cancelled", "a:cancelled b:skipped c:success", "", 130, 14 * time.Second}},
		{"a second one", "", stubborn, interrupt(true), result{"outer:cancelled", "a:cancelled b:skipped c:skipped", "", 130, 2 * time.Second}},
		{"its step's timeout", ", timeout: 2s", willing, nil, result{"outer:failure", "a:cancelled b:skipped c:success", runner.ReasonTimeout, 124, 5 * time.Second}},
		{"its own timeout", "", "timeout: 2s\n" + willing, nil, result{"outer:failure", "a:cancelled b:skipped c:success", runner.ReasonTimeout, 124, 5 * time.Second}},
		{"a failure inside", "", "mode: async\nmaxParallel: 0\nsteps: [{name: a, spawn: [x, for=1s, exit=7]}, {name: b, spawn: [x, for=60s]}]", nil, result{"outer:failure", "a:failure b:cancelled", runner.ReasonExit, 7, time.Second}},
		{"a failure inside that is allowed", ", continueOnError: true", "steps: [{name: a, spawn: [x, exit=7]}]", nil, result{"outer:failure", "a:failure", runner.ReasonExit, 0, 0}},
		{"a failure that is tried again", ", retry: {attempts: 3, delay: 1s}", "steps: [{name: a, spawn: [x, exit=7]}]", nil, result{"outer:failure", "a:failure", runner.ReasonExit, 7, 2 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := files(t, map[string]string{"main.yaml": "steps: [{name: outer, run: mid.yaml" + tt.keys + "}]", "mid.yaml": tt.inner})
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.ctx != nil {
					ctx = tt.ctx(ctx)
				}
				began := time.Now()
				res, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}}).Run(ctx, p)
				if res == nil {
					t.Fatal(err)
				}
				got := result{statuses(res), statuses(res.Steps[0].Sub), res.Steps[0].Reason, res.ExitCode, time.Since(began)}
				if got != tt.want {
					t.Errorf("%+v\nexpected %+v (%v)", got, tt.want, err)
				}
				if (err == nil) != (res.ExitCode == 0) || tt.want.code == 124 && !errors.Is(err, context.DeadlineExceeded) || tt.want.code == 130 && !errors.Is(err, context.Canceled) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestFailureBeside: a failure beside a nested pipeline ends all of it.
func TestFailureBeside(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml": "mode: async\nmaxParallel: 0\nsteps: [{name: outer, run: mid.yaml}, {name: bad, spawn: [x, for=1s, exit=3]}]",
		"mid.yaml":  "steps: [{name: m, run: inner.yaml}]", "inner.yaml": "steps: [{name: a, spawn: [x, for=60s]}]",
	})
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		res, err := (&runner.Runner{Engine: &runnertest.Engine{Behave: says}}).Run(t.Context(), p)
		if err == nil || statuses(res) != "outer:cancelled bad:failure" || statuses(res.Steps[0].Sub.Steps[0].Sub) != "a:cancelled" || time.Since(began) != time.Second {
			t.Errorf("%v: %s after %s", err, statuses(res), time.Since(began))
		}
		if res.Steps[0].CancelledBy != "bad" {
			t.Errorf("cancelled by %q", res.Steps[0].CancelledBy)
		}
	})
}

// TestNestedValues: parameters go in, outputs come out, the environment and the
// folder are the step's; events have the labels of both.
func TestNestedValues(t *testing.T) {
	t.Parallel()
	p := files(t, map[string]string{
		"main.yaml": `
params: {w: {default: word}}
outputs: {all: "steps.outer.outputs.said + '!'"}
steps:
  - {name: outer, run: inner.yaml, with: {a: "${{ params.w }}", l: "${{ ['p', 'q'] }}"}, cwd: sub, env: {A: from outside}}
  - {name: reads, execFile: [x, "${{ steps.outer.outputs.said }}", "${{ join(steps.outer.outputs.list, '+') }}"]}`,
		"inner.yaml": `
params: {a: {}, l: {type: list, default: []}}
outputs: {said: "steps.say.stdout", list: "params.l"}
steps: [{name: say, execFile: [x, "${{ params.a }} ${{ env.A }} ${{ env.HOME ?? 'nothing' }}"]}]`,
	})
	var mu sync.Mutex
	labels := map[string]int{}
	var dir string
	e := &runnertest.Engine{Behave: func(c *runner.Cmd) runnertest.Behaviour {
		if len(c.Env) == 1 {
			mu.Lock()
			dir = c.Dir + " " + c.Env[0]
			mu.Unlock()
		}
		return says(c)
	}}
	r := runner.Runner{Engine: e, Dir: t.TempDir(), Env: []string{"A=ours", "HOME=/h"}, Sink: func(e runner.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Type == runner.EventStepEnd || e.Type == runner.EventRunEnd {
			labels[e.Type.String()+" "+e.Label]++
		}
	}}
	res, err := r.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if got := stdoutOf(t, res, "reads"); !strings.HasPrefix(got, "word from outside ") || !strings.HasSuffix(got, "\np+q\n") || strings.Contains(got, "/h") {
		t.Errorf("%q", got)
	}
	if dir != filepath.Join(r.Dir, "sub")+" A=from outside" {
		t.Errorf("%s", dir)
	}
	if all, ok := res.Outputs["all"].(string); !ok || !strings.HasPrefix(all, "word from outside") || !strings.HasSuffix(all, "!") {
		t.Errorf("%v", res.Outputs)
	}
	if len(labels) != 4 {
		t.Errorf("%v", labels)
	}
	for _, want := range []string{"stepEnd outer/say", "stepEnd outer", "stepEnd reads", "runEnd "} {
		if labels[want] != 1 {
			t.Errorf("%q: %d", want, labels[want])
		}
	}
}

// TestNestedSecrets: a secret is masked in all that the caller and the callee
// show, whichever of them declares it.
func TestNestedSecrets(t *testing.T) {
	const secret = "token-12345"
	for _, tt := range []struct{ name, outer, inner string }{
		{"of the caller", "secrets: [TOKEN]\n", ""},
		{"of both", "secrets: [TOKEN]\n", "secrets: [TOKEN]\n"},
		{"of the callee", "", "secrets: [TOKEN]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := files(t, map[string]string{
				"main.yaml":  tt.outer + "outputs: {o: steps.n.outputs.o}\nsteps: [{name: n, run: inner.yaml, extendEnv: [TOKEN], with: {p: 'v ${{ env.TOKEN }}'}}, {name: again, if: always(), execFile: [x, '${{ steps.n.outputs.o }}']}]",
				"inner.yaml": tt.inner + "params: {p: {}}\noutputs: {o: steps.s.stdout}\nsteps: [{name: s, execFile: [x, '${{ params.p }}'], extendEnv: [TOKEN]}, {name: f, spawn: [x, '${{ params.p }}', exit=3]}]",
			})
			var mu sync.Mutex
			var inner, outer strings.Builder
			r := runner.Runner{Engine: &runnertest.Engine{Behave: says}, State: filepath.Join(t.TempDir(), "state"), Env: []string{"TOKEN=" + secret}, Sink: func(e runner.Event) {
				mu.Lock()
				defer mu.Unlock()
				to := &outer
				if strings.HasPrefix(e.Label, "n/") {
					to = &inner
				}
				to.WriteString(e.Label + " " + e.Message + string(e.Data) + "\n")
				if e.Result != nil {
					to.WriteString(e.Result.Command + " " + e.Result.String() + "\n")
				}
			}}
			res, err := r.Run(t.Context(), p)
			if err == nil || res == nil {
				t.Fatal(res, err)
			}
			defer res.Close()
			inside := res.Step("n").Sub
			for what, text := range map[string]string{"events": inner.String(), "error": err.Error(), "result": stdoutOf(t, inside, "s"), "command": inside.Step("f").Command} {
				if strings.Contains(text, secret) {
					t.Errorf("the secret is in the %s of the callee: %s", what, text)
				}
			}
			if !strings.Contains(inner.String(), "v ***") {
				t.Errorf("nothing is masked: %s", inner.String())
			}
			said, _ := res.Outputs["o"].(string)
			for what, text := range map[string]string{"output": said, "events": outer.String(), "result": stdoutOf(t, res, "again"), "command": res.Step("again").Command} {
				if strings.Contains(text, secret) {
					if tt.outer == "" {
						t.Errorf("a secret that only the callee declares shows in the %s of the caller", what)
					}
					t.Errorf("the secret is in the %s of the caller: %s", what, text)
				}
			}
		})
	}
}
