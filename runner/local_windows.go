package runner

// This file holds how a process is started where there are neither groups nor
// signals: an end is always at once, and reaches the process alone.

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/safety"
)

const maxBigPipes = 16

func maxProcesses() int { return 0 }

// osProcess is the part of a process that differs between systems.
type osProcess struct {
	cmd *exec.Cmd
	pid int
}

func (p *localProcess) start(c *Cmd, files []*os.File) error {
	if c.UID != nil || c.GID != nil {
		return errors.New("uid and gid do not exist on this system")
	}
	p.cmd = &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: files[0], Stdout: files[1], Stderr: files[2]}
	if p.cmd.Env == nil {
		p.cmd.Env = []string{}
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.pid = p.cmd.Process.Pid
	return nil
}

// Pid returns the process id.
func (p *localProcess) Pid() int { return p.pid }

// Wait waits for the exit.
func (p *localProcess) Wait() Status {
	_ = p.cmd.Wait()
	ps := p.cmd.ProcessState
	return Status{Code: ps.ExitCode(), User: ps.UserTime(), Sys: ps.SystemTime()}
}

// Signal ends the process; other signals do not exist.
func (p *localProcess) Signal(sig syscall.Signal) {
	if sig != 0 {
		_ = p.cmd.Process.Kill()
	}
}

// Left reports that nothing is known to be left.
func (p *localProcess) Left() bool { return false }

// End does nothing: what is left is not known.
func (p *localProcess) End(syscall.Signal, time.Duration) []string { return nil }

func holders([]*os.File) []string { return nil }

func growPipe(*os.File) {}

func otherEndGone(*os.File) bool { return false }

func readNow(*os.File, []byte) (int, error) { return 0, io.EOF }

func openFile(_ context.Context, dir *safety.Dir, path string, flag int, perm os.FileMode) (*os.File, error) {
	return dir.OpenFile(path, flag, perm)
}

func dupDescriptor(int) (*os.File, error) { return nil, errors.ErrUnsupported }

func jobControl(syscall.Signal) bool { return false }

func ownTerminal(*os.File) func() { return func() {} }

func openNull(flag int) (*os.File, error) { return os.OpenFile(os.DevNull, flag, 0) }

func pipeFromChild() (r, w *os.File, err error) { return os.Pipe() }

func pipeToChild() (r, w *os.File, err error) { return os.Pipe() }

func scriptFile(text string) (*os.File, error) { return privateScript(text) }
