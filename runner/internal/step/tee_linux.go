package step

// On Linux a tee does not copy: tee(2) duplicates the pages of a pipe, splice(2)
// moves them on.

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// teeChunk is how much is duplicated at once, in bytes: what a large pipe holds.
const teeChunk = 1 << 20

// splice feeds the sinks. Each has an empty pipe of its own into which a chunk
// is duplicated, so that every sink is given exactly the same bytes, however
// full it is; then the chunk is moved to the sink. The last sink is given the
// stream itself.
func (t *tee) splice() error {
	pipes, err := t.scratch()
	defer func() {
		for _, p := range pipes {
			_ = p[0].Close()
			_ = p[1].Close()
		}
	}()
	if err != nil {
		return t.copy()
	}
	var failed error
	for len(t.sinks) > 0 {
		n, err := t.round(pipes, &failed)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			return errors.Join(failed, t.copy()) // a sink that cannot be spliced to
		}
		if n == 0 || err != nil {
			break
		}
	}
	return failed
}

// scratch returns a pipe for each sink but one, all of the same size.
func (t *tee) scratch() ([][2]*os.File, error) {
	var pipes [][2]*os.File
	for i := 1; i < len(t.sinks); i++ {
		pr, pw, err := os.Pipe()
		if err != nil {
			return pipes, err
		}
		pipes = append(pipes, [2]*os.File{pr, pw})
		if pipeSize(pw) != pipeSize(pipes[0][1]) { // past the user's limit they are small
			return pipes, unix.EINVAL
		}
	}
	for _, s := range t.sinks {
		if !spliceable(s.f) {
			return pipes, unix.EINVAL
		}
	}
	return pipes, nil
}

func pipeSize(f *os.File) (size int) {
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { size, _ = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0) })
	}
	return size
}

// spliceable reports whether splice(2) can write to a file: not to one that is
// open for appending, nor to a terminal.
func spliceable(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice != 0 {
		return false
	}
	flags := 0
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { flags, _ = unix.FcntlInt(fd, unix.F_GETFL, 0) })
	}
	return flags&unix.O_APPEND == 0
}

// round feeds one chunk to all sinks and returns its size; 0 is the end.
func (t *tee) round(pipes [][2]*os.File, failed *error) (int, error) {
	n := teeChunk
	sinks := append([]*teeSink{}, t.sinks...)
	last := sinks[len(sinks)-1]
	if len(sinks) == 1 {
		m, err := moveSome(t.in, last.f, n)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			*failed = errors.Join(*failed, t.drop(last, err))
			return 1, nil
		}
		return m, err
	}
	for i := range sinks[:len(sinks)-1] {
		m, err := duplicate(t.in, pipes[i][1], n)
		if err != nil || m == 0 {
			return 0, err
		}
		n = m // the first one decides; the others are as large
	}
	for i, s := range sinks[:len(sinks)-1] {
		if left, err := moveAll(pipes[i][0], s.f, n); err != nil {
			*failed = errors.Join(*failed, t.drop(s, err))
			if err := discard(pipes[i][0], left); err != nil {
				return 0, err
			}
		}
	}
	if left, err := moveAll(t.in, last.f, n); err != nil {
		*failed = errors.Join(*failed, t.drop(last, err))
		if err := discard(t.in, left); err != nil { // the others have it already
			return 0, err
		}
	}
	return n, nil
}

// duplicate copies up to n bytes from one pipe to another and leaves them there.
func duplicate(from, to *os.File, n int) (int, error) {
	rc, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	wc, err := to.SyscallConn()
	if err != nil {
		return 0, err
	}
	var m int64
	var terr error
	err = rc.Read(func(in uintptr) bool {
		_ = wc.Control(func(out uintptr) {
			for {
				m, terr = unix.Tee(int(in), int(out), n, unix.SPLICE_F_NONBLOCK)
				if terr != unix.EINTR {
					return
				}
			}
		})
		return terr != unix.EAGAIN
	})
	return int(m), errors.Join(err, terr)
}

// moveSome moves up to n bytes from a pipe to a file, waiting for either.
func moveSome(from, to *os.File, n int) (int, error) {
	rc, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	wc, err := to.SyscallConn()
	if err != nil {
		return 0, err
	}
	// First wait until there is something to read, then until there is room:
	// one call cannot tell which of the two it lacks.
	err = rc.Read(func(in uintptr) bool {
		p := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}}
		k, perr := unix.Poll(p, 0)
		return perr == nil && k > 0
	})
	if err != nil { // the stream was given up: it has ended
		return 0, nil
	}
	var m int64
	var serr error
	_ = rc.Control(func(in uintptr) {
		err = wc.Write(func(out uintptr) bool {
			for {
				m, serr = unix.Splice(int(in), nil, int(out), nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
				if serr != unix.EINTR {
					break
				}
			}
			return serr != unix.EAGAIN
		})
	})
	return int(m), errors.Join(err, serr)
}

// moveAll moves n bytes; after an error it returns how many were left.
func moveAll(from, to *os.File, n int) (left int, err error) {
	for n > 0 {
		m, err := moveSome(from, to, n)
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, os.ErrClosed
		}
		n -= m
	}
	return 0, nil
}

// discard reads n bytes that are there, and drops them.
func discard(from *os.File, n int) error {
	_, err := io.CopyN(io.Discard, from, int64(n))
	return err
}
