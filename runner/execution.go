package runner

// This file holds one running step: its plumbing, its processes, and its end.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/pipe-runner/pipe/pipeline"
)

// stopRequest asks a step to end.
type stopRequest struct {
	sig   syscall.Signal // 0: the stage's killSignal
	force bool           // SIGKILL at once
	why   Reason         // of a timeout; "" for another's sake
}

// execution is a step that runs. It belongs to one goroutine, but for stopReq.
type execution struct {
	r       *run
	index   int
	step    *pipeline.Step
	weight  int
	vars    pipeline.Vars
	stopReq chan stopRequest

	procs     []*proc
	tees      []*tee
	open      []*os.File // to be closed when all have started
	bigPipes  int
	lastByte  atomic.Int64 // time of the last output, in nanoseconds
	stopped   bool
	signalled bool
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
	exited bool
	status Status
}

// requestStop never blocks: what does not fit says nothing new.
func (ex *execution) requestStop(req stopRequest) {
	select {
	case ex.stopReq <- req:
	default:
	}
}

func (ex *execution) run() {
	ex.result.Status, ex.result.ExitCode = StatusSuccess, 0
	ex.lastByte.Store(time.Now().UnixNano())
	err := ex.plumb()
	if err == nil {
		err = ex.start()
	}
	if err != nil {
		ex.fail(err)
	}
	ex.closeOpen()
	ex.wait()
	ex.flush()
	for _, p := range ex.procs {
		if p.handle != nil {
			ex.r.emit(Event{Type: EventClose, Step: ex.index, Stage: p.stage})
		}
	}
	for range ex.bigPipes {
		<-ex.r.pipes
	}
	ex.judge()
}

