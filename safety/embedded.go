package safety

import (
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

const (
	// maxEmbedded and maxText are how many bytes a text for the embedded shell,
	// and a text with values for any other shell, may have.
	maxEmbedded = 256 << 10
	maxText     = 1 << 20
	// maxNested bounds the constructs that stand open at once in any text. The
	// parser recurses, and a program cannot recover from a stack overflow.
	maxNested = 1000
)

// limit refuses text that is too much for the parser.
func (t *ShellText) limit() error {
	switch {
	case t.dialect == DialectEmbedded && len(t.source) > maxEmbedded:
		return &ShellError{Hole: -1, Msg: fmt.Sprintf("the text has %d bytes; the embedded shell takes at most %d; put it into a file", len(t.source), maxEmbedded)}
	case len(t.source) > maxText:
		return &ShellError{Hole: -1, Msg: fmt.Sprintf("the text has %d bytes; one with values has at most %d; put a part of it into a file", len(t.source), maxText)}
	case nestsDeep(t.source):
		return &ShellError{Hole: -1, Msg: fmt.Sprintf("the text opens more than %d constructs, which is too deep to be parsed; put a part of it into a file", maxNested)}
	}
	return nil
}

// nestsDeep reports whether text may open more than maxNested constructs. It
// does not know quotes, and counts what is within them too.
func nestsDeep(text string) bool {
	brackets, words, nots := 0, 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '(', '{', '`':
			brackets++
		case ')', '}':
			brackets = max(0, brackets-1)
		}
		if brackets > maxNested {
			return true
		}
	}
	for w := range strings.FieldsSeq(text) {
		if w == "!" {
			nots++
		} else {
			nots = 0
		}
		switch strings.Trim(w, "(){};&|`$\"") {
		case "if", "while", "until", "for", "case", "select":
			words++
		case "fi", "done", "esac":
			words = max(0, words-1)
		}
		if words > maxNested || nots > maxNested {
			return true
		}
	}
	return false
}

// lacking are the built-in commands that the embedded shell does not have, or
// has with another meaning than a shell's.
var lacking = strings.Fields("umask ulimit alias unalias bg fg jobs fc kill newgrp suspend disown enable bind caller compgen complete compopt history logout times coproc")

// lackingVars are variables of bash that would silently be empty.
var lackingVars = strings.Fields("PIPESTATUS SECONDS BASHPID FUNCNAME BASH_SOURCE BASH_LINENO BASH_VERSION BASH_COMMAND BASH_SUBSHELL EPOCHSECONDS EPOCHREALTIME HOSTNAME OSTYPE SHLVL")

// Lack is a construct that the embedded shell does not run as bash does.
type Lack struct {
	Place Place
	What  string // such as "trap for signal INT" or "$PIPESTATUS"
}

// Lacks returns the constructs of the text that the embedded shell cannot run, in
// order of place.
func (t *ShellText) Lacks() []Lack {
	var out []Lack
	syntax.Walk(t.tree, func(n syntax.Node) bool {
		what := cannot(n)
		if what != "" {
			out = append(out, Lack{t.place(n.Pos()), what})
		}
		return what == ""
	})
	return out
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
		return cannotDeclare(n)
	case *syntax.Subshell:
		return trapIn(n.Stmts)
	case *syntax.CmdSubst:
		return trapIn(n.Stmts)
	case *syntax.ProcSubst:
		return "process substitution (" + n.Op.String() + "…))"
	case *syntax.CoprocClause:
		return "coproc"
	case *syntax.Redirect:
		return cannotRedirect(n)
	}
	return ""
}

func cannotDeclare(n *syntax.DeclClause) string {
	for _, a := range n.Args {
		if a.Value == nil {
			continue
		}
		if lit := a.Value.Lit(); a.Naked && strings.HasPrefix(lit, "-") && strings.ContainsAny(lit, "ilu") {
			return n.Variant.Value + " " + lit
		}
	}
	return ""
}

// trapIn finds a trap among the statements of a subshell, which would never
// run it.
func trapIn(stmts []*syntax.Stmt) string {
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
	switch name := args[0].Lit(); name {
	case "read":
		for _, a := range args[1:] {
			if lit := a.Lit(); strings.HasPrefix(lit, "-") && strings.Trim(lit, "-srap") != "" {
				return "read " + lit
			}
		}
	case "printf":
		return cannotPrintf(args[1:])
	case "trap":
		for _, a := range args[min(2, len(args)):] {
			if lit := a.Lit(); !slices.Contains([]string{"EXIT", "ERR", "0", "-", ""}, lit) {
				return "trap for signal " + lit
			}
		}
	default:
		if slices.Contains(lacking, name) {
			return name
		}
	}
	return ""
}

func cannotPrintf(args []*syntax.Word) string {
	if len(args) == 0 {
		return ""
	}
	if args[0].Lit() == "-v" {
		return "printf -v"
	}
	if text, ok := constant(args[0]); ok && strings.Contains(strings.ReplaceAll(text, "%%", ""), "%q") {
		return "printf %q"
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
			inner, ok := constant(&syntax.Word{Parts: p.Parts})
			if !ok {
				return "", false
			}
			b.WriteString(inner)
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

// Expansion is a variable or a command in shell text that a shell puts the value
// or output of in its place.
type Expansion struct {
	Place Place
	Text  string // such as "$name" or "$(…)"
}

// Unquoted returns the expansions that the shell splits into words and expands
// as file patterns, in order of place: those without quotes among the words of
// a command or a for loop. A zsh splits none, so there are none in its text.
func (t *ShellText) Unquoted() []Expansion {
	if t.dialect == DialectZsh {
		return nil
	}
	var out []Expansion
	words := func(list []*syntax.Word) {
		for _, w := range list {
			for _, p := range w.Parts {
				if text := expansion(p); text != "" {
					out = append(out, Expansion{t.place(p.Pos()), text})
				}
			}
		}
	}
	syntax.Walk(t.tree, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CallExpr:
			words(n.Args)
		case *syntax.WordIter:
			words(n.Items)
		}
		return true
	})
	return out
}

// expansion shows a part of a word that may become several words; "" for one
// that cannot.
func expansion(p syntax.WordPart) string {
	switch p := p.(type) {
	case *syntax.ParamExp:
		if p.Param != nil && !strings.ContainsAny(p.Param.Value, "#?$!-") && !p.Length && !p.Width {
			return "$" + p.Param.Value
		}
	case *syntax.CmdSubst:
		return "$(…)"
	}
	return ""
}
