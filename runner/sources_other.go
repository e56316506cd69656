//go:build !linux && !freebsd && !netbsd && !openbsd && !dragonfly

package runner

// This file stands in where the time of the last change of a file is not asked
// for: files are always read.

import "io/fs"

func identify(info fs.FileInfo) fileID {
	return fileID{Size: info.Size(), Mtime: info.ModTime().UnixNano()}
}
