//go:build unix && !linux

package engine

// Without /proc, descendants are found as long as they stay in the group of
// their step.

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func wantPidfd(*syscall.SysProcAttr, *int) {}

func deathSignal(*syscall.SysProcAttr, syscall.Signal) {}

func maxRSS(ru *syscall.Rusage) int64 { return ru.Maxrss }

// awaitExit asks again and again: a wait that blocks would reap the process at
// a moment that Signal cannot know.
func (p *process) awaitExit() {
	for delay := time.Millisecond; syscall.Kill(p.pid, 0) == nil && !zombie(p.pid); delay = min(2*delay, 20*time.Millisecond) {
		time.Sleep(delay)
	}
}

func (p *process) findExtra() {}

func (p *process) signalExtra(syscall.Signal) error { return nil }

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

// zombie reports whether a child has ended and waits to be reaped.
func zombie(pid int) bool {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	return err != nil || k.Proc.P_stat == 5 // SZOMB, from sys/proc.h
}

func childDir(c *Cmd) string { return c.Dir }

// awaitContinued gives a job that was stopped a moment: there is no event for its
// going on that could be waited for without reaping.
func awaitContinued(int, int) bool { time.Sleep(100 * time.Millisecond); return true }

// awaitStopped does nothing: the state of a process is not looked at.
func awaitStopped(int) {}

// catches reports false: it is not known.
func catches(syscall.Signal) bool { return false }
