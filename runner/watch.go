package runner

import (
	"slices"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/history"
)

// Sources returns the sources of all steps as they are now. before, if not nil,
// is what was returned last; files that cannot have changed since are not read
// again. The errors are those of Run about parameters.
func (r *Runner) Sources(p *pipeline.Pipeline, before *Watched, in ...Input) (*Watched, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	w := history.NewWatched(before)
	return w, s.watch(w)
}

// watch adds the sources of one pipeline, and of those that it runs.
func (s *scene) watch(w *Watched) error {
	view := &history.View{Memory: history.Volatile(), Root: s.services.Root}
	for i, st := range s.p.Steps {
		if st.Sources == nil && st.Run == nil {
			continue
		}
		list, err := s.instances(i)
		if err != nil || readsSteps(slices.Concat(st.Sources, st.Generates)) {
			w.Unknown = append(w.Unknown, s.p.Label(i))
			continue
		}
		for _, at := range list {
			if err := s.watchOne(view, st, at, w); err != nil {
				w.Unknown = append(w.Unknown, s.p.Label(i))
				break
			}
		}
	}
	return nil
}

// watchOne adds the sources of one instance of a step, or of the pipeline that it
// runs.
func (s *scene) watchOne(view *history.View, st *pipeline.Step, at instance, w *Watched) error {
	spec, err := s.bind.Spec(st, at.label, at.vars, bind.Look{AsWritten: func(bool) bool { return true }})
	if err != nil {
		return err
	}
	if spec.Nested == nil {
		return view.Watch(spec, w)
	}
	t := &task{scene: s, step: st, label: at.label}
	inner, err := t.inner(spec.Nested)
	if err != nil {
		return err
	}
	defer inner.close()
	return inner.watch(w)
}

func readsSteps(globs []pipeline.Glob) bool {
	return slices.ContainsFunc(globs, func(g pipeline.Glob) bool { return g.Pattern.ReadsSteps() })
}
