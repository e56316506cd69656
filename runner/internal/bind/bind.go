// Package bind turns a step of the language and the values of a run into a
// [step.Spec]: plain data, from which the step is run, explained, planned,
// fingerprinted and handed over.
package bind

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// Values are what a run of a pipeline is given.
type Values struct {
	Params  map[string][]string // by name, several for a list
	Args    []string            // the list args
	Dir     string              // the caller's, absolute
	Environ []string            // the runner's environment
	Root    *safety.Dir         // nothing outside of it is read; nil: nothing is confined
	RunID   string
	// Of a pipeline that a step of another one runs: which variables of Environ
	// that step, or one further out, sets, and the secrets of those pipelines.
	Nested   bool
	Declared []string
	Hidden   []string
	// Foreground makes detached steps ones like any other.
	Foreground bool
}

// Binder makes the specs of the steps of one run. It is not changed after New,
// and may be used by several goroutines at once.
type Binder struct {
	Redactor *safety.Redactor // masks the secrets; nil: there are none
	Hidden   []string         // the values of the secrets
	Public   []string         // the environment without the secrets

	p         *pipeline.Pipeline
	v         Values
	base      pipeline.Vars
	absParams map[string]any // paths made absolute, for steps elsewhere
	inherited func() environment
}

// ParamError says what is wrong with a value that the caller gave. Secrets are
// masked in its text.
type ParamError struct{ Err error }

// Error returns the text of Err.
func (e *ParamError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ParamError) Unwrap() error { return e.Err }

// New checks the values against what the pipeline declares. The pipeline must
// have been checked. The error is a [ParamError].
func New(p *pipeline.Pipeline, v Values) (*Binder, error) {
	b := &Binder{p: p, v: v}
	if err := b.secrets(); err != nil {
		return nil, err
	}
	params, err := p.ParamValues(v.Params)
	if err != nil {
		return nil, &ParamError{step.Masked(b.Redactor, err)}
	}
	env := make(map[string]string, len(v.Environ))
	for _, kv := range v.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	args := v.Args
	if args == nil {
		args = []string{}
	}
	b.base = pipeline.Vars{
		Params: params, Args: args, Env: env, Dir: v.Dir,
		Pipeline: map[string]any{"name": p.Name, "file": p.File, "dir": p.Dir, "runId": v.RunID},
	}
	if v.Root != nil {
		b.base.Visible = func(path string) bool { _, err := v.Root.Lstat(path); return err == nil }
	}
	b.absParams = map[string]any{}
	for _, prm := range p.Params {
		value := params[prm.Name]
		if s, ok := value.(string); ok && prm.Type == pipeline.ParamPath && !filepath.IsAbs(s) {
			value = filepath.Join(v.Dir, s)
		}
		b.absParams[prm.Name] = value
	}
	b.inherited = sync.OnceValue(b.inheritAll)
	return b, nil
}

// secrets takes the secrets out of what steps inherit, and prepares to mask them.
func (b *Binder) secrets() error {
	b.Public, b.Hidden = b.v.Environ, b.v.Hidden
	if len(b.p.Secrets) == 0 && len(b.Hidden) == 0 {
		return nil
	}
	b.Public = nil
	var names, values []string
	for _, kv := range b.v.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if !slices.Contains(b.p.Secrets, name) {
			b.Public = append(b.Public, kv)
			continue
		}
		names, values = append(names, name), append(values, value)
	}
	b.Hidden = append(values, b.v.Hidden...)
	var err error
	b.Redactor, err = safety.NewRedactor(b.Hidden)
	var short *safety.ShortSecretError
	if errors.As(err, &short) {
		return &ParamError{fmt.Errorf("secret %s is shorter than %d bytes: masking it would eat ordinary output; use a longer one", names[short.Index], safety.MinSecret)}
	}
	return err
}

// Vars returns what expressions read outside of any step; steps gives the results
// of steps.
func (b *Binder) Vars(steps func(name string) (map[string]any, error)) pipeline.Vars {
	v := b.base
	v.Steps = steps
	return v
}

// RunID returns the id of the run.
func (b *Binder) RunID() string { return b.v.RunID }

