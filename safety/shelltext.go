package safety

import (
	"errors"
	"slices"
	"sort"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Dialect is the language that a shell reads.
type Dialect uint8

// The dialects. The zero value is that of the embedded shell, which reads bash
// with a few faults of its own.
const (
	DialectEmbedded Dialect = iota
	DialectBash
	DialectPOSIX
	DialectMksh
	DialectZsh
)

func (d Dialect) variant() syntax.LangVariant {
	switch d {
	case DialectPOSIX:
		return syntax.LangPOSIX
	case DialectMksh:
		return syntax.LangMirBSDKorn
	case DialectZsh:
		return syntax.LangZsh
	}
	return syntax.LangBash
}

// DialectOf returns the dialect of a shell by its path or name. "builtin" is the
// embedded shell; a shell that is not known counts as a POSIX shell.
func DialectOf(shell string) Dialect {
	switch programName(shell) {
	case "builtin":
		return DialectEmbedded
	case "bash":
		return DialectBash
	case "mksh", "ksh", "lksh", "ksh93":
		return DialectMksh
	case "zsh":
		return DialectZsh
	}
	return DialectPOSIX
}

// Kind is what is known about a value before there is one.
type Kind uint8

// The kinds of values.
const (
	KindAny    Kind = iota
	KindNoDash      // its text never begins with a dash
	KindRaw         // it becomes part of the text as it is, whatever that does
)

// Hole is the place of one value in shell text.
type Hole struct {
	Kind Kind
	// Int says that the place, in arithmetic, is safe for an integer only.
	Int bool
	// List says that a list becomes as many words as it has elements. Single
	// says that a list is refused, because several words would change what the
	// command makes of its other words.
	List, Single bool

	name string
	form form
}

// form is the way in which a reference is written at a place.
type form uint8

const (
	bare      form = iota // "${V}"
	inDouble              // ${V}: in double quotes or a here-document
	inSingle              // '"${V}"'
	inDollar              // '"${V}"$'
	inArithm              // V: arithmetic reads a variable by its name
	inIndex               // $((V)): a subscript may be a key, which is text
	pastedRaw             // the value itself
)

// ShellText is parsed shell text with holes; [ParseShell] makes one. It does not
// change, and several goroutines may use it at once.
//
// The text is parsed with a mark for each value. The syntax tree tells where the
// marks stand, and the text that runs has a reference to a variable in each of
// these places. No value is ever part of the text.
type ShellText struct {
	Holes []Hole

	tree    *syntax.File // of the marked text
	marked  string
	source  string
	edits   []edit
	shifts  []shift
	dialect Dialect
}

// edit replaces bytes of the marked text: by the reference of a hole, or, where
// hole is negative, by text.
type edit struct {
	start, end int
	hole       int
	text       string
}

// shift relates an offset of the marked text to one of the source.
type shift struct{ marked, source int }

// Place is a place in the source of shell text: the pieces and holes that
// [ParseShell] was given, put together.
type Place struct {
	Offset    int // in bytes, from 0
	Line, Col int // from 1; the column is in bytes. Both 0: the text as a whole
}

// ShellError is one thing that is wrong in shell text.
type ShellError struct {
	Hole  int   // the hole that it is about, or -1
	Place Place // of an error that is not about a hole
	Msg   string
}

// Error returns the message.
func (e *ShellError) Error() string { return e.Msg }

// ParseShell parses shell text that has a hole between each two pieces. holes are
// the expressions as they stand in the source, with their braces; places are
// counted in the source. kinds has what is known about each value. The error is a
// [*ShellError], or several of them joined by [errors.Join].
func ParseShell(pieces, holes []string, kinds []Kind, d Dialect) (*ShellText, error) {
	t := &ShellText{dialect: d, Holes: make([]Hole, len(holes))}
	prefix := "pipe_v"
	for all := strings.Join(pieces, "\x00"); strings.Contains(all, prefix); {
		prefix += "_"
	}
	var b, source strings.Builder
	marks := make([]int, len(holes))
	for i, piece := range pieces {
		b.WriteString(piece)
		source.WriteString(piece)
		if i == len(holes) {
			break
		}
		// Digits and a closing underscore, so that no mark begins another.
		t.Holes[i] = Hole{Kind: kinds[i], name: prefix + strconv.Itoa(i) + "_"}
		marks[i] = b.Len()
		b.WriteString(t.Holes[i].name)
		source.WriteString(holes[i])
		t.shifts = append(t.shifts, shift{b.Len(), source.Len()})
	}
	t.source = source.String()
	if err := t.limit(); err != nil {
		return nil, err
	}
	t.marked = b.String()
	tree, err := syntax.NewParser(syntax.Variant(d.variant()), syntax.KeepComments(true)).Parse(strings.NewReader(t.marked), "")
	if err != nil {
		return nil, t.syntaxError(err)
	}
	t.tree = tree
	w := &placer{t: t, marks: marks, found: make([]bool, len(holes))}
	w.attributes(tree)
	w.walk(tree)
	for i := range holes {
		if t.Holes[i].Kind == KindRaw {
			t.Holes[i].form = pastedRaw
			w.edits = append(w.edits, edit{marks[i], marks[i] + len(t.Holes[i].name), i, ""})
		} else if !w.found[i] {
			w.refuse(i, "a value here has no safe form; pass it in a variable, as in env: {VALUE: …}")
		}
	}
	if w.errs != nil {
		return nil, errors.Join(w.errs...)
	}
	sort.Slice(w.edits, func(i, j int) bool { return w.edits[i].start < w.edits[j].start })
	t.edits = w.edits
	return t, nil
}

func (t *ShellText) syntaxError(err error) error {
	var pe syntax.ParseError
	if errors.As(err, &pe) {
		return &ShellError{-1, t.place(pe.Pos), t.unmark(pe.Text)}
	}
	var le syntax.LangError
	if errors.As(err, &le) {
		at := t.place(le.Pos)
		le.Filename, le.Pos = "", syntax.Pos{}
		return &ShellError{-1, at, t.unmark(strings.TrimLeft(le.Error(), "0123456789?-: "))}
	}
	return &ShellError{Hole: -1, Msg: err.Error()}
}

// unmark makes a message of the parser one about the source.
func (t *ShellText) unmark(msg string) string {
	for _, h := range t.Holes {
		msg = strings.ReplaceAll(msg, h.name, "${{ … }}")
	}
	return msg
}

// place turns a position in the tree into one in the source.
func (t *ShellText) place(p syntax.Pos) Place {
	off := min(int(p.Offset()), len(t.marked))
	for _, s := range slices.Backward(t.shifts) {
		if s.marked <= off {
			off += s.source - s.marked
			break
		}
	}
	before := t.source[:min(off, len(t.source))]
	return Place{len(before), strings.Count(before, "\n") + 1, len(before) - strings.LastIndexByte(before, '\n')}
}

// Var is a variable that bound text reads. Whoever runs the text must set it, and
// not export it.
type Var struct{ Name, Value string }

// Value is what fills a hole.
type Value struct {
	Text string   // the value as text, also of a list
	List []string // the elements of a list; nil: the value is no list
	Int  bool     // the value is an integer
}

// Bind returns the text to run, with a reference to a variable in each hole, and
// the variables that it reads. There must be one value for each hole. Of the
// values, only raw ones and the lengths of lists change the text. The error is a
// [*ShellError] about a hole.
func (t *ShellText) Bind(values []Value) (text string, vars []Var, err error) {
	var b strings.Builder
	at := 0
	set := map[string]bool{}
	variable := func(name, value string) {
		if !set[name] {
			set[name] = true
			vars = append(vars, Var{name, value})
		}
	}
	for _, e := range t.edits {
		b.WriteString(t.marked[at:e.start])
		at = e.end
		if e.hole < 0 {
			b.WriteString(e.text)
			continue
		}
		h, v := &t.Holes[e.hole], values[e.hole]
		if strings.IndexByte(v.Text, 0) >= 0 {
			return "", nil, &ShellError{Hole: e.hole, Msg: "the value holds a NUL byte, which no shell can"}
		}
		switch {
		case h.form == pastedRaw:
			b.WriteString(v.Text)
			continue
		case h.Int && !v.Int:
			return "", nil, &ShellError{Hole: e.hole, Msg: "the value stands in arithmetic, which would run text as code; give it the type int, or write int(…)"}
		case h.Single && v.List != nil:
			return "", nil, &ShellError{Hole: e.hole, Msg: "a list would change what this command makes of its other words; write a for loop over it, or one element"}
		case h.List && v.List != nil:
			for i, item := range v.List {
				if strings.IndexByte(item, 0) >= 0 {
					return "", nil, &ShellError{Hole: e.hole, Msg: "the value holds a NUL byte, which no shell can"}
				}
				name := h.name + strconv.Itoa(i)
				variable(name, item)
				if i > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(`"${` + name + `}"`)
			}
			continue
		}
		variable(h.name, v.Text)
		b.WriteString(h.form.reference(h.name))
	}
	b.WriteString(t.marked[at:])
	return b.String(), vars, nil
}

func (f form) reference(name string) string {
	switch f {
	case inDouble:
		return "${" + name + "}"
	case inSingle:
		return `'"${` + name + `}"'`
	case inDollar:
		return `'"${` + name + `}"$'`
	case inArithm:
		return name
	case inIndex:
		return "$((" + name + "))"
	}
	return `"${` + name + `}"`
}

// Assignments returns shell text, the same for every dialect, that sets the
// variables. It goes before the text that reads them.
func Assignments(vars []Var) string {
	var b strings.Builder
	for _, v := range vars {
		b.WriteString(v.Name + "='" + strings.ReplaceAll(v.Value, "'", `'\''`) + "'; ")
	}
	return b.String()
}
