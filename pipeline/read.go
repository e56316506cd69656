package pipeline

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"gopkg.in/yaml.v3"
)

func (p *parser) readName(t *target, n *yaml.Node) {
	if t.step == nil {
		t.file.Name = p.text(n)
		return
	}
	t.step.Name = p.text(n)
	if t.step.Name == "" && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		p.add(pos(n), "a name is not empty; leave the key out for a step without a name")
	}
}

func (p *parser) readMode(t *target, n *yaml.Node) {
	t.file.Mode = oneOf[Mode](p, n, []string{"sync", "async"})
}

func (p *parser) readMaxParallel(t *target, n *yaml.Node) {
	v := int(p.integer(n, 0, 1<<20))
	if t.step != nil {
		t.step.MaxParallel = &v
		return
	}
	t.file.MaxParallel = &v
}

func (p *parser) readTimeout(t *target, n *yaml.Node) {
	if t.step != nil {
		t.step.Timeout = p.duration(n)
		return
	}
	t.file.Timeout = p.duration(n)
}

func (p *parser) readParams(t *target, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "params is a mapping of names, as in\n  params:\n    dir: {type: path, default: .}")
		return
	}
	p.pairs(n, func(k, v *yaml.Node) {
		prm := &Param{Pos: pos(k), Name: k.Value}
		t.file.Params = append(t.file.Params, prm)
		if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			return // name: — a string that must be given
		}
		if v.Kind != yaml.MappingNode {
			p.add(pos(v), "a parameter is a mapping of type, default, enum, pattern and help; write {default: %s}", v.Value)
			return
		}
		p.readParam(prm, v)
	})
}

func (p *parser) readParam(prm *Param, n *yaml.Node) {
	t := &target{param: prm}
	p.mapping(n, atParam, t, nil)
	def := t.initial
	if def == nil {
		return
	}
	var words []string
	if prm.Type == ParamList {
		if def.Kind != yaml.SequenceNode {
			p.add(pos(def), "the default of a list is a list, as in [a, b]")
			return
		}
		words = p.names(def)
	} else {
		if !p.scalar(def, "a default of type "+prm.Type.String()) {
			return
		}
		words = []string{p.text(def)}
	}
	val, err := prm.value(words)
	if err != nil {
		p.add(pos(def), "default of %s: %s", prm.Name, err)
	}
	prm.Default = val
}

func (p *parser) readOutputs(t *target, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "outputs is a mapping of names to expressions, not %s", kindOf(n))
		return
	}
	p.pairs(n, func(k, v *yaml.Node) {
		if e := p.expression(v); e != nil {
			t.file.Outputs = append(t.file.Outputs, &Output{Pos: pos(k), Name: k.Value, Expr: e})
		}
	})
}

func (p *parser) readSteps(t *target, n *yaml.Node) {
	p.items(n, "steps", func(c *yaml.Node) {
		if c.Kind != yaml.MappingNode {
			p.add(pos(c), "a step is a mapping such as {spawn: [echo, hello]}, not %s", kindOf(c))
			return
		}
		if s := p.step(c); s != nil {
			t.file.Steps = append(t.file.Steps, s)
		}
	})
}

// actions returns the keys of a mapping that say what it runs.
func (p *parser) actions(n *yaml.Node) []string {
	var out []string
	var look func(n *yaml.Node, depth int)
	look = func(n *yaml.Node, depth int) {
		if depth > 8 {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			switch k := n.Content[i]; {
			case slices.Contains(actionKeys, k.Value):
				out = append(out, k.Value)
			case k.Value == "<<":
				v := n.Content[i+1]
				if v.Kind == yaml.AliasNode {
					v = v.Alias
				}
				if v.Kind == yaml.MappingNode {
					look(v, depth+1)
				}
			}
		}
	}
	look(n, 0)
	return out
}

