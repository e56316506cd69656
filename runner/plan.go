package runner

// This file holds the dry run.

import (
	"fmt"
	"strings"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
)

// Plan returns a line for each step that Run would decide on, in file order:
// its name, what it needs, its condition, and its commands with the values that
// are known before anything runs; what a step has yet to give stands as
// ${{ … }}. The errors are those of Run.
func (r *Runner) Plan(p *pipeline.Pipeline) ([]string, error) {
	run, err := r.lookInto(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = run.root.Close() }()
	var keep []bool
	if len(r.Steps) > 0 {
		if keep, err = p.Select(r.Steps); err != nil {
			return nil, &paramError{run.masked(err)}
		}
	}
	var out []string
	for i, s := range p.Steps {
		if keep != nil && !keep[i] {
			continue
		}
		var b strings.Builder
		if s.Run != nil {
			fmt.Fprintf(&b, "%s: run %s", p.Label(i), s.Run.Path)
			for _, w := range s.Run.With {
				fmt.Fprintf(&b, " %s=%s", w.Name, run.planArgs([]pipeline.Template{w.Value}))
			}
		} else {
			fmt.Fprintf(&b, "%s: %s", p.Label(i), run.planStages(s.Stages))
		}
		if len(s.Needs) > 0 {
			var names []string
			for _, ref := range s.Needs {
				names = append(names, ref.Name)
			}
			fmt.Fprintf(&b, "  (needs %s)", strings.Join(names, ", "))
		}
		if s.If != nil {
			fmt.Fprintf(&b, "  (if %s)", s.If)
		}
		out = append(out, run.redactor.String(b.String()))
	}
	return out, nil
}

func (r *run) planStages(stages []*pipeline.Stage) string {
	var words []string
	for _, st := range stages {
		switch {
		case st.Action == pipeline.ActionTee:
			var branches []string
			for _, b := range st.Tee {
				if b.File != nil {
					branches = append(branches, "> "+b.File.File.String())
				} else {
					branches = append(branches, r.planStages(b.Chain))
				}
			}
			words = append(words, "tee ["+strings.Join(branches, "; ")+"]")
		case st.UsesShell():
			words = append(words, strings.TrimSpace(st.Text))
		default:
			words = append(words, r.planArgs(st.Args))
		}
	}
	return strings.Join(words, " | ")
}

func (r *run) planArgs(args []pipeline.Template) string {
	var words []string
	for _, a := range args {
		if a.ReadsSteps() {
			words = append(words, a.String())
			continue
		}
		vals, err := a.EvalArgs(&r.base)
		if err != nil {
			words = append(words, a.String())
			continue
		}
		for _, v := range vals {
			words = append(words, shellescape.Quote(r.redactor.String(v)))
		}
	}
	return strings.Join(words, " ")
}
