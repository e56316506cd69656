package runner

// This file holds one running step: its plumbing, its processes, and its end.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/safety"
)

// stopRequest asks a step to end.
type stopRequest struct {
	sig   syscall.Signal // 0: the stage's killSignal
	force bool           // SIGKILL at once
	grace *time.Duration // until SIGKILL; nil: the stage's
	why   Reason         // of a timeout; "" for another's sake
}

// execution is a step that runs. It belongs to one goroutine, but for stopReq.
type execution struct {
	r       *run
	u       *unit
	step    *pipeline.Step
	weight  int
	vars    pipeline.Vars
	stopReq chan stopRequest

	bounds    []*bound // of all stages, in file order
	nextBound int      // the first that is not plumbed
	teeFiles  []string
	after     string // the step before this one that ran again, in a resumed run

	// Of a service.
	leaving   bool // it was asked to end, as the run does; belongs to the loop
	unready   chan error
	lineSeen  chan struct{} // closed by a line that matches
	sawLine   sync.Once
	notify    *net.UnixConn
	notifyDir string
	quiet     bool // a probe: nothing is told

	last   *record // of an earlier execution of a step with sources; nil: none
	finger *fingerprint
	taken  *record // the earlier end that is this one's
	// ranSince says that it was up to date, but by another run than the one that
	// is resumed.
	ranSince bool
	kept     bool // a job that was there before

	procs     []*proc
	tees      []*tee
	streams   []*stream
	open      []*os.File // to be closed when all have started
	bigPipes  int
	lastByte  atomic.Int64 // time of the last output, in nanoseconds
	timers    *timers
	full      chan struct{} // a buffer overflowed, and its policy is to end the child
	stopped   bool
	signalled bool
	givenUp   bool // streams were
	result    StepResult
}

// proc is a stage that is, or will be, a process.
type proc struct {
	bound  *bound
	cmd    *Cmd
	shell  *shellCmd
	stage  int // place in result.Stages
	last   bool
	out    *stream // where stdout passes through the runner, or nil
	errs   *stream
	handle Process
	status Status
}

// requestStop never blocks: what does not fit says nothing new.
func (ex *execution) requestStop(req stopRequest) {
	for {
		select {
		case ex.stopReq <- req:
			return
		default:
		}
		if !req.force {
			return
		}
		select {
		case <-ex.stopReq: // in favour of this one
		default:
		}
	}
}

func (ex *execution) emit(e Event) {
	if !ex.quiet {
		ex.r.emitFor(ex.u, e)
	}
}

func (ex *execution) warn(msg string) {
	ex.emit(Event{Type: EventWarning, Message: ex.r.redactor.String(msg)})
}

func (ex *execution) run() {
	ex.begin()
	defer ex.timers.stop()
	unlock, err := ex.lock()
	defer unlock()
	if err == nil {
		err = ex.bindAll()
	}
	if err == nil && ex.r.memory != nil {
		var same bool
		if same, err = ex.reuse(); same {
			return
		}
	}
	if ex.step.Run != nil {
		if err != nil {
			ex.fail(err)
			return
		}
		ex.include()
		ex.keepSources()
		return
	}
	if ex.step.Detached && !ex.r.foreground {
		if err != nil {
			ex.fail(err)
			return
		}
		ex.detach()
		return
	}
	ex.processes(err)
	ex.keepSources()
}

func (ex *execution) begin() {
	ex.result.Status, ex.result.ExitCode = StatusSuccess, 0
	ex.lastByte.Store(time.Now().UnixNano())
	ex.full = make(chan struct{}, 1)
	if ex.step.Background {
		ex.unready, ex.lineSeen = make(chan error, 1), make(chan struct{})
	}
	ex.timers = newTimers(ex)
}

// execute runs what is bound already.
func (ex *execution) execute() {
	ex.begin()
	defer ex.timers.stop()
	ex.processes(nil)
}

