package runner

// This file holds tee: one stream that goes to several readers.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/pipe-runner/pipe/pipeline"
)

// tee copies one stream to sinks. A sink that stops reading is dropped; when
// none is left, the stream is closed, so that its writer learns of it.
type tee struct {
	in    *os.File
	sinks []*teeSink
	done  chan struct{}
	err   error // of a file; read after done
	once  sync.Once
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
	for _, b := range st.Tee {
		if b.File != nil {
			path, err := ex.branchFile(b.File)
			if err != nil {
				return nil, err
			}
			out, err := ex.file("tee", path, fileFlags(*b.File))
			if err != nil {
				return nil, err
			}
			t.sinks = append(t.sinks, &teeSink{ex.own(out), path})
			continue
		}
		pr, pw, err := ex.pipe()
		if err != nil {
			return nil, err
		}
		t.sinks = append(t.sinks, &teeSink{f: ex.own(pw)})
		if _, err := ex.chain(b.Chain, nil, pr, true); err != nil {
			return nil, err
		}
	}
	var next io.Reader
	if !last {
		pr, pw, err := ex.pipe()
		if err != nil {
			return nil, err
		}
		t.sinks = append(t.sinks, &teeSink{f: ex.own(pw)})
		next = pr
	}
	ex.tees = append(ex.tees, t)
	return next, nil
}

// branchFile evaluates the path of a file branch.
func (ex *execution) branchFile(s *pipeline.Stdio) (string, error) {
	b, err := ex.bind(&pipeline.Stage{Action: pipeline.Spawn, Args: []pipeline.Template{pipeline.Literal("tee")}, Stdout: *s})
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

func (t *tee) begin(ex *execution) {
	go func() {
		defer close(t.done)
		defer t.close()
		if err := t.splice(); err != nil {
			ex.r.warn(ex.index, err.Error())
			t.err = err
		}
	}()
}

func (t *tee) close() {
	_ = t.in.Close()
	for _, s := range t.sinks {
		_ = s.f.Close()
	}
}

// abandon ends the copying from outside.
func (t *tee) abandon() { t.once.Do(func() { _ = t.in.Close() }) }

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
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool has nothing else
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
