package runner

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// StepResult is what came of one step.
type StepResult struct {
	Index      int
	Label      string
	Status     StepStatus
	Reason     Reason
	ExitCode   int // as a shell would report it
	Signal     string
	Err        error  // why it could not start, or which expression failed
	Command    string // of the stage that failed, quoted for a shell
	Start, End time.Time
	Stages     []StageResult
	// CancelledBy is the label of the step whose failure ended or skipped this
	// one; "" where it was none.
	CancelledBy string
	// Reused says why the step has ended well without running: "up to date", or
	// "run ID" of the run that is resumed; "" where it ran.
	Reused string
	// Job is the id of the job that the step left; "": none.
	Job string
	// Sub is what came of the pipeline that a step with run ran; else nil.
	Sub *Result
	// Each are the instances of a step that expands, in order of expansion; the
	// rest of the result sums them up. Matrix and Item are what an instance is
	// for.
	Each   []StepResult
	Matrix map[string]any
	Item   any
	// Attempts are the earlier attempts of a step that was run again, in order;
	// the rest of the result is the last one's.
	Attempts []StepResult
	// Left names the processes that were still there when the step had ended.
	Left []string
}

// Duration returns how long the step ran.
func (r *StepResult) Duration() time.Duration {
	switch {
	case r.Start.IsZero():
		return 0
	case r.End.IsZero(): // it goes on
		return time.Since(r.Start)
	}
	return r.End.Sub(r.Start)
}

// String says in a few words how the step ended, as "exit status 3", "killed by
// SIGKILL" or "success".
func (r *StepResult) String() string {
	switch r.Reason {
	case "":
		if r.Status != StatusFailure {
			return r.Status.String()
		}
	case ReasonTimeout, ReasonIdleTimeout:
		what := "timed out"
		if r.Reason == ReasonIdleTimeout {
			what = "gave no output for its idleTimeout"
		}
		if r.Signal != "" {
			return what + ", ended by " + r.Signal
		}
		return what
	case ReasonMaxBuffer:
		return "its output is larger than maxBuffer (onOverflow: kill)"
	case ReasonSignal:
		for i := range r.Stages {
			if s := r.Stages[i].Exit; s.Signal != 0 && s.CoreDumped {
				return "killed by " + r.Signal + " (core dumped)"
			}
		}
		return "killed by " + r.Signal
	}
	if r.Err != nil {
		return r.Err.Error()
	}
	return fmt.Sprintf("exit status %d", r.ExitCode)
}

// within is String with the limits of the step that the result is of.
func (r *StepResult) within(s *pipeline.Step) string {
	how := r.String()
	switch {
	case r.Reason == ReasonTimeout && s.Timeout > 0:
		return strings.Replace(how, "timed out", fmt.Sprintf("timed out after %s", s.Timeout), 1)
	case r.Reason == ReasonIdleTimeout && s.IdleTimeout > 0:
		return strings.Replace(how, "for its idleTimeout", fmt.Sprintf("for %s (idleTimeout)", s.IdleTimeout), 1)
	}
	return how
}

// ended returns how the step ended, as the rest of the program passes it on.
func (r *StepResult) ended() step.End {
	return step.End{Status: r.Status, Reason: r.Reason, ExitCode: r.ExitCode, Signal: r.Signal, Err: r.Err, Command: r.Command}
}

// end takes over how the step ended.
func (r *StepResult) end(e step.End) {
	r.Status, r.Reason, r.ExitCode, r.Signal, r.Err, r.Command = e.Status, e.Reason, e.ExitCode, e.Signal, e.Err, e.Command
}

// StageResult is what came of one process.
type StageResult struct {
	Pid     int
	Exit    Status
	Err     error // why it could not start
	Command string
	Branch  bool // it belongs to a branch of a tee

	stdout, stderr *step.Buffer
	redactor       *safety.Redactor
}

// Stdout returns what the stage wrote to stdout, if it is an exec or execFile;
// at most limit bytes (0: all that was kept). The error is that of the file
// that the output was spilled to; [os.ErrClosed] after [Result.Close]. Secrets
// are masked.
func (s *StageResult) Stdout(limit int64) ([]byte, error) {
	return s.output(s.stdout, limit)
}

// Stderr is as Stdout, for stderr.
func (s *StageResult) Stderr(limit int64) ([]byte, error) {
	return s.output(s.stderr, limit)
}

func (s *StageResult) output(b *step.Buffer, limit int64) ([]byte, error) {
	more := limit
	if limit > 0 {
		more += int64(s.redactor.Longest())
	}
	out, err := b.Bytes(more)
	return s.redactor.Cut(out, limit, b.Cut() || limit > 0 && b.Size() > more), err
}

