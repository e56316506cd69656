package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/alessio/shellescape"
	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// maxExpr bounds the text of one expression, in bytes: the parser recurses.
const maxExpr = 16 << 10

// MaxStepOutput is how many bytes of a step's output an expression may read.
const MaxStepOutput = 16 << 20

// Expr is one expression. Its zero value is empty, which [Pipeline.Check]
// refuses; see [NewExpr].
type Expr struct {
	src    string
	origin *origin
	off    int // where it begins in the text that origin is of
	prog   *vm.Program
	steps  []string // the steps it reads
	cond   bool     // an if: may call success() and its like
	status bool     // calls one of those
	always bool     // calls one that lets a step run after a failure
	raw    bool     // is a call of raw()
}

// NewExpr returns an expression, with or without ${{ }} around it. Errors in it
// are found by [Pipeline.Check].
func NewExpr(s string) *Expr { return &Expr{src: stripBraces(s)} }

// pos returns the place of the expression in a file.
func (e *Expr) pos() Pos { return e.origin.at(e.off) }

// stripBraces takes the ${{ }} from around an expression that may have them.
func stripBraces(s string) string {
	t := strings.TrimSpace(s)
	if strings.HasPrefix(t, exprOpen) {
		if end := exprEnd(t[len(exprOpen):]); end >= 0 && strings.TrimSpace(t[len(exprOpen)+end+2:]) == "" {
			return strings.TrimSpace(t[len(exprOpen) : len(exprOpen)+end])
		}
	}
	return t
}

// String returns the expression as it was written, without ${{ }}.
func (e *Expr) String() string { return e.src }

// RunsAfterFailure reports whether the expression calls always(), failure() or
// cancelled(), which make a step run where others no longer start.
func (e *Expr) RunsAfterFailure() bool { return e != nil && e.always }

// CallsStatus reports whether the expression calls success(), failure(),
// always() or cancelled(); where it does not, it is ANDed with success().
func (e *Expr) CallsStatus() bool { return e != nil && e.status }

// Vars are the values that expressions read. The zero value has none.
type Vars struct {
	Params   map[string]any
	Args     []string
	Env      map[string]string
	Steps    func(name string) (map[string]any, error) // one finished step
	Matrix   map[string]any                            // of the instance at hand
	Item     any                                       // of the instance at hand
	Pipeline map[string]any
	Dir      string                 // what glob is relative to
	Visible  func(path string) bool // whether glob may find it; nil: anything
	// What the four functions of an if return; nil outside of one.
	Success, Failure, Cancelled func() bool
}

// statusFuncs are the functions that only an if may call.
var statusFuncs = []string{"success", "failure", "always", "cancelled"}

// roots are the names of values; functions are the names of our own functions.
var (
	roots     = []string{"params", "args", "env", "steps", "pipeline", "host"}
	functions = []string{"lines", "fromJSON", "toJSON", "quote", "glob", "raw"}

	pipelineFields = []string{"name", "file", "dir", "runId"}
	hostFields     = []string{"os", "arch", "cpus"}
	runFields      = []string{"outputs", "exitCode", "signal", "status", "reason", "duration"}
	expandedFields = []string{"each", "exitCode", "signal", "status", "reason", "duration"}
	stepFields     = []string{"stdout", "stderr", "exitCode", "signal", "status", "reason", "duration", "stages", "job"}
)

var hostValues = map[string]any{"os": runtime.GOOS, "arch": runtime.GOARCH, "cpus": runtime.NumCPU()}

