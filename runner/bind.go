package runner

// This file holds binding: what expressions, levels and defaults come to for
// one stage, as a Cmd.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/safety"
)

// bound is a stage that is ready to start.
type bound struct {
	stage    *pipeline.Stage
	opts     pipeline.Options
	root     *safety.Dir
	redactor *safety.Redactor
	args     []string // argv of a program, also of an external shell
	program  string
	env      []string
	dir      string
	unset    []string
	declared []string                   // names in env that the file sets; the rest is inherited
	inherits bool                       // all of the runner's environment
	history  map[string][]safety.Origin // of env, for explain
	path     string                     // PATH to look programs up in
	text     string                     // of a shell, as it runs
	vars     []safety.Var               // that the text reads
	script   bool                       // the text is on a descriptor
	input    string
	files    [3]string // paths of stdio files
	extra    []string
	command  string // for people
}

// stepVars returns what expressions read, for a directory.
func (r *run) stepVars(dir string) pipeline.Vars {
	v := r.base
	v.Dir = dir
	if r.root != nil {
		v.Visible = func(path string) bool { _, err := r.root.Lstat(path); return err == nil }
	}
	v.Steps = r.stepValue
	return v
}

// stepValue returns a finished step as expressions see it.
func (r *run) stepValue(name string) (map[string]any, error) {
	_, i := r.p.Step(name)
	res := &r.results[i]
	v, err := r.resultValue(name, res)
	if err != nil || !r.p.Steps[i].Expands() {
		return v, err
	}
	each := make([]any, len(res.Each))
	for k := range res.Each {
		e, err := r.resultValue(fmt.Sprintf("%s.each[%d]", name, k), &res.Each[k])
		if err != nil {
			return nil, err
		}
		e["matrix"], e["item"] = res.Each[k].Matrix, res.Each[k].Item
		each[k] = e
	}
	v["each"] = each
	return v, nil
}

// resultValue returns one result as expressions see it.
func (r *run) resultValue(name string, res *StepResult) (map[string]any, error) {
	stages := make([]any, len(res.Stages))
	for j := range res.Stages {
		st := &res.Stages[j]
		stages[j] = map[string]any{"exitCode": st.Exit.Code, "signal": pipeline.SignalName(st.Exit.Signal)}
	}
	v := map[string]any{
		"status": res.Status.String(), "reason": string(res.Reason), "exitCode": res.ExitCode,
		"signal": res.Signal, "duration": res.Duration().Seconds(), "stages": stages, "stdout": "", "stderr": "", "job": res.Job,
	}
	if v["outputs"] = map[string]any{}; res.Sub != nil && res.Sub.raw != nil {
		v["outputs"] = res.Sub.raw
	}
	if len(res.Stages) == 0 {
		return v, nil
	}
	last := &res.Stages[len(res.Stages)-1]
	for key, b := range map[string]*buffer{"stdout": last.stdout, "stderr": last.stderr} {
		if b == nil {
			continue
		}
		if b.size > pipeline.MaxStepOutput {
			return nil, fmt.Errorf("steps.%s.%s has %d bytes; an expression reads at most %d; send it to a file", name, key, b.size, int64(pipeline.MaxStepOutput))
		}
		text, err := b.bytes(0)
		if err != nil {
			return nil, fmt.Errorf("steps.%s.%s: %w", name, key, err)
		}
		v[key] = strings.TrimRight(string(text), "\n")
	}
	return v, nil
}

// bind evaluates everything of a stage.
func (ex *execution) bind(st *pipeline.Stage) (*bound, error) {
	r := ex.r
	b := &bound{stage: st, opts: r.p.Options(ex.step, st), dir: r.dir, root: r.root, redactor: r.redactor}
	vars := ex.vars
	levels := r.p.Levels(ex.step, st)
	if err := r.enter(levels, &vars); err != nil {
		return nil, err
	}
	b.dir = vars.Dir
	if err := b.environment(r, levels, &vars); err != nil {
		return nil, err
	}
	if err := b.arguments(&vars); err != nil {
		return nil, err
	}
	var err error
	if b.input, err = st.Input.Eval(&vars); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	return b, b.paths(&vars)
}

// enter makes vars those of the working directory of the levels.
func (r *run) enter(levels []*pipeline.Scope, vars *pipeline.Vars) error {
	for _, lv := range levels {
		if lv.Cwd.IsZero() {
			continue
		}
		dir, err := lv.Cwd.Eval(vars)
		if err != nil {
			return fmt.Errorf("cwd: %w", err)
		}
		if dir == "" {
			return errors.New("cwd is empty; . is the current folder")
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(vars.Dir, dir)
		}
		vars.Dir = filepath.Clean(dir)
		if vars.Dir != r.dir {
			vars.Params = r.absParams // the caller's paths hold elsewhere too
		}
	}
	return nil
}

