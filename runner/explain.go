package runner

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

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

// Explain returns, for each process of a step, what would be started: program,
// arguments, cwd, and each variable with where it comes from and what it hid.
// What another step has yet to give stands as ${{ steps.… }}; secrets are
// masked. The errors are those of Run, and those of binding the step.
func (r *Runner) Explain(p *pipeline.Pipeline, name string, in ...Input) ([]Explanation, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	i, at, err := s.find(name)
	if err != nil {
		return nil, err
	}
	reads := len(p.Steps[i].Reads()) > 0 // what is not known yet is shown as it is written
	spec, err := s.bind.Spec(p.Steps[i], at.label, at.vars, bind.Look{Trace: true, AsWritten: func(bool) bool { return reads }})
	if err != nil {
		return nil, s.masked(err)
	}
	if n := spec.Nested; n != nil {
		return []Explanation{s.explainNested(n)}, nil
	}
	var out []Explanation
	spec.Each(func(st *step.Stage) { out = append(out, s.explain(st)) })
	return out, nil
}

// UpToDate says, of a step with sources or generates, whether it would run, and
// which file or value has changed. It is "" for a step without them, and for one
// that is known during a run only. The errors are those of Explain.
func (r *Runner) UpToDate(p *pipeline.Pipeline, name string, in ...Input) (string, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return "", err
	}
	defer s.close()
	i, at, err := s.find(name)
	if err != nil || len(p.Steps[i].Reads()) > 0 {
		return "", err
	}
	if st := p.Steps[i]; st.Sources == nil && st.Generates == nil {
		return "", nil
	}
	if r.State == "" {
		return "it runs: there is no folder where it would be remembered", nil
	}
	if err := s.remember(); err != nil {
		return "it runs: nothing is remembered: " + err.Error(), nil
	}
	spec, err := s.bind.Spec(p.Steps[i], at.label, at.vars, bind.Look{})
	if err != nil {
		return "", s.masked(err)
	}
	why, run, err := s.view.Stale(spec, p.Steps[i].Name)
	switch {
	case err != nil:
		return "", s.masked(err)
	case why != "":
		return "it runs: " + s.bind.Redactor.String(why), nil
	case run != "":
		return "up to date, since run " + run, nil
	}
	return "", nil
}

// find returns the step of a name, as NAME or NAME[INSTANCE], and what it runs
// for: of a step that expands the first instance, where none is named.
func (s *scene) find(name string) (int, instance, error) {
	name, want, _ := strings.Cut(strings.TrimSuffix(name, "]"), "[")
	if _, err := s.p.Select([]string{name}); err != nil {
		return 0, instance{}, &paramError{s.masked(err)}
	}
	st, i := s.p.Step(name)
	if want != "" && !st.Expands() {
		return 0, instance{}, &paramError{fmt.Errorf("step %s runs once, and has no [%s]", name, want)}
	}
	list, err := s.instances(i)
	if errors.Is(err, errKnownLater) {
		at := instance{label: s.p.Label(i), vars: s.bind.Vars(bind.Unknown)}
		at.vars.Item = "${{ item }}"
		return i, at, nil
	}
	if err != nil {
		return 0, instance{}, err
	}
	var known []string
	for _, at := range list {
		if want == "" || at.name == want {
			return i, at, nil
		}
		known = append(known, at.name)
	}
	if len(known) > 3 {
		known = append(known[:3], fmt.Sprintf("and %d more", len(known)-3))
	}
	return 0, instance{}, &paramError{fmt.Errorf("step %s has no [%s]; it has %s", name, want, strings.Join(known, ", "))}
}

// explain shows one stage.
func (s *scene) explain(st *step.Stage) Explanation {
	x := s.bind.Redactor
	e := Explanation{Dir: x.String(st.Dir), Env: s.variables(st.Origins)}
	if st.UsesShell() {
		e.Text, e.Shell = x.String(strings.TrimRight(st.Written, "\n")), st.Shell
	} else {
		e.Args = s.hidden(st.Args)
	}
	if st.Shell != step.BuiltinShell {
		path, err := step.LookPath(s.services.Engine, st)
		if err != nil {
			path = err.Error()
		}
		e.Program = x.String(path)
	}
	return e
}

// explainNested shows a step that runs another pipeline, as if it were pipe that
// is started.
func (s *scene) explainNested(n *step.Nested) Explanation {
	e := Explanation{Args: []string{"pipe", "run", n.Path}, Dir: s.bind.Redactor.String(n.Dir), Env: s.variables(n.Origins)}
	for _, w := range n.With {
		for _, value := range w.Values {
			e.Args = append(e.Args, "-p", s.bind.Redactor.String(w.Name+"="+value))
		}
	}
	return e
}

// variables shows an environment.
func (s *scene) variables(origins map[string][]safety.Origin) []Variable {
	var out []Variable
	for _, name := range slices.Sorted(maps.Keys(origins)) {
		v := Variable{Name: name}
		for _, o := range origins[name] {
			o.Value, o.Source = s.bind.Redactor.String(o.Value), s.bind.Redactor.String(o.Source)
			v.Origins = append(v.Origins, o)
		}
		out = append(out, v)
	}
	return out
}

// hidden returns words in which no secret shows.
func (s *scene) hidden(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = s.bind.Redactor.String(w)
	}
	return out
}

// names returns the names of variables given as NAME=value.
func names(env []string) []string {
	out := make([]string, len(env))
	for i, kv := range env {
		out[i], _, _ = strings.Cut(kv, "=")
	}
	return out
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