// fail notes why the step could not start; what of it has started is ended.
func (ex *execution) fail(err error) {
	ex.result.Status, ex.result.Err = StatusFailure, err
	ex.result.Reason, ex.result.ExitCode = ReasonExpression, 1
	var se *StartError
	if errors.As(err, &se) {
		ex.result.Reason, ex.result.ExitCode = ReasonSpawn, se.Code
	}
	for _, p := range ex.procs {
		if p.handle != nil {
			p.handle.Signal(syscall.SIGKILL)
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
	stages := ex.step.Stages
	first, err := ex.bind(stages[0])
	if err != nil {
		return err
	}
	in, err := ex.stdin(first)
	if err != nil {
		return err
	}
	_, err = ex.chain(stages, first, in, false)
	if err != nil {
		return err
	}
	for _, p := range ex.procs { // all programs are there before one starts
		if p.shell == nil {
			cmd, err := p.bound.cmd()
			if err != nil {
				ex.result.Command = p.bound.command
				ex.result.Stages[p.stage].Err = err
				return err
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Extra, cmd.Terminal = p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr, p.cmd.Extra, p.cmd.Terminal
			cmd.Step, cmd.Stage = ex.r.p.Label(ex.index), p.stage
			p.cmd = cmd
		}
	}
	return nil
}

// chain joins stages from in on. The first one may be bound already.
func (ex *execution) chain(stages []*pipeline.Stage, first *bound, in io.Reader, branch bool) (int, error) {
	for i, st := range stages {
		last := i == len(stages)-1
		if st.Action == pipeline.Tee {
			next, err := ex.tee(st, in, last)
			if err != nil {
				return 0, err
			}
			in = next
			continue
		}
		b := first
		if i > 0 || b == nil {
			var err error
			if b, err = ex.bind(st); err != nil {
				return 0, err
			}
		}
		p := &proc{bound: b, stage: len(ex.result.Stages), last: last && !branch, cmd: &Cmd{Stdin: in}}
		ex.result.Stages = append(ex.result.Stages, StageResult{Command: b.command, Branch: branch})
		ex.procs = append(ex.procs, p)
		in = nil
		if !last {
			pr, pw, err := ex.pipe()
			if err != nil {
				return 0, err
			}
			p.cmd.Stdout = pw
			in = pr
		} else if err := ex.stdout(p); err != nil {
			return 0, err
		}
		if err := ex.others(p); err != nil {
			return 0, err
		}
		ex.prepareShell(p)
	}
	return 0, nil
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
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opened := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case req := <-ex.stopReq:
			cancel()
			ex.requestStop(req)
		case <-opened:
		}
	}()
	f, err := openFile(ctx, path, flag, 0o666)
	close(opened)
	<-watched
	if err != nil {
		return nil, &StartError{Path: path, Code: 126, Msg: fmt.Sprintf("%s: cannot open %s: %v", key, path, errors.Unwrap(err)), Err: err}
	}
	ex.open = append(ex.open, f)
	return f, nil
}

// descriptor returns a copy of one of the runner's own descriptors.
func (ex *execution) descriptor(fd int) (*os.File, error) {
	if fd < 3 {
		return ex.r.stdio[fd], nil
	}
	f, err := dupDescriptor(fd)
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
	p.cmd.Stdout, p.out = ex.stream(p, Stdout)
	return nil
}

// stream returns what a stream that passes through the runner is written to.
// Where nobody listens that is the runner's own file, and no byte is copied.
func (ex *execution) stream(p *proc, which Stream) (io.Writer, *stream) {
	st := p.bound.stage
	if !st.Buffered() && ex.r.sink == nil && ex.step.IdleTimeout == 0 {
		return ex.r.stdio[which], nil
	}
	s := &stream{ex: ex, stage: p.stage, which: which, live: true}
	if st.Buffered() {
		s.buf = &buffer{max: st.GetMaxBuffer(), policy: st.OnOverflow}
		s.live = ex.r.p.Mode == pipeline.Sync
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
		p.cmd.Stderr, p.errs = ex.stream(p, Stderr)
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
		set: b.opts.Set, env: b.env, dir: b.dir, path: b.path, in: p.cmd.Stdin, out: p.cmd.Stdout, err: p.cmd.Stderr,
		uid: b.opts.UID, gid: b.opts.GID, sigpipeErr: b.opts.SigpipeErr, terminal: p.cmd.Terminal,
		step: ex.r.p.Label(ex.index), stage: p.stage,
	}
}

// start starts all stages; after an error none is started any more.
func (ex *execution) start() error {
	select {
	case req := <-ex.stopReq: // it came before anything was there to be ended
		ex.requestStop(req)
		ex.stopped = true
		return &StartError{Code: 1, Msg: "ended before it had started"}
	default:
	}
	for _, t := range ex.tees {
		t.begin(ex)
	}
	for _, p := range ex.procs {
		var err error
		if p.shell != nil {
			err = ex.startShell(p)
		} else {
			p.handle, err = ex.r.engine.Start(context.Background(), p.cmd)
		}
		if err != nil {
			ex.result.Stages[p.stage].Err = err
			ex.result.Command = p.bound.command
			return err
		}
		ex.result.Stages[p.stage].Pid = p.handle.Pid()
		ex.r.emit(Event{Type: EventSpawn, Step: ex.index, Stage: p.stage, Pid: p.handle.Pid()})
	}
	return nil
}

// startShell starts embedded shell text. It shares no descriptor with the
// step: what it holds open ends with it.
func (ex *execution) startShell(p *proc) error {
	tree, err := p.bound.stage.Tree()
	if err != nil {
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
	timers := newTimers(ex)
	defer timers.stop()
	for running > 0 {
		select {
		case p := <-exits:
			running--
			p.exited = true
			ex.result.Stages[p.stage].Exit = p.status
			ex.r.emit(Event{Type: EventExit, Step: ex.index, Stage: p.stage, Pid: p.handle.Pid(), Exit: p.status})
		case req := <-ex.stopReq:
			ex.end(req, timers)
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
		case <-timers.full:
			timers.full = nil
			ex.end(stopRequest{why: ReasonMaxBuffer}, timers)
		}
	}
	ex.drain(timers)
}

// timers are the clocks of one step; a nil channel never fires.
type timers struct {
	ex                  *execution
	timeout, idle, kill <-chan time.Time
	full                <-chan struct{}
	idleTimer           *time.Timer
	all                 []*time.Timer
	killAt              time.Time
}

func newTimers(ex *execution) *timers {
	t := &timers{ex: ex, full: ex.full()}
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

// full returns a channel that is closed when a buffer of the step overflows
// and the policy is to end the child.
func (ex *execution) full() <-chan struct{} {
	var c chan struct{}
	for _, p := range ex.procs {
		for _, s := range []*stream{p.out, p.errs} {
			if s != nil && s.buf != nil && s.buf.policy == pipeline.Kill {
				if c == nil {
					c = make(chan struct{}, 1)
				}
				s.full.Store(&c)
			}
		}
	}
	return c
}

// killAfter returns the grace of the step, the longest of its stages; 0 never.
func (ex *execution) killAfter() time.Duration {
	var d time.Duration
	for _, p := range ex.procs {
		if p.bound.opts.KillAfter == 0 {
			return 0
		}
		d = max(d, p.bound.opts.KillAfter)
	}
	return d
}

// end begins the end of the step: the signal now, SIGKILL after the grace.
func (ex *execution) end(req stopRequest, t *timers) {
	if req.why != "" {
		if ex.result.Reason == "" {
			ex.result.Reason = req.why
		}
	} else {
		ex.stopped = true
	}
	ex.signal(req)
	if grace := ex.killAfter(); grace > 0 && t.killAt.IsZero() && !req.force {
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

// drain waits for the streams to end. A grandchild that holds one open is
// given the step's drain, named, and ended with all else that is left.
func (ex *execution) drain(t *timers) {
	closed := make(chan struct{})
	go func() {
		for _, p := range ex.procs {
			if p.handle != nil {
				<-p.handle.Closed()
			}
		}
		for _, t := range ex.tees {
			<-t.done
		}
		close(closed)
	}()
	var wait time.Duration
	for _, p := range ex.procs {
		wait = max(wait, p.bound.opts.Drain)
	}
	if ex.signalled {
		wait = 0 // what is left is to end anyway
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	late := false
	for waiting := true; waiting; {
		select {
		case <-closed:
			waiting = false
		case req := <-ex.stopReq:
			ex.end(req, t)
			waiting = false
		case <-timer.C:
			late = !ex.signalled
			waiting = false
		}
	}
	if late {
		ex.warnHolders(wait)
	}
	ex.endLeft()
	select {
	case <-closed:
	case <-time.After(100 * time.Millisecond): // a daemon elsewhere has it
		for _, p := range ex.procs {
			if p.handle != nil {
				p.handle.Release()
			}
		}
		for _, t := range ex.tees {
			t.abandon()
		}
		<-closed
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
		ex.r.warn(ex.index, fmt.Sprintf("the step has ended, but its output is still held open after %s by %s", waited, strings.Join(names, ", ")))
	}
}

// endLeft ends what is left of the trees, and names it.
func (ex *execution) endLeft() {
	for _, p := range ex.procs {
		if p.handle == nil || !p.handle.Left() {
			continue
		}
		left := p.handle.End(p.bound.opts.KillSignal, p.bound.opts.KillAfter)
		if len(left) > 0 && !ex.signalled {
			ex.r.warn(ex.index, "processes that the step left behind were ended: "+strings.Join(left, ", "))
		}
		ex.result.Left = append(ex.result.Left, left...)
	}
}

// flush delivers what was held back to be shown as a whole.
func (ex *execution) flush() {
	for _, p := range ex.procs {
		st := &ex.result.Stages[p.stage]
		for _, s := range []*stream{p.out, p.errs} {
			if s == nil || s.buf == nil {
				continue
			}
			if s.which == Stdout {
				st.stdout = s.buf
			} else {
				st.stderr = s.buf
			}
			if !s.live && s.buf.size > 0 {
				s.whole()
			}
			if s.buf.err != nil {
				ex.r.warn(ex.index, fmt.Sprintf("buffered output is incomplete: %v", s.buf.err))
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
		res.Status = StatusFailure
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
		if t.err != nil && res.Status == StatusSuccess {
			res.Status, res.Reason, res.ExitCode, res.Err = StatusFailure, ReasonExit, 1, t.err
		}
	}
	switch res.Reason {
	case ReasonTimeout, ReasonIdleTimeout:
		res.Status, res.ExitCode = StatusFailure, 124
	case ReasonMaxBuffer:
		res.Status, res.ExitCode = StatusFailure, 1
	}
	if res.Command == "" && len(ex.procs) > 0 {
		res.Command = ex.procs[len(ex.procs)-1].bound.command
	}
	if res.Status == StatusSuccess && len(ex.procs) > 0 {
		res.ExitCode = ex.procs[len(ex.procs)-1].status.Code
	}
}

// succeeded reports whether the stage ended well. One that is not the last,
// and whose reader had enough, has: SIGPIPE, or 141 from a shell.
func (p *proc) succeeded() bool {
	st := p.bound.stage
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
	buf   *buffer
	live  bool // shown as it comes
	full  atomic.Pointer[chan struct{}]
}

// Write takes what a child wrote.
func (s *stream) Write(b []byte) (int, error) {
	s.ex.lastByte.Store(time.Now().UnixNano())
	show := b
	if s.buf != nil {
		before := s.buf.size
		_, err := s.buf.Write(b)
		if err != nil {
			if c := s.full.Load(); c != nil {
				select {
				case *c <- struct{}{}:
				default:
				}
			}
		}
		show = b[:min(int64(len(b)), s.buf.size-before)]
	}
	if s.live && len(show) > 0 {
		s.show(show, false)
	}
	return len(b), nil
}

func (s *stream) show(b []byte, whole bool) {
	r := s.ex.r
	if r.sink == nil {
		_, _ = r.stdio[s.which].Write(b) // as with a child's own write, its concern
		return
	}
	r.emit(Event{Type: EventData, Step: s.ex.index, Stage: s.stage, Stream: s.which, Data: b, Whole: whole})
}

// whole delivers the buffer in one piece, or in as few as a file allows.
func (s *stream) whole() {
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
