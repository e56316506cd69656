//go:build unix

package state

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const isUnix = true

// owned returns an error if a file or folder belongs to another user.
func owned(path string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, not to this user (%d)", path, st.Uid, os.Geteuid())
	}
	return nil
}

// OpenFile opens a file of the state folder, as os.OpenFile does. It does not follow
// a symbolic link and never blocks on a FIFO. A file that it creates has mode 0600.
func OpenFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err == nil && flag&os.O_CREATE != 0 && f.Chmod(0o600) != nil { // the umask may have removed bits
		_ = f.Close()
		return nil, &os.PathError{Op: "chmod", Path: path, Err: syscall.EPERM}
	}
	return f, err
}

// TryLock takes the exclusive lock of a file. It reports false if another open file
// holds the lock. Closing f releases it.
func TryLock(f *os.File) (bool, error) { return flock(f, unix.LOCK_EX) }

// tryShared is like TryLock, but takes a shared lock.
func tryShared(f *os.File) (bool, error) { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
			continue
		}
		return false, os.NewSyscallError("flock", err)
	}
}
