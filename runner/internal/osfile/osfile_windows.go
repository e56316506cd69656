package osfile

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/pipe-runner/pipe/safety"
)

// Grow does nothing: a pipe has the size that the system gives it.
func Grow(*os.File) {}

// Null opens the null device for a child.
func Null(flag int) (*os.File, error) { return os.OpenFile(os.DevNull, flag, 0) }

func pipeFromChild() (r, w *os.File, err error) { return os.Pipe() }

func pipeToChild() (r, w *os.File, err error) { return os.Pipe() }

// Text returns a file that holds text, for a child that is given its descriptor.
func Text(text string) (*os.File, error) { return privateText(text) }

// Open opens a file inside of a directory, as os.OpenFile does.
func Open(_ context.Context, dir *safety.Dir, path string, flag int, perm os.FileMode) (*os.File, error) {
	return dir.OpenFile(path, flag, perm)
}

// Dup fails: there are no descriptors by number.
func Dup(int) (*os.File, error) { return nil, errors.ErrUnsupported }

// OtherEndGone reports false: it is not known.
func OtherEndGone(*os.File) bool { return false }

func readNow(*os.File, []byte) (int, error) { return 0, io.EOF }

// Reopen returns nil: a file cannot be opened by its descriptor.
func Reopen(*os.File) *os.File { return nil }
