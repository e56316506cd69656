//go:build linux

package shell

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
)

// TestUnset: what the text unsets, or no longer exports, no child gets (P10, row 110).
func TestUnset(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"unset A; /usr/bin/env":                      "B=2\n",
		"(unset A; /usr/bin/env)":                    "B=2\n",
		"unset A; A=3; /usr/bin/env":                 "B=2\n",
		"unset A; export A=3; /usr/bin/env; echo $A": "A=3\nB=2\n3\n",
	} {
		if got := run(t, Cmd{Text: text, Env: []string{"A=1", "B=2"}}); got.out != want {
			t.Errorf("%s: %q, want %q; stderr: %s", text, got.out, want, got.err)
		}
	}
}

// TestSignalWins: after a signal no builtin command runs any more, and the text has
// been ended by it, whatever its program made of it (P6, rows 56, 74). The signal
// returns late, as it does on a machine that is busy.
func TestSignalWins(t *testing.T) {
	t.Parallel()
	for _, handled := range []string{"", `trap "exit 0" TERM; `} {
		out, stdout := newPipe(t)
		over := make(chan struct{})
		p := start(t, late{over}, Cmd{Text: "/bin/sh -c '" + handled + "mkfifo f; exec 3<>f; echo up; read x <&3'; echo no; exit 0", Stdout: stdout, Owned: []*os.File{stdout}})
		go func() { <-p.ended; close(over) }()
		out.line("the program to be up")
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if st, got := p.status(), out.end("the end of the text"); st.Signal != syscall.SIGTERM || got != "" {
			t.Errorf("the text went on: %v, %q", st, got)
		}
	}
}

// late is an engine whose signals return when the text is over, or after a while.
type late struct{ over <-chan struct{} }

func (e late) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	p, err := engine.Local{}.Start(ctx, c)
	return lateProcess{p, e}, err
}

type lateProcess struct {
	engine.Process
	late
}

func (p lateProcess) Signal(sig syscall.Signal) error {
	err := p.Process.Signal(sig)
	select {
	case <-p.over:
	case <-time.After(200 * time.Millisecond):
	}
	return err
}

// TestReadOfCopied: SIGTERM ends a text that reads what a slow reader gives it.
func TestReadOfCopied(t *testing.T) {
	t.Parallel()
	hanging, end := io.Pipe()
	defer func() { _ = end.Close() }()
	out, stdout := newPipe(t)
	p := start(t, engine.Local{}, Cmd{Text: "echo up; read x; echo no", Stdin: hanging, Stdout: stdout, Owned: []*os.File{stdout}})
	out.line("the text to be up")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case <-p.ended:
	case <-time.After(3 * time.Second):
		t.Error("it goes on")
	}
}

// TestEndedIsOver: what End has waited for is not left any more.
func TestEndedIsOver(t *testing.T) {
	t.Parallel()
	for range 100 {
		out, stdout := newPipe(t)
		p := start(t, engine.Local{}, Cmd{Text: "sh -c 'echo up; exec sleep 1000' &", Stdout: stdout, Owned: []*os.File{stdout}})
		out.line("the job to be up")
		p.status()
		engine.End(p.Process, syscall.SIGKILL, 0)
		if again := engine.End(p.Process, syscall.SIGKILL, 0); len(again) > 0 {
			t.Fatalf("left again: %q", again)
		}
	}
}

type byValue struct{ f func([]byte) }

func (w byValue) Write(b []byte) (int, error) {
	w.f(b)
	return len(b), nil
}

// TestWritersThatCannotBeCompared: two writers of a type that has no == are two.
func TestWritersThatCannotBeCompared(t *testing.T) {
	defer func() {
		if p := recover(); p != nil {
			t.Error(p)
		}
	}()
	got := run(t, Cmd{Text: "echo x", Stdout: byValue{func([]byte) {}}, Stderr: byValue{func([]byte) {}}})
	if !got.st.OK() {
		t.Error(got.st)
	}
}
