//go:build linux || freebsd || netbsd || openbsd || dragonfly

package runner

// This file holds how a file that was written is known from before.

import (
	"io/fs"
	"syscall"
)

func identify(info fs.FileInfo) fileID {
	id := fileID{Size: info.Size(), Mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Ino, id.Ctime = uint64(st.Dev), uint64(st.Ino), st.Ctim.Nano() //nolint:unconvert // they differ between systems
	}
	return id
}
