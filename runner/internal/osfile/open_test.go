//go:build unix

package osfile_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
	"github.com/pipe-runner/pipe/safety"
)

// opened is what came of an Open.
type opened struct {
	f   *os.File
	err error
}

// startOpen opens a file in another goroutine.
func startOpen(ctx context.Context, dir *safety.Dir, path string, flag int) <-chan opened {
	c := make(chan opened, 1)
	go func() {
		f, err := osfile.Open(ctx, dir, path, flag, 0o600)
		c <- opened{f, err}
	}()
	return c
}

// TestOpenFIFO: a FIFO is open as soon as somebody opens its other end, which may
// be this program; what is written on one side arrives on the other.
func TestOpenFIFO(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := t.TempDir()
	root, err := safety.OpenDir(base)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for i, dir := range []*safety.Dir{nil, root} {
		path := filepath.Join(base, string(rune('a'+i)))
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, first := range []int{os.O_RDONLY, os.O_WRONLY} {
			a := startOpen(ctx, dir, path, first)
			b := startOpen(ctx, dir, path, os.O_RDONLY|os.O_WRONLY-first)
			r := within(t, "the FIFO to open", func() opened { return <-a })
			w := within(t, "the other end to open", func() opened { return <-b })
			if r.err != nil || w.err != nil {
				t.Fatal(r.err, w.err)
			}
			if first == os.O_WRONLY {
				r, w = w, r
			}
			for _, f := range []*os.File{r.f, w.f} {
				if isLinux && f.SetDeadline(time.Time{}) != nil {
					t.Error("an end has no deadlines")
				}
				// The engine takes Fd for a child, which expects a file that blocks.
				if f.Fd(); flags(t, f, unix.F_GETFL)&unix.O_NONBLOCK != 0 {
					t.Error("a child's end does not block")
				}
			}
			if _, err := w.f.WriteString("through"); err != nil {
				t.Error(err)
			}
			_ = w.f.Close()
			if got, err := io.ReadAll(r.f); err != nil || string(got) != "through" {
				t.Errorf("%q, %v", got, err)
			}
			_ = r.f.Close()
		}
		f := within(t, "a FIFO that is read and written", func() opened { return <-startOpen(ctx, dir, path, os.O_RDWR) })
		if f.err != nil {
			t.Fatal(f.err)
		}
		_ = f.f.Close()
	}
}

// TestOpenFIFOCancelled: nobody comes, and the wait ends with the context. It
// leaves no descriptor and no goroutine, also where the FIFO is by then another
// file's name; only a FIFO that has none any more keeps a goroutine until it has
// a writer.
func TestOpenFIFOCancelled(t *testing.T) {
	check := leaks(t)
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND} {
		for _, early := range []bool{true, false} {
			path := fifo(t)
			ctx, cancel := context.WithCancel(context.Background())
			if early {
				cancel()
			}
			c := startOpen(ctx, nil, path, flag)
			if !early {
				if flag == os.O_RDONLY { // a writer that comes and goes shows that it waits
					waittest.Until(t, "the FIFO to have a reader", func() bool { return hasReader(path) })
					r := within(t, "the reader", func() opened { return <-c })
					if r.err != nil {
						t.Fatal(r.err)
					}
					_ = r.f.Close()
					c = startOpen(ctx, nil, path, flag)
				}
				cancel()
			}
			r := within(t, "the open to be given up", func() opened { return <-c })
			var pe *os.PathError
			if r.f != nil || !errors.Is(r.err, context.Canceled) || !errors.As(r.err, &pe) || pe.Path != path || pe.Op != "open" {
				t.Errorf("flag %#x: %v, %v", flag, r.f, r.err)
			}
			cancel()
			check()
		}
	}
}

// hasReader reports whether a FIFO is being read, and lets who waits for a writer
// go on.
func hasReader(path string) bool {
	w, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		_ = w.Close()
	}
	return err == nil
}

