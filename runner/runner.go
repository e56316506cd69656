package runner

// This file holds the Runner and the scheduler: one loop that owns the state
// of all steps.

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/safety"
)

// Runner runs pipelines. The zero value runs them on this machine, in the
// current directory, with this program's environment and stdio. A Runner is
// not changed by Run, which may be called by several goroutines at once.
type Runner struct {
	Engine Engine              // nil: Local{}
	Params map[string][]string // values by name, several for a list; nil: none
	Args   []string            // the list args
	Dir    string              // the caller's directory; "": the current one
	// Root, if not "", is a directory that every cwd and every file that is
	// opened for a step must be inside of, symbolic links included. It does not
	// confine what the programs do that are started.
	Root string
	Env  []string // the runner's environment; nil: os.Environ()
	// Stdin, Stdout and Stderr are what inherit means; nil: os.Stdin and so on.
	Stdin, Stdout, Stderr *os.File
	// Inherited are the descriptors past 2 that {fd: N} may name; nil: any that
	// is open in this program.
	Inherited []int
	// Sink gets all events. nil: nobody listens, and output that would pass
	// through the runner goes to Stdout and Stderr.
	Sink func(Event)
	// MaxParallel overrides the pipeline's, if not nil; 0: no limit.
	MaxParallel *int
	KeepGoing   bool     // after a failure, go on with what does not need the step
	Steps       []string // run these and what they take; nil: all

	// State, if not "", is the folder where the run is recorded and where steps
	// with sources are remembered; see [StateDir]. It is made, for this user
	// alone. "": nothing is kept, and steps with sources always run.
	State string
	// Resume, if not nil, is an earlier run of the same pipeline: a step that
	// ended well in it, and would do the same now, is not run again.
	Resume *PastRun
	// Force runs every step, also one that is up to date.
	Force bool

	// Jobs starts detached steps; nil: there can be none.
	Jobs Jobs
	// Foreground makes detached steps ones like any other, which are waited for
	// and ended with the run.
	Foreground bool

	parent   *run     // whose step runs the pipeline; nil: none
	declared []string // variables in Env that this step, or one further out, sets
	label    string   // of that step
	after    string   // the step that ran again before it, in a resumed run
}

// Interrupt is a cause for [context.WithCancelCause] that says which signal
// the run is ended with. Without it steps are ended with their killSignal.
type Interrupt struct {
	Signal syscall.Signal
	// Again, if not nil, is closed to end everything with SIGKILL at once.
	Again <-chan struct{}
}

// Error names the signal.
func (i *Interrupt) Error() string { return "interrupted by " + pipeline.SignalName(i.Signal) }

// ErrParams is wrapped by an error of Run about parameters, or about steps
// that were named and do not exist; nothing was started then.
var ErrParams = errors.New("runner: bad parameters")

type paramError struct{ err error }

func (e *paramError) Error() string   { return e.err.Error() }
func (e *paramError) Unwrap() []error { return []error{ErrParams, e.err} }

