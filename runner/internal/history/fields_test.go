//go:build unix

package history

import (
	"reflect"
	"testing"

	"github.com/pipe-runner/pipe/runner/internal/step"
)

// ignored are the fields of a stage that do not make it do something else, or whose
// work another field has.
var ignored = map[string]string{
	"Script":     "Shell and Text say whether the text is in a file",
	"Path":       "a PATH that the file sets is a variable of Env",
	"KillSignal": "how a step is ended when it is ended",
	"KillAfter":  "as KillSignal",
	"Drain":      "as KillSignal",
	"Command":    "for people",
	"Origins":    "for people",
}

// TestEveryField: a field of a stage, also one that is added, changes what a step is
// recognised by, or stands in the list above.
func TestEveryField(t *testing.T) {
	w := newWorld(t)
	v := w.view(nil)
	finger := func(st step.Stage) *fingerprint {
		f, err := v.depends(&step.Spec{Label: "a", Stages: []step.Stage{st}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	typ := reflect.TypeFor[step.Stage]()
	for i := range typ.NumField() {
		name, changed := typ.Field(i).Name, false
		if !typ.Field(i).IsExported() {
			continue
		}
		exact, some := w.program(), w.program()
		exact.Inherits, exact.Stdio[0].Kind = false, step.StdioInput
		some.Env = append(some.Env, "2=x") // inherited, until Declared names it
		for _, base := range []step.Stage{w.program(), w.shell(), exact, some} {
			before := finger(base)
			other(t, reflect.ValueOf(&base).Elem().Field(i))
			changed = changed || !reflect.DeepEqual(before, finger(base))
		}
		why, exempt := ignored[name]
		switch {
		case changed && exempt:
			t.Errorf("%s changes what a step is recognised by, and is listed: %s", name, why)
		case !changed && !exempt:
			t.Errorf("%s does not change what a step is recognised by: add it to the parts of the fingerprint, or to the list of this test", name)
		}
	}
	for name := range ignored {
		if _, ok := typ.FieldByName(name); !ok {
			t.Errorf("a stage has no field %s any more", name)
		}
	}
}

// other gives a field another value.
func other(t *testing.T, f reflect.Value) {
	t.Helper()
	switch f.Kind() {
	case reflect.String:
		f.SetString(f.String() + "2")
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.Int, reflect.Int64:
		f.SetInt(f.Int() + 1)
	case reflect.Uint32:
		f.SetUint(f.Uint() + 1)
	case reflect.Pointer:
		p := reflect.New(f.Type().Elem())
		other(t, p.Elem())
		f.Set(p)
	case reflect.Struct:
		for i := range f.NumField() {
			if f.Type().Field(i).IsExported() {
				other(t, f.Field(i))
			}
		}
	case reflect.Slice:
		e := reflect.New(f.Type().Elem()).Elem()
		if e.Kind() != reflect.Struct || e.Type() != reflect.TypeFor[step.Branch]() {
			other(t, e)
		} else {
			e.Set(reflect.ValueOf(step.Branch{File: "/f"}))
		}
		f.Set(reflect.Append(f, e))
	case reflect.Map:
		f.Set(reflect.MakeMap(f.Type()))
	default:
		t.Fatalf("what is another value of a %s?", f.Type())
	}
}
