//go:build unix && !linux

package tty

import (
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unstoppable runs f with SIGTTOU ignored: a process in the background may then
// still change the terminal.
func Unstoppable(f func()) {
	signal.Ignore(unix.SIGTTOU)
	defer signal.Reset(unix.SIGTTOU)
	f()
}

// Stop stops this program by a signal.
func Stop(sig syscall.Signal) { _ = syscall.Kill(syscall.Getpid(), sig) }
