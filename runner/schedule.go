package runner

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/history"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// run is the scheduler: one loop that owns the state of all steps. Three words
// say that something has ended: unitEnded, of an execution of a step;
// stepEnded, of a step with all its instances; nodeEnded, of a place in the
// graph.
type run struct {
	*scene
	graph    graph
	results  []StepResult
	seen     sync.Map // by index, a *StepResult: what expressions see of a service; see show
	attempts attempts
	groups   []*group // steps that expand and have begun, in that order
	retries  retries

	stopping  bool
	noMore    bool        // nothing starts any more, not even to clean up
	cause     *StepResult // of the failure of the run: the step that failed first
	interrupt error       // what ended the run from outside
	cleanup   *time.Timer // bounds what cleans up; nil: it does not clean up, or without a bound
}

// attempts are the executions that go on.
type attempts struct {
	ctx      context.Context // what theirs are made from
	force    chan struct{}   // closed: all of them end by SIGKILL; nil: an outer run has the channel
	running  map[*attempt]bool
	services []*attempt // those that are ready, in the order in which they became so
	busy     int        // processes that count against the limit
	news     chan news
}

// news is what an attempt tells the loop.
type news struct {
	*attempt
	what step.Event // EventFreed, EventReady, EventInterrupt; the zero Event: it has ended
	out  *outcome   // of one that has ended
}

// unit is what one execution runs: a step, or one instance of a step that
// expands.
type unit struct {
	step   int // place in Pipeline.Steps
	label  string
	res    *StepResult
	group  *group // nil: the step itself
	number int    // of the instance, from 0
	matrix map[string]any
	item   any
}

func newRun(ctx context.Context, s *scene) *run {
	r := &run{scene: s, graph: newGraph(s.p.Graph(), s.p.Mode == pipeline.ModeSync), results: make([]StepResult, len(s.p.Steps))}
	for i := range r.results {
		r.results[i].Index, r.results[i].Label = i, s.p.Label(i)
	}
	a := &r.attempts
	a.ctx = context.WithoutCancel(ctx)
	if step.Force(ctx) == nil {
		a.force = make(chan struct{})
		a.ctx = step.WithForce(a.ctx, a.force)
	}
	a.running = map[*attempt]bool{}
	a.news = make(chan news, len(s.p.Steps)+1)
	return r
}