func (p *parser) step(n *yaml.Node) *Step {
	s := &Step{Pos: pos(n)}
	acts := p.actions(n)
	at := atStep
	t := &target{step: s}
	switch {
	case len(acts) == 1 && acts[0] == "run":
		at = atRun
		t.scope = &s.Scope
	case len(acts) == 1 && acts[0] == "pipe":
		// stdin and its like are read into a stage of their own, and handed to
		// the right stages once those are known.
		at = atPipe
		t.scope = &s.Scope
		t.stage = &Stage{}
	default:
		st := &Stage{Pos: s.Pos}
		s.Stages = []*Stage{st}
		t.stage, t.scope = st, &st.Scope
	}
	if len(acts) == 1 && acts[0] == "tee" {
		p.add(s.Pos, "tee is a stage of a pipe, not a step; write pipe: [{spawn: …}, {tee: […]}]")
		return nil
	}
	if len(acts) < 2 {
		p.mapping(n, at, t, nil)
	}
	if !p.oneAction(n, acts, "a step", "spawn, exec, execFile, pipe or run") {
		return nil
	}
	if at == atPipe && len(s.Stages) > 0 {
		p.hand(s, t.stage)
	}
	return s
}

// oneAction reports an error unless exactly one action is given.
func (p *parser) oneAction(n *yaml.Node, acts []string, what, known string) bool {
	switch {
	case len(acts) == 1:
		return true
	case len(acts) > 1:
		p.add(pos(n), "%s has one action, not %s", what, strings.Join(acts, " and "))
	default:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if planned(name) || slices.Contains(actionKeys, nearest(name, keysAt(atStep|atPipe|atTee|atRun))) {
				return false // a misspelt action, or one of a later version: said already
			}
		}
		p.add(pos(n), "%s has no action; give it one of %s", what, known)
	}
	return false
}

// hand gives the stdio keys of a pipe step to its stages.
func (p *parser) hand(s *Step, from *Stage) {
	first, last := s.Stages[0], s.Stages[len(s.Stages)-1]
	for i, st := range s.Stages {
		if st.Stdin.Pos.IsValid() && i > 0 {
			p.add(st.Stdin.Pos, "stdin of a later stage is the pipe from the stage before it")
		}
		if i > 0 && !st.Input.IsZero() {
			p.add(st.Pos, "input goes to the first stage; a later one reads the stage before it")
		}
		if from.Stderr.Kind != StdioDefault && st.Stderr.Kind == StdioDefault {
			st.Stderr = from.Stderr
		}
	}
	if from.Stdin.Kind != StdioDefault {
		first.Stdin = from.Stdin
	}
	if !from.Input.IsZero() {
		first.Input = from.Input
	}
	if from.Stdout.Kind != StdioDefault {
		last.Stdout = from.Stdout
	}
}

func (p *parser) readPipe(t *target, n *yaml.Node) {
	p.items(n, "stages", func(c *yaml.Node) {
		if st := p.stage(c); st != nil {
			t.step.Stages = append(t.step.Stages, st)
		}
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) < 2 {
		p.add(pos(n), "a pipe joins two stages or more; for one, write spawn, exec or execFile on the step")
	}
}

func (p *parser) stage(n *yaml.Node) *Stage {
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "a stage is a mapping such as {spawn: [wc, -l]}, not %s", kindOf(n))
		return nil
	}
	st := &Stage{Pos: pos(n)}
	acts := p.actions(n)
	at := atStage
	if len(acts) == 1 && acts[0] == "tee" {
		at = atTee
	}
	if len(acts) == 1 && acts[0] == "run" {
		p.add(st.Pos, "run is a step of its own, and no stage of a pipe")
		return nil
	}
	if len(acts) == 1 && acts[0] == "pipe" {
		p.add(st.Pos, "a pipe in a pipe; list its stages here instead")
		return nil
	}
	p.mapping(n, at, &target{stage: st, scope: &st.Scope}, nil)
	if !p.oneAction(n, acts, "a stage", "spawn, exec, execFile or tee") {
		return nil
	}
	return st
}

