package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pipe-runner/pipe/safety"
)

// shellOptions are the options that the embedded shell has.
var shellOptions = []string{"allexport", "errexit", "noexec", "noglob", "nounset", "xtrace", "pipefail"}

// BindShell returns the text that the shell of the stage runs, with a reference
// to a variable for each expression, and these variables. The pipeline must have
// been checked.
func (s *Stage) BindShell(v *Vars) (string, []safety.Var, error) {
	if s.shell == nil {
		text, err := s.script.Eval(v) // constant, but for escaped braces
		return text, nil, err
	}
	exprs := s.script.tmpl.exprs
	values := make([]safety.Value, len(exprs))
	for i, e := range exprs {
		val, err := e.Eval(v)
		if err == nil {
			values[i], err = shellValue(val)
		}
		if err != nil {
			return "", nil, fmt.Errorf("shell text: %w", err)
		}
	}
	text, vars, err := s.shell.Bind(values)
	var se *safety.ShellError
	if errors.As(err, &se) {
		err = fmt.Errorf("shell text: ${{ %s }}: %w", exprs[se.Hole].src, err)
	}
	return text, vars, err
}

func shellValue(val any) (v safety.Value, err error) {
	switch val.(type) {
	case int, int64:
		v.Int = true
	}
	if items, ok := listOf(val); ok {
		v.List = make([]string, len(items))
		for i, it := range items {
			if v.List[i], err = Text(it); err != nil {
				return v, err
			}
		}
	}
	v.Text, err = Text(val)
	return v, err
}

// parse parses the text of the stage; kinds has one for each expression.
func (s *Stage) parse(kinds []safety.Kind, d safety.Dialect) (*safety.ShellText, error) {
	t := s.script.tmpl
	if t == nil {
		return safety.ParseShell([]string{s.script.src}, nil, nil, d)
	}
	return safety.ParseShell(t.lits, t.sources, kinds, d)
}

// place turns a place in the text of the stage, as a shell gets it, into one of
// the file.
func (s *Stage) place(p safety.Place) Pos {
	if s.origin == nil || p.Line == 0 {
		return s.Pos
	}
	if s.script.tmpl != nil {
		return s.origin.at(s.script.tmpl.written(p.Offset))
	}
	return s.origin.at(p.Offset)
}

// parseShell parses the text of a stage, and reports values that have no safe
// place in it. It returns nil after an error.
func (c *checker) parseShell(st *Stage, d safety.Dialect) *safety.ShellText {
	exprs := st.script.exprs()
	kinds := make([]safety.Kind, len(exprs))
	for i, e := range exprs {
		switch {
		case e.raw:
			kinds[i] = safety.KindRaw
		case c.p.noDash(e):
			kinds[i] = safety.KindNoDash
		}
	}
	text, err := st.parse(kinds, d)
	if err != nil {
		c.shellErrors(st, err)
		return nil
	}
	for i, h := range text.Holes {
		if name := exprs[i].param(); h.Int && name != "" && c.p.paramType(name) != ParamInt {
			c.add(exprs[i].pos(), "a value in arithmetic must be an integer, or it could run as code; declare %s with type: int", name)
		}
	}
	if len(exprs) > 0 {
		st.shell = text
	}
	return text
}

// shellErrors reports what is wrong with the text of a stage.
func (c *checker) shellErrors(st *Stage, err error) {
	list := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		list = many.Unwrap()
	}
	for _, err := range list {
		var se *safety.ShellError
		switch {
		case !errors.As(err, &se):
			c.add(st.Pos, "shell text: %s", err)
		case se.Hole >= 0:
			c.add(st.script.tmpl.exprs[se.Hole].pos(), "%s", se.Msg)
		default:
			c.add(st.place(se.Place), "shell text: %s", se.Msg)
		}
	}
}

// param returns the name of the parameter that the expression is, or "".
func (e *Expr) param() string {
	name, ok := strings.CutPrefix(e.src, "params.")
	if !ok || !namePattern().MatchString(name) {
		return ""
	}
	return name
}

// noDash reports whether the expression is a parameter whose type keeps its text
// from beginning with a dash.
func (p *Pipeline) noDash(e *Expr) bool {
	name := e.param()
	return name != "" && (p.paramType(name) == ParamPath || p.paramType(name) == ParamBool)
}

func (p *Pipeline) paramType(name string) ParamType {
	for _, prm := range p.Params {
		if prm.Name == name {
			return prm.Type
		}
	}
	return ParamString
}

func (c *checker) builtinText(st *Stage, o Options) {
	for _, name := range o.Set {
		if !slices.Contains(shellOptions, name) {
			c.add(o.setPos, "the embedded shell has no option %q%s", name, didYouMean(name, shellOptions, "; it has "+strings.Join(shellOptions, ", ")+", and shell: bash has more"))
		}
	}
	text := c.parseShell(st, safety.DialectEmbedded)
	if text == nil {
		return
	}
	for _, l := range text.Lacks() {
		c.add(st.place(l.Place), "the embedded shell cannot do %s; write shell: bash (or sh) on the step", l.What)
	}
}

// ReadsSteps reports whether shell text depends on the result of a step.
func (s *Stage) ReadsSteps() bool { return s.script.ReadsSteps() }
