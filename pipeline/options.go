package pipeline

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options are the settings that hold for one stage. For each setting, the
// innermost level that has it wins.
type Options struct {
	Shell      string // ShellBuiltin, or a path or name
	Set        []string
	UID, GID   *uint32 // nil: the runner's
	KillSignal syscall.Signal
	KillAfter  time.Duration // 0: SIGKILL is never sent
	Drain      time.Duration
	SigpipeErr bool

	setGiven bool
	setPos   Pos
}

// SetGiven reports whether the shell options were written, and are not the
// default. A written option that the shell lacks is an error; a default one is
// left out.
func (o *Options) SetGiven() bool { return o.setGiven }

// Options returns the settings that hold for a stage of a step.
func (p *Pipeline) Options(s *Step, st *Stage) Options {
	o := Options{Shell: ShellBuiltin, KillSignal: syscall.SIGTERM, KillAfter: 5 * time.Second, Drain: time.Second}
	if st.Action == ActionExec {
		o.Set = []string{"errexit", "pipefail"}
	}
	for _, lv := range p.levels(s, st) {
		if lv == nil {
			continue
		}
		if lv.Shell != "" {
			o.Shell = lv.Shell
		}
		if lv.Set != nil {
			o.Set, o.setGiven, o.setPos = lv.Set, true, lv.SetPos
		}
		if lv.UID != nil {
			o.UID = lv.UID
		}
		if lv.GID != nil {
			o.GID = lv.GID
		}
		if lv.KillSignal != 0 {
			o.KillSignal = lv.KillSignal
		}
		if lv.KillAfter != nil {
			o.KillAfter = *lv.KillAfter
		}
		if lv.Drain != nil {
			o.Drain = *lv.Drain
		}
		if lv.SigpipeErr != nil {
			o.SigpipeErr = *lv.SigpipeErr
		}
	}
	return o
}

// Levels returns the settings that hold for a stage, the outermost first,
// without those that set nothing.
func (p *Pipeline) Levels(s *Step, st *Stage) []*Scope {
	return slices.DeleteFunc(p.levels(s, st), func(lv *Scope) bool { return lv == nil })
}

// value turns the words that were given for a parameter into its value.
func (prm *Param) value(words []string) (any, error) {
	if prm.Type == ParamList {
		return words, nil
	}
	if len(words) != 1 {
		return nil, fmt.Errorf("given %d times; only a list may be repeated", len(words))
	}
	w := words[0]
	switch prm.Type {
	case ParamInt:
		v, err := strconv.Atoi(w)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", w)
		}
		return v, nil
	case ParamNumber:
		v, err := strconv.ParseFloat(w, 64)
		if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, fmt.Errorf("%q is not a number", w)
		}
		return v, nil
	case ParamBool:
		if w != "true" && w != "false" {
			return nil, fmt.Errorf("%q is not true or false", w)
		}
		return w == "true", nil
	case ParamPath:
		if w == "" {
			return nil, fmt.Errorf("the path is empty; . is the current folder")
		}
	}
	return w, nil
}

// check reports why a value does not fit the type, enum or pattern, or nil.
func (prm *Param) check(v any) error {
	ok := false
	switch prm.Type {
	case ParamString, ParamPath:
		_, ok = v.(string)
	case ParamInt:
		_, ok = v.(int)
	case ParamNumber:
		_, ok = v.(float64)
	case ParamBool:
		_, ok = v.(bool)
	case ParamList:
		_, ok = v.([]string)
	}
	if !ok {
		return fmt.Errorf("%v is %T, not of type %s", v, v, prm.Type)
	}
	words, isList := v.([]string)
	if !isList {
		text, err := Text(v)
		if err != nil {
			return err
		}
		words = []string{text}
	}
	for _, w := range words {
		if strings.ContainsRune(w, 0) {
			return fmt.Errorf("the value holds a NUL byte")
		}
		if len(prm.Enum) > 0 && !slices.Contains(prm.Enum, w) {
			return fmt.Errorf("%q is not one of %s%s", w, alternatives(prm.Enum), didYouMean(w, prm.Enum, ""))
		}
		if prm.match != nil && !prm.match(w) {
			return fmt.Errorf("%q does not match the pattern %s", w, prm.Pattern)
		}
	}
	return nil
}

// ParamError says that a parameter is unknown, missing or ill-typed.
type ParamError struct {
	Name string
	Msg  string // one sentence, which names it
}

// Error returns the sentence.
func (e *ParamError) Error() string { return e.Msg }

// ParamValues returns the value of each parameter: what was given for its name
// (one word, or several for a list), or its default. The error joins a
// [*ParamError] for each parameter that is unknown, missing or ill-typed.
func (p *Pipeline) ParamValues(given map[string][]string) (map[string]any, error) {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, &ParamError{name, fmt.Sprintf(format, args...)})
	}
	out := make(map[string]any, len(p.Params))
	var names []string
	for _, prm := range p.Params {
		names = append(names, prm.Name)
		words, ok := given[prm.Name]
		if !ok {
			if prm.Default == nil {
				bad(prm.Name, "parameter %s must be given: -p %s=VALUE%s", prm.Name, prm.Name, helpText(prm))
				continue
			}
			out[prm.Name] = safePath(prm, prm.Default)
			continue
		}
		v, err := prm.value(words)
		if err == nil {
			err = prm.check(v)
		}
		if err != nil {
			bad(prm.Name, "parameter %s: %s", prm.Name, err)
			continue
		}
		out[prm.Name] = safePath(prm, v)
	}
	for name := range given {
		if !slices.Contains(names, name) {
			hint := "; the pipeline has none"
			if len(names) > 0 {
				hint = didYouMean(name, names, "; it has "+strings.Join(names, ", "))
			}
			bad(name, "unknown parameter %q%s", name, hint)
		}
	}
	if errs != nil {
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return nil, errors.Join(errs...)
	}
	return out, nil
}

func helpText(prm *Param) string {
	if prm.Help == "" {
		return ""
	}
	return " (" + prm.Help + ")"
}

// safePath makes a path one that no program reads as an option.
func safePath(prm *Param, v any) any {
	if s, ok := v.(string); ok && prm.Type == ParamPath && strings.HasPrefix(s, "-") {
		return "./" + s
	}
	return v
}
