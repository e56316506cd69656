//go:build !linux

package runner

// This file stands in where the times of a file are not relied on: files are
// always read.

import (
	"io/fs"
	"os"
)

func identify(info fs.FileInfo) fileID {
	return fileID{Size: info.Size(), Mtime: info.ModTime().UnixNano()}
}

func (m *memory) truthful(uint64, *os.File) bool { return false }
