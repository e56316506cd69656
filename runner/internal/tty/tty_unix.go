//go:build unix

// Package tty hands a terminal from one process group to another.
package tty

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Owner returns the process group in the foreground of a terminal. The error
// says that it is not this program's controlling terminal.
func Owner(f *os.File) (pgid int, err error) { return unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP) }

// Give makes a process group the owner of a terminal, whose modes it then sets,
// unless they are nil. This program may itself be in the background.
func Give(f *os.File, pgid int, modes *term.State) {
	fd := int(f.Fd())
	Unstoppable(func() {
		pgrp := int32(pgid)
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), unix.TIOCSPGRP, uintptr(unsafe.Pointer(&pgrp)))
		if modes != nil {
			_ = term.Restore(fd, modes)
		}
	})
}

// JobControl reports whether a signal stops or continues a process, rather than
// ends it.
func JobControl(sig syscall.Signal) bool {
	return sig == syscall.SIGCONT || sig == syscall.SIGTSTP || sig == syscall.SIGSTOP
}
