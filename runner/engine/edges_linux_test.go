//go:build linux

package engine_test

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// byValue is a writer that cannot be compared.
type byValue struct{ f func([]byte) }

func (w byValue) Write(b []byte) (int, error) {
	w.f(b)
	return len(b), nil
}

// TestWritersThatCannotBeCompared: two writers of a type that has no == are two.
func TestWritersThatCannotBeCompared(t *testing.T) {
	t.Parallel()
	var out, errs []byte
	c := sh("echo out; echo err >&2")
	c.Stdout, c.Stderr = byValue{func(b []byte) { out = append(out, b...) }}, byValue{func(b []byte) { errs = append(errs, b...) }}
	p := start(t, engine.Local{}, c)
	p.status()
	p.closed()
	if string(out) != "out\n" || string(errs) != "err\n" {
		t.Errorf("%q, %q", out, errs)
	}
}

// TestTerminalRead: a process that is continued in a read of the terminal reads
// on, with its modes, though it reads before it owns the terminal again (row 69).
func TestTerminalRead(t *testing.T) {
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, unix.SIGTSTP)
	defer signal.Reset(unix.SIGTSTP)
	p, said := onTerminal(t, "stty -echo; echo up; read x; echo $x")
	mine := modes(t)
	for range 20 {
		typeIn(t, "\x1a")
		got := make(chan struct{})
		go func() { <-stopped; close(got) }()
		waittest.For(t, "the stop of who had the terminal", got)
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
		waittest.Until(t, "the process to own the terminal again", func() bool { return owner(t) == p.Pid() && modes(t) == mine })
	}
	typeIn(t, "on\n")
	if got := said.line("what was typed"); got != "on" {
		t.Errorf("it read %q", got)
	}
}

// TestStoppedOutsideGroup: a descendant of another session that is stopped acts on
// the signal too (row 75).
func TestStoppedOutsideGroup(t *testing.T) {
	t.Parallel()
	p := startFamily(t, engine.Local{}, `setsid sh -c 'kill -STOP $$' & until grep -q '^State:.T' /proc/$!/status; do :; done; echo up; wait`)
	p.said.line("the family to be up")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	p.status()
	p.lifeline.end("the end of the descendant that is stopped")
}

// TestNamedOnce: who becomes another program meanwhile is named once.
func TestNamedOnce(t *testing.T) {
	t.Parallel()
	p := startFamily(t, engine.Local{}, `mkfifo f; sh -c 'trap "" TERM; exec 4<>f; echo $$; read y <&4; exec sleep 1000' & read x`)
	pid := p.said.line("the child to be up")
	cwd := "/proc/" + pid + "/cwd/f"
	_ = p.stdin.Close()
	p.status()
	f, err := os.OpenFile(cwd, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	go func() {
		time.Sleep(20 * time.Millisecond) // after the first look at the group
		_, _ = f.WriteString("go\n")
	}()
	left := engine.End(p.Process, syscall.SIGTERM, 200*time.Millisecond)
	if len(left) != 1 || !strings.Contains(left[0], "(pid "+pid+")") {
		t.Errorf("left: %q", left)
	}
}
