package engine

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

func wantPidfd(sys *syscall.SysProcAttr, fd *int) { sys.PidFD = fd }

func deathSignal(sys *syscall.SysProcAttr, sig syscall.Signal) { sys.Pdeathsig = sig }

func maxRSS(ru *syscall.Rusage) int64 { return ru.Maxrss << 10 }

// awaitExit parks until the process has exited, and leaves it to be reaped.
func (p *process) awaitExit() {
	if p.terminal != nil {
		p.awaitOnTerminal()
	}
	if p.pidfd >= 0 {
		_ = unix.SetNonblock(p.pidfd, true) // without it Read fails
		f := os.NewFile(uintptr(p.pidfd), "pidfd")
		defer func() { _ = f.Close() }()
		if rc, err := f.SyscallConn(); err == nil {
			err = rc.Read(func(uintptr) bool { return exited(p.pid, unix.WNOHANG) })
			if err == nil {
				return
			}
		}
	}
	exited(p.pid, 0)
}

// awaitOnTerminal waits for the exit of a process that owns the terminal, which
// may be stopped and continued until then. It takes a thread.
func (p *process) awaitOnTerminal() {
	for {
		info, err := waitInfo(p.pid, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT)
		if err != nil || info.Code != cldStopped {
			return
		}
		if sig, ok := takeStop(p.pid); ok { // it has not been continued meanwhile
			p.terminal.stopped(p.pid, sig, p.terminal.stops.Load())
		}
	}
}

// takeStop consumes the news that a child was stopped, and returns by which
// signal. wait4 would reap a child that has been killed since.
func takeStop(pid int) (syscall.Signal, bool) {
	info, err := waitInfo(pid, unix.WSTOPPED|unix.WNOHANG)
	if err != nil || info.Code != cldStopped {
		return 0, false
	}
	return syscall.Signal((*childInfo)(unsafe.Pointer(&info)).status), true
}

// childInfo is the start of a siginfo_t of a SIGCHLD.
type childInfo struct {
	_      [3]int32 // signo, errno and code
	_      [0]uintptr
	_      [2]int32 // pid and uid
	status int32
}

// awaitContinued waits until a stopped process has been continued. It returns
// false where the process has ended, or was continued and has been stopped again:
// then it wanted the terminal before it had it. Where the job is this program's own
// group, the program was stopped itself, and goes on when the shell continues it,
// unless it takes SIGTSTP for itself.
func awaitContinued(pid, job int) bool {
	if job == syscall.Getpgrp() && !catches(unix.SIGTSTP) {
		return true
	}
	info, err := waitInfo(pid, unix.WEXITED|unix.WCONTINUED|unix.WSTOPPED|unix.WNOWAIT)
	if err != nil || info.Code != cldContinued {
		return false
	}
	_, _ = waitInfo(pid, unix.WCONTINUED|unix.WNOHANG)
	return true
}

// catches reports whether this program has a handler for a signal.
func catches(sig syscall.Signal) bool {
	status, _ := os.ReadFile("/proc/self/status")
	_, mask, _ := strings.Cut(string(status), "\nSigCgt:\t")
	mask, _, _ = strings.Cut(mask, "\n")
	set, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && set>>(uint(sig)-1)&1 == 1
}

// awaitStopped waits, for a second at most, until all processes of a group have
// stopped. The kernel tells of those of others by their state alone.
func awaitStopped(pgid int) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		members := groupMembers(pgid)
		closeMembers(members)
		if !slices.ContainsFunc(members, func(m member) bool {
			s, ok := procfs.ReadStat(m.pid)
			return ok && s.State != 'T' && !s.Gone()
		}) {
			return
		}
	}
}

// Values of si_code, from asm-generic/siginfo.h.
const (
	cldStopped   = 5
	cldContinued = 6
)

func waitInfo(pid, flags int) (unix.Siginfo, error) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, flags, nil)
		if err != unix.EINTR {
			return info, err
		}
	}
}

// exited waits for the exit without reaping. An error counts as an exit: there
// is nothing to wait for then.
func exited(pid, flags int) bool {
	info, err := waitInfo(pid, unix.WEXITED|unix.WNOWAIT|flags)
	return err != nil || info.Signo != 0
}

// findExtra notes the descendants that are not in the group.
func (p *process) findExtra() {
	known := map[int]bool{p.pid: true}
	for _, m := range p.extra {
		known[m.pid] = true
	}
	for _, pid := range procfs.Descendants(p.pid) {
		if known[pid] {
			continue
		}
		if s, ok := procfs.ReadStat(pid); ok && s.Pgrp != p.group {
			p.extra = append(p.extra, openMember(pid, s.Comm))
		}
	}
}

func openMember(pid int, name string) member {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1
	}
	return member{pid, fd, name + " (pid " + strconv.Itoa(pid) + ")"}
}

func closeMembers(ms []member) {
	for i := range ms {
		if ms[i].fd >= 0 {
			_ = unix.Close(ms[i].fd)
			ms[i].fd = -1
		}
	}
}

func (p *process) signalExtra(sig syscall.Signal) error {
	var errs error
	for _, m := range p.extra {
		errs = errors.Join(errs, gone(m.signal(sig)))
		if ends(sig) {
			_ = m.signal(syscall.SIGCONT) // a stopped process acts on no signal
		}
	}
	return errs
}

func (m member) signal(sig syscall.Signal) error {
	if m.fd >= 0 {
		return unix.PidfdSendSignal(m.fd, sig, nil, 0)
	}
	return syscall.Kill(m.pid, sig)
}

// groupMembers returns the living processes of a group.
func groupMembers(pgid int) []member {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	names, _ := d.Readdirnames(-1)
	_ = d.Close()
	var out []member
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if s, ok := procfs.ReadStat(pid); ok && s.Pgrp == pgid && !s.Gone() {
			out = append(out, openMember(pid, s.Comm))
		}
	}
	return out
}

// awaitGone waits until all members have ended, or the deadline (zero: none);
// it reports whether they have.
func awaitGone(ms []member, deadline time.Time) bool {
	for _, m := range ms {
		for m.fd < 0 { // a kernel without pidfd_open has no event for it
			if s, ok := procfs.ReadStat(m.pid); !ok || s.Gone() {
				break
			}
			if !deadline.IsZero() && time.Now().After(deadline) {
				return false
			}
			time.Sleep(time.Millisecond)
		}
		for m.fd >= 0 {
			timeout := -1
			if !deadline.IsZero() {
				timeout = max(0, int(time.Until(deadline).Milliseconds())+1)
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}, timeout)
			if err == unix.EINTR {
				continue
			}
			if err == nil && n == 0 {
				return false
			}
			break
		}
	}
	return true
}

// childDir returns the name by which the child enters its directory.
func childDir(c *Cmd) string {
	if c.DirFile == nil {
		return c.Dir
	}
	return "/proc/self/fd/" + strconv.Itoa(int(c.DirFile.Fd()))
}
