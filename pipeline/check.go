package pipeline

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"syscall"

	"gopkg.in/yaml.v3"

	"github.com/pipe-runner/pipe/safety"
)

// Check reports everything that is wrong in a pipeline, as [Errors], or nil. It
// is for one that was built in Go, or changed: [Parse] has checked what it
// returns, and a run checks what it is given. Check notices any change of the
// model since it last succeeded, and costs little where there is none. Several
// goroutines may call it at once, but not while the pipeline is changed.
func (p *Pipeline) Check() error {
	p.checking.Lock()
	defer p.checking.Unlock()
	if err := p.complete(); err != nil {
		p.graph = nil
		return err
	}
	if p.graph != nil && digest(p) == p.checked {
		return nil
	}
	return newChecker(p, report{file: p.File, lines: p.lines}).run()
}

// complete refuses what a pipeline built in Go may have and a file may not: nil
// where there must be something, and pipelines and tees that contain themselves.
// The rest of the check relies on it.
func (p *Pipeline) complete() error {
	bad := func(format string, args ...any) error {
		return Errors{{File: p.File, Msg: fmt.Sprintf(format, args...)}}
	}
	for i, s := range p.Steps {
		if s == nil {
			return bad("step #%d is nil", i+1)
		}
		if !complete(s.Stages, 0) || s.Ready != nil && s.Ready.Exec != nil && !complete([]*Stage{s.Ready.Exec}, 0) {
			return bad("step #%d has a stage that is nil, or a tee with an empty branch or too many tees in it", i+1)
		}
	}
	for i, prm := range p.Params {
		if prm == nil {
			return bad("parameter #%d is nil", i+1)
		}
	}
	for i, o := range p.Outputs {
		if o == nil || o.Expr == nil {
			return bad("output #%d has no expression", i+1)
		}
	}
	if p.loops(map[*Pipeline]bool{}) {
		return bad("the pipeline runs itself, or one that it runs does")
	}
	return nil
}

// complete reports whether no stage is nil, not even in a tee. A tee in a tee is
// an error that is reported later, so it looks only a few tees deep.
func complete(stages []*Stage, depth int) bool {
	for _, st := range stages {
		if st == nil || depth > 8 {
			return false
		}
		for _, b := range st.Tee {
			if b.File == nil && len(b.Chain) == 0 || !complete(b.Chain, depth+1) {
				return false
			}
		}
	}
	return true
}

// loops reports whether p runs itself, directly or through others. In open, true
// marks the pipelines that lead to p, and false those that were looked at.
func (p *Pipeline) loops(open map[*Pipeline]bool) bool {
	if running, seen := open[p]; seen {
		return running
	}
	open[p] = true
	for _, s := range p.Steps {
		if s != nil && s.Run != nil && s.Run.Pipeline != nil && s.Run.Pipeline.loops(open) {
			return true
		}
	}
	open[p] = false
	return false
}

func newChecker(p *Pipeline, r report) *checker {
	return &checker{report: r, p: p, compiled: map[*Expr]bool{}}
}

type checker struct {
	report
	p          *Pipeline
	expands    *Step // the step whose expressions may read matrix and item, or nil
	params     map[string]bool
	paramNames []string
	compiled   map[*Expr]bool
}

