// Package procfs reads information about processes and their descendants from /proc
// on Linux. On other systems its functions find nothing. They may be called
// concurrently.
package procfs

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Stat is a part of /proc/PID/stat.
type Stat struct {
	Comm       string        // the name of the program, at most 15 bytes
	State      byte          // R, S, D, T, Z, …; see proc(5)
	Ppid, Pgrp int           // the pid of the parent, the id of the process group
	Session    int           // the id of the session
	Start      string        // start time, in clock ticks since boot; differs if a pid is reused
	CPU        time.Duration // user and system time
	RSS        int64         // resident memory, in bytes
}

// Gone reports whether the process has ended and only has to be reaped.
func (s Stat) Gone() bool { return s.State == 'Z' || s.State == 'X' }

// ReadStat returns the Stat of a process. ok is false if the process does not exist.
func ReadStat(pid int) (s Stat, ok bool) {
	b := read("/proc/" + strconv.Itoa(pid) + "/stat")
	// The name may itself contain spaces and parentheses.
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

// BootID returns an id that is different after each boot of the machine, or "" if it
// is unknown.
func BootID() string {
	return strings.TrimSpace(string(read("/proc/sys/kernel/random/boot_id")))
}

// Children returns the pids of the children of a process, of all its threads.
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

// KeeperArg is the first argument of the keeper of a job.
const KeeperArg = "__keeper"

// IsKeeper reports whether a process is the keeper of a job, run by the executable of
// this program. A keeper must outlive its ancestors.
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

// Descendants returns the pids of all descendants of a process, except keepers of
// jobs and their descendants.
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

// All returns the pids of all processes.
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

// InSession returns the pids of the processes of a session that have not ended.
func InSession(sid int) []int {
	var out []int
	for _, pid := range All() {
		if s, ok := ReadStat(pid); ok && s.Session == sid && !s.Gone() {
			out = append(out, pid)
		}
	}
	return out
}

// read returns the content of a file of /proc, or nil if it cannot be opened. It does
// not use os.ReadFile, which registers the file with the poller and needs six more
// system calls.
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

// Holders returns the names of the processes that have one of the pipes open, such as
// "sleep (pid 12)". It leaves out this program.
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
	own, _ := os.ReadFile("/proc/self/cmdline")
	procs, _ := os.ReadDir("/proc")
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || forking(pid, own) {
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

// forking reports whether a process is a child of this program between its fork and
// its exec, when it still has all descriptors. own is the program's command line.
func forking(pid int, own []byte) bool {
	s, ok := ReadStat(pid)
	if !ok || s.Ppid != os.Getpid() {
		return false
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.Equal(line, own)
}

// Reads returns how many bytes a process has read since it started, from files,
// pipes and terminals alike. It returns 0 if that is not known.
func Reads(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/io")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	n, _ := strconv.ParseInt(strings.TrimPrefix(line, "rchar: "), 10, 64)
	return n
}
