package runner_test

import (
	"context"
	"fmt"
	"log"

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
		Params: map[string][]string{"who": {"gopher"}},
		Sink:   func(runner.Event) {}, // or the output goes to os.Stdout
	}
	res, err := r.Run(context.Background(), p)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Close()
	out, _ := res.Steps[0].Stages[0].Stdout(0)
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
	var lines []byte
	r := runner.Runner{Sink: func(e runner.Event) {
		if e.Type == runner.EventData {
			lines = append(lines, e.Data...) // Data is borrowed
		}
	}}
	if _, err := r.Run(context.Background(), p); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", lines)
	// Output: 100
}
