package job

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// shrink returns memory to the system that only the start of the keeper needed:
// unused heap, and the pages of the program's code, which the kernel reads again when
// they are used.
func shrink() {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for in := bufio.NewScanner(f); in.Scan(); {
		var from, to uintptr
		var perms string
		line := in.Text()
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n != 3 || !strings.HasSuffix(line, " "+exe) {
			continue
		}
		if !strings.HasPrefix(perms, "r-x") { // relocated data would be lost
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
	}
}
