//go:build linux

package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

const (
	agentEnv   = "ENGINE_TEST_AGENT"
	sessionEnv = "ENGINE_TEST_SESSION"
	masterFD   = 3 // of the tests on a terminal
	slaveFD    = 4
)

// TestMain runs the tests in a session of their own that has a terminal, or
// without one where there is no /dev/ptmx. This program is also the agent of
// [remote].
func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" {
		agent(os.Stdin, os.Stdout)
		syscall.Exit(0) // and not os.Exit, which writes what was covered
	}
	// What the caller left open is not for the children of the tests.
	_ = unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC)
	if os.Getenv(sessionEnv) != "" {
		_ = os.Unsetenv(sessionEnv)
		terminal.master, terminal.tty = os.NewFile(masterFD, "ptmx"), os.NewFile(slaveFD, "tty")
		os.Exit(m.Run())
	}
	master, tty, err := openTerminal()
	if err != nil {
		terminal.missing = err
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the death signal is bound to it
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), sessionEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{master, tty}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: slaveFD, Pdeathsig: syscall.SIGKILL}
	err = c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// terminal is the one of the session that the tests run in.
var terminal struct {
	master, tty *os.File
	missing     error
}

func openTerminal() (master, tty *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	return os.NewFile(uintptr(fd), "ptmx"), tty, err
}

// sh returns a command that runs text in the system's shell.
func sh(text string) *engine.Cmd {
	return &engine.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", text}, Env: []string{"PATH=" + os.Getenv("PATH")}}
}

// running is a process that is being waited for.
type running struct {
	engine.Process
	t     testing.TB
	st    engine.Status
	over  func() // called, if not nil, by status when the process has ended
	ended chan struct{}
}

// start starts a process, in a folder of its own where none is given, which
// does not outlive the test.
func start(t testing.TB, e engine.Engine, c *engine.Cmd) *running {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	p, err := e.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Process: p, t: t, ended: make(chan struct{})}
	go func() {
		r.st = p.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = p.Signal(syscall.SIGKILL)
		r.status()
		engine.End(p, syscall.SIGKILL, 0)
		engine.Release(p, true)
	})
	return r
}

// status waits for the end of the process.
func (r *running) status() engine.Status {
	r.t.Helper()
	waittest.For(r.t, fmt.Sprintf("the end of %v", r.Process), r.ended)
	if r.over != nil {
		r.over()
		r.over = nil
	}
	return r.st
}

// closed waits until all output has been delivered.
func (r *running) closed() {
	r.t.Helper()
	waittest.For(r.t, fmt.Sprintf("the end of the streams of %v", r.Process), r.Closed())
}

// reader is this program's end of a pipe.
type reader struct {
	t testing.TB
	f *os.File
	b *bufio.Reader
}

// newPipe returns a pipe to be written by a child.
func newPipe(t testing.TB) (*reader, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return &reader{t, r, bufio.NewReader(r)}, w
}

