package job

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

// Wait waits until the job with an id is no longer live, and returns its last state.
// If ctx is done first, Wait returns the cause of the end of ctx. The error may be a
// [NotFoundError].
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

// poll sleeps for a moment, where no event can be waited for. It returns the cause
// of the end of ctx if that comes first.
func poll(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// request says how a keeper is to stop its job. It is stored in the file "request"
// in the folder of the job. Zero fields leave the job's own settings in force.
type request struct {
	Signal syscall.Signal `json:"signal,omitempty"`
	Grace  *time.Duration `json:"grace,omitempty"`
}

// Stop ends all processes of a job and returns the last state of the job. It sends
// them sig (0: the job's killSignal) and, after grace (nil: the job's killAfter; 0:
// at once), SIGKILL. Stop returns when the job has ended. Stopping a job that has
// already ended is not an error.
func (s *Store) Stop(ctx context.Context, id string, sig syscall.Signal, grace *time.Duration) (*Info, error) {
	info, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	if info.State == StateLost {
		return info, stopLost(ctx, info, sig, grace)
	}
	if !info.State.Live() && !(info.State == StateUnreadable && info.kept) {
		return info, nil
	}
	if sig != 0 || grace != nil {
		data, err := state.Seal(request{sig, grace})
		if err == nil {
			err = state.Replace(filepath.Join(s.job(id), "request"), data)
		}
		if err != nil {
			return info, fmt.Errorf("job %s: cannot write a request to its keeper: %w", id, err)
		}
	}
	if err := signalProcess(info.Keeper, syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return info, fmt.Errorf("job %s: cannot signal its keeper (pid %d): %w", id, info.Keeper.Pid, err)
	}
	for err == nil && info.State == StateUnreadable && info.kept { // a keeper replaces the file when its job ends
		if err = awaitExit(ctx, info.Keeper); err == nil {
			info, err = s.Get(id)
		}
	}
	if err == nil {
		info, err = s.Wait(ctx, id)
	}
	if err == nil && info.State == StateLost {
		err = stopLost(ctx, info, sig, grace)
	}
	return info, err
}

// stopLost ends the remaining processes of a job whose keeper is gone.
func stopLost(ctx context.Context, info *Info, sig syscall.Signal, grace *time.Duration) error {
	wait := 5 * time.Second
	if grace != nil {
		wait = *grace
	}
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	told := map[int]bool{} // pids that have been sent sig
	for end := time.Now().Add(wait); ; {
		left := info.left()
		if len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			if !told[pid] {
				told[pid] = true
				signalFamily(pid, sig)
			}
		}
		switch over := time.Now().After(end); {
		case over && sig == syscall.SIGKILL:
			return fmt.Errorf("job %s: its processes have not ended after SIGKILL", info.ID)
		case over:
			sig, end = syscall.SIGKILL, time.Now().Add(5*time.Second)
			clear(told)
			continue
		}
		if err := poll(ctx); err != nil {
			return err
		}
	}
}

// handle is the [runner.Job] that Start returns.
type handle struct {
	s    *Store
	id   string
	kept bool
}

// Kept reports whether the job was already running, and Start left it alone.
func (h *handle) Kept() bool { return h.kept }

// ID returns the id of the job.
func (h *handle) ID() string { return h.id }

// Wait waits until the job has ended; see [runner.Job].
func (h *handle) Wait(ctx context.Context, output func(runner.Stream, []byte)) (runner.JobEnd, error) {
	if output != nil {
		err := h.s.Logs(ctx, h.id, true, func(l LogLine) error {
			text := l.Text
			if !l.Partial {
				text = append(text, '\n')
			}
			switch l.Stream {
			case LogStdout:
				output(runner.StreamStdout, text)
			case LogStderr:
				output(runner.StreamStderr, text)
			case missing:
				output(runner.StreamStderr, append([]byte("pipe: "), text...))
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