// processes starts the processes of the step, unless there is an error, and
// waits for their end.
func (ex *execution) processes(err error) {
	if err == nil && ex.step.Ready != nil && ex.step.Ready.Notify {
		err = ex.listenNotify()
		defer ex.closeNotify()
	}
	if err == nil {
		err = ex.plumb()
	}
	if err == nil {
		err = ex.start()
	}
	if err == nil && ex.step.Background {
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() {
			defer close(over)
			ex.awaitReady(ctx)
		}()
		defer func() { cancel(); <-over }()
	}
	if err != nil {
		ex.fail(err)
	}
	ex.closeOpen()
	ex.wait()
	ex.flush()
	for _, p := range ex.procs {
		if p.handle != nil {
			ex.emit(Event{Type: EventClose, Stage: p.stage})
		}
	}
	for range ex.bigPipes {
		<-ex.r.pipes
	}
	ex.judge()
}

// programStage stands for a program where there is none.
var programStage = &pipeline.Stage{Action: pipeline.ActionSpawn, Args: []pipeline.Template{pipeline.Literal("pipe")}}

// bindAll binds all stages, those in branches of a tee too.
func (ex *execution) bindAll() error {
	if ex.step.Run != nil { // its cwd and environment are bound as those of a program
		b, err := ex.bind(programStage)
		ex.bounds = []*bound{b}
		return err
	}
	ex.bounds = make([]*bound, 0, ex.weight)
	return ex.bindStages(ex.step.Stages)
}

func (ex *execution) bindStages(stages []*pipeline.Stage) error {
	for _, st := range stages {
		if st.Action != pipeline.ActionTee {
			b, err := ex.bind(st)
			if err != nil {
				return err
			}
			ex.bounds = append(ex.bounds, b)
			continue
		}
		for _, br := range st.Tee {
			if br.File == nil {
				if err := ex.bindStages(br.Chain); err != nil {
					return err
				}
				continue
			}
			path, err := ex.branchFile(br.File)
			if err != nil {
				return err
			}
			ex.teeFiles = append(ex.teeFiles, path)
		}
	}
	return nil
}

// lock takes the lock of the step; the step can be ended while it waits, and
// its timeout counts.
func (ex *execution) lock() (unlock func(), err error) {
	unlock = func() {}
	if ex.step.Lock == nil {
		return unlock, nil
	}
	err = ex.interruptible(func(ctx context.Context) (err error) {
		var release func()
		release, err = ex.r.lock(ctx, ex.step.Lock, &ex.vars, func(msg string) { ex.warn("waiting: " + msg) })
		if release != nil {
			unlock = release
		}
		return err
	})
	return unlock, err
}

// interruptible calls what may block before anything has started, with a
// context that ends when the step is to end or its timeout is over.
func (ex *execution) interruptible(f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	watched := make(chan struct{})
	stopped := false
	go func() {
		defer close(watched)
		select {
		case req := <-ex.stopReq:
			stopped = true
			cancel()
			ex.requestStop(req)
		case <-ex.timers.timeout:
			ex.timers.timeout = nil
			ex.result.Reason = ReasonTimeout
			cancel()
		case <-done:
		}
	}()
	err := f(ctx)
	close(done)
	<-watched
	if err != nil && stopped {
		return errNotStarted
	}
	return err
}

// fail notes why the step could not start; what of it has started is ended.
func (ex *execution) fail(err error) {
	ex.result.Status, ex.result.Err = StatusFailure, err
	var se *StartError
	switch {
	case ex.result.Reason == ReasonTimeout: // before anything had started
		ex.result.ExitCode = 124
	case ex.result.Reason != "":
	case errors.As(err, &se):
		ex.result.Reason, ex.result.ExitCode = ReasonSpawn, se.Code
	default:
		ex.result.Reason, ex.result.ExitCode = ReasonExpression, 1
	}
	for _, p := range ex.procs {
		if p.handle != nil {
			p.handle.Signal(syscall.SIGKILL)
		}
	}
	for _, t := range ex.tees {
		if !t.begun {
			t.release(true)
		}
	}
}

func (ex *execution) closeOpen() {
	for _, f := range ex.open {
		_ = f.Close()
	}
	ex.open = nil
}

