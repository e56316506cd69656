package step

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/pipe-runner/pipe/safety"
)

// stream is one output that passes through the runner.
type stream struct {
	ex    *execution
	stage int
	fd    int  // 1 or 2
	live  bool // shown as it comes
	// masker is used by one goroutine at a time: the one that copies, and then,
	// unless the stream was given up, that of the execution.
	masker *safety.Masker
	line   *lineSearch // nil: no line is looked for

	mu     sync.Mutex
	buf    *Buffer // nil: nothing is kept
	ended  bool
	given  bool // up: who copies may still be at it
	cutOff bool // more came than the buffer takes, and the step is to end for it
}

// stream returns what a descriptor that passes through the runner is written to.
// Where nobody looks that is the runner's own, and no byte is copied.
func (ex *execution) stream(p *proc, fd int) (io.Writer, *stream) {
	direct := ex.sv.Direct && p.spec.Keep == nil && ex.spec.IdleTimeout == 0 && ex.sv.Redactor == nil && ex.line == nil
	if direct {
		return ex.sv.out(fd), nil
	}
	s := &stream{ex: ex, stage: p.stage, fd: fd, live: true}
	if ex.line != nil {
		s.line = &lineSearch{linePattern: ex.line}
	}
	if ex.sv.Redactor != nil {
		s.masker = ex.sv.Redactor.Stream()
	}
	if k := p.spec.Keep; k != nil {
		s.buf = &Buffer{max: k.Max, policy: k.Overflow}
		s.live = !ex.spec.Held
	}
	ex.streams = append(ex.streams, s)
	return s, s
}

// out returns what a descriptor is that is inherited.
func (sv *Services) out(fd int) io.Writer {
	if fd == 1 {
		return sv.Stdout
	}
	return sv.Stderr
}

// Write takes what a child wrote.
func (s *stream) Write(b []byte) (int, error) {
	s.ex.heard()
	if s.line != nil {
		s.line.look(b)
	}
	show, err := s.keep(b)
	if err != nil {
		return 0, err
	}
	if s.live && len(show) > 0 {
		s.show(show, false)
	}
	return len(b), nil
}

// keep buffers what is to be kept, and returns what is to be shown.
func (s *stream) keep(b []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, os.ErrClosed
	}
	if s.buf == nil {
		return b, nil
	}
	before := s.buf.size
	if _, err := s.buf.Write(b); err != nil {
		s.cutOff = true
		s.ex.end(&Stop{Reason: ReasonMaxBuffer})
	}
	if s.buf.policy == OverflowSpill {
		return b, nil // a full disk does not concern who watches
	}
	return b[:min(int64(len(b)), s.buf.size-before)], nil
}

func (s *stream) overflowed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cutOff
}

// close makes sure that the buffer is not written to any more, also where the
// stream had to be given up. It returns whether it was.
func (s *stream) close() (given bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.given
}

func (s *stream) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = true
}

func (s *stream) show(b []byte, whole bool) {
	if s.masker != nil {
		b = s.masker.Mask(b)
	}
	s.deliver(b, whole)
}

// flushMasker shows what was held back because it could have become a secret.
// Where the output was cut it may have been one: that stays hidden.
func (s *stream) flushMasker(whole bool) {
	if s.masker != nil {
		s.deliver(s.masker.End(s.buf.Cut()), whole)
	}
}

// deliver hands on what may be seen.
func (s *stream) deliver(b []byte, whole bool) {
	switch {
	case len(b) == 0:
	case s.ex.sv.Direct:
		_, _ = s.ex.sv.out(s.fd).Write(b) // as with a child's own write, its concern
	default:
		s.ex.sink(Event{Type: EventData, Stage: s.stage, FD: s.fd, Data: b, Whole: whole})
	}
}

// whole delivers the buffer in one piece, or in as few as a file allows, and
// not mixed with that of another step.
func (s *stream) whole() {
	if m := s.ex.sv.Whole; m != nil {
		m.Lock()
		defer m.Unlock()
	}
	defer s.flushMasker(true)
	if s.buf.file == nil {
		s.show(s.buf.mem, true)
		return
	}
	r := s.buf.reader()
	b := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			s.show(b[:n], true)
		}
		if err != nil {
			return
		}
	}
}

// flush delivers what was held back, and hands the buffers over.
func (ex *execution) flush() {
	for _, s := range ex.streams {
		if given := s.close(); s.live && !given {
			s.flushMasker(false)
		}
	}
	for _, p := range ex.procs {
		res := &ex.result.Stages[p.stage]
		for _, s := range []*stream{p.out, p.errs} {
			if s == nil || s.buf == nil {
				continue
			}
			if s.fd == 1 {
				res.Stdout = s.buf
			} else {
				res.Stderr = s.buf
			}
			if !s.live && s.buf.size > 0 {
				s.whole()
			}
			if s.buf.err != nil {
				ex.warn(fmt.Sprintf("buffered output is incomplete: %v", s.buf.err))
			}
		}
	}
}

// linePattern is a line that a service says by that it can be used.
type linePattern struct {
	re   *regexp.Regexp
	once sync.Once
	seen chan struct{} // closed by the first line that matches
}

func newLinePattern(pattern string) (*linePattern, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("ready: log is not a regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return &linePattern{re: re, seen: make(chan struct{})}, nil
}

// maxProbeLine is how much of a line without end is looked at, in bytes.
const maxProbeLine = 64 << 10

// lineSearch looks for the line in one stream.
type lineSearch struct {
	*linePattern
	line  []byte
	found bool
}

// look looks at more of the stream.
func (l *lineSearch) look(b []byte) {
	for len(b) > 0 && !l.found {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		l.line = append(l.line, line[:min(len(line), maxProbeLine-len(l.line))]...)
		if b = rest; !whole {
			return
		}
		if l.found = l.re.Match(bytes.TrimSuffix(l.line, []byte("\r"))); l.found {
			l.once.Do(func() { close(l.seen) })
		}
		l.line = l.line[:0]
	}
}
