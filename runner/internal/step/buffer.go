package step

import (
	"errors"
	"io"
	"os"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
)

// errMaxBuffer tells that a buffer with onOverflow: kill is full.
var errMaxBuffer = errors.New("maxBuffer exceeded")

// Buffer keeps what a stream carries: up to max bytes in memory, and past that
// what the policy says. It has one writer, and is read after the writer has ended.
// A nil Buffer is empty.
type Buffer struct {
	max    int64
	policy Overflow
	mem    []byte
	file   *os.File // unlinked already, so that nothing is left of it
	size   int64    // bytes kept
	err    error    // of the file
	cut    bool     // the end is missing
	closed bool
}

// Write keeps p. The error tells that the limit is exceeded and that the step is
// to end for it.
func (b *Buffer) Write(p []byte) (int, error) {
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
	case OverflowKill:
		b.cut = true
		return n, errMaxBuffer
	case OverflowTruncate:
		b.cut = true
	case OverflowSpill:
		b.spill(p)
	}
	return n, nil
}

// spill appends to the file. A full disk loses the rest of the output, never
// the child: it is said when the output is read.
func (b *Buffer) spill(p []byte) {
	defer func() { b.cut = b.cut || b.err != nil }()
	if b.err != nil {
		return
	}
	if b.file == nil {
		if b.file, b.err = osfile.Private(); b.err != nil {
			return
		}
	}
	k, err := b.file.Write(p)
	b.size += int64(k)
	b.err = err
}

func (b *Buffer) reader() io.Reader {
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

// Bytes returns what was kept, at most limit bytes (0: all). The error is that of
// the file that the output was spilled to, or os.ErrClosed after Close.
func (b *Buffer) Bytes(limit int64) ([]byte, error) {
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

// Recall returns a buffer that keeps data.
func Recall(data []byte) *Buffer { return &Buffer{mem: data, size: int64(len(data))} }

// Size returns how many bytes were kept.
func (b *Buffer) Size() int64 {
	if b == nil {
		return 0
	}
	return b.size
}

// Cut reports whether the end of the output is missing.
func (b *Buffer) Cut() bool { return b != nil && b.cut }

// Close removes the file, if there is one. The output cannot be read any more.
func (b *Buffer) Close() {
	if b == nil {
		return
	}
	b.closed = true
	if b.file != nil {
		_ = b.file.Close()
		b.file = nil
	}
}
