package runner

// This file holds the event stream: the only output of the runner.

import (
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/safety"
)

// EventType says what an [Event] tells.
type EventType uint8

const (
	EventStepStart EventType = iota + 1 // a step begins
	EventSpawn                          // a process was started: Stage, Pid
	EventData                           // output: Stage, Stream, Data
	EventExit                           // a process ended: Stage, Pid, Exit
	EventClose                          // its streams ended too: Stage
	EventWarning                        // Message
	EventStepEnd                        // Result
	EventRunEnd                         // the last event
	EventRerun                          // a step runs though it ended well before: Message says why
	EventReady                          // a service can be used
	EventJob                            // a job was started: Message is its id
	EventRetry                          // an attempt failed, and another comes: Result, Attempt, Delay
)

var eventNames = []string{"none", "stepStart", "spawn", "data", "exit", "close", "warning", "stepEnd", "runEnd", "rerun", "ready", "job", "retry"}

// String returns the name of the type, as in "stepStart".
func (t EventType) String() string { return eventNames[t] }

// Stream is stdout or stderr.
type Stream uint8

const (
	StreamStdout Stream = 1
	StreamStderr Stream = 2
)

// Event is one thing that happened.
//
// Events of one stream of output arrive in order and one at a time, and so do
// all others of one step; but those of several streams or steps may arrive at
// once, so a sink locks what it shares. A sink that blocks on output blocks
// that stream; one that blocks on another event may block the whole run.
type Event struct {
	Type     EventType
	Time     time.Time
	Pipeline *pipeline.Pipeline
	Step     int    // place in Pipeline.Steps; -1 for the run itself
	Label    string // of the step, or of the instance of one that expands
	Instance int    // of a step that expands, from 0; -1 for the step itself
	Stage    int
	Pid      int
	Stream   Stream
	Data     []byte // borrowed: valid during the call only
	Whole    bool   // Data was held back until the step had ended
	Exit     Status
	Message  string
	Result   *StepResult
	Attempt  int           // of EventRetry: which one failed, from 1
	Delay    time.Duration // of EventRetry: until the next one
}

// StepStatus is the state that a step ends in.
type StepStatus uint8

const (
	StatusPending   StepStatus = iota // not decided yet
	StatusRunning                     // started
	StatusSuccess                     // ended well
	StatusFailure                     // did not
	StatusSkipped                     // never started
	StatusCancelled                   // ended by the runner for another's sake
)

var statusNames = []string{"pending", "running", "success", "failure", "skipped", "cancelled"}

// String returns the status as expressions see it.
func (s StepStatus) String() string { return statusNames[s] }

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

// StageResult is what came of one process.
type StageResult struct {
	Pid     int
	Exit    Status
	Err     error // why it could not start
	Command string
	Branch  bool // it belongs to a branch of a tee

	stdout, stderr *buffer
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

func (s *StageResult) output(b *buffer, limit int64) ([]byte, error) {
	more := limit
	if limit > 0 {
		more += int64(s.redactor.Longest())
	}
	out, err := b.bytes(more)
	return s.redactor.Cut(out, limit, b != nil && (b.cut || limit > 0 && b.size > more)), err
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
	raw   map[string]any // Outputs with their secrets
	anew  bool           // a step was run, and not taken over
	// Interrupted is set where the context ended the run.
	Interrupted error
}

// Close removes the files that large outputs were spilled to. The outputs
// cannot be read any more.
func (r *Result) Close() {
	for i := range r.Steps {
		r.Steps[i].close()
	}
}

func (r *StepResult) close() {
	for j := range r.Stages {
		r.Stages[j].stdout.close()
		r.Stages[j].stderr.close()
	}
	for i := range r.Attempts {
		r.Attempts[i].close()
	}
	for i := range r.Each {
		r.Each[i].close()
	}
	if r.Sub != nil {
		r.Sub.Close()
	}
}
