package pipeline

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Template is a string that may hold expressions; [Literal] and [NewTemplate]
// make one. The zero value is the empty string, and counts as not set where a
// key may be left out.
type Template struct {
	src  string    // as written
	tmpl *template // nil: src is the value
}

type template struct {
	lits    []string // one more than exprs, or only one
	exprs   []*Expr
	sources []string       // of the exprs, with their braces
	escapes []int          // where src has a $ that lits do not
	err     *templateError // what is wrong; nil: nothing
}

// The beginning of an expression, and what is said of one without an end.
const (
	exprOpen = "${{"
	unclosed = "${{ has no closing }}; write $${{ for the three characters themselves"
)

// Literal returns a template that stands for s itself, whatever s holds.
func Literal(s string) Template { return Template{src: s} }

// NewTemplate returns the template that s is when it stands in a file: text
// with ${{ expressions }} in it. Errors in it are found by [Pipeline.Check].
func NewTemplate(s string) Template { return parseTemplate(s, nil) }

// String returns the template as it was written.
func (t Template) String() string { return t.src }

// IsZero reports whether the template is empty, which is to say not set.
func (t Template) IsZero() bool { return t.src == "" }

// HasExpr reports whether the value depends on an expression.
func (t Template) HasExpr() bool { return t.tmpl != nil && len(t.tmpl.exprs) > 0 }

// Dynamic reports whether the template holds a value that is not raw().
func (t Template) Dynamic() bool {
	return slices.ContainsFunc(t.exprs(), func(e *Expr) bool { return !e.raw })
}

// ReadsSteps reports whether the value depends on the result of a step.
func (t Template) ReadsSteps() bool {
	return slices.ContainsFunc(t.exprs(), func(e *Expr) bool { return len(e.steps) > 0 })
}

// exprs returns the expressions of the template, in order.
func (t Template) exprs() []*Expr {
	if t.tmpl == nil {
		return nil
	}
	return t.tmpl.exprs
}

// start returns the text before the first expression.
func (t Template) start() string {
	if t.tmpl == nil || t.tmpl.err != nil {
		return t.src
	}
	return t.tmpl.lits[0]
}

// pos returns the place of the first expression.
func (t Template) pos() Pos {
	if !t.HasExpr() {
		return Pos{}
	}
	return t.tmpl.exprs[0].pos()
}

// templateError is what is wrong with the text of a template.
type templateError struct {
	origin *origin
	off    int
	msg    string
}

// Error returns the message.
func (e *templateError) Error() string { return e.msg }

// parseTemplate splits s, which stands at from, at its ${{ … }}. What is wrong
// with it is kept in the template.
func parseTemplate(s string, from *origin) Template {
	if !strings.Contains(s, exprOpen) {
		return Template{src: s}
	}
	t := &template{}
	bad := func(off int, msg string) Template {
		return Template{src: s, tmpl: &template{err: &templateError{from, off, msg}}}
	}
	var lit strings.Builder
	at := 0
	for {
		i := strings.Index(s[at:], exprOpen)
		if i < 0 {
			break
		}
		start := at + i
		body := start + len(exprOpen)
		if i > 0 && s[start-1] == '$' { // $${{ is a literal ${{
			lit.WriteString(s[at:start-1] + exprOpen)
			t.escapes = append(t.escapes, start-1)
			at = body
			continue
		}
		end := exprEnd(s[body:])
		if end < 0 {
			return bad(start, unclosed)
		}
		src := strings.TrimSpace(s[body : body+end])
		if src == "" {
			return bad(start, "${{ }} is empty; it takes an expression such as params.name")
		}
		lit.WriteString(s[at:start])
		at = body + end + len("}}")
		t.lits = append(t.lits, lit.String())
		lit.Reset()
		t.exprs = append(t.exprs, &Expr{src: src, origin: from, off: start})
		t.sources = append(t.sources, s[start:at])
	}
	lit.WriteString(s[at:])
	t.lits = append(t.lits, lit.String())
	return Template{src: s, tmpl: t}
}

// written turns an offset in the text without the escapes of braces into one in
// the text as it was written.
func (t *template) written(off int) int {
	n := 0
	for _, e := range t.escapes {
		if off+n >= e {
			n++
		}
	}
	return off + n
}