// plumb binds all stages and joins their streams; nothing is started.
func (ex *execution) plumb() error {
	in, err := ex.stdin(ex.bounds[0])
	if err != nil {
		return err
	}
	if err := ex.chain(ex.step.Stages, in, false); err != nil {
		return err
	}
	for _, p := range ex.procs { // all programs are there before one starts
		if p.shell == nil {
			cmd, err := p.bound.cmd(ex.r.engine)
			if err != nil {
				ex.result.Command = p.bound.command
				ex.result.Stages[p.stage].Err = err
				return err
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Extra, cmd.Terminal = p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr, p.cmd.Extra, p.cmd.Terminal
			cmd.Step, cmd.Stage, cmd.Session = ex.u.label, p.stage, ex.step.Detached && !ex.r.foreground
			if cmd.DirFile, err = openDir(ex.r.root, cmd.Dir); err != nil {
				return err
			}
			if cmd.DirFile != nil {
				ex.open = append(ex.open, cmd.DirFile)
			}
			p.cmd = cmd
			if p.bound.script {
				f, err := scriptFile(p.bound.text)
				if err != nil {
					return &StartError{Path: cmd.Path, Code: 126, Msg: "no file for the shell text: " + err.Error(), Err: err}
				}
				ex.open = append(ex.open, f)
				cmd.Extra = append(cmd.Extra, f)
			}
		}
	}
	return nil
}

// chain joins stages from in on.
func (ex *execution) chain(stages []*pipeline.Stage, in io.Reader, branch bool) error {
	for i, st := range stages {
		last := i == len(stages)-1
		if st.Action == pipeline.ActionTee {
			next, err := ex.tee(st, in, last)
			if err != nil {
				return err
			}
			in = next
			continue
		}
		b := ex.bounds[ex.nextBound]
		ex.nextBound++
		p := &proc{bound: b, stage: len(ex.result.Stages), last: last && !branch, cmd: &Cmd{Stdin: in}}
		ex.result.Stages = append(ex.result.Stages, StageResult{Command: b.command, Branch: branch})
		ex.procs = append(ex.procs, p)
		in = nil
		if !last {
			pr, pw, err := ex.pipe()
			if err != nil {
				return err
			}
			p.cmd.Stdout = pw
			in = pr
		} else if err := ex.stdout(p); err != nil {
			return err
		}
		if err := ex.others(p); err != nil {
			return err
		}
		ex.prepareShell(p)
	}
	return nil
}

// pipe returns a kernel pipe; up to a bound it is a large one.
func (ex *execution) pipe() (*os.File, *os.File, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, nil, &StartError{Code: 126, Msg: "no pipe to be had: " + err.Error(), Err: err}
	}
	select {
	case ex.r.pipes <- struct{}{}:
		ex.bigPipes++
		growPipe(pw)
	default:
	}
	ex.open = append(ex.open, pr, pw)
	return pr, pw, nil
}

// stdin returns what the first stage reads: nil is the null device.
func (ex *execution) stdin(b *bound) (io.Reader, error) {
	io := b.stage.Stdin
	switch {
	case !b.stage.Input.IsZero():
		return strings.NewReader(b.input), nil
	case io.Kind == pipeline.StdioInherit:
		return ex.r.stdio[0], nil
	case io.Kind == pipeline.StdioFile:
		return ex.file("stdin", b.files[0], os.O_RDONLY)
	case io.Kind == pipeline.StdioFD:
		return ex.descriptor(io.FD)
	}
	return nil, nil
}

// file opens a file of stdio; the step can be ended while a FIFO blocks.
func (ex *execution) file(key, path string, flag int) (*os.File, error) {
	var f *os.File
	err := ex.interruptible(func(ctx context.Context) (err error) {
		f, err = openFile(ctx, ex.r.root, path, flag, 0o666)
		return err
	})
	switch {
	case errors.Is(err, errNotStarted):
		return nil, err
	case err != nil:
		return nil, &StartError{Path: path, Code: 126, Msg: fmt.Sprintf("%s: cannot open %s: %v", key, path, cause(err)), Err: err}
	}
	ex.open = append(ex.open, f)
	return f, nil
}

// cause returns an error without the path that it names.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var out *safety.OutsideError
	if errors.As(err, &out) {
		return fmt.Errorf("it is outside of the root %s", out.Root)
	}
	return err
}

// descriptor returns a copy of one of the runner's own descriptors.
func (ex *execution) descriptor(fd int) (*os.File, error) {
	if fd < 3 {
		return ex.r.stdio[fd], nil
	}
	f, err := dupDescriptor(fd)
	if err == nil && ex.r.inherited != nil && !slices.Contains(ex.r.inherited, fd) {
		_ = f.Close()
		err = os.ErrInvalid // it is the runner's own
	}
	if err != nil {
		return nil, &StartError{Code: 126, Msg: fmt.Sprintf("the runner has no descriptor %d; open it where pipe is called, as in %d<file", fd, fd), Err: err}
	}
	ex.open = append(ex.open, f)
	return f, nil
}

