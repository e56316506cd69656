//go:build unix && !linux

package tty

import (
	"os/signal"

	"golang.org/x/sys/unix"
)

// Unstoppable runs f with SIGTTOU ignored: a process in the background may then
// still change the terminal.
func Unstoppable(f func()) {
	signal.Ignore(unix.SIGTTOU)
	defer signal.Reset(unix.SIGTTOU)
	f()
}