// TestOpenFile: what is no FIFO is opened as os.OpenFile does, and nothing outside
// of the root (row 115).
func TestOpenFile(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	in, out := filepath.Join(base, "root"), filepath.Join(base, "out")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := safety.OpenDir(in)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := os.Symlink(out, filepath.Join(in, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(out, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, tt := range []struct {
		dir  *safety.Dir
		path string
		flag int
		text string // of the error
	}{
		{root, in + "/new", os.O_WRONLY | os.O_CREATE | os.O_EXCL, ""},
		{root, in + "/new", os.O_WRONLY | os.O_CREATE | os.O_EXCL, "file exists"},
		{root, in + "/new", os.O_RDONLY, ""},
		{root, in + "/nope", os.O_RDONLY, "no such file or directory"},
		{root, os.DevNull, os.O_WRONLY, ""},
		{root, out, os.O_RDONLY, "it is outside of the root " + in},
		{root, in + "/link", os.O_RDONLY, "it is outside of the root " + in},
		{root, in + "/../out", os.O_WRONLY, "it is outside of the root " + in},
		{nil, base + "/free", os.O_RDWR | os.O_CREATE, ""},
		{nil, base, os.O_WRONLY, "is a directory"},
	} {
		r := within(t, "an open", func() opened { return <-startOpen(ctx, tt.dir, tt.path, tt.flag) })
		if (r.err == nil) != (tt.text == "") || r.err != nil && osfile.Cause(r.err).Error() != tt.text {
			t.Errorf("%s: %v", tt.path, r.err)
		}
		if r.f != nil {
			osfile.Close(nil, r.f)
		}
	}
	plain := errors.New("plain")
	if got := osfile.Cause(plain); got != plain {
		t.Error(got)
	}
}

// TestPrivate: a file for what children wrote is of mode 0600 whatever the umask,
// has no name, and lies in the folder for such files (row 118).
func TestPrivate(t *testing.T) {
	for _, mask := range []int{0, 0o777} {
		func() {
			dir := t.TempDir()
			t.Setenv("TMPDIR", dir)
			defer syscall.Umask(syscall.Umask(mask))
			f, err := osfile.Private()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			st, _ := info.Sys().(*syscall.Stat_t)
			if perm := info.Mode().Perm(); perm&^0o600 != 0 || st.Nlink != 0 || flags(t, f, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
				t.Errorf("umask %o: mode %s, %d names", mask, info.Mode(), st.Nlink)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		}()
	}
	t.Setenv("TMPDIR", "/nope")
	if f, err := osfile.Private(); err == nil {
		_ = f.Close()
		t.Error("there is a file in a folder that does not exist")
	}
}

// TestText: a child that is given the descriptor reads the text from its start.
func TestText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a\x00\xff\n", strings.Repeat("x", 1<<20)} {
		f, err := osfile.Text(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || string(got) != text {
			t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
		}
		if flags(t, f, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
			t.Error("every child has it")
		}
		_ = f.Close()
	}
}

// TestDup: a copy is the same file, is not one of the first three descriptors and
// is nobody else's (row 33).
func TestDup(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	again, err := osfile.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := again.WriteString("x"); err != nil {
		t.Error(err)
	}
	if flags(t, again, unix.F_GETFD)&unix.FD_CLOEXEC == 0 || again.Fd() < 3 {
		t.Errorf("descriptor %d, inherited", again.Fd())
	}
	_ = again.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if f, err := osfile.Dup(1 << 20); f != nil || !errors.Is(err, syscall.EBADF) {
		t.Errorf("%v, %v", f, err)
	}
}

// TestOtherEndGone: either end tells when nobody has the other one any more.
func TestOtherEndGone(t *testing.T) {
	t.Parallel()
	for _, reader := range []bool{true, false} {
		mine, other, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if !reader {
			mine, other = other, mine
		}
		copied, err := osfile.Dup(int(other.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		osfile.Grow(mine)
		for _, f := range []*os.File{other, copied} {
			if osfile.OtherEndGone(mine) {
				t.Errorf("reader %v: it is still there", reader)
			}
			_ = f.Close()
		}
		if !osfile.OtherEndGone(mine) {
			t.Errorf("reader %v: it is gone", reader)
		}
		_ = mine.Close()
		if osfile.OtherEndGone(mine) {
			t.Error("a file that is closed has no other end")
		}
	}
}

// TestNull: nothing is read from the null device, and all may be written.
func TestNull(t *testing.T) {
	t.Parallel()
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR} {
		f, err := osfile.Null(flag)
		if err != nil {
			t.Fatal(err)
		}
		if got := flags(t, f, unix.F_GETFL) & unix.O_ACCMODE; got != flag || flags(t, f, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
			t.Errorf("%#x for %#x", got, flag)
		}
		info, err := f.Stat()
		null, nerr := os.Stat(os.DevNull)
		if err != nil || nerr != nil || !os.SameFile(info, null) {
			t.Errorf("%v, %v, %v", info, err, nerr)
		}
		_ = f.Close()
	}
}
