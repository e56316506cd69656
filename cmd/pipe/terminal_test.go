//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the far side of a pseudo-terminal, and what came out of it.
type terminal struct {
	t      *testing.T
	master *os.File
	fd     int
	cmd    *exec.Cmd
	mu     sync.Mutex
	out    bytes.Buffer
	news   chan struct{} // there is more in out
}

// onTerminal starts a program as the leader of a session that has a terminal,
// in a folder with the file f.yaml.
func onTerminal(t *testing.T, yaml string, args ...string) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no /dev/ptmx:", err)
	}
	master := os.NewFile(uintptr(fd), "ptmx") // its Fd would make it block, and Close wait for Read
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no /dev/pts:", err)
	}
	defer tty.Close()
	term := &terminal{t: t, master: master, fd: fd, news: make(chan struct{}, 1)}
	c := pipeCommand(t)
	c.Path, err = exec.LookPath(args[0])
	if err != nil {
		t.Skipf("%s is not installed", args[0])
	}
	c.Args = args
	c.Env = append(c.Env, "PWD="+c.Dir, "PS1=$ ", "TERM=dumb")
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := os.WriteFile(filepath.Join(c.Dir, "f.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	term.cmd = c
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			term.mu.Lock()
			term.out.Write(b[:n])
			term.mu.Unlock()
			select {
			case term.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		_ = master.Close()
	})
	return term
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.ReplaceAll(x.out.String(), "\r\n", "\n")
}

// await waits until something holds: it looks at each output, and now and then,
// as nobody is told who owns a terminal, or that a process of another is stopped.
func (x *terminal) await(what string, holds func() bool) {
	x.t.Helper()
	limit := time.After(longest)
	now := time.NewTicker(5 * time.Millisecond)
	defer now.Stop()
	for !holds() {
		select {
		case <-x.news:
		case <-now.C:
		case <-limit:
			x.t.Fatalf("waited in vain for %s; the terminal shows:\n%s", what, x.text())
		}
	}
}

func (x *terminal) awaitText(s string) {
	x.t.Helper()
	x.await(fmt.Sprintf("%q", s), func() bool { return strings.Contains(x.text(), s) })
}

func (x *terminal) typeIn(s string) {
	if _, err := x.master.WriteString(s); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) foreground() int {
	n, _ := unix.IoctlGetInt(x.fd, unix.TIOCGPGRP)
	return n
}