func (p *parser) readTee(t *target, n *yaml.Node) {
	t.stage.Action = ActionTee
	p.items(n, "branches", func(c *yaml.Node) {
		b := Branch{Pos: pos(c)}
		switch {
		case c.Kind == yaml.SequenceNode:
			p.items(c, "stages", func(s *yaml.Node) {
				if st := p.stage(s); st != nil {
					b.Chain = append(b.Chain, st)
				}
			})
		case c.Kind == yaml.MappingNode && hasKey(c, "file"):
			b.File = &Stdio{Pos: b.Pos}
			p.mapping(c, atBranch, &target{stdio: b.File}, nil)
		default:
			if st := p.stage(c); st != nil {
				b.Chain = []*Stage{st}
			}
		}
		t.stage.Tee = append(t.stage.Tee, b)
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.add(pos(n), "tee has no branch; a branch is a stage, a list of stages, or {file: path}")
	}
}

func hasKey(n *yaml.Node, name string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return true
		}
	}
	return false
}

func (p *parser) readSpawn(t *target, n *yaml.Node) {
	t.stage.Action = ActionSpawn
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" { // text: for a shell, which the checker asks for
		p.shellText(t.stage, n)
		return
	}
	p.argv(t.stage, n)
}

func (p *parser) readExecFile(t *target, n *yaml.Node) {
	t.stage.Action = ActionExecFile
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		p.add(pos(n), "execFile takes a list, program first, as in %s; for shell text use exec", flowList(n.Value))
		return
	}
	p.argv(t.stage, n)
}

func flowList(text string) string {
	return "[" + strings.Join(strings.Fields(text), ", ") + "]"
}

func (p *parser) readExec(t *target, n *yaml.Node) {
	t.stage.Action = ActionExec
	if n.Kind == yaml.SequenceNode {
		p.add(pos(n), "exec takes shell text; for a program and its arguments use execFile (or spawn)")
		return
	}
	p.shellText(t.stage, n)
}

// shellText reads text that a shell parses.
func (p *parser) shellText(st *Stage, n *yaml.Node) {
	if !p.scalar(n, "shell text") {
		return
	}
	st.Text, st.origin = n.Value, p.origin(n)
	st.script = p.templateAt(st.Text, st.origin)
}

func (p *parser) argv(st *Stage, n *yaml.Node) {
	st.Args = []Template{}
	if n.Kind == yaml.SequenceNode {
		st.Args = make([]Template, 0, len(n.Content))
	}
	p.items(n, "a program and its arguments, as in [ls, -l]", func(c *yaml.Node) {
		if c.Kind == yaml.ScalarNode && c.Tag == "!!null" {
			msg := "an argument is null; write \"\" for an empty one"
			if c.Value == "~" {
				msg += "; ~ is null in YAML, the home folder is ${{ env.HOME }}"
			}
			p.add(pos(c), "%s", msg)
			return
		}
		st.Args = append(st.Args, p.template(c))
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.add(pos(n), "the list is empty; its first element is the program")
	}
}

func (p *parser) readNeeds(t *target, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		t.step.Needs = []Ref{{pos(n), p.text(n)}}
		return
	}
	p.items(n, "names of steps", func(c *yaml.Node) {
		t.step.Needs = append(t.step.Needs, Ref{pos(c), p.text(c)})
	})
}

func (p *parser) readEnv(t *target, n *yaml.Node) {
	lv := t.level()
	lv.Env = []EnvVar{}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		p.add(pos(n), "env is empty; write {} for an environment without variables")
		return
	}
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "env is a mapping of names to values, as in {LANG: C}, not %s", kindOf(n))
		return
	}
	p.pairs(n, func(k, v *yaml.Node) {
		if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			p.add(pos(k), "%s has no value; write \"\" for an empty one, or list it under unset to remove it", k.Value)
			return
		}
		lv.Env = append(lv.Env, EnvVar{Pos: pos(k), Name: k.Value, Value: p.template(v)})
	})
}

func (p *parser) readEnvFile(t *target, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		t.level().EnvFile = []Template{p.template(n)}
		return
	}
	p.items(n, "paths", func(c *yaml.Node) {
		t.level().EnvFile = append(t.level().EnvFile, p.template(c))
	})
}

