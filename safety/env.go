package safety

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Env is a set of environment variables. The zero value is empty and inherits
// nothing; see [Env.Inherit]. An Env is not safe for concurrent use.
type Env struct {
	vars   map[string]string
	trace  map[string][]Origin // nil: Trace was not called
	source string
}

// Origin is where a variable was given a value.
type Origin struct {
	Source string
	Value  string
	Unset  bool // it was removed
}

// Trace makes the set remember where each variable comes from; see [Env.History].
func (e *Env) Trace() { e.trace = map[string][]Origin{} }

// From names the source of the variables that are set from now on.
func (e *Env) From(source string) { e.source = source }

// History returns, for each variable, where it was given its values, in order of
// time: the last one holds. Variables that were removed are in it too. It is nil
// unless [Env.Trace] was called before.
func (e *Env) History() map[string][]Origin { return e.trace }

// byNameOnly are variables that make a shell run code at its start, or that
// carry its inner state: they are inherited only where they are named.
var byNameOnly = []string{"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4"}

// never are variables that name the message channel of the runner's own
// parent: a child that was not given a channel must not take it for its own.
var never = []string{"NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID"}

func needsName(name string) bool {
	return slices.Contains(byNameOnly, name) || strings.HasPrefix(name, "BASH_FUNC_")
}

// Inherit adds the variables of environ ("NAME=value" each) that a child gets
// without naming them: all but BASH_ENV and its like, and the channel of the
// runner's own parent.
func (e *Env) Inherit(environ []string) {
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || needsName(name) || slices.Contains(never, name) {
			continue
		}
		e.put(name, value)
	}
}

// InheritNamed adds the variables of environ whose name is in the list or
// matches a glob in it, as of [path.Match]. A glob does not match BASH_ENV and
// its like. The error names a malformed glob.
func (e *Env) InheritNamed(environ []string, names []string) error {
	for _, n := range names {
		if _, err := path.Match(n, ""); err != nil {
			return fmt.Errorf("%q is not a name or a glob", n)
		}
	}
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || slices.Contains(never, name) {
			continue
		}
		for _, n := range names {
			if m, _ := path.Match(n, name); n == name || m && !needsName(name) {
				e.put(name, value)
				break
			}
		}
	}
	return nil
}

// Set gives a variable its value. An empty name, a = in it, or a NUL in either
// is an error.
func (e *Env) Set(name, value string) error {
	switch {
	case name == "":
		return fmt.Errorf("a variable's name is empty")
	case strings.ContainsAny(name, "=\x00"):
		return fmt.Errorf("%q is not a variable's name: it holds a = or NUL", name)
	case strings.ContainsRune(value, 0):
		return fmt.Errorf("the value of %s holds a NUL byte", name)
	case slices.Contains(never, name):
		return fmt.Errorf("%s is for children with a message channel only", name)
	}
	e.put(name, value)
	return nil
}

func (e *Env) put(name, value string) {
	if e.vars == nil {
		e.vars = map[string]string{}
	}
	e.vars[name] = value
	if e.trace != nil {
		e.trace[name] = append(e.trace[name], Origin{Source: e.source, Value: value})
	}
}

// Unset removes a variable; one that is not there is no error.
func (e *Env) Unset(name string) {
	if _, ok := e.vars[name]; ok && e.trace != nil {
		e.trace[name] = append(e.trace[name], Origin{Source: e.source, Unset: true})
	}
	delete(e.vars, name)
}

// Lookup returns a variable and whether it is there.
func (e *Env) Lookup(name string) (string, bool) {
	v, ok := e.vars[name]
	return v, ok
}

// Environ returns the variables as "NAME=value", sorted, each name once. It is
// never nil, because a nil list means to inherit in package os/exec.
func (e *Env) Environ() []string {
	out := make([]string, 0, len(e.vars))
	for name, value := range e.vars {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// EnvFileError is what is wrong with a line of a file of variables.
type EnvFileError struct {
	Line int // from 1
	Msg  string
}

// Error returns "line N: message".
func (e *EnvFileError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// ParseEnvFile reads lines of NAME=VALUE. It skips empty lines and lines that
// begin with #, allows "export " before a name, and takes a value as it is, or
// in single quotes, or in double quotes with the escapes \n, \t, \", \\ and
// \$. It expands nothing. The error is an [*EnvFileError].
func ParseEnvFile(text string) (names, values []string, err error) {
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "export"); ok && strings.TrimLeft(rest, " \t") != rest {
			line = strings.TrimLeft(rest, " \t")
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t\x00\"'") {
			return nil, nil, &EnvFileError{i + 1, "expected NAME=VALUE"}
		}
		if value, err = envValue(value); err != nil {
			return nil, nil, &EnvFileError{i + 1, err.Error()}
		}
		names = append(names, name)
		values = append(values, value)
	}
	return names, values, nil
}

func envValue(v string) (string, error) {
	bare := v
	if v = strings.TrimSpace(v); v == "" || v[0] != '"' && v[0] != '\'' {
		for i := 1; i < len(bare); i++ {
			if bare[i] == '#' && (bare[i-1] == ' ' || bare[i-1] == '\t') {
				return strings.TrimSpace(bare[:i]), nil
			}
		}
		return v, nil
	}
	quote := v[0]
	var b strings.Builder
	for i := 1; i < len(v); i++ {
		switch c := v[i]; {
		case c == quote:
			if rest := strings.TrimSpace(v[i+1:]); rest != "" && rest[0] != '#' {
				return "", fmt.Errorf("text after the closing %c", quote)
			}
			return b.String(), nil
		case c == '\\' && quote == '"' && i+1 < len(v):
			i++
			switch v[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case '"', '\\', '$':
				b.WriteByte(v[i])
			default:
				b.WriteByte('\\')
				b.WriteByte(v[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("the closing %c is missing", quote)
}