// Look says how a step is bound that is looked at and not run. The zero Look is
// that of a step that runs.
type Look struct {
	// Trace notes where each variable of the environment comes from.
	Trace bool
	// AsWritten says of a value that cannot be known before the run whether it
	// is shown as it is written; else it is an error. nil: it always is an error.
	AsWritten func(reads bool) bool
}

// Unknown stands for the result of a step that has not run; see [Binder.Vars].
func Unknown(name string) (map[string]any, error) {
	text := func(field string) string { return "${{ steps." + name + "." + field + " }}" }
	return map[string]any{
		"status": "success", "reason": "", "exitCode": 0, "signal": "", "duration": 0.0, "stages": []any{}, "job": text("job"),
		"stdout": text("stdout"), "stderr": text("stderr"),
	}, nil
}

// Spec binds a step. vars are those of [Binder.Vars], with matrix and item where
// the step expands; label is how the step, or its instance, is shown. The error
// is an [engine.StartError] where a file of variables cannot be read, and else
// says which value could not be had.
func (b *Binder) Spec(s *pipeline.Step, label string, vars pipeline.Vars, look Look) (*step.Spec, error) {
	e := &eval{Binder: b, step: s, vars: vars, look: look}
	spec := &step.Spec{Label: label, Timeout: s.Timeout, IdleTimeout: s.IdleTimeout, Held: b.p.Mode == pipeline.ModeAsync}
	job := s.Detached && !b.v.Foreground
	e.keeps = !s.Background && !job
	var err error
	if s.Run != nil {
		if spec.Nested, err = e.nested(s.Run); err != nil {
			return nil, err
		}
	} else if spec.Stages, err = e.stages(s.Stages); err != nil {
		return nil, err
	}
	if s.Background {
		if spec.Service, err = e.service(s); err != nil {
			return nil, err
		}
	}
	if job {
		spec.Job = e.job(s)
	}
	if spec.Sources, err = e.globs("sources", s.Sources); err == nil {
		spec.Generates, err = e.globs("generates", s.Generates)
	}
	return spec, err
}

// eval binds one step.
type eval struct {
	*Binder
	step  *pipeline.Step
	vars  pipeline.Vars // of the step
	look  Look
	keeps bool   // buffered output is kept
	dir   string // of the first stage; "": it is not known yet
}

// text returns the text of a template; key is what messages call it.
func (e *eval) text(key string, t pipeline.Template, vars *pipeline.Vars) (string, error) {
	text, err := t.Eval(vars)
	if err == nil || e.shown(t.ReadsSteps()) {
		if err != nil {
			text = t.String()
		}
		return text, nil
	}
	return "", fmt.Errorf("%s: %w", key, err)
}

// words are values of templates, by where the templates stand.
type words map[*pipeline.Template][]string

// text returns the value of a template; "" for one that is not set.
func (w words) text(t *pipeline.Template) string {
	if list := w[t]; len(list) > 0 {
		return list[0]
	}
	return ""
}

// words returns the values of all templates that each visits. Arguments may be
// several words, everything else is one.
func (e *eval) words(each func(func(key string, t *pipeline.Template)), vars *pipeline.Vars) (words, error) {
	out := words{}
	var failed error
	each(func(key string, t *pipeline.Template) {
		if failed != nil {
			return
		}
		var list []string
		if strings.HasPrefix(key, "argument ") {
			list, failed = t.EvalArgs(vars)
		} else {
			list = make([]string, 1)
			list[0], failed = t.Eval(vars)
		}
		if failed != nil && e.shown(t.ReadsSteps()) {
			list, failed = []string{t.String()}, nil
		}
		if failed != nil {
			failed = fmt.Errorf("%s: %w", key, failed)
		}
		out[t] = list
	})
	return out, failed
}