// env builds the map that expr-lang reads; steps are those the expression names.
func (v *Vars) env(e *Expr) (map[string]any, error) {
	m := map[string]any{
		"params": v.Params, "args": v.Args, "env": v.Env, "pipeline": v.Pipeline, "host": hostValues,
		"lines": exprLines,
		"quote": exprQuote,
		"raw":   exprRaw,
		"glob":  func(pattern string) ([]string, error) { return exprGlob(v.Dir, pattern, v.Visible) },
	}
	steps := make(map[string]any, len(e.steps))
	for _, name := range e.steps {
		s, err := v.Steps(name)
		if err != nil {
			return nil, err
		}
		steps[name] = s
	}
	m["steps"], m["matrix"], m["item"] = steps, v.Matrix, v.Item
	if e.cond {
		m["success"], m["failure"], m["cancelled"] = v.Success, v.Failure, v.Cancelled
		m["always"] = func() bool { return true }
	}
	return m, nil
}

func exprLines(text string) []string {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return []string{}
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	return lines
}

func exprQuote(v any) (string, error) {
	s, err := Text(v)
	if err != nil {
		return "", err
	}
	if strings.ContainsRune(s, 0) {
		return "", errors.New("quote: the value holds a NUL byte, which no command line can")
	}
	return shellescape.Quote(s), nil
}

// rawText is what raw() returns: text that opts out of all protection.
type rawText string

func exprRaw(v any) (rawText, error) {
	s, err := Text(v)
	return rawText(s), err
}

func exprGlob(dir, pattern string, visible func(string) bool) ([]string, error) {
	full := pattern
	if !filepath.IsAbs(pattern) {
		full = filepath.Join(escapeGlob(dir), pattern)
	}
	found, err := filepath.Glob(full)
	if err != nil {
		return nil, fmt.Errorf("glob: %q is not a pattern: %w", pattern, err)
	}
	if visible != nil {
		found = slices.DeleteFunc(found, func(f string) bool { return !visible(f) })
	}
	for i, f := range found {
		if !filepath.IsAbs(pattern) {
			if rel, err := filepath.Rel(dir, f); err == nil {
				found[i] = rel
			}
		}
	}
	sort.Strings(found)
	if found == nil {
		found = []string{}
	}
	return found, nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// Text returns a value of an expression as it stands in text: strings as they
// are, integers without exponent, bools as true and false, lists and maps as
// JSON. A null is an error.
func Text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("the expression is null, which has no text")
	case string:
		return v, nil
	case rawText:
		return string(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1e15 {
			return strconv.FormatFloat(v, 'f', -1, 64), nil
		}
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("the expression has no text: %w", err)
	}
	return string(b), nil
}

// Eval returns the value of the expression.
func (e *Expr) Eval(v *Vars) (any, error) {
	env, err := v.env(e)
	if err != nil {
		return nil, fmt.Errorf("${{ %s }}: %w", e.src, err)
	}
	out, err := expr.Run(e.prog, env)
	if err != nil {
		return nil, fmt.Errorf("${{ %s }}: %s", e.src, exprMessage(err))
	}
	return out, nil
}

// Bool returns the value of a condition; anything but a bool is an error.
func (e *Expr) Bool(v *Vars) (bool, error) {
	out, err := e.Eval(v)
	if err != nil {
		return false, err
	}
	b, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("${{ %s }}: is %T, expected true or false; compare it, as in x == \"…\"", e.src, out)
	}
	return b, nil
}

// exprMessage takes the snippet that expr-lang appends from an error.
func exprMessage(err error) string {
	var fe *file.Error
	if errors.As(err, &fe) {
		return fe.Message
	}
	msg, _, _ := strings.Cut(err.Error(), "\n")
	return msg
}

// compileEnv declares the names to the compiler; the values are prototypes.
func compileEnv(cond bool, s *Step) types.Map {
	m := map[string]any{
		"params": map[string]any{}, "args": []string{}, "env": map[string]string{},
		"steps": map[string]any{}, "pipeline": map[string]any{}, "host": hostValues,
		"lines": exprLines, "quote": exprQuote, "raw": exprRaw,
		"glob": func(string) ([]string, error) { return nil, nil },
	}
	if cond {
		for _, f := range statusFuncs {
			m[f] = func() bool { return false }
		}
	}
	if s != nil && s.Matrix != nil {
		m["matrix"] = map[string]any{}
	}
	if s != nil && s.ForEach != nil {
		m["item"] = types.Any
	}
	declared := make(types.Map, len(m))
	for name, v := range m {
		t, ok := v.(types.Type)
		if !ok {
			t = types.TypeOf(v)
		}
		declared[name] = t
	}
	return declared
}

