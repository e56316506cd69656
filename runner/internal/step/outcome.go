package step

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
)

// Status is how far a step has come, or how it ended.
type Status uint8

// The states of a step.
const (
	StatusPending   Status = iota // not decided yet
	StatusRunning                 // started
	StatusSuccess                 // ended well
	StatusFailure                 // did not
	StatusSkipped                 // never started
	StatusCancelled               // ended by the runner for another's sake
)

var statusNames = []string{"pending", "running", "success", "failure", "skipped", "cancelled"}

// String returns the status as expressions see it.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Reason says why a step did not end well; "" where it did.
type Reason string

// The reasons, as expressions see them.
const (
	ReasonExit        Reason = "exit"
	ReasonSignal      Reason = "signal"
	ReasonTimeout     Reason = "timeout"
	ReasonIdleTimeout Reason = "idleTimeout"
	ReasonMaxBuffer   Reason = "maxBuffer"
	ReasonSpawn       Reason = "spawn"
	ReasonExpression  Reason = "expression"
	ReasonReady       Reason = "ready"
)

// Exit codes that no process gives; see also [engine.CodeNotFound].
const (
	CodeFailure = 1   // of a failure that has no code of its own
	CodeTimeout = 124 // as timeout(1)
)

// Stop is the cause with which the context of a step is cancelled: how the step
// is to end, and why. Any other cause stands for the zero Stop.
type Stop struct {
	Signal syscall.Signal // 0: the killSignal of each stage
	Grace  *time.Duration // until SIGKILL; nil: that of the stages; 0: SIGKILL at once
	Reason Reason         // what the step itself did; "": it ends for another's sake
	Err    error          // what there is to say about Reason; may be nil
}

// Error names the reason.
func (s *Stop) Error() string {
	if s.Err != nil {
		return s.Err.Error()
	}
	if s.Reason != "" {
		return string(s.Reason)
	}
	return "the step was told to end"
}

// Unwrap returns Err.
func (s *Stop) Unwrap() error { return s.Err }

// StopOf returns the Stop with which a context was cancelled.
func StopOf(ctx context.Context) *Stop {
	var s *Stop
	if errors.As(context.Cause(ctx), &s) {
		return s
	}
	return &Stop{}
}

// WithTimeout returns a context that is done after d, where d is not 0, with a
// Stop as the cause.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, &Stop{Reason: ReasonTimeout})
}

type forceKey struct{}

// WithForce returns a context whose steps end by SIGKILL at once when force is
// closed, whatever they were told before.
func WithForce(ctx context.Context, force <-chan struct{}) context.Context {
	return context.WithValue(ctx, forceKey{}, force)
}

// Force returns the channel of [WithForce], or nil.
func Force(ctx context.Context) <-chan struct{} {
	force, _ := ctx.Value(forceKey{}).(<-chan struct{})
	return force
}

// End is how a step, or an instance of one, ended.
type End struct {
	Status   Status
	Reason   Reason
	ExitCode int // as a shell would report it
	Signal   string
	Err      error  // why it could not start, which expression failed, what was not ready …
	Command  string // of the stage that failed, quoted for a shell
}

// Facts are what happened to a step, as far as its end depends on it. The zero
// value is that of a step that did what it should.
type Facts struct {
	Skipped bool
	// Err says why the step, or one of its processes, did not start, or which
	// expression has no value. It comes before Stop and Stages.
	Err error
	// Stop is how the step was told to end before it had ended by itself; nil:
	// it was not.
	Stop   *Stop
	Stages []StageEnd // of the processes that ran, in the order of the file
	Output error      // why a file that the step writes is incomplete
	// Inner is the end of what the step stands for: a pipeline, a job, an
	// earlier run.
	Inner     *End
	Instances []End // of a step that expands, in the order in which they ended
	Service   ServiceEnd
	Command   string // of the stage that Err is about, or of the whole step
}

// StageEnd is how a process ended.
type StageEnd struct {
	engine.Status
	OK      bool // it counts as success
	Command string
}

// ServiceEnd says what the end of a service means.
type ServiceEnd uint8

