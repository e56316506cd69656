package pipeline

import (
	"fmt"
	pathpkg "path"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/pipe-runner/pipe/safety"
)

// Rule is one thing that the linter looks for.
type Rule struct {
	Name string
	Help string // what is wrong with it, one sentence
	Bad  string // a pipeline that the rule finds something in
	Good string // the same without
}

// Rules returns the rules of [Pipeline.Lint], in the order of their names.
func Rules() []Rule { return slices.Clone(rules) }

// Finding is one place that a rule found.
type Finding struct {
	Rule string
	File string
	Pos  Pos
	Msg  string
}

// String returns "file:line:col: warning: message [rule]".
func (f Finding) String() string {
	e := Error{File: f.File, Pos: f.Pos, Msg: fmt.Sprintf("warning: %s [%s]", f.Msg, f.Rule)}
	return e.Error()
}

var rules = []Rule{
	{"always-true", "A condition without any name in it always has the same value.",
		"steps: [{if: \"1 < 2\", spawn: [echo]}]",
		"params: {deploy: {type: bool, default: false}}\nsteps: [{if: params.deploy, spawn: [echo]}]"},
	{"cleanup-at-once", "In mode: async a step waits for its needs only, so one that cleans up and needs nothing runs while the others do.",
		"mode: async\nsteps: [{name: build, spawn: [echo]}, {name: clean, if: always(), spawn: [echo]}]",
		"mode: async\nsteps: [{name: build, spawn: [echo]}, {name: clean, needs: [build], if: always(), spawn: [echo]}]"},
	{"env-without-path", "An env replaces the inherited environment: without PATH the programs that a program starts are not found, without HOME many find no settings.",
		"steps: [{spawn: [make], env: {CC: clang}}]",
		"steps: [{spawn: [make], env: {CC: clang}, extendEnv: [PATH, HOME]}]"},
	{"inherited-env", "A variable that changes how programs load and run is set here, and reaches steps because they inherit the whole environment.",
		"steps: [{spawn: [make]}]",
		"extendEnv: [PATH, HOME]\nsteps: [{spawn: [make]}]"},
	{"mask-has-no-effect", "Output that does not pass through the runner cannot be masked.",
		"secrets: [TOKEN]\nsteps: [{spawn: [deploy], extendEnv: [PATH, TOKEN], stdout: inherit}]",
		"secrets: [TOKEN]\nsteps: [{spawn: [deploy], extendEnv: [PATH, TOKEN]}]"},
	{"needs-in-sync", "In mode: sync each step waits for the one before it, so needs changes nothing but what is skipped after a failure.",
		"steps: [{name: a, spawn: [echo]}, {needs: [a], spawn: [echo]}]",
		"mode: async\nsteps: [{name: a, spawn: [echo]}, {needs: [a], spawn: [echo]}]"},
	{"option-injection", "A value that begins with - is read as an option by this program.",
		"params: {file: {}}\nsteps: [{spawn: [rm, \"${{ params.file }}\"]}]",
		"params: {file: {}, dir: {type: path}}\nsteps: [{spawn: [rm, --, \"${{ params.file }}\"]}, {spawn: [ls, \"${{ params.dir }}\"]}]"},
	{"program-text", "The program reads this argument as a program of its own language, which can do more than it seems.",
		"params: {name: {}}\nsteps: [{spawn: [sed, \"s/NAME/${{ params.name }}/\"]}]",
		"params: {name: {}}\nsteps: [{spawn: [perl, -pe, \"s/NAME/$ENV{NAME}/\"], env: {NAME: \"${{ params.name }}\"}, extendEnv: [PATH, HOME]}]"},
	{"raw", "raw() lets a value become program text.",
		"params: {flags: {}}\nsteps: [{exec: \"make ${{ raw(params.flags) }}\"}]",
		"params: {flags: {type: list}}\nsteps: [{exec: \"make ${{ params.flags }}\"}]"},
	{"services-alone", "Services end when nothing leans on them any more: without another step that is at once.",
		"steps: [{background: true, spawn: [server]}]",
		"steps: [{background: true, spawn: [server]}, {spawn: [sleep, infinity]}]"},
	{"unquoted-expansion", "What an unquoted expansion gives is split at blanks and expanded as file patterns.",
		"steps: [{exec: \"f=$1; rm -- $f\"}]",
		"steps: [{exec: \"f=$1; rm -- \\\"$f\\\"\"}]"},
}