const writeFlags = os.O_WRONLY | os.O_CREATE

func fileFlags(s pipeline.Stdio) int {
	if s.Append {
		return writeFlags | os.O_APPEND
	}
	return writeFlags | os.O_TRUNC
}

// output returns where a stdout or stderr goes, if it is not a pipe; nil, nil
// is the null device.
func (ex *execution) output(p *proc, s pipeline.Stdio, fd int) (io.Writer, error) {
	var f *os.File
	var err error
	switch s.Kind {
	case pipeline.StdioInherit:
		f = ex.r.stdio[fd]
	case pipeline.StdioFile:
		f, err = ex.file([]string{"", "stdout", "stderr"}[fd], p.bound.files[fd], fileFlags(s))
	case pipeline.StdioFD:
		f, err = ex.descriptor(s.FD)
	default:
		return nil, nil
	}
	if err != nil || f == nil {
		return nil, err
	}
	return f, nil
}

func (ex *execution) stdout(p *proc) (err error) {
	s := p.bound.stage.Stdout
	if s.Kind != pipeline.StdioDefault && s.Kind != pipeline.StdioPipe {
		p.cmd.Stdout, err = ex.output(p, s, 1)
		return err
	}
	p.cmd.Stdout, p.out = ex.stream(p, StreamStdout)
	return nil
}

// stream returns what a stream that passes through the runner is written to.
// Where nobody listens that is the runner's own file, and no byte is copied.
func (ex *execution) stream(p *proc, which Stream) (io.Writer, *stream) {
	st := p.bound.stage
	buffered := st.Buffered() && !ex.step.Background
	probed := ex.step.Ready != nil && ex.step.Ready.Log != ""
	if !buffered && ex.r.sink == nil && ex.step.IdleTimeout == 0 && ex.r.redactor == nil && !probed {
		return ex.r.stdio[which], nil
	}
	s := &stream{ex: ex, stage: p.stage, which: which, live: true, found: !probed}
	if ex.r.redactor != nil {
		s.masker = ex.r.redactor.Stream()
	}
	ex.streams = append(ex.streams, s)
	if buffered {
		s.buf = &buffer{max: st.BufferLimit(), policy: st.OnOverflow}
		s.live = ex.r.p.Mode == pipeline.ModeSync
	}
	return s, s
}

// others opens stderr and what lies beyond it.
func (ex *execution) others(p *proc) (err error) {
	st := p.bound.stage
	switch s := st.Stderr; s.Kind {
	case pipeline.StdioStdout:
		p.cmd.Stderr = p.cmd.Stdout
	case pipeline.StdioDefault, pipeline.StdioPipe:
		p.cmd.Stderr, p.errs = ex.stream(p, StreamStderr)
	default:
		if p.cmd.Stderr, err = ex.output(p, s, 2); err != nil {
			return err
		}
	}
	for i, s := range st.Extra {
		var f *os.File
		switch s.Kind {
		case pipeline.StdioInherit:
			f, err = ex.descriptor(i + 3)
		case pipeline.StdioFD:
			f, err = ex.descriptor(s.FD)
		case pipeline.StdioFile:
			f, err = ex.file(fmt.Sprintf("stdio[%d]", i+3), p.bound.extra[i], fileFlags(s))
		case pipeline.StdioIgnore:
			f, err = ex.file(fmt.Sprintf("stdio[%d]", i+3), os.DevNull, os.O_RDWR)
		}
		if err != nil {
			return err
		}
		p.cmd.Extra = append(p.cmd.Extra, f)
	}
	if f, ok := p.cmd.Stdin.(*os.File); ok && f == ex.r.stdio[0] && term.IsTerminal(int(f.Fd())) {
		p.cmd.Terminal = f
	}
	return nil
}