// Run runs a pipeline, which it checks where neither [pipeline.Parse] nor Check
// has, and returns when its last process has ended. The error says why nothing was started; what
// became of the steps is in the result, which the caller closes. When ctx is
// done, everything that runs is ended, and steps that clean up still run.
func (r *Runner) Run(ctx context.Context, p *pipeline.Pipeline) (*Result, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	run := &run{p: p, parent: r.parent, graph: p.Graph(), sink: r.Sink, keepGoing: r.KeepGoing}
	err := run.setup(r)
	if err == nil && len(r.Steps) > 0 {
		if run.selected, err = p.Select(r.Steps); err != nil {
			err = &paramError{run.masked(err)}
		}
	}
	defer func() { _ = run.root.Close() }()
	if err != nil {
		return nil, err
	}
	if err := run.remembering(r); err != nil {
		if r.Resume != nil {
			return nil, err
		}
		run.warn(-1, fmt.Sprintf("nothing of this run is kept: %v", err))
	}
	if p.Lock != nil {
		unlock, err := run.lock(ctx, p.Lock, &run.base, func(msg string) { run.warn(-1, "waiting: "+msg) })
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	if run.memory != nil && run.parent == nil {
		if err := run.begin(r); err != nil {
			run.memory.journal = nil
			run.warn(-1, fmt.Sprintf("this run is not recorded: %v", err))
		}
	}
	res := run.loop(ctx)
	if run.memory != nil && run.parent == nil && run.memory.journal != nil {
		if err := run.memory.journal.end(run, res); err != nil {
			run.warn(-1, fmt.Sprintf("the journal of the run is incomplete: %v", cause(err)))
		}
		pruneOld(run.memory.state)
	}
	run.emit(Event{Type: EventRunEnd, Step: -1})
	return res, nil
}

// setup fills in what Runner leaves to defaults. What it says of bad values
// holds no secret.
func (r *run) setup(from *Runner) error {
	r.engine = from.Engine
	if r.engine == nil {
		r.engine = Local{}
	}
	r.force, r.declared = from.Force, from.declared
	r.jobs, r.foreground, r.given.params, r.given.args = from.Jobs, from.Foreground, from.Params, from.Args
	dir, err := filepath.Abs(from.Dir)
	if err != nil {
		return err
	}
	r.dir = dir
	if r.environ = from.Env; r.environ == nil {
		r.environ = os.Environ()
	}
	r.stdio = [3]*os.File{from.Stdin, from.Stdout, from.Stderr}
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if r.stdio[i] == nil {
			r.stdio[i] = f
		}
	}
	if err := r.secrets(from.parent); err != nil {
		return err
	}
	params, err := r.p.ParamValues(from.Params)
	if err != nil {
		return &paramError{r.masked(err)}
	}
	if r.rootName = from.Root; from.Root != "" {
		if r.root, err = safety.OpenDir(from.Root); err != nil {
			return &paramError{r.masked(fmt.Errorf("root %s: %w", from.Root, cause(err)))}
		}
		if _, err := r.root.Stat(r.dir); err != nil {
			return &paramError{r.masked(fmt.Errorf("the caller's folder %s: %w; change to one inside", r.dir, cause(err)))}
		}
	}
	r.inherited = from.Inherited
	r.limit = r.p.Parallelism(runtime.NumCPU())
	if from.MaxParallel != nil {
		r.limit = *from.MaxParallel
	}
	if files := maxProcesses(); files > 0 && (r.limit == 0 || r.limit > files) {
		r.limit = files
	}
	r.pipes = make(chan struct{}, maxBigPipes)
	r.vars(params, from.Args)
	return nil
}

// secrets takes the secrets out of what steps inherit, and prepares to mask them.
func (r *run) secrets(parent *run) error {
	r.public = r.environ
	if parent != nil {
		r.hidden = append(r.hidden, parent.hidden...)
	}
	if len(r.p.Secrets) == 0 && len(r.hidden) == 0 {
		return nil
	}
	r.public = nil
	var names, values []string
	for _, kv := range r.environ {
		name, value, _ := strings.Cut(kv, "=")
		if !slices.Contains(r.p.Secrets, name) {
			r.public = append(r.public, kv)
			continue
		}
		names, values = append(names, name), append(values, value)
	}
	var err error
	r.hidden = append(values, r.hidden...)
	r.redactor, err = safety.NewRedactor(r.hidden)
	var short *safety.ShortSecretError
	if errors.As(err, &short) {
		return &paramError{fmt.Errorf("secret %s is shorter than %d bytes: masking it would eat ordinary output; use a longer one", names[short.Index], safety.MinSecret)}
	}
	return err
}