var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`) })

// run checks the pipeline, and notes in it what was checked.
func (c *checker) run() error {
	c.pipeline()
	if err := c.err(); err != nil {
		c.p.graph = nil
		return err
	}
	c.p.checked = digest(c.p)
	return nil
}

func (c *checker) pipeline() {
	c.declare()
	for _, name := range c.p.Secrets {
		c.variable(Pos{}, name)
	}
	c.scope(c.p.Scope)
	c.p.eachTemplate(c.template)
	for i, s := range c.p.Steps {
		c.in = c.p.Label(i)
		c.step(s)
	}
	c.in = ""
	for _, o := range c.p.Outputs {
		c.identifier(o.Pos, "output", o.Name)
		c.expr("output", o.Expr)
	}
	switch {
	case len(c.p.Steps) > 0:
		c.p.graph = c.graph()
	case c.p.File == "":
		c.add(Pos{}, "the pipeline has no steps")
	case len(c.errs) == 0:
		c.add(Pos{}, "the pipeline has no steps; add some, as in\n  steps:\n    - spawn: [echo, hello]")
	}
}

// declare collects the names that may be referred to.
func (c *checker) declare() {
	c.params = map[string]bool{}
	for _, prm := range c.p.Params {
		c.identifier(prm.Pos, "parameter", prm.Name)
		if c.params[prm.Name] {
			c.add(prm.Pos, "parameter %q is declared twice", prm.Name)
		}
		c.params[prm.Name] = true
		c.paramNames = append(c.paramNames, prm.Name)
		c.param(prm)
	}
	c.p.index = make(map[string]int, len(c.p.Steps))
	folded := map[string]string{}
	for i, s := range c.p.Steps {
		if s.Name == "" {
			continue
		}
		c.identifier(s.Pos, "step", s.Name)
		if first, ok := c.p.index[s.Name]; ok {
			c.add(s.Pos, "the name %q is taken already by the step in line %d; names are unique", s.Name, c.p.Steps[first].Pos.Line)
			continue
		}
		low := strings.ToLower(s.Name)
		if other, ok := folded[low]; ok {
			c.add(s.Pos, "the names %q and %q differ in case only; on some systems they would be the same file", other, s.Name)
		}
		folded[low] = s.Name
		c.p.index[s.Name] = i
	}
}

func (c *checker) identifier(at Pos, what, name string) {
	if !namePattern().MatchString(name) || len(name) > 100 {
		c.add(at, "the name of a %s has letters, digits, _ and -, and begins with a letter or _ (at most 100): %.120q has not", what, name)
	}
}

func (c *checker) stepNames() []string {
	var out []string
	for _, s := range c.p.Steps {
		if s.Name != "" {
			out = append(out, s.Name)
		}
	}
	return out
}

func (c *checker) param(prm *Param) {
	prm.match = nil
	if prm.Pattern != "" {
		_, err := regexp.Compile(prm.Pattern) // alone first: the error quotes what was written
		var whole *regexp.Regexp
		if err == nil {
			whole, err = regexp.Compile(`^(?:` + prm.Pattern + `)$`)
		}
		if err != nil {
			c.add(prm.Pos, "the pattern of parameter %s is not a regular expression: %s", prm.Name, patternError(err))
			return
		}
		prm.match = whole.MatchString
	}
	if prm.Default == nil {
		return
	}
	if err := prm.check(prm.Default); err != nil {
		c.add(prm.Pos, "default of %s: %s", prm.Name, err)
	}
}

// patternError says what is wrong with a regular expression.
func patternError(err error) string {
	var se *syntax.Error
	if errors.As(err, &se) {
		return fmt.Sprintf("%s: `%s`", se.Code, se.Expr)
	}
	return err.Error()
}

// template reports what is wrong with a template, and compiles its expressions.
func (c *checker) template(key string, t *Template) {
	if strings.ContainsRune(t.src, 0) {
		c.add(t.pos(), "%s: NUL byte in %q", key, t.src)
	}
	if t.tmpl != nil && t.tmpl.err != nil {
		c.add(Pos{}, "%s: %s", key, t.tmpl.err)
	}
	eachExpr(c.expr)(key, t)
}

// expr compiles an expression, once though stages may share it.
func (c *checker) expr(key string, e *Expr) {
	if !c.compiled[e] {
		c.compiled[e] = true
		e.cond = key == "if"
		e.compile(c)
	}
}

func (c *checker) scope(s *Scope) {
	if s == nil {
		return
	}
	seen := map[string]bool{}
	for _, v := range s.Env {
		c.variable(v.Pos, v.Name)
		if seen[v.Name] {
			c.add(v.Pos, "variable %s is given twice", v.Name)
		}
		seen[v.Name] = true
	}
	if s.ExtendEnv != nil {
		for _, n := range s.ExtendEnv.Names {
			if _, err := path.Match(n, ""); err != nil {
				c.add(Pos{}, "extendEnv: %q is not a name or a glob", n)
			}
		}
	}
	for _, u := range s.Unset {
		c.variable(Pos{}, u)
	}
}

func (c *checker) variable(at Pos, name string) {
	switch {
	case name == "":
		c.add(at, "a variable's name is empty")
	case strings.ContainsAny(name, "=\x00"):
		c.add(at, "%q is not a variable's name: it holds a = or NUL", name)
	}
}

func (c *checker) step(s *Step) {
	if s.Run != nil {
		c.runStep(s)
		return
	}
	if len(s.Stages) == 0 {
		if len(c.errs) == 0 || c.file == "" {
			c.add(s.Pos, "the step has no stages")
		}
		return
	}
	c.expressions(s)
	c.expansion(s)
	c.scope(s.Scope)
	last := len(s.Stages) - 1
	for i, st := range s.Stages {
		if st.Action == ActionTee && i == 0 {
			c.add(st.Pos, "a pipe cannot begin with a tee: there is no stream yet")
		}
		c.stage(s, st, i < last)
	}
	c.service(s)
	if in := s.Stages[0].Stdin; (len(s.Sources) > 0 || len(s.Generates) > 0) && (in.Kind == StdioInherit || in.Kind == StdioFD) {
		c.add(in.Pos, "a step with sources is not run where nothing changed, and what the caller gives on stdin is not known; give it a file")
	}
	if s.IdleTimeout > 0 && !c.watched(s) {
		c.add(s.Pos, "idleTimeout counts from the last byte of output, and stdout of the step does not pass through the runner; remove what sends it elsewhere")
	}
	if r := s.Retry; r != nil && (r.Attempts < 1 || r.Attempts > MaxAttempts || r.Delay < 0 || r.MaxDelay < 0) {
		c.add(s.Pos, "retry has 1 to %d attempts and no negative delay", MaxAttempts)
	}
	if c.p.Mode == ModeSync && s.Sync {
		c.add(s.Pos, "sync: true has a meaning in mode: async only; here each step waits for the one before it anyway")
	}
}

// runStep checks a step that runs another pipeline.
func (c *checker) runStep(s *Step) {
	if len(s.Stages) > 0 {
		c.add(s.Pos, "a step has stages or runs a pipeline, not both")
	}
	c.expressions(s)
	c.expansion(s)
	c.scope(s.Scope)
	c.include(s)
}

// expressions compiles the expressions of a step. Its if and forEach come first:
// they are evaluated before the step expands, and cannot read matrix and item.
func (c *checker) expressions(s *Step) {
	if s.If != nil {
		c.expr("if", s.If)
	}
	if s.ForEach != nil {
		c.expr("forEach", s.ForEach)
	}
	if s.Expands() {
		c.expands = s
		defer func() { c.expands = nil }()
	}
	s.eachStage(func(_ string, st *Stage) { st.readText() })
	s.EachTemplate(c.template)
	s.eachStage(func(prefix string, st *Stage) { c.template(prefix+st.Action.String(), &st.script) })
}

// expansion checks matrix and forEach.
func (c *checker) expansion(s *Step) {
	switch {
	case s.Matrix != nil && s.ForEach != nil:
		c.add(s.Pos, "matrix and forEach contradict each other; make a list of both, or two steps")
	case s.Matrix != nil && s.Matrix.size() > MaxInstances:
		c.add(s.Matrix.Pos, "the matrix has more than %d combinations", MaxInstances)
	case !s.Expands() && s.MaxParallel != nil:
		c.add(s.Pos, "maxParallel of a step is for one with matrix or forEach")
	}
}

// watched reports whether the output of the step passes through the runner.
func (c *checker) watched(s *Step) bool {
	last := s.Stages[len(s.Stages)-1]
	return last.Action != ActionTee && (last.Stdout.Kind == StdioDefault || last.Stdout.Kind == StdioPipe)
}

// stage checks one stage; middle tells that a later stage reads its stdout.
func (c *checker) stage(s *Step, st *Stage, middle bool) {
	c.scope(st.Scope)
	if st.Action == ActionTee {
		for _, b := range st.Tee {
			for i, bs := range b.Chain {
				if bs.Action == ActionTee {
					c.add(bs.Pos, "a tee inside a branch of a tee; list its branches in the outer one")
					continue
				}
				if bs.Stdin.Kind != StdioDefault || !bs.Input.IsZero() {
					c.add(bs.Pos, "stdin of a branch is the stream of the tee")
				}
				c.stage(s, bs, i < len(b.Chain)-1)
			}
		}
		return
	}
	if len(st.Args) > 0 && st.Args[0].IsZero() {
		c.add(st.Pos, "the program's name is empty")
	}
	if i, why := safety.ProgramText(constantArgs(st.Args)); i >= 0 {
		c.add(st.Args[i].pos(), "%s", why)
	}
	for _, io := range st.descriptors() {
		if io.Kind == StdioFD && io.FD < 0 {
			c.add(io.Pos, "%d is not a descriptor", io.FD)
		}
	}
	if middle && st.Stdout.Kind != StdioDefault {
		c.add(st.Stdout.Pos, "stdout of a stage that is not the last is the pipe to the next stage")
	}
	if !st.Input.IsZero() && st.Stdin.Kind != StdioDefault {
		c.add(st.Stdin.Pos, "stdin and input contradict each other: input is what the child reads")
	}
	if !st.Argv0.IsZero() && st.UsesShell() {
		c.add(st.Pos, "argv0 is for a program; a shell is given the text")
	}
	if !st.Buffered() && (st.MaxBuffer != nil || st.OnOverflow != OverflowSpill) {
		c.add(st.Pos, "maxBuffer and onOverflow are for exec and execFile: spawn keeps no output")
	}
	c.shell(s, st)
}

// levels returns the settings that hold for a stage, outermost first.
func (p *Pipeline) levels(s *Step, st *Stage) []*Scope {
	return []*Scope{p.Scope, s.Scope, st.Scope}
}

// readText parses the Text of a stage that was built in Go, or whose Text was
// changed since it was read.
func (s *Stage) readText() {
	s.shell = nil
	if s.script.src != s.Text {
		s.script, s.origin = NewTemplate(s.Text), nil
	}
}

// shell checks what a stage's shell is and what it is given.
func (c *checker) shell(s *Step, st *Stage) {
	own := ""
	var at Pos
	for _, lv := range []*Scope{s.Scope, st.Scope} {
		if lv != nil && lv.Shell != "" {
			own, at = lv.Shell, lv.ShellPos
		}
	}
	if !st.UsesShell() {
		if own != "" && st.Scope != nil && st.Scope.Shell != "" {
			c.add(at, "%s with a list runs no shell; write the command as text, as in %s: \"%s\"", st.Action, map[Action]string{ActionSpawn: "spawn", ActionExecFile: "exec"}[st.Action], argsText(st.Args))
		}
		return
	}
	if st.Action == ActionSpawn && own == "" {
		c.add(st.Pos, "spawn takes a list, program first, as in %s; for text that a shell reads add shell: true, or use exec", flowList(st.Text))
		return
	}
	o := c.p.Options(s, st)
	if o.Shell == ShellBuiltin {
		if len(st.Extra) > 0 {
			c.add(st.Pos, "the embedded shell has no descriptors past 2; write shell: bash (or sh) on the step")
		}
		c.builtinText(st, o)
		return
	}
	if st.script.HasExpr() {
		c.parseShell(st, safety.DialectOf(o.Shell))
	}
	if lacksPipefail(o.Shell) && o.setGiven {
		for _, name := range o.Set {
			if name == "pipefail" {
				c.add(o.setPos, "%s has no option pipefail; leave it out, or write shell: bash", o.Shell)
			}
		}
	}
}

// constantArgs returns the arguments as far as they are known before a run.
func constantArgs(args []Template) []safety.Arg {
	out := make([]safety.Arg, len(args))
	for i, a := range args {
		out[i] = safety.Arg{Text: a.start(), Dynamic: a.Dynamic()}
	}
	return out
}

func lacksPipefail(shell string) bool { return base(shell) == "dash" }

func argsText(args []Template) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}

// signal reads a signal by name, with or without SIG, or by number.
func (p *parser) signal(n *yaml.Node) syscall.Signal {
	if !p.scalar(n, "a signal such as SIGTERM") {
		return 0
	}
	sig, err := ParseSignal(n.Value)
	if err != nil {
		p.add(pos(n), "%s", err)
	}
	return sig
}
