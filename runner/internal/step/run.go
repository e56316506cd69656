package step

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/safety"
)

// Services are what the steps of a run share. They are not changed once the
// first step runs.
type Services struct {
	Engine   engine.Engine
	Root     *safety.Dir      // nothing outside of it is opened; nil: nothing is confined
	Redactor *safety.Redactor // masks what passes through; nil: there are no secrets
	// Stdin, Stdout and Stderr are what inherit means. Stdout and Stderr that are
	// no *os.File are written to by several steps at once.
	Stdin          *os.File
	Stdout, Stderr io.Writer
	Inherited      []int // descriptors past 2 that a step may name; nil: any
	// Direct says that nobody looks at output: it goes to Stdout and Stderr
	// without a copy where that can be, and no event tells of it.
	Direct bool
	// Turn is held by the step that reads Stdin, and nobody else may; nil: there is
	// but one step.
	Turn chan struct{}
	// Large bounds how many pipes are large at once; see [NewLarge]. nil: none.
	Large chan struct{}
	// Whole is held while output is delivered that was held back, so that it is
	// not mixed with that of another step.
	Whole *sync.Mutex
}

// NewLarge returns a value for Services.Large. An unprivileged user has 64 pipes
// of 1 MiB, and after that all further ones get 8 KiB.
func NewLarge() chan struct{} { return make(chan struct{}, 16) }

// EventType says what an [Event] tells.
type EventType uint8

// The events of a step.
const (
	EventSpawn     EventType = iota + 1 // a process was started: Stage, Pid
	EventData                           // output: Stage, FD, Data, Whole
	EventExit                           // a process ended: Stage, Pid, Exit
	EventClose                          // its streams ended too: Stage
	EventWarning                        // Message, secrets masked
	EventReady                          // the service can be used
	EventFreed                          // all processes have ended well; what is left is looked after
	EventInterrupt                      // a process that owned the terminal was interrupted from there: Exit
)

// Event is one thing that happened to a step.
type Event struct {
	Type    EventType
	Stage   int
	Pid     int
	FD      int    // 1 or 2
	Data    []byte // borrowed: valid during the call only
	Whole   bool   // Data was held back until the step had ended
	Exit    engine.Status
	Message string
}

// Result is what came of a step.
type Result struct {
	End
	Stages []StageResult
	Left   []string // names of the processes that were still there when the step had ended
}

// StageResult is what came of one process.
type StageResult struct {
	Pid            int
	Exit           engine.Status
	Err            error // why it could not start
	Command        string
	Branch         bool    // it belongs to a branch of a tee
	Stdout, Stderr *Buffer // what was kept; nil: nothing was
}

// execution is one run of a Spec. It belongs to the goroutine that called Run,
// but for end, emit and lastByte.
type execution struct {
	spec *Spec
	sv   *Services
	sink func(Event) // called by several goroutines at once

	ctx  context.Context         // done when the step is to end; see [Stop]
	end  context.CancelCauseFunc // of ctx
	stop stopping

	procs    []*proc
	tees     []*tee
	streams  []*stream
	open     []*os.File       // to be closed when all have started
	large    int              // places taken in Services.Large
	turn     bool             // it holds Services.Turn
	terminal *engine.Terminal // that the step owns; nil: none
	begun    time.Time
	lastByte atomic.Int64  // when output came last, in nanoseconds since begun
	notify   *notifySocket // of a service that says itself that it is ready; else nil
	line     *linePattern  // of a service whose output says so; else nil
	ready    chan struct{} // closed when the service can be used

	command string // of the stage that could not start
	result  Result
}

// proc is a stage that is, or will be, a process.
type proc struct {
	spec   *Stage
	stage  int  // place in Result.Stages
	last   bool // no stage reads its stdout
	cmd    engine.Cmd
	out    *stream // where stdout passes through the runner, or nil
	errs   *stream
	handle engine.Process // nil: it has not started
	status engine.Status
	ended  bool
	reader *proc   // the stage that reads its stdout through a pipe; nil: none
	read   int64   // what the reader had read when that was looked at last, in bytes
	ending *ending // of what it left; nil: that has not begun
}

// Run runs a step and returns when the last of its processes has ended. It ends
// them when ctx is done: as the [Stop] that is the cause says, and by SIGKILL
// when the channel of [WithForce] is closed. The caller applies spec.Timeout, by
// [WithTimeout], to all that the step waits for. What Run starts gets the values
// of ctx. sink is told what happens, by several goroutines at once; events of one
// stream of output come one at a time, and so do all others.
func Run(ctx context.Context, spec *Spec, sv *Services, sink func(Event)) *Result {
	ex := &execution{spec: spec, sv: sv, sink: sink}
	ex.begun = time.Now()
	ex.ready = make(chan struct{})
	ex.ctx, ex.end = context.WithCancelCause(ctx)
	defer ex.end(nil)
	ex.stop = stopping{asked: ex.ctx.Done(), force: Force(ctx)}
	defer ex.stop.timers()
	ex.run()
	return &ex.result
}

