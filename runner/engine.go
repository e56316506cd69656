// Package runner runs the steps of a checked pipeline: it decides what may
// start, joins the stdio of the stages, and reports what happens as events.
//
// The zero [Runner] works. It installs no signal handlers, keeps no state in
// the package and prints nothing of its own; package runner/guard holds the
// one thing that a program must switch on itself, the end of all descendants
// when the program is killed.
package runner

// This file holds the seam at which a process starts.

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
)

// Engine starts processes. [Local] is the one for this machine; package
// runnertest has a fake one. Start may be called by several goroutines at once.
type Engine interface {
	// Start starts a process, or returns an error (see [StartError]) and has
	// started nothing. It keeps no reference to c, and leaves the files of c
	// open: the caller closes them. A context that is done starts nothing.
	Start(ctx context.Context, c *Cmd) (Process, error)
}

// Finder is what an [Engine] may be besides: it says which file a program's name
// stands for, given the PATH and the folder of the step, before any process of
// the step starts. An engine that is none is given the names as they are.
type Finder interface {
	LookPath(name, path, dir string) (string, error)
}

// Cmd is what an engine needs to know to start a process: plain data.
type Cmd struct {
	Path string   // the program, as the engine found it (see Finder)
	Args []string // with the program's own name first
	Env  []string // exactly these; nil is empty
	Dir  string   // absolute
	// DirFile, if not nil, is the directory that Dir named when it was allowed;
	// the engine uses it rather than the name, where the system can.
	DirFile *os.File
	// The streams of the child. As with os/exec, an *os.File is handed to the
	// child itself; any other value is copied from or to by the engine, each
	// Writer from one goroutine, and from one for both if they are equal. nil
	// is the null device.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Extra          []*os.File // descriptors 3, 4, …; a nil one is not open
	UID, GID       *uint32    // nil: the runner's
	Session        bool       // it leads a session of its own, and not just a group
	// Terminal, if not nil, is a terminal that the child's group owns while it
	// runs.
	Terminal *os.File
	// Step and Stage say what of the pipeline this is, for engines that
	// place or fake processes; they do not change what is started.
	Step  string
	Stage int
}

// Process is a process that was started, with all that descends from it.
type Process interface {
	// Pid returns the process id, or 0 where the engine has none.
	Pid() int
	// Wait returns when the process has ended; its streams may still be open.
	// It is called once.
	Wait() Status
	// Closed is closed when all that the process and its descendants wrote to
	// the engine has been delivered.
	Closed() <-chan struct{}
	// Signal sends a signal to the whole tree. It may be called at any time by
	// any goroutine; after the end it reaches what is left, if anything.
	Signal(sig syscall.Signal)
	// End ends what is left of the tree once Wait has returned: it sends sig,
	// after grace SIGKILL (grace 0: never), and returns when all is gone. It
	// returns the names of what was left.
	End(sig syscall.Signal, grace time.Duration) []string
	// Left reports, once Wait has returned, whether End has anything to do.
	Left() bool
	// Holders names the processes that keep a stream open; for a warning.
	Holders() []string
	// Release gives up the streams that somebody else still holds open; with
	// force it gives up every stream, also one whose reader is slow. Closed is
	// closed soon after, unless what the streams are written to blocks.
	Release(force bool)
}

// Status is how a process ended. The zero value is exit code 0.
type Status struct {
	Code       int            // exit code, 128 + Signal after a signal
	Err        error          // why the status is not known; nil: it is
	Signal     syscall.Signal // 0: it exited
	CoreDumped bool
	User, Sys  time.Duration // CPU time; 0 where it is not known
	MaxRSS     int64         // bytes; 0 where it is not known
}

// OK reports exit code 0.
func (s Status) OK() bool { return s.Code == 0 && s.Signal == 0 && s.Err == nil }

// String returns the status in words, as "exit status 3" or "SIGKILL".
func (s Status) String() string {
	if s.Signal == 0 {
		return fmt.Sprintf("exit status %d", s.Code)
	}
	name := pipeline.SignalName(s.Signal)
	if name == "" {
		name = fmt.Sprintf("signal %d", int(s.Signal))
	}
	if s.CoreDumped {
		name += " (core dumped)"
	}
	return name
}

// StartError says why a process could not be started.
type StartError struct {
	Path string
	Code int    // 127: the program was not found; 126: it cannot be started
	Msg  string // one sentence
	Err  error  // the cause, may be nil
}

// Error returns the sentence.
func (e *StartError) Error() string { return e.Msg }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }
