//go:build unix

package osfile_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

const isLinux = runtime.GOOS == "linux"

// within calls f, and waits for its return.
func within[T any](t testing.TB, what string, f func() T) T {
	t.Helper()
	c := make(chan T, 1)
	go func() { c <- f() }()
	select {
	case v := <-c:
		return v
	case <-time.After(waittest.Patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func fifo(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// descriptors returns those of this program that are open.
func descriptors(t testing.TB) []int {
	t.Helper()
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip("descriptors cannot be listed:", err)
	}
	var out []int
	for _, e := range list {
		n, _ := strconv.Atoi(e.Name())
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil { // not that of the list
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// leaks returns a function that fails the test if there are more descriptors or
// goroutines than now. The test must not be parallel.
func leaks(t testing.TB) func() {
	t.Helper()
	files, routines := len(descriptors(t)), runtime.NumGoroutine()
	return func() {
		t.Helper()
		waittest.Until(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= routines })
		waittest.Until(t, fmt.Sprintf("the number of descriptors to be %d again", files), func() bool { return len(descriptors(t)) <= files })
	}
}

func flags(t testing.TB, f *os.File, cmd int) (n int) {
	t.Helper()
	rc, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) { n, err = unix.FcntlInt(fd, cmd, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// gate is a writer, or a reader, that waits to be let.
type gate struct {
	asked, open chan struct{}
	once        sync.Once
	mu          sync.Mutex
	got         bytes.Buffer
	fails       error
}

func newGate() *gate { return &gate{asked: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) wait() {
	g.once.Do(func() { close(g.asked) })
	<-g.open
}

func (g *gate) Write(b []byte) (int, error) {
	g.wait()
	if g.fails != nil {
		return 0, g.fails
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.Write(b)
}

func (g *gate) Read([]byte) (int, error) {
	g.wait()
	return 0, io.EOF
}

func (g *gate) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.String()
}

// endless is a reader that always has more.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