// globs reads one pattern or a list of them.
func (p *parser) globs(n *yaml.Node) []Glob {
	out := []Glob{}
	add := func(c *yaml.Node) {
		pattern, not := strings.CutPrefix(c.Value, "!")
		g := Glob{Pos: pos(c), Not: not}
		if p.scalar(c, "text") {
			from := p.origin(c)
			from.skip = len(c.Value) - len(pattern)
			g.Pattern = p.templateAt(pattern, from)
		}
		switch literal := g.Pattern.literals(); {
		case pattern == "":
			p.add(g.Pos, "a pattern is empty; expected one such as \"src/**/*.c\"")
		case !doublestar.ValidatePattern(literal):
			p.add(g.Pos, "%q is not a pattern: a bracket or brace is not closed", pattern)
		}
		out = append(out, g)
	}
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		add(n)
		return out
	}
	p.items(n, "patterns", add)
	if len(out) > 0 && out[0].Not {
		p.add(out[0].Pos, "the first pattern takes away, and there is nothing yet to take from; write what it reads before it, such as \"**\"")
	}
	return out
}

func (p *parser) readExtendEnv(t *target, n *yaml.Node) {
	e := &ExtendEnv{}
	t.level().ExtendEnv = e
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		e.All = p.boolean(n)
		return
	}
	if n.Kind == yaml.SequenceNode {
		e.Names = p.names(n)
		return
	}
	p.add(pos(n), "extendEnv is true, false, or a list of names and globs such as [PATH, \"LC_*\"], not %s", kindOf(n))
}

func (p *parser) readShell(t *target, n *yaml.Node) {
	lv := t.level()
	lv.ShellPos = pos(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		if p.boolean(n) {
			lv.Shell = "/bin/sh"
		} else {
			p.add(pos(n), "shell: false is how spawn and execFile run anyway; leave it out, or name a shell")
		}
		return
	}
	lv.Shell = p.text(n)
	if lv.Shell == "" {
		p.add(pos(n), "shell is builtin, true (/bin/sh), or a shell's path or name")
	}
}

func (p *parser) readSet(t *target, n *yaml.Node) {
	t.level().Set = p.names(n)
	t.level().SetPos = pos(n)
}

func (p *parser) readSigpipe(t *target, n *yaml.Node) {
	fail := oneOf[uint8](p, n, []string{"ok", "fail"}) == 1
	t.level().SigpipeErr = &fail
}

func (p *parser) readSuccessCodes(t *target, n *yaml.Node) {
	t.stage.SuccessCodes = []int{}
	p.items(n, "exit codes", func(c *yaml.Node) {
		t.stage.SuccessCodes = append(t.stage.SuccessCodes, int(p.integer(c, 0, 255)))
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.add(pos(n), "successCodes is empty, so that no exit code is a success; list at least one")
	}
}

func (p *parser) readMatrix(t *target, n *yaml.Node) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		p.add(pos(n), "matrix is a mapping of names to lists, such as {os: [linux, darwin]}, not %s", kindOf(n))
		return
	}
	m := &Matrix{Pos: pos(n)}
	t.step.Matrix = m
	p.mapping(n, atMatrix, &target{matrix: m}, func(k, v *yaml.Node) {
		if !namePattern().MatchString(k.Value) {
			p.add(pos(k), "the name of an axis has letters, digits, _ and -: %q has not", k.Value)
		}
		a := Axis{Name: k.Value}
		if v.Kind != yaml.SequenceNode || len(v.Content) == 0 {
			p.add(pos(v), "an axis is a list of values, such as [linux, darwin], not %s", kindOf(v))
			return
		}
		p.items(v, "values", func(c *yaml.Node) { a.Values = append(a.Values, p.matrixValue(c)) })
		m.Axes = append(m.Axes, a)
	})
	for i, e := range m.Exclude {
		for k := range e {
			if !m.axis(k) {
				p.add(m.Pos, "exclude #%d names %q, which is no axis", i+1, k)
			}
		}
	}
	if m.size() > MaxInstances {
		p.add(m.Pos, "the matrix has more than %d combinations", MaxInstances)
	}
}

