// Package procfs reads what /proc of Linux tells about processes and their
// families.
package procfs

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Stat is the part of /proc/PID/stat that tells families apart.
type Stat struct {
	Comm       string // the program's name, at most 15 bytes
	State      byte   // R, S, D, T, Z …
	Ppid, Pgrp int
	Session    int
	Start      string        // time since boot, in ticks; tells a pid that was used again
	CPU        time.Duration // user and system
	RSS        int64         // bytes
}

// Gone reports whether the process has ended and only waits to be reaped.
func (s Stat) Gone() bool { return s.State == 'Z' || s.State == 'X' }

// ReadStat returns the Stat of a process; ok is false if there is none.
func ReadStat(pid int) (s Stat, ok bool) {
	b := read("/proc/" + strconv.Itoa(pid) + "/stat")
	// The name may itself hold spaces and parentheses.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 3 {
		return Stat{}, false
	}
	s = Stat{Comm: string(b[open+1 : end]), State: f[0][0]}
	s.Ppid, _ = strconv.Atoi(f[1])
	s.Pgrp, _ = strconv.Atoi(f[2])
	if len(f) > 3 {
		s.Session, _ = strconv.Atoi(f[3])
	}
	if len(f) > 21 {
		s.Start = f[19]
		user, _ := strconv.ParseInt(f[11], 10, 64)
		sys, _ := strconv.ParseInt(f[12], 10, 64)
		s.CPU = time.Duration(user+sys) * (time.Second / 100) // USER_HZ is 100 on every system
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		s.RSS = pages * int64(os.Getpagesize())
	}
	return s, true
}

// BootID returns what names this boot of the machine, or "".
func BootID() string {
	return strings.TrimSpace(string(read("/proc/sys/kernel/random/boot_id")))
}

// Children returns the children of a process, of all its threads.
func Children(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []int
	for _, t := range tasks {
		for _, w := range bytes.Fields(read(dir + t.Name() + "/children")) {
			if n, err := strconv.Atoi(string(w)); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// KeeperArg is the first argument of a process that keeps a job.
const KeeperArg = "__keeper"

// IsKeeper reports whether a process is this program, keeping a job: that is to
// outlive all that it descends from.
func IsKeeper(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	words := bytes.SplitN(read(dir+"/cmdline"), []byte{0}, 3)
	if len(words) < 3 || string(words[1]) != KeeperArg {
		return false
	}
	mine, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	its, err := os.Stat(dir + "/exe")
	return err == nil && os.SameFile(mine, its)
}

// Descendants returns the children of a process, theirs, and so on, but for
// keepers of jobs and what they keep.
func Descendants(pid int) []int {
	var out []int
	for todo := Children(pid); len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if IsKeeper(p) {
			continue
		}
		out = append(out, p)
		todo = append(todo, Children(p)...)
	}
	return out
}

// All returns all processes.
func All() []int {
	entries, _ := os.ReadDir("/proc")
	out := make([]int, 0, len(entries))
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// InSession returns the processes of a session.
func InSession(sid int) []int {
	var out []int
	for _, pid := range All() {
		if s, ok := ReadStat(pid); ok && s.Session == sid && !s.Gone() {
			out = append(out, pid)
		}
	}
	return out
}

// read returns what a file of /proc holds, or nil. It asks the kernel itself:
// os.ReadFile would offer each file to the poller, which takes six more calls.
func read(path string) []byte {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = syscall.Close(fd) }()
	b := make([]byte, 0, 512)
	for {
		n, err := syscall.Read(fd, b[len(b):cap(b)])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return b
		}
		b = b[:len(b)+n]
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// Holders names the processes that have the other end of a pipe open, this
// program left out: "sleep (pid 12)".
func Holders(pipes []*os.File) []string {
	want := map[string]bool{}
	for _, f := range pipes {
		if rc, err := f.SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) {
				if link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd))); err == nil {
					want[link] = true
				}
			})
		}
	}
	var out []string
	procs, _ := os.ReadDir("/proc")
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fds, _ := os.ReadDir("/proc/" + e.Name() + "/fd")
		for _, f := range fds {
			if link, err := os.Readlink("/proc/" + e.Name() + "/fd/" + f.Name()); err == nil && want[link] {
				s, _ := ReadStat(pid)
				out = append(out, s.Comm+" (pid "+e.Name()+")")
				break
			}
		}
	}
	return out
}