// paths evaluates the files of stdio, relative to the working directory.
func (b *bound) paths(vars *pipeline.Vars) error {
	path := func(io pipeline.Stdio) (string, error) {
		p, err := io.File.Eval(vars)
		if err == nil && p != "" && !filepath.IsAbs(p) {
			p = filepath.Join(b.dir, p)
		}
		return p, err
	}
	var err error
	for i, io := range []pipeline.Stdio{b.stage.Stdin, b.stage.Stdout, b.stage.Stderr} {
		if b.files[i], err = path(io); err != nil {
			return fmt.Errorf("%s: %w", []string{"stdin", "stdout", "stderr"}[i], err)
		}
	}
	for i, io := range b.stage.Extra {
		p, err := path(io)
		if err != nil {
			return fmt.Errorf("stdio[%d]: %w", i+3, err)
		}
		b.extra = append(b.extra, p)
	}
	return nil
}

// file returns the path of the file that a descriptor is; "" if it is none.
func (b *bound) file(fd int) string {
	switch {
	case fd < 3:
		return b.files[fd]
	case fd-3 < len(b.extra):
		return b.extra[fd-3]
	}
	return ""
}

// changesEnv reports whether a level says anything of the environment. Where
// none does, all steps share one list, which nobody changes.
func changesEnv(lv *pipeline.Scope) bool {
	return lv.Env != nil || lv.ExtendEnv != nil || len(lv.EnvFile) > 0 || len(lv.Unset) > 0
}

// environment merges the levels; the inner one wins.
func (b *bound) environment(r *run, levels []*pipeline.Scope, vars *pipeline.Vars) error {
	if !slices.ContainsFunc(levels, changesEnv) && !r.tracing {
		r.inherit.Do(func() {
			var env safety.Env
			env.Inherit(r.public)
			r.whole = env.Environ()
			var ok bool
			if r.wholePath, ok = env.Lookup("PATH"); !ok {
				r.wholePath = r.base.Env["PATH"]
			}
		})
		b.env, b.path, b.inherits = r.whole, r.wholePath, true
		return nil
	}
	env := safety.Env{}
	if r.tracing {
		env.Trace()
	}
	env.From("inherited")
	inherit := &pipeline.ExtendEnv{All: true}
	for _, lv := range levels {
		if lv.Env != nil {
			inherit = &pipeline.ExtendEnv{}
		}
	}
	for _, lv := range levels {
		if lv.ExtendEnv != nil {
			inherit = lv.ExtendEnv
		}
	}
	if b.inherits = inherit.All; inherit.All {
		env.Inherit(r.public)
	} else if err := env.InheritNamed(r.public, inherit.Names); err != nil {
		return fmt.Errorf("extendEnv: %w", err)
	}
	for _, name := range inherit.Names { // a secret by its own name only
		if value, ok := vars.Env[name]; ok && slices.Contains(r.p.Secrets, name) {
			if err := env.Set(name, value); err != nil {
				return fmt.Errorf("extendEnv: %w", err)
			}
		}
	}
	for _, lv := range levels {
		for _, f := range lv.EnvFile {
			if err := b.envFile(&env, f, vars); err != nil {
				return err
			}
		}
		for _, v := range lv.Env {
			if r.tracing {
				env.From(fmt.Sprintf("env, %s:%d", r.p.File, v.Pos.Line))
			}
			value, err := v.Value.Eval(vars)
			if err == nil {
				err = env.Set(v.Name, value)
			}
			if err != nil {
				return fmt.Errorf("env %s: %w", v.Name, err)
			}
			b.declared = append(b.declared, v.Name)
		}
		env.From("unset")
		for _, name := range lv.Unset {
			env.Unset(name)
			b.unset = append(b.unset, name)
		}
	}
	b.env, b.history = env.Environ(), env.History()
	var ok bool
	if b.path, ok = env.Lookup("PATH"); !ok {
		b.path = vars.Env["PATH"]
	}
	return nil
}

// maxEnvFile bounds a file of variables, in bytes: more than a kernel takes.
const maxEnvFile = 8 << 20

func (b *bound) envFile(env *safety.Env, f pipeline.Template, vars *pipeline.Vars) error {
	path, err := f.Eval(vars)
	if err != nil {
		return fmt.Errorf("envFile: %w", err)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.dir, path)
	}
	file, err := b.root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a FIFO would be waited for
	if err != nil {
		return &StartError{Path: path, Code: 126, Msg: fmt.Sprintf("envFile: cannot open %s: %v", path, cause(err)), Err: err}
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return &StartError{Path: path, Code: 126, Msg: fmt.Sprintf("envFile: %s is not a regular file", path), Err: err}
	}
	text, err := io.ReadAll(io.LimitReader(file, maxEnvFile+1))
	if err == nil && len(text) > maxEnvFile {
		err = fmt.Errorf("it is larger than %d bytes", maxEnvFile)
	}
	if err != nil {
		return &StartError{Path: path, Code: 126, Msg: fmt.Sprintf("envFile: cannot read %s: %v", path, cause(err)), Err: err}
	}
	names, values, err := safety.ParseEnvFile(string(text))
	if err != nil {
		return fmt.Errorf("envFile %s: %w", path, err)
	}
	env.From("envFile " + path)
	for i, name := range names {
		if err := env.Set(name, values[i]); err != nil {
			return fmt.Errorf("envFile %s: %w", path, err)
		}
	}
	b.declared = append(b.declared, names...)
	return nil
}

