package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPid returns si_pid: it stands after three ints, aligned for pointers,
// in the union that package unix leaves unnamed.
func siginfoPid(info *unix.Siginfo) int32 {
	off := uintptr(12)
	if unsafe.Sizeof(uintptr(0)) == 8 {
		off = 16
	}
	return *(*int32)(unsafe.Add(unsafe.Pointer(info), off))
}