// heard notes that output came.
func (ex *execution) heard() { ex.lastByte.Store(int64(time.Since(ex.begun))) }

// silent returns how long no output has come.
func (ex *execution) silent() time.Duration {
	return time.Since(ex.begun) - time.Duration(ex.lastByte.Load())
}

// Ended returns the result of a step of which nothing was run.
func Ended(f Facts) *Result { return &Result{End: Judge(f)} }

// Unstarted returns the facts about a step that did not start because of err,
// which is none of the step's own where ctx is done: then the step was told to
// end while something blocked.
func Unstarted(ctx context.Context, err error, command string) Facts {
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		return Facts{Stop: StopOf(ctx), Command: command}
	}
	return Facts{Err: err, Command: command}
}

func (ex *execution) run() {
	err := ex.prepare()
	if err == nil {
		err = ex.start()
	}
	if err == nil && ex.spec.Service != nil {
		defer ex.awaitReady()()
	}
	if err != nil {
		ex.abort()
	}
	osfile.Close(ex.open...)
	ended := ex.wait()
	ex.terminal.Release()
	ex.flush()
	for _, p := range ex.procs {
		if p.handle != nil {
			ex.sink(Event{Type: EventClose, Stage: p.stage})
		}
	}
	for range ex.large {
		<-ex.sv.Large
	}
	if ex.turn {
		<-ex.sv.Turn
	}
	if ex.notify != nil {
		ex.notify.close()
	}
	ex.result.End = Judge(ex.facts(err, ended))
}

// prepare opens what the stages need; nothing is started.
func (ex *execution) prepare() (err error) {
	if s := ex.spec.Service; s != nil && s.Ready != nil {
		if s.Ready.Notify {
			if ex.notify, err = listenNotify(ex.spec); err != nil {
				return err
			}
		}
		if s.Ready.Log != "" {
			if ex.line, err = newLinePattern(s.Ready.Log); err != nil {
				return err
			}
		}
	}
	return ex.plumb()
}

// start starts all stages; after an error none is started any more.
func (ex *execution) start() error {
	if ex.ctx.Err() != nil { // before anything was there to be ended
		return context.Cause(ex.ctx)
	}
	for _, t := range ex.tees {
		t.begin()
	}
	for _, p := range ex.procs {
		if ex.ctx.Err() != nil {
			return nil // wait ends what has started
		}
		if err := ex.startProc(p); err != nil {
			return ex.fault(p, err)
		}
		pid := p.handle.Pid()
		ex.result.Stages[p.stage].Pid = pid
		ex.sink(Event{Type: EventSpawn, Stage: p.stage, Pid: pid})
	}
	return nil
}

// abort ends what has started of a step that cannot start as a whole.
func (ex *execution) abort() {
	for _, p := range ex.procs {
		if p.handle != nil {
			_ = p.handle.Signal(syscall.SIGKILL) // it is waited for in any case
		}
	}
	for _, t := range ex.tees {
		if !t.begun {
			t.release(true)
		}
	}
}

// facts returns what Judge decides by.
func (ex *execution) facts(err error, ended *Stop) Facts {
	if err != nil {
		if ex.command == "" && len(ex.procs) > 0 {
			ex.command = ex.procs[len(ex.procs)-1].spec.Command
		}
		return Unstarted(ex.ctx, err, ex.command)
	}
	f := Facts{Stop: ended, Command: ex.spec.line(false)}
	for _, p := range ex.procs {
		if p.handle != nil {
			f.Stages = append(f.Stages, StageEnd{Status: p.status, OK: p.succeeded(), Command: p.spec.Command})
		}
	}
	if len(f.Stages) == 0 { // it was told to end before the first one started
		f.Stop = StopOf(ex.ctx)
	}
	for _, s := range ex.streams {
		if f.Stop == nil && s.overflowed() { // the process may have ended before it could be ended
			f.Stop = &Stop{Reason: ReasonMaxBuffer}
		}
	}
	for _, t := range ex.tees {
		select {
		case <-t.done:
		default:
			continue // given up; it may hang for ever
		}
		if t.err != nil && f.Output == nil {
			f.Output = t.err
		}
		if t.err != nil && !ex.stop.signalled {
			ex.warn(t.err.Error())
		}
	}
	return f
}

func (ex *execution) warn(msg string) {
	ex.sink(Event{Type: EventWarning, Message: ex.sv.Redactor.String(msg)})
}

// succeeded reports whether the stage ended well. One that is not the last, and
// whose reader had enough, has: SIGPIPE, or its exit code from a shell.
func (p *proc) succeeded() bool {
	st := p.spec
	if p.status.Err != nil {
		return false
	}
	if p.status.Signal == 0 && st.succeeded(p.status.Code) {
		return true
	}
	if p.last || st.SigpipeFails {
		return false
	}
	return p.status.Signal == syscall.SIGPIPE || st.UsesShell() && p.status.Code == signame.ExitCode(syscall.SIGPIPE)
}
