//go:build unix

package step_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// TestEnded ends steps that have said that they are there.
func TestEnded(t *testing.T) {
	t.Parallel()
	none := time.Duration(0)
	stubborn := sh(`trap "" TERM; echo here; while :; do sleep 1000; done`)
	stubborn.KillAfter = 20 * time.Millisecond
	idle := func(st step.Stage) *step.Spec {
		return &step.Spec{Label: "x", IdleTimeout: 300 * time.Millisecond, Stages: []step.Stage{st}}
	}
	one := func(stages ...step.Stage) *step.Spec { return &step.Spec{Label: "x", Stages: stages} }
	for _, tt := range []struct {
		name  string
		spec  *step.Spec
		stop  *step.Stop // nil: it ends by itself
		force bool
		want  string
	}{
		{"it obeys", one(sh(`trap "exit 3" TERM; echo here; while :; do sleep 0.01; done`)), &step.Stop{}, false, "cancelled exit 3"},
		{"it obeys the killSignal", one(func() step.Stage {
			st := sh(`trap "exit 4" USR1; echo here; while :; do sleep 0.01; done`)
			st.KillSignal = 10
			return st
		}()), &step.Stop{}, false, "cancelled exit 4"},
		{"timeout, and it obeys with 0", one(sh(`trap "exit 0" TERM; echo here; while :; do sleep 0.01; done`)), &step.Stop{Reason: step.ReasonTimeout}, false, "failure timeout 124"},
		{"it does not obey", one(stubborn), &step.Stop{}, false, "cancelled signal 137 signal=SIGKILL"},
		{"at once", one(sh(`trap "exit 3" TERM; echo here; while :; do sleep 0.01; done`)), &step.Stop{Grace: &none}, false, "cancelled signal 137 signal=SIGKILL"},
		{"force", one(func() step.Stage { st := stubborn; st.KillAfter = 0; return st }()), &step.Stop{}, true, "cancelled signal 137 signal=SIGKILL"},
		{"all of the tree", one(sh("sh -c 'echo here; sleep 1000; :'; :")), &step.Stop{}, false, "cancelled signal 143 signal=SIGTERM"},
		{"all stages", one(prog("yes"), prog("cat"), sh("head -c 2; cat >/dev/null")), &step.Stop{}, false, "cancelled signal 143 signal=SIGTERM"},
		{"all branches", one(prog("yes"), tee(chain(prog("cat"), sh("cat >/dev/null"))), sh("head -c 2; cat >/dev/null")), &step.Stop{}, false, "cancelled signal 143 signal=SIGTERM"},
		{"the embedded shell", one(builtin("echo here; sleep 1000")), &step.Stop{}, false, "cancelled signal 143 signal=SIGTERM"},
		{"the embedded shell in a loop", one(builtin("echo here; while :; do :; done")), &step.Stop{Grace: &none}, false, "cancelled signal 137 signal=SIGKILL"},
		{"idleTimeout", idle(sh("echo here; exec sleep 1000")), nil, false, "failure idleTimeout 124 signal=SIGTERM"},
		{"output puts the idleTimeout off", idle(sh("for i in 1 2 3 4; do echo here; sleep 0.1; done")), nil, false, "success  0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			force := make(chan struct{})
			ctx, stop := context.WithCancelCause(step.WithForce(t.Context(), force))
			p := play{ctx: ctx, on: func(e step.Event) {
				if e.Type == step.EventData && ctx.Err() == nil && tt.stop != nil {
					stop(tt.stop)
					if tt.force {
						close(force)
					}
				}
			}}
			p.run(t, tt.spec).ended(t, tt.want)
		})
	}
}

