package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	exprparser "github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
)

// compileEnv returns the names that an expression may read, with their types.
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

// noBuiltin is a function of expr-lang that the language does not have: a small
// expression could fill the memory with it.
const noBuiltin = "repeat"

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
	prog, err := expr.Compile(e.src, expr.Env(compileEnv(e.cond, c.expands)), expr.Optimize(false), expr.DisableBuiltin(noBuiltin))
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
	if why := c.subtraction(e.src); why != "" {
		return why
	}
	shown := "${{ " + e.src + " }}"
	if e.cond {
		shown = e.src
	}
	// With a blank behind the text, an error at its end has a place of its own.
	config := conf.CreateNew()
	config.Disabled[noBuiltin] = true
	tree, perr := exprparser.ParseWithConfig(e.src+" ", config)
	if perr == nil {
		if name, called := undeclared(&tree.Node, compileEnv(e.cond, c.expands)); name != "" {
			return unknownName(name, called, e.cond, shown)
		}
		return shown + ": " + exprMessage(err)
	}
	return shown + ": " + parseMessage(e.src, perr)
}

// parseMessage says what is wrong with a text that is no expression.
func parseMessage(src string, err error) string {
	var fe *file.Error
	if errors.As(err, &fe) {
		switch chars := []rune(src); {
		case fe.From >= len(chars):
			return "the expression ends too early"
		case chars[fe.From] == '=' && (fe.From+1 == len(chars) || chars[fe.From+1] != '='):
			return "= does not compare; write =="
		}
	}
	return exprMessage(err)
}

// subtraction returns what to write where a name with a - in it was read as the
// difference of two names, or "".
func (c *checker) subtraction(src string) string {
	for _, of := range []struct {
		kind  string
		names []string
	}{{"steps", c.stepNames()}, {"params", c.paramNames}} {
		for _, name := range of.names {
			if strings.Contains(name, "-") && strings.Contains(src, of.kind+"."+name) {
				return fmt.Sprintf("%s.%s is read as a subtraction; write %s[%q]", of.kind, name, of.kind, name)
			}
		}
	}
	return ""
}

// undeclared returns the first name in an expression that nothing declares, and
// whether it is called; "" where there is none.
func undeclared(node *ast.Node, env types.Map) (name string, called bool) {
	let := map[string]bool{"$env": true}
	ast.Walk(node, visitor(func(n *ast.Node) {
		if v, ok := (*n).(*ast.VariableDeclaratorNode); ok {
			let[v.Name] = true
		}
	}))
	ast.Walk(node, visitor(func(n *ast.Node) {
		switch n := (*n).(type) {
		case *ast.IdentifierNode:
			if _, ok := env[n.Value]; name == "" && !ok && !let[n.Value] {
				name = n.Value
			}
		case *ast.CallNode:
			id, ok := n.Callee.(*ast.IdentifierNode)
			called = called || ok && id.Value == name
		}
	}))
	return name, called
}

// unknownName says what is wrong with a name that nothing declares; cond tells
// that it stands in an if.
func unknownName(name string, called, cond bool, shown string) string {
	known := slices.Concat(roots, functions)
	otherwise := ""
	if cond {
		known = append(known, statusFuncs...)
		otherwise = "; an if has success(), failure(), always() and cancelled()"
	}
	switch {
	case slices.Contains(statusFuncs, name):
		return name + "() can be called in an if only"
	case name == "matrix":
		return "matrix exists in a step with a matrix only, and not in its if"
	case name == "item":
		return "item exists in a step with forEach only, and not in its if"
	case called:
		return fmt.Sprintf("unknown function %q in %s%s", name, shown, didYouMean(name, known, otherwise))
	}
	return fmt.Sprintf("unknown name %q in %s%s", name, shown, didYouMean(name, known, "; there are "+strings.Join(roots, ", ")))
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
			if slices.Contains(statusFuncs, id.Value) {
				w.e.status = true
				w.e.always = w.e.always || id.Value != "success"
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
				w.unknown(fmt.Sprintf("unknown parameter %q%s", name, didYouMean(name, w.c.paramNames, "; parameters are declared under params")))
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

// unknown reports msg, about an unknown name, or that a name was read as two.
func (w *exprWalker) unknown(msg string) {
	w.c.add(w.e.pos(), "%s", cmp.Or(w.c.subtraction(w.e.src), msg))
}

func (w *exprWalker) field(of, name string, constant bool, known []string) {
	if !constant {
		return
	}
	if slices.Contains(known, name) {
		return
	}
	w.c.add(w.e.pos(), "%s has no %q%s", of, name, didYouMean(name, known, "; it has "+strings.Join(known, ", ")))
}

func (w *exprWalker) step(name string, constant bool) {
	if !constant {
		w.c.add(w.e.pos(), "steps[…] takes the name of a step as a constant, so that the order is known before anything runs")
		return
	}
	if _, ok := w.c.p.index[name]; !ok {
		w.unknown(fmt.Sprintf("unknown step %q%s", name, didYouMean(name, w.c.stepNames(), "")))
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
