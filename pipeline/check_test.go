package pipeline

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// full returns a pipeline with most of what a model may have.
func full() *Pipeline {
	probe := ExecStage("true")
	limit, wait := 2, time.Second
	stage := SpawnStage("echo", "a")
	stage.Args = append(stage.Args, NewTemplate("${{ params.a }}"))
	stage.Extra = []Stdio{{Kind: StdioFile, File: Literal("extra")}}
	job := SpawnStep("job", "sleep", "1")
	job.Detached, job.Restart = true, &Restart{Policy: RestartOnFailure, MaxRestarts: &limit}
	service := SpawnStep("service", "server")
	service.Background, service.Ready = true, &Ready{Exec: probe}
	each := SpawnStep("each", "echo")
	each.Matrix = &Matrix{Axes: []Axis{{"os", []any{"linux", 2, true, 1.5}}}, Include: []map[string]any{{"os": "x", "more": "y"}}}
	text := ExecStep("text", `echo "${{ params.a }}"`)
	text.If, text.Scope = NewExpr("params.a == 'x'"), &Scope{Env: []EnvVar{{Name: "A", Value: NewTemplate("${{ params.a }}")}}, ExtendEnv: &ExtendEnv{Names: []string{"PATH"}}}
	text.Retry = &Retry{Attempts: 2, On: &RetryOn{Codes: []int{1}, Signals: []syscall.Signal{syscall.SIGTERM}}}
	text.Lock = &Lock{Name: Literal("l"), Wait: &wait}
	text.Sources = []Glob{{Pattern: NewTemplate("${{ params.a }}/*")}}
	run := RunStep("run", &Pipeline{Params: []*Param{{Name: "p"}}, Steps: []*Step{ExecStep("inner", "echo inner")}})
	run.Run.With = []WithParam{{Name: "p", Value: NewTemplate("${{ params.a }}")}}
	return &Pipeline{
		Params:  []*Param{{Name: "a", Default: "x", Pattern: "[a-z]"}, {Name: "l", Type: ParamList, Default: []string{"b"}}},
		Outputs: []*Output{{Name: "o", Expr: NewExpr("steps.text.stdout")}},
		Steps:   []*Step{text, PipeStep("pipe", stage, TeeStage(ChainBranch(SpawnStage("cat"), SpawnStage("wc")), FileBranch("copy")), ExecFileStage("wc", "-l")), job, service, each, run},
	}
}