// What it may mean.
const (
	NoService     ServiceEnd = iota
	ServiceEarly             // it had not been ready
	ServiceNeeded            // others still leaned on it
	ServiceOver              // it was asked to end, or nobody leaned on it any more
)

var (
	errServiceEarly  = errors.New("the service ended before anything could lean on it")
	errServiceNeeded = errors.New("the service ended while the pipeline still leaned on it")
)

// Judge decides how a step ended. No other function does.
func Judge(f Facts) End {
	e := f.own()
	if f.Stop != nil && f.Err == nil {
		e = f.stopped(e)
	}
	switch {
	case f.Service == ServiceOver:
		e.Status, e.Reason = StatusSuccess, ""
	case f.Service == ServiceNeeded:
		e = e.tooEarly(errServiceNeeded)
	case f.Service == ServiceEarly && e.Status == StatusSuccess:
		e = e.tooEarly(errServiceEarly)
	}
	return e
}

// own returns how the step ended by itself.
func (f *Facts) own() End {
	switch {
	case f.Skipped:
		return End{Status: StatusSkipped}
	case f.Err != nil:
		return f.unstarted()
	case f.Inner != nil:
		return *f.Inner
	case f.Instances != nil:
		return f.instances()
	}
	e := End{Status: StatusSuccess, Command: f.Command}
	for i := len(f.Stages) - 1; i >= 0; i-- { // the last one that failed counts
		st := &f.Stages[i]
		if !st.OK {
			return st.failed()
		}
	}
	if n := len(f.Stages); n > 0 {
		e.ExitCode, e.Command = f.Stages[n-1].Code, f.Stages[n-1].Command
	}
	if f.Output != nil {
		e.Status, e.Reason, e.ExitCode, e.Err = StatusFailure, ReasonExit, CodeFailure, f.Output
	}
	return e
}

// failed returns the end of a step that this stage decides.
func (st *StageEnd) failed() End {
	e := End{Status: StatusFailure, Reason: ReasonExit, ExitCode: st.Code, Err: st.Err, Command: st.Command}
	if st.Signal != 0 {
		e.Reason, e.Signal = ReasonSignal, signame.Name(st.Signal)
	}
	return e
}

// unstarted returns the end of a step that did not start, or not as a whole.
func (f *Facts) unstarted() End {
	e := End{Status: StatusFailure, Reason: ReasonExpression, ExitCode: CodeFailure, Err: f.Err, Command: f.Command}
	var se *engine.StartError
	if errors.As(f.Err, &se) {
		e.Reason, e.ExitCode = ReasonSpawn, se.ExitCode()
	}
	return e
}

// stopped returns the end of a step that was told to end.
func (f *Facts) stopped(e End) End {
	switch f.Stop.Reason {
	case "":
		e.Status = StatusCancelled
	case ReasonTimeout, ReasonIdleTimeout: // whose fault it was is not known
		e.Status, e.Reason, e.ExitCode, e.Err, e.Command = StatusFailure, f.Stop.Reason, CodeTimeout, f.Stop.Err, f.Command
	default:
		e.Status, e.Reason, e.ExitCode, e.Err = StatusFailure, f.Stop.Reason, CodeFailure, f.Stop.Err
	}
	return e
}

// instances returns the end of a step that expands.
func (f *Facts) instances() End {
	out := End{Status: StatusSuccess}
	for _, e := range f.Instances {
		switch e.Status {
		case StatusFailure:
			return e
		case StatusCancelled, StatusSkipped:
			out.Status = StatusCancelled
		}
	}
	return out
}

// tooEarly makes a failure of the end of a service, also of one with exit code 0.
func (e End) tooEarly(err error) End {
	how := fmt.Sprintf("exit status %d", e.ExitCode)
	if e.Signal != "" {
		how = e.Signal
	}
	e.Status, e.Err = StatusFailure, fmt.Errorf("%w (%s)", err, how)
	if e.Reason == "" {
		e.Reason = ReasonExit
	}
	if e.ExitCode == 0 {
		e.ExitCode = CodeFailure
	}
	return e
}
