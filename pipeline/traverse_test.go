package pipeline

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// fill gives every Template and Expr below v, also in slices and behind
// pointers that it makes, a text of its own, and returns how many there are.
func fill(v reflect.Value, depth, n int) int {
	switch {
	case depth > 20 || v.Type() == pipelineType:
	case v.Type() == reflect.TypeFor[Template]():
		n++
		v.Set(reflect.ValueOf(NewTemplate(fmt.Sprintf("${{ %d }}", n))))
	case v.Type() == reflect.TypeFor[*Expr]():
		n++
		v.Set(reflect.ValueOf(NewExpr(fmt.Sprint(n))))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		n = fill(v.Elem(), depth+1, n)
	case v.Kind() == reflect.Slice && v.Type().Elem() != reflect.TypeFor[Branch]() || v.Kind() == reflect.Slice && depth < 5:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		n = fill(v.Index(0), depth+1, n)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				n = fill(v.Field(i), depth+1, n)
			}
		}
	}
	return n
}

// TestEachFinds: the traversal visits each template and expression that the
// model has, once.
func TestEachFinds(t *testing.T) {
	s := &Step{}
	n := fill(reflect.ValueOf(s).Elem(), 0, 0)
	seen := map[string]int{}
	s.EachExpr(func(key string, e *Expr) {
		if key == "" {
			t.Errorf("%s has no key", e)
		}
		seen[e.String()]++
	})
	for i := 1; i <= n; i++ {
		if seen[fmt.Sprint(i)] != 1 {
			t.Errorf("expression %d of %d is visited %d times", i, n, seen[fmt.Sprint(i)])
		}
	}
	if n < 40 {
		t.Errorf("only %d expressions were made", n)
	}
}

// TestEachKeys: the keys are those of messages, in a fixed order, and what is
// not set is left out.
func TestEachKeys(t *testing.T) {
	st := &Stage{
		Args: []Template{Literal("a"), Literal("")}, Argv0: Literal("b"), Input: Literal("i"), Stdin: Stdio{File: Literal("0")},
		Stdout: Stdio{File: Literal("1")}, Stderr: Stdio{File: Literal("2")}, Extra: []Stdio{{}, {File: Literal("4")}},
		Tee: []Branch{ChainBranch(SpawnStage("no")), FileBranch("t")}, Scope: &Scope{Cwd: Literal("no")},
	}
	text := ExecStage("echo ${{ 1 }}")
	text.readText()
	scope := &Scope{Cwd: Literal("c"), Env: []EnvVar{{Name: "A"}, {Name: "B"}}, EnvFile: []Template{Literal("e")}}
	step := &Step{
		Scope: scope, Stages: []*Stage{text, {Tee: []Branch{ChainBranch(SpawnStage("x"))}}}, If: NewExpr("1"), ForEach: NewExpr("2"), Lock: &Lock{Name: Literal("l")},
		Sources: []Glob{{}}, Generates: []Glob{{}}, Ready: &Ready{HTTP: Literal("h"), Exec: SpawnStage("p")}, Run: &Include{With: []WithParam{{Name: "W"}}},
	}
	for _, tt := range []struct {
		each func(func(string, *Template))
		want []string
	}{
		{(*Scope)(nil).EachTemplate, nil},
		{(&Scope{}).EachTemplate, nil},
		{scope.EachTemplate, []string{"cwd", "envFile", "env A", "env B"}},
		{st.EachTemplate, []string{"argument 0", "argument 1", "argv0", "input", "stdin", "stdout", "stderr", "stdio[4]", "tee"}},
		{text.EachTemplate, nil},
		{step.EachTemplate, []string{"cwd", "envFile", "env A", "env B", "lock", "sources", "generates", "ready http", "with W", "argument 0", "ready argument 0"}},
		{(&Pipeline{Scope: scope, Lock: step.Lock}).eachTemplate, []string{"cwd", "envFile", "env A", "env B", "lock"}},
	} {
		var got []string
		tt.each(func(key string, tm *Template) { got = append(got, key) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("got %q, expected %q", got, tt.want)
		}
	}
	var got []string
	step.EachExpr(func(key string, e *Expr) { got = append(got, key+"="+e.String()) })
	if want := []string{"if=1", "forEach=2", "exec=1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
}

func TestReads(t *testing.T) {
	p := &Pipeline{
		Mode: ModeAsync,
		Steps: []*Step{
			ExecStep("a", "echo"), ExecStep("b", "echo"),
			{Name: "c", Needs: []Ref{{Name: "a"}, {Name: "b"}}, If: NewExpr("steps.b.exitCode == 0"), Stages: []*Stage{ExecStage(`echo "${{ steps.a.stdout }}" "${{ steps.b.stdout }}"`)}},
			SpawnStep("d", "x"),
		},
		Outputs: []*Output{{Name: "o", Expr: NewExpr("steps.d.exitCode")}},
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if got := p.Steps[2].Reads(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("c reads %q", got)
	}
	if got := p.ReadSteps(); len(got) != 3 || got["c"] || !got["d"] {
		t.Errorf("read are %v", got)
	}
	keep, err := p.Select([]string{"c"})
	if err != nil || !slices.Equal(keep[:4], []bool{true, true, true, false}) {
		t.Errorf("c takes %v, %v", keep, err)
	}
	var e *Error
	if _, err := p.Select([]string{"cc"}); err == nil || err.Error() != `pipeline: no step is named "cc"; did you mean "c"?` {
		t.Errorf("%v %v", err, e)
	}
}
