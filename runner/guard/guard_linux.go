package guard

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/tty"
)

// env tells the second process the number of its end of the pipe and the pid of
// the first one. It is removed from the environment at once.
const env = "PIPE_GUARD"

// Guard follows the processes of this program. Its methods may be called by
// several goroutines at once.
type Guard struct {
	mu        sync.Mutex
	pids      map[int]bool // children that were started here and not yet waited for
	starts    chan func()
	inherited []int // descriptors past 2 that the caller of the program gave it
	kept      map[int]string
	tell      *os.File // the first process learns here of what it is to keep
	job       int      // the process group of the first process; 0: there is none
}

// Enter makes the program two processes, as the package says, and returns in
// the second one; the first one never returns from it. The second one leads a
// process group of its own; it gets the signals that the first one is sent. It
// is the program executed anew, so what main does before Enter is done twice.
// An error means that the guard is not there; the program can go on without.
func Enter() (*Guard, error) {
	if v, ok := os.LookupEnv(env); ok {
		_ = os.Unsetenv(env)
		var fd, tell, ppid int
		if n, _ := fmt.Sscanf(v, "%d:%d:%d", &fd, &tell, &ppid); n == 3 && ppid == os.Getppid() {
			return second(fd, tell)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	var p, told [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("guard: no pipe: %w", err)
	}
	if err := unix.Pipe2(told[:], unix.O_CLOEXEC); err != nil {
		_ = unix.Close(p[0])
		_ = unix.Close(p[1])
		return nil, fmt.Errorf("guard: no pipe: %w", err)
	}
	// From here on a signal must reach the second process, which is not there
	// yet: they are kept until it is.
	// One that the caller ignores (nohup) is left ignored, here and there.
	signals := make(chan os.Signal, 64)
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	before := children() // of who was this process before it became this program
	subreaper()
	_, _ = unix.FcntlInt(uintptr(p[0]), unix.F_SETFD, 0)
	_, _ = unix.FcntlInt(uintptr(told[1]), unix.F_SETFD, 0)
	attr := &syscall.ProcAttr{
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d:%d:%d", env, p[0], told[1], os.Getpid())),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	var pid int
	tty.Unstoppable(func() { // nor is the second process, which inherits that
		pid, err = syscall.ForkExec("/proc/self/exe", os.Args, attr)
		if err != nil { // no /proc
			pid, err = syscall.ForkExec(exe, os.Args, attr)
		}
	})
	if err != nil {
		signal.Stop(signals)
		for _, fd := range []int{p[0], p[1], told[0], told[1]} {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("guard: cannot start %s again: %w", exe, err)
	}
	// The descriptors that the caller handed over are the second one's now; a
	// copy here would keep pipes from ending. The runtime's own are beyond
	// what is closed: they close on exec.
	_ = unix.Close(p[0])
	_ = unix.Close(told[1])
	for _, fd := range openOnExec() {
		_ = unix.Close(fd)
	}
	first(pid, signals, before, told[0])
	return nil, nil // not reached
}

var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGWINCH, syscall.SIGALRM,
}

func subreaper() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// openOnExec returns the descriptors past 2 that do not close on exec: nothing
// of this program is like that, so they came from the caller.
func openOnExec() []int {
	var out []int
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			out = append(out, fd)
		}
	}
	return out
}

// first is the rest of the first process: it waits for the second one, reaps
// what comes to it, and ends what is left.
func first(pid int, signals <-chan os.Signal, before []int, told int) {
	var stopped atomic.Bool // the second one had the terminal, and was stopped from there
	stops := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGTSTP) {
		signal.Notify(stops, syscall.SIGTSTP)
	}
	go func() {
		for {
			select {
			case s := <-signals:
				sig, _ := s.(syscall.Signal)
				_ = syscall.Kill(pid, sig)
			case <-stops:
				// What is typed twice, or comes from the terminal and from the second
				// process, is one stop.
				signal.Ignore(syscall.SIGTSTP)
				for len(stops) > 0 {
					<-stops
				}
				_ = syscall.Kill(pid, syscall.SIGTSTP)
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
				signal.Notify(stops, syscall.SIGTSTP)
				if stopped.CompareAndSwap(true, false) {
					moveTerminal(syscall.Getpgrp(), pid)
				}
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}
	}()
	var ws syscall.WaitStatus
	for {
		got, err := syscall.Wait4(-1, &ws, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			os.Exit(70)
		}
		if got == pid && ws.Stopped() && moveTerminal(pid, syscall.Getpgrp()) {
			stopped.Store(true)
			_ = syscall.Kill(0, syscall.SIGTSTP) // the job, as the caller sees it
			continue
		}
		if got == pid && !ws.Stopped() {
			break
		}
	}
	status := ws.ExitStatus()
	if ws.Signaled() {
		status = signame.ExitCode(ws.Signal())
	}
	kept := map[int]string{}
	for _, b := range before {
		kept[b] = ""
	}
	keptBy(told, kept)
	killAll(kept)
	os.Exit(status)
}

// keptBy adds the processes that the second one, which has ended, said to keep.
func keptBy(told int, kept map[int]string) {
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(told, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		all = append(all, buf[:n]...)
	}
	for _, line := range strings.Split(string(all), "\n") {
		if pid, start, ok := strings.Cut(line, " "); ok {
			if n, err := strconv.Atoi(pid); err == nil {
				kept[n] = start
			}
		}
	}
}

// Keep makes a child of this program one that outlives it, with all that
// descends from it; the guard passes it over. The child keeps its own orphans.
func (g *Guard) Keep(pid int) error {
	s, ok := procfs.ReadStat(pid)
	if !ok {
		return fmt.Errorf("guard: process %d is gone", pid)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kept[pid] = s.Start
	if g.tell == nil {
		return nil
	}
	_, err := fmt.Fprintf(g.tell, "%d %s\n", pid, s.Start)
	return err
}

// Adopt makes this program the parent of what its descendants leave behind,
// without a second process: when it is killed, its children are, and theirs may
// live on.
func Adopt() *Guard {
	subreaper()
	g := &Guard{pids: map[int]bool{}, starts: make(chan func()), kept: map[int]string{}}
	g.starter()
	return g
}

// second is what Enter does in the second process.
func second(fd, tell int) (*Guard, error) {
	_ = unix.SetNonblock(fd, true) // so that waiting for its end takes no thread
	lifeline := os.NewFile(uintptr(fd), "lifeline")
	subreaper()
	job, _ := syscall.Getpgid(os.Getppid()) // 0 where the first process is gone
	g := &Guard{pids: map[int]bool{}, starts: make(chan func()), inherited: []int{}, kept: map[int]string{}, tell: os.NewFile(uintptr(tell), "kept"), job: job}
	for _, n := range openOnExec() {
		unix.CloseOnExec(n) // the children of this program are given what they are to have
		if n != fd && n != tell {
			g.inherited = append(g.inherited, n)
		}
	}
	g.starter()
	go func() {
		var b [1]byte
		for {
			_, err := lifeline.Read(b[:])
			if err != nil {
				break
			}
		}
		g.mu.Lock() // for good: nothing starts any more, and no end is told of
		killAll(g.kept)
		os.Exit(signame.ExitCode(syscall.SIGKILL))
	}()
	return g, nil
}

// starter starts the thread that starts processes: the death signal is tied to
// it, so it must not end.
func (g *Guard) starter() {
	go func() {
		runtime.LockOSThread()
		tty.Stoppable() // as children expect it
		for start := range g.starts {
			start()
		}
	}()
	// What ends while a process here goes on for long is reaped meanwhile, at most
	// once a second.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			time.Sleep(time.Second)
			g.mu.Lock()
			g.reapOrphans()
			g.mu.Unlock()
		}
	}()
}