// Result is what came of a run.
type Result struct {
	Steps   []StepResult // in file order
	Outputs map[string]any
	// ExitCode is the exit status of the run: 0, or that of the step that
	// failed first, 128+N after an interrupt by signal N, 124 after the
	// pipeline's own timeout; 1 where the context ended it for another reason.
	ExitCode int
	// Cause is the step that failed first, or nil.
	Cause *StepResult
	// Interrupted is set where the context, or the pipeline's timeout, ended the
	// run. It wraps the cause of the context's end, and [context.Canceled] or
	// [context.DeadlineExceeded].
	Interrupted error

	raw  map[string]any // Outputs with their secrets
	anew bool           // a step was run, and not taken over
	p    *pipeline.Pipeline
}

// Step returns the result of the step with a name, or of an unnamed one by how it
// is shown (see [pipeline.Pipeline.Label]); nil if there is none.
func (r *Result) Step(name string) *StepResult {
	for i := range r.Steps {
		if r.Steps[i].Label == name {
			return &r.Steps[i]
		}
	}
	return nil
}

// Close removes the files that large outputs were spilled to, which the garbage
// collector would do later. The outputs cannot be read any more. A nil Result may
// be closed.
func (r *Result) Close() {
	if r == nil {
		return
	}
	for i := range r.Steps {
		r.Steps[i].close()
	}
}

func (r *StepResult) close() {
	for j := range r.Stages {
		r.Stages[j].stdout.Close()
		r.Stages[j].stderr.Close()
	}
	for i := range r.Attempts {
		r.Attempts[i].close()
	}
	for i := range r.Each {
		r.Each[i].close()
	}
	r.Sub.Close()
}

// exitCode decides the exit status of a run. No other function does.
func exitCode(cause *StepResult, interrupt error) int {
	var by *Interrupt
	switch {
	case errors.As(interrupt, &by):
		return by.ExitCode()
	case errors.Is(interrupt, errTimeout):
		return step.CodeTimeout
	case cause != nil && cause.ExitCode != 0:
		return cause.ExitCode
	case cause != nil, interrupt != nil:
		return step.CodeFailure
	}
	return 0
}

// ExitCode returns the exit status of a run that the signal ended.
func (i *Interrupt) ExitCode() int { return signame.ExitCode(i.Signal) }

// StepError tells which step a run failed by, and how.
type StepError struct {
	File     string       // of the pipeline; "" for one built in Go
	Pos      pipeline.Pos // of the step in File
	Step     string       // its label
	Command  string       // of the stage that failed, quoted for a shell
	Reason   Reason
	ExitCode int // as a shell would report it
	Signal   string
	Stages   []StageResult // of all its processes
	Err      error         // the cause where it is known: of a start, an expression, a step of a nested pipeline; may be nil
	text     string
}

// Error returns "file:line:col: step NAME failed: …".
func (e *StepError) Error() string {
	where := ""
	if e.Pos.IsValid() {
		where = fmt.Sprintf("%s:%d:%d: ", e.File, e.Pos.Line, e.Pos.Col)
	}
	how := e.text
	if how == "" { // built outside of this package
		how = (&StepResult{Status: StatusFailure, Reason: e.Reason, ExitCode: e.ExitCode, Signal: e.Signal, Err: e.Err}).String()
	}
	return where + "step " + e.Step + " failed: " + how
}

// Unwrap returns Err and, where a time was over, [context.DeadlineExceeded].
func (e *StepError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if e.Reason == ReasonTimeout || e.Reason == ReasonIdleTimeout {
		errs = append(errs, errDeadline)
	}
	return errs
}

// err returns what Run says of the result: nil if all went well.
func (r *Result) err() error {
	if r.Cause == nil {
		return r.Interrupted
	}
	return errors.Join(r.Interrupted, r.stepError())
}

// stepError returns the error of the step that failed first.
func (r *Result) stepError() *StepError {
	c := r.Cause
	e := &StepError{
		File: r.p.File, Pos: r.p.Steps[c.Index].Pos, Step: c.Label, Command: c.Command, Reason: c.Reason,
		ExitCode: c.ExitCode, Signal: c.Signal, Stages: c.Stages, Err: c.Err, text: c.within(r.p.Steps[c.Index]),
	}
	if c.Sub != nil && c.Sub.Cause != nil {
		e.Err = c.Sub.stepError()
	}
	return e
}
