package step_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

func ended(command string, code int) step.StageEnd {
	return step.StageEnd{Status: engine.Status{Code: code}, OK: code == 0, Command: command}
}

func killed(command string, sig syscall.Signal) step.StageEnd {
	return step.StageEnd{Status: engine.Killed(sig), Command: command}
}

// tolerated is a stage whose end counts as success, whatever it was.
func tolerated(st step.StageEnd) step.StageEnd {
	st.OK = true
	return st
}

// describe returns an End as one line.
func describe(e step.End) string {
	out := fmt.Sprintf("%s %s %d", e.Status, e.Reason, e.ExitCode)
	for _, part := range []struct{ key, val string }{{"signal", e.Signal}, {"command", e.Command}} {
		if part.val != "" {
			out += " " + part.key + "=" + part.val
		}
	}
	if e.Err != nil {
		out += " err=" + e.Err.Error()
	}
	return out
}

// TestJudge has every kind of end. A line is status, reason, exit code, and what
// else is there.
func TestJudge(t *testing.T) {
	boom := errors.New("boom")
	ok := ended("a", 0)
	told := &step.Stop{}
	late := &step.Stop{Reason: step.ReasonTimeout}
	idle := &step.Stop{Reason: step.ReasonIdleTimeout}
	failed := step.End{Status: step.StatusFailure, Reason: step.ReasonExit, ExitCode: 3}
	well := step.End{Status: step.StatusSuccess}
	halted := step.End{Status: step.StatusCancelled}
	passed := step.End{Status: step.StatusSkipped}
	for _, tt := range []struct {
		name  string
		facts step.Facts
		want  string
	}{
		// by itself
		{"nothing happened", step.Facts{}, "success  0"},
		{"nothing happened, to a command", step.Facts{Command: "x"}, "success  0 command=x"},
		{"skipped", step.Facts{Skipped: true}, "skipped  0"},
		{"one stage", step.Facts{Stages: []step.StageEnd{ok}}, "success  0 command=a"},
		{"exit code", step.Facts{Stages: []step.StageEnd{ended("a", 3)}}, "failure exit 3 command=a"},
		{"signal", step.Facts{Stages: []step.StageEnd{killed("a", syscall.SIGKILL)}}, "failure signal 137 signal=SIGKILL command=a"},
		{"exit code 137 is no signal", step.Facts{Stages: []step.StageEnd{ended("a", 137)}}, "failure exit 137 command=a"},
		{"unknown status", step.Facts{Stages: []step.StageEnd{{Status: engine.Status{Code: 1, Err: boom}, Command: "a"}}}, "failure exit 1 command=a err=boom"},
		{"a code that counts as success is kept", step.Facts{Stages: []step.StageEnd{tolerated(ended("a", 4))}}, "success  4 command=a"},
		{"the last stage that failed wins", step.Facts{Stages: []step.StageEnd{ended("a", 3), ended("b", 5), ended("c", 0)}}, "failure exit 5 command=b"},
		{"also a signal before an exit", step.Facts{Stages: []step.StageEnd{killed("a", syscall.SIGTERM), ended("b", 5)}}, "failure exit 5 command=b"},
		{"also an exit before a signal", step.Facts{Stages: []step.StageEnd{ended("a", 5), killed("b", syscall.SIGTERM)}}, "failure signal 143 signal=SIGTERM command=b"},
		{"SIGPIPE whose reader had enough", step.Facts{Stages: []step.StageEnd{tolerated(killed("a", syscall.SIGPIPE)), ended("b", 0)}}, "success  0 command=b"},
		{"SIGPIPE that is a failure", step.Facts{Stages: []step.StageEnd{killed("a", syscall.SIGPIPE), ended("b", 0)}}, "failure signal 141 signal=SIGPIPE command=a"},
		{"a file is incomplete", step.Facts{Stages: []step.StageEnd{ok}, Output: boom}, "failure exit 1 command=a err=boom"},
		{"a stage's failure comes before an incomplete file", step.Facts{Stages: []step.StageEnd{ended("a", 3)}, Output: boom}, "failure exit 3 command=a"},
		// did not start
		{"expression", step.Facts{Err: boom, Command: "x"}, "failure expression 1 command=x err=boom"},
		{"cannot start", step.Facts{Err: &engine.StartError{Msg: "no"}}, "failure spawn 126 err=no"},
		{"not found", step.Facts{Err: fmt.Errorf("a: %w", &engine.StartError{Msg: "no", Code: engine.CodeNotFound})}, "failure spawn 127 err=a: no"},
		{"an error comes before a stop", step.Facts{Err: boom, Stop: told}, "failure expression 1 err=boom"},
		{"an error comes before stages", step.Facts{Err: boom, Stages: []step.StageEnd{killed("a", syscall.SIGKILL)}}, "failure expression 1 err=boom"},
		// told to end
		{"cancelled", step.Facts{Stop: told, Stages: []step.StageEnd{killed("a", syscall.SIGTERM)}}, "cancelled signal 143 signal=SIGTERM command=a"},
		{"cancelled, and obeyed with 0", step.Facts{Stop: told, Stages: []step.StageEnd{ok}}, "cancelled  0 command=a"},
		{"cancelled before anything started", step.Facts{Stop: told, Command: "a | b"}, "cancelled  0 command=a | b"},
		{"timeout", step.Facts{Stop: late, Command: "a | b", Stages: []step.StageEnd{killed("a", syscall.SIGTERM), ended("b", 0)}}, "failure timeout 124 signal=SIGTERM command=a | b"},
		{"timeout, and obeyed with 0", step.Facts{Stop: late, Command: "a", Stages: []step.StageEnd{ok}}, "failure timeout 124 command=a"},
		{"timeout before anything started", step.Facts{Stop: late, Command: "a"}, "failure timeout 124 command=a"},
		{"timeout of something else, with what there is to say", step.Facts{Stop: &step.Stop{Reason: step.ReasonTimeout, Err: boom}}, "failure timeout 124 err=boom"},
		{"idleTimeout", step.Facts{Stop: idle, Stages: []step.StageEnd{killed("a", syscall.SIGKILL)}}, "failure idleTimeout 124 signal=SIGKILL"},
		{"idleTimeout, and obeyed with 0", step.Facts{Stop: idle, Stages: []step.StageEnd{ok}}, "failure idleTimeout 124"},
		{"maxBuffer", step.Facts{Stop: &step.Stop{Reason: step.ReasonMaxBuffer}, Stages: []step.StageEnd{killed("a", syscall.SIGTERM)}}, "failure maxBuffer 1 signal=SIGTERM command=a"},
		{"maxBuffer, and the process had ended well", step.Facts{Stop: &step.Stop{Reason: step.ReasonMaxBuffer}, Stages: []step.StageEnd{ok}}, "failure maxBuffer 1 command=a"},
		{"not ready", step.Facts{Stop: &step.Stop{Reason: step.ReasonReady, Err: boom}, Stages: []step.StageEnd{killed("a", syscall.SIGTERM)}}, "failure ready 1 signal=SIGTERM command=a err=boom"},
		{"a stop comes before an incomplete file", step.Facts{Stop: late, Output: boom, Stages: []step.StageEnd{ok}}, "failure timeout 124"},
		// what stands for others
		{"inner success", step.Facts{Inner: &well}, "success  0"},
		{"inner failure", step.Facts{Inner: &failed}, "failure exit 3"},
		{"inner failure of which the step was told to end", step.Facts{Inner: &failed, Stop: told}, "cancelled exit 3"},
		{"inner end past the timeout", step.Facts{Inner: &well, Stop: late, Command: "pipe run x"}, "failure timeout 124 command=pipe run x"},
		{"no instances", step.Facts{Instances: []step.End{}, Command: "x"}, "success  0"},
		{"instances", step.Facts{Instances: []step.End{well, well}}, "success  0"},
		{"the first instance that failed", step.Facts{Instances: []step.End{well, halted, failed, {Status: step.StatusFailure, ExitCode: 9}}}, "failure exit 3"},
		{"an instance was cancelled", step.Facts{Instances: []step.End{well, halted, well}}, "cancelled  0"},
		{"an instance was skipped", step.Facts{Instances: []step.End{passed, well}}, "cancelled  0"},
		// services
		{"a service that was over", step.Facts{Service: step.ServiceOver, Stop: told, Stages: []step.StageEnd{killed("a", syscall.SIGTERM)}}, "success  143 signal=SIGTERM command=a"},
		{"a service that nobody leaned on any more", step.Facts{Service: step.ServiceOver, Stages: []step.StageEnd{ended("a", 3)}}, "success  3 command=a"},
		{"a service that was needed, with 0", step.Facts{Service: step.ServiceNeeded, Stages: []step.StageEnd{ok}}, "failure exit 1 command=a err=the service ended while the pipeline still leaned on it (exit status 0)"},
		{"a service that was needed, with 3", step.Facts{Service: step.ServiceNeeded, Stages: []step.StageEnd{ended("a", 3)}}, "failure exit 3 command=a err=the service ended while the pipeline still leaned on it (exit status 3)"},
		{"a service that was needed, by a signal", step.Facts{Service: step.ServiceNeeded, Stages: []step.StageEnd{killed("a", syscall.SIGKILL)}}, "failure signal 137 signal=SIGKILL command=a err=the service ended while the pipeline still leaned on it (SIGKILL)"},
		{"a service that ended early, with 0", step.Facts{Service: step.ServiceEarly, Stages: []step.StageEnd{ok}}, "failure exit 1 command=a err=the service ended before anything could lean on it (exit status 0)"},
		{"a service that ended early, by itself a failure", step.Facts{Service: step.ServiceEarly, Stages: []step.StageEnd{ended("a", 3)}}, "failure exit 3 command=a"},
		{"a service that was not ready", step.Facts{Service: step.ServiceEarly, Stop: &step.Stop{Reason: step.ReasonReady, Err: boom}, Stages: []step.StageEnd{killed("a", syscall.SIGTERM)}}, "failure ready 1 signal=SIGTERM command=a err=boom"},
		{"a service that was cancelled early", step.Facts{Service: step.ServiceEarly, Stop: told, Stages: []step.StageEnd{killed("a", syscall.SIGTERM)}}, "cancelled signal 143 signal=SIGTERM command=a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := describe(step.Judge(tt.facts)); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if got := step.Ended(tt.facts); describe(got.End) != tt.want || got.Stages != nil {
				t.Errorf("Ended has %+v", got)
			}
		})
	}
}

