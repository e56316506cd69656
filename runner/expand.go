package runner

import (
	"fmt"
	"slices"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// group is a step that expands and has begun.
type group struct {
	step    int
	units   []*unit
	next    int // the first that has not started
	running int // with those that wait for their next attempt
	max     int // at once; 0: no limit
	failed  bool
}

// expand evaluates what a step runs for. A step for nothing has ended well.
func (r *run) expand(i int) error {
	s, res := r.p.Steps[i], &r.results[i]
	v := r.bind.Vars(r.stepValue)
	instances, err := s.Instances(&v)
	if err != nil {
		return err
	}
	res.Status = StatusRunning
	res.Start = time.Now()
	r.emit(Event{Type: EventStepStart, Step: i})
	if len(instances) == 0 {
		r.warn(i, "there is nothing to run it for: the list is empty")
	}
	res.Each = make([]StepResult, len(instances))
	g := &group{step: i, max: r.instanceLimit(s)}
	for k, in := range instances {
		label := fmt.Sprintf("%s[%s]", res.Label, in.Label)
		res.Each[k] = StepResult{Index: i, Label: r.bind.Redactor.String(label), Matrix: in.Matrix, Item: in.Item}
		g.units = append(g.units, &unit{step: i, label: res.Each[k].Label, res: &res.Each[k], group: g, number: k, matrix: in.Matrix, item: in.Item})
	}
	r.groups = append(r.groups, g)
	r.groupOver(g)
	return nil
}

// instanceLimit returns how many instances of a step run at once.
func (r *run) instanceLimit(s *pipeline.Step) int {
	switch {
	case s.MaxParallel != nil:
		return *s.MaxParallel
	case r.p.Mode == pipeline.ModeSync:
		return 1
	}
	return 0 // the pipeline's limit holds anyway
}

// startBegun starts what is due of units that failed and of groups. It reports
// whether there is room for more.
func (r *run) startBegun() bool {
	for len(r.retries.now) > 0 {
		u := r.retries.now[0]
		weight := processes(r.p.Steps[u.step])
		if !r.stopping && !r.fits(weight) {
			return false
		}
		r.retries.now = r.retries.now[1:]
		if r.stopping {
			r.ended(nil, u.res)
			r.unitOver(u)
			continue
		}
		r.start(u, weight)
	}
	for k := 0; k < len(r.groups); k++ {
		g := r.groups[k]
		s := r.p.Steps[g.step]
		weight := processes(s)
		for g.next < len(g.units) && (g.max == 0 || g.running < g.max) && r.goesOn(g, s) {
			if !r.fits(weight) {
				return false
			}
			g.running++
			g.next++
			r.start(g.units[g.next-1], weight)
		}
	}
	return true
}

// goesOn reports whether more instances of a group start.
func (r *run) goesOn(g *group, s *pipeline.Step) bool {
	if r.noMore || g.failed && !r.KeepGoing {
		return false
	}
	return !r.stopping || s.If.RunsAfterFailure()
}

// instanceOver draws the consequences of the end of an instance. The first one
// that fails ends the others, as the first step that fails does.
func (r *run) instanceOver(u *unit) {
	g, s := u.group, r.p.Steps[u.step]
	g.running--
	r.emitFor(u, Event{Type: EventStepEnd, Result: u.res})
	if u.res.Status == StatusFailure && !s.ContinueOnError {
		g.failed = true
		if r.cause == nil && r.wanted(u.step) {
			r.cause = u.res
		}
		if !r.KeepGoing {
			r.halt(step.Stop{})
		}
	}
	r.groupOver(g)
}

// groupOver ends the step when its last instance has ended and no more start.
func (r *run) groupOver(g *group) {
	if g.running > 0 || g.next < len(g.units) && r.goesOn(g, r.p.Steps[g.step]) {
		return
	}
	for k, other := range r.groups {
		if other == g {
			r.groups = append(r.groups[:k:k], r.groups[k+1:]...)
			r.sumUp(g)
			r.stepEnded(g.step)
			return
		}
	}
}

// sumUp makes one result of those of the instances.
func (r *run) sumUp(g *group) {
	res := &r.results[g.step]
	for k := range res.Each {
		if e := &res.Each[k]; e.Status == StatusPending {
			e.end(step.Judge(step.Facts{Skipped: true}))
			if r.cause != nil {
				e.CancelledBy = r.cause.Label
			}
		}
	}
	f := step.Facts{Instances: []step.End{}}
	for _, e := range byEnd(res.Each) {
		f.Instances = append(f.Instances, e.ended())
		if res.CancelledBy == "" && (e.Status == StatusCancelled || e.Status == StatusSkipped) {
			res.CancelledBy = e.CancelledBy
		}
	}
	res.end(step.Judge(f))
	if res.Status != StatusCancelled {
		res.CancelledBy = ""
	}
	res.End = time.Now()
}

// byEnd returns instances in the order in which they ended.
func byEnd(each []StepResult) []*StepResult {
	out := make([]*StepResult, len(each))
	for k := range each {
		out[k] = &each[k]
	}
	slices.SortStableFunc(out, func(a, b *StepResult) int { return a.End.Compare(b.End) })
	return out
}

// firstFailed returns the instance that failed first, or nil.
func firstFailed(each []StepResult) *StepResult {
	for _, e := range byEnd(each) {
		if e.Status == StatusFailure {
			return e
		}
	}
	return nil
}