// TestLeft: a grandchild that outlives the step is named and ended, and the
// step's own end stays what it was.
func TestLeft(t *testing.T) {
	t.Parallel()
	held := regexp.MustCompile(`^the step has ended, but its output is still held open after 40ms by (.*, )?sleep \(pid \d+\)(, .*)?\nprocesses that the step left behind were ended: sleep \(pid \d+\)$`)
	left := regexp.MustCompile(`^processes that the step left behind were ended: sleep \(pid \d+\)$`)
	perhaps := regexp.MustCompile(`^(processes that the step left behind were ended: sh \(pid \d+\))?$`) // its streams end before it is gone
	none := regexp.MustCompile(`^$`)
	for _, tt := range []struct {
		name  string
		stage step.Stage
		drain time.Duration
		stop  *step.Stop // when it has ended by itself
		warns *regexp.Regexp
		want  string
	}{
		{"it holds a stream", sh("echo out; sleep 1000 & exit 7"), 40 * time.Millisecond, nil, held, "failure exit 7"},
		{"it holds stderr", sh("echo out; sleep 1000 >/dev/null & exit 7"), 40 * time.Millisecond, nil, held, "failure exit 7"},
		{"it holds nothing", sh("echo out; sleep 1000 >/dev/null 2>&1 & exit 0"), time.Hour, nil, left, "success  0"},
		{"it lets go in time", sh("echo out; { sleep 0.01; echo more; } & exit 7"), time.Hour, nil, perhaps, "failure exit 7"},
		{"a stop meanwhile", sh("echo out; sleep 1000 & exit 0"), time.Hour, &step.Stop{}, none, "success  0"},
		{"a timeout meanwhile", sh("echo out; sleep 1000 & exit 0"), time.Hour, &step.Stop{Reason: step.ReasonTimeout}, none, "failure timeout 124"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithCancelCause(t.Context())
			tt.stage.Drain = tt.drain
			r := play{ctx: ctx, on: func(e step.Event) {
				if e.Type == step.EventExit && tt.stop != nil {
					stop(tt.stop)
				}
			}}.stages(t, tt.stage)
			r.ended(t, tt.want)
			if !tt.warns.MatchString(r.warned()) {
				t.Errorf("the warnings are %q", r.warned())
			}
			if !strings.HasPrefix(r.out(0, 1), "out\n") || strings.Contains(tt.name, "in time") && r.out(0, 1) != "out\nmore\n" {
				t.Errorf("stdout is %q", r.out(0, 1))
			}
			if named := tt.warns != none; tt.stop == nil && tt.warns != perhaps && named != (len(r.Left) > 0) { // the stop may have ended it already
				t.Errorf("Left is %v", r.Left)
			}
		})
	}
}

// TestHangingReader: who reads the output and hangs does not keep a step that is
// to end; what comes later is not waited for, and the buffer is left in peace.
func TestHangingReader(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancelCause(t.Context())
	resume := make(chan struct{})
	defer close(resume)
	p := play{ctx: ctx, sv: step.Services{Redactor: masks(t, "hunter2")}, on: func(e step.Event) {
		if e.Type == step.EventData {
			stop(&step.Stop{})
			<-resume
		}
	}}
	r := p.begin(t, &step.Spec{Label: "x", Stages: []step.Stage{keeps(prog("yes"), 1<<20, step.OverflowSpill)}})
	arrives(t, "the end of a step whose reader hangs", r.over)
	r.ended(t, "cancelled signal 143 signal=SIGTERM")
	out := r.Stages[0].Stdout
	if got, err := out.Bytes(4); err != nil || string(got) != "y\ny\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSlowReader: a reader is given the time that it takes, and nothing is lost;
// the drain is no limit for it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	big := input(40 << 10) // fits into the pipe, so that the process ends
	st := reads(prog("cat"), big)
	st.Drain = time.Millisecond
	exited, resume := make(chan struct{}), make(chan struct{})
	first := true
	p := play{on: func(e step.Event) {
		switch {
		case e.Type == step.EventExit:
			close(exited)
		case e.Type == step.EventData && first:
			first = false
			<-resume
		}
	}}
	r := p.begin(t, &step.Spec{Label: "x", Stages: []step.Stage{st}})
	arrives(t, "the exit of the process", exited)
	select {
	case <-r.over:
		t.Error("the step did not wait for its reader")
	case <-time.After(30 * time.Millisecond): // many times the drain
	}
	close(resume)
	arrives(t, "the end of the step", r.over)
	r.ended(t, "success  0")
	if r.out(0, 1) != big {
		t.Errorf("%d bytes", len(r.out(0, 1)))
	}
}