// Lint returns what the rules find in a checked pipeline, in order of place. A
// comment "# pipe:ignore RULE …" on a line, or alone on the line above it,
// silences rules there. environ is the environment that the pipeline would run
// in; the rule inherited-env looks at it.
func (p *Pipeline) Lint(environ []string) []Finding {
	l := &linter{p: p, report: report{file: p.File, lines: p.lines}}
	l.run(environ)
	var out []Finding
	for i, e := range l.errs {
		if !l.ignored(e.Pos.Line, l.names[i]) {
			out = append(out, Finding{l.names[i], e.File, e.Pos, e.Msg})
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Col - b.Pos.Col
	})
	return out
}

type linter struct {
	report
	p     *Pipeline
	names []string // the rule of each of errs
}

func (l *linter) find(rule string, at Pos, format string, args ...any) {
	l.names = append(l.names, rule)
	l.add(at, format, args...)
}

// ignored reports whether a comment silences a rule at a line.
func (l *linter) ignored(line int, rule string) bool {
	if line < 1 || line > len(l.lines) {
		return false
	}
	silences := func(text string) bool {
		_, names, ok := strings.Cut(text, "# pipe:ignore ")
		return ok && slices.Contains(strings.FieldsFunc(names, func(r rune) bool { return r == ' ' || r == ',' || r == ':' || r == '\r' }), rule)
	}
	if silences(string(l.lines[line-1])) {
		return true
	}
	above := ""
	if line > 1 {
		above = strings.TrimSpace(string(l.lines[line-2]))
	}
	return strings.HasPrefix(above, "#") && silences(above)
}

func (l *linter) run(environ []string) {
	inherits := false
	for i, s := range l.p.Steps {
		if s.If != nil {
			l.condition(s.If)
		}
		if l.p.Mode == ModeSync && len(s.Needs) > 0 && !l.service(s.Needs) {
			l.find("needs-in-sync", s.Needs[0].Pos, "needs in mode: sync: every step waits for the one before it anyway; write mode: async, or leave it out")
		}
		if l.p.Mode == ModeAsync && i > 0 && s.If.RunsAfterFailure() && len(l.p.graph.Needs[i]) == 0 {
			l.find("cleanup-at-once", s.Pos, "the step cleans up, and needs nothing: it runs at once, beside the others; add needs: with the steps that it cleans up after")
		}
		s.EachExpr(func(_ string, e *Expr) {
			if e.raw {
				l.find("raw", e.pos(), "raw() lets the value become program text")
			}
		})
		l.stages(s, s.Stages, i)
		for _, st := range s.Stages {
			inherits = inherits || st.Action != ActionTee && l.p.inheritsAll(s, st)
		}
	}
	if n := len(l.p.Steps); n > 0 && !slices.ContainsFunc(l.p.Steps, func(s *Step) bool { return !s.Background }) {
		l.find("services-alone", l.p.Steps[0].Pos, "all steps are services, which end when nothing leans on them: at once; add a step that uses them, or that waits, as spawn: [sleep, infinity] does")
	}
	l.levels()
	if inherits {
		l.inherited(environ)
	}
}

// service reports whether one of the needs is a service. A step that is run by
// its name has a service only if it needs it, so such a need has a use.
func (l *linter) service(needs []Ref) bool {
	return slices.ContainsFunc(needs, func(r Ref) bool {
		s, _ := l.p.Step(r.Name)
		return s != nil && s.Background
	})
}

// condition finds an if without a name in it.
func (l *linter) condition(e *Expr) {
	names := false
	node := e.prog.Node()
	ast.Walk(&node, visitor(func(n *ast.Node) {
		switch (*n).(type) {
		case *ast.IdentifierNode, *ast.CallNode:
			names = true
		}
	}))
	if !names {
		l.find("always-true", e.pos(), "the condition holds no name, so it is always the same; compare with a value, as in params.x == \"y\"")
	}
}

type visitor func(*ast.Node)

// Visit makes visitor one of expr-lang.
func (v visitor) Visit(n *ast.Node) { v(n) }

// inheritsAll reports whether a stage gets the whole environment of the runner.
func (p *Pipeline) inheritsAll(s *Step, st *Stage) bool {
	all := true
	levels := p.Levels(s, st)
	for _, lv := range levels {
		all = all && lv.Env == nil
	}
	for _, lv := range levels {
		if lv.ExtendEnv != nil {
			all = lv.ExtendEnv.All
		}
	}
	return all
}

