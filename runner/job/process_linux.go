package job

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

// openProcess returns a pidfd for p, or -1 if the kernel has no pidfds. If the
// process has ended, the error is os.ErrProcessDone.
func openProcess(p Process) (int, error) {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err == unix.ESRCH {
		return -1, os.ErrProcessDone
	}
	if err != nil {
		fd = -1
	}
	if !p.Alive() { // checked after opening fd, which refers to the same process even if the pid is reused
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// signalProcess sends a signal to p, and never to another process that has its pid.
func signalProcess(p Process, sig syscall.Signal) error {
	fd, err := openProcess(p)
	if err != nil {
		return err
	}
	if fd < 0 {
		return syscall.Kill(p.Pid, sig)
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// signalFamily sends a signal to a process and all of its descendants.
func signalFamily(pid int, sig syscall.Signal) {
	for _, child := range procfs.Descendants(pid) {
		_ = syscall.Kill(child, sig)
	}
	_ = syscall.Kill(pid, sig)
}

// awaitExit waits until p has ended. It may return early, so callers must check
// again. It returns the cause of the end of ctx if that comes first.
func awaitExit(ctx context.Context, p Process) error {
	fd, err := openProcess(p)
	if errors.Is(err, os.ErrProcessDone) {
		return poll(ctx) // its lock may be released a little later
	}
	if err != nil {
		return err
	}
	if fd < 0 || unix.SetNonblock(fd, true) != nil {
		return poll(ctx)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })
	defer stop()
	rc, err := f.SyscallConn()
	if err == nil {
		err = rc.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return err == nil && n > 0
		})
	}
	if err != nil && ctx.Err() == nil {
		return poll(ctx)
	}
	return context.Cause(ctx)
}
