// Package engine is the seam at which processes start.
//
// An [Engine] turns a [Cmd], which is plain data, into a running [Process].
// [Local] starts processes on this machine; package runnertest has one that
// starts none. An engine that starts them elsewhere implements Engine.Start and
// the four methods of Process:
//
//	r := runner.Runner{Engine: myEngine}
//
// Nothing here knows of steps or of the language that describes them.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline/signame"
)

// Engine starts processes. Several goroutines may call Start at once.
//
// An engine may have more methods, which the runner uses where they are there,
// by the functions of this package:
//
//	LookPath(name, path, dir string) (string, error)
//	                              see [Finder]
//	Terminal(*os.File) *Terminal  see [OwnTerminal]
//	Unwrap() Engine               the engine that this one wraps
//
// What an engine does not have is looked for in the one that Unwrap returns. So an
// engine that adds something to another has Start and Unwrap.
type Engine interface {
	// Start starts a process, or returns an error and has started nothing; an
	// error that is no [StartError] counts as one. Start keeps no reference to
	// c, and leaves the files of c open: the caller closes them.
	//
	// ctx carries the values of the context that the run was given. It is done
	// when the step is to end before Start has returned. Once Start has
	// returned, ctx is never done: only Signal ends the process.
	Start(ctx context.Context, c *Cmd) (Process, error)
}

// Finder is what an [Engine] may be besides: it says which file a program's name
// stands for, given the PATH and the folder of the step, before any process of
// the step starts. An engine that is no Finder is given the names as they are.
type Finder interface {
	LookPath(name, path, dir string) (string, error)
}

// Cmd is what an engine needs to know to start a process: plain data.
type Cmd struct {
	Path string   // the program, as the engine found it (see Finder)
	Args []string // with the program's own name first
	Env  []string // exactly these; nil is empty
	Dir  string   // absolute
	// DirFile, if not nil, is the directory that Dir named when it was allowed.
	// The engine uses it rather than the name, where the system can.
	DirFile *os.File
	// The streams of the child. As with os/exec, an *os.File is handed to the
	// child itself; the engine copies from or to any other value, each Writer
	// from one goroutine, and from one for both if they are equal. nil is the
	// null device.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Extra          []*os.File // descriptors 3, 4, …; a nil one is not open
	UID, GID       *uint32    // nil: the runner's
	// Terminal, if not nil, is a terminal that the child owns with the other
	// processes of its step. A child without one has no controlling terminal.
	Terminal *Terminal
	// Step and Stage say what of the pipeline this is, for engines that
	// place or fake processes; they do not change what is started.
	Step  string
	Stage int
}

// Process is a process that was started, with all that descends from it. All
// methods but Wait may be called at any time by any goroutine.
//
// A process may have more methods, which the runner uses where they are there:
//
//	String() string        its name in messages, as "sleep (pid 12)"
//	Left() bool            after Wait: descendants are left, which End ends
//	End(sig syscall.Signal, grace time.Duration) []string
//	                       after Wait: sends sig to what is left, after grace
//	                       SIGKILL (grace 0: never), returns the names of what
//	                       was left, when all is gone, or soon after a SIGKILL
//	                       that did not help: Left is true still
//	Holders() []string     names what keeps a stream open
//	Release(force bool)    gives up the streams that somebody else still holds
//	                       open; with force also those whose reader is slow;
//	                       Closed is closed soon after
//	Unwrap() Process       the process that this one wraps
//
// What a process does not have is looked for in the one that Unwrap returns.
type Process interface {
	// Pid returns the process id, or 0 where the engine has none.
	Pid() int
	// Wait returns when the process has ended; its streams may still be open.
	// It is called once.
	Wait() Status
	// Signal sends a signal to the whole tree. After the end of the process it
	// reaches what is left of the tree; that nothing is left is no error.
	Signal(sig syscall.Signal) error
	// Closed returns a channel that is closed when all that the process and its
	// descendants wrote to the engine has been delivered.
	Closed() <-chan struct{}
}

// Status is how a process ended. The zero value is exit code 0.
type Status struct {
	Code       int            // exit code, or that of Signal, see [signame.ExitCode]
	Err        error          // why the status is not known; nil: it is
	Signal     syscall.Signal // 0: it exited
	CoreDumped bool
	User, Sys  time.Duration // CPU time; 0 where it is not known
	MaxRSS     int64         // bytes; 0 where it is not known
}