// vars prepares what expressions read.
func (r *run) vars(params map[string]any, args []string) {
	env := make(map[string]string, len(r.environ))
	for _, kv := range r.environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	if args == nil {
		args = []string{}
	}
	r.base = pipeline.Vars{
		Params: params, Args: args, Env: env, Dir: r.dir,
		Pipeline: map[string]any{"name": r.p.Name, "file": r.p.File, "dir": r.p.Dir, "runId": r.runID()},
	}
	r.absParams = map[string]any{}
	for _, prm := range r.p.Params {
		v := params[prm.Name]
		if s, ok := v.(string); ok && prm.Type == pipeline.ParamPath && !filepath.IsAbs(s) {
			v = filepath.Join(r.dir, s)
		}
		r.absParams[prm.Name] = v
	}
}

// runID returns a name for the run that sorts by time; a nested pipeline is part
// of the run of its caller.
func (r *run) runID() string {
	if r.parent != nil {
		return r.parent.base.Pipeline["runId"].(string)
	}
	return fmt.Sprintf("%s-%06x", time.Now().UTC().Format("20060102-150405.000"), rand.N(1<<24))
}

// run is one call of Run.
type run struct {
	p          *pipeline.Pipeline
	parent     *run    // nil: none
	memory     *memory // nil: nothing is kept
	jobs       Jobs
	foreground bool
	force      bool
	declared   []string // variables in environ that a step outside of a nested pipeline sets
	given      struct {
		params map[string][]string
		args   []string
	}
	graph     *pipeline.Graph
	engine    Engine
	dir       string
	environ   []string
	public    []string  // environ without the secrets
	inherit   sync.Once // of the next two: the environment of steps that say nothing of it
	whole     []string
	wholePath string
	redactor  *safety.Redactor
	root      *safety.Dir // nil: nothing is confined
	rootName  string
	hidden    []string // the values of the secrets
	outputs   map[string]any
	tracing   bool // of environments, for explain
	stdio     [3]*os.File
	inherited []int
	sink      func(Event)
	limit     int
	keepGoing bool
	selected  []bool
	base      pipeline.Vars
	absParams map[string]any // paths made absolute, for steps elsewhere
	pipes     chan struct{}  // a place for each pipe that may be large
	wholes    sync.Mutex     // held while output is delivered that was held back

	// The rest belongs to the goroutine of loop.
	nodes     []node
	users     [][]int32 // who waits for a node
	ready     intHeap
	results   []StepResult
	running   map[*execution]bool
	groups    []*group // steps that expand and have begun, in that order
	resumed   []*unit  // whose next attempt is due
	busy      int      // processes that run
	left      int      // nodes that have not ended
	done      chan *execution
	freed     chan *execution // whose processes have ended
	began     chan *execution // services that are ready
	services  []*execution    // those, in the order in which they were
	stopping  bool
	noMore    bool // nothing starts any more, not even to clean up
	cause     *StepResult
	interrupt error
	cleanup   *time.Timer
	later     []laterStep // steps that wait for their next attempt, soonest first
	wake      *time.Timer // for the first of them
}

// laterStep is a step that waits for its next attempt.
type laterStep struct {
	at time.Time
	u  *unit
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

type intHeap []int32

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *intHeap) Push(x any) { *h = append(*h, x.(int32)) }

