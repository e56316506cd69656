package engine

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

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

// TestEndGivesUp: who may not be signalled is not waited for without end once it
// was to be killed, and stays left. A pipe that nobody writes stands for it: it is
// no pidfd that could be signalled, and it does not end.
func TestEndGivesUp(t *testing.T) {
	for name, tt := range map[string]struct {
		sig   syscall.Signal
		grace time.Duration
		kill  bool
	}{
		"after the grace": {syscall.SIGTERM, time.Millisecond, false},
		"at once":         {syscall.SIGKILL, time.Hour, false},
		"by Signal":       {syscall.SIGTERM, 0, true},
		"by Signal early": {syscall.SIGTERM, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := exec.Command("true")
			if err := c.Run(); err != nil {
				t.Skip(err)
			}
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			p := &process{}
			p.pid, p.group, p.reaped = c.Process.Pid, c.Process.Pid, true
			p.extra = []member{{pid: 1, fd: pipe[0], name: "other (pid 1)"}}
			done := make(chan []string, 1)
			go func() { done <- p.End(tt.sig, tt.grace) }()
			if tt.kill {
				_ = p.Signal(syscall.SIGKILL)
			}
			select {
			case left := <-done:
				if len(left) != 1 || left[0] != "other (pid 1)" || !p.Left() {
					t.Errorf("left: %q, %v", left, p.Left())
				}
			case <-time.After(20 * time.Second):
				t.Fatal("End waits for ever")
			}
			_ = unix.Close(pipe[1]) // it ends
			if p.End(syscall.SIGKILL, 0); p.Left() {
				t.Error("what has ended is left")
			}
		})
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
