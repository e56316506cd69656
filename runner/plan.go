package runner

import (
	"fmt"
	"strings"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// Plan returns a line for each step that Run would decide on, in file order:
// its name, its commands with the values that are known before anything runs,
// what it runs for where it expands, what it needs, and its condition. What a
// step has yet to give stands as ${{ … }}. Further lines of shell text are
// indented. A step with sources that have not changed is "up to date". The
// errors are those of Run.
func (r *Runner) Plan(p *pipeline.Pipeline, in ...Input) ([]string, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if r.State != "" && !r.Force {
		_ = s.remember() // without it, all steps are to run
	}
	var out []string
	for i, st := range p.Steps {
		if !s.wanted(i) {
			continue
		}
		vars := s.bind.Vars(bind.Unknown)
		what := ""
		spec, err := s.bind.Spec(st, p.Label(i), vars, bind.Look{AsWritten: func(bool) bool { return true }})
		if err != nil { // a file that an earlier step may make, for one
			what = "not known before the run: " + err.Error()
		} else {
			what = planned(spec)
		}
		line := p.Label(i) + ": " + strings.ReplaceAll(what, "\n", "\n    ")
		if s.upToDate(i) {
			line += "  (up to date)"
		}
		if list, err := s.instances(i); err == nil && st.Expands() {
			line += "  (for " + instanceNames(list) + ")"
		}
		if len(st.Needs) > 0 {
			var names []string
			for _, ref := range st.Needs {
				names = append(names, ref.Name)
			}
			line += fmt.Sprintf("  (needs %s)", strings.Join(names, ", "))
		}
		if st.If != nil {
			line += fmt.Sprintf("  (if %s)", st.If)
		}
		out = append(out, s.bind.Redactor.String(line))
	}
	return out, nil
}

// upToDate reports whether a step that is known before the run would not run.
func (s *scene) upToDate(i int) bool {
	st := s.p.Steps[i]
	if s.view == nil || st.Sources == nil && st.Generates == nil || st.Expands() || len(st.Reads()) > 0 {
		return false
	}
	spec, err := s.bind.Spec(st, s.p.Label(i), s.bind.Vars(bind.Unknown), bind.Look{})
	if err != nil {
		return false
	}
	why, run, err := s.view.Stale(spec, st.Name)
	return err == nil && why == "" && run != ""
}

// instanceNames returns the names of instances, up to 12 of them.
func instanceNames(list []instance) string {
	var names []string
	for i, in := range list {
		if i == 12 {
			names = append(names, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		names = append(names, in.name)
	}
	return strings.Join(names, ", ")
}

// planned returns what a step runs.
func planned(spec *step.Spec) string {
	n := spec.Nested
	if n == nil {
		return plannedStages(spec.Stages)
	}
	line := "run " + n.Path
	for _, w := range n.With {
		line += fmt.Sprintf(" %s=%s", w.Name, shellescape.QuoteCommand(w.Values))
	}
	return line
}

func plannedStages(stages []step.Stage) string {
	words := make([]string, len(stages))
	for i := range stages {
		st := &stages[i]
		if st.Tee == nil {
			words[i] = strings.TrimSpace(st.Command)
			continue
		}
		branches := make([]string, len(st.Tee))
		for j, b := range st.Tee {
			if branches[j] = "> " + b.File; b.File == "" {
				branches[j] = plannedStages(b.Chain)
			}
		}
		words[i] = "tee [" + strings.Join(branches, "; ") + "]"
	}
	return strings.Join(words, " | ")
}
