package runner

// This file holds steps that run another pipeline.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// errStopped is the cause of the end of a pipeline whose step is to end.
var errStopped = errors.New("its step was ended")

// include runs the pipeline of a step, in the step's directory and environment.
func (ex *execution) include() {
	if file := ex.step.Run.Pipeline.File; ex.r.root != nil && file != "" {
		abs, err := filepath.Abs(file)
		if err == nil {
			_, err = ex.r.root.Stat(abs)
		}
		if err != nil {
			ex.fail(&StartError{Path: file, Code: 126, Msg: fmt.Sprintf("run %s: %v", file, cause(err)), Err: err})
			return
		}
	}
	sub, err := ex.subRunner()
	if err != nil {
		ex.fail(err)
		return
	}
	if ex.r.sink != nil {
		sub.Sink = func(e Event) {
			if e.Type == EventRunEnd {
				return
			}
			if e.Label = ex.u.label + "/" + e.Label; e.Step < 0 {
				e.Label = ex.u.label
			}
			ex.r.sink(e)
		}
	}
	res, err := ex.runSub(sub)
	if err != nil {
		ex.fail(err)
		return
	}
	ex.result.Sub = res
	c := res.Cause
	switch {
	case ex.stopped, ex.result.Reason == ReasonTimeout:
		ex.result.Status = StatusFailure
		if ex.result.ExitCode = 124; ex.stopped {
			ex.result.ExitCode = res.ExitCode
		}
	case res.Interrupted != nil: // its own timeout
		ex.result.Status, ex.result.Reason, ex.result.ExitCode, ex.result.Err = StatusFailure, ReasonTimeout, res.ExitCode, res.Interrupted
	case c != nil:
		ex.result.Status, ex.result.Reason, ex.result.ExitCode, ex.result.Signal = StatusFailure, c.Reason, res.ExitCode, c.Signal
		ex.result.Err = fmt.Errorf("step %s of %s failed", c.Label, ex.step.Run.Pipeline.File)
	}
}

// subRunner returns what runs the pipeline of a step.
func (ex *execution) subRunner() (*Runner, error) {
	b := ex.bounds[0]
	params := map[string][]string{}
	vars := ex.vars
	for _, w := range ex.step.Run.With {
		words, err := w.Value.EvalArgs(&vars)
		if err != nil {
			return nil, fmt.Errorf("with %s: %w", w.Name, err)
		}
		params[w.Name] = words
	}
	limit := ex.r.limit
	declared := append(slices.Clone(ex.r.declared), b.declared...)
	if !b.inherits { // it sets them all
		declared = nil
		for _, kv := range b.env {
			name, _, _ := strings.Cut(kv, "=")
			declared = append(declared, name)
		}
	}
	return &Runner{
		declared: declared, Force: ex.r.force,
		Engine: ex.r.engine, Params: params, Dir: b.dir, Env: b.env, Root: ex.r.rootName, Inherited: ex.r.inherited,
		Stdin: ex.r.stdio[0], Stdout: ex.r.stdio[1], Stderr: ex.r.stdio[2],
		MaxParallel: &limit, KeepGoing: ex.r.keepGoing, Jobs: ex.r.jobs, Foreground: ex.r.foreground, parent: ex.r, label: ex.u.label, after: ex.after,
	}, nil
}

// runSub runs the pipeline until it ends, or the step is to end.
func (ex *execution) runSub(sub *Runner) (*Result, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	type outcome struct {
		res *Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := sub.Run(ctx, ex.step.Run.Pipeline)
		done <- outcome{res, err}
	}()
	again := make(chan struct{})
	forced := false
	stop := func(req stopRequest) {
		if req.force && !forced {
			forced = true
			close(again)
		}
		var cause error = errStopped
		if req.sig == syscall.SIGINT || req.force {
			cause = &Interrupt{Signal: syscall.SIGINT, Again: again}
		}
		cancel(cause)
	}
	for {
		select {
		case o := <-done:
			return o.res, o.err
		case req := <-ex.stopReq:
			ex.stopped = true
			stop(req)
		case <-ex.timers.timeout:
			ex.timers.timeout = nil
			ex.result.Reason = ReasonTimeout
			stop(stopRequest{})
		}
	}
}