func TestStatusNames(t *testing.T) {
	t.Parallel()
	for s, want := range map[step.Status]string{
		step.StatusPending: "pending", step.StatusRunning: "running", step.StatusSuccess: "success",
		step.StatusFailure: "failure", step.StatusSkipped: "skipped", step.StatusCancelled: "cancelled",
	} {
		if s.String() != want {
			t.Errorf("%d is %q, expected %q", s, s, want)
		}
	}
}

// TestStop: a Stop is the cause of a context, an error, and found behind others.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		stop step.Stop
		want string
	}{
		{step.Stop{}, "the step was told to end"},
		{step.Stop{Signal: syscall.SIGINT}, "the step was told to end"},
		{step.Stop{Reason: step.ReasonMaxBuffer}, "maxBuffer"},
		{step.Stop{Reason: step.ReasonReady, Err: io.ErrUnexpectedEOF}, "unexpected EOF"},
	} {
		if got := tt.stop.Error(); got != tt.want {
			t.Errorf("%q, expected %q", got, tt.want)
		}
		if tt.stop.Err != nil && !errors.Is(&tt.stop, tt.stop.Err) {
			t.Errorf("%v does not wrap its Err", &tt.stop)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(fmt.Errorf("said so: %w", &tt.stop))
		if got := step.StopOf(ctx); got != &tt.stop {
			t.Errorf("StopOf returns %+v", got)
		}
	}
	plain, cancel := context.WithCancel(t.Context())
	if got := step.StopOf(plain); !reflect.DeepEqual(got, &step.Stop{}) {
		t.Errorf("of a context that is not done: %+v", got)
	}
	cancel()
	if got := step.StopOf(plain); !reflect.DeepEqual(got, &step.Stop{}) {
		t.Errorf("of another cause: %+v", got)
	}
}

