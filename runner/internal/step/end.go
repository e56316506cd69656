package step

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

// stopping is how far the end of a step that was told to end has come. It belongs
// to the goroutine of the execution.
type stopping struct {
	asked     <-chan struct{} // the context's; nil once that has been seen
	force     <-chan struct{} // nil once it has been seen
	kill      <-chan time.Time
	timer     *time.Timer // of kill
	idle      *time.Timer // nil: there is no idleTimeout
	signalled bool        // the processes were sent a signal
	killed    bool        // that was SIGKILL
}

// timers stops the timers.
func (s *stopping) timers() {
	for _, t := range []*time.Timer{s.timer, s.idle} {
		if t != nil {
			t.Stop()
		}
	}
}

// begin ends the processes as the context says: the signal now, SIGKILL after
// the grace.
func (ex *execution) begin() *Stop {
	ex.stop.asked = nil
	how := StopOf(ex.ctx)
	grace := ex.spec.Grace()
	if how.Grace != nil {
		grace = *how.Grace
	}
	if how.Grace != nil && grace == 0 {
		ex.kill()
		return how
	}
	ex.signal(how.Signal)
	if grace > 0 {
		ex.stop.timer = time.NewTimer(grace)
		ex.stop.kill = ex.stop.timer.C
	}
	return how
}

// kill ends the processes at once.
func (ex *execution) kill() {
	ex.stop.killed = true
	ex.signal(syscall.SIGKILL)
}

// forced ends the processes at once, as the channel of [WithForce] asks for.
func (ex *execution) forced() {
	ex.stop.force = nil
	ex.kill()
}

// signal reaches every tree of the step; 0 is the killSignal of each stage.
func (ex *execution) signal(sig syscall.Signal) {
	ex.stop.signalled = true
	for _, p := range ex.procs {
		if p.handle == nil {
			continue
		}
		own := sig
		if own == 0 {
			own = p.spec.KillSignal
		}
		if err := p.handle.Signal(own); err != nil {
			ex.warn(fmt.Sprintf("cannot send %s to %s: %v", engine.Killed(own), name(p), err))
		}
	}
}

// name returns what a process is called in messages.
func name(p *proc) string {
	if s := engine.Name(p.handle); s != "" {
		return s
	}
	return p.spec.Command
}

// wait waits for the end of all that was started, and brings it about where that
// is asked for. It returns how, or nil where the processes ended by themselves.
func (ex *execution) wait() (ended *Stop) {
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
	var interrupt *proc                        // that owned the terminal, and was interrupted from there
	lingers := make(chan *proc, len(ex.procs)) // that ended, and whose reader may wait for what they left
	exit := func(p *proc) {
		running--
		p.ended = true
		if p.reader != nil && engine.Left(p.handle) {
			p.read = readSoFar(p.reader)
			time.AfterFunc(p.spec.Drain, func() { lingers <- p })
		}
		if sig := p.status.Signal; ex.terminal != nil && interrupt == nil && (sig == syscall.SIGINT || sig == syscall.SIGQUIT) {
			interrupt = p
		}
		ex.result.Stages[p.stage].Exit = p.status
		ex.sink(Event{Type: EventExit, Stage: p.stage, Pid: p.handle.Pid(), Exit: p.status})
	}
	var idle <-chan time.Time
	if d := ex.spec.IdleTimeout; d > 0 {
		ex.stop.idle = time.NewTimer(d)
		idle = ex.stop.idle.C
	}
	ready := ex.ready
	for running > 0 {
		select {
		case p := <-exits:
			exit(p)
		case <-ex.stop.asked:
			for len(exits) > 0 { // these ended by themselves
				exit(<-exits)
			}
			if running > 0 {
				ended = ex.begin()
			}
		case <-ex.stop.force:
			ex.forced()
		case <-ex.stop.kill:
			ex.kill()
		case <-ready:
			ready = nil
			ex.sink(Event{Type: EventReady})
		case p := <-lingers:
			ex.linger(p, lingers)
		case <-idle:
			if left := ex.spec.IdleTimeout - ex.silent(); left > 0 {
				ex.stop.idle.Reset(left)
				continue
			}
			ex.end(&Stop{Reason: ReasonIdleTimeout})
		}
	}
	if ended == nil && interrupt != nil { // as a shell does, the run ends too
		ended = &Stop{Signal: interrupt.status.Signal}
		ex.sink(Event{Type: EventInterrupt, Exit: interrupt.status})
	}
	if ended == nil && len(ex.procs) > 0 && !slices.ContainsFunc(ex.procs, func(p *proc) bool { return p.handle == nil || !p.succeeded() }) {
		ex.sink(Event{Type: EventFreed})
	}
	if late := ex.drain(); ended == nil && late != nil && late.Reason != "" {
		ended = late // its own timeout
	}
	return ended
}

// linger ends what a stage left that holds the pipe to the next stage, when nothing
// has come through it for the stage's drain. The other stages go on meanwhile.
func (ex *execution) linger(p *proc, again chan *proc) {
	if p.ending != nil {
		ex.endLeftOf(p)
		return
	}
	if p.reader.ended || !engine.Left(p.handle) {
		return
	}
	if read := readSoFar(p.reader); read != p.read {
		p.read = read
		time.AfterFunc(p.spec.Drain, func() { again <- p })
		return
	}
	ending := ex.endTree(p)
	go func() {
		<-ending.over
		again <- p
	}()
}

