package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/history"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// attempt is an execution of a unit as the loop sees it.
type attempt struct {
	u       *unit
	stop    context.CancelCauseFunc // ends it; the first call counts
	weight  int                     // processes that count against the limit
	leaving bool                    // it was told to end, as the run does
}

// leave tells the execution to end.
func (a *attempt) leave(how step.Stop) {
	a.leaving = true
	a.stop(&how)
}

// task is what the goroutine of an execution works on. Nobody else changes it.
type task struct {
	*scene
	step  *pipeline.Step
	label string
	vars  pipeline.Vars
	after string // the step before this one that ran again, in a resumed run
	again bool   // it is not the first attempt
	start time.Time
	tell  func(Event)      // what views are shown
	news  func(step.Event) // what the loop is told
}

// outcome is what an execution came to.
type outcome struct {
	*step.Result
	trial  *history.Trial // nil: nothing is remembered
	sub    *Result        // of a step that runs a pipeline
	job    string         // id of a job
	kept   bool           // the job was there before
	reused string         // why it was not run; "": it was
	start  time.Time      // of the earlier run that was taken over
	took   time.Duration
}

// ran reports whether anything was run anew.
func (o *outcome) ran() bool {
	if o.sub != nil {
		return o.sub.anew
	}
	return o.reused == "" && !o.kept || o.trial != nil && o.trial.RanSince
}

// run executes the step: it takes its lock, binds it, takes over what an earlier
// run did, and else runs it.
func (t *task) run(ctx context.Context) *outcome {
	whole := ctx
	ctx, cancel := step.WithTimeout(ctx, t.step.Timeout)
	defer cancel()
	if l := t.step.Lock; l != nil {
		unlock, err := t.lock(ctx, l, &t.vars, func(msg string) { t.warn("waiting: " + msg) })
		if err != nil {
			return unstarted(ctx, err, "")
		}
		defer unlock()
	}
	spec, err := t.bind.Spec(t.step, t.label, t.vars, bind.Look{})
	if err != nil {
		return unstarted(ctx, err, "")
	}
	var trial *history.Trial
	if t.view != nil {
		trial, err = t.view.Try(spec, history.About{Name: t.step.Name, CleansUp: t.step.If.RunsAfterFailure(), After: t.after, Again: t.again})
		if err != nil {
			return unstarted(ctx, err, "")
		}
		if trial.Why != "" {
			t.tell(Event{Type: EventRerun, Message: t.bind.Redactor.String(trial.Why)})
		}
		if trial.Reused != "" {
			return takenOver(trial)
		}
	}
	var out *outcome
	switch {
	case spec.Nested != nil:
		out = t.nested(ctx, spec)
	case spec.Job != nil: // once it has started, it counts its own time
		out = t.detach(ctx, whole, spec)
	default:
		out = t.processes(ctx, spec)
	}
	out.trial = trial
	t.keep(out)
	return out
}

// unstarted is the outcome of a step that did not start because of err.
func unstarted(ctx context.Context, err error, command string) *outcome {
	return &outcome{Result: step.Ended(step.Unstarted(ctx, err, command))}
}

// takenOver is the outcome of a step that need not run.
func takenOver(trial *history.Trial) *outcome {
	out := &outcome{trial: trial, reused: trial.Reused}
	out.Result, out.job, out.start, out.took = trial.Taken()
	return out
}

// processes runs a step that is made of processes.
func (t *task) processes(ctx context.Context, spec *step.Spec) *outcome {
	early := t.limit > 0 && t.p.Mode == pipeline.ModeAsync // others may start while what is left of this one is looked after
	return &outcome{Result: step.Run(ctx, spec, t.services, func(e step.Event) {
		switch {
		case e.Type == step.EventReady, e.Type == step.EventInterrupt, e.Type == step.EventFreed && early:
			t.news(e)
		case e.Type != step.EventFreed:
			t.tell(eventOf(e))
		}
	})}
}

// eventOf returns what views are shown of an event of a step.
func eventOf(e step.Event) Event {
	return Event{Type: ofStep[e.Type], Stage: e.Stage, Pid: e.Pid, Stream: Stream(e.FD), Data: e.Data, Whole: e.Whole, Exit: e.Exit, Message: e.Message}
}