// Killed returns the status of a process that a signal ended.
func Killed(sig syscall.Signal) Status { return Status{Code: signame.ExitCode(sig), Signal: sig} }

// OK reports exit code 0.
func (s Status) OK() bool { return s.Code == 0 && s.Signal == 0 && s.Err == nil }

// String returns the status in words, as "exit status 3" or "SIGKILL".
func (s Status) String() string {
	if s.Signal == 0 {
		return fmt.Sprintf("exit status %d", s.Code)
	}
	name := signame.Name(s.Signal)
	if s.CoreDumped {
		name += " (core dumped)"
	}
	return name
}

// The exit codes by which shells, and pipe, tell that a program did not start.
const (
	CodeCannotStart = 126 // it was found and could not be started
	CodeNotFound    = 127 // it was not found
)

// StartError says why a process, or what belongs to it, could not be started.
type StartError struct {
	Path string // of the program, the folder or the file at fault; "": there is none
	Code int    // exit code; 0: CodeCannotStart
	Msg  string // one sentence
	Err  error  // the cause; nil: there is none besides Msg
}

// Error returns the sentence.
func (e *StartError) Error() string { return e.Msg }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// ExitCode returns the exit code that a shell would give the failure.
func (e *StartError) ExitCode() int {
	if e.Code == 0 {
		return CodeCannotStart
	}
	return e.Code
}

// find returns the first of v, what it wraps, what that wraps and so on that is a
// T. W is Engine or Process.
func find[T, W any](v W) (t T, ok bool) {
	for any(v) != nil {
		if t, ok = any(v).(T); ok {
			return t, true
		}
		w, wraps := any(v).(interface{ Unwrap() W })
		if !wraps {
			break
		}
		v = w.Unwrap()
	}
	return t, false
}

// LookPath finds a program as the engine does; see [Finder].
func LookPath(e Engine, name, path, dir string) (string, error) {
	if f, ok := find[Finder](e); ok {
		return f.LookPath(name, path, dir)
	}
	return name, nil
}

// Start calls e.Start with a context that has the values of ctx and is done
// where ctx becomes so before e.Start has returned, but never after. An error by
// which e.Start says that its context is done becomes the cause of ctx.
func Start(ctx context.Context, e Engine, c *Cmd) (Process, error) {
	if ctx.Done() == nil {
		return e.Start(ctx, c)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	starting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	p, err := e.Start(starting, c)
	if !stop() {
		<-starting.Done() // or it would be done some time after the return
	}
	if err != nil && starting.Err() != nil && errors.Is(err, starting.Err()) {
		err = context.Cause(ctx) // starting says Canceled where ctx has met its deadline
	}
	return p, err
}

// Name returns the name of a process for messages, or "" where it has none.
func Name(p Process) string {
	if s, ok := find[fmt.Stringer](p); ok {
		return s.String()
	}
	return ""
}

// Left reports whether End has anything to do for a process that has ended.
func Left(p Process) bool {
	l, ok := find[interface{ Left() bool }](p)
	return ok && l.Left()
}

// End ends what is left of the tree of a process that has ended; see [Process].
func End(p Process, sig syscall.Signal, grace time.Duration) []string {
	if e, ok := find[interface {
		End(syscall.Signal, time.Duration) []string
	}](p); ok {
		return e.End(sig, grace)
	}
	return nil
}

// Holders names the processes that keep a stream of p open.
func Holders(p Process) []string {
	if h, ok := find[interface{ Holders() []string }](p); ok {
		return h.Holders()
	}
	return nil
}

// Release gives up the streams of p; see [Process].
func Release(p Process, force bool) {
	if r, ok := find[interface{ Release(bool) }](p); ok {
		r.Release(force)
	}
}

// OwnTerminal prepares a terminal for the processes of a step, for [Cmd].Terminal.
// It returns nil where f is not the controlling terminal of this program, or e
// has no terminals. The caller calls Release when the step has ended.
func OwnTerminal(e Engine, f *os.File) *Terminal {
	if t, ok := find[interface{ Terminal(*os.File) *Terminal }](e); ok {
		return t.Terminal(f)
	}
	return nil
}