func (r *run) loop(ctx context.Context) *Result {
	var timeout <-chan time.Time
	if r.p.Timeout > 0 {
		t := time.NewTimer(r.p.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	ctxDone, again := ctx.Done(), step.Force(ctx)
	if ctx.Err() != nil { // already over: nothing is started
		ctxDone, again = nil, r.interrupted(ctx, again)
	}
	r.startReady()
	for r.graph.left > 0 || len(r.attempts.services) > 0 {
		r.stopServices()
		var cleanup <-chan time.Time
		if r.cleanup != nil {
			cleanup = r.cleanup.C
		}
		r.record()
		select {
		case n := <-r.attempts.news:
			r.hear(n)
		case <-ctxDone:
			ctxDone, again = nil, r.interrupted(ctx, again)
		case <-again:
			again = nil
			r.kill()
		case <-timeout:
			timeout = nil
			where := ""
			if r.p.File != "" {
				where = r.p.File + ": "
			}
			r.interrupt = &interruption{fmt.Errorf("%sthe pipeline took %w of %s", where, errTimeout, r.p.Timeout), context.DeadlineExceeded}
			r.halt(step.Stop{})
		case <-r.retries.due():
			r.retries.wakeUp()
		case <-cleanup:
			r.cleanup = nil
			r.noMore = true
			r.warn(-1, "cleanupTimeout is over: what still cleans up is ended")
			r.stopRunning(step.Stop{})
		}
		r.startReady()
	}
	if r.cleanup != nil {
		r.cleanup.Stop()
	}
	return r.result()
}

// hear takes in what an attempt tells.
func (r *run) hear(n news) {
	switch n.what.Type {
	case step.EventInterrupt:
		r.interrupt = &interruption{&Interrupt{Signal: n.what.Exit.Signal}, context.Canceled}
		r.halt(step.Stop{Signal: n.what.Exit.Signal})
	case step.EventFreed:
		r.free(n.attempt)
	case step.EventReady:
		r.serviceReady(n.attempt)
	default:
		r.unitEnded(n.attempt, n.out)
	}
}

// record writes down what happened in this turn of the loop. A nested pipeline
// has a loop of its own, and the same journal.
func (r *run) record() {
	if r.view == nil {
		return
	}
	if err := r.view.Flush(); err != nil && r.view.FirstFailure() {
		r.warn(-1, fmt.Sprintf("the journal of the run is incomplete: %v", osfile.Cause(err)))
	}
}

// errTimeout tells that the pipeline's own timeout ended the run.
var errTimeout = errors.New("longer than its timeout")

// interruption is what ended a run from outside.
type interruption struct {
	cause error
	kind  error // context.Canceled or context.DeadlineExceeded
}

// Error returns the text of the cause.
func (i *interruption) Error() string { return i.cause.Error() }

// Unwrap returns the cause and its kind.
func (i *interruption) Unwrap() []error { return []error{i.cause, i.kind} }

// interrupted begins the end of the run on behalf of the context. It returns the
// channel that ends everything at once, which is again unless the context's cause
// brings one.
func (r *run) interrupted(ctx context.Context, again <-chan struct{}) <-chan struct{} {
	cause := context.Cause(ctx)
	r.interrupt = &interruption{cause, ctx.Err()}
	how := step.Stop{}
	var by *Interrupt
	var outer *step.Stop
	switch {
	case errors.As(cause, &by):
		if by.Signal == syscall.SIGINT {
			how.Signal = by.Signal
		}
		again = by.Again
	case errors.As(cause, &outer): // of the step that runs this pipeline
		how.Signal, how.Grace = outer.Signal, outer.Grace
		if outer.Signal != 0 {
			r.interrupt = &interruption{&Interrupt{Signal: outer.Signal}, ctx.Err()}
		}
	}
	r.halt(how)
	return again
}

// kill ends everything that runs at once.
func (r *run) kill() {
	r.noMore = true
	if r.attempts.force != nil {
		close(r.attempts.force)
	}
	r.stopRunning(step.Stop{Grace: new(time.Duration)})
}

// halt ends what runs and keeps all but what cleans up from starting.
func (r *run) halt(how step.Stop) {
	if !r.stopping {
		r.stopping = true
		if d := r.p.CleanupLimit(); d > 0 {
			r.cleanup = time.NewTimer(d)
		}
	}
	r.stopRunning(how)
}

// stopRunning ends what runs, but for services that are ready, and, unless
// nothing starts any more, for what cleans up: that has the cleanupTimeout.
func (r *run) stopRunning(how step.Stop) {
	for _, u := range r.retries.drop() { // there is no next attempt
		r.ended(nil, u.res)
		r.unitOver(u)
	}
	atOnce := how.Grace != nil && *how.Grace == 0
	for a := range r.attempts.running {
		cleans := r.p.Steps[a.u.step].If.RunsAfterFailure() && !r.noMore
		if atOnce || !cleans && !slices.Contains(r.attempts.services, a) {
			a.leave(how)
		}
	}
}

// startReady starts what can start, in file order, but first what has begun.
func (r *run) startReady() {
	if !r.startBegun() {
		return
	}
	for {
		i, ok := r.graph.first()
		switch {
		case !ok:
			return
		case i >= len(r.results): // a barrier
			r.graph.take()
			r.nodeEnded(i, r.graph.nodes[i].badNeed, false)
			continue
		}
		start, why := r.decide(i)
		if start && !r.p.Steps[i].Expands() {
			weight := processes(r.p.Steps[i])
			if !r.fits(weight) {
				return
			}
			r.graph.take()
			r.start(&unit{step: i, label: r.results[i].Label, res: &r.results[i]}, weight)
			continue
		}
		r.graph.take()
		if start {
			if why = r.expand(i); why == nil {
				if !r.startBegun() {
					return
				}
				continue
			}
		}
		if why != nil {
			r.refuse(i, why)
		} else {
			r.skip(i)
		}
	}
}

// fits reports whether so many processes may start now; if not, they may as
// soon as something has ended.
func (r *run) fits(weight int) bool {
	return r.limit <= 0 || r.attempts.busy == 0 || r.attempts.busy+weight <= r.limit
}

// refuse ends a step whose condition or list could not be evaluated.
func (r *run) refuse(i int, why error) {
	res := &r.results[i]
	res.end(step.Judge(step.Facts{Err: r.masked(why)}))
	res.Start = time.Now()
	res.End = res.Start
	r.ended(nil, res)
	r.emit(Event{Type: EventStepStart, Step: i})
	r.stepEnded(i)
}

// skip ends a step that does not run.
func (r *run) skip(i int) {
	res, s := &r.results[i], r.p.Steps[i]
	res.end(step.Judge(step.Facts{Skipped: true}))
	if r.cause != nil && r.wanted(i) && (r.stopping && !s.If.RunsAfterFailure() || r.graph.nodes[i].badNeed && !s.If.CallsStatus()) {
		res.CancelledBy = r.cause.Label
	}
	if r.wanted(i) {
		r.ended(nil, res)
	}
	r.stepEnded(i)
}

// decide says whether a step that is ready is to run; the error is that of its
// condition.
func (r *run) decide(i int) (bool, error) {
	s, n := r.p.Steps[i], &r.graph.nodes[i]
	switch {
	case !r.wanted(i), r.noMore:
		return false, nil
	case r.stopping && !s.If.RunsAfterFailure():
		return false, nil
	case n.badNeed && !s.If.CallsStatus():
		return false, nil
	case s.If == nil:
		return true, nil
	}
	v := r.bind.Vars(r.stepValue)
	v.Success = func() bool { return !n.badNeed }
	v.Failure = func() bool { return n.failedUp }
	v.Cancelled = func() bool { return n.cancelUp || r.interrupt != nil }
	return s.If.Bool(&v)
}

// processes returns how many processes a step starts.
func processes(s *pipeline.Step) int {
	n := 0
	for _, st := range s.Stages {
		if st.Action != pipeline.ActionTee {
			n++
		}
		for _, b := range st.Tee {
			n += len(b.Chain)
		}
	}
	return n
}

// start starts an execution of a unit.
func (r *run) start(u *unit, weight int) {
	res := u.res
	res.Status, res.Start = StatusRunning, time.Now()
	if res.Attempts == nil {
		r.emitFor(u, Event{Type: EventStepStart})
		if r.view != nil {
			r.view.Started(u.label)
		}
	}
	a := &attempt{u: u, weight: weight}
	t := &task{
		scene: r.scene, step: r.p.Steps[u.step], label: u.label, vars: r.bind.Vars(r.stepValue), again: res.Attempts != nil, start: res.Start,
		tell: func(e Event) { r.emitFor(u, e) }, news: func(what step.Event) { r.attempts.news <- news{a, what, nil} },
	}
	t.vars.Matrix, t.vars.Item = u.matrix, u.item
	if up := r.graph.nodes[u.step].ranUp; up > 0 {
		t.after = r.results[up-1].Label
	} else if r.outer != nil {
		t.after = r.outer.after
	}
	r.attempts.running[a] = true
	r.attempts.busy += weight
	var ctx context.Context
	ctx, a.stop = context.WithCancelCause(r.attempts.ctx)
	go func() { r.attempts.news <- news{a, step.Event{}, t.run(ctx)} }()
}

// free gives back the places of an attempt, once: its processes may have ended
// before it.
func (r *run) free(a *attempt) {
	r.attempts.busy -= a.weight
	a.weight = 0
}

// unitEnded takes over what came of an execution.
func (r *run) unitEnded(a *attempt, out *outcome) {
	a.stop(nil)
	delete(r.attempts.running, a)
	r.free(a)
	u := a.u
	r.take(u, out)
	if r.serviceEnded(a, out) {
		return
	}
	n := &r.graph.nodes[u.step]
	n.ran = n.ran || out.ran()
	if !r.retry(u) {
		r.ended(out, u.res)
		r.unitOver(u)
	}
}

// take makes the result of a unit of what its execution came to.
func (r *run) take(u *unit, out *outcome) {
	res := u.res
	start, end := res.Start, time.Now()
	if out.reused != "" { // it is as if it had been now what it was then
		start, end = out.start, out.start.Add(out.took)
	}
	*res = StepResult{
		Index: u.step, Label: u.label, Start: start, End: end, Matrix: u.matrix, Item: u.item, Attempts: res.Attempts,
		Reused: out.reused, Job: out.job, Sub: out.sub, Left: out.Left,
	}
	res.end(out.End)
	res.Stages = make([]StageResult, len(out.Stages))
	for i, st := range out.Stages {
		res.Stages[i] = StageResult{Pid: st.Pid, Exit: st.Exit, Err: st.Err, Command: st.Command, Branch: st.Branch, stdout: st.Stdout, stderr: st.Stderr, redactor: r.bind.Redactor}
	}
	if res.Status == StatusCancelled && r.cause != nil {
		res.CancelledBy = r.cause.Label
	}
	r.mask(res)
}

// mask takes the secrets from what a result says.
func (r *run) mask(res *StepResult) {
	x := r.bind.Redactor
	if x == nil {
		return
	}
	res.Command, res.Err = x.String(res.Command), r.masked(res.Err)
	for i := range res.Left {
		res.Left[i] = x.String(res.Left[i])
	}
	for i := range res.Stages {
		st := &res.Stages[i]
		st.Command, st.Err = x.String(st.Command), r.masked(st.Err)
	}
}

// ended writes down how an execution ended; out is nil for a step that was not
// executed.
func (r *run) ended(out *outcome, res *StepResult) {
	if r.view == nil {
		return
	}
	e := entry(res)
	var t *history.Trial
	if out != nil {
		t, e.Stages = out.trial, out.Stages
	}
	r.view.Ended(t, e)
}

// entry returns what the journal says of a result.
func entry(res *StepResult) *history.Entry {
	return &history.Entry{End: res.ended(), Label: res.Label, Attempts: len(res.Attempts), Start: res.Start, Duration: res.Duration(), Reused: res.Reused, Job: res.Job}
}

// unitOver draws the consequences of the end of a unit.
func (r *run) unitOver(u *unit) {
	if u.group == nil {
		r.stepEnded(u.step)
		return
	}
	r.instanceOver(u)
}

// retry makes a step that failed wait for its next attempt, if it is to have one.
func (r *run) retry(u *unit) bool {
	res, how := u.res, r.p.Steps[u.step].Retry
	n := len(res.Attempts) + 1
	if how == nil || n >= how.Attempts || r.stopping || res.Status != StatusFailure || !retried(how.On, res) {
		return false
	}
	delay := how.DelayAfter(n)
	if how.Exponential && delay > 1 {
		delay = delay/2 + rand.N(delay/2+1) // or all that failed together come back together
	}
	failed := *res
	failed.Attempts = nil
	r.emitFor(u, Event{Type: EventRetry, Result: &failed, Attempt: n, Delay: delay})
	res.Attempts = append(res.Attempts, failed)
	r.retries.add(u, delay)
	return true
}

// retried reports whether a failure is one of those that are tried again.
func retried(on *pipeline.RetryOn, res *StepResult) bool {
	if on == nil {
		return true
	}
	switch res.Reason {
	case ReasonTimeout, ReasonIdleTimeout:
		return on.Timeout
	case ReasonSignal:
		return slices.ContainsFunc(on.Signals, func(s syscall.Signal) bool { return signame.Name(s) == res.Signal })
	case ReasonExit:
		return slices.Contains(on.Codes, res.ExitCode)
	}
	return false
}

// stepEnded draws the consequences of the end of a step.
func (r *run) stepEnded(i int) {
	res, s := &r.results[i], r.p.Steps[i]
	bad := res.Status != StatusSuccess
	failed := res.Status == StatusFailure
	if failed && s.ContinueOnError {
		bad, failed = false, false
		r.graph.nodes[i].continued = true
	}
	if r.wanted(i) {
		if failed && r.cause == nil {
			r.cause = res
			if res.Each != nil { // the instance that failed first says more
				r.cause = firstFailed(res.Each)
			}
		}
		r.emit(Event{Type: EventStepEnd, Step: i, Result: res})
	}
	r.nodeEnded(i, bad, failed)
	if failed && !r.KeepGoing {
		r.halt(step.Stop{})
	}
}

// nodeEnded makes ready what waited for a node alone.
func (r *run) nodeEnded(i int, bad, failed bool) {
	r.graph.ended(i, bad, failed, i < len(r.results) && r.results[i].Status == StatusCancelled)
}

// result sums up.
func (r *run) result() *Result {
	out := &Result{Steps: r.results, Cause: r.cause, Interrupted: r.interrupt, ExitCode: exitCode(r.cause, r.interrupt), p: r.p}
	out.anew = slices.ContainsFunc(r.graph.nodes, func(n node) bool { return n.ran })
	if len(r.p.Outputs) == 0 {
		return out
	}
	out.Outputs, out.raw = map[string]any{}, map[string]any{}
	v := r.bind.Vars(r.stepValue)
	for _, o := range r.p.Outputs {
		val, err := o.Expr.Eval(&v)
		if err != nil {
			r.warn(-1, "output "+o.Name+": "+err.Error())
			continue
		}
		out.raw[o.Name], out.Outputs[o.Name] = val, bind.MaskValue(r.bind.Redactor, val)
	}
	return out
}

func (r *run) emit(e Event) {
	if r.Sink != nil {
		if e.Label == "" && e.Step >= 0 {
			e.Label, e.Instance = r.results[e.Step].Label, -1
		}
		e.Time, e.Pipeline = time.Now(), r.p
		r.Sink(e)
	}
}

// emitFor tells what a unit does.
func (r *run) emitFor(u *unit, e Event) {
	if r.Sink == nil {
		return
	}
	e.Step, e.Label, e.Instance = u.step, u.label, -1
	if u.group != nil {
		e.Instance = u.number
	}
	r.emit(e)
}

func (r *run) warn(step int, msg string) {
	r.emit(Event{Type: EventWarning, Step: step, Message: r.bind.Redactor.String(msg)})
}

// stepValue returns a step that has ended as expressions see it.
func (r *run) stepValue(name string) (map[string]any, error) {
	_, i := r.p.Step(name)
	res := &r.results[i]
	if seen, ok := r.seen.Load(i); ok {
		res = seen.(*StepResult)
	}
	v, err := resultValue(name, res)
	if err != nil || !r.p.Steps[i].Expands() {
		return v, err
	}
	each := make([]any, len(res.Each))
	for k := range res.Each {
		e, err := resultValue(fmt.Sprintf("%s.each[%d]", name, k), &res.Each[k])
		if err != nil {
			return nil, err
		}
		e["matrix"], e["item"] = res.Each[k].Matrix, res.Each[k].Item
		each[k] = e
	}
	v["each"] = each
	return v, nil
}

// resultValue returns one result as expressions see it.
func resultValue(name string, res *StepResult) (map[string]any, error) {
	stages := make([]any, len(res.Stages))
	for j := range res.Stages {
		st := &res.Stages[j]
		stages[j] = map[string]any{"exitCode": st.Exit.Code, "signal": signame.Name(st.Exit.Signal)}
	}
	v := map[string]any{
		"status": res.Status.String(), "reason": string(res.Reason), "exitCode": res.ExitCode,
		"signal": res.Signal, "duration": res.Duration().Seconds(), "stages": stages, "stdout": "", "stderr": "", "job": res.Job,
	}
	if v["outputs"] = map[string]any{}; res.Sub != nil && res.Sub.raw != nil {
		v["outputs"] = res.Sub.raw
	}
	if len(res.Stages) == 0 {
		return v, nil
	}
	last := &res.Stages[len(res.Stages)-1]
	for key, b := range map[string]*step.Buffer{"stdout": last.stdout, "stderr": last.stderr} {
		if b.Size() > pipeline.MaxStepOutput {
			return nil, fmt.Errorf("steps.%s.%s has %d bytes; an expression reads at most %d; send it to a file", name, key, b.Size(), int64(pipeline.MaxStepOutput))
		}
		text, err := b.Bytes(0)
		if err != nil {
			return nil, fmt.Errorf("steps.%s.%s: %w", name, key, err)
		}
		v[key] = strings.TrimRight(string(text), "\n")
	}
	return v, nil
}

// graph is how far the graph of a pipeline has come.
type graph struct {
	needs [][]int32
	sync  bool // any earlier step counts for failure()
	nodes []node
	users [][]int32 // who waits for a node
	ready intHeap
	left  int // nodes that have not ended
}

// node is the state of a step or a barrier.
type node struct {
	waits     int32
	badNeed   bool // something it needs did not end well
	failedUp  bool // something it needs, however far, failed
	cancelUp  bool
	continued bool  // it failed, and nobody minds
	ran       bool  // it was not taken over from an earlier run
	ranUp     int32 // a step before it that ran, counted from 1; 0: none
}

// newGraph turns the graph into counters and lists of users.
func newGraph(from *pipeline.Graph, sync bool) graph {
	n := len(from.Needs)
	g := graph{needs: from.Needs, sync: sync, nodes: make([]node, n), users: make([][]int32, n), left: n}
	edge := func(from, to int32) {
		g.users[from] = append(g.users[from], to)
		g.nodes[to].waits++
	}
	for i, needs := range from.Needs {
		for _, j := range needs {
			edge(j, int32(i))
		}
		if i < len(from.After) && from.After[i] >= 0 {
			edge(from.After[i], int32(i))
		}
	}
	for i := range g.nodes {
		if g.nodes[i].waits == 0 {
			g.ready = append(g.ready, int32(i))
		}
	}
	heap.Init(&g.ready)
	return g
}

// first returns the node that is ready and stands first in the file.
func (g *graph) first() (int, bool) {
	if len(g.ready) == 0 {
		return 0, false
	}
	return int(g.ready[0]), true
}

// take takes the first node from those that are ready.
func (g *graph) take() { heap.Pop(&g.ready) }

// requires reports whether a node needs another, and does not just come after it.
func (g *graph) requires(node, other int) bool { return slices.Contains(g.needs[node], int32(other)) }

// ended marks a node as ended and makes ready what waited for it alone.
func (g *graph) ended(i int, bad, failed, cancelled bool) {
	n := &g.nodes[i]
	g.left--
	ran := n.ranUp
	if ran == 0 && n.ran {
		ran = int32(i) + 1
	}
	for _, u := range g.users[i] {
		un := &g.nodes[u]
		un.failedUp = un.failedUp || failed || n.failedUp && (!n.continued || g.sync)
		un.cancelUp = un.cancelUp || n.cancelUp || cancelled
		if un.ranUp == 0 {
			un.ranUp = ran
		}
		if g.requires(int(u), i) {
			un.badNeed = un.badNeed || bad
		}
		if un.waits--; un.waits == 0 {
			heap.Push(&g.ready, u)
		}
	}
}

// failed marks what needs a node that failed after others had gone on.
func (g *graph) failed(i int) {
	for _, u := range g.users[i] { // those that have not started yet
		if g.requires(int(u), i) {
			g.nodes[u].badNeed = true
		}
	}
	seen := map[int32]bool{}
	for todo := slices.Clone(g.users[i]); len(todo) > 0; { // also behind those that have ended
		u := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[u] {
			seen[u], g.nodes[u].failedUp = true, true
			todo = append(todo, g.users[u]...)
		}
	}
}

type intHeap []int32

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *intHeap) Push(x any) {
	if n, ok := x.(int32); ok {
		*h = append(*h, n)
	}
}

// Pop takes the last element.
func (h *intHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// retries are the units that failed and have another attempt. The zero value has
// none.
type retries struct {
	later []laterUnit // soonest first
	timer *time.Timer // for the first of them
	now   []*unit     // whose attempt is due
}

// laterUnit is a unit that waits for its next attempt.
type laterUnit struct {
	at time.Time
	u  *unit
}

func (q *retries) add(u *unit, delay time.Duration) {
	l := laterUnit{time.Now().Add(delay), u}
	at, _ := slices.BinarySearchFunc(q.later, l, func(a, b laterUnit) int { return a.at.Compare(b.at) })
	q.later = slices.Insert(q.later, at, l)
	q.set()
}

// set sets the timer.
func (q *retries) set() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	if len(q.later) > 0 {
		q.timer = time.NewTimer(time.Until(q.later[0].at))
	}
}

// due returns the channel of the timer; it blocks where nobody waits.
func (q *retries) due() <-chan time.Time {
	if q.timer == nil {
		return nil
	}
	return q.timer.C
}

// wakeUp makes those due whose time has come.
func (q *retries) wakeUp() {
	for len(q.later) > 0 && !q.later[0].at.After(time.Now()) {
		q.now = append(q.now, q.later[0].u)
		q.later = q.later[1:]
	}
	q.set()
}

// drop takes out all units that wait.
func (q *retries) drop() []*unit {
	out := make([]*unit, len(q.later))
	for i, l := range q.later {
		out[i] = l.u
	}
	q.later = nil
	q.set()
	return out
}
