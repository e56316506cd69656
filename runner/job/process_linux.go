package job

import (
	"context"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

// openProcess returns a descriptor for the very process, or -1 where the kernel
// has none; os.ErrProcessDone if it is gone.
func openProcess(p Process) (int, error) {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err == unix.ESRCH {
		return -1, os.ErrProcessDone
	}
	if err != nil {
		fd = -1
	}
	if !p.Alive() { // looked at once the descriptor is there: it cannot become another one any more
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// signalProcess sends a signal to the very process.
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

// signalFamily sends a signal to a process and all that descends from it.
func signalFamily(pid int, sig syscall.Signal) {
	for _, child := range procfs.Descendants(pid) {
		_ = syscall.Kill(child, sig)
	}
	_ = syscall.Kill(pid, sig)
}

// awaitExit waits until the process has ended.
func awaitExit(ctx context.Context, p Process) error {
	fd, err := openProcess(p)
	if err == os.ErrProcessDone {
		return poll(ctx) // it is about to be seen from its lock
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