// prepareShell turns the Cmd of embedded shell text into a shellCmd.
func (ex *execution) prepareShell(p *proc) {
	b := p.bound
	if !b.stage.UsesShell() || b.opts.Shell != pipeline.ShellBuiltin {
		return
	}
	p.shell = &shellCmd{
		text: b.text, vars: b.vars, root: ex.r.root, set: b.opts.Set, env: b.env, dir: b.dir, path: b.path, in: p.cmd.Stdin, out: p.cmd.Stdout, err: p.cmd.Stderr,
		uid: b.opts.UID, gid: b.opts.GID, sigpipeErr: b.opts.SigpipeErr, terminal: p.cmd.Terminal,
		step: ex.u.label, stage: p.stage,
	}
}

// start starts all stages; after an error none is started any more.
func (ex *execution) start() error {
	select {
	case req := <-ex.stopReq: // it came before anything was there to be ended
		ex.requestStop(req)
		return errNotStarted
	default:
	}
	for _, t := range ex.tees {
		t.begin()
	}
	for _, p := range ex.procs {
		if len(ex.stopReq) > 0 {
			return nil // what has started is ended by wait
		}
		var err error
		if p.shell != nil {
			err = ex.startShell(p)
		} else {
			p.handle, err = ex.r.engine.Start(context.Background(), p.cmd)
		}
		if err != nil {
			var se *StartError
			if !errors.As(err, &se) { // an engine of somebody else
				err = &StartError{Path: p.bound.program, Code: 126, Msg: err.Error(), Err: err}
			}
			ex.result.Stages[p.stage].Err = err
			ex.result.Command = p.bound.command
			return err
		}
		ex.result.Stages[p.stage].Pid = p.handle.Pid()
		ex.emit(Event{Type: EventSpawn, Stage: p.stage, Pid: p.handle.Pid()})
	}
	return nil
}

var errNotStarted = errors.New("ended before it had started")

// startShell starts embedded shell text. It shares no descriptor with the
// step: what it holds open ends with it.
func (ex *execution) startShell(p *proc) error {
	tree, err := pipeline.ParseEmbedded(p.shell.text)
	if err != nil { // of a raw() value
		return fmt.Errorf("shell text: %w", err)
	}
	p.shell.tree = tree
	for i, f := range ex.open {
		if f == nil {
			continue
		}
		if p.shell.in == io.Reader(f) || p.shell.out == io.Writer(f) || p.shell.err == io.Writer(f) {
			p.shell.owned = append(p.shell.owned, f)
			ex.open[i] = nil
		}
	}
	s, err := startShell(ex.r.engine, *p.shell)
	if err != nil {
		return err
	}
	p.handle = s
	return nil
}

// wait waits for the end of all that was started, and brings it about where
// that is asked for.
func (ex *execution) wait() {
	exits := make(chan *proc, len(ex.procs))
	running := 0
	for _, p := range ex.procs {
		if p.handle == nil {
			continue
		}
		running++
		go func() {
			p.status = p.handle.Wait()
			exits <- p
		}()
	}
	timers, full := ex.timers, ex.full
	exit := func(p *proc) {
		running--
		ex.result.Stages[p.stage].Exit = p.status
		ex.emit(Event{Type: EventExit, Stage: p.stage, Pid: p.handle.Pid(), Exit: p.status})
	}
	for running > 0 {
		select {
		case p := <-exits:
			exit(p)
		case req := <-ex.stopReq:
			for len(exits) > 0 { // these ended by themselves
				exit(<-exits)
			}
			if running > 0 {
				ex.stopped = ex.stopped || req.why == ""
				ex.end(req, timers)
			}
		case <-timers.timeout:
			timers.timeout = nil
			ex.end(stopRequest{why: ReasonTimeout}, timers)
		case <-timers.idle:
			if left := timers.idleLeft(); left > 0 {
				timers.idleTimer.Reset(left)
				continue
			}
			timers.idle = nil
			ex.end(stopRequest{why: ReasonIdleTimeout}, timers)
		case <-timers.kill:
			timers.kill = nil
			ex.signal(stopRequest{force: true})
		case err := <-ex.unready:
			ex.result.Err = err
			ex.end(stopRequest{why: ReasonReady}, timers)
		case <-full:
			full = nil
			ex.end(stopRequest{why: ReasonMaxBuffer}, timers)
		}
	}
	if ex.r.limit > 0 && ex.r.p.Mode == pipeline.ModeAsync && ex.result.Reason == "" && !slices.ContainsFunc(ex.procs, func(p *proc) bool { return p.handle == nil || !p.succeeded() }) {
		ex.r.freed <- ex // others may start while what is left of this one is looked after
	}
	ex.drain(timers)
}

