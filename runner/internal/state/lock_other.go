//go:build !unix

package state

import (
	"errors"
	"io/fs"
	"os"
)

const isUnix = false

func owned(string, fs.FileInfo) error { return nil }

// OpenFile opens a file of the state folder, as os.OpenFile does.
func OpenFile(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) }

// TryLock returns errors.ErrUnsupported.
func TryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

func tryShared(*os.File) (bool, error) { return false, errors.ErrUnsupported }
