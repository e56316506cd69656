package pipeline

// This file holds the check of text for the embedded shell: a syntax error, or
// a construct that the embedded shell cannot do, is an error of the file.

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/pipe-runner/pipe/safety"
)

const (
	// maxShellText and maxShellDepth keep the parser, which recurses, from
	// overflowing the stack: that could not be recovered from.
	maxShellText  = 256 << 10
	maxShellDepth = 1000
)

// shellOptions are the options that the embedded shell has.
var shellOptions = []string{"allexport", "errexit", "noexec", "noglob", "nounset", "xtrace", "pipefail"}

// lacking are the built-in commands that the embedded shell does not have, or
// has with another meaning than a shell's.
var lacking = map[string]string{
	"umask": "", "ulimit": "", "alias": "", "unalias": "", "bg": "", "fg": "", "jobs": "", "fc": "", "kill": "", "newgrp": "",
	"suspend": "", "disown": "", "enable": "", "bind": "", "caller": "", "compgen": "", "complete": "", "compopt": "",
	"history": "", "logout": "", "times": "", "coproc": "",
}

// BindShell returns the text that the shell of a stage runs, and the variables
// that it reads: each expression is a reference to one of them. The stage must
// have been checked.
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

// ParseEmbedded parses text for the embedded shell.
func ParseEmbedded(text string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
}

// parseShell decides where the values of a text go, and reports those for
// which there is no place. It returns nil after an error.
func (c *checker) parseShell(st *Stage, d safety.Dialect) *safety.ShellText {
	t := st.script.tmpl
	if t == nil { // no expression, but perhaps escaped braces
		t = &template{lits: []string{st.script.src}}
	}
	kinds := make([]safety.Kind, len(t.exprs))
	for i, e := range t.exprs {
		switch {
		case e.raw:
			kinds[i] = safety.KindRaw
		case c.p.noDash(e):
			kinds[i] = safety.KindNoDash
		}
	}
	text, err := safety.ParseShell(t.lits, t.sources, kinds, d)
	if err == nil {
		for i, h := range text.Holes {
			if name := t.exprs[i].param(); h.Int && name != "" && c.p.paramType(name) != ParamInt {
				c.add(t.exprs[i].pos, "a value in arithmetic must be an integer, or it could run as code; declare %s with type: int", name)
			}
		}
		if len(t.exprs) > 0 {
			st.shell = text
		}
		return text
	}
	list := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		list = many.Unwrap()
	}
	for _, err := range list {
		var se *safety.ShellError
		switch {
		case !errors.As(err, &se) || se.Hole < 0 && se.Line == 0:
			c.add(st.Pos, "shell text: %s", err)
		case se.Hole >= 0:
			c.add(t.exprs[se.Hole].pos, "%s", se.Msg)
		default:
			c.add(st.shellPos(se.Line, se.Col), "shell text: %s", se.Msg)
		}
	}
	return nil
}

// param returns the name of the parameter that the expression is, or "".
func (e *Expr) param() string {
	name, ok := strings.CutPrefix(e.src, "params.")
	if !ok || !namePattern().MatchString(name) {
		return ""
	}
	return name
}

// noDash reports whether the text of an expression never begins with a dash, as
// far as the declaration of a parameter tells.
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
	if len(st.Text) > maxShellText {
		c.add(st.Pos, "the shell text has %d bytes; the embedded shell takes at most %d; put it into a file", len(st.Text), maxShellText)
		return
	}
	if deep(st.Text) {
		c.add(st.Pos, "the shell text opens more than %d constructs; the embedded shell refuses that", maxShellDepth)
		return
	}
	text := c.parseShell(st, safety.DialectEmbedded)
	if text == nil {
		return
	}
	syntax.Walk(text.Tree, func(n syntax.Node) bool {
		if n != nil {
			if what := cannot(n); what != "" {
				c.add(st.shellPos(text.Place(n.Pos())), "the embedded shell cannot do %s; write shell: bash (or sh) on the step", what)
				return false
			}
		}
		return true
	})
}

// shellPos turns a place in the text into one of the file. Where the text's
// layout in the file is not known (folded blocks), it is the text's own line.
func (s *Stage) shellPos(line, col int) Pos {
	if !s.TextPos.IsValid() {
		return s.Pos
	}
	p := Pos{Line: s.TextPos.Line + line - 1, Col: s.TextPos.Col}
	if s.TextPos.Col > 0 {
		p.Col = s.TextPos.Col + col - 1
	}
	return p
}