// changing are variables that make programs load or run something else.
var changing = []string{"NODE_OPTIONS", "PYTHONSTARTUP", "PYTHONPATH", "PERL5OPT", "PERL5LIB", "RUBYOPT", "JAVA_TOOL_OPTIONS", "GIT_DIR", "GIT_WORK_TREE", "GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_GLOBAL", "MAKEFLAGS", "GREP_OPTIONS", "IFS", "CDPATH", "GLIBC_TUNABLES"}

func (l *linter) inherited(environ []string) {
	var names []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains(changing, name) || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "DYLD_") {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		l.find("inherited-env", l.p.Steps[0].Pos, "%s is set here and changes how programs run; steps inherit it with the whole environment: name what they need with extendEnv", strings.Join(names, ", "))
	}
}

// levels finds an env that leaves a program without PATH.
func (l *linter) levels() {
	for _, s := range l.p.Steps {
		for _, st := range s.Stages {
			if st.Action == ActionTee {
				continue
			}
			path := false
			var first *EnvVar // that was given, in the innermost level
			for _, lv := range l.p.Levels(s, st) {
				for i := range lv.Env {
					path = path || lv.Env[i].Name == "PATH"
				}
				path = path || len(lv.EnvFile) > 0 // the file may set it
				if lv.Env != nil && len(lv.Env) == 0 {
					path = true // whoever writes {} means an empty environment
				}
				if len(lv.Env) > 0 {
					first = &lv.Env[0]
				}
			}
			extend := l.p.extends(s, st)
			path = path || slices.ContainsFunc(extend.Names, func(n string) bool { m, _ := pathpkg.Match(n, "PATH"); return m })
			if first == nil || path || extend.All || l.has("env-without-path", first.Pos) {
				continue
			}
			l.find("env-without-path", first.Pos, "env replaces the environment, so the program has no PATH and no HOME; add extendEnv: [PATH, HOME], or give them")
		}
	}
}

// extends returns what a stage inherits by extendEnv; never nil.
func (p *Pipeline) extends(s *Step, st *Stage) *ExtendEnv {
	e := &ExtendEnv{}
	for _, lv := range p.Levels(s, st) {
		if lv.ExtendEnv != nil {
			e = lv.ExtendEnv
		}
	}
	return e
}

func (l *linter) has(rule string, at Pos) bool {
	for i, e := range l.errs {
		if l.names[i] == rule && e.Pos == at {
			return true
		}
	}
	return false
}

func (l *linter) stages(s *Step, stages []*Stage, step int) {
	for i, st := range stages {
		if st.Action == ActionTee {
			for _, b := range st.Tee {
				l.stages(s, b.Chain, step)
			}
			continue
		}
		l.secrets(s, st, i < len(stages)-1)
		if st.UsesShell() {
			l.shellText(s, st)
		} else {
			l.arguments(st)
		}
	}
}

// secrets finds output of a stage that gets a secret and cannot be masked.
func (l *linter) secrets(s *Step, st *Stage, middle bool) {
	if len(l.p.Secrets) == 0 {
		return
	}
	secret := ""
	for _, name := range l.p.Secrets {
		if slices.Contains(l.p.extends(s, st).Names, name) {
			secret = name
		}
		reads := func(_ string, e *Expr) {
			if e.readsEnv(name) {
				secret = name
			}
		}
		st.eachExpr(reads)
		for _, lv := range l.p.Levels(s, st) {
			lv.EachTemplate(eachExpr(reads))
		}
	}
	if secret == "" {
		return
	}
	for _, out := range []struct {
		name string
		io   Stdio
	}{{"stdout", st.Stdout}, {"stderr", st.Stderr}} {
		switch out.io.Kind {
		case StdioInherit, StdioFile, StdioFD:
			l.find("mask-has-no-effect", out.io.Pos, "%s of a step that has the secret %s does not pass through the runner, so nothing in it is masked", out.name, secret)
		}
	}
	if middle {
		l.find("mask-has-no-effect", st.Pos, "what a step that has the secret %s writes to the next stage is not masked on its way", secret)
	}
}

