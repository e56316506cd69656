package runner

// This file holds what a step comes to, without running it.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/safety"
)

// Explain returns, for each process of a step, what would be started: program,
// arguments, cwd, and each variable with where it comes from and what it hid.
// What another step has yet to give stands as ${{ steps.… }}; secrets are
// masked. The errors are those of Run, and those of binding the step.
func (r *Runner) Explain(p *pipeline.Pipeline, step string) ([]Explanation, error) {
	run, ex, err := r.lookAt(p, step)
	if run != nil {
		defer func() { _ = run.root.Close() }()
	}
	if err != nil {
		return nil, err
	}
	run.tracing = true
	if ex.step.Run != nil {
		return run.explainRun(ex)
	}
	return run.explain(ex, ex.step.Stages, nil)
}

// UpToDate says, of a step with sources or generates, whether it would run, and
// which file or value has changed. It is "" for a step without them, and for one
// that is known during a run only. The errors are those of Explain.
func (r *Runner) UpToDate(p *pipeline.Pipeline, step string) (string, error) {
	run, ex, err := r.lookAt(p, step)
	if run != nil {
		defer func() { _ = run.root.Close() }()
	}
	if err != nil || !remembers(ex.step) || len(ex.step.Reads()) > 0 {
		return "", err
	}
	if r.State == "" {
		return "it runs: there is no folder where it would be remembered", nil
	}
	if err := run.remembering(r); err != nil {
		return "it runs: nothing is remembered: " + err.Error(), nil
	}
	if err := ex.bindAll(); err != nil {
		return "", run.masked(err)
	}
	ex.last = ex.loadRecord()
	f, err := ex.depends()
	if err != nil {
		return "", run.masked(err)
	}
	why, _, err := ex.stale(ex.last, f)
	switch {
	case err != nil:
		return "", run.masked(err)
	case why != "":
		return run.redactor.String("it runs: " + why), nil
	}
	return fmt.Sprintf("up to date, since run %s", ex.last.Run), nil
}

// lookInto prepares to look at a pipeline without running it. The root of what
// is returned is to be closed.
func (r *Runner) lookInto(p *pipeline.Pipeline) (*run, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	run := &run{p: p, parent: r.parent, graph: p.Graph()}
	if err := run.setup(r); err != nil {
		_ = run.root.Close()
		return nil, err
	}
	return run, nil
}

// lookAt prepares to look at a step without running it.
func (r *Runner) lookAt(p *pipeline.Pipeline, step string) (*run, *execution, error) {
	run, err := r.lookInto(p)
	if err != nil {
		return nil, nil, err
	}
	name, instance, _ := strings.Cut(strings.TrimSuffix(step, "]"), "[")
	if _, err := p.Select([]string{name}); err != nil {
		return run, nil, &paramError{run.masked(err)}
	}
	s, i := p.Step(name)
	ex := &execution{r: run, u: &unit{step: i, label: p.Label(i)}, step: s}
	ex.vars = run.base
	ex.vars.Steps = unknownStep
	if !s.Expands() {
		if instance != "" {
			return run, nil, &paramError{fmt.Errorf("step %s runs once, and has no [%s]", name, instance)}
		}
		return run, ex, nil
	}
	if s.ForEach != nil && len(s.Reads()) > 0 { // its list is known during a run only
		ex.vars.Item = "${{ item }}"
		return run, ex, nil
	}
	instances, err := s.Instances(&ex.vars)
	if err != nil {
		return run, nil, run.masked(err)
	}
	var labels []string
	for _, in := range instances {
		if labels = append(labels, in.Label); instance == "" || in.Label == instance {
			ex.vars.Matrix, ex.vars.Item = in.Matrix, in.Item
			ex.u.label = fmt.Sprintf("%s[%s]", ex.u.label, run.redactor.String(in.Label))
			return run, ex, nil
		}
	}
	return run, nil, &paramError{run.masked(fmt.Errorf("step %s has no [%s]; it has %s", name, instance, few(labels)))}
}

// Explanation is what one process of a step would be.
type Explanation struct {
	Program string   // as it is found, or how it is not
	Args    []string // nil where a shell runs Text
	Text    string
	Shell   string
	Dir     string
	Env     []Variable // by name
}

// Variable is one variable and where it comes from.
type Variable struct {
	Name    string
	Origins []safety.Origin // the one that holds is the last
}