func TestUnstarted(t *testing.T) {
	t.Parallel()
	boom, stop := errors.New("boom"), &step.Stop{Reason: step.ReasonTimeout}
	going := t.Context()
	over, cancel := context.WithCancelCause(going)
	cancel(stop)
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error
		want step.Facts
	}{
		{"its own error", going, boom, step.Facts{Err: boom, Command: "x"}},
		{"somebody else's context", going, context.Canceled, step.Facts{Err: context.Canceled, Command: "x"}},
		{"its own error, and then it was told to end", over, boom, step.Facts{Err: boom, Command: "x"}},
		{"told to end", over, context.Canceled, step.Facts{Stop: stop, Command: "x"}},
		{"told to end, with the cause", over, fmt.Errorf("open: %w", stop), step.Facts{Stop: stop, Command: "x"}},
	} {
		if got := step.Unstarted(tt.ctx, tt.err, "x"); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, expected %+v", tt.name, got, tt.want)
		}
	}
}

func TestWithTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := step.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		<-ctx.Done()
		if took := time.Since(start); took != time.Minute {
			t.Errorf("done after %s", took)
		}
		if got := step.StopOf(ctx); got.Reason != step.ReasonTimeout {
			t.Errorf("the cause is %+v", got)
		}
		if none, cancel := step.WithTimeout(t.Context(), 0); none != t.Context() {
			t.Error("0 is no timeout")
		} else {
			cancel()
		}
	})
}

func TestForce(t *testing.T) {
	t.Parallel()
	force := make(chan struct{})
	ctx := step.WithForce(t.Context(), force)
	if got := step.Force(ctx); got != (<-chan struct{})(force) {
		t.Error("the channel is another one")
	}
	if got := step.Force(t.Context()); got != nil {
		t.Error("a context without one has a channel")
	}
}