// TestCheckAgain: each change of a pipeline that was checked is noticed, and
// the new state is what holds.
func TestCheckAgain(t *testing.T) {
	for _, tt := range []struct {
		change func(p *Pipeline)
		want   string // in the error; "": none
	}{
		{func(p *Pipeline) { p.Steps[0].Stages[0].Text = "echo ${{ params.b }}" }, `unknown parameter "b"`},
		{func(p *Pipeline) { p.Steps[0].Stages[0].Text = "(" }, "statement list"},
		{func(p *Pipeline) { p.Steps[0].If = NewExpr("nope") }, `unknown name "nope"`},
		{func(p *Pipeline) { *p.Steps[0].If = *NewExpr("") }, "the expression is empty"},
		{func(p *Pipeline) { p.Steps[0].Scope.Env[0].Value = NewTemplate("${{ x }}") }, `unknown name "x"`},
		{func(p *Pipeline) { p.Steps[0].Scope.Env[0].Name = "A=B" }, "not a variable's name"},
		{func(p *Pipeline) { p.Steps[0].Scope.ExtendEnv.Names[0] = "[" }, "not a name or a glob"},
		{func(p *Pipeline) { p.Steps[0].Retry.Attempts = 0 }, "attempts"},
		{func(p *Pipeline) { p.Steps[0].Needs = []Ref{{Name: "nobody"}} }, `unknown step "nobody"`},
		{func(p *Pipeline) { p.Steps[0].Name = "other" }, `unknown step "text"`},
		{func(p *Pipeline) { p.Steps[0].Lock.Name = NewTemplate("${{ nope }}") }, "nope"},
		{func(p *Pipeline) { p.Steps[0].Sources[0].Pattern = NewTemplate("${{ nope }}") }, "nope"},
		{func(p *Pipeline) { p.Steps[1].Stages[0].Args[0] = Literal("") }, "program's name is empty"},
		{func(p *Pipeline) { p.Steps[1].Stages[0].Args[2] = NewTemplate("${{ oops") }, "no closing"},
		{func(p *Pipeline) { p.Steps[1].Stages[1].Tee[0].Chain[0].Stdin.Kind = StdioIgnore }, "the stream of the tee"},
		{func(p *Pipeline) { p.Steps[1].Stages[1].Tee[1].File.File = NewTemplate("${{ nope }}") }, "nope"},
		{func(p *Pipeline) { p.Steps[1].Stages[0].Extra[0].File = NewTemplate("${{ nope }}") }, "nope"},
		{func(p *Pipeline) { p.Steps[1].Stages = nil }, "no stages"},
		{func(p *Pipeline) { p.Steps[2].Detached = false }, "restart is for jobs"},
		{func(p *Pipeline) { p.Steps[3].Ready.Exec.Text = "coproc x" }, "coproc"},
		{func(p *Pipeline) { p.Steps[3].Ready.Exec = nil }, "ready takes one of"},
		{func(p *Pipeline) { p.Steps[3].Ready.Log = "(" }, "ready takes one of"},
		{func(p *Pipeline) { p.Steps[5].Run.With[0].Name = "q" }, `unknown parameter "q"`},
		{func(p *Pipeline) { p.Steps[5].Run.Pipeline.Steps[0].Stages[0].Text = "(" }, "statement list"},
		{func(p *Pipeline) { p.Steps[5].Run.Pipeline = p }, "runs itself"},
		{func(p *Pipeline) { p.Steps[5].Run.Pipeline = nil }, "run names no pipeline"},
		{func(p *Pipeline) { p.Steps[4] = nil }, "step #5 is nil"},
		{func(p *Pipeline) { p.Params[0].Pattern = "[" }, "not a regular expression"},
		{func(p *Pipeline) { p.Params[0].Default = 1 }, "not of type string"},
		{func(p *Pipeline) { p.Params[0].Default = "X" }, "does not match"},
		{func(p *Pipeline) { p.Params[1].Default.([]string)[0] = "b\x00" }, "NUL"},
		{func(p *Pipeline) { p.Params = p.Params[1:] }, "unknown parameter"},
		{func(p *Pipeline) { p.Params[1] = nil }, "parameter #2 is nil"},
		{func(p *Pipeline) { p.Outputs[0].Expr = nil }, "output #1 has no expression"},
		{func(p *Pipeline) { p.Mode = ModeAsync }, ""},
		{func(p *Pipeline) { p.Scope = &Scope{Shell: "bash"} }, ""},
	} {
		p := full()
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		before := digest(p)
		tt.change(p)
		if tt.want == "" {
			if digest(p) == before {
				t.Error("a change is not seen")
			}
			continue
		}
		for range 2 { // it stays wrong
			err := p.Check()
			var list Errors
			if err == nil || !errors.As(err, &list) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, expected %q", err, tt.want)
			}
		}
		if p.Graph() != nil {
			t.Errorf("%q: the order of the steps from before is still there", tt.want)
		}
	}
}

// TestCheckedText: what runs is the text as it is now.
func TestCheckedText(t *testing.T) {
	p := full()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	st := p.Steps[0].Stages[0]
	for text, want := range map[string]string{"echo new": "echo new", `echo '$${{' "${{ 1 }}"`: `echo '${{' "${pipe_v0_}"`} {
		st.Text = text
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		if got, _, err := st.BindShell(&Vars{}); err != nil || got != want {
			t.Errorf("%s is run as %s, %v; expected %s", text, got, err, want)
		}
	}
}

// TestCheckedPattern: what a check derived from a field goes with it.
func TestCheckedPattern(t *testing.T) {
	p := full()
	p.Steps[3].Ready = &Ready{Log: "up"}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	p.Params[0].Pattern, p.Steps[3].Ready.Log, p.Steps[3].Ready.Notify = "", "", true
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ParamValues(map[string][]string{"a": {"XYZ"}}); err != nil {
		t.Errorf("a pattern that is gone is matched: %v", err)
	}
	if p.Steps[3].Ready.Matches([]byte("up")) {
		t.Error("an expression that is gone is matched")
	}
}

