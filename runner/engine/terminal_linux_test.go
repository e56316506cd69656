package engine_test

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/tty"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// onTerminal starts shell text that owns the terminal and waits until it says
// that it is up (rows 50, 69, 71).
func onTerminal(t *testing.T, text string) (*running, *reader) {
	t.Helper()
	if terminal.tty == nil {
		t.Skip("no pseudo-terminal:", terminal.missing)
	}
	said, w := newPipe(t)
	c := sh(text)
	own := engine.OwnTerminal(engine.Local{}, terminal.tty)
	c.Stdin, c.Stdout, c.Terminal = terminal.tty, w, own
	p := start(t, engine.Local{}, c)
	p.over = own.Release
	_ = w.Close()
	said.line("the child to be up")
	return p, said
}

func typeIn(t *testing.T, s string) {
	t.Helper()
	if _, err := terminal.master.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func owner(t *testing.T) int {
	t.Helper()
	pgid, err := tty.Owner(terminal.tty)
	if err != nil {
		t.Fatal(err)
	}
	return pgid
}

func modes(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(terminal.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// TestTerminal: a process owns the terminal while it runs; after its end, and
// after a start that failed, the terminal is as it was.
func TestTerminal(t *testing.T) {
	p, said := onTerminal(t, "echo up; read x; stty raw -echo; echo $x; kill -9 $$")
	before := modes(t)
	if got := owner(t); got != p.Pid() {
		t.Errorf("the terminal belongs to %d and not to %d", got, p.Pid())
	}
	typeIn(t, "typed\n")
	if got := said.line("what was typed"); got != "typed" {
		t.Errorf("it read %q", got)
	}
	if st := p.status(); st.Signal != syscall.SIGKILL {
		t.Error(st)
	}
	if got := owner(t); got != syscall.Getpgrp() || modes(t) != before {
		t.Errorf("afterwards it belongs to %d, with modes %+v, was %+v", got, modes(t), before)
	}
	own := engine.OwnTerminal(engine.Local{}, terminal.tty)
	_ = fails(t, engine.Local{}, &engine.Cmd{Path: "/nope", Dir: "/", Terminal: own})
	own.Release()
	if got := owner(t); got != syscall.Getpgrp() || modes(t) != before {
		t.Errorf("after a failed start it belongs to %d, with modes %+v", got, modes(t))
	}
}

// TestNoTerminal: what is no terminal, or another session's, is not taken.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	master, other, err := openTerminal()
	if err != nil {
		t.Skip("no pseudo-terminal:", err)
	}
	defer master.Close()
	defer other.Close()
	for _, f := range []*os.File{null, other} {
		if engine.OwnTerminal(engine.Local{}, f) != nil {
			t.Errorf("%s is taken for the terminal", f.Name())
		}
	}
}

// TestTerminalStop: Ctrl-Z stops the process, gives the terminal back and stops
// who had it before; when the process is continued, it has the terminal, and its
// modes, again.
func TestTerminalStop(t *testing.T) {
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, unix.SIGTSTP)
	defer signal.Reset(unix.SIGTSTP)
	p, said := onTerminal(t, "mkfifo f; stty -echo; echo up; read go <f; read x; echo $x")
	mine, before := modes(t), modes(t)
	before.Lflag |= unix.ECHO
	for range 3 {
		typeIn(t, "\x1a")
		got := make(chan struct{})
		go func() { <-stopped; close(got) }()
		waittest.For(t, "the stop of who had the terminal", got)
		if got := owner(t); got != syscall.Getpgrp() || modes(t) != before {
			t.Errorf("while it is stopped, the terminal belongs to %d, with modes %+v", got, modes(t))
		}
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
		waittest.Until(t, "the process to own the terminal again", func() bool { return owner(t) == p.Pid() && modes(t) == mine })
	}
	typeIn(t, "on\n")
	letRead(t, p)
	if got := said.line("what was typed"); got != "on" {
		t.Errorf("it read %q", got)
	}
	if st := p.status(); !st.OK() || owner(t) != syscall.Getpgrp() || modes(t) != before {
		t.Errorf("%v, the terminal belongs to %d, with modes %+v", st, owner(t), modes(t))
	}
}

// letRead writes to the FIFO f, which a process waits for.
func letRead(t *testing.T, p *running) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/cwd/f", p.Pid()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
}

// TestTerminalTaken: a process that reads while its caller has the terminal gets
// it and goes on.
func TestTerminalTaken(t *testing.T) {
	p, said := onTerminal(t, "mkfifo f; echo up; read go <f; read x; echo $x")
	tty.Give(terminal.tty, syscall.Getpgrp(), nil)
	letRead(t, p)
	waittest.Until(t, "the process to own the terminal", func() bool { return owner(t) == p.Pid() })
	typeIn(t, "got it\n")
	if got := said.line("what was typed"); got != "got it" {
		t.Errorf("it read %q", got)
	}
	if st := p.status(); !st.OK() || owner(t) != syscall.Getpgrp() {
		t.Errorf("%v, and the terminal belongs to %d", st, owner(t))
	}
}
