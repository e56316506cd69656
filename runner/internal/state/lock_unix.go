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

// owned refuses a folder of another user.
func owned(path string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, and this is user %d", path, st.Uid, os.Geteuid())
	}
	return nil
}

// OpenFile opens or makes a file of the state folder, and no link.
func OpenFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err == nil && flag&os.O_CREATE != 0 && f.Chmod(0o600) != nil { // whatever the umask is
		_ = f.Close()
		return nil, &os.PathError{Op: "chmod", Path: path, Err: syscall.EPERM}
	}
	return f, err
}

// TryLock takes the lock of a file if nobody has it.
func TryLock(f *os.File) (bool, error) { return flock(f, unix.LOCK_EX) }

// tryShared is TryLock for those who only look.
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