// TestDigestFields: a change of any exported field, however deep, changes the
// digest.
func TestDigestFields(t *testing.T) {
	p := full()
	seen := map[string]bool{}
	sum := digest(p)
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			walk(v.Elem(), path)
		}
		if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				walk(v.Index(i), path)
			}
		}
		if v.Kind() != reflect.Struct {
			return
		}
		for i := range v.NumField() {
			f := v.Field(i)
			name := v.Type().Name() + "." + v.Type().Field(i).Name
			if !f.CanSet() || len(hidden[v.Type()]) > 0 {
				continue
			}
			old := reflect.New(f.Type()).Elem()
			old.Set(f)
			switch {
			case !f.IsZero():
				f.SetZero()
			case f.Kind() == reflect.Pointer:
				f.Set(reflect.New(f.Type().Elem()))
			case f.Kind() == reflect.Slice:
				f.Set(reflect.MakeSlice(f.Type(), 0, 0))
			case f.CanInt():
				f.SetInt(1)
			case f.CanUint():
				f.SetUint(1)
			case f.Kind() == reflect.String:
				f.SetString("x")
			case f.Kind() == reflect.Bool:
				f.SetBool(true)
			case f.Type() == reflect.TypeFor[Template]():
				f.Set(reflect.ValueOf(Literal("x")))
			default:
				walk(f, name)
				continue
			}
			if digest(p) == sum {
				t.Errorf("a change of %s is not seen", name)
			}
			seen[name] = true
			f.Set(old)
			walk(f, name)
		}
	}
	walk(reflect.ValueOf(p), "")
	if digest(p) != sum || len(seen) < 80 {
		t.Errorf("%d fields were tried, and the digest is not what it was: %v", len(seen), digest(p) != sum)
	}
	p.Steps[4].Matrix.Include[0]["more"] = "z"
	if digest(p) == sum {
		t.Error("a change in a map is not seen")
	}
	if a, b := digest(&Pipeline{Steps: []*Step{{If: NewExpr("a")}}}), digest(&Pipeline{Steps: []*Step{{If: NewExpr("b")}}}); a == b {
		t.Error("a change of an expression is not seen")
	}
	if a, b := digest(&Pipeline{Scope: &Scope{Cwd: Literal("${{ 1 }}")}}), digest(&Pipeline{Scope: &Scope{Cwd: NewTemplate("${{ 1 }}")}}); a == b {
		t.Error("a literal and a template are the same")
	}
}

// TestCheckAtOnce: checks and readers go on beside each other, also of a
// pipeline that two others run.
func TestCheckAtOnce(t *testing.T) {
	shared := full()
	shared.Params = append(shared.Params, &Param{Name: "z", Default: "z"})
	list := []*Pipeline{{Steps: []*Step{RunStep("r", shared)}}, {Steps: []*Step{RunStep("r", shared)}}, shared}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			p := list[i%len(list)]
			if err := p.Check(); err != nil {
				t.Error(err)
				return
			}
			for _, s := range p.Steps {
				s.Reads()
			}
			_ = p.Graph().Needs
			_, _ = p.Step("r")
			if i%len(list) == 2 {
				if _, _, err := p.Steps[0].Stages[0].BindShell(&Vars{Params: map[string]any{"a": "x"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestBuilt: errors of pipelines built in Go name the step, for there is no
// place.
func TestBuilt(t *testing.T) {
	tees := TeeStage()
	tees.Tee = []Branch{ChainBranch(tees)}
	for _, tt := range []struct {
		p    *Pipeline
		want string
	}{
		{&Pipeline{}, "pipeline: the pipeline has no steps"},
		{&Pipeline{Steps: []*Step{{}}}, "pipeline: step #1 ?: the step has no stages"},
		{&Pipeline{Steps: []*Step{SpawnStep("a", "")}}, "pipeline: step a: the program's name is empty"},
		{&Pipeline{Steps: []*Step{SpawnStep("a", "x\x00")}}, `pipeline: step a: argument 0: NUL byte in "x\x00"`},
		{&Pipeline{Steps: []*Step{PipeStep("a", nil)}}, "pipeline: step #1 has a stage that is nil, or a tee with an empty branch or too many tees in it"},
		{&Pipeline{Steps: []*Step{PipeStep("a", SpawnStage("x"), tees)}}, "pipeline: step #1 has a stage that is nil, or a tee with an empty branch or too many tees in it"},
		{&Pipeline{Steps: []*Step{PipeStep("a", SpawnStage("x"), TeeStage(ChainBranch()))}}, "pipeline: step #1 has a stage that is nil, or a tee with an empty branch or too many tees in it"},
		{&Pipeline{Steps: []*Step{PipeStep("a", SpawnStage("x"), TeeStage(ChainBranch(TeeStage(FileBranch("f")))))}}, "pipeline: step a: a tee inside a branch of a tee; list its branches in the outer one"},
		{&Pipeline{Steps: []*Step{PipeStep("a", TeeStage(FileBranch("f")), SpawnStage("x"))}}, "pipeline: step a: a pipe cannot begin with a tee: there is no stream yet"},
		{&Pipeline{Steps: []*Step{ExecStep("a", "cat <(echo)")}}, "pipeline: step a: the embedded shell cannot do process substitution (<(…)); write shell: bash (or sh) on the step"},
		{&Pipeline{Steps: []*Step{RunStep("a", &Pipeline{Name: "sub", Params: []*Param{{Name: "p"}}, Steps: []*Step{SpawnStep("", "x")}})}}, "pipeline: step a: sub must be given its parameter p: add with: {p: …}"},
		{&Pipeline{Steps: []*Step{{Name: "a", Run: &Include{Pipeline: full()}, Stages: []*Stage{SpawnStage("x")}}}}, "pipeline: step a: a step has stages or runs a pipeline, not both"},
	} {
		if err := tt.p.Check(); err == nil || err.Error() != tt.want {
			t.Errorf("got\n  %v\nexpected\n  %s", err, tt.want)
		}
	}
}