// compile checks an expression against what the pipeline declares.
func (e *Expr) compile(c *checker) {
	e.prog, e.steps, e.status, e.always, e.raw = nil, nil, false, false, false
	switch {
	case e.src == "":
		c.add(e.pos(), "the expression is empty")
		return
	case strings.HasPrefix(e.src, exprOpen) && exprEnd(e.src[len(exprOpen):]) < 0:
		c.add(e.pos(), "%s", unclosed)
		return
	case strings.HasPrefix(e.src, exprOpen):
		c.add(e.pos(), "this is one expression: put all of it into one ${{ }}, or leave the braces out")
		return
	case len(e.src) > maxExpr:
		c.add(e.pos(), "the expression is %d bytes long, at most %d are read; put the value into a parameter or a step", len(e.src), maxExpr)
		return
	}
	prog, err := expr.Compile(e.src, expr.Env(compileEnv(e.cond, c.expands)), expr.Optimize(false), expr.DisableBuiltin("repeat"))
	if err != nil {
		c.add(e.pos(), "%s", c.exprError(e, err))
		return
	}
	e.prog = prog
	w := &exprWalker{c: c, e: e}
	node := prog.Node()
	if call, ok := node.(*ast.CallNode); ok {
		id, ok := call.Callee.(*ast.IdentifierNode)
		e.raw = ok && id.Value == "raw"
	}
	ast.Walk(&node, w)
	if w.raws > 1 || w.raws == 1 && !e.raw {
		c.add(e.pos(), "raw(…) stands alone in ${{ }}; put what is computed into its parentheses")
	}
	for name := range w.steps {
		e.steps = append(e.steps, name)
	}
	sort.Strings(e.steps)
}

// exprError says what is wrong with an expression that does not compile.
func (c *checker) exprError(e *Expr, err error) string {
	for kind, names := range map[string][]string{"steps": c.stepNames(), "params": c.paramNames} {
		for _, name := range names {
			if strings.Contains(name, "-") && strings.Contains(e.src, kind+"."+name) {
				return fmt.Sprintf("%s.%s is read as a subtraction; write %s[%q]", kind, name, kind, name)
			}
		}
	}
	msg := exprMessage(err)
	shown := "${{ " + e.src + " }}"
	if e.cond {
		shown = e.src
	}
	if name, ok := strings.CutPrefix(msg, "unknown name "); ok {
		for _, f := range statusFuncs {
			if f == name {
				return fmt.Sprintf("%s() can be called in an if only", name)
			}
		}
		switch name {
		case "matrix":
			return "matrix exists in a step with a matrix only, and not in its if"
		case "item":
			return "item exists in a step with forEach only, and not in its if"
		}
		known := append(append([]string{}, roots...), functions...)
		if e.cond {
			known = append(known, statusFuncs...)
		}
		if strings.Contains(e.src, name+"(") {
			otherwise := ""
			if e.cond {
				otherwise = "; an if has success(), failure(), always() and cancelled()"
			}
			return fmt.Sprintf("unknown function %q in %s%s", name, shown, didYouMean(name, known, otherwise))
		}
		return fmt.Sprintf("unknown name %q in %s%s", name, shown, didYouMean(name, known, "; there are "+strings.Join(roots, ", ")))
	}
	switch msg {
	case "unexpected token EOF":
		msg = "the expression ends too early"
	case `unexpected token Operator("=")`:
		msg = "= does not compare; write =="
	}
	return shown + ": " + msg
}

// exprWalker looks at every name that an expression reads.
type exprWalker struct {
	c     *checker
	e     *Expr
	steps map[string]bool
	raws  int // calls of raw()
}

