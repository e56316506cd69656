package pipeline

import (
	"slices"
	"strings"
	"testing"
)

// labels returns the labels of the instances of the step of a file.
func labels(t *testing.T, step string, v *Vars) ([]Instance, string, error) {
	t.Helper()
	p, err := Parse("f", []byte("params: {l: {type: list, default: []}}\nsteps: [{spawn: [a], "+step+"}]"))
	if err != nil {
		t.Fatal(err)
	}
	if !p.Steps[0].Expands() {
		t.Error("the step does not expand")
	}
	list, err := p.Steps[0].Instances(v)
	var out []string
	for _, in := range list {
		out = append(out, in.Label)
	}
	return list, strings.Join(out, " | "), err
}

func TestMatrix(t *testing.T) {
	for step, want := range map[string]string{
		"matrix: {os: [linux, darwin], v: [1, 3.10, true]}":                        "linux,1 | linux,3.10 | linux,true | darwin,1 | darwin,3.10 | darwin,true",
		"matrix: {os: [a, b], v: [1, 2], exclude: [{os: a, v: 1}, {v: 2, os: b}]}": "a,2 | b,1",
		"matrix: {os: [a, b], include: [{os: a, cc: gcc}, {os: c}, {x: y}]}":       "a,gcc | b | c | y",
		"matrix: {include: [{os: a}, {os: b, x: 1}]}":                              "a | b,1",
		"matrix: {v: [1.5, '1', yes, 0x10, 1e3]}":                                  "1.5 | 1 | yes | 0x10 | 1e3",
	} {
		if _, got, err := labels(t, step, nil); err != nil || got != want {
			t.Errorf("%s is %s, %v; expected %s", step, got, err, want)
		}
	}
	list, _, _ := labels(t, "matrix: {v: [1, 1.5, true, '1'], include: [{v: 1, w: x}]}", nil)
	for i, want := range []any{1, 1.5, true, "1"} {
		if list[i].Matrix["v"] != want {
			t.Errorf("value %d is %#v", i, list[i].Matrix["v"])
		}
		if w, ok := list[i].Matrix["w"]; !ok || (w == "x") != (i == 0) {
			t.Errorf("w of value %d is %#v, %t", i, w, ok)
		}
	}
	m := &Matrix{Axes: []Axis{{"a", make([]any, 1000)}, {"b", make([]any, 101)}}}
	if _, err := m.instances(); err == nil || !strings.Contains(err.Error(), "more than 100000") {
		t.Errorf("too many: %v", err)
	}
}

func TestForEach(t *testing.T) {
	v := &Vars{Params: map[string]any{"l": []string{"x", "x", "", "a\nb", strings.Repeat("é", 40)}}}
	_, got, err := labels(t, "forEach: params.l", v)
	if want := "x | x #1 | #2 | a?b | " + strings.Repeat("é", 30) + "…"; err != nil || got != want {
		t.Errorf("got %s, %v; expected %s", got, err, want)
	}
	list, got, err := labels(t, "forEach: \"[1, 2.5, true, {'a': 1}]\"", v)
	if err != nil || got != "1 | 2.5 | true | #3" || list[1].Item != 2.5 {
		t.Errorf("got %s, %v, %v", got, list, err)
	}
	for expr, want := range map[string]string{"'x'": "not a list", "1..100001": "100001 elements", "params.l[9]": "forEach: ${{ params.l[9] }}: "} {
		if _, _, err := labels(t, "forEach: \""+expr+"\"", v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

func TestBool(t *testing.T) {
	p, err := Parse("f", []byte("steps: [{spawn: [a]}, {spawn: [a], if: \"failure() || args[0] == 'x'\"}, {spawn: [a], if: args}, {spawn: [a], if: success()}]"))
	if err != nil {
		t.Fatal(err)
	}
	no := func() bool { return false }
	v := &Vars{Args: []string{"x"}, Success: no, Failure: no, Cancelled: no}
	cond := p.Steps[1].If
	if got, err := cond.Bool(v); err != nil || !got {
		t.Errorf("%t %v", got, err)
	}
	if !cond.CallsStatus() || !cond.RunsAfterFailure() || p.Steps[0].If.CallsStatus() || p.Steps[0].If.RunsAfterFailure() || p.Steps[3].If.RunsAfterFailure() || p.Steps[2].If.CallsStatus() {
		t.Error("what the conditions call is not seen")
	}
	if _, err := p.Steps[2].If.Bool(v); err == nil || !strings.Contains(err.Error(), "is []string, expected true or false") {
		t.Errorf("%v", err)
	}
	if _, err := cond.Bool(&Vars{}); err == nil {
		t.Error("no error")
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{{"a", "a"}, {true, "true"}, {7, "7"}, {int64(-8), "-8"}, {3.0, "3"}, {1e15, "1e+15"}, {0.25, "0.25"}, {rawText("r"), "r"}, {[]any{1, "a"}, `[1,"a"]`}, {map[string]any{"a": nil}, `{"a":null}`}} {
		if got, err := Text(tt.v); err != nil || got != tt.want {
			t.Errorf("%#v is %q, %v", tt.v, got, err)
		}
	}
	for _, v := range []any{nil, func() {}} {
		if _, err := Text(v); err == nil {
			t.Errorf("%T has a text", v)
		}
	}
	if !slices.Equal(exprLines("a\n\nb\r\n"), []string{"a", "", "b"}) {
		t.Error("lines are not what they are")
	}
}
