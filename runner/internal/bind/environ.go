package bind

import (
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/safety"
)

// environment is what the levels of one stage come to.
type environment struct {
	vars     []string // NAME=value
	path     string   // where programs are looked up
	inherits bool     // all of the runner's are below
	declared []string // names that the file sets
	unset    []string
	origins  map[string][]safety.Origin // nil unless asked for
}

// inheritAll returns the environment of stages whose levels say nothing of it.
// They share the list, which nobody changes.
func (b *Binder) inheritAll() environment {
	var env safety.Env
	env.Inherit(b.Public)
	return environment{vars: env.Environ(), path: b.searchPath(&env), inherits: true}
}

// searchPath returns the PATH of an environment or, where it has none, the
// runner's.
func (b *Binder) searchPath(env *safety.Env) string {
	if path, ok := env.Lookup("PATH"); ok {
		return path
	}
	return b.base.Env["PATH"]
}

// changesEnv reports whether a level says anything of the environment.
func changesEnv(lv *pipeline.Scope) bool {
	return lv.Env != nil || lv.ExtendEnv != nil || len(lv.EnvFile) > 0 || len(lv.Unset) > 0
}

// environment merges the levels; the inner one wins.
func (e *eval) environment(levels []*pipeline.Scope, vars *pipeline.Vars) (environment, error) {
	if !slices.ContainsFunc(levels, changesEnv) && !e.look.Trace {
		return e.inherited(), nil
	}
	var env safety.Env
	var out environment
	if e.look.Trace {
		env.Trace()
	}
	env.From("inherited")
	if err := e.inherit(&env, levels, &out); err != nil {
		return out, fmt.Errorf("extendEnv: %w", err)
	}
	for _, lv := range levels {
		if err := e.level(&env, lv, vars, &out); err != nil {
			return out, err
		}
	}
	out.vars, out.path, out.origins = env.Environ(), e.searchPath(&env), env.History()
	return out, nil
}

// inherit puts below all levels what they take of the runner's environment.
func (e *eval) inherit(env *safety.Env, levels []*pipeline.Scope, out *environment) error {
	from := &pipeline.ExtendEnv{All: true}
	for _, lv := range levels {
		if lv.Env != nil {
			from = &pipeline.ExtendEnv{}
		}
	}
	for _, lv := range levels {
		if lv.ExtendEnv != nil {
			from = lv.ExtendEnv
		}
	}
	if out.inherits = from.All; from.All {
		env.Inherit(e.Public)
	} else if err := env.InheritNamed(e.Public, from.Names); err != nil {
		return err
	}
	for _, name := range from.Names { // a secret by its own name only
		if value, ok := e.base.Env[name]; ok && slices.Contains(e.p.Secrets, name) {
			if err := env.Set(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// level adds what one level sets and takes away what it unsets.
func (e *eval) level(env *safety.Env, lv *pipeline.Scope, vars *pipeline.Vars, out *environment) error {
	vals, err := e.words(func(f func(string, *pipeline.Template)) {
		lv.EachTemplate(func(key string, t *pipeline.Template) {
			if t != &lv.Cwd { // relative to the outer level's, and known already
				f(key, t)
			}
		})
	}, vars)
	if err != nil {
		return err
	}
	for i := range lv.EnvFile {
		names, err := e.envFile(env, inDir(vars.Dir, vals.text(&lv.EnvFile[i])))
		if err != nil {
			return err
		}
		out.declared = append(out.declared, names...)
	}
	for i := range lv.Env {
		v := &lv.Env[i]
		if e.look.Trace {
			env.From(fmt.Sprintf("env, %s:%d", e.p.File, v.Pos.Line))
		}
		if err := env.Set(v.Name, vals.text(&v.Value)); err != nil {
			return fmt.Errorf("env %s: %w", v.Name, err)
		}
		out.declared = append(out.declared, v.Name)
	}
	env.From("unset")
	for _, name := range lv.Unset {
		env.Unset(name)
	}
	out.unset = append(out.unset, lv.Unset...)
	return nil
}

// maxEnvFile bounds a file of variables, in bytes: more than a kernel takes.
const maxEnvFile = 8 << 20

// envFile adds the variables of a file, and returns their names.
func (e *eval) envFile(env *safety.Env, path string) ([]string, error) {
	text, err := readEnvFile(e.v.Root, path)
	if err != nil && e.shown(false) { // a step may make it
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, values, err := safety.ParseEnvFile(text)
	if err != nil {
		return nil, fmt.Errorf("envFile %s: %w", path, err)
	}
	env.From("envFile " + path)
	for i, name := range names {
		if err := env.Set(name, values[i]); err != nil {
			return nil, fmt.Errorf("envFile %s: %w", path, err)
		}
	}
	return names, nil
}

// readEnvFile returns the text of a file of variables. The error is a
// [engine.StartError].
func readEnvFile(root *safety.Dir, path string) (string, error) {
	bad := func(err error, format string, args ...any) error {
		return &engine.StartError{Path: path, Msg: "envFile: " + fmt.Sprintf(format, args...), Err: err}
	}
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a FIFO would be waited for
	if err != nil {
		return "", bad(err, "cannot open %s: %v", path, osfile.Cause(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", bad(err, "%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err == nil && len(text) > maxEnvFile {
		err = fmt.Errorf("it is larger than %d bytes", maxEnvFile)
	}
	if err != nil {
		return "", bad(err, "cannot read %s: %v", path, osfile.Cause(err))
	}
	return string(text), nil
}
