package step

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
)

// tee copies one stream to sinks. A sink that stops reading is dropped; when
// none is left, the stream is closed, so that its writer learns of it.
type tee struct {
	in    *os.File
	sinks []*teeSink
	files []*os.File // in and those of all sinks
	begun bool
	done  chan struct{}
	err   error // of a file; read after done
}

type teeSink struct {
	f    *os.File
	path string // of a file
}

// add gives the tee another sink; path is that of a file.
func (t *tee) add(f *os.File, path string) {
	t.sinks = append(t.sinks, &teeSink{f, path})
	t.files = append(t.files, f)
}

func (t *tee) begin() {
	t.begun = true
	go func() {
		defer close(t.done)
		defer t.close()
		t.err = t.splice()
	}()
}

// close closes the sinks before the stream: a Close waits for who is in the
// middle of something with the file, which may be the wait for a sink.
func (t *tee) close() {
	for _, f := range slices.Backward(t.files) {
		_ = f.Close()
	}
}

// release ends the copying if a stranger holds the stream open, and with force
// in any case.
func (t *tee) release(force bool) {
	switch {
	case !t.begun:
		t.close()
		select {
		case <-t.done:
		default:
			close(t.done)
		}
	case force:
		t.close()
	case !osfile.OtherEndGone(t.in):
		_ = t.in.Close()
	}
}

// drop gives up a sink. The error is nil where its reader had enough, and else
// says what is missing in a file.
func (t *tee) drop(s *teeSink, err error) error {
	_ = s.f.Close()
	for i, o := range t.sinks {
		if o == s {
			t.sinks = append(t.sinks[:i:i], t.sinks[i+1:]...)
			break
		}
	}
	if s.path == "" || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("tee: %s is incomplete: %w", s.path, osfile.Cause(err))
}

// copy is tee through this program's memory.
func (t *tee) copy() error {
	buf, _ := osfile.Buffers.Get().(*[]byte)
	defer osfile.Buffers.Put(buf)
	var failed error
	for len(t.sinks) > 0 {
		n, err := t.in.Read(*buf)
		for _, s := range append([]*teeSink{}, t.sinks...) {
			if n == 0 {
				break
			}
			if _, werr := s.f.Write((*buf)[:n]); werr != nil {
				failed = errors.Join(failed, t.drop(s, werr))
			}
		}
		if err != nil {
			break
		}
	}
	return failed
}
