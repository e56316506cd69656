package runner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
)

// A file is parsed, run, and asked for what its steps printed.
func Example() {
	p, err := pipeline.Parse("greet.yaml", []byte(`
params: {who: {default: world}}
steps:
  - name: greet
    execFile: [echo, "hello, ${{ params.who }}"]
`))
	if err != nil {
		log.Fatal(err)
	}
	r := runner.Runner{
		Sink: func(runner.Event) {}, // or the output goes to os.Stdout
	}
	res, err := r.Run(context.Background(), p, runner.Input{Params: map[string][]string{"who": {"gopher"}}})
	if err != nil {
		log.Fatal(err)
	}
	defer res.Close()
	out, _ := res.Step("greet").Stages[0].Stdout(0)
	fmt.Printf("%s%s, exit status %d\n", out, res.Steps[0].Status, res.ExitCode)
	// Output:
	// hello, gopher
	// success, exit status 0
}

// A pipeline can be built without YAML. Its words are literal.
func Example_built() {
	p := &pipeline.Pipeline{Steps: []*pipeline.Step{
		pipeline.PipeStep("count", pipeline.SpawnStage("seq", "1", "100"), pipeline.SpawnStage("wc", "-l")),
	}}
	r := runner.Runner{Stdout: os.Stdout}
	if _, err := r.Run(context.Background(), p); err != nil {
		log.Fatal(err)
	}
	// Output: 100
}

// find | wc: the stages are joined by a kernel pipe.
func Example_pipe() {
	p := &pipeline.Pipeline{Steps: []*pipeline.Step{
		pipeline.PipeStep("count", pipeline.SpawnStage("find", "testdata", "-type", "f"), pipeline.SpawnStage("wc", "-l")),
	}}
	var out bytes.Buffer
	if _, err := (&runner.Runner{Stdout: &out, Dir: ".."}).Run(context.Background(), p); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Len() > 0)
	// Output: true
}

// The error of Run says which step failed, and how.
func ExampleStepError() {
	p := &pipeline.Pipeline{Steps: []*pipeline.Step{pipeline.ExecStep("deploy", "exit 3")}}
	_, err := (&runner.Runner{Stdout: io.Discard}).Run(context.Background(), p)
	var failed *runner.StepError
	if errors.As(err, &failed) {
		fmt.Println(failed.Step, failed.ExitCode)
	}
	fmt.Println(err)
	// Output:
	// deploy 3
	// step deploy failed: exit status 3
}
