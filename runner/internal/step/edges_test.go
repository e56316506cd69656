//go:build unix

package step_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/runner/runnertest"
	"github.com/pipe-runner/pipe/safety"
)

// TestSigpipeOfTheEndOfABranch: whether SIGPIPE is a failure does not depend on
// whether the runner copies the output, or on where it goes.
func TestSigpipeOfTheEndOfABranch(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, direct := range []bool{false, true} {
		for _, out := range []step.Stdio{{Kind: step.StdioPipe}, file(os.DevNull), {Kind: step.StdioIgnore}} {
			r := play{sv: step.Services{Direct: direct, Stdout: null, Stderr: null}}.stages(t,
				prog("seq", "9"), tee(chain(with(sh("kill -PIPE $$"), map[int]step.Stdio{1: out}))), sh("cat >/dev/null"))
			if got := describe(r.End); !strings.HasPrefix(got, "failure signal 141") {
				t.Errorf("direct %t, stdout %s: %s", direct, out.Kind, got)
			}
		}
	}
}

// TestStrangerBeforeAFile: as TestStranger, with one file behind the tee.
func TestStrangerBeforeAFile(t *testing.T) {
	t.Parallel()
	needs(t, "setsid")
	path, release := fifo(t)
	there, _ := fifo(t)
	daemon := sh("echo out; setsid sh -c 'echo >$0; read x <$1; exec true' $1 $2 & read x <$1; exit 0", there, path)
	daemon.Drain = 20 * time.Millisecond
	play{}.stages(t, daemon, tee(step.Branch{File: t.TempDir() + "/a"})).ended(t, "success  0")
	_, _ = release.WriteString("\n")
}

// TestStrangerBetweenStages: a grandchild that holds the pipe between two stages is
// given the drain, named and ended.
func TestStrangerBetweenStages(t *testing.T) {
	t.Parallel()
	first := sh("echo out; sleep 3 & exit 0")
	first.Drain = 20 * time.Millisecond
	start := time.Now()
	r := play{}.stages(t, first, prog("cat"))
	r.ended(t, "success  0")
	if took := time.Since(start); took > 2*time.Second || len(r.Left) == 0 {
		t.Errorf("it took %s; %q", took, r.warned())
	}
}

// TestDrainFromTheLastByte: a grandchild that still writes is not cut off.
func TestDrainFromTheLastByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newStage([]role{{open: 3500 * time.Millisecond, left: time.Second, says: []time.Duration{800 * time.Millisecond, 1600 * time.Millisecond, 2400 * time.Millisecond, 3200 * time.Millisecond}}})
		step.Run(t.Context(), fakeSpec(1), &step.Services{Engine: e}, e.sink)
		if got := e.transcript(); strings.Contains(got, "held open") {
			t.Error(got)
		}
		time.Sleep(time.Minute) // the process stops writing
	})
}

// TestStopAtOnceInTheDrain: a Stop with a grace of 0 is SIGKILL at once for what is
// left, too.
func TestStopAtOnceInTheDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newStage([]role{{open: -1, left: time.Hour}})
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(500*time.Millisecond, func() { stop(&step.Stop{Grace: new(time.Duration)}) })
		step.Run(ctx, fakeSpec(1), &step.Services{Engine: e}, e.sink)
		if took := time.Since(e.start); took != 500*time.Millisecond {
			t.Errorf("it took %s:\n%s", took, e.transcript())
		}
	})
}

// TestEventsOneAtATime: all events but those of output come one at a time.
func TestEventsOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inside, most atomic.Int32
		spec := fakeSpec(1)
		spec.Service = &step.Service{}
		step.Run(t.Context(), spec, &step.Services{Engine: &runnertest.Engine{}}, func(step.Event) {
			most.Store(max(most.Load(), inside.Add(1)))
			time.Sleep(time.Second)
			inside.Add(-1)
		})
		if most.Load() > 1 {
			t.Errorf("%d at once", most.Load())
		}
	})
}

