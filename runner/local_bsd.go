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

// awaitExit does nothing: the thread waits where the process is reaped.
func (p *localProcess) awaitExit() {}

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

func readerGone(f *os.File) bool {
	gone := false
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			pfd := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a descriptor
			n, err := unix.Poll(pfd, 0)
			gone = err == nil && n == 1 && pfd[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		})
	}
	return gone
}

func openNull(flag int) (*os.File, error) { return os.OpenFile(os.DevNull, flag, 0) }

func pipeFromChild() (r, w *os.File, err error) { return os.Pipe() }

func pipeToChild() (r, w *os.File, err error) { return os.Pipe() }