// readsEnv reports whether the expression reads a variable of the runner.
func (e *Expr) readsEnv(name string) bool {
	found := false
	node := e.prog.Node()
	ast.Walk(&node, visitor(func(n *ast.Node) {
		if m, ok := (*n).(*ast.MemberNode); ok {
			id, isID := m.Node.(*ast.IdentifierNode)
			prop, isText := m.Property.(*ast.StringNode)
			found = found || isID && isText && id.Value == "env" && prop.Value == name
		}
	}))
	return found
}

// optionTakers are common programs that read an argument with a - as an option.
var optionTakers = strings.Fields("ar basename bzip2 cat chgrp chmod chown cmp cp curl cut date dd df diff dirname du egrep fgrep file find grep gunzip gzip head install kill ln ls make mkdir mktemp mv patch ping ps readlink rm rmdir rsync scp sed sort split ssh stat strings tail tar tee touch tr tsort uniq unlink unzip wc wget xargs xz yq zip")

func (l *linter) arguments(st *Stage) {
	name := ""
	if len(st.Args) > 0 && !st.Args[0].HasExpr() {
		name = base(st.Args[0].String())
	}
	dashes := false
	for i, a := range st.Args[min(1, len(st.Args)):] {
		switch {
		case a.String() == "--":
			dashes = true
		case !a.HasExpr():
		case programOf(name, st.Args, i+1):
			l.find("program-text", a.pos(), "%s reads this argument as a program in its own language; hand the value over in another way, such as a file, stdin or a variable", name)
		case !dashes && a.start() == "" && !strings.HasPrefix(st.Args[i].String(), "-") && slices.Contains(optionTakers, name) && !l.harmless(a):
			l.find("option-injection", a.pos(), "a value that begins with - is an option to %s; write [%s, --, %s], or declare the parameter with type: path", name, name, a)
		}
	}
}

// programOf reports whether argument i is a program in the language of sed, jq
// or a database's client.
func programOf(name string, args []Template, i int) bool {
	before := args[i-1].String()
	switch name {
	case "psql":
		return before == "-c" || before == "--command"
	case "mysql", "mariadb":
		return before == "-e" || before == "--execute"
	case "sed":
		if before == "-e" || before == "--expression" {
			return true
		}
	case "jq":
	default:
		return false
	}
	for k := 1; k < i; k++ { // the first word that belongs to no option
		switch word := args[k].String(); {
		case word == "-e" || word == "-f" || word == "--expression" || word == "--file" || word == "--from-file":
			return false
		case word == "--arg" || word == "--argjson" || word == "--slurpfile" || word == "--rawfile":
			if k += 2; k >= i {
				return false
			}
		case !strings.HasPrefix(word, "-"):
			return false
		}
	}
	return true
}

// harmless reports whether the value is a number or cannot begin with a dash.
func (l *linter) harmless(a Template) bool {
	e := a.tmpl.exprs[0]
	for _, prm := range l.p.Params {
		if prm.Name != e.param() {
			continue
		}
		switch prm.Type {
		case ParamPath, ParamInt, ParamNumber, ParamBool:
			return true
		}
		return len(prm.Enum) > 0 && !slices.ContainsFunc(prm.Enum, func(s string) bool { return strings.HasPrefix(s, "-") }) || prm.Pattern != "" && !prm.matches("-")
	}
	return strings.HasPrefix(e.src, "pipeline.") || strings.HasPrefix(e.src, "host.") || strings.HasSuffix(e.src, ".exitCode") || strings.HasSuffix(e.src, ".duration")
}

// matches reports whether a value with that beginning may match the pattern of
// the parameter, as far as a few samples show.
func (prm *Param) matches(begin string) bool {
	for _, s := range []string{begin, begin + "a", begin + "A", begin + "0", begin + "-a", begin + "-aa", begin + "rf"} {
		if prm.match != nil && prm.match(s) {
			return true
		}
	}
	return false
}

// shellText finds unquoted expansions in shell text.
func (l *linter) shellText(s *Step, st *Stage) {
	text := st.shell
	if text == nil { // no expressions, and perhaps of a shell that parses it itself
		var err error
		if text, err = st.parse(nil, safety.DialectOf(l.p.Options(s, st).Shell)); err != nil {
			return
		}
	}
	for _, e := range text.Unquoted() {
		l.find("unquoted-expansion", st.place(e.Place), "%s without quotes is split into words and expanded as file patterns; write \"%s\"", e.Text, e.Text)
	}
}