// readSoFar returns how many bytes a stage has read; 0 where that is not known.
func readSoFar(p *proc) int64 { return procfs.Reads(p.handle.Pid()) }

// giveUp is how long a step that is being ended waits for its last output to
// be taken by who reads it.
const giveUp = time.Second

// drain waits for the streams to end. A grandchild that holds one open is given
// the step's drain, named, and ended with all else that is left. A reader that
// is slow is given all the time it takes, unless the step is to end; then drain
// returns how.
func (ex *execution) drain() (late *Stop) {
	closed := ex.closed()
	select {
	case <-closed:
		ex.endLeft()
		ex.release(true) // a stranger may hold a stdin
		return nil
	default:
	}
	wait := time.Duration(0) // what is left of a step that was ended is to end anyway
	if !ex.stop.signalled {
		ex.spec.Each(func(st *Stage) { wait = max(wait, st.Drain) })
	}
	ended, late := false, (*Stop)(nil)
	for left := wait; ; { // from the last byte on
		ended, late = ex.await(closed, time.After(left), false)
		left = wait - ex.silent()
		if ended || late != nil || left <= 0 || ex.stop.signalled {
			break
		}
	}
	if ended {
		ex.endLeft()
		ex.release(true)
		return nil
	}
	if !ex.stop.signalled {
		ex.warnHolders(wait)
	}
	ex.endLeft()
	ex.release(false)
	var limit <-chan time.Time
	if ex.stop.signalled {
		limit = time.After(giveUp)
	}
	ended, again := ex.await(closed, limit, true)
	if late == nil {
		late = again
	}
	if !ended {
		ex.release(true) // who copies may still be at it
		for _, s := range ex.streams {
			s.giveUp()
		}
		_, _ = ex.await(closed, time.After(100*time.Millisecond), false)
	}
	return late
}

// await waits for the streams until a limit, and reports whether they ended. The
// end of the context ends the waiting or, with patience, bounds it by giveUp;
// await returns how the step is to end then. Force ends the waiting always.
func (ex *execution) await(closed <-chan struct{}, limit <-chan time.Time, patience bool) (ended bool, how *Stop) {
	for {
		select {
		case <-closed:
			return true, how
		case <-limit:
			return false, how
		case <-ex.stop.force:
			ex.forced()
			return false, how
		case <-ex.stop.asked:
			ex.stop.asked = nil
			how = StopOf(ex.ctx)
			if how.Grace != nil && *how.Grace == 0 {
				ex.kill()
				return false, how
			}
			ex.signal(how.Signal)
			if !patience {
				return false, how
			}
			limit = time.After(giveUp)
		}
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
	all = slices.DeleteFunc(all, func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
	if len(all) == 1 {
		return all[0]
	}
	closed := make(chan struct{})
	if len(all) == 0 {
		close(closed)
		return closed
	}
	go func() {
		for _, c := range all {
			<-c
		}
		close(closed)
	}()
	return closed
}

// release gives up streams; see [engine.Process].
func (ex *execution) release(force bool) {
	for _, p := range ex.procs {
		if p.handle != nil {
			engine.Release(p.handle, force)
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
			names = append(names, engine.Holders(p.handle)...)
		}
	}
	if len(names) > 0 {
		ex.warn(fmt.Sprintf("the step has ended, but its output is still held open after %s by %s", waited, strings.Join(names, ", ")))
	}
}

// endLeft ends what is left of the trees, and names it.
func (ex *execution) endLeft() {
	for _, p := range ex.procs {
		if p.handle != nil && (p.ending != nil || engine.Left(p.handle)) {
			ex.endLeftOf(p)
		}
	}
}

// ending is the end of what is left of a tree.
type ending struct {
	over chan struct{} // closed when all has ended
	left []string      // the names of what was left; valid when over is closed
	warn bool          // the step had not been told to end: its author is to know
	told bool          // the result of the step names them
}

// endTree begins to end what is left of a tree.
func (ex *execution) endTree(p *proc) *ending {
	if p.ending != nil {
		return p.ending
	}
	sig := p.spec.KillSignal
	if ex.stop.killed {
		sig = syscall.SIGKILL
	}
	e := &ending{over: make(chan struct{}), warn: !ex.stop.signalled}
	p.ending = e
	go func() {
		e.left = engine.End(p.handle, sig, p.spec.KillAfter)
		close(e.over)
	}()
	return e
}

// endLeftOf ends what is left of a tree. It returns when that has ended; force, or a
// context that asks for SIGKILL, shortens that.
func (ex *execution) endLeftOf(p *proc) {
	e, asked := ex.endTree(p), ex.stop.asked
	for over := false; !over; {
		select {
		case <-e.over:
			over = true
		case <-ex.stop.force:
			ex.forced()
		case <-ex.stop.kill:
			ex.kill()
		case <-asked:
			asked = nil // not seen yet: who waits for the streams is to see it
			if how := StopOf(ex.ctx); how.Grace != nil && *how.Grace == 0 {
				ex.kill()
			}
		}
	}
	if e.told {
		return
	}
	e.told = true
	if len(e.left) > 0 && e.warn {
		ex.warn("processes that the step left behind were ended: " + strings.Join(e.left, ", "))
	}
	ex.result.Left = append(ex.result.Left, e.left...)
}