// inDir makes a path absolute; "" is none.
func inDir(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// shown reports whether a value that cannot be had is shown as it is written.
func (e *eval) shown(reads bool) bool { return e.look.AsWritten != nil && e.look.AsWritten(reads) }

func (e *eval) stages(stages []*pipeline.Stage) ([]step.Stage, error) {
	out := make([]step.Stage, len(stages))
	for i, st := range stages {
		var err error
		if st.Action == pipeline.ActionTee {
			out[i].Tee, err = e.branches(st)
		} else {
			err = e.stage(&out[i], st)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (e *eval) branches(st *pipeline.Stage) ([]step.Branch, error) {
	vars := e.vars
	if err := e.enter(e.p.Levels(e.step, st), &vars); err != nil {
		return nil, err
	}
	files, err := e.words(st.EachTemplate, &vars)
	if err != nil {
		return nil, err
	}
	out := make([]step.Branch, len(st.Tee))
	for i := range st.Tee {
		br := &st.Tee[i]
		if br.File != nil {
			out[i] = step.Branch{File: inDir(vars.Dir, files.text(&br.File.File)), Append: br.File.Append}
			continue
		}
		if out[i].Chain, err = e.stages(br.Chain); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// enter makes vars those of the working directory of the levels.
func (e *eval) enter(levels []*pipeline.Scope, vars *pipeline.Vars) error {
	for _, lv := range levels {
		if lv.Cwd.IsZero() {
			continue
		}
		dir, err := e.text("cwd", lv.Cwd, vars)
		if err != nil {
			return err
		}
		if dir == "" {
			return errors.New("cwd is empty; . is the current folder")
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(vars.Dir, dir)
		}
		vars.Dir = filepath.Clean(dir)
		if vars.Dir != e.v.Dir {
			vars.Params = e.absParams // the caller's paths hold elsewhere too
		}
	}
	return nil
}

// stage binds everything of a stage.
func (e *eval) stage(out *step.Stage, st *pipeline.Stage) error {
	o := e.p.Options(e.step, st)
	vars := e.vars
	levels := e.p.Levels(e.step, st)
	if err := e.enter(levels, &vars); err != nil {
		return err
	}
	if e.dir == "" {
		e.dir = vars.Dir
	}
	env, err := e.environment(levels, &vars)
	if err != nil {
		return err
	}
	*out = step.Stage{
		Dir: vars.Dir, Env: env.vars, Path: env.path, Inherits: env.inherits, Declared: env.declared, Unset: env.unset, Origins: env.origins,
		UID: clone(o.UID), GID: clone(o.GID), KillSignal: o.KillSignal, KillAfter: o.KillAfter, Drain: o.Drain, SigpipeFails: o.SigpipeErr,
		SuccessCodes: slices.Clone(st.SuccessCodes),
	}
	if st.Buffered() && e.keeps {
		out.Keep = &step.Keep{Max: st.BufferLimit(), Overflow: overflows[st.OnOverflow]}
	}
	vals, err := e.words(st.EachTemplate, &vars)
	if err != nil {
		return err
	}
	if st.UsesShell() {
		err = e.shell(out, st, &o, &vars)
	} else {
		err = e.arguments(out, st, vals)
	}
	stdio(out, st, vals)
	return err
}

var overflows = map[pipeline.Overflow]step.Overflow{
	pipeline.OverflowSpill: step.OverflowSpill, pipeline.OverflowKill: step.OverflowKill, pipeline.OverflowTruncate: step.OverflowTruncate,
}

// stdio binds the descriptors.
func stdio(out *step.Stage, st *pipeline.Stage, vals words) {
	list := []*pipeline.Stdio{&st.Stdin, &st.Stdout, &st.Stderr}
	for i := range st.Extra {
		list = append(list, &st.Extra[i])
	}
	out.Stdio = make([]step.Stdio, len(list))
	for fd, io := range list {
		out.Stdio[fd] = step.Stdio{Kind: stdioKinds[io.Kind], Append: io.Append, FD: io.FD, Path: inDir(out.Dir, vals.text(&io.File))}
		if io.Kind == pipeline.StdioDefault {
			out.Stdio[fd].Kind = defaultStdio(fd)
		}
	}
	if !st.Input.IsZero() {
		out.Stdio[0].Kind, out.Input = step.StdioInput, vals.text(&st.Input)
	}
}

var stdioKinds = map[pipeline.StdioKind]step.StdioKind{
	pipeline.StdioPipe: step.StdioPipe, pipeline.StdioInherit: step.StdioInherit, pipeline.StdioIgnore: step.StdioIgnore,
	pipeline.StdioFile: step.StdioFile, pipeline.StdioFD: step.StdioFD, pipeline.StdioStdout: step.StdioStdout,
}

func defaultStdio(fd int) step.StdioKind {
	switch fd {
	case 0:
		return step.StdioIgnore
	case 1, 2:
		return step.StdioPipe
	}
	return step.StdioClosed
}

// shell binds shell text.
func (e *eval) shell(out *step.Stage, st *pipeline.Stage, o *pipeline.Options, vars *pipeline.Vars) error {
	out.Written, out.Command = st.Text, e.Redactor.String(st.Text)
	out.Shell, out.Set = o.Shell, slices.Clone(o.Set)
	text, values, err := st.BindShell(vars)
	if err != nil {
		if !e.shown(st.ReadsSteps()) {
			return err
		}
		text, values = st.Text, nil
	}
	// One of the caller's with such a name would stay exported.
	for _, v := range values {
		out.Env = slices.DeleteFunc(slices.Clone(out.Env), func(kv string) bool { return strings.HasPrefix(kv, v.Name+"=") })
	}
	if o.Shell == pipeline.ShellBuiltin {
		out.Shell, out.Text, out.Vars = step.BuiltinShell, text, values
		return nil
	}
	out.Program = o.Shell
	text = safety.Assignments(values) + shellPrefix(o) + text
	out.Args = []string{out.Program, "-c", text}
	if len(values) > 0 || len(text) >= engine.MaxArg {
		// The values are in the text: it comes on a descriptor, which no
		// length limits, no list of processes shows, and the shell closes.
		fd := 3 + len(st.Extra)
		if fd > 9 {
			return errors.New("shell text with values, or of more than 128 KiB, takes a descriptor of its own, and 9 is the last that every shell knows; declare fewer")
		}
		out.Script, out.Text = true, fmt.Sprintf("exec %d<&-; ", fd)+text
		out.Args = []string{out.Program, fmt.Sprintf("/dev/fd/%d", fd)}
	}
	return nil
}

// shellPrefix sets the shell options in the text itself, on its first line, so
// that line numbers stay. A default that the shell lacks is left out; command
// keeps a failing set, which is a special built-in, from ending the shell.
func shellPrefix(o *pipeline.Options) string {
	var b strings.Builder
	for _, name := range o.Set {
		if o.SetGiven() || name == "errexit" {
			fmt.Fprintf(&b, "set -o %s; ", name)
		} else {
			fmt.Fprintf(&b, "command set -o %s 2>/dev/null || :; ", name)
		}
	}
	return b.String()
}

// arguments binds a program and what it is given.
func (e *eval) arguments(out *step.Stage, st *pipeline.Stage, vals words) error {
	out.Args = make([]string, 0, len(st.Args))
	shown := make([]string, 0, len(st.Args)) // a secret is masked before it is quoted
	known := make([]safety.Arg, 0, len(st.Args))
	for i := range st.Args {
		a := &st.Args[i]
		out.Args = append(out.Args, vals[a]...)
		written := e.look.AsWritten != nil && (a.ReadsSteps() || slices.Equal(vals[a], []string{a.String()}) && a.HasExpr())
		for _, w := range vals[a] {
			known = append(known, safety.Arg{Text: w, Dynamic: a.Dynamic()})
			if !written {
				w = shellescape.Quote(e.Redactor.String(w))
			}
			shown = append(shown, w)
		}
	}
	if i, why := safety.ProgramText(known); i >= 0 {
		return fmt.Errorf("argument %d: %s", i, why)
	}
	if len(out.Args) == 0 || out.Args[0] == "" {
		return errors.New("the program's name is empty")
	}
	out.Program, out.Command = out.Args[0], strings.Join(shown, " ")
	if name := vals.text(&st.Argv0); name != "" {
		out.Args[0] = name
	}
	return nil
}

// nested binds a step that runs another pipeline.
func (e *eval) nested(inc *pipeline.Include) (*step.Nested, error) {
	vars := e.vars
	levels := e.p.Levels(e.step, &pipeline.Stage{})
	if err := e.enter(levels, &vars); err != nil {
		return nil, err
	}
	e.dir = vars.Dir
	env, err := e.environment(levels, &vars)
	if err != nil {
		return nil, err
	}
	n := &step.Nested{
		Path: inc.Path, File: absolute(inc.Pipeline.File), Dir: vars.Dir, Env: env.vars,
		Inherits: env.inherits, Declared: env.declared, Unset: env.unset, Origins: env.origins,
	}
	given := e.vars
	given.Params = vars.Params // a path of the caller holds where the pipeline runs, too
	for _, w := range inc.With {
		words, err := w.Value.EvalArgs(&given)
		if err != nil {
			if !e.shown(w.Value.ReadsSteps()) {
				return nil, fmt.Errorf("with %s: %w", w.Name, err)
			}
			words = []string{w.Value.String()}
		}
		n.With = append(n.With, step.Param{Name: w.Name, Values: words})
	}
	return n, nil
}

// clone copies what a pointer points to, so that a Spec shares nothing with the
// model.
func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func absolute(file string) string {
	if file == "" {
		return ""
	}
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

// service binds how it is known that a service can be used.
func (e *eval) service(s *pipeline.Step) (*step.Service, error) {
	r := s.Ready
	if r == nil {
		return &step.Service{}, nil
	}
	vars := e.vars
	if err := e.enter(e.p.Levels(s, s.Stages[0]), &vars); err != nil {
		return nil, err
	}
	out := &step.Ready{Log: r.Log, Notify: r.Notify, Timeout: r.Limit()}
	var err error
	if out.TCP, err = e.text("ready: tcp", r.TCP, &vars); err != nil {
		return nil, err
	}
	if out.HTTP, err = e.text("ready: http", r.HTTP, &vars); err != nil {
		return nil, err
	}
	if r.Exec != nil {
		st := *r.Exec
		if st.Scope == nil {
			st.Scope = s.Stages[0].Scope
		}
		st.Stdout, st.Stderr = pipeline.Stdio{Kind: pipeline.StdioIgnore}, pipeline.Stdio{Kind: pipeline.StdioIgnore}
		out.Exec = &step.Stage{}
		if err := e.stage(out.Exec, &st); err != nil {
			return nil, fmt.Errorf("ready: exec: %w", err)
		}
	}
	return &step.Service{Ready: out}, nil
}

// job binds what a step that outlives the runner needs besides.
func (e *eval) job(s *pipeline.Step) *step.Job {
	j := &step.Job{
		Unref: s.Unref, File: absolute(e.p.File), Dir: e.v.Dir, Params: maps.Clone(e.v.Params), Args: slices.Clone(e.v.Args), Nested: e.v.Nested, Hidden: slices.Clone(e.Hidden),
		Restart: step.Restart{Policy: step.RestartNever},
	}
	r := s.Restart
	if r == nil {
		r = &pipeline.Restart{}
	}
	j.Restart = step.Restart{Policy: step.RestartPolicy(r.Policy.String()), Delay: r.FirstDelay(), Fixed: r.Fixed, Most: r.RestartLimit(), Window: r.Span()}
	return j
}

// globs binds patterns of files.
func (e *eval) globs(key string, globs []pipeline.Glob) ([]step.Glob, error) {
	if globs == nil {
		return nil, nil
	}
	vars := e.vars
	if vars.Dir = e.dir; vars.Dir != e.v.Dir {
		vars.Params = e.absParams
	}
	out := make([]step.Glob, 0, len(globs))
	for _, g := range globs {
		patterns, err := g.Pattern.EvalGlob(&vars)
		if err != nil {
			if !e.shown(g.Pattern.ReadsSteps()) {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			patterns = []string{g.Pattern.String()}
		}
		for _, p := range patterns {
			out = append(out, step.Glob{Pattern: p, Not: g.Not})
		}
	}
	return out, nil
}