// deep reports whether text opens more constructs than the parser should nest.
func deep(text string) bool {
	n := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '(', '{', '`':
			n++
		case ')', '}':
			n--
		}
		if n > maxShellDepth {
			return true
		}
	}
	words := 0
	for _, w := range strings.Fields(text) {
		switch w {
		case "if", "while", "until", "for", "case", "select", "!":
			words++
		case "fi", "done", "esac":
			words--
		}
		if words > maxShellDepth {
			return true
		}
	}
	return false
}

// cannot names what the embedded shell cannot do at a node, or "".
func cannot(n syntax.Node) string {
	switch n := n.(type) {
	case *syntax.CallExpr:
		if len(n.Args) > 0 {
			return cannotCall(n.Args)
		}
	case *syntax.ParamExp:
		if n.Param != nil && slices.Contains(lackingVars, n.Param.Value) {
			return "$" + n.Param.Value
		}
	case *syntax.DeclClause:
		for _, a := range n.Args {
			if a.Value == nil {
				continue
			}
			if lit := a.Value.Lit(); a.Naked && strings.HasPrefix(lit, "-") && strings.ContainsAny(lit, "ilu") {
				return n.Variant.Value + " " + lit
			}
		}
	case *syntax.Subshell:
		return trapsIn(n.Stmts)
	case *syntax.CmdSubst:
		return trapsIn(n.Stmts)
	case *syntax.ProcSubst:
		return "process substitution (" + n.Op.String() + "…))"
	case *syntax.CoprocClause:
		return "coproc"
	case *syntax.Redirect:
		return cannotRedirect(n)
	}
	return ""
}

// lackingVars are variables of bash that would silently be empty.
var lackingVars = []string{"PIPESTATUS", "SECONDS", "BASHPID", "FUNCNAME", "BASH_SOURCE", "BASH_LINENO", "BASH_VERSION", "BASH_COMMAND", "BASH_SUBSHELL", "EPOCHSECONDS", "EPOCHREALTIME", "HOSTNAME", "OSTYPE", "SHLVL"}

// trapsIn reports a trap in a subshell, which would never run.
func trapsIn(stmts []*syntax.Stmt) string {
	what := ""
	for _, s := range stmts {
		syntax.Walk(s, func(n syntax.Node) bool {
			if c, ok := n.(*syntax.CallExpr); ok && len(c.Args) > 0 && c.Args[0].Lit() == "trap" {
				what = "trap in a subshell"
			}
			return what == ""
		})
	}
	return what
}

func cannotCall(args []*syntax.Word) string {
	name := args[0].Lit()
	if _, ok := lacking[name]; ok {
		return name
	}
	switch name {
	case "read":
		for _, a := range args[1:] {
			if lit := a.Lit(); strings.HasPrefix(lit, "-") && strings.Trim(lit, "-srap") != "" {
				return "read " + lit
			}
		}
	case "printf":
		if len(args) > 1 {
			if lit := args[1].Lit(); lit == "-v" {
				return "printf -v"
			}
			if text, ok := constant(args[1]); ok && strings.Contains(strings.ReplaceAll(text, "%%", ""), "%q") {
				return "printf %q"
			}
		}
	}
	if name != "trap" {
		return ""
	}
	for _, a := range args[min(2, len(args)):] {
		switch lit := a.Lit(); lit {
		case "EXIT", "ERR", "0", "-", "":
		default:
			return "trap for signal " + lit
		}
	}
	return ""
}

// constant returns the text of a word that holds nothing to expand.
func constant(w *syntax.Word) (string, bool) {
	var b strings.Builder
	for _, p := range w.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			b.WriteString(p.Value)
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			for _, q := range p.Parts {
				lit, ok := q.(*syntax.Lit)
				if !ok {
					return "", false
				}
				b.WriteString(lit.Value)
			}
		default:
			return "", false
		}
	}
	return b.String(), true
}

func cannotRedirect(r *syntax.Redirect) string {
	if r.N != nil && r.N.Value != "0" && r.N.Value != "1" && r.N.Value != "2" {
		return "redirection of descriptor " + r.N.Value
	}
	switch r.Op {
	case syntax.RdrIn, syntax.RdrOut, syntax.AppOut, syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc, syntax.RdrAll, syntax.AppAll:
	case syntax.DplOut:
		if lit := r.Word.Lit(); lit != "1" && lit != "2" && lit != "-" {
			return "redirection to >&" + lit
		}
	case syntax.DplIn:
		if lit := r.Word.Lit(); lit != "-" {
			return "redirection from <&" + lit
		}
	default:
		return "the redirection " + r.Op.String()
	}
	return ""
}
