package job

// This file holds what is done to jobs from outside: waiting and stopping.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/internal/state"
)

// Wait returns when the job does not go on any more, or ctx is done, which is
// an error.
func (s *Store) Wait(ctx context.Context, id string) (*Info, error) {
	for {
		info, err := s.Get(id)
		if err != nil || !info.State.Live() {
			return info, err
		}
		if err := awaitExit(ctx, info.Keeper); err != nil {
			return info, err
		}
	}
}

// poll waits a moment, where there is nothing that could be waited for.
func poll(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// request is what a keeper is asked for, in a file beside its job.
type request struct {
	Signal syscall.Signal `json:"signal,omitempty"`
	Grace  *time.Duration `json:"grace,omitempty"`
}

// Stop ends a job, all of its processes: by sig (0: its killSignal), and after
// grace (nil: its killAfter; 0: at once) by SIGKILL. It returns when the job
// has ended. To stop one that has ended is no error.
func (s *Store) Stop(ctx context.Context, id string, sig syscall.Signal, grace *time.Duration) (*Info, error) {
	info, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	if info.State == Lost {
		return info, s.stopLost(info, grace)
	}
	if !info.State.Live() {
		return info, nil
	}
	if sig != 0 || grace != nil {
		data, err := state.Seal(request{sig, grace})
		if err == nil {
			err = state.Replace(filepath.Join(s.job(id), "request"), data)
		}
		if err != nil {
			return info, fmt.Errorf("job %s: cannot ask its keeper: %w", id, err)
		}
	}
	if err := signalProcess(info.Keeper, syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return info, fmt.Errorf("job %s: its keeper (pid %d): %w", id, info.Keeper.Pid, err)
	}
	info, err = s.Wait(ctx, id)
	if err == nil && info.State == Lost {
		err = s.stopLost(info, grace)
	}
	return info, err
}

// stopLost ends what is left of a job whose keeper is gone, as far as it is
// known for certain.
func (s *Store) stopLost(info *Info, grace *time.Duration) error {
	wait := 5 * time.Second
	if grace != nil {
		wait = *grace
	}
	sig := syscall.SIGTERM
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		left := false
		for _, p := range info.Pids {
			if p.Alive() {
				left = true
				signalFamily(p, sig)
			}
		}
		switch {
		case !left:
			return nil
		case time.Now().After(end) && sig == syscall.SIGKILL:
			return fmt.Errorf("job %s: its processes do not end", info.ID)
		case time.Now().After(end):
			sig, end = syscall.SIGKILL, time.Now().Add(5*time.Second)
		}
	}
}

// handle is a job that this program started.
type handle struct {
	s  *Store
	id string
}

// ID returns the id of the job.
func (h *handle) ID() string { return h.id }

// Wait returns when the job has ended; see [runner.Job].
func (h *handle) Wait(ctx context.Context, output func(runner.Stream, []byte)) (runner.JobEnd, error) {
	if output != nil {
		err := h.s.Logs(ctx, h.id, true, func(l LogLine) error {
			text := l.Text
			if !l.Partial {
				text = append(text, '\n')
			}
			switch l.Stream {
			case Stdout:
				output(runner.Stdout, text)
			case Stderr:
				output(runner.Stderr, text)
			}
			return nil
		})
		if err != nil {
			return runner.JobEnd{}, err
		}
	}
	info, err := h.s.Wait(ctx, h.id)
	if err != nil {
		return runner.JobEnd{}, err
	}
	return info.end(), nil
}
