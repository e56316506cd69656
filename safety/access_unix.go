//go:build unix

package safety

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// mayExecute asks the system whether the user that this program acts as may
// execute a file. Where the kernel lacks the call, any execute bit will do.
func mayExecute(file string, info fs.FileInfo) bool {
	if info.Mode()&0o111 == 0 {
		return false // the system says that root may, and then refuses to start it
	}
	err := unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
	return err == nil || err == unix.ENOSYS || err == unix.EPERM
}
