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

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/internal/tty"
)

// osProcess is the part of a process that differs between systems.
type osProcess struct {
	pid   int
	group int // pid, unless another process of its terminal leads the group
	pidfd int // -1: none

	mu     sync.Mutex
	reaped bool
	killed time.Time // of the first SIGKILL; zero: none was sent
	extra  []member  // signalled descendants outside of the group

	terminal *Terminal // nil: it has none
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
	// Without a controlling terminal nothing can stop the process, or be stopped by
	// it: a program that asks for a terminal is told at once that it has none.
	sys := &syscall.SysProcAttr{Setsid: c.Terminal == nil}
	p.pidfd = -1
	wantPidfd(sys, &p.pidfd)
	if c.UID != nil || c.GID != nil {
		sys.Credential = credential(c)
	}
	env := c.Env
	if env == nil {
		env = []string{}
	}
	forkExec := func(death syscall.Signal) (int, error) {
		deathSignal(sys, death)
		return syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{Dir: childDir(c), Env: env, Files: fds, Sys: sys})
	}
	fork := func() (int, error) {
		if p.tree != nil {
			return p.tree.Fork(forkExec)
		}
		return forkExec(0)
	}
	var err error
	if c.Terminal != nil {
		p.pid, p.group, err = c.Terminal.start(sys, fork)
	} else {
		p.pid, err = fork()
		p.group = p.pid
	}
	runtime.KeepAlive(files)
	if err == nil {
		p.terminal = c.Terminal
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
	if p.terminal != nil {
		p.terminal.ended()
	}
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
// members, and a group of that number with a leader is another one. Of processes
// that share a group, only the leader signals it, or each would.
func (p *process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sig == syscall.SIGKILL && p.killed.IsZero() {
		p.killed = time.Now()
	}
	if p.reaped && !orphanGroup(p.group) {
		return p.signalExtra(sig)
	}
	if !p.reaped {
		p.findExtra()
	}
	var err error
	if p.group == p.pid {
		err = gone(syscall.Kill(-p.group, sig))
		if ends(sig) {
			_ = syscall.Kill(-p.group, syscall.SIGCONT) // a stopped process acts on no signal
		}
	}
	return errors.Join(err, p.signalExtra(sig))
}

// ends reports whether a signal asks for an end, which a process that is stopped
// takes note of only when it is continued.
func ends(sig syscall.Signal) bool { return sig != 0 && sig != syscall.SIGKILL && !tty.JobControl(sig) }

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
	return len(p.extra) > 0 || p.group == p.pid && orphanGroup(p.group)
}

// killTime is how long a process may take to end by SIGKILL. One that takes longer
// may not be signalled, or hangs in the kernel.
const killTime = time.Second

// End ends what is left of the group and of the descendants outside of it.
func (p *process) End(sig syscall.Signal, grace time.Duration) []string {
	if !p.Left() {
		return nil
	}
	p.mu.Lock()
	extra := p.extra
	p.mu.Unlock()
	names := map[int]string{} // by pid: a process may have another name after an exec
	note := func(ms []member) {
		for _, m := range ms {
			names[m.pid] = m.name
		}
	}
	note(extra)
	began := time.Now()
	deadline := began.Add(grace)
	if grace == 0 {
		deadline = time.Time{}
	}
	for send := true; ; {
		group := groupMembers(p.group) // before the signal, or who obeys at once is not named
		note(group)
		if send {
			_ = p.Signal(sig) // the members that it did not reach are waited for
		}
		next := time.Now().Add(killTime) // Signal may be called with SIGKILL meanwhile
		if !deadline.IsZero() && deadline.Before(next) {
			next = deadline
		}
		gone := awaitGone(group, next) && awaitGone(extra, next)
		closeMembers(group)
		if gone && !orphanGroup(p.group) {
			break
		}
		if gone && len(group) == 0 {
			break // only zombies are left, which their parents reap
		}
		if send = gone; gone {
			continue // there are new ones
		}
		if t := p.killedSince(began); !t.IsZero() {
			if time.Since(t) >= killTime {
				break
			}
			deadline = time.Time{}
		} else if !deadline.IsZero() && !time.Now().Before(deadline) {
			sig, send, deadline = syscall.SIGKILL, true, time.Time{}
		}
	}
	p.mu.Lock()
	p.extra = slices.DeleteFunc(p.extra, func(m member) bool {
		gone := awaitGone([]member{m}, time.Now())
		if gone {
			closeMembers([]member{m})
		}
		return gone
	})
	p.mu.Unlock()
	return slices.Sorted(maps.Values(names))
}

// killedSince returns when SIGKILL was sent, but not a time before began; zero if
// it was not sent.
func (p *process) killedSince(began time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.killed.IsZero() && p.killed.Before(began) {
		return began
	}
	return p.killed
}
