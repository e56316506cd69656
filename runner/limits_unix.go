//go:build unix

package runner

import "syscall"

// maxProcesses returns how many processes may run at once with the descriptors
// that this process may open; each takes up to six. 0 is no limit.
func maxProcesses() int {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) != nil || lim.Cur > 1<<30 {
		return 0
	}
	return max(1, (int(lim.Cur)-24)/6)
}
