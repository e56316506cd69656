//go:build linux

package procfs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleVar names what the test program is to do in place of its tests.
const roleVar = "PROCFS_TEST_ROLE"

// A role says its line when it is what the test wants, and ends with its stdin.
var roles = map[string]func(){
	"stay": func() { fmt.Println("ready") },
	"burn": func() { // uses the processor for as long as two ticks take, and memory
		b := make([]byte, 64<<20)
		for i := range b {
			b[i] = byte(i)
		}
		for {
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				panic(err)
			}
			if used := time.Duration(u.Utime.Nano() + u.Stime.Nano()); used > 200*time.Millisecond {
				fmt.Println(int64(used))
				break
			}
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		runtime.KeepAlive(b)
	},
	"family": func() { // starts a child from each of three threads
		words := []string{}
		for range 3 {
			pid := make(chan int)
			go func() {
				runtime.LockOSThread()
				c := start("stay")
				pid <- c.Process.Pid
				select {}
			}()
			words = append(words, strconv.Itoa(<-pid))
		}
		fmt.Println(strings.Join(words, " "))
	},
	"tree": func() { // has a child that has one, and a keeper that has one
		child, keeper := start("parent"), start("parent", KeeperArg, "a job")
		fmt.Println(child.Process.Pid, child.line(), keeper.Process.Pid, keeper.line())
	},
	"parent": func() { fmt.Println(start("stay").Process.Pid) },
}

// TestMain makes the test program a process that a test starts, if it has a role.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	if role == "" {
		os.Exit(m.Run())
	}
	roles[role]()
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// actor is the test program in a role.
type actor struct {
	*exec.Cmd
	out *bufio.Reader
}

// start starts the test program in a role. It ends when the program that
// started it does: then nobody writes to its stdin any more.
func start(role string, args ...string) *actor {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return run(exe, role, args...)
}

