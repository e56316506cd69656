//go:build unix

package main

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// patience is how long a write may block on a slow reader once the run is ending.
const patience = 2 * time.Second

// output is stdout or stderr. Until limit is called, a write blocks for as long as
// the reader takes.
type output struct {
	f       *os.File
	limited atomic.Bool
}

// newOutput returns an output that writes to f, which path names.
//
// Write deadlines need a non-blocking descriptor. O_NONBLOCK belongs to the open
// file description, which other processes share with f, so newOutput opens a pipe
// or terminal a second time rather than changing f.
func newOutput(f *os.File, path string) *output {
	o := &output{f: f}
	info, err := f.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 {
		return o
	}
	again, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return o
	}
	// A device such as /dev/null takes no deadline; it never blocks either.
	if again.SetWriteDeadline(time.Time{}) != nil {
		_ = again.Close()
		return o
	}
	o.f = again
	return o
}

// Write writes all of b. After limit it gives up when the reader takes nothing for
// the length of patience, and returns os.ErrDeadlineExceeded.
func (o *output) Write(b []byte) (n int, err error) {
	for {
		if o.limited.Load() {
			_ = o.f.SetWriteDeadline(time.Now().Add(patience))
		}
		var k int
		k, err = o.f.Write(b[n:])
		n += k
		if k == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// limit bounds the time that a write, also one that is blocked now, waits for the
// reader.
func (o *output) limit() {
	o.limited.Store(true)
	_ = o.f.SetWriteDeadline(time.Now().Add(patience))
}
