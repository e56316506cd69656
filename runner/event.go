package runner

import (
	"fmt"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// EventType says what an [Event] tells.
type EventType uint8

// The events of a run.
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
func (t EventType) String() string {
	if int(t) < len(eventNames) {
		return eventNames[t]
	}
	return fmt.Sprintf("event %d", uint8(t))
}

// ofStep has the events that a running step itself tells.
var ofStep = map[step.EventType]EventType{
	step.EventSpawn: EventSpawn, step.EventData: EventData, step.EventExit: EventExit, step.EventClose: EventClose, step.EventWarning: EventWarning,
}

// Stream is stdout or stderr.
type Stream uint8

// The streams, by their descriptors.
const (
	StreamStdout Stream = 1
	StreamStderr Stream = 2
)

// String returns "stdout" or "stderr".
func (s Stream) String() string {
	if s == StreamStderr {
		return "stderr"
	}
	return "stdout"
}

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
