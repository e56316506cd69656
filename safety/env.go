// Package safety holds what keeps values from becoming program text and
// processes from getting what was not meant for them: explicit environments
// and the look-up of programs. It knows no YAML, starts no process and keeps
// no state; the platform's values are arguments.
package safety

// This file holds environments.

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Env is a set of environment variables. The zero value is empty, and stays
// empty: inheriting is a call. It is not safe for concurrent use.
type Env struct {
	vars   map[string]string
	trace  map[string][]Origin // nil: nobody asked
	source string
}

// Origin is where a variable was given a value.
type Origin struct {
	Source string
	Value  string
	Unset  bool // it was removed
}

// Trace makes the set remember where each variable comes from; see History.
func (e *Env) Trace() { e.trace = map[string][]Origin{} }

// From names the source of what is given from here on.
func (e *Env) From(source string) { e.source = source }

// History returns where a variable was given its values, the one that holds
// last, if Trace was called before; it has an entry for a variable that was
// removed too.
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
// matches a glob of it (* and ?). A glob does not reach BASH_ENV and its like.
// The error names a pattern that is malformed.
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

// ParseEnvFile reads lines of NAME=VALUE. Empty lines and lines that begin
// with # are skipped, "export " before a name is allowed, and a value may
// stand in single quotes (taken as it is) or double quotes (with \n, \t, \",
// \\ and \$). Nothing is expanded. The error has the number of the line.
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
			return nil, nil, fmt.Errorf("line %d: expected NAME=VALUE", i+1)
		}
		if value, err = envValue(value); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", i+1, err)
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
