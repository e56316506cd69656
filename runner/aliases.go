package runner

import (
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/history"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// The seam at which processes start is package engine; these are its types where
// a reader of this package looks for them.
type (
	Engine     = engine.Engine
	Cmd        = engine.Cmd
	Process    = engine.Process
	Status     = engine.Status
	StartError = engine.StartError
	Local      = engine.Local
)

// StepStatus is the state that a step ends in.
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
	ReasonExit        = step.ReasonExit
	ReasonSignal      = step.ReasonSignal
	ReasonTimeout     = step.ReasonTimeout
	ReasonIdleTimeout = step.ReasonIdleTimeout
	ReasonMaxBuffer   = step.ReasonMaxBuffer
	ReasonSpawn       = step.ReasonSpawn
	ReasonExpression  = step.ReasonExpression
	ReasonReady       = step.ReasonReady
)

// PastRun is a run as its journal tells it; PastStep is a step of one.
type (
	PastRun  = history.PastRun
	PastStep = history.PastStep
)

// RunStatus says what became of a run.
type RunStatus = history.RunStatus

// The states of a run.
const (
	RunRunning    = history.RunRunning
	RunEnded      = history.RunEnded
	RunKilled     = history.RunKilled     // or the machine was
	RunUnreadable = history.RunUnreadable // see PastRun.Problem
)

// LockError tells that a lock is held by another run.
type LockError = history.LockError

// Watched are the files that a pipeline has as sources, and where more of them
// may come.
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