// TestNothingFreed: a step of which nothing started has no processes that ended well.
func TestNothingFreed(t *testing.T) {
	t.Parallel()
	r := play{}.stages(t, with(prog("cat"), map[int]step.Stdio{0: file("/none")}))
	if r.saw(step.EventFreed) {
		t.Errorf("the events are %v; %s", r.order, describe(r.End))
	}
}

// TestBadTextLeaksNothing: an embedded text that cannot be parsed closes its streams.
func TestBadTextLeaksNothing(t *testing.T) {
	before := count()
	play{}.stages(t, prog("cat"), builtin("if"))
	if now := count(); len(now.files) > len(before.files) {
		t.Errorf("%q rather than %q", now.files, before.files)
	}
}

// TestWhichStageIsAtFault: the command, and the stage's own error, are those of the
// stage that cannot begin.
func TestWhichStageIsAtFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := safety.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	last := prog("cat")
	last.Dir = dir
	for name, r := range map[string]*record{
		"cwd":    play{sv: step.Services{Root: root}}.stages(t, prog("true"), last),
		"stdin":  play{}.stages(t, with(prog("true"), map[int]step.Stdio{0: file("/none")}), last),
		"stderr": play{}.stages(t, with(prog("true"), map[int]step.Stdio{2: file("/none/x")}), last),
	} {
		if r.Command != "true" || len(r.Stages) == 0 || r.Stages[0].Err == nil {
			t.Errorf("%s: %s; %+v", name, describe(r.End), r.Stages)
		}
	}
}

// funcWriter cannot be compared.
type funcWriter struct{ f func([]byte) (int, error) }

func (w funcWriter) Write(p []byte) (int, error) { return w.f(p) }

// TestWriterThatCannotBeCompared: as with os/exec, any Writer will do.
func TestWriterThatCannotBeCompared(t *testing.T) {
	t.Parallel()
	defer func() {
		if p := recover(); p != nil {
			t.Error(fmt.Sprint(p))
		}
	}()
	w := funcWriter{func(p []byte) (int, error) { return len(p), nil }}
	inherit := step.Stdio{Kind: step.StdioInherit}
	spec := &step.Spec{Stages: []step.Stage{with(prog("true"), map[int]step.Stdio{1: inherit, 2: inherit})}}
	step.Run(t.Context(), spec, &step.Services{Engine: engine.Local{}, Stdout: w, Stderr: w}, func(step.Event) {})
}

// TestTeeNamesTheFileOnce: also where this program copies.
func TestTeeNamesTheFileOnce(t *testing.T) {
	t.Parallel()
	play{}.stages(t, prog("seq", "9"), tee(step.Branch{File: "/dev/full"})).
		ended(t, "failure exit 1 err=tee: /dev/full is incomplete: no space left on device")
}

// TestAProbeThatIsInterrupted does not hide why the ones before it failed.
func TestAProbeThatIsInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check := sh("test -e $1/x && exec sleep 1000; : >$1/x; exit 3", dir)
	check.Command = "check"
	r := play{}.run(t, &step.Spec{Service: &step.Service{Ready: &step.Ready{Exec: &check, Timeout: 300 * time.Millisecond}}, Stages: []step.Stage{prog("sleep", "1000")}})
	r.ended(t, "failure ready 1 signal=SIGTERM err=not ready after 300ms: check ended with exit status 3")
}

// TestEndedBeforeTheTimeout is TestEndedBeforeTheStop for a timeout, which comes
// when the streams of all stages have ended, too.
func TestEndedBeforeTheTimeout(t *testing.T) {
	t.Parallel()
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			cast := []role{{Behaviour: runnertest.Behaviour{For: time.Second}}, {Behaviour: runnertest.Behaviour{For: 2 * time.Second}}}
			ctx, stop := context.WithCancelCause(t.Context())
			time.AfterFunc(3*time.Second, func() { stop(&step.Stop{Reason: step.ReasonTimeout}) })
			res := step.Run(ctx, fakeSpec(2), &step.Services{Engine: newStage(cast)}, func(e step.Event) {
				if e.Type == step.EventExit && e.Stage == 0 {
					time.Sleep(4 * time.Second)
				}
			})
			if got := describe(res.End); got != "success  0 command=b" {
				t.Error(got)
			}
		})
	}
}
