//go:build unix

package osfile

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/safety"
)

// Open opens a file inside of a directory as os.OpenFile does, but it waits for
// the other end of a FIFO only until ctx is done. The kernel has no event for
// the moment in which that end is opened, so Open asks again now and then.
//
// As with os.OpenFile, Fd makes the file block, as a child expects.
func Open(ctx context.Context, dir *safety.Dir, path string, flag int, perm os.FileMode) (*os.File, error) {
	info, err := dir.Stat(path)
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 || flag&os.O_RDWR != 0 { // which waits for nobody
		return dir.OpenFile(path, flag, perm)
	}
	if flag&os.O_WRONLY == 0 {
		return openFIFO(ctx, dir, path, flag, perm)
	}
	for delay := time.Millisecond; ; delay = min(2*delay, 20*time.Millisecond) {
		f, err := dir.OpenFile(path, flag|syscall.O_NONBLOCK, perm)
		if err == nil {
			// Package os lets a file that was opened with O_NONBLOCK keep it, and
			// children would lose output. So it is opened once more, without.
			defer func() { _ = f.Close() }()
			// The reader may be gone by now; with one of ours nothing waits.
			if r, err := dir.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
				defer func() { _ = r.Close() }()
			}
			return openFIFO(ctx, dir, path, flag, perm)
		}
		if !errors.Is(err, syscall.ENXIO) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, &os.PathError{Op: "open", Path: path, Err: ctx.Err()}
		case <-time.After(delay):
		}
	}
}

// openFIFO opens a FIFO once somebody has its other end. A blocking open does
// that; it is released by opening the other end when the context is done.
func openFIFO(ctx context.Context, dir *safety.Dir, path string, flag int, perm os.FileMode) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	opened := make(chan result, 1)
	go func() {
		f, err := dir.OpenFile(path, flag, perm)
		opened <- result{f, err}
	}()
	select {
	case r := <-opened:
		return r.f, r.err
	case <-ctx.Done():
	}
	late := func(r result) {
		if r.f != nil {
			_ = r.f.Close()
		}
	}
	other := os.O_WRONLY
	if flag&os.O_WRONLY != 0 {
		other = os.O_RDONLY
	}
	for range 100 {
		if f, err := dir.OpenFile(path, other|syscall.O_NONBLOCK, 0); err == nil {
			_ = f.Close()
		}
		select {
		case r := <-opened:
			late(r)
			return nil, &os.PathError{Op: "open", Path: path, Err: ctx.Err()}
		case <-time.After(time.Millisecond):
		}
	}
	go func() { late(<-opened) }() // the FIFO has been moved away: the open stays behind
	return nil, &os.PathError{Op: "open", Path: path, Err: ctx.Err()}
}

// Dup returns a copy of a descriptor, which no child inherits.
func Dup(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), "fd"), nil
}

// OtherEndGone reports whether nobody holds the other end of a pipe any more.
// What was written to it may still be there to be read.
func OtherEndGone(f *os.File) bool {
	gone := false
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			pfd := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(pfd, 0)
			gone = err == nil && n == 1 && pfd[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		})
	}
	return gone
}

// readNow reads what is there, without waiting and whatever the deadline. Where
// nothing is, it returns io.EOF.
func readNow(f *os.File, b []byte) (n int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), b); err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}
	return n, nil
}