// TestTerminalOwner: a step with stdin: inherit owns the terminal, and however
// it ends the terminal is given back with its modes (rows 50, 71).
func TestTerminalOwner(t *testing.T) {
	t.Parallel()
	x := onTerminal(t, `
steps:
  - spawn: [sh, -c, 'read line; stty raw -echo; echo "read $line in $$" >got; kill -9 $$']
    stdin: inherit
    continueOnError: true
  - spawn: [sh, -c, 'stty -a </dev/tty >modes; cat got']
`, "sh", "-c", "pipe run f.yaml; echo status $?; read x")
	before, err := unix.IoctlGetTermios(x.fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	x.await("the step to own the terminal", func() bool { f := x.foreground(); return f > 0 && f != x.cmd.Process.Pid })
	owner := x.foreground()
	x.typeIn("hello\n")
	x.awaitText("status 0")
	if want := fmt.Sprintf("read hello in %d", owner); !strings.Contains(x.text(), want) {
		t.Errorf("the owner of the terminal was %d, and the step said %q", owner, x.text())
	}
	if f := x.foreground(); f != x.cmd.Process.Pid {
		t.Errorf("the terminal belongs to %d and not again to the shell, %d", f, x.cmd.Process.Pid)
	}
	after, err := unix.IoctlGetTermios(x.fd, unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("modes are %+v and were %+v (%v)", after, before, err)
	}
}

// TestCtrlC: an interrupt from the terminal reaches each step's tree once; the
// status is 130 (row 67).
func TestCtrlC(t *testing.T) {
	t.Parallel()
	x := onTerminal(t, `
steps:
  - spawn: [sh, -c, 'trap "echo got it" INT; hold $PWD/one & while ! test -s done; do sleep 0.01; done; echo over']
    killAfter: 30s
  - if: always()
    spawn: [echo, cleaned]
`, "sh", "-c", "trap : INT; pipe run f.yaml; echo status $?; read x")
	ready(t, filepath.Join(x.cmd.Dir, "one"))
	x.typeIn("\x03")
	x.awaitText("got it\n")
	if err := os.WriteFile(filepath.Join(x.cmd.Dir, "done"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	x.awaitText("status 130")
	if !strings.Contains(x.text(), "cleaned") {
		t.Errorf("nothing was cleaned up:\n%s", x.text())
	}
	if n := strings.Count(x.text(), "got it\n"); n != 1 {
		t.Errorf("interrupted %d times:\n%s", n, x.text())
	}
	if p := find(x.cmd.Dir + "/one"); p != "" {
		t.Errorf("alive: %q", p)
	}
}

// TestCtrlCOwner: what the owner of the terminal makes of Ctrl-C is its own
// affair, and it gets it once (row 68).
func TestCtrlCOwner(t *testing.T) {
	t.Parallel()
	x := onTerminal(t, `
steps:
  - spawn: [sh, -c, 'trap "echo got it" INT; echo ready; read line; while ! test -s done; do sleep 0.01; done; echo over']
    stdin: inherit
`, "sh", "-c", "trap : INT; pipe run f.yaml; echo status $?; read x")
	x.awaitText("ready")
	x.typeIn("\x03")
	x.awaitText("got it\n")
	x.typeIn("\n") // the trap may have come before the read, which then still waits
	if err := os.WriteFile(filepath.Join(x.cmd.Dir, "done"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	x.awaitText("status 0")
	if n := strings.Count(x.text(), "got it\n"); n != 1 {
		t.Errorf("interrupted %d times:\n%s", n, x.text())
	}
}

// TestCtrlZ: a runner that is stopped from the terminal stops with all that
// runs, and goes on with it (row 69).
func TestCtrlZ(t *testing.T) {
	t.Parallel()
	for _, stdin := range []string{"ignore", "inherit"} {
		t.Run(stdin, func(t *testing.T) {
			x := onTerminal(t, `
steps:
  - spawn: [sh, -c, 'hold $PWD/one & echo $$ >pid; wait']
    stdin: `+stdin+`
`, "bash", "--norc", "--noprofile", "--noediting", "-i")
			x.awaitText("$ ")
			x.typeIn("pipe run f.yaml\n")
			ready(t, filepath.Join(x.cmd.Dir, "one"))
			b, err := os.ReadFile(filepath.Join(x.cmd.Dir, "pid"))
			if err != nil {
				t.Fatal(err)
			}
			var pid int
			_, _ = fmt.Sscan(string(b), &pid)
			state := func() byte {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if _, rest, ok := bytes.Cut(b, []byte(") ")); ok {
					return rest[0]
				}
				return 0
			}
			x.typeIn("\x1a")
			x.awaitText("Stopped")
			x.await("the step to be stopped", func() bool { return state() == 'T' })
			x.typeIn("fg\n")
			x.await("the step to go on", func() bool { return state() == 'S' })
			x.typeIn("\x03")
			x.await("the step to end", func() bool { return state() == 0 })
			x.typeIn("echo status $?\n")
			x.awaitText("status 130")
		})
	}
}

// TestHangUp: a terminal that is closed ends all that is attached to it (row 72).
func TestHangUp(t *testing.T) {
	t.Parallel()
	x := onTerminal(t, `steps: [{spawn: [sh, -c, 'hold $PWD/one & hold $PWD/two']}]`, "sh", "-c", "pipe run f.yaml; read x")
	ready(t, filepath.Join(x.cmd.Dir, "one"))
	ready(t, filepath.Join(x.cmd.Dir, "two"))
	_ = x.master.Close()
	awaitGone(t, x.cmd.Dir, longest)
}
