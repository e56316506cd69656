//go:build !unix

package pipeline

// This file holds the names of the few signals that Go knows everywhere.

import "syscall"

var signals = map[string]syscall.Signal{
	"SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT,
	"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM,
}

func signalNum(name string) syscall.Signal { return signals[name] }

// SignalName returns the name of a signal, as SIGTERM, or "" if it has none.
func SignalName(s syscall.Signal) string {
	for name, sig := range signals {
		if sig == s {
			return name
		}
	}
	return ""
}
