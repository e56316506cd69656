package engine

import (
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPidfdBlocks: a pidfd that the poller does not take is closed too, and the
// exit is waited for without it. A folder stands for it.
func TestPidfdBlocks(t *testing.T) {
	c := exec.Command("true")
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = c.Wait() }()
	fd, err := unix.Open(".", unix.O_PATH|unix.O_CLOEXEC, 0) // its flags cannot be set
	if err != nil {
		t.Fatal(err)
	}
	p := &process{}
	p.pid, p.pidfd = c.Process.Pid, fd
	p.awaitExit()
	if !exited(p.pid, unix.WNOHANG) {
		t.Error("it has not exited")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != unix.EBADF {
		t.Errorf("%v: the descriptor is open still", err)
	}
}

// TestTakeStop: the news of a stop is taken once, with its signal; the exit of a
// process that was killed before it was taken is left to Wait.
func TestTakeStop(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	pid := c.Process.Pid
	send := func(sig syscall.Signal, flag int) {
		t.Helper()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		if _, err := waitInfo(pid, flag|unix.WNOWAIT); err != nil {
			t.Fatal(err)
		}
	}
	send(syscall.SIGSTOP, unix.WSTOPPED)
	if sig, ok := takeStop(pid); !ok || sig != syscall.SIGSTOP {
		t.Errorf("%v, %v of a process that was stopped", sig, ok)
	}
	if sig, ok := takeStop(pid); ok {
		t.Errorf("stopped twice, by %v", sig)
	}
	send(syscall.SIGKILL, unix.WEXITED)
	if sig, ok := takeStop(pid); ok {
		t.Errorf("stopped by %v, after the end", sig)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || ws.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v: the status was taken", ws, err)
	}
}
