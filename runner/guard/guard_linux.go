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

// env is the environment variable that tells the second process the numbers of its
// two pipe descriptors and the pid of the first process. The second process unsets
// it at once.
const env = "PIPE_GUARD"

// Guard tracks the processes of this program. [Enter] and [Adopt] return one; the
// zero value is not usable. Its methods may be called concurrently.
type Guard struct {
	mu        sync.Mutex
	pids      map[int]bool   // children that Fork started and that have not been waited for
	starts    chan func()    // run on the thread that starts processes
	inherited []int          // descriptors above 2 that the program inherited
	kept      map[int]string // start times of the processes passed to Keep, by pid
	tell      *os.File       // tells the first process which ones to keep; nil after Adopt
	job       int            // the process group of the first process; 0: there is none
}

// hungUp reports whether a descriptor is a pipe that nobody writes to any more.
func hungUp(fd int) bool {
	var st unix.Stat_t
	if fd <= 2 || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

// Enter splits the program into two processes, as the package comment describes,
// and returns in the second one. In the first process it never returns.
//
// The second process executes the program again, so main runs twice up to Enter.
// It leads a process group of its own, and receives the signals that the first
// process is sent. If Enter returns an error there is no guard; the program can go
// on without one. Enter must be called once, before other goroutines start
// processes.
func Enter() (*Guard, error) {
	if v, ok := os.LookupEnv(env); ok {
		_ = os.Unsetenv(env)
		var fd, tell, ppid int
		if n, _ := fmt.Sscanf(v, "%d:%d:%d", &fd, &tell, &ppid); n == 3 {
			if ppid == os.Getppid() {
				return second(fd, tell)
			}
			if hungUp(fd) { // the first process was killed before this one came here
				os.Exit(signame.ExitCode(unix.SIGKILL))
			}
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
	// From here on signals must reach the second process. The channel holds them
	// until it exists. A signal that the caller ignores (nohup) stays ignored in
	// both processes.
	signals := make(chan os.Signal, 64)
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	before := children() // of this process before it executed this program
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
	// The second process has inherited the caller's descriptors. Close them here, or
	// their readers would never see the end of a pipe. The Go runtime's own
	// descriptors are close-on-exec, so openOnExec does not return them.
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

// openOnExec returns the descriptors above 2 that are not close-on-exec. This
// program opens none such, so the caller passed them in.
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

// first is the rest of the first process. It forwards signals to the second process
// (pid), reaps orphans until the second process ends, kills the remaining
// descendants except before and those that told names, and exits with the status
// of the second process.
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
				tty.Stop(syscall.SIGSTOP)
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

// keptBy adds to kept the processes that the second process wrote to the pipe told.
// It reads to the end of the pipe, so the second process must have ended.
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

// Keep exempts a child of this program, and the descendants of that child, from the
// guard: they outlive the program. The child must take care of its own orphans. Keep
// returns an error if the process is gone, or if the first process cannot be told.
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

// Adopt returns a guard without a second process. The program becomes the parent of
// its orphans, so that EndOrphans can end them. If the program is killed, its direct
// children are killed too, but their descendants may live on.
func Adopt() *Guard {
	subreaper()
	g := &Guard{pids: map[int]bool{}, starts: make(chan func()), kept: map[int]string{}}
	g.starter()
	return g
}

// second is the part of Enter that runs in the second process. fd is the pipe that
// ends with the first process; tell is the pipe for Keep.
func second(fd, tell int) (*Guard, error) {
	_ = unix.SetNonblock(fd, true) // for the poller: a blocking read would occupy a thread
	lifeline := os.NewFile(uintptr(fd), "lifeline")
	subreaper()
	job, _ := syscall.Getpgid(os.Getppid()) // 0 where the first process is gone
	g := &Guard{pids: map[int]bool{}, starts: make(chan func()), inherited: []int{}, kept: map[int]string{}, tell: os.NewFile(uintptr(tell), "kept"), job: job}
	for _, n := range openOnExec() {
		unix.CloseOnExec(n) // children get only the descriptors they are given explicitly
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
		g.mu.Lock() // never unlocked: from here on Fork and Reaped block
		killAll(g.kept)
		os.Exit(signame.ExitCode(syscall.SIGKILL))
	}()
	return g, nil
}

// starter starts the thread that starts all processes. The kernel sends the
// parent-death signal when the thread that forked ends, so this thread never ends.
// starter also starts the goroutine that reaps orphans.
func (g *Guard) starter() {
	go func() {
		runtime.LockOSThread()
		tty.Stoppable() // as children expect it
		for start := range g.starts {
			start()
		}
	}()
	// Reaped reaps orphans only when a child of the program ends, which may take
	// long. In between, SIGCHLD makes this goroutine reap them, once a second at most.
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

// Fork calls start, which starts one process and returns its pid, on the guard's
// own thread. start is given the parent-death signal that the process must have.
// Fork returns the results of start. The caller must wait for the process and then
// call Reaped.
func (g *Guard) Fork(start func(syscall.Signal) (int, error)) (pid int, err error) {
	done := make(chan struct{})
	g.starts <- func() {
		g.mu.Lock() // until the pid is in pids, reapOrphans would take it for an orphan
		defer g.mu.Unlock()
		if pid, err = start(syscall.SIGKILL); err == nil {
			g.pids[pid] = true
		}
		close(done)
	}
	<-done
	return pid, err
}

// Inherited returns the descriptors above 2 that the program inherited from its
// caller. They are open and close-on-exec. After Adopt it returns nil.
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

// HandOnStops passes on to the process group of every process that Fork started
// that the program is to stop (SIGTSTP) or has been continued (SIGCONT), until the
// function that it returns is called. The processes are stopped by SIGSTOP: in a
// session of its own a process ignores SIGTSTP. A program that reads the terminal
// itself stops too, so that the first process can give the terminal back and stop
// the job as the caller sees it.
func (g *Guard) HandOnStops() (undo func()) {
	stops, conts, over := make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(stops, syscall.SIGTSTP)
	signal.Notify(conts, syscall.SIGCONT)
	go func() {
		for {
			select {
			case <-stops:
				g.stop(stops)
			case <-conts:
				g.signalAll(syscall.SIGCONT)
			case <-over:
				return
			}
		}
	}()
	return func() { signal.Stop(stops); signal.Stop(conts); close(over) }
}

// stop stops the processes, and the program if it has the terminal. The signals
// that come meanwhile ask for the same stop.
func (g *Guard) stop(stops chan os.Signal) {
	switch {
	case g.job == 0:
		g.signalAll(syscall.SIGSTOP)
	case hasTerminal():
		signal.Ignore(syscall.SIGTSTP)
		for len(stops) > 0 {
			<-stops
		}
		g.signalAll(syscall.SIGSTOP)
		tty.Stop(syscall.SIGSTOP)
		signal.Notify(stops, syscall.SIGTSTP)
		g.signalAll(syscall.SIGCONT)
	case firstStopped(200 * time.Millisecond): // else it has been continued: the signals may come in any order
		g.signalAll(syscall.SIGSTOP)
		if !firstStopped(0) {
			g.signalAll(syscall.SIGCONT)
		}
	}
}

// firstStopped reports whether the first process is stopped, or is within a time.
func firstStopped(within time.Duration) bool {
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if s, ok := procfs.ReadStat(os.Getppid()); ok && s.State == 'T' {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
	}
}

// signalAll sends a signal to the group of every process that Fork started.
func (g *Guard) signalAll(sig syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for pid := range g.pids {
		if pgid, err := syscall.Getpgid(pid); err == nil && pgid != syscall.Getpgrp() {
			_ = syscall.Kill(-pgid, sig)
		}
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

// Reaped tells the guard that the caller has waited for a process that Fork started.
// It also reaps orphans that have ended meanwhile.
func (g *Guard) Reaped(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pids, pid)
	g.reapOrphans()
}

// reapOrphans reaps ended children that this program did not start. It peeks with
// WNOWAIT first, because the caller of Fork must wait for the other children itself.
// The caller of reapOrphans holds g.mu.
func (g *Guard) reapOrphans() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil || info.Signo == 0 {
			return
		}
		pid := int(siginfoPid(&info))
		if g.own(pid) {
			return // its starter waits for it
		}
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// own reports whether the program started a child itself, so that the child is no
// orphan: with Fork, or in the program's own process group, as os/exec does.
func (g *Guard) own(pid int) bool {
	if g.pids[pid] {
		return true
	}
	pgid, err := syscall.Getpgid(pid)
	return err == nil && pgid == syscall.Getpgrp()
}

// EndOrphans ends the processes that have left the group they were started in and
// lost their parent, with all their descendants. It sends SIGTERM and, after grace,
// SIGKILL, and returns when they are gone. It returns their names, such as "sleep
// (pid 12)", sorted. Because it ends the orphans of all runs, call it when the last
// run of the program has ended.
func (g *Guard) EndOrphans(grace time.Duration) []string { return g.EndOrphansUntil(grace, nil) }

// EndOrphansUntil is like EndOrphans, but sends SIGKILL as soon as hurry is closed.
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
			} else { // poll ignores a negative descriptor
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
			timeout = 1 // without pidfd_open, poll cannot report the end of the process
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

// children returns the pids of the children of this program. If there are none, it
// finds out with one system call and does not read /proc.
func children() []int {
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == unix.ECHILD {
		return nil
	}
	return procfs.Children(os.Getpid())
}

// keeps reports whether a process must not be killed: because it is in kept, with
// the same start time if kept has one, or because it is the keeper of a job.
func keeps(kept map[int]string, pid int) bool {
	start, ok := kept[pid]
	if !ok && procfs.IsKeeper(pid) { // a descendant started it, as "pipe run" in a step does
		return true
	}
	if !ok || start == "" {
		return ok
	}
	s, ok := procfs.ReadStat(pid)
	return ok && s.Start == start
}

// killAll kills all descendants except those to keep. It repeats until none is
// left, because a process may fork before it is killed; the child then becomes a
// child of this program. It gives up after five seconds.
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
		time.Sleep(time.Millisecond) // give the kernel time to end the processes
	}
}
