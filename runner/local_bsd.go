//go:build unix && !linux

package runner

// This file stands in for what only Linux has. Descendants are found as long
// as they stay in the group of their step.

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func wantPidfd(*syscall.SysProcAttr, *int) {}

func deathSignal(*syscall.SysProcAttr, syscall.Signal) {}

func maxRSS(ru *syscall.Rusage) int64 { return ru.Maxrss }

// awaitExit asks again and again: a wait that blocks would reap the process at
// a moment that Signal cannot know.
func (p *localProcess) awaitExit() {
	for delay := time.Millisecond; syscall.Kill(p.pid, 0) == nil && !zombie(p.pid); delay = min(2*delay, 20*time.Millisecond) {
		time.Sleep(delay)
	}
}

func (p *localProcess) findExtra() {}

func (p *localProcess) signalExtra(syscall.Signal) {}

// withoutTTOU runs f with SIGTTOU ignored: who is not the owner of a terminal
// may then still change it.
func withoutTTOU(f func()) {
	signal.Ignore(unix.SIGTTOU)
	defer signal.Reset(unix.SIGTTOU)
	f()
}

func groupMembers(pgid int) []member {
	if orphanGroup(pgid) {
		return []member{{pid: pgid, fd: -1, name: "a process of its group"}}
	}
	return nil
}

func closeMembers([]member) {}

// awaitGone asks again and again: there is no event for the end of a group.
func awaitGone(ms []member, deadline time.Time) bool {
	for _, m := range ms {
		for orphanGroup(m.pid) {
			if !deadline.IsZero() && time.Now().After(deadline) {
				return false
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return true
}

func holders([]*os.File) []string { return nil }

func growPipe(*os.File) {}

func openNull(flag int) (*os.File, error) { return os.OpenFile(os.DevNull, flag, 0) }

func pipeFromChild() (r, w *os.File, err error) { return os.Pipe() }

func pipeToChild() (r, w *os.File, err error) { return os.Pipe() }

// zombie reports whether a child has ended and waits to be reaped.
func zombie(pid int) bool {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	return err != nil || k.Proc.P_stat == 5 // SZOMB, from sys/proc.h
}

func scriptFile(text string) (*os.File, error) { return privateScript(text) }

func childDir(c *Cmd) string { return c.Dir }
