//go:build unix

package osfile_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// from begins the copying from a child to w, and returns the child's end, which
// the test holds itself.
func from(t testing.TB, w io.Writer) (*osfile.Copies, *os.File) {
	t.Helper()
	c := &osfile.Copies{}
	end, err := c.From(w)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	return c, end
}

func open(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// TestCopies: all that a child writes is delivered before Done is closed, and it
// is given all there is to read (P12).
func TestCopies(t *testing.T) {
	t.Parallel()
	check := strings.Repeat("\x00\xffline\r\n", 50_000)
	var c osfile.Copies
	var out, errs bytes.Buffer
	stdin, err1 := c.To(strings.NewReader(check))
	stdout, err2 := c.From(&out)
	stderr, err3 := c.From(&errs)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{stdin, stdout, stderr} {
		if flags(t, f, unix.F_GETFL)&unix.O_NONBLOCK != 0 && isLinux { // row 47
			t.Error("a child's end does not block")
		}
	}
	c.Begin()
	if n := len(c.Ends()); n != 3 {
		t.Errorf("%d ends", n)
	}
	if _, err := io.Copy(stdout, stdin); err != nil { // the child is cat
		t.Error(err)
	}
	if _, err := stderr.WriteString("bad"); err != nil {
		t.Error(err)
	}
	osfile.Close(stdin, stdout)
	if !open(c.Done()) {
		t.Error("done with a stream open")
	}
	osfile.Close(stderr)
	waittest.For(t, "the end of the copying", c.Done())
	if out.String() != check || errs.String() != "bad" {
		t.Errorf("%d bytes of %d, and %q", out.Len(), len(check), &errs)
	}

	var none osfile.Copies
	none.Begin()
	waittest.For(t, "the end of no copying", none.Done())
}

// TestCopiesTo: a child that reads nothing, or a reader that hangs, is not waited
// for; a child that has had enough ends the reading.
func TestCopiesTo(t *testing.T) {
	t.Parallel()
	g := newGate()
	var c osfile.Copies
	stdin, err := c.To(g)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	waittest.For(t, "the end of the copying", c.Done())
	waittest.For(t, "the read", g.asked)
	_ = stdin.Close()
	close(g.open)

	var more osfile.Copies
	if stdin, err = more.To(endless{}); err != nil {
		t.Fatal(err)
	}
	more.Begin()
	if _, err := io.CopyN(io.Discard, stdin, 100_000); err != nil {
		t.Error(err)
	}
	_ = stdin.Close()
	waittest.Until(t, "the pipe to be closed", func() bool { return more.Ends()[0].SetDeadline(time.Time{}) != nil })
}

// TestCopiesFailingWriter: a writer that fails ends its stream alone, and whoever
// writes to that gets EPIPE (P3, row 40).
func TestCopiesFailingWriter(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.fails = errors.New("no more")
	close(g.open)
	c, end := from(t, g)
	if _, err := end.WriteString("x"); err != nil {
		t.Error(err)
	}
	waittest.For(t, "the end of the copying", c.Done())
	if _, err := end.WriteString("y"); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	_ = end.Close()
}

// TestCopiesRelease: what a stranger keeps open is given up with all that was
// written before, and what a slow writer has not yet taken is delivered still;
// with force it is dropped (P4, row 31).
func TestCopiesRelease(t *testing.T) {
	t.Parallel()
	const size = 200_000 // more than a buffer
	for name, tt := range map[string]struct {
		ended, force, whole bool
	}{
		"ended":            {ended: true, whole: true},
		"stranger":         {whole: true},
		"ended, forced":    {ended: true, force: true},
		"stranger, forced": {force: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			c, end := from(t, g)
			defer end.Close()
			osfile.Grow(end) // or it has room for less
			if !isLinux {
				t.Skip("pipes here have no room for what is written")
			}
			want := strings.Repeat("x", size)
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				_, _ = end.WriteString(want)
			}()
			waittest.For(t, "the first write", g.asked)
			waittest.For(t, "the child to have written all", wrote)
			if tt.ended {
				_ = end.Close()
			}
			c.Release(tt.force)
			if !open(c.Done()) {
				t.Error("done while a write blocks")
			}
			close(g.open)
			waittest.For(t, "the end of the copying", c.Done())
			if got := g.text(); (len(got) == size) != tt.whole || len(got) == 0 {
				t.Errorf("%d bytes of %d were delivered", len(got), size)
			}
			c.Release(tt.force)
		})
	}
}

// TestCopiesReleaseTo: a child's stdin is given up too: it ends, unless the child
// has ended before.
func TestCopiesReleaseTo(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		var c osfile.Copies
		stdin, err := c.To(endless{})
		if err != nil {
			t.Fatal(err)
		}
		c.Begin()
		if _, err := io.ReadFull(stdin, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		c.Release(force)
		_ = within(t, "the end of stdin", func() error { _, err := io.Copy(io.Discard, stdin); return err })
		_ = stdin.Close()
	}
}

// TestCopiesAbandon: where nothing was started, both ends are gone.
func TestCopiesAbandon(t *testing.T) {
	check := leaks(t)
	var c osfile.Copies
	stdin, err1 := c.To(endless{})
	stdout, err2 := c.From(io.Discard)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	ends := slices.Clone(c.Ends())
	c.Abandon()
	for _, f := range ends {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
	osfile.Close(stdin, nil, stdout)
	check()
}

// TestCopiesNothingLeft: after the end nothing is open here and no goroutine is
// left, however it came to it.
func TestCopiesNothingLeft(t *testing.T) {
	check := leaks(t)
	for _, force := range []bool{false, true} {
		var c osfile.Copies
		stdin, err1 := c.To(endless{})
		stdout, err2 := c.From(io.Discard)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		c.Begin()
		c.Release(force)
		waittest.For(t, "the end of the copying", c.Done())
		osfile.Close(stdin, stdout)
		check()
	}
}

// TestNoDescriptors: without descriptors there is an error and nothing is left
// (row 15).
func TestNoDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	check := leaks(t)
	low := limit
	low.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var c osfile.Copies
	var errs []error
	for _, f := range []func() (*os.File, error){
		func() (*os.File, error) { return c.From(io.Discard) },
		func() (*os.File, error) { return c.To(endless{}) },
		func() (*os.File, error) { return osfile.Null(os.O_RDONLY) },
		func() (*os.File, error) { return osfile.Text("x") },
		func() (*os.File, error) { return osfile.Dup(1) },
		osfile.Private,
	} {
		_, err := f()
		errs = append(errs, err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.EINVAL) { // EINVAL of fcntl
			t.Errorf("%d: %v", i, err)
		}
	}
	if len(c.Ends()) > 0 {
		t.Errorf("%d ends of pipes that are not there", len(c.Ends()))
	}
	check()
}
