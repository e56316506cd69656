package safety

import (
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// placer walks the tree and decides the form of each hole.
type placer struct {
	t     *ShellText
	marks []int
	found []bool
	edits []edit
	errs  []error
	stack []syntax.Node
	// evaluated are variables that the shell evaluates when they are set:
	// integers, references, and some of its own.
	evaluated map[string]bool
	arrays    map[string]bool
	funcs     map[string]*syntax.Stmt // functions that the text defines
}

// evaluatedAlways are variables that are integers, or code, in some shell.
var evaluatedAlways = strings.Fields("RANDOM OPTIND SECONDS COLUMNS LINES TMOUT HISTCMD HISTSIZE HISTFILESIZE SAVEHIST BASH_ARGV0 EPOCHSECONDS EPOCHREALTIME SRANDOM MAILCHECK FUNCNEST DIRSTACKSIZE KEYTIMEOUT LISTMAX ERRNO PPID UID EUID GID EGID SHLVL TRY_BLOCK_ERROR PS0 PS1 PS2 PS3 PS4 PROMPT PROMPT_COMMAND RPROMPT SPROMPT BASH_ENV ENV SHELLOPTS BASHOPTS functions aliases galiases saliases dis_functions dis_aliases options commands builtins modules nameddirs userdirs parameters precmd_functions preexec_functions chpwd_functions")

// attributes notes the variables that the text makes integers, references or
// arrays, anywhere in it, and the functions that it defines.
func (w *placer) attributes(tree *syntax.File) {
	w.evaluated, w.arrays, w.funcs = map[string]bool{}, map[string]bool{}, map[string]*syntax.Stmt{}
	for _, name := range []string{"DIRSTACK", "PIPESTATUS", "GROUPS", "BASH_REMATCH", "FUNCNAME", "BASH_ARGV", "BASH_ARGC", "BASH_SOURCE", "BASH_LINENO", "COPROC", "MAPFILE", "COMPREPLY", "BASH_ALIASES", "BASH_CMDS", "BASH_VERSINFO"} {
		w.arrays[name] = true
	}
	for _, name := range evaluatedAlways {
		w.evaluated[name] = true
	}
	syntax.Walk(tree, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Assign:
			if (n.Array != nil || n.Index != nil) && n.Name != nil {
				w.arrays[n.Name.Value] = true
			}
		case *syntax.FuncDecl:
			if n.Name != nil {
				w.funcs[n.Name.Value] = n.Body
			}
		case *syntax.DeclClause:
			letters := declLetters(n)
			for _, a := range n.Args {
				if a.Name == nil {
					continue
				}
				if strings.ContainsAny(letters, "inEF") {
					w.evaluated[a.Name.Value] = true
				}
				if strings.ContainsAny(letters, "aA") {
					w.arrays[a.Name.Value] = true
				}
			}
		case *syntax.CallExpr: // in some dialects, integer and its like are commands
			if len(n.Args) > 0 {
				switch n.Args[0].Lit() {
				case "read", "mapfile", "readarray":
					for _, a := range n.Args[1:] {
						w.arrays[a.Lit()] = true
					}
				case "integer", "float", "nameref":
					for _, a := range n.Args[1:] {
						name, _, _ := strings.Cut(a.Lit(), "=")
						w.evaluated[name] = true
					}
				}
			}
		}
		return true
	})
}

// declLetters returns the letters of the options of declare and its like.
func declLetters(n *syntax.DeclClause) string {
	letters := ""
	switch n.Variant.Value {
	case "nameref", "integer", "float":
		letters = "i"
	}
	for _, a := range n.Args {
		if !a.Naked || a.Value == nil {
			continue
		}
		switch lit := a.Value.Lit(); {
		case strings.HasPrefix(lit, "-"):
			letters += lit[1:]
		case lit == "" && !strings.Contains(wordStart(a.Value), "="):
			letters += "i" // the expansion may be any option
		}
	}
	return letters
}

func (w *placer) refuse(hole int, format string, args ...any) {
	if w.found[hole] {
		return
	}
	w.found[hole] = true
	w.errs = append(w.errs, &ShellError{Hole: hole, Msg: fmt.Sprintf(format, args...)})
}

