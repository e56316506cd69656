package runner

import (
	"slices"

	"github.com/pipe-runner/pipe/runner/internal/step"
)

// serviceReady lets others go on, once a service can be used. Its processes
// count no more: they are there for as long as the run is.
func (r *run) serviceReady(a *attempt) {
	if !r.attempts.running[a] || a.leaving {
		return // it has ended meanwhile, or is to
	}
	r.free(a)
	r.attempts.services = append(r.attempts.services, a)
	r.emitFor(a.u, Event{Type: EventReady})
	r.show(a.u)
	r.nodeEnded(a.u.step, false, false)
}

// show lets expressions see a service as it is now. Those of a step that runs are
// evaluated while the service may end, so they see a copy.
func (r *run) show(u *unit) {
	res := *u.res
	r.seen.Store(u.step, &res)
}

// serviceEnded takes in the end of a service; it reports whether the service had
// been ready, so that others have gone on already.
func (r *run) serviceEnded(a *attempt, out *outcome) bool {
	res, s := a.u.res, r.p.Steps[a.u.step]
	if !s.Background {
		return false
	}
	what := step.ServiceEarly
	i := slices.Index(r.attempts.services, a)
	switch {
	case i < 0:
	case res.Status == StatusCancelled || r.graph.left == 0: // it did what it was there for
		what = step.ServiceOver
	default:
		what = step.ServiceNeeded
	}
	end := res.ended()
	res.end(step.Judge(step.Facts{Inner: &end, Service: what}))
	if i < 0 {
		return false
	}
	r.attempts.services = slices.Delete(r.attempts.services, i, i+1)
	if what == step.ServiceOver {
		res.CancelledBy = ""
	}
	r.ended(out, res)
	r.show(a.u)
	r.emitFor(a.u, Event{Type: EventStepEnd, Result: res})
	if what == step.ServiceOver || s.ContinueOnError {
		return true
	}
	if r.cause == nil {
		r.cause = res
	}
	r.graph.failed(a.u.step)
	if !r.KeepGoing {
		r.halt(step.Stop{})
	}
	return true
}

// stopServices ends the services when nothing else is left, the last one first,
// and each before the next.
func (r *run) stopServices() {
	list := r.attempts.services
	if r.graph.left > 0 || len(list) == 0 {
		return
	}
	if last := list[len(list)-1]; !last.leaving {
		last.leave(step.Stop{})
	}
}
