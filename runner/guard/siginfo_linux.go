package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPid returns si_pid. Package unix does not name the union that holds it,
// which follows three ints and has the alignment of a pointer.
func siginfoPid(info *unix.Siginfo) int32 {
	off := uintptr(12)
	if unsafe.Sizeof(uintptr(0)) == 8 {
		off = 16
	}
	return *(*int32)(unsafe.Add(unsafe.Pointer(info), off))
}
