//go:build unix

package main

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// patience is how long a reader of our output may take for the next bytes once
// the run is to end.
const patience = 2 * time.Second

// output is stdout or stderr. A pipe or a terminal is opened anew, so that a
// write to it can be given up, which changes nothing for others who have it: a
// descriptor that is made non-blocking would be so for them too.
type output struct {
	f       *os.File
	limited atomic.Bool
}

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
	if again.SetWriteDeadline(time.Time{}) != nil { // /dev/null and its like never block
		_ = again.Close()
		return o
	}
	o.f = again
	return o
}

// Write writes all of b, or as much as somebody takes.
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

// limit ends the patience with slow readers.
func (o *output) limit() {
	o.limited.Store(true)
	_ = o.f.SetWriteDeadline(time.Now().Add(patience))
}
