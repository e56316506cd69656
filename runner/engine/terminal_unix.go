//go:build unix

package engine

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/term"

	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/tty"
)

// Terminal is a terminal that the processes of one step have to themselves, as
// the processes of a job of a shell do. They are in one process group, which is
// in the foreground while any of them lives. When one is stopped from the
// terminal (Ctrl-Z), the caller's job is stopped too, so that the shell that
// started it goes on; when the shell continues the job, the process continues.
//
// [OwnTerminal] makes one; its methods may be called by several goroutines. A nil
// Terminal is none.
type Terminal struct {
	file  *os.File
	job   int         // the caller's process group, which the shell stops and continues
	modes *term.State // of before

	mu     sync.Mutex
	idle   int // the group in the foreground while no process lives
	group  int // of the processes; 0: none lives
	living int // processes of the group

	stops    atomic.Int64 // how often the job was stopped, and went on
	modesNow *term.State  // of the processes, when they were stopped; nil: they were not
}

// Terminal prepares a terminal for the processes of a step; see [OwnTerminal].
func (l Local) Terminal(f *os.File) *Terminal {
	if _, err := tty.Owner(f); err != nil {
		return nil
	}
	t := &Terminal{file: f}
	if l.Tree != nil {
		t.job = l.Tree.Job()
	}
	if t.job == 0 {
		t.job = syscall.Getpgrp()
	}
	t.idle = t.job
	t.modes, _ = term.GetState(int(f.Fd()))
	return t
}

// Hold puts this program's own group into the foreground whenever no process of
// the step lives, so that the program can read the terminal itself.
func (t *Terminal) Hold() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.foreground() {
		t.idle = syscall.Getpgrp()
		t.rest()
	}
}

// Release gives the terminal back as it was before. No process of the step may
// live any more that it is to end with.
func (t *Terminal) Release() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.foreground() {
		tty.Give(t.file, t.job, t.modes)
	}
	t.idle, t.group, t.living = t.job, 0, 0
}

// foreground reports whether the caller's job, or what stands for it here, is in
// the foreground.
func (t *Terminal) foreground() bool {
	owner, err := tty.Owner(t.file)
	return err == nil && (owner == t.job || owner == t.idle || owner == t.group)
}

// rest puts the idle group into the foreground, unless a process lives.
func (t *Terminal) rest() {
	if t.living == 0 {
		tty.Give(t.file, t.idle, nil)
	}
}

// start starts a process in the group of the step, which it returns, by fork; sys
// is what puts it there.
func (t *Terminal) start(sys *syscall.SysProcAttr, fork func() (pid int, err error)) (pid, group int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sys.Setpgid = true
	if t.living > 0 {
		sys.Pgid = t.group
		pid, err = fork()
		if err == nil {
			t.living++
			return pid, t.group, nil
		}
		if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ESRCH) {
			return 0, 0, err
		}
		sys.Pgid = 0 // the last one of the group has just been reaped
	}
	if t.foreground() {
		sys.Foreground, sys.Ctty = true, int(t.file.Fd())
	}
	if pid, err = fork(); err != nil {
		if sys.Foreground {
			t.rest()
		}
		return 0, 0, err
	}
	t.group = pid
	t.living++
	return pid, pid, nil
}

// ended tells that a process of the group has been reaped.
func (t *Terminal) ended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.living == 0 {
		return // it outlived the step
	}
	if t.living--; t.living == 0 {
		mine := t.foreground()
		t.group = 0
		if mine {
			t.rest()
		}
	}
}

// stopped tells that a process of the group was stopped, when the job had been
// stopped so many times. It returns when the process is to be waited for again.
func (t *Terminal) stopped(pid int, by syscall.Signal, stops int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := procfs.ReadStat(pid); !ok || s.State != 'T' || stops != t.stops.Load() {
		return // it was continued with another one of the group
	}
	if owner, err := tty.Owner(t.file); err == nil && owner == t.group {
		t.modesNow, _ = term.GetState(int(t.file.Fd()))
	}
	if t.foreground() {
		if by == syscall.SIGTTIN || by == syscall.SIGTTOU { // it wants what it may have
			tty.Give(t.file, t.group, t.modesNow)
			_ = syscall.Kill(-t.group, syscall.SIGCONT)
			return
		}
		_ = syscall.Kill(-t.group, syscall.SIGSTOP)
		awaitStopped(t.group) // or one of them would take what is typed for the shell
		tty.Give(t.file, t.job, t.modes)
	}
	_ = syscall.Kill(-t.job, syscall.SIGTSTP)
	if t.job == syscall.Getpgrp() && !catches(syscall.SIGTSTP) {
		tty.Stop(syscall.SIGTSTP) // now, and not at some time after kill
	}
	went := awaitContinued(pid, t.job)
	t.stops.Add(1)
	if !went {
		return // the next look at it tells
	}
	if owner, err := tty.Owner(t.file); err == nil && owner == t.job { // fg, and not bg
		tty.Give(t.file, t.group, t.modesNow)
	}
	if t.job == syscall.Getpgrp() {
		_ = syscall.Kill(-t.group, syscall.SIGCONT) // else who was continued for the job hands that on
	}
}
