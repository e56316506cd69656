package runner

// This file holds what Linux adds: pidfds, which let a goroutine wait for a
// process without a thread, and /proc, which shows descendants that left the
// group.

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

func wantPidfd(sys *syscall.SysProcAttr, fd *int) { sys.PidFD = fd }

func deathSignal(sys *syscall.SysProcAttr, sig syscall.Signal) { sys.Pdeathsig = sig }

func maxRSS(ru *syscall.Rusage) int64 { return ru.Maxrss << 10 }

// awaitExit parks until the process has exited, and leaves it to be reaped.
func (p *localProcess) awaitExit() {
	if p.terminal != nil {
		p.awaitOnTerminal()
	}
	if p.pidfd >= 0 {
		fd := p.pidfd
		if unix.SetNonblock(fd, true) == nil {
			f := os.NewFile(uintptr(fd), "pidfd")
			defer f.Close()
			if rc, err := f.SyscallConn(); err == nil {
				err = rc.Read(func(uintptr) bool { return exited(p.pid, unix.WNOHANG) })
				if err == nil {
					return
				}
			}
		}
	}
	exited(p.pid, 0)
}

// awaitOnTerminal waits for the exit of a process that owns the terminal. When
// it is stopped from there (Ctrl-Z), the group that owned the terminal before
// is stopped with it, as the job that it is to the shell; when that goes on, so
// does the process. Only one process is waited for like this, by a thread.
func (p *localProcess) awaitOnTerminal() {
	for {
		info, err := waitInfo(p.pid, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT)
		if err != nil || info.Code != cldStopped {
			return
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(p.pid, &ws, unix.WUNTRACED|unix.WNOHANG, nil); err != nil {
			return
		}
		tty := int(p.terminal.Fd())
		foreground, _ := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
		if sig := ws.StopSignal(); (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && (foreground == p.owner || foreground == p.pid) {
			setTerminal(p.terminal, p.pid, nil)
			_ = syscall.Kill(-p.pid, syscall.SIGCONT)
			continue
		}
		modes, _ := term.GetState(tty)
		if foreground == p.pid {
			setTerminal(p.terminal, p.owner, p.modes)
		}
		_ = syscall.Kill(-p.owner, syscall.SIGTSTP)
		info, err = waitInfo(p.pid, unix.WEXITED|unix.WCONTINUED|unix.WNOWAIT)
		if err != nil || info.Code != cldContinued {
			return
		}
		_, _ = waitInfo(p.pid, unix.WCONTINUED|unix.WNOHANG)
		if foreground, _ = unix.IoctlGetInt(tty, unix.TIOCGPGRP); foreground == p.owner { // fg, not bg
			setTerminal(p.terminal, p.pid, modes)
			_ = syscall.Kill(-p.pid, syscall.SIGCONT) // it may have been stopped by a read meanwhile
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

// withoutTTOU runs f with SIGTTOU blocked in its thread: who is not the owner
// of a terminal may then still change it.
func withoutTTOU(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.Sigset_t
	set := unix.Sigset_t{}
	set.Val[0] = 1 << (uint(unix.SIGTTOU) - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old) == nil {
		defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	}
	f()
}

// findExtra notes the descendants that are not in the group.
func (p *localProcess) findExtra() {
	known := map[int]bool{p.pid: true}
	for _, m := range p.extra {
		known[m.pid] = true
	}
	for _, pid := range procfs.Descendants(p.pid) {
		if known[pid] {
			continue
		}
		if s, ok := procfs.ReadStat(pid); ok && s.Pgrp != p.pid {
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

func (p *localProcess) signalExtra(sig syscall.Signal) {
	for _, m := range p.extra {
		if m.fd >= 0 {
			_ = unix.PidfdSendSignal(m.fd, sig, nil, 0)
		} else {
			_ = syscall.Kill(m.pid, sig)
		}
	}
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

// holders names the processes that have the other end of a pipe open.
func holders(pipes []*os.File) []string {
	want := map[string]bool{}
	for _, f := range pipes {
		if rc, err := f.SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) {
				if link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd))); err == nil {
					want[link] = true
				}
			})
		}
	}
	var out []string
	procs, _ := os.ReadDir("/proc")
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fds, _ := os.ReadDir("/proc/" + e.Name() + "/fd")
		for _, f := range fds {
			if link, err := os.Readlink("/proc/" + e.Name() + "/fd/" + f.Name()); err == nil && want[link] {
				s, _ := procfs.ReadStat(pid)
				out = append(out, s.Comm+" (pid "+e.Name()+")")
				break
			}
		}
	}
	return out
}

// growPipe gives a pipe room for 1 MiB, where the system allows it.
func growPipe(f *os.File) {
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
	}
}

// The child's end of a pipe, and the null device, are never read or written
// here: they are kept from the poller, which saves four calls for each.

func openNull(flag int) (*os.File, error) {
	fd, err := unix.Open(os.DevNull, flag|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	return os.NewFile(uintptr(fd), os.DevNull), nil
}

func pipeFromChild() (r, w *os.File, err error) { return halfPipe(0) }

func pipeToChild() (r, w *os.File, err error) { return halfPipe(1) }

// halfPipe returns a pipe of which the given end is ours.
func halfPipe(ours int) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(p[ours], true); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[0]), "|0"), os.NewFile(uintptr(p[1]), "|1"), nil
}

// scriptFile returns a file in memory that a shell reads its text from.
func scriptFile(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("shell text", unix.MFD_CLOEXEC)
	if err != nil {
		return privateScript(text)
	}
	return written(os.NewFile(uintptr(fd), "shell text"), text)
}

// childDir returns the name by which the child enters its directory.
func childDir(c *Cmd) string {
	if c.DirFile == nil {
		return c.Dir
	}
	return "/proc/self/fd/" + strconv.Itoa(int(c.DirFile.Fd()))
}