// combinations reads values by the names of axes, and others.
func (p *parser) combinations(n *yaml.Node) (list []map[string]any) {
	p.items(n, "combinations", func(c *yaml.Node) {
		if c.Kind != yaml.MappingNode {
			p.add(pos(c), "a combination is a mapping such as {os: linux}, not %s", kindOf(c))
			return
		}
		combo := map[string]any{}
		p.pairs(c, func(k, v *yaml.Node) {
			combo[k.Value] = p.matrixValue(v)
			if !namePattern().MatchString(k.Value) {
				p.add(pos(k), "%q is not a name", k.Value)
			}
		})
		list = append(list, combo)
	})
	return list
}

// matrixValue reads a scalar with its type, unless that would change its text:
// 3.10 stays text, because the number would become 3.1.
func (p *parser) matrixValue(n *yaml.Node) any {
	if !p.scalar(n, "a value") {
		return ""
	}
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return n.Value
	}
	switch n.Tag {
	case "!!int":
		if v, err := strconv.Atoi(n.Value); err == nil && strconv.Itoa(v) == n.Value {
			return v
		}
	case "!!float":
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil {
			if text, err := Text(v); err == nil && text == n.Value {
				return v
			}
		}
	case "!!bool":
		if n.Value == "true" || n.Value == "false" {
			return n.Value == "true"
		}
	}
	return n.Value
}

func (p *parser) readLock(t *target, n *yaml.Node) {
	l := &Lock{}
	if n.Kind == yaml.MappingNode {
		p.mapping(n, atLock, &target{lock: l}, nil)
	} else {
		l.Name = p.template(n)
	}
	if l.Name.IsZero() {
		p.add(pos(n), "lock needs a name, as in lock: deploy")
	}
	if t.step != nil {
		t.step.Lock = l
		return
	}
	t.file.Lock = l
}

// exponential reads a backoff.
func (p *parser) exponential(n *yaml.Node) bool {
	if n.Value != "fixed" && n.Value != "exponential" {
		p.add(pos(n), "expected fixed or exponential, not %s", kindOf(n))
	}
	return n.Value == "exponential"
}

func (p *parser) readRetry(t *target, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "retry is a mapping such as {attempts: 3, delay: 1s}, not %s", kindOf(n))
		return
	}
	r := &Retry{}
	t.step.Retry = r
	p.mapping(n, atRetry, &target{retry: r}, nil)
	if r.Attempts == 0 {
		p.add(pos(n), "retry needs attempts, as in {attempts: 3}; the first one counts")
		r.Attempts = 1
	}
}

func (p *parser) readRetryOn(t *target, n *yaml.Node) {
	t.retry.On = &RetryOn{}
	p.items(n, "exit codes, signals or timeout", func(c *yaml.Node) { p.retryOn(t.retry.On, c) })
}

func (p *parser) retryOn(on *RetryOn, n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!int":
		on.Codes = append(on.Codes, int(p.integer(n, 0, 255)))
	case n.Kind == yaml.ScalarNode && n.Value == "timeout":
		on.Timeout = true
	case n.Kind == yaml.ScalarNode:
		sig, err := ParseSignal(n.Value)
		if err != nil {
			p.add(pos(n), "expected an exit code, a signal or timeout, not %s", kindOf(n))
			return
		}
		on.Signals = append(on.Signals, sig)
	default:
		p.add(pos(n), "expected an exit code, a signal or timeout, not %s", kindOf(n))
	}
}

func (p *parser) readMaxBuffer(t *target, n *yaml.Node) {
	if !p.scalar(n, "a size such as 64KiB") {
		return
	}
	v, err := parseSize(n.Value)
	if err != nil {
		p.add(pos(n), "%s", err)
	}
	t.stage.MaxBuffer = &v
}

func (p *parser) readOnOverflow(t *target, n *yaml.Node) {
	t.stage.OnOverflow = oneOf[Overflow](p, n, overflowNames)
}