func (w *placer) walk(n syntax.Node) {
	syntax.Walk(n, func(n syntax.Node) bool {
		if n == nil {
			w.stack = w.stack[:len(w.stack)-1]
			return true
		}
		switch n := n.(type) {
		case *syntax.Lit:
			w.holesIn(n.Value, bare)
		case *syntax.SglQuoted:
			if n.Dollar {
				w.holesIn(n.Value, inDollar)
			} else {
				w.holesIn(n.Value, inSingle)
			}
		case *syntax.Comment:
			w.stack = append(w.stack, n)
			w.holesIn(n.Text, bare)
			return true
		case *syntax.BinaryCmd:
			if (n.Op == syntax.Pipe || n.Op == syntax.PipeAll) && w.program(n.Y, false) {
				w.refuseIn(n.X, "what this prints is read as a program by the next command, so no value can stand in it; pass the value as an argument of that command")
			}
		case *syntax.Stmt:
			for _, rd := range n.Redirs {
				if feeds(rd) && w.program(n, true) {
					w.refuseIn(rd, "the command reads this as its program, so no value can stand in it; pass the value as an argument")
				}
			}
		case *syntax.Subshell:
			if inner, ok := n.Stmts[0].Cmd.(*syntax.Subshell); w.t.dialect == DialectPOSIX && ok && inner.Lparen.Offset() == n.Lparen.Offset()+1 {
				w.refuseIn(n, "where sh is bash, (( … )) is arithmetic, which would run a value as code; put a blank between the parentheses, or write shell: bash")
			}
		case *syntax.CallExpr:
			w.call(n)
		case *syntax.Redirect:
			if n.Hdoc != nil {
				w.hereDocument(n)
			}
		}
		w.stack = append(w.stack, n)
		return true
	})
}

// refuseIn refuses all holes below a node.
func (w *placer) refuseIn(n syntax.Node, why string) {
	for _, i := range w.below(n) {
		w.refuse(i, "%s", why)
	}
}

// below returns the holes below a node, without raw ones.
func (w *placer) below(n syntax.Node) (holes []int) {
	syntax.Walk(n, func(n syntax.Node) bool {
		text := ""
		switch n := n.(type) {
		case *syntax.Lit:
			text = n.Value
		case *syntax.SglQuoted:
			text = n.Value
		}
		for i := range w.t.Holes {
			if w.t.Holes[i].Kind != KindRaw && strings.Contains(text, w.t.Holes[i].name) {
				holes = append(holes, i)
			}
		}
		return true
	})
	return holes
}

// holesIn decides on the holes in a leaf of the tree, whose parents are on the
// stack.
func (w *placer) holesIn(text string, f form) {
	for rest := text; ; {
		first, at := w.first(rest)
		if first < 0 {
			return
		}
		if w.t.Holes[first].Kind != KindRaw && !w.found[first] {
			w.place(first, text, f)
		}
		rest = rest[at+len(w.t.Holes[first].name):]
	}
}

// first returns the first hole in a text and its offset, or -1 and the length of
// the text.
func (w *placer) first(text string) (hole, at int) {
	hole, at = -1, len(text)
	for i := range w.t.Holes {
		if k := strings.Index(text, w.t.Holes[i].name); k >= 0 && k < at {
			hole, at = i, k
		}
	}
	return hole, at
}

// up returns the n-th node above the leaf, counted from 1, or nil.
func (w *placer) up(n int) syntax.Node {
	if n > len(w.stack) {
		return nil
	}
	return w.stack[len(w.stack)-n]
}

