package runner

// This file holds the buffers of exec and execFile.

import (
	"errors"
	"io"
	"os"

	"github.com/pipe-runner/pipe/pipeline"
)

// errMaxBuffer tells that a buffer with onOverflow: kill is full.
var errMaxBuffer = errors.New("maxBuffer exceeded")

// buffer keeps what a stream carries: up to max bytes in memory, and past that
// what the policy says. It has one writer; it is read after the writer's end.
type buffer struct {
	max    int64
	policy pipeline.Overflow
	mem    []byte
	file   *os.File // unlinked already, so that nothing is left of it
	size   int64    // bytes kept
	err    error    // of the file
	cut    bool     // the end is missing
	closed bool
}

func (b *buffer) Write(p []byte) (int, error) {
	n := len(p)
	if room := b.max - int64(len(b.mem)); b.file == nil && room > 0 {
		k := min(int64(n), room)
		b.mem = append(b.mem, p[:k]...)
		b.size += k
		p = p[k:]
	}
	if len(p) == 0 {
		return n, nil
	}
	switch b.policy {
	case pipeline.OverflowKill:
		b.cut = true
		return n, errMaxBuffer
	case pipeline.OverflowTruncate:
		b.cut = true
	case pipeline.OverflowSpill:
		b.spill(p)
	}
	return n, nil
}

// spill appends to the file. A full disk loses the rest of the output, never
// the child: it is said when the output is read.
func (b *buffer) spill(p []byte) {
	defer func() { b.cut = b.cut || b.err != nil }()
	if b.err != nil {
		return
	}
	if b.file == nil {
		if b.file, b.err = privateFile(); b.err != nil {
			return
		}
	}
	k, err := b.file.Write(p)
	b.size += int64(k)
	b.err = err
}

// privateFile returns a file that only this process can reach, and that is
// gone when it is closed.
func privateFile() (*os.File, error) {
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

func (b *buffer) reader() io.Reader {
	mem := &sliceReader{b.mem}
	if b.file == nil {
		return mem
	}
	return io.MultiReader(mem, io.NewSectionReader(b.file, 0, b.size-int64(len(b.mem))))
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

func (b *buffer) bytes(limit int64) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	if b.closed {
		return nil, os.ErrClosed
	}
	if b.file == nil && (limit == 0 || b.size <= limit) {
		return b.mem, b.err
	}
	r := b.reader()
	if limit > 0 {
		r = io.LimitReader(r, limit)
	}
	out, err := io.ReadAll(r)
	return out, errors.Join(err, b.err)
}

func (b *buffer) close() {
	if b == nil {
		return
	}
	b.closed = true
	if b.file != nil {
		_ = b.file.Close()
		b.file = nil
	}
}

// privateScript returns a file with shell text that only this process, and who
// it hands the descriptor to, can reach.
func privateScript(text string) (*os.File, error) {
	f, err := privateFile()
	if err != nil {
		return nil, err
	}
	return written(f, text)
}

// written fills a file and sets it to its beginning.
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
