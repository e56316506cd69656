// Package osfile opens files, pipes and descriptors for children: without
// waiting longer than a context allows, closed in every other child, and, where
// they hold what a child wrote, reachable by nobody else.
package osfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pipe-runner/pipe/safety"
)

// Private returns a file that only this process can reach, and that is gone
// when it is closed.
func Private() (*os.File, error) {
	f, err := os.CreateTemp("", "pipe-spill-") // 0600, O_EXCL
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil { // where open files cannot be removed
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// privateText returns a file with text that only this process, and a child that
// is given the descriptor, can reach.
func privateText(text string) (*os.File, error) {
	f, err := Private()
	if err != nil {
		return nil, err
	}
	return written(f, text)
}

// written fills a file and rewinds it. After an error it has closed the file.
func written(f *os.File, text string) (*os.File, error) {
	_, err := f.WriteString(text)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Close closes files. A nil one is passed over.
func Close(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Buffers has buffers of 64 KiB for copying.
var Buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Copies are the pipes between one child and this program, and the goroutines
// that copy to or from them. The zero value has none. From and To are called
// before Begin, by one goroutine; the other methods may be called by several.
type Copies struct {
	ends     []*os.File // ours
	from, to []func()
	left     atomic.Int32 // copies from the child that go on
	released atomic.Bool
	done     chan struct{}
}

// From returns the end of a new pipe that a child writes to, for the caller to
// close; what comes is written to w.
func (c *Copies) From(w io.Writer) (*os.File, error) {
	pr, pw, err := pipeFromChild()
	if err != nil {
		return nil, err
	}
	c.ends = append(c.ends, pr)
	c.from = append(c.from, func() { copyOut(w, pr, &c.released) })
	return pw, nil
}

// To returns the end of a new pipe that a child reads, for the caller to close;
// it is given what r has. A child that does not read all of it is no error.
func (c *Copies) To(r io.Reader) (*os.File, error) {
	pr, pw, err := pipeToChild()
	if err != nil {
		return nil, err
	}
	c.ends = append(c.ends, pw)
	c.to = append(c.to, func() {
		_, _ = io.Copy(pw, r)
		_ = pw.Close()
	})
	return pr, nil
}

// Begin starts the copying.
func (c *Copies) Begin() {
	c.done = make(chan struct{})
	c.left.Store(int32(len(c.from)))
	if len(c.from) == 0 {
		close(c.done)
	}
	for _, f := range c.to {
		go f()
	}
	for _, f := range c.from {
		go func() {
			f()
			if c.left.Add(-1) == 0 {
				close(c.done)
			}
		}()
	}
}

// Done is closed, after Begin, when everything that came from the child has been
// delivered. Copying to the child is not waited for: it may hang in a Read of
// the caller's.
func (c *Copies) Done() <-chan struct{} { return c.done }

// Ends returns this program's ends of the pipes, for finding out who holds the
// others. They are not to be read, written or closed.
func (c *Copies) Ends() []*os.File { return c.ends }

// Abandon closes the pipes where no child was started.
func (c *Copies) Abandon() { Close(c.ends...) }

// Release gives up the pipes whose other end a stranger holds open; with force
// it gives up all. Done is closed soon after, unless a Write blocks.
func (c *Copies) Release(force bool) {
	c.released.Store(true)
	for _, f := range c.ends {
		if !force && OtherEndGone(f) {
			continue // it ends by itself, as soon as all has been delivered
		}
		if force || f.SetDeadline(time.Now()) != nil {
			_ = f.Close()
		}
	}
}

// copyOut copies a child's output until its end, or until nobody wants it.
// Where the stream has been released, it ends with what is there.
func copyOut(w io.Writer, pr *os.File, released *atomic.Bool) {
	buf, _ := Buffers.Get().(*[]byte)
	defer Buffers.Put(buf)
	for {
		n, err := pr.Read(*buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && released.Load() {
			n, err = readNow(pr, *buf)
		}
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = pr.Close()
}

// Cause returns an error without the path that it names, for a message that
// names it already.
func Cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var out *safety.OutsideError
	if errors.As(err, &out) {
		return fmt.Errorf("it is outside of the root %s", out.Root)
	}
	return err
}