// unknownStep stands in for a step that has not run.
func unknownStep(name string) (map[string]any, error) {
	text := func(field string) string { return "${{ steps." + name + "." + field + " }}" }
	return map[string]any{
		"status": "success", "reason": "", "exitCode": 0, "signal": "", "duration": 0.0, "stages": []any{}, "job": text("job"),
		"stdout": text("stdout"), "stderr": text("stderr"),
	}, nil
}

// explainRun returns what a step is that runs another pipeline, as if it were
// pipe that is started.
func (r *run) explainRun(ex *execution) ([]Explanation, error) {
	out, err := r.explain(ex, []*pipeline.Stage{programStage}, nil)
	if err != nil {
		return nil, err
	}
	out[0].Program, out[0].Args = "", []string{"pipe", "run", ex.step.Run.Path}
	for _, w := range ex.step.Run.With {
		vars := ex.vars
		words, err := w.Value.EvalArgs(&vars)
		if err != nil {
			return nil, r.masked(fmt.Errorf("with %s: %w", w.Name, err))
		}
		for _, word := range words {
			out[0].Args = append(out[0].Args, "-p", r.redactor.String(w.Name+"="+word))
		}
	}
	return out, nil
}

func (r *run) explain(ex *execution, stages []*pipeline.Stage, out []Explanation) ([]Explanation, error) {
	for _, st := range stages {
		if st.Action == pipeline.ActionTee {
			for _, b := range st.Tee {
				var err error
				if out, err = r.explain(ex, b.Chain, out); err != nil {
					return nil, err
				}
			}
			continue
		}
		b, err := ex.bind(st)
		if err != nil && len(ex.step.Reads()) > 0 { // known during a run only
			e := Explanation{Text: st.Text, Shell: "a shell", Dir: "(not known before the run)"}
			for _, a := range st.Args {
				e.Args = append(e.Args, a.String())
			}
			out = append(out, e)
			continue
		}
		if err != nil {
			return nil, r.masked(err)
		}
		e := Explanation{Dir: r.redactor.String(b.dir)}
		if st.UsesShell() {
			e.Text, e.Shell = r.redactor.String(strings.TrimRight(st.Text, "\n")), b.opts.Shell
		} else {
			for _, a := range b.args {
				e.Args = append(e.Args, r.redactor.String(a))
			}
		}
		if !st.UsesShell() || b.opts.Shell != pipeline.ShellBuiltin {
			if e.Program, err = lookPath(r.engine, b.program, b.path, b.dir); err != nil {
				e.Program = err.Error()
			}
			e.Program = r.redactor.String(e.Program)
		}
		for _, name := range slices.Sorted(maps.Keys(b.history)) {
			v := Variable{Name: name}
			for _, o := range b.history[name] {
				o.Value, o.Source = r.redactor.String(o.Value), r.redactor.String(o.Source)
				v.Origins = append(v.Origins, o)
			}
			e.Env = append(e.Env, v)
		}
		out = append(out, e)
	}
	return out, nil
}

// String returns the explanation in lines, for people.
func (e Explanation) String() string {
	var b strings.Builder
	if e.Args == nil {
		fmt.Fprintf(&b, "shell text, for %s:\n", e.Shell)
		for _, l := range strings.Split(e.Text, "\n") {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	} else {
		fmt.Fprintf(&b, "arguments: %s\n", shellescape.QuoteCommand(e.Args))
	}
	if e.Program != "" {
		fmt.Fprintf(&b, "program: %s\n", e.Program)
	}
	fmt.Fprintf(&b, "cwd: %s\nenvironment:\n", e.Dir)
	if len(e.Env) == 0 {
		b.WriteString("    (empty)\n")
	}
	for _, v := range e.Env {
		last := v.Origins[len(v.Origins)-1]
		if last.Unset {
			fmt.Fprintf(&b, "    %s is not set  (%s)", v.Name, last.Source)
		} else {
			fmt.Fprintf(&b, "    %s=%s  (%s)", v.Name, shellescape.Quote(last.Value), last.Source)
		}
		for _, o := range slices.Backward(v.Origins[:len(v.Origins)-1]) {
			if o.Unset {
				continue
			}
			fmt.Fprintf(&b, ", hides %s (%s)", shellescape.Quote(o.Value), o.Source)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
