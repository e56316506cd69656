package runner

import (
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/history"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// The seam at which processes start is package engine; these are its types where
// a reader of this package looks for them, and go doc runner/engine has the whole
// of each.
type (
	// Engine starts processes: Start(ctx, *Cmd) (Process, error).
	Engine = engine.Engine
	// Cmd is what an engine needs to know: Path, Args, Env, Dir, Stdin, Stdout,
	// Stderr, Extra …
	Cmd = engine.Cmd
	// Process is one that was started: Pid, Wait, Signal, Closed.
	Process = engine.Process
	// Status is how a process ended: Code, Signal, CoreDumped, Err, User, Sys,
	// MaxRSS; OK and String.
	Status = engine.Status
	// StartError says why a process did not start: Path, Code, Msg, Err; ExitCode.
	StartError = engine.StartError
	// Local is the engine that starts processes on this machine.
	Local = engine.Local
)

// StepStatus is the state that a step ends in. String returns it as expressions
// see it, as in "success".
type StepStatus = step.Status

// The states of a step.
const (
	StatusPending   = step.StatusPending   // not decided yet
	StatusRunning   = step.StatusRunning   // started
	StatusSuccess   = step.StatusSuccess   // ended well
	StatusFailure   = step.StatusFailure   // did not
	StatusSkipped   = step.StatusSkipped   // never started
	StatusCancelled = step.StatusCancelled // ended by the runner for another's sake
)

// Reason says why a step did not end well; "" where it did.
type Reason = step.Reason

// The reasons, as expressions see them.
const (
	ReasonExit        = step.ReasonExit        // an exit code that is no success
	ReasonSignal      = step.ReasonSignal      // a signal that did not come from the runner
	ReasonTimeout     = step.ReasonTimeout     // the timeout was over
	ReasonIdleTimeout = step.ReasonIdleTimeout // no output for the idleTimeout
	ReasonMaxBuffer   = step.ReasonMaxBuffer   // more output than maxBuffer, with onOverflow: kill
	ReasonSpawn       = step.ReasonSpawn       // a process could not be started
	ReasonExpression  = step.ReasonExpression  // an expression has no value
	ReasonReady       = step.ReasonReady       // a service was not ready in time
)

// PastRun is a run as its journal tells it. Its fields:
//
//	ID       string
//	File     string // of the pipeline, as it was given
//	Name     string // of the pipeline
//	Dir      string // the caller's working directory
//	Root     string // of the Runner; "": not confined
//	Params   map[string][]string
//	Args     []string
//	Steps    []string // that were named; nil: all
//	Pid      int      // of the runner
//	Start    time.Time
//	End      time.Time // zero unless Status is RunEnded
//	Status   RunStatus
//	ExitCode int    // if Status is RunEnded
//	Cause    string // label of the step that failed first; "": none
//	Error    string // what interrupted the run; "": nothing
//	Problem  string // why the journal cannot be read, or not to its end; "": nothing
//	Results  []PastStep // in the order in which they ended; OpenRun alone sets it
//
// and its method:
//
//	// Resumable says why the run cannot be resumed; nil: it can. Of parameters
//	// and arguments with a secret there is no record: param reports whether the
//	// caller lacks a parameter, args whether it lacks the arguments.
//	Resumable(param func(name string) bool, args bool) error
type PastRun = history.PastRun

// PastStep is a step of a [PastRun]. Its fields:
//
//	Label    string
//	Status   string // as of StepStatus, or "killed" with the run
//	Reason   Reason
//	ExitCode int
//	Signal   string
//	Command  string
//	Error    string
//	Attempts int // before the last one
//	Start    time.Time     // of a step with Reused, that of the run
//	Duration time.Duration // in which it ran
//	Reused   string        // why it was not run: "up to date" or "run ID"; "": it was
type PastStep = history.PastStep

// RunStatus says what became of a run; it is a string, as "running".
type RunStatus = history.RunStatus

// The states of a run.
const (
	RunRunning    = history.RunRunning    // it goes on
	RunEnded      = history.RunEnded      // whether well or not: see PastRun.ExitCode
	RunKilled     = history.RunKilled     // or the machine was
	RunUnreadable = history.RunUnreadable // see PastRun.Problem
)

// LockError tells that a lock is held by another run. Its fields:
//
//	Name   string // of the lock
//	Holder string // how the other run describes itself; "": not known
type LockError = history.LockError

// Watched are the files that a pipeline has as sources, and where more of them
// may come. Its fields:
//
//	Sums    map[string]string // digests of the contents, by absolute path; for comparison only
//	Dirs    []string          // the folders in which sources are, or may come; sorted
//	Unknown []string          // labels of steps whose sources are known during a run only
//
// and its method:
//
//	// Changed returns the paths that are new, gone or other than before, sorted.
//	Changed(before *Watched) []string
type Watched = history.Watched

// ErrNoState tells that nothing names a folder for state.
var ErrNoState = history.ErrNoState

// StateDir returns the folder where runs keep what outlives them: PIPE_STATE_DIR,
// or pipe in XDG_STATE_HOME, or in .local/state of the home folder. environ is
// a list of NAME=value. The error may be [ErrNoState].
func StateDir(environ []string) (string, error) { return history.StateDir(environ) }

// Runs returns the runs that are recorded in a state folder, without their
// steps, the latest first.
func Runs(folder string) ([]*PastRun, error) { return history.Runs(folder) }

// OpenRun returns the run with an id, or the beginning of one, or the "last"
// one that was started in dir (anywhere, if dir is "").
func OpenRun(folder, id, dir string) (*PastRun, error) { return history.OpenRun(folder, id, dir) }

// PruneRuns removes the journals of all but the latest runs, and of none that
// goes on; it returns how many it removed.
func PruneRuns(folder string, keep int) (int, error) { return history.PruneRuns(folder, keep) }
