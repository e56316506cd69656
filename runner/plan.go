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
// its name, what it needs, its condition, and its commands with the values that
// are known before anything runs; what a step has yet to give stands as
// ${{ … }}. The errors are those of Run.
func (r *Runner) Plan(p *pipeline.Pipeline, in ...Input) ([]string, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
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
		line := p.Label(i) + ": " + what
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

// planned returns what a step runs, in one line.
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
