//go:build linux

package tty_test

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/pipe-runner/pipe/runner/internal/tty"
)

// TestGive: the terminal goes to another group, and comes back though this program
// is by then in the background, with the modes that are asked for (rows 50, 71).
func TestGive(t *testing.T) {
	needsTerminal(t)
	mine, other := syscall.Getpgrp(), group(t)
	wantOwner(t, mine)
	state, err := term.GetState(int(terminal.tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	before := modes(t)
	// What is in the background must not be stopped for it, nor end.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTTOU, unix.SIGTTIN)
	defer signal.Reset(unix.SIGTTOU, unix.SIGTTIN)

	raw := before
	raw.Lflag &^= unix.ECHO | unix.ICANON
	if err := unix.IoctlSetTermios(int(terminal.tty.Fd()), unix.TCSETS, &raw); err != nil {
		t.Fatal(err)
	}
	tty.Give(terminal.tty, other, nil)
	wantOwner(t, other)
	tty.Give(terminal.tty, mine, nil)
	wantOwner(t, mine)
	if modes(t) != raw {
		t.Error("without modes, the modes have changed")
	}
	tty.Give(terminal.tty, other, nil)
	tty.Give(terminal.tty, mine, state)
	wantOwner(t, mine)
	if modes(t) != before {
		t.Errorf("modes %+v, want %+v", modes(t), before)
	}
	select {
	case s := <-signals:
		t.Errorf("this program got %v", s)
	default:
	}
	tty.Give(terminal.tty, 1<<22+1, nil) // nobody
	wantOwner(t, mine)
}

// TestNoTerminal: what is no terminal, or not this program's, has no owner, and
// is left alone.
func TestNoTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	files := []*os.File{null}
	if master, slave, err := openTerminal(); err == nil {
		defer master.Close()
		defer slave.Close()
		files = append(files, slave)
	}
	for _, f := range files {
		if n, err := tty.Owner(f); err == nil {
			t.Errorf("%s belongs to %d", f.Name(), n)
		}
		tty.Give(f, syscall.Getpgrp(), nil)
		if n, err := tty.Owner(f); err == nil {
			t.Errorf("afterwards %s belongs to %d", f.Name(), n)
		}
	}
}

// TestJobControl: what stops or continues is told from what ends (row 69).
func TestJobControl(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]bool{
		syscall.SIGCONT: true, syscall.SIGTSTP: true, syscall.SIGSTOP: true,
		syscall.SIGTERM: false, syscall.SIGKILL: false, syscall.SIGINT: false, syscall.SIGHUP: false, syscall.SIGUSR1: false, 0: false,
	} {
		if got := tty.JobControl(sig); got != want {
			t.Errorf("%v: %v", sig, got)
		}
	}
}
