//go:build linux

package shell

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

const (
	testPath = "PATH=/usr/local/bin:/usr/bin:/bin"
)

// TestMain keeps what the caller left open from the children of the tests.
func TestMain(m *testing.M) {
	_ = unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC)
	os.Exit(m.Run())
}

// running is a text that is being waited for.
type running struct {
	engine.Process
	t     testing.TB
	st    engine.Status
	ended chan struct{}
}

// start starts a text, in a folder of its own where none is given, with the usual
// PATH where there is no environment. It does not outlive the test.
func start(t testing.TB, e engine.Engine, c Cmd) *running {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Env == nil {
		c.Env = []string{testPath}
	}
	p, err := Start(context.Background(), e, c)
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

func (r *running) status() engine.Status {
	r.t.Helper()
	waittest.For(r.t, "the end of the text", r.ended)
	return r.st
}

func (r *running) closed() {
	r.t.Helper()
	waittest.For(r.t, "the end of the streams of the text", r.Closed())
}

// outcome is what came of a text.
type outcome struct {
	out, err string
	st       engine.Status
}

// run runs a text to its end.
func run(t testing.TB, c Cmd) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	if c.Stdout == nil {
		c.Stdout = &out
	}
	if c.Stderr == nil {
		c.Stderr = &errs
	}
	p := start(t, engine.Local{}, c)
	st := p.status()
	p.closed()
	return outcome{out.String(), errs.String(), st}
}

// reader is this program's end of a pipe.
type reader struct {
	t testing.TB
	f *os.File
	b *bufio.Reader
}

// newPipe returns a pipe to be written by a text.
func newPipe(t testing.TB) (*reader, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return &reader{t, r, bufio.NewReader(r)}, w
}

func (r *reader) line(what string) string {
	r.t.Helper()
	_ = r.f.SetReadDeadline(time.Now().Add(waittest.Patience))
	s, err := r.b.ReadString('\n')
	if err != nil {
		r.t.Fatalf("waited in vain for %s: %q, %v", what, s, err)
	}
	return strings.TrimSuffix(s, "\n")
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

// folder makes a folder with files, FIFOs (a name that ends in |), links (name ->
// target) and folders (a name that ends in /).
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, strings.TrimRight(name, "|/"))
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		switch {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o700)
		case strings.HasSuffix(name, "|"):
			err = unix.Mkfifo(path, 0o600)
		case strings.HasPrefix(text, "-> "):
			err = os.Symlink(text[3:], path)
		default:
			err = os.WriteFile(path, []byte(text), 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// leaks returns a function that fails the test if there are more descriptors or
// goroutines than now. The test must not be parallel.
func leaks(t testing.TB) func(what string) {
	t.Helper()
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc:", err)
		}
		return len(list)
	}
	files, routines := count(), runtime.NumGoroutine()
	return func(what string) {
		t.Helper()
		waittest.Until(t, fmt.Sprintf("%s: the end of all goroutines but %d", what, routines), func() bool { return runtime.NumGoroutine() <= routines })
		waittest.Until(t, fmt.Sprintf("%s: the number of descriptors to be %d again", what, files), func() bool { return count() <= files })
	}
}

// recorder is the local engine, which notes what it is to start; what fails does
// not start.
type recorder struct {
	mu    sync.Mutex
	cmds  []engine.Cmd
	ctxs  []context.Context
	fails func(c *engine.Cmd) error
}

// Start starts a process.
func (r *recorder) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	r.mu.Lock()
	r.cmds, r.ctxs = append(r.cmds, *c), append(r.ctxs, ctx)
	r.mu.Unlock()
	if r.fails != nil {
		if err := r.fails(c); err != nil {
			return nil, err
		}
	}
	return engine.Local{}.Start(ctx, c)
}