// keep remembers a step with sources that ended well.
func (t *task) keep(out *outcome) {
	if t.view == nil {
		return
	}
	res := &StepResult{Label: t.label, Start: t.start, End: time.Now(), Job: out.job}
	res.end(out.End)
	e := entry(res)
	e.Stages = out.Stages
	if msg := t.view.Keep(out.trial, e); msg != "" {
		t.warn(msg)
	}
}

func (t *task) warn(msg string) {
	t.tell(Event{Type: EventWarning, Message: t.bind.Redactor.String(msg)})
}

// nested runs the pipeline of a step, in the step's directory and environment.
func (t *task) nested(ctx context.Context, spec *step.Spec) *outcome {
	n := spec.Nested
	if root := t.services.Root; root != nil && n.File != "" {
		if _, err := root.Stat(n.File); err != nil {
			return unstarted(ctx, &engine.StartError{Path: n.File, Msg: fmt.Sprintf("run %s: %v", t.step.Run.Pipeline.File, osfile.Cause(err)), Err: err}, "")
		}
	}
	s, err := t.inner(n)
	if err != nil {
		return unstarted(ctx, err, "")
	}
	defer s.close()
	res, err := s.run(ctx)
	if err != nil {
		return unstarted(ctx, err, "")
	}
	if slices.ContainsFunc(s.bind.Hidden, func(secret string) bool { return !slices.Contains(t.bind.Hidden, secret) }) {
		res.raw = res.Outputs // with what this pipeline could not mask
	}
	f := step.Facts{Inner: &step.End{Status: StatusSuccess}}
	var by *Interrupt
	switch c := res.Cause; {
	case errors.As(res.Interrupted, &by) && ctx.Err() == nil: // from the terminal
		t.news(step.Event{Type: step.EventInterrupt, Exit: engine.Killed(by.Signal)})
		f.Inner.ExitCode, f.Stop = res.ExitCode, &step.Stop{Signal: by.Signal}
	case res.Interrupted != nil && ctx.Err() == nil: // its own timeout
		f.Inner = &step.End{Status: StatusFailure, Reason: ReasonTimeout, ExitCode: res.ExitCode, Err: res.Interrupted}
	case c != nil:
		f.Inner = &step.End{
			Status: StatusFailure, Reason: c.Reason, ExitCode: res.ExitCode, Signal: c.Signal,
			Err: fmt.Errorf("step %s of %s failed", c.Label, s.p.File),
		}
	}
	if res.Interrupted != nil && ctx.Err() != nil {
		f.Stop, f.Inner.ExitCode, f.Inner.Err = step.StopOf(ctx), res.ExitCode, nil
	}
	return &outcome{Result: step.Ended(f), sub: res}
}

// inner prepares the run of the pipeline of a step.
func (t *task) inner(n *step.Nested) (*scene, error) {
	r := *t.Runner
	r.Engine, r.Dir, r.Env, r.MaxParallel = t.services.Engine, n.Dir, n.Env, &t.limit
	r.Stdout, r.Stderr = t.services.Stdout, t.services.Stderr
	if t.Sink != nil {
		r.Sink = func(e Event) {
			if e.Type == EventRunEnd {
				return
			}
			if e.Label = t.label + "/" + e.Label; e.Step < 0 {
				e.Label = t.label
			}
			t.Sink(e)
		}
	}
	in := Input{Params: map[string][]string{}, Stdin: t.services.Stdin}
	for _, w := range n.With {
		in.Params[w.Name] = w.Values
	}
	return r.scene(t.step.Run.Pipeline, []Input{in}, &outer{scene: t.scene, label: t.label, after: t.after, declared: declared(t.outer, n)})
}

// declared returns which variables of a nested pipeline its step, or one further
// out, sets.
func declared(out *outer, n *step.Nested) []string {
	if !n.Inherits { // it sets them all
		return names(n.Env)
	}
	var list []string
	if out != nil {
		list = append(list, out.declared...)
	}
	return append(list, n.Declared...)
}