// TestSecondDoesNotStart: what has started of a step that cannot start as a whole
// is ended, and the program at fault is named.
func TestSecondDoesNotStart(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := play{}.stages(t, prog("sleep", "1000"), tee(chain(prog("cat"))), prog(bad), prog("cat"))
	if r.Reason != step.ReasonSpawn || r.ExitCode != engine.CodeCannotStart || r.Command != bad || !strings.Contains(fmt.Sprint(r.Err), "interpreter /no/such/interpreter") {
		t.Error(describe(r.End))
	}
	for i, st := range r.Stages {
		if (st.Err != nil) != (i == 2) || (st.Pid != 0) != (i < 2) {
			t.Errorf("stage %d: %+v", i, st)
		}
	}
}

// TestStranger: a daemon that has left the step on purpose, and holds a stream of
// it, is named, and neither ended nor waited for.
func TestStranger(t *testing.T) {
	t.Parallel()
	needs(t, "setsid")
	dir := t.TempDir()
	for _, behind := range [][]step.Stage{
		{},
		{tee(step.Branch{File: dir + "/a"}, step.Branch{File: dir + "/b"})},
		{tee(step.Branch{File: dir + "/c", Append: true})},
	} {
		path, release := fifo(t)
		there, _ := fifo(t)
		daemon := sh("echo out; setsid sh -c 'echo >$0; read x <$1; exec true' $1 $2 & read x <$1; exit 0", there, path)
		daemon.Drain = 20 * time.Millisecond
		r := play{}.stages(t, append([]step.Stage{daemon}, behind...)...)
		r.ended(t, "success  0")
		if !strings.HasPrefix(r.warned(), "the step has ended, but its output is still held open after 20ms by ") || len(r.Left) > 0 {
			t.Errorf("%q, left: %v", r.warned(), r.Left)
		}
		if len(behind) == 0 && r.out(0, 1) != "out\n" {
			t.Errorf("stdout is %q", r.out(0, 1))
		}
		if _, err := release.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"/a", "/b", "/c"} {
		if got := content(t, dir+name); got != "out\n" {
			t.Errorf("%s has %q", name, got)
		}
	}
}

// TestStrangerHoldsStdin: nothing goes on feeding the stdin of a step that has
// ended because a daemon holds it. It cannot be parallel: it counts what is open.
func TestStrangerHoldsStdin(t *testing.T) {
	needs(t, "setsid")
	path, release := fifo(t)
	there, _ := fifo(t)
	before := count()
	daemon := reads(sh("exec 3<&0; setsid sh -c 'echo >$0; read x <$1' $1 $2 <&3 3<&- >/dev/null 2>&1 & read x <$1; exit 0", there, path), strings.Repeat("x", 1<<18))
	play{}.stages(t, daemon).ended(t, "success  0")
	if left := before.grown(); left != "" {
		t.Error(left)
	}
	_, _ = release.WriteString("\n")
}

// TestTeeHangs: a file that takes no more does not keep a step that is to end.
func TestTeeHangs(t *testing.T) {
	t.Parallel()
	path, _ := fifo(t)
	ctx, stop := context.WithCancelCause(t.Context())
	p := play{ctx: ctx, on: func(e step.Event) {
		if e.Type == step.EventData { // it has begun
			stop(&step.Stop{Reason: step.ReasonTimeout})
		}
	}}
	p.stages(t, prog("yes"), tee(step.Branch{File: path}), sh("head -c 2; exec cat >/dev/null")).
		ended(t, "failure timeout 124 signal=SIGTERM")
}

// TestNothingIsLost: what is written in the moment of the exit arrives.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	want := input(30 << 10)
	for range 30 {
		if r := (play{}).stages(t, reads(prog("cat"), want)); r.out(0, 1) != want {
			t.Fatalf("%d bytes of %d", len(r.out(0, 1)), len(want))
		}
	}
}
