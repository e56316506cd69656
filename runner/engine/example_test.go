package engine_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/engine"
)

// logged is an engine that tells of the processes that another one starts.
type logged struct{ engine.Engine }

func (l logged) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	p, err := l.Engine.Start(ctx, c)
	if err != nil {
		fmt.Println(c.Args, "did not start:", err)
		return nil, err
	}
	fmt.Println(c.Args, "started")
	return loggedProcess{p, c.Args}, nil
}

// Unwrap lets the runner find programs, and terminals, by the other engine.
func (l logged) Unwrap() engine.Engine { return l.Engine }

type loggedProcess struct {
	engine.Process
	args []string
}

func (p loggedProcess) Wait() engine.Status {
	st := p.Process.Wait()
	fmt.Println(p.args, "ended:", st)
	return st
}

// Unwrap lets the runner end what the process leaves behind.
func (p loggedProcess) Unwrap() engine.Process { return p.Process }

// An engine that adds something to another one has Unwrap, and its processes too:
// the runner finds there what they do not have themselves.
func ExampleEngine_wrap() {
	p := &pipeline.Pipeline{Steps: []*pipeline.Step{
		pipeline.SpawnStep("greet", "echo", "hello"),
		pipeline.ExecStep("again", "/bin/echo again"),
	}}
	r := runner.Runner{Engine: logged{engine.Local{}}, Sink: func(runner.Event) {}}
	if _, err := r.Run(context.Background(), p); err != nil {
		log.Fatal(err)
	}
	// Output:
	// [echo hello] started
	// [echo hello] ended: exit status 0
	// [/bin/echo again] started
	// [/bin/echo again] ended: exit status 0
}
