package engine

// There are neither process groups nor signals here: an end is always at once,
// and reaches the process alone.

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// osProcess is the part of a process that differs between systems.
type osProcess struct {
	cmd *exec.Cmd
	pid int
}

func (p *process) start(c *Cmd, files []*os.File) error {
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
func (p *process) Pid() int { return p.pid }

// Wait waits for the exit.
func (p *process) Wait() Status {
	_ = p.cmd.Wait()
	ps := p.cmd.ProcessState
	return Status{Code: ps.ExitCode(), User: ps.UserTime(), Sys: ps.SystemTime()}
}

// Signal ends the process; other signals do not exist.
func (p *process) Signal(sig syscall.Signal) error {
	if sig == 0 {
		return nil
	}
	if err := p.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