// timers are the clocks of one step; a nil channel never fires.
type timers struct {
	ex                  *execution
	timeout, idle, kill <-chan time.Time
	idleTimer           *time.Timer
	all                 []*time.Timer
	killAt              time.Time
}

func newTimers(ex *execution) *timers {
	t := &timers{ex: ex}
	if d := ex.step.Timeout; d > 0 {
		t.timeout = t.after(d)
	}
	if d := ex.step.IdleTimeout; d > 0 {
		t.idle = t.after(d)
		t.idleTimer = t.all[len(t.all)-1]
	}
	return t
}

func (t *timers) after(d time.Duration) <-chan time.Time {
	timer := time.NewTimer(d)
	t.all = append(t.all, timer)
	return timer.C
}

func (t *timers) stop() {
	for _, timer := range t.all {
		timer.Stop()
	}
}

func (t *timers) idleLeft() time.Duration {
	return time.Until(time.Unix(0, t.ex.lastByte.Load()).Add(t.ex.step.IdleTimeout))
}

// killAfter returns the grace of the step, the longest of its stages; 0 never.
func (ex *execution) killAfter() time.Duration { return killAfter(ex.bounds) }

func killAfter(bounds []*bound) time.Duration {
	var d time.Duration
	for _, b := range bounds {
		if b.opts.KillAfter == 0 {
			return 0
		}
		d = max(d, b.opts.KillAfter)
	}
	return d
}

// end begins the end of the step: the signal now, SIGKILL after the grace.
func (ex *execution) end(req stopRequest, t *timers) {
	if ex.result.Reason == "" {
		ex.result.Reason = req.why
	}
	ex.signal(req)
	grace := ex.killAfter()
	if req.grace != nil {
		grace = *req.grace
	}
	sooner := t.killAt.IsZero() || req.grace != nil && time.Now().Add(grace).Before(t.killAt)
	if grace > 0 && sooner && !req.force {
		t.killAt = time.Now().Add(grace)
		t.kill = t.after(grace)
	}
}

// signal reaches every tree of the step.
func (ex *execution) signal(req stopRequest) {
	ex.signalled = true
	for _, p := range ex.procs {
		if p.handle == nil {
			continue
		}
		sig := req.sig
		switch {
		case req.force:
			sig = syscall.SIGKILL
		case sig == 0:
			sig = p.bound.opts.KillSignal
		}
		p.handle.Signal(sig)
	}
}

// giveUp is how long a step that is being ended waits for its last output to
// be taken by who reads it.
const giveUp = time.Second

// drain waits for the streams to end. A grandchild that holds one open is
// given the step's drain, named, and ended with all else that is left. A reader
// that is slow is given all the time it takes, unless the step is to end.
func (ex *execution) drain(t *timers) {
	closed := ex.closed()
	var wait time.Duration
	for _, p := range ex.procs {
		wait = max(wait, p.bound.opts.Drain)
	}
	if ex.signalled {
		wait = 0 // what is left is to end anyway
	}
	select {
	case <-closed:
		ex.endLeft()
		return
	default:
	}
	if ex.await(closed, time.After(wait), nil) {
		ex.endLeft()
		return
	}
	if !ex.signalled {
		ex.warnHolders(wait)
	}
	ex.endLeft()
	ex.release(false)
	var limit <-chan time.Time
	if ex.signalled {
		limit = time.After(giveUp)
	}
	if !ex.await(closed, limit, func() <-chan time.Time { return time.After(giveUp) }) {
		ex.release(true)
		ex.givenUp = true // who copies may still be at it
		ex.await(closed, time.After(100*time.Millisecond), nil)
	}
}

// closed returns what is closed when all streams of the step have ended.
func (ex *execution) closed() <-chan struct{} {
	var all []<-chan struct{}
	for _, p := range ex.procs {
		if p.handle != nil {
			all = append(all, p.handle.Closed())
		}
	}
	for _, t := range ex.tees {
		all = append(all, t.done)
	}
	if len(all) == 1 {
		return all[0]
	}
	closed := make(chan struct{})
	go func() {
		for _, c := range all {
			<-c
		}
		close(closed)
	}()
	return closed
}