// Pop takes the last element.
func (h *intHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func (r *run) loop(ctx context.Context) *Result {
	r.prepare()
	var timeout <-chan time.Time
	if r.p.Timeout > 0 {
		t := time.NewTimer(r.p.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	ctxDone := ctx.Done()
	var again <-chan struct{}
	if ctx.Err() != nil { // already over: nothing is started
		again = r.interrupted(ctx)
		ctxDone = nil
	}
	r.startReady()
	for r.left > 0 || len(r.services) > 0 {
		r.stopServices()
		var cleanup, wake <-chan time.Time
		if r.cleanup != nil {
			cleanup = r.cleanup.C
		}
		if r.wake != nil {
			wake = r.wake.C
		}
		r.record()
		select {
		case ex := <-r.freed:
			r.free(ex)
		case ex := <-r.began:
			r.serviceReady(ex)
		case ex := <-r.done:
			r.finished(ex)
		case <-ctxDone:
			again = r.interrupted(ctx)
			ctxDone = nil
		case <-again:
			again = nil
			r.noMore = true
			r.stopRunning(stopRequest{force: true})
		case <-timeout:
			timeout = nil
			r.interrupt = fmt.Errorf("%s: the pipeline took %w of %s", r.p.File, errTimeout, r.p.Timeout)
			r.halt(stopRequest{})
		case <-wake:
			r.again()
		case <-cleanup:
			r.cleanup = nil
			r.noMore = true
			r.warn(-1, "cleanupTimeout is over: what still cleans up is ended")
			r.stopRunning(stopRequest{})
		}
		r.startReady()
	}
	if r.cleanup != nil {
		r.cleanup.Stop()
	}
	return r.result()
}

// record writes down what happened in this turn of the loop. A nested pipeline
// has a loop of its own, and the same journal.
func (r *run) record() {
	if r.memory == nil || r.memory.journal == nil {
		return
	}
	if err := r.memory.journal.flush(); err != nil {
		r.memory.warned.Do(func() { r.warn(-1, fmt.Sprintf("the journal of the run is incomplete: %v", cause(err))) })
	}
}

// errTimeout tells that the pipeline's own timeout ended the run.
var errTimeout = errors.New("longer than its timeout")

// prepare turns the graph into counters and lists of users.
func (r *run) prepare() {
	n := len(r.graph.Needs)
	r.nodes = make([]node, n)
	r.users = make([][]int32, n)
	r.results = make([]StepResult, len(r.p.Steps))
	r.running = map[*execution]bool{}
	r.done = make(chan *execution, len(r.p.Steps))
	r.freed = make(chan *execution, len(r.p.Steps))
	r.began = make(chan *execution, len(r.p.Steps))
	r.left = n
	edge := func(from, to int32) {
		r.users[from] = append(r.users[from], to)
		r.nodes[to].waits++
	}
	for i, needs := range r.graph.Needs {
		to := int32(i)
		for _, j := range needs {
			edge(j, to)
		}
		if i < len(r.graph.After) && r.graph.After[i] >= 0 {
			edge(r.graph.After[i], to)
		}
	}
	for i := range r.nodes {
		if i < len(r.results) {
			r.results[i].Index, r.results[i].Label = i, r.p.Label(i)
		}
		if r.nodes[i].waits == 0 {
			r.ready = append(r.ready, int32(i))
		}
	}
	heap.Init(&r.ready)
}

// interrupted begins the end of the run on behalf of the context.
func (r *run) interrupted(ctx context.Context) <-chan struct{} {
	cause := context.Cause(ctx)
	r.interrupt = cause
	req := stopRequest{}
	var i *Interrupt
	var again <-chan struct{}
	if errors.As(cause, &i) {
		if i.Signal == syscall.SIGINT {
			req.sig = i.Signal
		}
		again = i.Again
	}
	r.halt(req)
	return again
}

// halt ends what runs and keeps all but what cleans up from starting.
func (r *run) halt(req stopRequest) {
	if !r.stopping {
		r.stopping = true
		if d := r.p.CleanupLimit(); d > 0 {
			r.cleanup = time.NewTimer(d)
		}
	}
	r.stopRunning(req)
}

func (r *run) stopRunning(req stopRequest) {
	later := r.later
	r.later = nil
	r.setWake()
	for _, l := range later { // there is no next attempt
		r.remember(nil, l.u.res)
		r.over(l.u)
	}
	for ex := range r.running {
		cleans := ex.step.If.RunsAfterFailure() && !r.noMore // it has the cleanupTimeout
		if req.force || !cleans && !r.isService(ex) {
			ex.leaving = true
			ex.requestStop(req)
		}
	}
}

// startReady starts what can start, in file order, but first what has begun.
func (r *run) startReady() {
	if !r.startBegun() {
		return
	}
	for len(r.ready) > 0 {
		i := int(r.ready[0])
		if i >= len(r.results) {
			heap.Pop(&r.ready)
			r.end(i, r.nodes[i].badNeed, false)
			continue
		}
		start, why := r.decide(i)
		if start && !r.p.Steps[i].Expands() {
			weight := processes(r.p.Steps[i])
			if !r.fits(weight) {
				return
			}
			heap.Pop(&r.ready)
			r.start(&unit{step: i, label: r.results[i].Label, res: &r.results[i]}, weight)
			continue
		}
		heap.Pop(&r.ready)
		switch {
		case start:
			if why = r.expand(i); why == nil {
				if !r.startBegun() {
					return
				}
				continue
			}
			fallthrough
		case why != nil:
			r.refuse(i, why)
		default:
			r.skip(i)
		}
	}
}

// fits reports whether so many processes may start now; if not, they may as
// soon as something has ended.
func (r *run) fits(weight int) bool { return r.limit <= 0 || r.busy == 0 || r.busy+weight <= r.limit }

// refuse ends a step whose condition or list could not be evaluated.
func (r *run) refuse(i int, why error) {
	res := &r.results[i]
	res.Status, res.Reason, res.Err, res.ExitCode = StatusFailure, ReasonExpression, r.masked(why), 1
	res.Start = time.Now()
	res.End = res.Start
	r.remember(nil, res)
	r.emit(Event{Type: EventStepStart, Step: i})
	r.conclude(i)
}

// skip ends a step that does not run.
func (r *run) skip(i int) {
	res, s := &r.results[i], r.p.Steps[i]
	res.Status = StatusSkipped
	if r.cause != nil && r.wanted(i) && (r.stopping && !s.If.RunsAfterFailure() || r.nodes[i].badNeed && !s.If.CallsStatus()) {
		res.CancelledBy = r.cause.Label
	}
	if r.wanted(i) {
		r.remember(nil, res)
	}
	r.conclude(i)
}

// decide says whether a step that is ready is to run; the error is that of its
// condition.
func (r *run) decide(i int) (bool, error) {
	s, n := r.p.Steps[i], &r.nodes[i]
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
	v := r.stepVars(r.dir)
	v.Success = func() bool { return !n.badNeed }
	v.Failure = func() bool { return n.failedUp }
	v.Cancelled = func() bool { return n.cancelUp || r.interrupt != nil }
	return s.If.Bool(&v)
}

// wanted reports whether a step is among those that were asked for.
func (r *run) wanted(i int) bool { return r.selected == nil || r.selected[i] }

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

func (r *run) start(u *unit, weight int) {
	res := u.res
	res.Status = StatusRunning
	res.Start = time.Now()
	if res.Attempts == nil {
		r.emitFor(u, Event{Type: EventStepStart})
	}
	ex := &execution{r: r, u: u, step: r.p.Steps[u.step], weight: weight, stopReq: make(chan stopRequest, 4)}
	ex.vars = r.stepVars(r.dir)
	ex.vars.Matrix, ex.vars.Item = u.matrix, u.item
	r.started(u)
	if up := r.nodes[u.step].ranUp; up > 0 {
		ex.after = r.results[up-1].Label
	} else if r.memory != nil {
		ex.after = r.memory.ranFirst
	}
	r.running[ex] = true
	r.busy += weight
	go func() {
		ex.run()
		r.done <- ex
	}()
}

// free gives back the places of an execution, once; the news that its processes
// have ended may come after that of its own end.
func (r *run) free(ex *execution) {
	r.busy -= ex.weight
	ex.weight = 0
}

// finished takes over what came of a unit that ran.
func (r *run) finished(ex *execution) {
	delete(r.running, ex)
	r.free(ex)
	u := ex.u
	res := u.res
	start, end, attempts := res.Start, time.Now(), res.Attempts
	if ex.taken != nil { // it is as if it had been now what it was then
		start, end = ex.taken.Start, ex.taken.Start.Add(ex.taken.Duration)
	}
	*res = ex.result
	res.Attempts = attempts
	res.Index, res.Label, res.Start, res.End = u.step, u.label, start, end
	res.Matrix, res.Item = u.matrix, u.item
	r.mask(res)
	// A step that failed before it was asked to end, failed.
	if ex.stopped && res.Err == nil && res.Reason != ReasonTimeout && res.Reason != ReasonIdleTimeout || errors.Is(res.Err, errNotStarted) {
		res.Status = StatusCancelled
		if errors.Is(res.Err, errNotStarted) {
			res.Reason, res.ExitCode, res.Err = "", 0, nil
		}
		if r.cause != nil {
			res.CancelledBy = r.cause.Label
		}
	}
	if r.serviceOver(ex, res) {
		return
	}
	r.nodes[u.step].ran = r.nodes[u.step].ran || ex.ran(res)
	if !r.retry(u) {
		r.remember(ex, res)
		r.over(u)
	}
}

// over draws the consequences of the end of a unit.
func (r *run) over(u *unit) {
	if u.group == nil {
		r.conclude(u.step)
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
	attempt := *res
	attempt.Attempts = nil
	r.emitFor(u, Event{Type: EventRetry, Result: &attempt, Attempt: n, Delay: delay})
	res.Attempts = append(res.Attempts, attempt)
	l := laterStep{time.Now().Add(delay), u}
	at, _ := slices.BinarySearchFunc(r.later, l, func(a, b laterStep) int { return a.at.Compare(b.at) })
	r.later = slices.Insert(r.later, at, l)
	r.setWake()
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
		return slices.ContainsFunc(on.Signals, func(s syscall.Signal) bool { return pipeline.SignalName(s) == res.Signal })
	case ReasonExit:
		return slices.Contains(on.Codes, res.ExitCode)
	}
	return false
}

// setWake sets the timer for the next attempt that is due.
func (r *run) setWake() {
	if r.wake != nil {
		r.wake.Stop()
		r.wake = nil
	}
	if len(r.later) > 0 {
		r.wake = time.NewTimer(time.Until(r.later[0].at))
	}
}

// again makes the steps ready whose next attempt is due.
func (r *run) again() {
	for len(r.later) > 0 && !r.later[0].at.After(time.Now()) {
		r.resumed = append(r.resumed, r.later[0].u)
		r.later = r.later[1:]
	}
	r.setWake()
}

// mask takes the secrets from what a result says.
func (r *run) mask(res *StepResult) {
	if r.redactor == nil {
		return
	}
	res.Command, res.Err = r.redactor.String(res.Command), r.masked(res.Err)
	for i := range res.Left {
		res.Left[i] = r.redactor.String(res.Left[i])
	}
	for i := range res.Stages {
		st := &res.Stages[i]
		st.Command, st.Err, st.redactor = r.redactor.String(st.Command), r.masked(st.Err), r.redactor
	}
}

// maskValue takes the secrets from a value of an expression.
func (r *run) maskValue(v any) any {
	if r.redactor == nil {
		return v
	}
	switch v := v.(type) {
	case string:
		return r.redactor.String(v)
	case []string:
		out := make([]string, len(v))
		for i, s := range v {
			out[i] = r.redactor.String(s)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = r.maskValue(x)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[r.redactor.String(k)] = r.maskValue(x)
		}
		return out
	}
	return v
}

// maskedError is an error in whose text there was a secret.
type maskedError struct {
	msg string
	err error
}

func (e *maskedError) Error() string { return e.msg }
func (e *maskedError) Unwrap() error { return e.err }

func (r *run) masked(err error) error {
	if r.redactor == nil || err == nil {
		return err
	}
	if msg := r.redactor.String(err.Error()); msg != err.Error() {
		return &maskedError{msg, err}
	}
	return err
}

// conclude draws the consequences of the end of a step.
func (r *run) conclude(i int) {
	res, s := &r.results[i], r.p.Steps[i]
	bad := res.Status != StatusSuccess
	failed := res.Status == StatusFailure
	if failed && s.ContinueOnError {
		bad, failed = false, false
		r.nodes[i].continued = true
	}
	if r.wanted(i) {
		if failed && r.cause == nil {
			r.cause = res
			if res.Each != nil { // the instance that failed first says more
				r.cause = &res.Each[firstFailed(res.Each)]
			}
		}
		r.emit(Event{Type: EventStepEnd, Step: i, Result: res})
	}
	r.end(i, bad, failed)
	if failed && !r.keepGoing {
		r.halt(stopRequest{})
	}
}

// end marks a node as ended and makes ready what waited for it alone.
func (r *run) end(i int, bad, failed bool) {
	n := &r.nodes[i]
	r.left--
	ran := n.ranUp
	if ran == 0 && n.ran {
		ran = int32(i) + 1
	}
	cancelled := n.cancelUp || i < len(r.results) && r.results[i].Status == StatusCancelled
	for _, u := range r.users[i] {
		un := &r.nodes[u]
		order := r.p.Mode == pipeline.ModeSync // in sync mode any earlier step counts
		un.failedUp = un.failedUp || failed || n.failedUp && !n.continued || order && n.failedUp
		un.cancelUp = un.cancelUp || cancelled
		if un.ranUp == 0 {
			un.ranUp = ran
		}
		if slices.Contains(r.graph.Needs[u], int32(i)) {
			un.badNeed = un.badNeed || bad
		}
		if un.waits--; un.waits == 0 {
			heap.Push(&r.ready, u)
		}
	}
}

// result sums up.
func (r *run) result() *Result {
	out := &Result{Steps: r.results, Interrupted: r.interrupt}
	if r.cause != nil {
		out.Cause = r.cause
		out.ExitCode = r.cause.ExitCode
	}
	if out.ExitCode == 0 && r.cause != nil {
		out.ExitCode = 1
	}
	var i *Interrupt
	switch {
	case errors.As(r.interrupt, &i):
		out.ExitCode = 128 + int(i.Signal)
	case errors.Is(r.interrupt, errTimeout):
		out.ExitCode = 124
	case r.interrupt != nil && out.ExitCode == 0:
		out.ExitCode = 1
	}
	out.anew = slices.ContainsFunc(r.nodes, func(n node) bool { return n.ran })
	if len(r.p.Outputs) > 0 {
		out.Outputs, r.outputs = map[string]any{}, map[string]any{}
		out.raw = r.outputs
		v := r.base
		v.Steps = r.stepValue
		for _, o := range r.p.Outputs {
			val, err := o.Expr.Eval(&v)
			if err != nil {
				r.warn(-1, "output "+o.Name+": "+err.Error())
				continue
			}
			r.outputs[o.Name] = val
			out.Outputs[o.Name] = r.maskValue(val)
		}
	}
	return out
}

func (r *run) emit(e Event) {
	if r.sink != nil {
		if e.Label == "" && e.Step >= 0 {
			e.Label, e.Instance = r.results[e.Step].Label, -1
		}
		e.Time, e.Pipeline = time.Now(), r.p
		r.sink(e)
	}
}

// emitFor tells what a unit does.
func (r *run) emitFor(u *unit, e Event) {
	if r.sink == nil {
		return
	}
	e.Step, e.Label, e.Instance = u.step, u.label, -1
	if u.group != nil {
		e.Instance = u.number
	}
	r.emit(e)
}

func (r *run) warn(step int, msg string) {
	msg = r.redactor.String(msg)
	r.emit(Event{Type: EventWarning, Step: step, Message: msg})
}