// stdioWords are the words that a descriptor may be.
var stdioWords = []string{"pipe", "inherit", "ignore"}

func (p *parser) readStdio(t *target, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		out := p.stdio(n, 1)
		in := out
		if in.Kind == StdioPipe {
			in.Kind = StdioIgnore
		}
		set(&t.stage.Stdin, in)
		set(&t.stage.Stdout, out)
		set(&t.stage.Stderr, out)
		return
	}
	i := 0
	p.items(n, "descriptors, as in [ignore, pipe, inherit]", func(c *yaml.Node) {
		if c.Kind == yaml.ScalarNode && c.Tag == "!!null" {
			i++
			return // the default
		}
		s := p.stdio(c, i)
		switch i {
		case 0:
			set(&t.stage.Stdin, s)
		case 1:
			set(&t.stage.Stdout, s)
		case 2:
			set(&t.stage.Stderr, s)
		default:
			for len(t.stage.Extra) < i-2 {
				t.stage.Extra = append(t.stage.Extra, Stdio{})
			}
			t.stage.Extra[i-3] = s
		}
		i++
	})
	if i > 10 {
		p.add(pos(n), "stdio has %d descriptors; 10 are the most that every shell can use", i)
	}
}

// set gives a descriptor its entry of stdio, unless a key of its own has set it.
func set(dst *Stdio, s Stdio) {
	if dst.Kind == StdioDefault {
		*dst = s
	}
}

// stdio reads one entry for descriptor fd.
func (p *parser) stdio(n *yaml.Node, fd int) Stdio {
	s := Stdio{Pos: pos(n)}
	if n.Kind == yaml.MappingNode {
		p.stdioMap(&s, n, fd)
		return s
	}
	words := stdioWords
	switch fd {
	case 0:
		words = []string{"inherit", "ignore"}
	case 2:
		words = append([]string{"stdout"}, stdioWords...)
	}
	if n.Kind == yaml.ScalarNode {
		switch n.Value {
		case "pipe":
			s.Kind = StdioPipe
			if fd == 0 {
				p.add(s.Pos, "stdin cannot be a pipe to the runner; give text with input, or name a {file: path}")
			} else if fd > 2 {
				p.add(s.Pos, "descriptor %d cannot be a pipe to the runner; only stdout and stderr can", fd)
			}
			return s
		case "inherit":
			s.Kind = StdioInherit
			return s
		case "ignore":
			s.Kind = StdioIgnore
			return s
		case "stdout":
			if fd == 2 {
				s.Kind = StdioStdout
				return s
			}
		case "ipc":
			p.add(s.Pos, "\"ipc\" is for fork, which this version of pipe does not support")
			return s
		}
		if fd, err := strconv.Atoi(n.Value); err == nil {
			p.add(s.Pos, "a descriptor of the runner is written {fd: %d}", fd)
			return s
		}
	}
	p.add(s.Pos, "expected %s, {file: path} or {fd: N}, not %s%s", strings.Join(words, ", "), kindOf(n), didYouMean(n.Value, words, ""))
	return s
}

func (p *parser) stdioMap(s *Stdio, n *yaml.Node, fd int) {
	p.mapping(n, atDescriptor, &target{stdio: s}, nil)
	switch {
	case s.Kind == StdioDefault:
		p.add(s.Pos, "a descriptor is %s, {file: path, append: true} or {fd: N}", strings.Join(stdioWords, ", "))
	case hasKey(n, "file") && hasKey(n, "fd"):
		p.add(s.Pos, "a descriptor is a file or an fd, not both")
	case s.Append && s.Kind == StdioFD:
		p.add(s.Pos, "append goes with file only")
	case s.Append && fd == 0:
		p.add(s.Pos, "append has no meaning for stdin")
	}
}

func (p *parser) readFile(t *target, n *yaml.Node) {
	t.stdio.Kind = StdioFile
	t.stdio.File = p.template(n)
	if t.stdio.File.IsZero() {
		p.add(pos(n), "file is empty; it takes a path")
	}
}
