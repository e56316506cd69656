package runner

// This file holds tee: one stream that goes to several readers.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/pipe-runner/pipe/pipeline"
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

// tee plumbs a tee stage and returns what the next stage reads, if there is one.
func (ex *execution) tee(st *pipeline.Stage, in io.Reader, last bool) (io.Reader, error) {
	f, ok := in.(*os.File)
	if !ok {
		return nil, errors.New("tee: no stream")
	}
	t := &tee{in: ex.own(f), done: make(chan struct{})}
	t.files = []*os.File{t.in}
	ex.tees = append(ex.tees, t)
	for _, b := range st.Tee {
		if b.File != nil {
			path := ex.teeFiles[0]
			ex.teeFiles = ex.teeFiles[1:]
			out, err := ex.file("tee", path, fileFlags(*b.File))
			if err != nil {
				return nil, err
			}
			t.add(ex.own(out), path)
			continue
		}
		pr, pw, err := ex.pipe()
		if err != nil {
			return nil, err
		}
		t.add(ex.own(pw), "")
		if err := ex.chain(b.Chain, pr, true); err != nil {
			return nil, err
		}
	}
	var next io.Reader
	if !last {
		pr, pw, err := ex.pipe()
		if err != nil {
			return nil, err
		}
		t.add(ex.own(pw), "")
		next = pr
	}
	return next, nil
}

// add gives the tee another sink; path is that of a file.
func (t *tee) add(f *os.File, path string) {
	t.sinks = append(t.sinks, &teeSink{f, path})
	t.files = append(t.files, f)
}

// branchFile evaluates the path of a file branch.
func (ex *execution) branchFile(s *pipeline.Stdio) (string, error) {
	b, err := ex.bind(&pipeline.Stage{Action: pipeline.ActionSpawn, Args: []pipeline.Template{pipeline.Literal("tee")}, Stdout: *s})
	if err != nil {
		return "", err
	}
	return b.files[1], nil
}

// own takes a file from those that are closed when all have started.
func (ex *execution) own(f *os.File) *os.File {
	for i, o := range ex.open {
		if o == f {
			ex.open = append(ex.open[:i:i], ex.open[i+1:]...)
		}
	}
	return f
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
	case !otherEndGone(t.in):
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
	return fmt.Errorf("tee: %s is incomplete: %w", s.path, err)
}

// copy is tee through this program's memory.
func (t *tee) copy() error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
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