// Fork starts a process by start, and notes its pid.
func (g *Guard) Fork(start func(syscall.Signal) (int, error)) (pid int, err error) {
	done := make(chan struct{})
	g.starts <- func() {
		g.mu.Lock() // or an end of it could be taken for an orphan's
		defer g.mu.Unlock()
		if pid, err = start(syscall.SIGKILL); err == nil {
			g.pids[pid] = true
		}
		close(done)
	}
	<-done
	return pid, err
}

// Inherited returns the descriptors past 2 that the caller of the program gave
// it. They are open, and close on exec.
func (g *Guard) Inherited() []int { return g.inherited }

// Job returns the process group of the first process, which is the one that a
// shell stops and continues; 0: there is no first process.
func (g *Guard) Job() int { return g.job }

// moveTerminal gives the terminal from one process group to another. It reports
// whether the first one had it.
func moveTerminal(from, to int) bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	owner, err := tty.Owner(f)
	if err != nil || owner != from {
		return false
	}
	tty.Give(f, to, nil)
	return true
}

// Suspend hands on that the program is to stop (SIGTSTP) or has been continued
// (SIGCONT) to the group of every process that runs. They are stopped by SIGSTOP:
// in a session of its own a process ignores SIGTSTP. A program that reads the
// terminal itself stops, so that the first process can give the terminal back and
// stop the job as the caller sees it; it goes on with the job.
func (g *Guard) Suspend(sig syscall.Signal) {
	if sig == syscall.SIGTSTP {
		sig = syscall.SIGSTOP
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for pid := range g.pids {
		if pgid, err := syscall.Getpgid(pid); err == nil && pgid != syscall.Getpgrp() {
			_ = syscall.Kill(-pgid, sig)
		}
	}
	if sig == syscall.SIGSTOP && g.job != 0 && hasTerminal() {
		_ = syscall.Kill(os.Getpid(), sig) // the first process learns of it
	}
}

// hasTerminal reports whether this program's own group is in the foreground.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	owner, err := tty.Owner(f)
	return err == nil && owner == syscall.Getpgrp()
}

