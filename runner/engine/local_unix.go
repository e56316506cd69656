//go:build unix

package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/internal/tty"
)

// osProcess is the part of a process that differs between systems.
type osProcess struct {
	pid   int
	pidfd int // -1: none

	mu     sync.Mutex
	reaped bool
	extra  []member // signalled descendants outside of the group

	terminal *os.File
	owner    int // the group that had the terminal before
	modes    *term.State
}

// member is a process that may not be ours to wait for.
type member struct {
	pid  int
	fd   int // pidfd, or -1
	name string
}

func (p *process) start(c *Cmd, files []*os.File) error {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		if fds[i] = ^uintptr(0); f != nil {
			fds[i] = f.Fd() // makes it blocking, as a child expects
		}
	}
	sys := &syscall.SysProcAttr{Setpgid: !c.Session, Setsid: c.Session}
	p.pidfd = -1
	wantPidfd(sys, &p.pidfd)
	if c.UID != nil || c.GID != nil {
		sys.Credential = credential(c)
	}
	if c.Terminal != nil {
		p.takeTerminal(c.Terminal, sys)
	}
	env := c.Env
	if env == nil {
		env = []string{}
	}
	fork := func(death syscall.Signal) (int, error) {
		deathSignal(sys, death)
		return syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{Dir: childDir(c), Env: env, Files: fds, Sys: sys})
	}
	var err error
	if p.tree != nil {
		p.pid, err = p.tree.Fork(fork)
	} else {
		p.pid, err = fork(0)
	}
	runtime.KeepAlive(files)
	if err != nil {
		p.giveTerminal()
	}
	return err
}

func credential(c *Cmd) *syscall.Credential {
	cred := &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	if c.UID != nil {
		cred.Uid = *c.UID
	}
	if c.GID != nil {
		cred.Gid = *c.GID
	}
	cred.NoSetGroups = os.Geteuid() != 0
	return cred
}

// Pid returns the process id.
func (p *process) Pid() int { return p.pid }

// Wait waits for the exit and reaps the process.
func (p *process) Wait() Status {
	p.awaitExit()
	var ws syscall.WaitStatus
	var ru syscall.Rusage
	var err error
	p.mu.Lock()
	for {
		if _, err = syscall.Wait4(p.pid, &ws, 0, &ru); err != syscall.EINTR {
			break
		}
	}
	p.reaped = true
	p.mu.Unlock()
	if p.tree != nil {
		p.tree.Reaped(p.pid)
	}
	p.giveTerminal()
	if err != nil {
		return Status{Code: 1, Err: fmt.Errorf("the exit status of %s (pid %d) was taken by another part of this program: %w", p.name, p.pid, err)}
	}
	st := Status{Code: ws.ExitStatus(), User: time.Duration(ru.Utime.Nano()), Sys: time.Duration(ru.Stime.Nano()), MaxRSS: maxRSS(&ru)}
	if ws.Signaled() {
		st.Signal, st.CoreDumped = ws.Signal(), ws.CoreDump()
		st.Code = signame.ExitCode(st.Signal)
	}
	return st
}

// Signal sends a signal to the group, and to descendants that left it. The
// number of a group whose leader has been reaped stays taken as long as it has
// members, and a group of that number with a leader is another one.
func (p *process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped && !orphanGroup(p.pid) {
		return p.signalExtra(sig)
	}
	if !p.reaped {
		p.findExtra()
	}
	err := gone(syscall.Kill(-p.pid, sig))
	if sig != syscall.SIGKILL && !tty.JobControl(sig) {
		_ = syscall.Kill(-p.pid, syscall.SIGCONT) // a stopped process acts on no signal
	}
	return errors.Join(err, p.signalExtra(sig))
}

// gone takes away the error that says that there is nobody to be signalled.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// orphanGroup reports whether the group has members but no leader.
func orphanGroup(pgid int) bool {
	return syscall.Kill(-pgid, 0) != syscall.ESRCH && syscall.Kill(pgid, 0) == syscall.ESRCH
}

// Left reports whether the group, or a descendant outside of it, has survived.
func (p *process) Left() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.extra) > 0 || orphanGroup(p.pid)
}

// End ends what is left of the group and of the descendants outside of it.
func (p *process) End(sig syscall.Signal, grace time.Duration) []string {
	if !p.Left() {
		return nil
	}
	p.mu.Lock()
	extra := p.extra
	p.mu.Unlock()
	names := map[string]bool{}
	note := func(ms []member) {
		for _, m := range ms {
			names[m.name] = true
		}
	}
	note(extra)
	deadline := time.Now().Add(grace)
	if grace == 0 {
		deadline = time.Time{}
	}
	for {
		group := groupMembers(p.pid) // before the signal, or who obeys at once is not named
		note(group)
		_ = p.Signal(sig) // the members that it did not reach are waited for
		gone := awaitGone(group, deadline) && awaitGone(extra, deadline)
		closeMembers(group)
		if gone && !orphanGroup(p.pid) {
			break
		}
		if gone && len(group) == 0 {
			break // only zombies are left, which their parents reap
		}
		if !gone {
			sig, deadline = syscall.SIGKILL, time.Now().Add(time.Second)
		}
	}
	p.mu.Lock()
	closeMembers(p.extra)
	p.extra = nil
	p.mu.Unlock()
	return slices.Sorted(maps.Keys(names))
}

// takeTerminal makes the child's group the one that owns the terminal.
func (p *process) takeTerminal(f *os.File, sys *syscall.SysProcAttr) {
	owner, err := tty.Owner(f)
	if err != nil {
		return // not the controlling terminal: nothing to own
	}
	fd := int(f.Fd())
	p.terminal, p.owner = f, owner
	p.modes, _ = term.GetState(fd)
	sys.Foreground, sys.Ctty = true, fd
}

// giveTerminal gives the terminal back and restores its modes.
func (p *process) giveTerminal() {
	if p.terminal != nil {
		tty.Give(p.terminal, p.owner, p.modes)
		p.terminal = nil
	}
}