func run(path, role string, args ...string) *actor {
	c := exec.Command(path, args...)
	c.Env = append(os.Environ(), roleVar+"="+role, "GORACE=atexit_sleep_ms=0")
	_, err := c.StdinPipe()
	if err != nil {
		panic(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := c.Start(); err != nil {
		panic(err)
	}
	a := &actor{c, bufio.NewReader(out)}
	started.Lock()
	defer started.Unlock()
	started.all = append(started.all, a)
	return a
}

// started keeps what was started: were it garbage, its stdin would be closed.
var started struct {
	sync.Mutex
	all []*actor
}

func (a *actor) line() string {
	l, _ := a.out.ReadString('\n')
	return strings.TrimSuffix(l, "\n")
}

// act is start for a test: it waits for the line that the role says, for no
// longer than half a minute, and kills the process at the end.
func act(t *testing.T, role string, args ...string) (*actor, string) {
	t.Helper()
	a := start(role, args...)
	return a, said(t, a, role)
}

func said(t *testing.T, a *actor, role string) string {
	t.Helper()
	t.Cleanup(func() { _ = a.Process.Kill(); _ = a.Wait() })
	limit := time.AfterFunc(30*time.Second, func() { _ = a.Process.Kill() })
	defer limit.Stop()
	l := a.line()
	if l == "" {
		t.Fatalf("the %s process said nothing within 30 s, or ended", role)
	}
	return l
}

// stat is ReadStat of a process that there is.
func stat(t *testing.T, pid int) Stat {
	t.Helper()
	s, ok := ReadStat(pid)
	if !ok {
		t.Fatalf("process %d is not found", pid)
	}
	return s
}

// numbers are the numbers of a line.
func numbers(t *testing.T, line string) (out []int) {
	t.Helper()
	for _, w := range strings.Fields(line) {
		n, err := strconv.Atoi(w)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// uptime returns the time since boot in ticks.
func uptime(t *testing.T) float64 {
	t.Helper()
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return seconds * 100
}

func TestReadStat(t *testing.T) {
	before := uptime(t)
	a, _ := act(t, "stay")
	after := uptime(t)
	s := stat(t, a.Process.Pid)
	if s.Ppid != os.Getpid() || s.Pgrp != syscall.Getpgrp() || s.Gone() {
		t.Errorf("%+v; this is process %d of group %d", s, os.Getpid(), syscall.Getpgrp())
	}
	if sid, err := unix.Getsid(a.Process.Pid); err != nil || s.Session != sid {
		t.Errorf("its session is %d, and not %d (%v)", sid, s.Session, err)
	}
	if exe := filepath.Base(os.Args[0]); s.Comm != exe[:min(15, len(exe))] {
		t.Errorf("its name is %q", s.Comm)
	}
	// uptime is cut to hundredths, and so is a start.
	if start, err := strconv.ParseFloat(s.Start, 64); err != nil || start < before-2 || start > after+2 {
		t.Errorf("it was started at %s, which is not between %.0f and %.0f", s.Start, before, after)
	}
	if again := stat(t, a.Process.Pid); again.Start != s.Start {
		t.Errorf("it was started at %s, and then at %s", s.Start, again.Start)
	}
	c := exec.Command("true")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := waitid(c.Process.Pid, unix.WEXITED); err != nil {
		t.Fatal(err)
	}
	if s := stat(t, c.Process.Pid); !s.Gone() || s.State != 'Z' || s.Session != c.Process.Pid || s.Pgrp != c.Process.Pid {
		t.Errorf("ended, leader of a session, and not yet waited for: %+v", s)
	}
	_ = c.Wait()
	if s, ok := ReadStat(c.Process.Pid); ok {
		t.Errorf("waited for, and still %+v", s)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if s, ok := ReadStat(pid); ok {
			t.Errorf("process %d: %+v", pid, s)
		}
	}
}

// waitid waits for a child to end, or to be stopped, and leaves it waitable.
func waitid(pid, what int) error {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, what|unix.WNOWAIT, nil); err != unix.EINTR {
			return err
		}
	}
}

// TestNames: whatever the name of a program is, it shifts no field.
func TestNames(t *testing.T) {
	for _, name := range []string{"a b", ") Z 1 1 1 (", "((", "))", ") R 0", "new\nline", "fifteen-bytes-and-more"} {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.Symlink(exe, path); err != nil {
			t.Fatal(err)
		}
		a := run(path, "stay")
		said(t, a, "stay")
		s := stat(t, a.Process.Pid)
		if s.Comm != name[:min(15, len(name))] || s.Ppid != os.Getpid() || s.Pgrp != syscall.Getpgrp() || s.Gone() || s.Start == "" {
			t.Errorf("%q: %+v", name, s)
		}
	}
}

// TestStopped: the state of a process that is stopped, and of one that goes on.
func TestStopped(t *testing.T) {
	a, _ := act(t, "stay")
	if err := a.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := waitid(a.Process.Pid, unix.WSTOPPED); err != nil {
		t.Fatal(err)
	}
	if s := stat(t, a.Process.Pid); s.State != 'T' || s.Gone() {
		t.Errorf("%+v", s)
	}
}

func TestUsage(t *testing.T) {
	a, line := act(t, "burn")
	used := time.Duration(numbers(t, line)[0])
	s := stat(t, a.Process.Pid)
	if s.CPU < used-30*time.Millisecond || s.CPU > used+5*time.Second {
		t.Errorf("it has used %s, and not %s", used, s.CPU)
	}
	if s.RSS < 64<<20 || s.RSS > 4<<30 {
		t.Errorf("it has %d bytes", s.RSS)
	}
}

func TestBootID(t *testing.T) {
	out, err := exec.Command("cat", "/proc/sys/kernel/random/boot_id").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := BootID(); len(got) != 36 || got+"\n" != string(out) {
		t.Errorf("%q, and the kernel says %q", got, out)
	}
}

// TestChildren: those of all threads are found, also when they have ended.
func TestChildren(t *testing.T) {
	a, line := act(t, "family")
	want := numbers(t, line)
	slices.Sort(want)
	got := Children(a.Process.Pid)
	slices.Sort(got)
	if len(want) != 3 || !slices.Equal(got, want) {
		t.Errorf("%d, expected %d", got, want)
	}
	if !slices.Contains(Children(os.Getpid()), a.Process.Pid) {
		t.Error("the child of this program is not found")
	}
	if got := Children(want[0]); len(got) != 0 {
		t.Errorf("a process without children has %d", got)
	}
	if got := Children(1 << 30); got != nil {
		t.Errorf("no process has the children %d", got)
	}
}

// TestDescendants: children and theirs, but no keeper of a job, nor what it
// keeps.
func TestDescendants(t *testing.T) {
	a, line := act(t, "tree")
	n := numbers(t, line)
	child, grandchild, keeper, kept := n[0], n[1], n[2], n[3]
	got := Descendants(a.Process.Pid)
	slices.Sort(got)
	want := []int{child, grandchild}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d, expected %d without %d and %d", got, want, keeper, kept)
	}
	if got := Descendants(keeper); !slices.Equal(got, []int{kept}) {
		t.Errorf("the keeper has %d, expected %d", got, kept)
	}
}

// TestIsKeeper: a keeper is this very program with the argument in the first
// place, whatever it is called, and no program else.
func TestIsKeeper(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{KeeperArg, "name"}, true},
		{[]string{KeeperArg}, true},
		{[]string{KeeperArg, strings.Repeat("long ", 5000)}, true},
		{[]string{KeeperArg, ""}, true},
		{[]string{"run", KeeperArg}, false},
		{[]string{KeeperArg + "s", "name"}, false},
		{[]string{""}, false},
		{nil, false},
	} {
		a, _ := act(t, "stay", c.args...)
		if got := IsKeeper(a.Process.Pid); got != c.want {
			t.Errorf("%.60q: %v, expected %v", c.args, got, c.want)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]bool{"linked": true, "copied": false} {
		path := filepath.Join(t.TempDir(), link)
		if link == "linked" {
			err = os.Symlink(exe, path)
		} else {
			err = clone(exe, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		a := run(path, "stay", KeeperArg, "name")
		said(t, a, "stay")
		if got := IsKeeper(a.Process.Pid); got != want {
			t.Errorf("the program %s: %v, expected %v", link, got, want)
		}
	}
	if IsKeeper(1<<30) || IsKeeper(os.Getpid()) {
		t.Error("no process, or this one, keeps a job")
	}
}

func clone(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o700)
}

func TestAll(t *testing.T) {
	c := exec.Command("sleep", "100")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	all := All()
	for _, want := range []int{pid, os.Getpid(), os.Getppid()} {
		if want != 0 && !slices.Contains(all, want) {
			t.Errorf("%d is not among all processes", want)
		}
	}
	if slices.Contains(all, 0) {
		t.Error("0 is no process")
	}
	if got := InSession(pid); !slices.Equal(got, []int{pid}) {
		t.Errorf("in the session of %d there are %d", pid, got)
	}
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	if mine := InSession(sid); !slices.Contains(mine, os.Getpid()) || slices.Contains(mine, pid) {
		t.Errorf("in the session of this program, %d, there are %d", os.Getpid(), mine)
	}
	_ = c.Process.Kill()
	if err := waitid(pid, unix.WEXITED); err != nil {
		t.Fatal(err)
	}
	if got := InSession(pid); len(got) != 0 {
		t.Errorf("in the session of one that has ended there are %d", got)
	}
	_ = c.Wait()
}

// TestRead: files of any length are read whole, and one that is missing is nil.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, n := range []int{0, 1, 511, 512, 513, 4096, 100_000} {
		want := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(path); !bytes.Equal(got, want) {
			t.Errorf("of %d bytes %d were read", n, len(got))
		}
	}
	if got := read(path + ".missing"); got != nil {
		t.Errorf("%q", got)
	}
	if got := read(filepath.Dir(path)); len(got) != 0 {
		t.Errorf("of a folder: %q", got)
	}
}
