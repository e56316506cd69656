// Package runnertest has an engine that starts nothing, for tests of programs
// that run pipelines. It works inside of a testing/synctest bubble, where its
// processes take no real time.
package runnertest

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
)

// Engine is a fake [engine.Engine]. The zero value starts processes that end
// at once with exit code 0. Its methods may be called by several goroutines.
type Engine struct {
	// Behave says how a process behaves; nil: the zero Behaviour.
	Behave func(c *engine.Cmd) Behaviour

	mu      sync.Mutex
	started []string
	running int
	most    int
}

// Behaviour is what a fake process does.
type Behaviour struct {
	Err    error         // Start fails with it
	Output string        // written to stdout at the start
	For    time.Duration // how long it runs
	Status engine.Status // how it ends by itself
	Ignore bool          // it ignores all signals but SIGKILL
}

// Started returns Cmd.Step of each process, in order of their starts.
func (e *Engine) Started() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{}, e.started...)
}

// Most returns how many processes ran at once at the most.
func (e *Engine) Most() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// Start starts a fake process.
func (e *Engine) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var b Behaviour
	if e.Behave != nil {
		b = e.Behave(c)
	}
	if b.Err != nil {
		return nil, b.Err
	}
	e.mu.Lock()
	e.started = append(e.started, c.Step)
	e.running++
	e.most = max(e.most, e.running)
	e.mu.Unlock()
	p := &process{e: e, b: b, signals: make(chan syscall.Signal, 16), closed: make(chan struct{})}
	if b.Output != "" && c.Stdout != nil {
		_, _ = io.WriteString(c.Stdout, b.Output)
	}
	return p, nil
}

type process struct {
	e       *Engine
	b       Behaviour
	signals chan syscall.Signal
	closed  chan struct{}
}

// Pid returns 0.
func (p *process) Pid() int { return 0 }

// Wait returns after the time of the behaviour, or a signal.
func (p *process) Wait() engine.Status {
	defer func() {
		p.e.mu.Lock()
		p.e.running--
		p.e.mu.Unlock()
		close(p.closed)
	}()
	t := time.NewTimer(p.b.For)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return p.b.Status
		case sig := <-p.signals:
			if !p.b.Ignore || sig == syscall.SIGKILL {
				return engine.Killed(sig)
			}
		}
	}
}

// Closed is closed when the process has ended.
func (p *process) Closed() <-chan struct{} { return p.closed }

// Signal ends the process unless it ignores the signal.
func (p *process) Signal(sig syscall.Signal) error {
	select {
	case p.signals <- sig:
	default: // it has more than enough of them
	}
	return nil
}
