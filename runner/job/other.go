//go:build !linux

package job

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/pipe-runner/pipe/runner"
)

var errSystem = errors.New("jobs are supported on Linux only; remove detached from the step, or run it with --foreground")

// Start returns an error: jobs are supported on Linux only.
func (s *Store) Start(context.Context, *runner.JobSpec) (runner.Job, error) {
	return nil, &runner.StartError{Msg: errSystem.Error(), Err: errSystem}
}

// EnvironChanges returns an error: jobs are supported on Linux only.
func (s *Store) EnvironChanges(*Info, *runner.JobSpec) ([]string, error) { return nil, errSystem }

// Keeper returns exit status 1: jobs are supported on Linux only.
func Keeper() int { return 1 }

func signalProcess(Process, syscall.Signal) error { return os.ErrProcessDone }

func signalFamily(int, syscall.Signal) {}

func awaitExit(ctx context.Context, _ Process) error { return poll(ctx) }