// await waits for the streams until a limit, and reports whether they ended. A
// request to end, or the timeout, ends the waiting too, or, where shorten is
// given, sets another limit; one with force ends it always.
func (ex *execution) await(closed <-chan struct{}, limit <-chan time.Time, shorten func() <-chan time.Time) bool {
	for {
		select {
		case <-closed:
			return true
		case <-limit:
			return false
		case req := <-ex.stopReq:
			ex.signal(req)
			if req.force || shorten == nil {
				return false
			}
			limit = shorten()
		case <-ex.timers.timeout:
			ex.timers.timeout = nil
			ex.result.Reason = ReasonTimeout
			ex.signal(stopRequest{})
			if shorten == nil {
				return false
			}
			limit = shorten()
		}
	}
}

// release gives up streams; see [Process].
func (ex *execution) release(force bool) {
	for _, p := range ex.procs {
		if p.handle != nil {
			p.handle.Release(force)
		}
	}
	for _, t := range ex.tees {
		t.release(force)
	}
}

func (ex *execution) warnHolders(waited time.Duration) {
	var names []string
	for _, p := range ex.procs {
		if p.handle != nil {
			names = append(names, p.handle.Holders()...)
		}
	}
	if len(names) > 0 {
		ex.warn(fmt.Sprintf("the step has ended, but its output is still held open after %s by %s", waited, strings.Join(names, ", ")))
	}
}

// endLeft ends what is left of the trees, and names it.
func (ex *execution) endLeft() {
	for _, p := range ex.procs {
		if p.handle == nil || !p.handle.Left() {
			continue
		}
		left := ex.endTree(p)
		if len(left) > 0 && !ex.signalled {
			ex.warn("processes that the step left behind were ended: " + strings.Join(left, ", "))
		}
		ex.result.Left = append(ex.result.Left, left...)
	}
}

// endTree ends what is left of one tree; a request with force shortens that.
func (ex *execution) endTree(p *proc) []string {
	done := make(chan []string, 1)
	go func() { done <- p.handle.End(p.bound.opts.KillSignal, p.bound.opts.KillAfter) }()
	for {
		select {
		case left := <-done:
			return left
		case req := <-ex.stopReq:
			if req.force {
				p.handle.Signal(syscall.SIGKILL)
			}
		}
	}
}

// flush delivers what was held back to be shown as a whole.
func (ex *execution) flush() {
	for _, s := range ex.streams {
		s.end()
		if s.live && !ex.givenUp {
			s.flushMasker(false)
		}
	}
	for _, p := range ex.procs {
		st := &ex.result.Stages[p.stage]
		for _, s := range []*stream{p.out, p.errs} {
			if s == nil || s.buf == nil {
				continue
			}
			if s.which == StreamStdout {
				st.stdout = s.buf
			} else {
				st.stderr = s.buf
			}
			if !s.live && s.buf.size > 0 {
				s.whole()
			}
			if s.buf.err != nil {
				ex.warn(fmt.Sprintf("buffered output is incomplete: %v", s.buf.err))
			}
		}
	}
}

// judge decides how the step ended from how its stages did.
func (ex *execution) judge() {
	res := &ex.result
	for i := len(ex.procs) - 1; i >= 0; i-- {
		p := ex.procs[i]
		if p.handle == nil || p.succeeded() || res.Err != nil {
			continue
		}
		res.Status, res.Err = StatusFailure, p.status.Err
		res.ExitCode = p.status.Code
		res.Command = p.bound.command
		res.Signal = pipeline.SignalName(p.status.Signal)
		if res.Reason == "" {
			res.Reason = ReasonExit
			if p.status.Signal != 0 {
				res.Reason = ReasonSignal
			}
		}
		break
	}
	for _, t := range ex.tees {
		select {
		case <-t.done:
		default:
			continue // given up; it may hang for ever
		}
		if t.err != nil && !ex.signalled {
			ex.warn(t.err.Error())
		}
		if t.err != nil && res.Status == StatusSuccess {
			res.Status, res.Reason, res.ExitCode, res.Err = StatusFailure, ReasonExit, 1, t.err
		}
	}
	switch res.Reason {
	case ReasonTimeout, ReasonIdleTimeout:
		res.Status, res.ExitCode = StatusFailure, 124
		res.Command = ex.command() // whose fault it was is not known
	case ReasonMaxBuffer, ReasonReady:
		res.Status, res.ExitCode = StatusFailure, 1
	}
	if res.Command == "" && len(ex.procs) > 0 {
		res.Command = ex.procs[len(ex.procs)-1].bound.command
	}
	if res.Status == StatusSuccess && len(ex.procs) > 0 {
		res.ExitCode = ex.procs[len(ex.procs)-1].status.Code
	}
}