// Visit sees children before their parents.
func (w *exprWalker) Visit(n *ast.Node) {
	switch n := (*n).(type) {
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			if id.Value == "raw" {
				w.raws++
			}
			for _, f := range statusFuncs {
				if f == id.Value {
					w.e.status = true
					w.e.always = w.e.always || f != "success"
				}
			}
		}
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			w.c.add(w.e.pos(), "$env is not part of the language; name the value itself, as in params.name")
		}
	case *ast.MemberNode:
		w.member(n)
	}
}

func (w *exprWalker) member(n *ast.MemberNode) {
	name, constant := "", false
	if s, ok := n.Property.(*ast.StringNode); ok {
		name, constant = s.Value, true
	}
	switch of := n.Node.(type) {
	case *ast.IdentifierNode:
		switch of.Value {
		case "params":
			if constant && !w.c.params[name] {
				msg := w.c.exprError(w.e, errors.New("unknown"))
				if !strings.Contains(msg, "subtraction") {
					msg = fmt.Sprintf("unknown parameter %q%s", name, didYouMean(name, w.c.paramNames, "; parameters are declared under params"))
				}
				w.c.add(w.e.pos(), "%s", msg)
			}
		case "matrix":
			w.field(of.Value, name, constant, w.c.expands.Matrix.Keys())
		case "pipeline":
			w.field(of.Value, name, constant, pipelineFields)
		case "host":
			w.field(of.Value, name, constant, hostFields)
		case "steps":
			w.step(name, constant)
		}
	case *ast.MemberNode:
		if id, ok := of.Node.(*ast.IdentifierNode); ok && id.Value == "steps" && constant {
			if s, ok := of.Property.(*ast.StringNode); ok {
				w.stepField(s.Value, name)
			}
		}
	}
}

func (w *exprWalker) field(of, name string, constant bool, known []string) {
	if !constant {
		return
	}
	for _, k := range known {
		if k == name {
			return
		}
	}
	w.c.add(w.e.pos(), "%s has no %q%s", of, name, didYouMean(name, known, "; it has "+strings.Join(known, ", ")))
}

func (w *exprWalker) step(name string, constant bool) {
	if !constant {
		w.c.add(w.e.pos(), "steps[…] takes the name of a step as a constant, so that the order is known before anything runs")
		return
	}
	if _, ok := w.c.p.index[name]; !ok {
		msg := w.c.exprError(w.e, errors.New("unknown"))
		if !strings.Contains(msg, "subtraction") {
			msg = fmt.Sprintf("unknown step %q%s", name, didYouMean(name, w.c.stepNames(), ""))
		}
		w.c.add(w.e.pos(), "%s", msg)
		return
	}
	if w.steps == nil {
		w.steps = map[string]bool{}
	}
	w.steps[name] = true
}

func (w *exprWalker) stepField(step, name string) {
	s, i := w.c.p.Step(step)
	if i < 0 {
		return // reported by step
	}
	if s.Expands() {
		if name == "stdout" || name == "stderr" || name == "stages" {
			w.c.add(w.e.pos(), "steps.%s runs several times, and each has a %s of its own: steps.%s.each[0].%s is the first", step, name, step, name)
			return
		}
		w.field("a step that expands", name, true, expandedFields)
		return
	}
	if s.Run != nil {
		w.field("a step with run", name, true, runFields)
		return
	}
	w.field("a step", name, true, stepFields)
	if name != "stdout" && name != "stderr" {
		return
	}
	if s.Background || s.Detached {
		w.c.add(w.e.pos(), "steps.%s.%s: the output of a service or a job is not kept for expressions", step, name)
		return
	}
	if last := s.Stages[len(s.Stages)-1]; !last.Buffered() {
		w.c.add(w.e.pos(), "steps.%s.%s: %s streams its output and keeps none; use execFile (or exec) to keep it", step, name, last.Action)
	}
}
