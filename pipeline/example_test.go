package pipeline_test

import (
	"fmt"

	"github.com/pipe-runner/pipe/pipeline"
)

// A pipeline in YAML: all errors of a file are reported at once, each with its
// place.
func ExampleParse() {
	_, err := pipeline.Parse("build.yaml", []byte(`
steps:
  - name: build
    spawn: [make, "${{ params.target }}"]
    timeuot: 5m
`))
	fmt.Println(err)
	// Output:
	// build.yaml:4:20: unknown parameter "target"; parameters are declared under params
	// build.yaml:5:5: unknown key "timeuot" in a step; did you mean "timeout"?
}

// The same kind of model, built in Go.
func ExamplePipeline() {
	list := pipeline.ExecFileStep("list", "ls", "-l")
	list.Timeout = 5e9
	p := &pipeline.Pipeline{
		Params: []*pipeline.Param{{Name: "word", Default: "go"}},
		Steps: []*pipeline.Step{
			list,
			pipeline.ExecStep("count", `echo "${{ steps.list.stdout }}" | wc -l`),
			pipeline.PipeStep("split",
				pipeline.SpawnStage("cat", "in.txt"),
				pipeline.TeeStage(
					pipeline.ChainBranch(pipeline.SpawnStage("grep", "x"), pipeline.SpawnStage("wc", "-l")),
					pipeline.FileBranch("copy.txt"),
				),
				pipeline.ExecFileStage("sort"),
			),
			pipeline.RunStep("sub", &pipeline.Pipeline{Steps: []*pipeline.Step{pipeline.SpawnStep("", "true")}}),
		},
	}
	fmt.Println(p.Check())
	p.Steps[0].Stages[0].Args[1] = pipeline.NewTemplate("--${{ params.wrod }}")
	fmt.Println(p.Check())
	// Output:
	// <nil>
	// pipeline: step list: unknown parameter "wrod"; did you mean "word"?
}

func ExampleStep_EachTemplate() {
	s := pipeline.SpawnStep("greet", "echo", "hello")
	s.Scope = &pipeline.Scope{Env: []pipeline.EnvVar{{Name: "LANG", Value: pipeline.Literal("C")}}}
	s.EachTemplate(func(key string, t *pipeline.Template) { fmt.Printf("%s: %s\n", key, t) })
	// Output:
	// env LANG: C
	// argument 0: echo
	// argument 1: hello
}
