package osfile

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Grow gives a pipe room for 1 MiB, where the system allows it.
func Grow(f *os.File) {
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
	}
}

// The child's end of a pipe, and the null device, are never read or written
// here: they are kept from the poller, which saves four calls for each.

// Null opens the null device for a child.
func Null(flag int) (*os.File, error) {
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
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[0]), "|0"), os.NewFile(uintptr(p[1]), "|1"), nil
}

// Text returns a file in memory that holds text, for a child that is given its
// descriptor.
func Text(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("shell text", unix.MFD_CLOEXEC)
	if err != nil {
		return privateText(text)
	}
	return written(os.NewFile(uintptr(fd), "shell text"), text)
}

// Reopen opens a pipe or a terminal once more for reading, so that a read of it
// can be ended by a deadline. Others who have the file do not notice. It returns
// nil for any other file, whose offset would not be shared.
func Reopen(f *os.File) *os.File {
	info, err := f.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 {
		return nil
	}
	again, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	if again.SetReadDeadline(time.Time{}) != nil { // /dev/null and its like never block
		_ = again.Close()
		return nil
	}
	return again
}
