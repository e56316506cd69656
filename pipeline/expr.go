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
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

// maxExpr bounds the text of one expression, in bytes: the parser recurses.
const maxExpr = 16 << 10

// MaxStepOutput is the number of bytes of a step's output that an expression may
// read.
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

// stripBraces removes the ${{ }} around an expression, if it has them.
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

// Vars are the values that expressions read. In the zero value there are none.
type Vars struct {
	Params   map[string]any
	Args     []string
	Env      map[string]string
	Steps    func(name string) (map[string]any, error) // one finished step
	Matrix   map[string]any                            // of the instance that runs
	Item     any                                       // of the instance that runs
	Pipeline map[string]any
	Dir      string                 // the directory that glob searches
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

// env returns the values in the form that expr-lang reads them. Of the steps, it
// has those that the expression reads.
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

// Text returns the text of a value of an expression: strings as they are,
// integers without an exponent, bools as true and false, lists and maps as JSON.
// The text of null is an error.
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

// exprMessage returns an error of expr-lang without the snippet at its end.
func exprMessage(err error) string {
	var fe *file.Error
	if errors.As(err, &fe) {
		return fe.Message
	}
	msg, _, _ := strings.Cut(err.Error(), "\n")
	return msg
}
