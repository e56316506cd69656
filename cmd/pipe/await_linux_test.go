package main

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitGone waits for the end of all processes with a text in their command
// line, for no longer than the limit.
func awaitGone(t *testing.T, text string, limit time.Duration) {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		pid, line := findProcess(text)
		if pid == 0 {
			return
		}
		left := time.Until(end)
		if left <= 0 {
			t.Fatalf("alive after %s: %q", limit, line)
		}
		if err := awaitEnd(pid, left); err != nil {
			t.Fatalf("alive after %s: %q (%v)", limit, line, err)
		}
	}
}

// awaitEnd waits for the end of a process of whomever.
func awaitEnd(pid int, limit time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(end).Milliseconds())))
		switch {
		case n == 1:
			return nil
		case err == nil || err != unix.EINTR:
			return fmt.Errorf("waited in vain for the end of process %d", pid)
		}
	}
}
