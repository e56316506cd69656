package history

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func identify(info fs.FileInfo) fileID {
	id := fileID{Size: info.Size(), Mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Ino, id.Ctime = uint64(st.Dev), uint64(st.Ino), st.Ctim.Nano() //nolint:unconvert // the types differ between architectures
	}
	return id
}

// honest holds the file systems, by their statfs(2) type, that update the times of a
// file reliably at each write. File systems in memory do not do so for writes through a
// memory mapping, and network file systems have a clock of their own.
var honest = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true,
	unix.OVERLAYFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true, 0x2fc12fc1: true, // ZFS
	0xca451a4e: true, // bcachefs
}

// truthful reports whether the times of files can be trusted on the file system of f,
// which is on the device dev.
func (m *Memory) truthful(dev uint64, f *os.File) bool {
	if known, ok := m.systems.Load(dev); ok {
		return known == true
	}
	var st unix.Statfs_t
	ok := unix.Fstatfs(int(f.Fd()), &st) == nil && honest[int64(st.Type)] //nolint:unconvert // the types differ between architectures
	m.systems.Store(dev, ok)
	return ok
}
