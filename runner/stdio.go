package runner

import (
	"io"
	"os"
	"sync"

	"github.com/pipe-runner/pipe/pipeline"
)

// stdio makes of what the caller gave what inherit means to a step.
func (s *scene) stdio() error {
	s.services.Stdout, s.services.Stderr = s.Stdout, s.Stderr
	if s.Stdout == nil {
		s.services.Stdout = os.Stdout
	}
	if s.Stderr == nil {
		s.services.Stderr = os.Stderr
	}
	same := equal(s.services.Stdout, s.services.Stderr)
	s.services.Stdout = oneAtATime(s.services.Stdout)
	if s.services.Stderr = oneAtATime(s.services.Stderr); same {
		s.services.Stderr = s.services.Stdout
	}
	s.services.Stdin = os.Stdin
	switch in := s.in.Stdin.(type) {
	case nil:
	case *os.File:
		s.services.Stdin = in
	default:
		if !inherits(s.p) {
			return nil
		}
		pr, pw, err := os.Pipe()
		if err != nil {
			return err
		}
		s.feed, s.services.Stdin = pr, pr
		go func() {
			_, _ = io.Copy(pw, in) // what no step reads is none of the run's concern
			_ = pw.Close()
		}()
	}
	return nil
}

// inherits reports whether a step of the pipeline, or of one that it runs, reads
// the caller's stdin.
func inherits(p *pipeline.Pipeline) bool {
	for _, s := range p.Steps {
		if s.Run != nil && inherits(s.Run.Pipeline) {
			return true
		}
		for _, st := range s.Stages {
			for _, io := range append([]pipeline.Stdio{st.Stdin}, st.Extra...) {
				if io.Kind == pipeline.StdioInherit || io.Kind == pipeline.StdioFD && io.FD == 0 {
					return true
				}
			}
		}
	}
	return false
}

// equal reports whether two writers are the same. Writers that cannot be compared
// are not.
func equal(a, b io.Writer) bool {
	defer func() { _ = recover() }()
	return a == b
}

// oneAtATime returns a writer that steps may share.
func oneAtATime(w io.Writer) io.Writer {
	switch w.(type) {
	case *os.File, *serial:
		return w
	}
	return &serial{w: w}
}

// serial passes on one Write at a time.
type serial struct {
	mu sync.Mutex
	w  io.Writer
}

// Write writes to the caller's writer.
func (s *serial) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}