// line waits for a line.
func (r *reader) line(what string) string {
	r.t.Helper()
	_ = r.f.SetReadDeadline(time.Now().Add(waittest.Patience))
	s, err := r.b.ReadString('\n')
	if err != nil {
		r.t.Fatalf("waited in vain for %s: %q, %v", what, s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

// pid waits for a line with a number.
func (r *reader) pid(what string) int {
	r.t.Helper()
	s := r.line(what)
	n, err := strconv.Atoi(s)
	if err != nil {
		r.t.Fatalf("%s: %q", what, s)
	}
	return n
}

// end waits until nobody holds the other end any more.
func (r *reader) end(what string) string {
	r.t.Helper()
	_ = r.f.SetReadDeadline(time.Now().Add(waittest.Patience))
	b, err := io.ReadAll(r.b)
	if err != nil {
		r.t.Fatalf("waited in vain for %s: %q, %v", what, b, err)
	}
	return string(b)
}

// held is a shell that is up and waits until its stdin ends.
type held struct {
	*running
	stdin *os.File
}

// hold starts a shell, which runs text first, with the streams that c leaves
// open to it: descriptor 0 is a pipe, and if c has no Stdout, 1 is one. What it
// has is read in /proc while it waits.
func hold(t testing.TB, e engine.Engine, c *engine.Cmd, text string) *held {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, up := newPipe(t)
	c.Path, c.Args, c.Stdin = "/bin/sh", []string{"sh", "-c", text + "\necho up; read x; exit 0"}, in
	if c.Stdout == nil {
		c.Stdout = up
	}
	p := start(t, e, c)
	_, _ = in.Close(), up.Close()
	t.Cleanup(func() { _ = w.Close() })
	if c.Stdout == io.Writer(up) {
		if got := out.line("the shell to be up"); got != "up" {
			t.Fatalf("the shell said %q", got)
		}
	}
	return &held{p, w}
}

// let lets the shell go on, to its end.
func (h *held) let() engine.Status {
	h.t.Helper()
	_ = h.stdin.Close()
	return h.status()
}

// proc returns what /proc tells of a process.
func proc(t testing.TB, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// descriptors returns what each descriptor of a process is.
func descriptors(t testing.TB, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
	for _, e := range list {
		n, _ := strconv.Atoi(e.Name())
		if out[n], err = os.Readlink(dir + e.Name()); err != nil { // that of the list itself
			delete(out, n)
		}
	}
	return out
}

// nonblocking reports whether a descriptor of a process has O_NONBLOCK.
func nonblocking(t testing.TB, pid, fd int) bool {
	t.Helper()
	for l := range strings.Lines(proc(t, pid, fmt.Sprintf("fdinfo/%d", fd))) {
		if octal, ok := strings.CutPrefix(l, "flags:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n&unix.O_NONBLOCK != 0
		}
	}
	t.Fatal("no flags in fdinfo")
	return false
}

// leaks returns a function that fails the test if there are more descriptors,
// goroutines or children than now. The test must not be parallel.
func leaks(t testing.TB) func(what string) {
	t.Helper()
	files, routines := descriptors(t, os.Getpid()), runtime.NumGoroutine()
	children := procfs.Children(os.Getpid())
	return func(what string) {
		t.Helper()
		waittest.Until(t, what+": the end of its goroutines", func() bool { return runtime.NumGoroutine() <= routines })
		if now := descriptors(t, os.Getpid()); len(now) > len(files) {
			t.Errorf("%s: descriptors %v are left, there were %v", what, now, files)
		}
		now := slices.DeleteFunc(procfs.Children(os.Getpid()), func(pid int) bool { return slices.Contains(children, pid) })
		if len(now) > 0 {
			t.Errorf("%s: children %v are left", what, now)
		}
	}
}

// tree is an [engine.Tree] that does what the test says before and after starts,
// and notes what it is told.
type tree struct {
	before func(attempt int) error
	failed func(err error)
	death  syscall.Signal
	thread chan struct{} // where it is not nil, the thread of a start ends when it is closed

	mu     sync.Mutex
	calls  []string
	starts int
}

func (x *tree) note(format string, pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.calls = append(x.calls, fmt.Sprintf(format, pid))
}

// noted returns what the tree was told.
func (x *tree) noted() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.calls)
}

// Job returns 0: the job is the program's own group.
func (x *tree) Job() int { return 0 }

// Fork starts a process, or fails as the test wants it.
func (x *tree) Fork(start func(syscall.Signal) (int, error)) (pid int, err error) {
	x.starts++
	if x.before != nil {
		if err := x.before(x.starts); err != nil {
			return 0, err
		}
	}
	if x.thread == nil {
		pid, err = start(x.death)
	} else {
		pid, err = x.onThread(start)
	}
	switch {
	case err == nil:
		x.note("fork %d", pid)
	case x.failed != nil:
		x.failed(err)
	}
	return pid, err
}

// onThread starts on a thread that ends later.
func (x *tree) onThread(start func(syscall.Signal) (int, error)) (pid int, err error) {
	started := make(chan bool)
	var thread func()
	thread = func() {
		runtime.LockOSThread() // and never unlocked: it ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			go thread() // the first thread of a program never ends
			<-x.thread
			return
		}
		pid, err = start(x.death)
		started <- true
		<-x.thread
	}
	go thread()
	<-started
	return pid, err
}

// Reaped notes the pid.
func (x *tree) Reaped(pid int) { x.note("reaped %d", pid) }
