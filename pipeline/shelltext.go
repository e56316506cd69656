package pipeline

// This file holds the check of text for the embedded shell: a syntax error, or
// a construct that the embedded shell cannot do, is an error of the file.

import (
	"errors"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
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

// Tree returns the parsed text of a stage that the embedded shell runs.
func (s *Stage) Tree() (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(s.Text), "")
}

func (c *checker) builtinText(st *Stage, o Options) {
	if strings.Contains(st.Text, "${{") {
		return // said already
	}
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
	tree, err := st.Tree()
	if err != nil {
		var pe syntax.ParseError
		if errors.As(err, &pe) {
			c.add(st.shellPos(pe.Pos), "shell text: %s", pe.Text)
			return
		}
		var le syntax.LangError
		if errors.As(err, &le) {
			c.add(st.shellPos(le.Pos), "shell text: %s", le.Error())
			return
		}
		c.add(st.Pos, "shell text: %s", err)
		return
	}
	syntax.Walk(tree, func(n syntax.Node) bool {
		if n != nil {
			if what := cannot(n); what != "" {
				c.add(st.shellPos(n.Pos()), "the embedded shell cannot do %s; write shell: bash (or sh) on the step", what)
				return false
			}
		}
		return true
	})
}

// shellPos turns a place in the text into one of the file. Where the text's
// layout in the file is not known (folded blocks), it is the text's own line.
func (s *Stage) shellPos(at syntax.Pos) Pos {
	if !s.TextPos.IsValid() {
		return s.Pos
	}
	p := Pos{Line: s.TextPos.Line + int(at.Line()) - 1, Col: s.TextPos.Col} //nolint:gosec // of a text of 256 KiB
	if s.TextPos.Col > 0 {
		p.Col = s.TextPos.Col + int(at.Col()) - 1 //nolint:gosec // as above
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
