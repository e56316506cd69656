//go:build unix && !linux

package osfile

import "os"

// Grow does nothing: a pipe has the size that the system gives it.
func Grow(*os.File) {}

// Null opens the null device for a child.
func Null(flag int) (*os.File, error) { return os.OpenFile(os.DevNull, flag, 0) }

func pipeFromChild() (r, w *os.File, err error) { return os.Pipe() }

func pipeToChild() (r, w *os.File, err error) { return os.Pipe() }

// Text returns a file that holds text, for a child that is given its descriptor.
func Text(text string) (*os.File, error) { return privateText(text) }

// Reopen returns nil: a file cannot be opened by its descriptor.
func Reopen(*os.File) *os.File { return nil }
