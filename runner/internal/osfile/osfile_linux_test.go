package osfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// opensFIFO reports whether a thread of this program waits for the other end of a
// FIFO.
func opensFIFO(t testing.TB) bool {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skip(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/syscall")
		if err != nil && !os.IsNotExist(err) {
			t.Skip("the system calls of threads cannot be seen:", err)
		}
		if strings.HasPrefix(string(b), fmt.Sprintf("%d ", unix.SYS_OPENAT)) {
			return true
		}
	}
	return false
}

// TestOpenFIFOMoved: the wait ends with the context also for a FIFO that has been
// moved away, and what stays behind of it ends with the FIFO's first writer.
func TestOpenFIFOMoved(t *testing.T) {
	check := leaks(t)
	path := fifo(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := startOpen(ctx, nil, path, os.O_RDONLY)
	waittest.Until(t, "the open to wait", func() bool { return opensFIFO(t) })
	if err := os.Rename(path, path+"-moved"); err != nil {
		t.Fatal(err)
	}
	cancel()
	r := within(t, "the open to be given up", func() opened { return <-c })
	if r.f != nil || !errors.Is(r.err, context.Canceled) {
		t.Errorf("%v, %v", r.f, r.err)
	}
	waittest.Until(t, "the FIFO to be opened for writing", func() bool { return hasReader(path + "-moved") })
	check()
}

// TestGrow: a pipe has room for 1 MiB, or stays as it is (row 53).
func TestGrow(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	osfile.Grow(w)
	if got := flags(t, w, unix.F_GETPIPE_SZ); got != 1<<20 && os.Geteuid() == 0 || got < 4096 {
		t.Errorf("it has room for %d bytes", got)
	}
	f, err := osfile.Text("no pipe")
	if err != nil {
		t.Fatal(err)
	}
	osfile.Grow(f)
	_ = f.Close()
	osfile.Grow(f)
}

// TestNothingInherited: whatever is open here, a child has none of it (rows 33, 34).
func TestNothingInherited(t *testing.T) {
	t.Parallel()
	ls := func() string {
		t.Helper()
		var out bytes.Buffer
		c := exec.Command("sh", "-c", "ls -l /proc/$$/fd")
		c.Stdout = &out
		if err := c.Run(); err != nil {
			t.Skip("no sh or ls:", err)
		}
		return out.String()
	}
	var c osfile.Copies
	from, err1 := c.From(&bytes.Buffer{})
	to, err2 := c.To(strings.NewReader(""))
	private, err3 := osfile.Private()
	text, err4 := osfile.Text("x")
	null, err5 := osfile.Null(os.O_RDONLY)
	again, err6 := osfile.Dup(int(text.Fd()))
	if err := fmt.Sprint(err1, err2, err3, err4, err5, err6); strings.Trim(err, "<nil> ") != "" {
		t.Fatal(err)
	}
	files := []*os.File{from, to, private, text, null, again}
	defer osfile.Close(files...)
	defer c.Abandon()
	got := ls()
	for _, f := range append(files[:4:4], c.Ends()...) { // the null device is stdin too
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(got, link) {
			t.Errorf("a child has %s open:\n%s", link, got)
		}
	}
}