// arguments evaluates the program and what it is given.
func (b *bound) arguments(vars *pipeline.Vars) error {
	st := b.stage
	if st.UsesShell() {
		b.command = st.Text
		var err error
		if b.text, b.vars, err = st.BindShell(vars); err != nil {
			return err
		}
		// One of the caller's with such a name would stay exported.
		for _, v := range b.vars {
			b.env = slices.DeleteFunc(slices.Clone(b.env), func(kv string) bool { return strings.HasPrefix(kv, v.Name+"=") })
		}
		if b.opts.Shell == pipeline.ShellBuiltin {
			return nil
		}
		b.program = b.opts.Shell
		b.text = safety.Assignments(b.vars) + shellPrefix(&b.opts) + b.text
		b.args = []string{b.program, "-c", b.text}
		if b.script = len(b.vars) > 0 || len(b.text) >= maxArg; b.script {
			// The values are in the text: it comes on a descriptor, which no
			// length limits, no list of processes shows, and the shell closes.
			fd := 3 + len(st.Extra)
			if fd > 9 {
				return errors.New("shell text with values, or of more than 128 KiB, takes a descriptor of its own, and 9 is the last that every shell knows; declare fewer")
			}
			b.text = fmt.Sprintf("exec %d<&-; ", fd) + b.text
			b.args = []string{b.program, fmt.Sprintf("/dev/fd/%d", fd)}
		}
		return nil
	}
	var known []safety.Arg
	for i, a := range st.Args {
		words, err := a.EvalArgs(vars)
		if err != nil {
			return fmt.Errorf("argument %d: %w", i, err)
		}
		b.args = append(b.args, words...)
		for _, w := range words {
			known = append(known, safety.Arg{Text: w, Dynamic: a.Dynamic()})
		}
	}
	if i, why := safety.ProgramText(known); i >= 0 {
		return fmt.Errorf("argument %d: %s", i, why)
	}
	if len(b.args) == 0 || b.args[0] == "" {
		return errors.New("the program's name is empty")
	}
	b.program = b.args[0]
	shown := make([]string, len(b.args)) // a secret is masked before it is quoted
	for i, a := range b.args {
		shown[i] = b.redactor.String(a)
	}
	b.command = shellescape.QuoteCommand(shown)
	argv0, err := st.Argv0.Eval(vars)
	if err != nil {
		return fmt.Errorf("argv0: %w", err)
	}
	if argv0 != "" {
		b.args = slices.Clone(b.args)
		b.args[0] = argv0
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

// cmd looks the program up and returns what the engine starts.
func (b *bound) cmd(e Engine) (*Cmd, error) {
	path, err := lookPath(e, b.program, b.path, b.dir)
	if err != nil {
		if info, derr := os.Stat(b.dir); derr != nil || !info.IsDir() { // then that is the cause
			return nil, diagnose(&Cmd{Path: b.program, Dir: b.dir}, err)
		}
		code := 126
		if errors.Is(err, safety.ErrNotFound) {
			code = 127
		}
		return nil, &StartError{Path: b.program, Code: code, Msg: err.Error(), Err: err}
	}
	return &Cmd{Path: path, Args: b.args, Env: b.env, Dir: b.dir, UID: b.opts.UID, GID: b.opts.GID}, nil
}

// openDir opens a working directory that is confined, so that it cannot become
// another one before the child is in it; nil where nothing is confined.
func openDir(root *safety.Dir, dir string) (*os.File, error) {
	if root == nil {
		return nil, nil
	}
	f, err := root.OpenFile(dir, os.O_RDONLY, 0)
	if err == nil {
		info, serr := f.Stat()
		if serr == nil && info.IsDir() {
			return f, nil
		}
		_ = f.Close()
		err = errors.New("is not a directory")
	}
	return nil, &StartError{Path: dir, Code: 126, Msg: fmt.Sprintf("cwd %s: %v", dir, cause(err)), Err: err}
}

func lookPath(e Engine, name, path, dir string) (string, error) {
	if f, ok := e.(Finder); ok {
		return f.LookPath(name, path, dir)
	}
	return name, nil
}