// command returns the stages of the step, without those in branches of a tee.
func (ex *execution) command() string {
	var words []string
	for i := range ex.result.Stages {
		if st := &ex.result.Stages[i]; !st.Branch {
			words = append(words, st.Command)
		}
	}
	return strings.Join(words, " | ")
}

// succeeded reports whether the stage ended well. One that is not the last,
// and whose reader had enough, has: SIGPIPE, or 141 from a shell.
func (p *proc) succeeded() bool {
	st := p.bound.stage
	if p.status.Err != nil {
		return false
	}
	if p.status.Signal == 0 && st.Success(p.status.Code) {
		return true
	}
	if p.last || p.bound.opts.SigpipeErr {
		return false
	}
	if p.out != nil { // its stdout was not a pipe to a reader
		return false
	}
	return p.status.Signal == syscall.SIGPIPE || st.UsesShell() && p.status.Code == 128+int(syscall.SIGPIPE)
}

// stream is one output that passes through the runner.
type stream struct {
	ex    *execution
	stage int
	which Stream
	live  bool // shown as it comes
	// masker is used by one goroutine at a time: the one that copies, and
	// after its end the step's.
	masker *safety.Masker

	line  []byte // of what a probe looks at
	found bool   // it has found what it looked for, or does not look

	mu    sync.Mutex
	buf   *buffer
	ended bool
}

// Write takes what a child wrote.
func (s *stream) Write(b []byte) (int, error) {
	s.ex.lastByte.Store(time.Now().UnixNano())
	s.look(b)
	show, err := s.keep(b)
	if err != nil {
		return 0, err
	}
	if s.live && len(show) > 0 {
		s.show(show, false)
	}
	return len(b), nil
}

// keep buffers what is to be kept, and returns what is to be shown.
func (s *stream) keep(b []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, os.ErrClosed
	}
	if s.buf == nil {
		return b, nil
	}
	before := s.buf.size
	if _, err := s.buf.Write(b); err != nil {
		select {
		case s.ex.full <- struct{}{}:
		default:
		}
	}
	if s.buf.policy == pipeline.OverflowSpill {
		return b, nil // a full disk does not concern who watches
	}
	return b[:min(int64(len(b)), s.buf.size-before)], nil
}

// end makes sure that the buffer is not written to any more, also where the
// stream had to be given up.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

func (s *stream) show(b []byte, whole bool) {
	if s.masker != nil {
		b = s.masker.Mask(b)
	}
	s.deliver(b, whole)
}

// flushMasker shows what was held back because it could have become a secret.
// Where the output was cut it may have been one: that stays hidden.
func (s *stream) flushMasker(whole bool) {
	if s.masker == nil {
		return
	}
	s.deliver(s.masker.End(s.buf != nil && s.buf.cut), whole)
}

// deliver hands on what may be seen.
func (s *stream) deliver(b []byte, whole bool) {
	if len(b) == 0 {
		return
	}
	r := s.ex.r
	if r.sink == nil {
		_, _ = r.stdio[s.which].Write(b) // as with a child's own write, its concern
		return
	}
	s.ex.emit(Event{Type: EventData, Stage: s.stage, Stream: s.which, Data: b, Whole: whole})
}

// whole delivers the buffer in one piece, or in as few as a file allows, and
// not mixed with that of another step.
func (s *stream) whole() {
	s.ex.r.wholes.Lock()
	defer s.ex.r.wholes.Unlock()
	defer s.flushMasker(true)
	if s.buf.file == nil {
		s.show(s.buf.mem, true)
		return
	}
	r := s.buf.reader()
	b := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			s.show(b[:n], true)
		}
		if err != nil {
			return
		}
	}
}
