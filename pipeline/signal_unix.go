//go:build unix

package pipeline

// This file holds the names of signals where the system has them all.

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func signalNum(name string) syscall.Signal { return unix.SignalNum(name) }

// SignalName returns the name of a signal, as SIGTERM, or "" if it has none.
func SignalName(s syscall.Signal) string { return unix.SignalName(s) }
