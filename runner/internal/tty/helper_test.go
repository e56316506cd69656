//go:build linux

package tty_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/tty"
)

const (
	sessionEnv = "TTY_TEST_SESSION"
	masterFD   = 3 // of the tests
	slaveFD    = 4
)

// terminal is the one of the session that the tests run in.
var terminal struct {
	master, tty *os.File
	missing     error
}

// TestMain runs the tests in a session of their own that has a terminal, or
// without one where there is no /dev/ptmx.
func TestMain(m *testing.M) {
	_ = unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC)
	if os.Getenv(sessionEnv) != "" {
		terminal.master, terminal.tty = os.NewFile(masterFD, "ptmx"), os.NewFile(slaveFD, "tty")
		os.Exit(m.Run())
	}
	master, slave, err := openTerminal()
	if err != nil {
		terminal.missing = err
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the death signal is bound to it
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), sessionEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{master, slave}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: slaveFD, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		var ee *exec.ExitError
		if !errors.As(err, &ee) {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(0)
}

func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave, err
}

func needsTerminal(t *testing.T) {
	t.Helper()
	if terminal.tty == nil {
		t.Skip("no pseudo-terminal:", terminal.missing)
	}
}

// group starts a process that leads a group of its own in this session, and ends
// with the test.
func group(t *testing.T) int {
	t.Helper()
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _, _ = c.Process.Kill(), c.Wait() })
	return c.Process.Pid
}

func modes(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(terminal.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func wantOwner(t *testing.T, pgid int) {
	t.Helper()
	if got, err := tty.Owner(terminal.tty); err != nil || got != pgid {
		t.Errorf("the terminal belongs to %d and not to %d (%v)", got, pgid, err)
	}
}
