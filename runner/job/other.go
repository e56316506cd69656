//go:build !linux

package job

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/pipe-runner/pipe/runner"
)

var errSystem = errors.New("jobs are for Linux; here a detached step cannot be kept")

// Start is an error here.
func (s *Store) Start(context.Context, *runner.JobSpec) (runner.Job, error) {
	return nil, &runner.StartError{Msg: errSystem.Error(), Err: errSystem}
}

// EnvironChanges is an error here.
func (s *Store) EnvironChanges(*Info, *runner.JobSpec) ([]string, error) { return nil, errSystem }

// Keeper returns an exit status of 1.
func Keeper() int { return 1 }

func signalProcess(Process, syscall.Signal) error { return os.ErrProcessDone }

func signalFamily(int, syscall.Signal) {}

func awaitExit(ctx context.Context, _ Process) error { return poll(ctx) }
