package step_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/internal/step"
)

// shaped is a step of six stages: two in a branch, one in the branch of a tee that
// is itself in a branch.
func shaped() *step.Spec {
	stdio := func(first step.Stdio, rest ...step.Stdio) []step.Stdio { return append([]step.Stdio{first}, rest...) }
	file := func(path string) step.Stdio { return step.Stdio{Kind: step.StdioFile, Path: path} }
	pipe := step.Stdio{Kind: step.StdioPipe}
	return &step.Spec{Label: "x", Stages: []step.Stage{
		{Command: "a", KillAfter: time.Second, Stdio: stdio(file("/in"), pipe, file("/err"))},
		{Tee: []step.Branch{
			{File: "/copy"},
			{Chain: []step.Stage{
				{Command: "b", KillAfter: 3 * time.Second, Stdio: stdio(pipe, pipe, pipe, file("/three"))},
				{Tee: []step.Branch{{Chain: []step.Stage{{Command: "c", KillAfter: time.Second}}}, {File: "/deep", Append: true}}},
				{Command: "d", KillAfter: time.Second},
			}},
		}},
		{Command: "e", KillAfter: time.Second},
		{Command: "f", KillAfter: 2 * time.Second, Stdio: stdio(pipe, file("/out"), pipe)},
	}}
}

func TestSpecHelpers(t *testing.T) {
	t.Parallel()
	s := shaped()
	var names, found []string
	s.Each(func(st *step.Stage) { names = append(names, st.Command) })
	if got := strings.Join(names, " "); got != "a b c d e f" {
		t.Errorf("Each calls with %s", got)
	}
	if s.Processes() != 6 {
		t.Errorf("%d processes", s.Processes())
	}
	s.Files(func(path string, reads bool) {
		if reads {
			path = "<" + path
		}
		found = append(found, path)
	})
	if got := strings.Join(found, " "); got != "</in /err /copy /three /deep /out" {
		t.Errorf("Files calls with %s", got)
	}
	if s.Command() != "a | e | f" {
		t.Errorf("Command is %q", s.Command())
	}
	if n := (&step.Spec{Nested: &step.Nested{Path: "../b.yaml", File: "/b.yaml"}}); n.Command() != "pipe run ../b.yaml" || n.Processes() != 0 {
		t.Errorf("nested: %q, %d processes", n.Command(), n.Processes())
	}
	if (&step.Stage{}).UsesShell() || !(&step.Stage{Shell: "/bin/sh"}).UsesShell() {
		t.Error("UsesShell")
	}
}

func TestGrace(t *testing.T) {
	t.Parallel()
	s := shaped()
	if got := s.Grace(); got != 3*time.Second {
		t.Errorf("the longest is %s", got)
	}
	s.Stages[1].Tee[1].Chain[1].Tee[0].Chain[0].KillAfter = 0
	if got := s.Grace(); got != 0 {
		t.Errorf("%s, though one stage is never to be killed", got)
	}
}

// fill sets everything that can be set, so that a field that JSON leaves out, or
// two that have one name, cannot be added unseen.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth)
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0), depth-1)
			fill(v.Index(1), depth-1)
		}
	case reflect.Map:
		if depth > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			val := reflect.New(v.Type().Elem()).Elem()
			fill(val, depth-1)
			v.SetMapIndex(reflect.ValueOf("key"), val)
		}
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth-1)
		}
	case reflect.String:
		v.SetString("a \"text\"\x00 with <&> and \u2028")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint, reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	default:
		v.SetInt(9)
	}
}

// decoded returns the spec that JSON makes of one.
func decoded(t testing.TB, spec *step.Spec) *step.Spec {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	out := &step.Spec{}
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(spec, out) {
		t.Fatalf("JSON has changed the spec:\n%s\n%+v\n%+v", text, spec, out)
	}
	return out
}

// TestSpecJSON: a spec with everything, and one with as little as can be, survive.
// Those of all tests that run processes do so too: see play.
func TestSpecJSON(t *testing.T) {
	t.Parallel()
	for depth := range 7 {
		full := &step.Spec{}
		fill(reflect.ValueOf(full).Elem(), depth)
		decoded(t, full)
	}
	decoded(t, &step.Spec{})
	decoded(t, &step.Spec{Stages: []step.Stage{{Env: []string{}, Stdio: []step.Stdio{{}, {}, {}}}}})
}