// Reaped tells that a process has been waited for, and reaps orphans that have
// ended meanwhile.
func (g *Guard) Reaped(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pids, pid)
	g.reapOrphans()
}

// reapOrphans reaps ended children that this program did not start. A peek at
// any ended child costs one call where there is none.
func (g *Guard) reapOrphans() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil || info.Signo == 0 {
			return
		}
		// The pid stands behind signo, errno, code and padding.
		pid := int(siginfoPid(&info))
		if g.own(pid) {
			return // somebody waits for it
		}
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// own reports whether a child is none of the guard's: started by the runner,
// or in this program's own group, as what a host starts is.
func (g *Guard) own(pid int) bool {
	if g.pids[pid] {
		return true
	}
	pgid, err := syscall.Getpgid(pid)
	return err == nil && pgid == syscall.Getpgrp()
}

// EndOrphans ends the processes that left the group they were started in and
// lost their parent: SIGTERM, after grace SIGKILL. It returns their names. It
// is called when the last run of the program is over.
func (g *Guard) EndOrphans(grace time.Duration) []string { return g.EndOrphansUntil(grace, nil) }

// EndOrphansUntil is EndOrphans whose grace is over once hurry is closed.
func (g *Guard) EndOrphansUntil(grace time.Duration, hurry <-chan struct{}) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := map[string]bool{}
	deadline := time.Now().Add(grace)
	sig := syscall.SIGTERM
	for {
		select {
		case <-hurry:
			hurry, deadline = nil, time.Now()
			sig = syscall.SIGKILL
		default:
		}
		var fds []unix.PollFd
		for _, pid := range children() {
			if g.own(pid) || keeps(g.kept, pid) {
				continue
			}
			if got, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got == pid {
				continue
			}
			if s, ok := procfs.ReadStat(pid); ok {
				names[s.Comm+" (pid "+strconv.Itoa(pid)+")"] = true
			}
			for _, d := range append(procfs.Descendants(pid), pid) {
				_ = syscall.Kill(d, sig)
			}
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			} else { // poll passes it over
				fds = append(fds, unix.PollFd{Fd: -1})
			}
		}
		if len(fds) == 0 {
			break
		}
		timeout := max(1, int(time.Until(deadline).Milliseconds()))
		if hurry != nil {
			timeout = min(timeout, 50)
		}
		if slices.ContainsFunc(fds, func(f unix.PollFd) bool { return f.Fd < 0 }) {
			timeout = 1 // a kernel without pidfd_open has no event for the end
		}
		_, _ = unix.Poll(fds, timeout)
		for _, f := range fds {
			if f.Fd >= 0 {
				_ = unix.Close(int(f.Fd))
			}
		}
		if time.Now().After(deadline) {
			sig = syscall.SIGKILL
			deadline = time.Now().Add(100 * time.Millisecond)
		}
	}
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// children returns the children of this program, of all its threads. That
// there is none is learned by one call, without reading /proc.
func children() []int {
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == unix.ECHILD {
		return nil
	}
	return procfs.Children(os.Getpid())
}

// keeps reports whether a process is one of those to pass over: by its pid and
// when it was started, if that is known.
func keeps(kept map[int]string, pid int) bool {
	start, ok := kept[pid]
	if !ok && procfs.IsKeeper(pid) { // one that a descendant started, as a pipe run in a step does
		return true
	}
	if !ok || start == "" {
		return ok
	}
	s, ok := procfs.ReadStat(pid)
	return ok && s.Start == start
}

// killAll kills all descendants but some, in passes: what is killed may have
// started something before, which comes here then. It gives up after five
// seconds.
func killAll(but map[int]string) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		found := false
		for _, pid := range children() {
			if keeps(but, pid) {
				continue
			}
			found = true
			for _, d := range procfs.Descendants(pid) {
				_ = syscall.Kill(d, syscall.SIGKILL)
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for {
			got, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err == syscall.ECHILD {
				return
			}
			if err != nil || got == 0 {
				break
			}
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond) // the kernel is tearing them down
	}
}
