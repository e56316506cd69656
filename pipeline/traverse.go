package pipeline

import (
	"slices"
	"strconv"
)

// The functions of this file are the only ones that know which fields hold
// templates and expressions. A new key with a template has its line here.

// EachTemplate calls f for the templates that are set at this level, in a fixed
// order, with the key that messages name them by: "cwd", "env NAME", "envFile".
// A nil Scope has none.
func (s *Scope) EachTemplate(f func(key string, t *Template)) {
	if s == nil {
		return
	}
	eachSet(f, "cwd", &s.Cwd)
	for i := range s.EnvFile {
		f("envFile", &s.EnvFile[i])
	}
	for i := range s.Env {
		f("env "+s.Env[i].Name, &s.Env[i].Value)
	}
}

// EachTemplate calls f for the templates of the stage that are set, in a fixed
// order, with the key that messages name them by: "argument 0" and so on,
// "argv0", "input", "stdin", "stdout", "stderr", "stdio[3]" and so on, and "tee"
// for each file that is a branch of a tee. Those of its Scope and of the stages
// of its branches are not among them, and neither is Text: a value does not
// become text of a shell, see [Stage.BindShell].
func (s *Stage) EachTemplate(f func(key string, t *Template)) {
	for i := range s.Args {
		f("argument "+strconv.Itoa(i), &s.Args[i])
	}
	eachSet(f, "argv0", &s.Argv0)
	eachSet(f, "input", &s.Input)
	eachSet(f, "stdin", &s.Stdin.File)
	eachSet(f, "stdout", &s.Stdout.File)
	eachSet(f, "stderr", &s.Stderr.File)
	for i := range s.Extra {
		eachSet(f, "stdio["+strconv.Itoa(i+3)+"]", &s.Extra[i].File)
	}
	for _, b := range s.Tee {
		if b.File != nil {
			eachSet(f, "tee", &b.File.File)
		}
	}
}

// EachTemplate calls f for every template of the step that is set, in a fixed
// order, with the key that messages name it by: those of its own Scope, "lock",
// "sources", "generates", "ready tcp", "ready http", "with NAME", and those of
// its stages and their Scopes, also in the branches of a tee and behind "ready "
// for a probe.
func (s *Step) EachTemplate(f func(key string, t *Template)) {
	s.Scope.EachTemplate(f)
	s.Lock.eachTemplate(f)
	for i := range s.Sources {
		f("sources", &s.Sources[i].Pattern)
	}
	for i := range s.Generates {
		f("generates", &s.Generates[i].Pattern)
	}
	if r := s.Ready; r != nil {
		eachSet(f, "ready tcp", &r.TCP)
		eachSet(f, "ready http", &r.HTTP)
	}
	if s.Run != nil {
		for i := range s.Run.With {
			f("with "+s.Run.With[i].Name, &s.Run.With[i].Value)
		}
	}
	s.eachStage(func(prefix string, st *Stage) {
		g := f
		if prefix != "" {
			g = func(key string, t *Template) { f(prefix+key, t) }
		}
		st.Scope.EachTemplate(g)
		st.EachTemplate(g)
	})
}

// EachExpr calls f for every expression of the step, in a fixed order, with the
// key that messages name it by: "if", "forEach", those in the templates that
// [Step.EachTemplate] visits, and those in the text of shells, under the key of
// the action.
func (s *Step) EachExpr(f func(key string, e *Expr)) {
	if s.If != nil {
		f("if", s.If)
	}
	if s.ForEach != nil {
		f("forEach", s.ForEach)
	}
	s.EachTemplate(eachExpr(f))
	s.eachStage(func(prefix string, st *Stage) { eachExpr(f)(prefix+st.Action.String(), &st.script) })
}

// eachExpr makes a visitor of expressions one of templates.
func eachExpr(f func(key string, e *Expr)) func(key string, t *Template) {
	return func(key string, t *Template) {
		for _, e := range t.exprs() {
			f(key, e)
		}
	}
}

// eachStage calls f for each stage, a tee before those of its branches, and for
// the stage of a probe, with what comes before its keys.
func (s *Step) eachStage(f func(prefix string, st *Stage)) {
	var walk func(stages []*Stage)
	walk = func(stages []*Stage) {
		for _, st := range stages {
			f("", st)
			for _, b := range st.Tee {
				walk(b.Chain)
			}
		}
	}
	walk(s.Stages)
	if s.Ready != nil && s.Ready.Exec != nil {
		f("ready ", s.Ready.Exec)
	}
}

// eachExpr calls f for every expression of the stage and its Scope.
func (s *Stage) eachExpr(f func(key string, e *Expr)) {
	s.Scope.EachTemplate(eachExpr(f))
	s.EachTemplate(eachExpr(f))
	eachExpr(f)(s.Action.String(), &s.script)
}

// eachTemplate calls f for the templates of the pipeline itself.
func (p *Pipeline) eachTemplate(f func(key string, t *Template)) {
	p.Scope.EachTemplate(f)
	p.Lock.eachTemplate(f)
}

func (l *Lock) eachTemplate(f func(key string, t *Template)) {
	if l != nil {
		f("lock", &l.Name)
	}
}

// eachSet calls f for a template that may be left out, where it is set.
func eachSet(f func(key string, t *Template), key string, t *Template) {
	if !t.IsZero() {
		f(key, t)
	}
}

// Reads returns the names of the steps whose results the step reads. The
// pipeline must have been checked.
func (s *Step) Reads() []string {
	var out []string
	s.EachExpr(func(_ string, e *Expr) { out = append(out, e.steps...) })
	slices.Sort(out)
	return slices.Compact(out)
}

// ReadSteps returns the names of the steps whose results expressions read. The
// pipeline must have been checked.
func (p *Pipeline) ReadSteps() map[string]bool {
	out := map[string]bool{}
	for _, s := range p.Steps {
		for _, name := range s.Reads() {
			out[name] = true
		}
	}
	for _, o := range p.Outputs {
		for _, name := range o.Expr.steps {
			out[name] = true
		}
	}
	return out
}
