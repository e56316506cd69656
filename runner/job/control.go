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
			return info, fmt.Errorf("job %s: cannot ask its keeper: %w", id, err)
		}
	}
	if err := signalProcess(info.Keeper, syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return info, fmt.Errorf("job %s: its keeper (pid %d): %w", id, info.Keeper.Pid, err)
	}
	for err == nil && info.State == StateUnreadable && info.kept { // it writes its file anew when it ends
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

// stopLost ends what is left of a job whose keeper is gone.
func stopLost(ctx context.Context, info *Info, sig syscall.Signal, grace *time.Duration) error {
	wait := 5 * time.Second
	if grace != nil {
		wait = *grace
	}
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	told := map[int]bool{} // who has had the signal
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
			return fmt.Errorf("job %s: its processes do not end", info.ID)
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

// handle is a job that this program started.
type handle struct {
	s    *Store
	id   string
	kept bool
}

// Kept reports whether the job was there already.
func (h *handle) Kept() bool { return h.kept }

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