// exprEnd finds the }} that ends an expression; one inside a string of the
// expression, or that closes a map in it, does not count.
func exprEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\'', '`':
			for i++; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' && c != '`' {
					i++
				}
			}
		case '{':
			depth++
		case '}':
			if depth > 0 {
				depth--
			} else if i+1 < len(s) && s[i+1] == '}' {
				return i
			}
		}
	}
	return -1
}

// Eval returns the text of the template. A NUL byte in it is an error.
func (t Template) Eval(v *Vars) (string, error) {
	if t.tmpl == nil {
		return t.src, nil
	}
	text, err := t.join(v, func(_ *Expr, text string) string { return text })
	if err == nil && strings.ContainsRune(text, 0) {
		err = fmt.Errorf("%s: the value holds a NUL byte, which no argument, variable or path can", t.src)
	}
	if err != nil {
		return "", err
	}
	return text, nil
}

// join puts the text of each expression, as shape changes it, between the
// literal pieces.
func (t Template) join(v *Vars, shape func(*Expr, string) string) (string, error) {
	if t.tmpl.err != nil {
		return "", t.tmpl.err
	}
	var b strings.Builder
	for i, e := range t.tmpl.exprs {
		val, err := e.Eval(v)
		if err != nil {
			return "", err
		}
		text, err := Text(val)
		if err != nil {
			return "", fmt.Errorf("${{ %s }}: %w", e.src, err)
		}
		b.WriteString(t.tmpl.lits[i])
		b.WriteString(shape(e, text))
	}
	b.WriteString(t.tmpl.lits[len(t.tmpl.exprs)])
	return b.String(), nil
}

// alone returns the expression that is all of the template, or nil.
func (t Template) alone() *Expr {
	if e := t.exprs(); len(e) == 1 && t.tmpl.lits[0] == "" && t.tmpl.lits[1] == "" {
		return e[0]
	}
	return nil
}

// EvalArgs returns the arguments that the template stands for: one, or, where
// it is nothing but one expression with a list as value, as many as the list.
func (t Template) EvalArgs(v *Vars) ([]string, error) {
	e := t.alone()
	if e == nil {
		s, err := t.Eval(v)
		return []string{s}, err
	}
	val, err := e.Eval(v)
	if err != nil {
		return nil, err
	}
	items, ok := listOf(val)
	if !ok {
		items = []any{val}
	}
	out := make([]string, 0, len(items))
	for _, it := range items {
		s, err := Text(it)
		if err == nil && strings.ContainsRune(s, 0) {
			err = errors.New("the value holds a NUL byte, which no argument can")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.src, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// EvalGlob returns the patterns that the template stands for: one, or as many
// as a list that is all of it has. What is written is a pattern; a value in it
// is not, unless it is raw().
func (t Template) EvalGlob(v *Vars) ([]string, error) {
	shape := func(e *Expr, text string) string {
		if e.raw {
			return text
		}
		return EscapePattern(text)
	}
	if e := t.alone(); e != nil {
		words, err := t.EvalArgs(v)
		for i, w := range words {
			words[i] = shape(e, w)
		}
		return words, err
	}
	if t.tmpl == nil {
		return []string{t.src}, nil
	}
	word, err := t.join(v, shape)
	if err == nil && strings.ContainsRune(word, 0) {
		err = fmt.Errorf("%s: the value holds a NUL byte, which no path can", t.src)
	}
	if err != nil {
		return nil, err
	}
	return []string{word}, nil
}

// literals returns the template with something harmless for each expression.
func (t Template) literals() string {
	if t.tmpl == nil {
		return t.src
	}
	return strings.Join(t.tmpl.lits, "x")
}

// EscapePattern makes text stand for itself in a pattern of files.
func EscapePattern(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`, `}`, `\}`).Replace(s)
}

// listOf returns the elements of a list.
func listOf(val any) ([]any, bool) {
	switch val := val.(type) {
	case []string:
		items := make([]any, len(val))
		for i, s := range val {
			items[i] = s
		}
		return items, true
	case []any:
		return val, true
	case nil:
		return nil, false
	}
	v := reflect.ValueOf(val) // a range is a list of ints
	if v.Kind() != reflect.Slice {
		return nil, false
	}
	items := make([]any, v.Len())
	for i := range items {
		items[i] = v.Index(i).Interface()
	}
	return items, true
}