// place decides on one hole in a leaf.
func (w *placer) place(i int, text string, f form) {
	h := &w.t.Holes[i]
	level := 1 // of the nodes above the leaf
	switch p := w.up(1).(type) {
	case *syntax.Comment:
		w.refuse(i, "a value in a comment does nothing, and a newline in it would end the comment; remove it")
		return
	case *syntax.ParamExp: // the leaf is the variable's name
		if !p.Short || strings.HasPrefix(text, h.name) {
			w.refuse(i, "a value cannot be the name of a variable; write the value itself, or choose among known variables with case")
			return
		}
		level = 2 // "$x" right before the value: its name ends there
	}
	switch p := w.up(level).(type) {
	case *syntax.DblQuoted:
		if p.Dollar {
			w.refuse(i, `a value in $"…" would be looked up as a translation; write "…"`)
			return
		}
		f = inDouble
		level++
	case *syntax.Word:
	case *syntax.Assign, *syntax.WordIter:
		w.refuse(i, "a value cannot be the name of a variable; write NAME=value with a name of your own")
		return
	case *syntax.ExtGlob:
		w.refuse(i, "a value in an extended pattern has no safe form; compare with == or use case")
		return
	default:
		w.refuse(i, "a value cannot be a name here; write the name itself")
		return
	}
	if at := strings.Index(text, h.name); f != inSingle && at > 0 && (len(text[:at])-len(strings.TrimRight(text[:at], `\`)))%2 == 1 {
		w.refuse(i, `a backslash right before a value would change what runs; leave it out`)
		return
	}
	word, ok := w.up(level).(*syntax.Word)
	if !ok {
		w.refuse(i, "a value here has no safe form; pass it in a variable, as in env: {VALUE: …}")
		return
	}
	splits := false // into words, with patterns and braces
	switch w.up(level + 1).(type) {
	case *syntax.CallExpr, *syntax.WordIter, *syntax.ArrayElem:
		splits = true
	}
	if f == bare && splits && w.t.dialect != DialectPOSIX && braces(word) {
		w.refuse(i, "a value in {…}, which the shell expands to several words, has no safe form; quote the braces")
		return
	}
	if f == bare && splits && w.t.dialect == DialectZsh && strings.ContainsAny(text, "(") {
		w.refuse(i, "a value in a file pattern with (…) has no safe form in zsh; quote the parentheses")
		return
	}
	whole := len(word.Parts) == 1 && f == bare && text == h.name
	h.form = f
	if !w.role(i, word, w.up(level+1), level+1, whole) {
		return
	}
	if f == bare && h.form == bare && w.quotedOutside(level+1) {
		h.form = inDouble
	}
	if w.splitOutside(level + 1) {
		p, _ := w.up(level + 1).(*syntax.ParamExp)
		sets := p.Exp != nil && (p.Exp.Op == syntax.AssignUnset || p.Exp.Op == syntax.AssignUnsetOrNull)
		if w.t.dialect == DialectEmbedded || sets && w.t.dialect != DialectZsh {
			w.refuse(i, "the shell would split the value in a ${…} without quotes; write double quotes around the whole ${…}")
			return
		}
	}
	if (h.form == inSingle || h.form == inDollar) && w.quotedOutside(level+1) {
		w.refuse(i, "a value in single quotes inside of double quotes has no form that all shells agree on; leave the inner quotes out")
		return
	}
	if w.backquotedInQuotes() {
		w.refuse(i, "a value in `…` inside of double quotes has no form that all shells agree on; write $(…)")
		return
	}
	w.found[i] = true
	end := w.marks[i] + len(h.name)
	w.edits = append(w.edits, edit{w.marks[i], end, i, ""})
	if h.form == bare && end < len(w.t.marked) && w.t.marked[end] == '#' {
		// The parser of the embedded shell takes a # right behind a quote for
		// the beginning of a comment.
		w.edits = append(w.edits, edit{end, end, -1, `\`})
	}
}

// quotedOutside reports whether the word stands in a ${x:-word} within double
// quotes or a here-document, and so needs no quotes of its own.
func (w *placer) quotedOutside(level int) bool {
	_, ok := w.up(level).(*syntax.ParamExp)
	if !ok {
		return false
	}
	for k := level + 1; k <= len(w.stack); k++ {
		switch n := w.up(k).(type) {
		case *syntax.DblQuoted:
			return true
		case *syntax.Redirect:
			return n.Hdoc != nil && w.up(k-1) == syntax.Node(n.Hdoc)
		case *syntax.CmdSubst, *syntax.Stmt:
			return false
		}
	}
	return false
}

// splitOutside reports whether the word stands in a ${x:-word} whose result is
// split into words.
func (w *placer) splitOutside(level int) bool {
	if _, ok := w.up(level).(*syntax.ParamExp); !ok {
		return false
	}
	if _, ok := w.up(level + 1).(*syntax.Word); !ok {
		return false
	}
	switch w.up(level + 2).(type) {
	case *syntax.CallExpr, *syntax.WordIter, *syntax.ArrayElem:
		return true
	}
	return w.splitOutside(level + 2)
}

// braces reports whether a word has braces without quotes that the shell expands
// to several words.
func braces(word *syntax.Word) bool {
	text := ""
	for _, p := range word.Parts {
		if lit, ok := p.(*syntax.Lit); ok {
			text += strings.ReplaceAll(lit.Value, `\{`, "")
		}
	}
	_, inside, ok := strings.Cut(text, "{")
	return ok && (strings.Contains(inside, ",") || strings.Contains(inside, ".."))
}

// backquotedInQuotes reports whether the leaf is in `…` within double quotes.
func (w *placer) backquotedInQuotes() bool {
	for k := 1; k < len(w.stack); k++ {
		if c, ok := w.up(k).(*syntax.CmdSubst); ok && c.Backquotes {
			for j := k + 1; j <= len(w.stack); j++ {
				switch n := w.up(j).(type) {
				case *syntax.DblQuoted:
					return true
				case *syntax.Redirect:
					if n.Hdoc != nil && w.up(j-1) == syntax.Node(n.Hdoc) {
						return true
					}
				}
			}
		}
	}
	return false
}

// arithmetic makes the hole one for an integer, which arithmetic reads by the name
// of its variable.
func (w *placer) arithmetic(i int, whole bool) bool {
	if !whole {
		w.refuse(i, "a value in arithmetic stands alone: as an operand without quotes, of type int")
		return false
	}
	w.t.Holes[i].Int, w.t.Holes[i].form = true, inArithm
	return true
}

// role decides by the use that the parent makes of the word. It reports whether a
// value may stand there, after it has refused one that may not.
func (w *placer) role(i int, word *syntax.Word, parent syntax.Node, level int, whole bool) bool {
	h := &w.t.Holes[i]
	switch p := parent.(type) {
	case *syntax.CallExpr:
		if len(p.Args) > 0 && p.Args[0] == word {
			w.refuse(i, "a value cannot be the name of a command; write the command itself, or use spawn with a list, where a value may be the program")
			return false
		}
		h.List = whole
	case *syntax.Assign:
		if p.Value != word {
			return w.index(i, whole) // a[…]=x
		}
		if why := w.declared(p, level); why != "" {
			w.refuse(i, "%s", why)
			return false
		}
		if p.Naked && !strings.Contains(before(word, h.name), "=") {
			w.refuse(i, "a value cannot be the name of a variable; write NAME=value with a name of your own")
			return false
		}
	case *syntax.ArrayElem:
		if p.Value != word {
			return w.index(i, whole)
		}
		h.List = whole
	case *syntax.Redirect:
		switch {
		case p.Hdoc == word:
			h.form = inDouble
		case p.Op == syntax.Hdoc || p.Op == syntax.DashHdoc:
			w.refuse(i, "a value cannot be the delimiter of a here-document; write a word such as EOF")
			return false
		case p.Op == syntax.DplIn || p.Op == syntax.DplOut:
			w.refuse(i, "a value cannot be a descriptor; write its number")
			return false
		}
	case *syntax.WordIter:
		if p.Name != nil && w.evaluated[p.Name.Value] {
			w.refuse(i, "the variable %s is evaluated when it is set; give the loop a plain variable", p.Name.Value)
			return false
		}
		h.List = whole
	case *syntax.CaseClause, *syntax.CaseItem:
	case *syntax.BinaryTest:
		return w.binaryTest(i, p, word)
	case *syntax.UnaryTest:
		switch p.Op {
		case syntax.TsVarSet, syntax.TsRefVar, syntax.TsOptSet:
			w.refuse(i, "a value cannot be the name of a variable or option, as %s expects", p.Op)
			return false
		case syntax.TsFdTerm:
			h.Int = true
		}
	case *syntax.ParenTest, *syntax.TestClause:
	case *syntax.ParamExp:
		return w.expansion(i, p, word, whole) && w.outer(i, level)
	case *syntax.ArithmExp, *syntax.ArithmCmd, *syntax.LetClause, *syntax.BinaryArithm, *syntax.UnaryArithm, *syntax.ParenArithm, *syntax.FlagsArithm, *syntax.CStyleLoop:
		return w.arithmetic(i, whole)
	default:
		w.refuse(i, "a value here has no safe form; pass it in a variable, as in env: {VALUE: …}")
		return false
	}
	return true
}

// outer decides on a value in ${x:-value}, by the use of the word around that: the
// value may become that word, or a part of it.
func (w *placer) outer(i, level int) bool {
	if w.t.Holes[i].form == inIndex || w.t.Holes[i].form == inArithm {
		return true // an index or an offset, and no value of the word
	}
	level++
	if _, ok := w.up(level).(*syntax.DblQuoted); ok {
		level++
	}
	word, ok := w.up(level).(*syntax.Word)
	if !ok {
		w.refuse(i, "a value here has no safe form; pass it in a variable, as in env: {VALUE: …}")
		return false
	}
	form := w.t.Holes[i].form
	if !w.role(i, word, w.up(level+1), level+1, false) {
		return false
	}
	w.t.Holes[i].form = form
	return true
}

// index makes the hole one for an integer in a subscript.
func (w *placer) index(i int, whole bool) bool {
	if !w.arithmetic(i, whole) {
		return false
	}
	w.t.Holes[i].form = inIndex
	return true
}

// declared says why an assignment would evaluate its value, or "".
func (w *placer) declared(a *syntax.Assign, level int) string {
	name := ""
	switch {
	case a.Name != nil:
		name = a.Name.Value
	case a.Value != nil:
		name, _, _ = strings.Cut(wordStart(a.Value), "=")
	}
	if w.evaluated[name] {
		return fmt.Sprintf("the variable %s is evaluated when it is set, and a value could be code there; use a plain variable", name)
	}
	decl, ok := w.up(level + 1).(*syntax.DeclClause)
	if !ok {
		return ""
	}
	letters := declLetters(decl)
	switch {
	case strings.ContainsAny(letters, "inEF"):
		return decl.Variant.Value + " with this option evaluates the value, which could be code; use a plain variable"
	case strings.ContainsAny(letters, "aA") && a.Array == nil || w.arrays[name] && a.Array == nil && decl.Variant.Value != "export":
		return decl.Variant.Value + " would read the value as a list of an array; write the list as (…)"
	case a.Naked && w.t.dialect == DialectEmbedded:
		return "the embedded shell expands a quoted NAME=value again; write NAME=\"value\" with the quotes behind the ="
	}
	return ""
}

// wordStart returns the constant beginning of a word.
func wordStart(word *syntax.Word) string {
	if len(word.Parts) == 0 {
		return ""
	}
	switch p := word.Parts[0].(type) {
	case *syntax.Lit:
		return p.Value
	case *syntax.SglQuoted:
		return p.Value
	case *syntax.DblQuoted:
		if len(p.Parts) > 0 {
			if lit, ok := p.Parts[0].(*syntax.Lit); ok {
				return lit.Value
			}
		}
	}
	return ""
}

// feeds reports whether a redirection gives a command its stdin.
func feeds(rd *syntax.Redirect) bool {
	switch rd.Op {
	case syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc, syntax.RdrIn:
		return rd.N == nil || rd.N.Value == "0"
	}
	return false
}

// program reports whether anything in a statement reads the stdin of the statement
// as a program. With own, that stdin is what the redirections of the statement
// give it; without, a statement with such redirections has a stdin of its own.
func (w *placer) program(st *syntax.Stmt, own bool) bool {
	found := false
	seen := map[string]bool{}
	var look func(st *syntax.Stmt, own bool)
	look = func(st *syntax.Stmt, own bool) {
		if !own && slices.ContainsFunc(st.Redirs, feeds) {
			return // it has a stdin of its own
		}
		syntax.Walk(st, func(n syntax.Node) bool {
			switch n := n.(type) {
			case *syntax.Stmt:
				if n != st {
					look(n, false)
					return false
				}
			case *syntax.CallExpr:
				args := make([]Arg, len(n.Args))
				for k, word := range n.Args {
					args[k], _ = w.arg(word)
				}
				found = found || readsProgram(args)
				if len(args) > 0 && w.funcs[args[0].Text] != nil && !seen[args[0].Text] {
					seen[args[0].Text] = true
					look(w.funcs[args[0].Text], false)
				}
			}
			return !found
		})
	}
	look(st, own)
	return found
}

func (w *placer) binaryTest(i int, p *syntax.BinaryTest, word *syntax.Word) bool {
	switch p.Op {
	case syntax.TsReMatch:
		if p.X == syntax.TestExpr(word) {
			return true
		}
		w.refuse(i, "a value after =~ would be a pattern; write == to compare with it")
		return false
	case syntax.TsEql, syntax.TsNeq, syntax.TsLeq, syntax.TsGeq, syntax.TsLss, syntax.TsGtr:
		w.t.Holes[i].Int = true
	}
	return true
}

// expansion decides on a word in ${…}.
func (w *placer) expansion(i int, p *syntax.ParamExp, word *syntax.Word, whole bool) bool {
	switch {
	case p.Exp != nil && p.Exp.Word == word:
		if p.Flags != nil {
			break // of zsh, some of which evaluate
		}
		if (p.Exp.Op == syntax.AssignUnset || p.Exp.Op == syntax.AssignUnsetOrNull) && p.Param != nil && w.evaluated[p.Param.Value] {
			w.refuse(i, "the variable %s is evaluated when it is set; use a plain one", p.Param.Value)
			return false
		}
		switch p.Exp.Op {
		case syntax.AlternateUnset, syntax.AlternateUnsetOrNull, syntax.DefaultUnset, syntax.DefaultUnsetOrNull,
			syntax.ErrorUnset, syntax.ErrorUnsetOrNull, syntax.AssignUnset, syntax.AssignUnsetOrNull:
			return true
		}
	case p.Repl != nil && (p.Repl.Orig == word || p.Repl.With == word):
	default: // an index, an offset or a length
		return w.index(i, whole)
	}
	w.refuse(i, "a value in this form of ${…} has no safe form; assign it to a variable first")
	return false
}

// before returns the constant text of a word before a mark.
func before(word *syntax.Word, mark string) string {
	var b strings.Builder
	for _, p := range word.Parts {
		text := ""
		switch p := p.(type) {
		case *syntax.Lit:
			text = p.Value
		case *syntax.SglQuoted:
			text = p.Value
		case *syntax.DblQuoted:
			for _, q := range p.Parts {
				if lit, ok := q.(*syntax.Lit); ok {
					text += lit.Value
				}
			}
		}
		if k := strings.Index(text, mark); k >= 0 {
			return b.String() + text[:k]
		}
		b.WriteString(text)
	}
	return b.String()
}

// hereDocument turns a here-document with a quoted delimiter, in which the shell
// expands nothing, into one without quotes, and escapes what the shell would
// expand there besides the values.
func (w *placer) hereDocument(r *syntax.Redirect) {
	quoted := false
	delim := ""
	for _, p := range r.Word.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			quoted = quoted || strings.Contains(p.Value, `\`)
			delim += strings.ReplaceAll(p.Value, `\`, "")
		case *syntax.SglQuoted:
			quoted = true
			delim += p.Value
		case *syntax.DblQuoted:
			quoted = true
			for _, q := range p.Parts {
				if lit, ok := q.(*syntax.Lit); ok {
					delim += lit.Value
				}
			}
		}
	}
	body := w.t.marked[r.Hdoc.Pos().Offset():r.Hdoc.End().Offset()]
	holes, raws := false, false
	for i := range w.t.Holes {
		in := strings.Contains(body, w.t.Holes[i].name)
		holes = holes || in && w.t.Holes[i].Kind != KindRaw
		raws = raws || in && w.t.Holes[i].Kind == KindRaw
	}
	if !quoted || !holes {
		return
	}
	if raws {
		for i := range w.t.Holes {
			if strings.Contains(body, w.t.Holes[i].name) {
				w.refuse(i, "values and raw() in one here-document with a quoted delimiter have no form together; use two")
			}
		}
		return
	}
	for _, c := range delim {
		if c != '_' && c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			for i := range w.t.Holes {
				if strings.Contains(body, w.t.Holes[i].name) {
					w.refuse(i, "a value in a here-document needs a delimiter of letters, such as EOF")
				}
			}
			return
		}
	}
	w.edits = append(w.edits, edit{int(r.Word.Pos().Offset()), int(r.Word.End().Offset()), -1, delim})
	from := int(r.Hdoc.Pos().Offset())
	for k := 0; k < len(body); k++ {
		if c := body[k]; c == '$' || c == '`' || c == '\\' {
			w.edits = append(w.edits, edit{from + k, from + k, -1, `\`})
		}
	}
}

// call looks at what a command makes of its arguments.
func (w *placer) call(c *syntax.CallExpr) {
	if len(c.Args) == 0 {
		return
	}
	args := make([]Arg, len(c.Args))
	holes := make([][]int, len(c.Args))
	for k, word := range c.Args {
		args[k], holes[k] = w.arg(word)
	}
	name := programName(args[0].Text)
	_, wraps := wrappers[name]
	_, function := w.funcs[name]
	if wraps || function || args[0].Unknown || interpreter(name) != "" || slices.Contains(elsewhere, name) || name == "env" || name == "find" || name == "fd" || name == "test" || name == "[" || name == "parallel" || name == "watch" || name == "script" {
		for _, list := range holes {
			for _, i := range list {
				w.t.Holes[i].Single = true
			}
		}
		for _, word := range c.Args { // bash <(…)
			for _, p := range word.Parts {
				if ps, ok := p.(*syntax.ProcSubst); ok && name != "test" && name != "[" {
					w.refuseIn(ps, "what this prints is read as a program, so no value can stand in it; pass the value as an argument")
				}
			}
		}
	}
	if w.t.dialect == DialectPOSIX && name == "[[" {
		w.refuseIn(c, "[[ is not of every sh, and where it is it may evaluate a value; write [ … ], or shell: bash")
	}
	refuse := func(k int, format string, a ...any) {
		if k >= len(holes) {
			return
		}
		for _, i := range holes[k] {
			w.refuse(i, format, a...)
		}
	}
	for range args { // there may be several
		at, why := scan{strict: true}.program(args, 0, 0)
		if at < 0 && function {
			at, why = scan{strict: true}.elsewhere(args, 0, 0)
		}
		if at < 0 {
			break
		}
		refuse(at, "%s", why)
		args[at].Dynamic = false
	}
	for k, word := range c.Args { // as they were
		args[k], _ = w.arg(word)
	}
	for len(args) > 1 && slices.Contains(prefixes, args[0].Text) {
		skip := 1
		for skip < len(args)-1 && strings.HasPrefix(args[skip].Text, "-") && !args[skip].Dynamic {
			skip++
		}
		args, holes = args[skip:], holes[skip:]
	}
	w.builtin(args, refuse)
}

// prefixes are words before a command that the shell itself still runs.
var prefixes = []string{"command", "builtin", "exec", "noglob", "nocorrect", "-"}

// builtin looks at what a command of the shell itself makes of its arguments.
func (w *placer) builtin(args []Arg, refuse func(int, string, ...any)) {
	ints := w.t.dialect == DialectMksh || w.t.dialect == DialectZsh
	switch name := args[0].Text; name {
	case "eval", "source", ".", "alias", "trap":
		for k := range args {
			refuse(k, "%s reads its arguments as shell text again, so no value can stand in them; pass it in a variable", name)
		}
	case "printf":
		k := 1
		if k < len(args) && strings.HasPrefix(args[k].Text, "-v") {
			refuse(k, "a value cannot be the name of a variable; write a name of your own")
			if args[k].Text == "-v" {
				k++
				refuse(k, "a value cannot be the name of a variable; write a name of your own")
			}
			k++
		}
		if k < len(args) && args[k].Text == "--" && !args[k].Dynamic {
			k++
		}
		refuse(k, "a value cannot stand in the format of printf; write printf '%%s' and the value")
		if w.t.dialect == DialectZsh && k < len(args) && strings.Trim(args[k].Text, "%s<>[] \\n") != "" && !strings.Contains(strings.ReplaceAll(args[k].Text, "%%", ""), "%s") {
			for j := k + 1; j < len(args); j++ {
				refuse(j, "printf of zsh evaluates numbers, and a value could be code there; write %%s")
			}
		}
	case "print":
		for k := 1; w.t.dialect == DialectZsh && k < len(args); k++ {
			if t := args[k].Text; !args[k].Dynamic && (t == "--" || t == "-" || !strings.HasPrefix(t, "-")) {
				break
			}
			if args[k].Text == "" || strings.HasPrefix(args[k].Text, "-") {
				refuse(k, "a value that begins with - is an option of print, which can evaluate; write print -r -- before it")
			}
		}
	case "shift", "exit", "return", "break", "continue", "ulimit", "repeat":
		for k := range args[1:] {
			if ints {
				refuse(k+1, "this shell evaluates the argument of %s, and a value could be code there; check it with case first", name)
			}
		}
	case "read", "unset", "getopts", "mapfile", "readarray", "let", "integer", "float", "nameref", "vared", "zparseopts":
		for k := range args[1:] {
			if o := args[k].Text; name == "read" && !args[k].Dynamic && len(o) > 1 && o[0] == '-' && strings.ContainsAny(o[len(o)-1:], "ptdnN") {
				continue
			}
			refuse(k+1, "%s takes names of variables, which a value cannot be; write a name of your own", name)
		}
	case "export", "readonly", "local", "declare", "typeset":
		risky := slices.ContainsFunc(args[1:], func(a Arg) bool {
			return a.Unknown && a.Text == "" || len(a.Text) > 1 && a.Text[0] == '-' && strings.ContainsAny(a.Text, "inEFaA")
		})
		for k := range args[1:] {
			if n, _, _ := strings.Cut(args[k+1].Text, "="); name != "export" && (risky || w.evaluated[n] || w.arrays[n]) || w.evaluated[n] {
				refuse(k+1, "%s may evaluate the value here, which could be code; use a plain variable", name)
			}
			if !strings.Contains(args[k+1].Text, "=") {
				refuse(k+1, "a value cannot be the name of a variable; write NAME=value with a name of your own")
			}
		}
	case "set", "shopt", "enable", "bind", "complete", "compgen", "fc", "hash", "setopt", "unsetopt", "emulate", "zmodload", "autoload", "zstyle", "compdef", "functions":
		for k := range args[1:] {
			if args[k+1].Text == "--" && !args[k+1].Dynamic {
				break
			}
			refuse(k+1, "a value could change how the shell works here; write %s -- before it", name)
		}
	case "test", "[":
		w.test(args, refuse)
	}
}

// test refuses values that test would take for an operator, and values that an
// operator evaluates.
func (w *placer) test(args []Arg, refuse func(int, string, ...any)) {
	operands := args[1:]
	if args[0].Text == "[" && len(operands) > 0 && operands[len(operands)-1].Text == "]" {
		operands = operands[:len(operands)-1]
	}
	ints := w.t.dialect == DialectMksh || w.t.dialect == DialectZsh
	for k, a := range operands {
		if !a.Dynamic && ints {
			switch a.Text {
			case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
				refuse(k, "this shell evaluates numbers in test, and a value could be code there; write [[ … ]] with a value of type int")
				refuse(k+2, "this shell evaluates numbers in test, and a value could be code there; write [[ … ]] with a value of type int")
			case "-t":
				refuse(k+2, "this shell evaluates the number, and a value could be code there; write the number")
			}
		}
		boundary := k == 0 || !operands[k-1].Dynamic && (operands[k-1].Text == "!" || operands[k-1].Text == "-a" || operands[k-1].Text == "-o" || operands[k-1].Text == "(")
		if !a.Dynamic {
			if boundary && (a.Text == "-v" || a.Text == "-R") && k+1 < len(operands) {
				refuse(k+2, "a value cannot be the name of a variable, as %s expects", a.Text)
			}
			continue
		}
		if k > 0 && operands[k-1].Unknown && operands[k-1].Text == "" && (k == 1 || operands[k-2].Text == "!" || operands[k-2].Text == "-a" || operands[k-2].Text == "-o") && (k+1 == len(operands)) {
			refuse(k+1, "the word before may be an operator that evaluates the value; write the operator, as in = or -n")
		}
		// In "[ VALUE x ]" test reads the value as an operator.
		next := len(operands) - k
		if boundary && a.Text == "" && next == 2 {
			refuse(k+1, "test would take the value for an operator here; write [ \"x${{ … }}\" = \"x…\" ] or [[ … ]]")
		}
	}
}

// arg returns a word as [ProgramText] sees it, and the holes in it.
func (w *placer) arg(word *syntax.Word) (Arg, []int) {
	var a Arg
	var holes []int
	var text strings.Builder
	constant := true
	add := func(s string, quoted bool) {
		for s != "" {
			first, at := w.first(s)
			if constant {
				part := s[:at]
				if !quoted {
					part = strings.ReplaceAll(part, `\`, "")
				}
				text.WriteString(part)
			}
			if first < 0 {
				return
			}
			if w.t.Holes[first].Kind == KindRaw {
				a.Unknown = true // the author answers for what it holds
			} else {
				holes = append(holes, first)
			}
			constant = false
			s = s[at+len(w.t.Holes[first].name):]
		}
	}
	var part func(p syntax.WordPart, quoted bool)
	part = func(p syntax.WordPart, quoted bool) {
		switch p := p.(type) {
		case *syntax.Lit:
			add(p.Value, quoted)
		case *syntax.SglQuoted:
			a.Unknown = a.Unknown || p.Dollar && strings.Contains(p.Value, `\`)
			add(p.Value, true)
		case *syntax.DblQuoted:
			for _, q := range p.Parts {
				part(q, true)
			}
		default:
			a.Unknown = true
			// The value of an expansion is not known. A value inside it, as in
			// $(…), counts as one of this argument.
			constant = false
			holes = append(holes, w.below(p)...)
		}
	}
	for _, p := range word.Parts {
		part(p, false)
	}
	a.Text, a.Dynamic = text.String(), len(holes) > 0
	if a.Unknown {
		a.Vanish, a.Solid = w.vanishes(word)
	}
	if len(holes) > 0 {
		a.NoDash = w.t.Holes[holes[0]].Kind == KindNoDash
	}
	return a, holes
}

// vanishes reports whether a word may come to no word at all, and whether it is
// a path for sure, as in "$DIR/tool".
func (w *placer) vanishes(word *syntax.Word) (vanish, solid bool) {
	vanish = true
	var part func(p syntax.WordPart, quoted bool)
	part = func(p syntax.WordPart, quoted bool) {
		switch p := p.(type) {
		case *syntax.Lit:
			vanish = false
			solid = solid || strings.Contains(p.Value, "/")
		case *syntax.SglQuoted:
			vanish = false
		case *syntax.DblQuoted:
			if len(p.Parts) != 1 { // "$@" may be no word; "" is one
				vanish = false
			}
			for _, q := range p.Parts {
				part(q, true)
			}
		case *syntax.ParamExp:
			all := p.Param != nil && p.Param.Value == "@" || p.Index != nil
			if quoted && !all || p.Exp != nil && p.Exp.Word != nil && (p.Exp.Op == syntax.DefaultUnsetOrNull || p.Exp.Op == syntax.AssignUnsetOrNull) {
				vanish = false
			}
		default:
			if quoted {
				vanish = false
			}
		}
	}
	for _, p := range word.Parts {
		part(p, false)
	}
	return vanish, solid
}
