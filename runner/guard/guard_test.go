//go:build linux

package guard

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

// roleVar names what the test program is in place of its tests, and fifoVar
// where it says so.
const (
	roleVar = "GUARD_TEST_ROLE"
	fifoVar = "GUARD_TEST_FIFO"
)

// limit is how long a test waits for anything.
const limit = 30 * time.Second

// TestMain makes the test program the processes of a family: one that enters the
// guard, and those that it starts, which leave their session, ignore signals and
// have daemons.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	if role == "" {
		os.Exit(m.Run())
	}
	name, arg, _ := strings.Cut(role, ":")
	roles[name](arg)
	os.Exit(0)
}

// roles are filled in init: some of them start others.
var roles map[string]func(arg string)

func init() {
	roles = map[string]func(string){
		"hold": func(name string) { say(name); forever() },
		"deaf": func(name string) {
			signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			say(name)
			forever()
		},
		"daemon": daemon, // starts a role in a session of its own, and is gone once that is there
		"ends":   func(code string) { n, _ := strconv.Atoi(code); os.Exit(n) },
		"hears": func(name string) { // says the signals that it gets
			in := make(chan os.Signal, 10)
			signal.Notify(in, syscall.SIGUSR1)
			say(name)
			for s := range in {
				say(name + "-" + unix.SignalName(s.(syscall.Signal)))
			}
		},
		"flees": func(name string) { // is another process every moment, in another session
			say(name)
			c := command("flees:" + name)
			c.ExtraFiles = []*os.File{fifo} // so that the FIFO has not ended meanwhile
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			must(c.Start())
		},
		"terms": func(name string) { // says that it was told to end
			in := make(chan os.Signal, 1)
			signal.Notify(in, syscall.SIGTERM)
			say(name)
			<-in
			say(name + "-told")
		},
		"deafparent": func(name string) {
			signal.Ignore(syscall.SIGTERM)
			start("terms:"+name+"-child", &syscall.SysProcAttr{Setsid: true})
			say(name)
			forever()
		},
		"keeps": func(name string) { // has a daemon that comes to it, and not to the guard
			subreaper()
			c := start("daemon:hold "+name+"-daemon", nil)
			_ = c.Wait()
			say(name)
			forever()
		},
		"guarded": guarded,
		"adopts":  func(do string) { perform(Adopt(), do) },
	}
}

// say writes a line with the own pid into the FIFO, which stays open.
func say(what string) {
	if fifo == nil {
		f, err := os.OpenFile(os.Getenv(fifoVar), os.O_WRONLY, 0)
		must(err)
		fifo = f
	}
	_, err := fmt.Fprintf(fifo, "%s %d\n", what, os.Getpid()) // in one piece
	must(err)
}

// fifo is open in all processes of a family, which say there who they are. That is
// how a test knows that they are there; and as none closes it, its end is that of
// the last one.
var fifo *os.File

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(roleVar), err)
		os.Exit(99)
	}
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

// start starts the test program in a role.
func start(role string, attr *syscall.SysProcAttr, args ...string) *exec.Cmd {
	c := command(role, args...)
	c.SysProcAttr = attr
	must(c.Start())
	return c
}

func command(role string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	must(err)
	c := exec.Command(exe, args...)
	if name, ok := strings.CutPrefix(role, "daemon:"); ok {
		role = "daemon:" + strings.Replace(name, " ", ":", 1)
	}
	c.Env = append(os.Environ(), roleVar+"="+role)
	c.Stderr = os.Stderr
	return c
}

func daemon(role string) {
	var args []string
	if name, ok := strings.CutPrefix(role, "keeper:"); ok {
		role, args = "hold:"+name, []string{procfs.KeeperArg, name}
	}
	r, w, err := os.Pipe()
	must(err)
	c := command(role, args...)
	c.ExtraFiles = []*os.File{w} // closes as it ends, and is not what is waited for
	c.Env = append(c.Env, "GUARD_TEST_READY=3")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if args == nil { // named for what it does
		name := strings.Split(role, ":")[1]
		dir, err := os.MkdirTemp(filepath.Dir(os.Getenv(fifoVar)), "")
		must(err)
		link := filepath.Join(dir, name)
		must(os.Symlink(c.Path, link))
		c.Path = link
	}
	must(c.Start())
	_ = w.Close()
	_ = r.Close()
}

// guarded enters the guard, and does in the second process what it is told.
func guarded(do string) {
	g, err := Enter()
	must(err)
	if v, ok := os.LookupEnv(env); ok {
		must(fmt.Errorf("%s=%s is left in the environment", env, v))
	}
	perform(g, do)
}

// perform does what the words say, one after the other.
func perform(g *Guard, do string) {
	started := map[string]int{}
	for _, word := range strings.Split(do, " ") {
		verb, arg, _ := strings.Cut(word, "=")
		switch verb {
		case "start": // in a group of its own, as the runner does it
			pid, err := g.Fork(func(sig syscall.Signal) (int, error) {
				c := start(strings.Replace(arg, ",", ":", 1), &syscall.SysProcAttr{Setpgid: true, Pdeathsig: sig})
				return c.Process.Pid, nil
			})
			must(err)
			started[arg] = pid
		case "leaver": // starts what leaves it, and waits for its end
			pid, err := g.Fork(func(sig syscall.Signal) (int, error) {
				c := command("")
				c.Env = append(c.Env, roleVar+"=daemon:"+strings.Replace(arg, ",", ":", 1))
				c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: sig}
				must(c.Start())
				return c.Process.Pid, nil
			})
			must(err)
			_, err = syscall.Wait4(pid, nil, 0, nil)
			must(err)
			g.Reaped(pid)
		case "keep":
			c := start("keeps:"+arg, &syscall.SysProcAttr{Setsid: true})
			must(g.Keep(c.Process.Pid))
		case "say":
			say(arg)
		case "await": // the other end says go on
			if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
				forever() // the other end is gone, which is the guard's concern
			}
		case "end":
			grace, err := time.ParseDuration(arg)
			must(err)
			tell(g.EndOrphans(grace))
		case "hurry": // the grace is over when the other end says so
			hurry := make(chan struct{})
			go func() {
				_, _ = os.Stdin.Read(make([]byte, 1))
				close(hurry)
			}()
			tell(g.EndOrphansUntil(time.Hour, hurry))
		case "threads": // ends threads of this program, whichever the runtime takes
			for range 200 {
				done := make(chan struct{})
				go func() {
					runtime.LockOSThread()
					close(done)
				}()
				<-done
			}
		case "signal":
			g.signalAll(syscall.SIGUSR1)
		case "inherited":
			for _, fd := range g.Inherited() {
				flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
				must(err)
				if flags&unix.FD_CLOEXEC == 0 {
					must(fmt.Errorf("descriptor %d does not close on exec", fd))
				}
			}
			tell(g.Inherited())
		case "close":
			n, err := strconv.Atoi(arg)
			must(err)
			must(unix.Close(n))
		case "listen": // says every signal that is not ignored
			in := make(chan os.Signal, 100)
			for _, s := range append(forwarded, syscall.SIGTSTP, syscall.SIGCONT) {
				if !signal.Ignored(s) {
					signal.Notify(in, s)
				}
			}
			say("listens")
			for s := range in {
				say(unix.SignalName(s.(syscall.Signal)))
			}
		case "host": // a child that is none of the guard's, ended and not yet waited for
			c := start("ends:7", nil)
			var info unix.Siginfo
			must(unix.Waitid(unix.P_PID, c.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil))
			g.Reaped(0)
			if left := g.EndOrphans(0); len(left) > 0 {
				must(fmt.Errorf("the host's child was ended: %q", left))
			}
			if err := c.Wait(); err == nil || err.Error() != "exit status 7" {
				must(fmt.Errorf("the host's child: %v", err))
			}
		case "children":
			tell(procfs.Children(os.Getpid()))
		case "reaped": // no zombie is left; the kernel has no event for that
			for end := time.Now().Add(limit); len(procfs.Children(os.Getpid())) > len(started); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					must(fmt.Errorf("waited in vain for orphans to be reaped: %d", procfs.Children(os.Getpid())))
				}
			}
			say("reaped")
		case "forever":
			forever()
		case "exit":
			n, err := strconv.Atoi(arg)
			must(err)
			os.Exit(n)
		default:
			must(fmt.Errorf("what is %q?", word))
		}
	}
}

// tell writes a value to stdout.
func tell(v any) { must(json.NewEncoder(os.Stdout).Encode(v)) }

// family is a guarded program with all that it starts, as a test sees it.
type family struct {
	*exec.Cmd
	t     *testing.T
	in    io.WriteCloser
	out   *bufio.Reader
	fifo  *os.File
	lines *bufio.Reader
	pids  map[string]int // by what they said
}

// newFamily prepares the test program in a role, and the FIFO.
func newFamily(t *testing.T, role string) *family {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &family{Cmd: command(role), t: t, pids: map[string]int{}}
	f.Env = append(f.Env, fifoVar+"="+path, "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+flag.Lookup("test.gocoverdir").Value.String())
	var err error
	// Read and write, or to open it would wait for who writes.
	if f.fifo, err = os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	if f.in, err = f.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := f.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.out = bufio.NewReader(out)
	f.lines = bufio.NewReader(f.fifo)
	return f
}

// begin starts it; what is left of it at the end of the test is killed.
func (f *family) begin() *family {
	f.t.Helper()
	if err := f.Start(); err != nil {
		f.t.Fatal(err)
	}
	late := time.AfterFunc(2*limit, func() { _ = f.Process.Kill() })
	f.t.Cleanup(func() {
		late.Stop()
		_ = f.Process.Kill()
		for found, end := true, time.Now().Add(limit); found && time.Now().Before(end); { // also those that have not said anything
			found = false
			for _, pid := range procfs.All() {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && strings.Contains(string(b), fifoVar+"="+f.fifo.Name()+"\x00") {
					_ = syscall.Kill(pid, syscall.SIGKILL)
					found = true
				}
			}
		}
		_ = f.Cmd.Wait()
		_ = f.fifo.Close()
	})
	return f
}

// await waits until these have said that they are there, in whatever order.
func (f *family) await(names ...string) {
	f.t.Helper()
	_ = f.fifo.SetReadDeadline(time.Now().Add(limit))
	for {
		missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return f.pids[n] != 0 })
		if len(missing) == 0 {
			return
		}
		f.next("for " + strings.Join(missing, ", "))
	}
}

// next reads a line, and returns what it says.
func (f *family) next(what string) string {
	f.t.Helper()
	_ = f.fifo.SetReadDeadline(time.Now().Add(limit))
	line, err := f.lines.ReadString('\n')
	if err != nil {
		f.t.Fatalf("waited %s: %v", what, err)
	}
	name, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, err := strconv.Atoi(pid)
	if err != nil {
		f.t.Fatalf("%q: %v", line, err)
	}
	f.pids[name] = n
	return name
}

// gone waits for the end of all that said something: nobody has the FIFO then.
func (f *family) gone() {
	f.t.Helper()
	r, err := os.OpenFile(f.fifo.Name(), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	_ = f.fifo.Close() // the test's own end for writing
	f.fifo, f.lines = r, bufio.NewReader(r)
	_ = r.SetReadDeadline(time.Now().Add(limit))
	if rest, err := io.ReadAll(f.lines); err != nil {
		alive := []string{}
		for name, pid := range f.pids {
			if s, ok := procfs.ReadStat(pid); ok && !s.Gone() {
				alive = append(alive, fmt.Sprintf("%s (pid %d)", name, pid))
			}
		}
		f.t.Fatalf("waited for the end of all: %v; alive: %q; they said %q meanwhile", err, alive, rest)
	}
}

// told returns the next line of the stdout of the program, as JSON.
func (f *family) told(v any) {
	f.t.Helper()
	line, err := f.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err != nil {
		f.t.Fatalf("it told %q: %v", line, err)
	}
}

// exits waits for the end of the first process, which must have that status.
func (f *family) exits(status int) {
	f.t.Helper()
	_ = f.Cmd.Wait()
	if got := f.ProcessState.ExitCode(); got != status {
		f.t.Errorf("it ended with %s, expected status %d", f.ProcessState, status)
	}
}

// lives checks that a process is there, and none that has only not been reaped.
func (f *family) lives(name string) {
	f.t.Helper()
	if s, ok := procfs.ReadStat(f.pids[name]); !ok || s.Gone() {
		f.t.Errorf("%s is gone: %+v", name, s)
	}
}

func (f *family) kill(pid int, sig syscall.Signal) {
	f.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		f.t.Fatal(err)
	}
}

// all are the kinds of descendants that there are.
const all = "say=second start=hold,child start=deaf,deafchild leaver=hold,daemon leaver=deaf,deafdaemon start=keeps,reaper say=all forever"

// TestKilled: when either process is killed, all that descends from them ends:
// children, those that left their session, daemons, those that ignore signals,
// and those that came to another reaper.
func TestKilled(t *testing.T) {
	for _, victim := range []string{"first", "second"} {
		t.Run(victim, func(t *testing.T) {
			f := newFamily(t, "guarded:"+all).begin()
			f.await("second", "child", "deafchild", "daemon", "deafdaemon", "reaper", "reaper-daemon", "all")
			if victim == "first" {
				f.kill(f.Process.Pid, syscall.SIGKILL)
				_ = f.Cmd.Wait()
			} else {
				f.kill(f.pids["second"], syscall.SIGKILL)
				f.exits(137)
			}
			f.gone()
		})
	}
}

// TestFleeing: what starts itself anew all the time does not get away.
func TestFleeing(t *testing.T) {
	for _, victim := range []string{"first", "second"} {
		t.Run(victim, func(t *testing.T) {
			f := newFamily(t, "guarded:say=second leaver=flees,runaway forever").begin()
			f.await("second", "runaway")
			if victim == "first" {
				f.kill(f.Process.Pid, syscall.SIGKILL)
				_ = f.Cmd.Wait()
			} else {
				f.kill(f.pids["second"], syscall.SIGKILL)
				f.exits(137)
			}
			f.gone()
		})
	}
}

// TestThreads: the death signal of a child is that of the program, and not of the
// thread that started it.
func TestThreads(t *testing.T) {
	f := newFamily(t, "guarded:say=second start=hold,one threads start=hold,two threads start=hold,three threads say=over forever").begin()
	f.await("one", "two", "three", "over")
	for _, name := range []string{"one", "two", "three"} {
		f.lives(name)
	}
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()
}

// TestBothKilled: when both are killed at once the direct children die of their
// death signal.
func TestBothKilled(t *testing.T) {
	f := newFamily(t, "guarded:say=second start=hold,child start=deaf,deafchild forever").begin()
	f.await("second", "child", "deafchild")
	f.kill(f.Process.Pid, syscall.SIGSTOP) // so that neither sees the end of the other
	f.kill(f.pids["second"], syscall.SIGSTOP)
	f.kill(f.pids["second"], syscall.SIGKILL)
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()
}

// TestAdopted: without a second process the children die with their parent.
func TestAdopted(t *testing.T) {
	f := newFamily(t, "adopts:say=first start=hold,child leaver=hold,daemon await end=1h start=deaf,deafchild forever").begin()
	f.await("first", "child", "daemon")
	_, _ = f.in.Write([]byte("x"))
	f.await("deafchild")
	var names []string
	f.told(&names)
	if want := fmt.Sprintf("daemon (pid %d)", f.pids["daemon"]); !slices.Equal(names, []string{want}) {
		t.Errorf("ended %q, expected %q", names, want)
	}
	f.lives("child")
	f.kill(f.Process.Pid, syscall.SIGKILL)
	_ = f.Cmd.Wait()
	f.gone()
}

// TestExit: the status of the second process is the first one's, and what is left
// ends with it.
func TestExit(t *testing.T) {
	f := newFamily(t, "guarded:say=second start=deaf,child leaver=deaf,daemon await exit=3").begin()
	f.await("second", "child", "daemon")
	if s, ok := procfs.ReadStat(f.pids["second"]); !ok || s.Ppid != f.Process.Pid || s.Pgrp != f.pids["second"] {
		t.Errorf("the second one is %+v, of the first one %d", s, f.Process.Pid)
	}
	_, _ = f.in.Write([]byte("x"))
	f.exits(3)
	f.gone()
}

// TestOrphans: those that left their group and lost their parent are ended and
// named, by SIGTERM where they heed it, and else by SIGKILL once the grace is
// over; what the program started itself goes on.
func TestOrphans(t *testing.T) {
	for name, c := range map[string]struct {
		do    string
		hurry bool
		want  []string
		may   string // be named, if it outlived its parent for a moment
	}{
		"none":   {do: "start=hold,child end=1h", want: []string{}},
		"polite": {do: "start=hold,child leaver=hold,one leaver=hold,two end=1h", want: []string{"one", "two"}},
		"deaf":   {do: "start=hold,child leaver=deaf,one leaver=hold,two end=10ms", want: []string{"one", "two"}},
		"family": {do: "start=hold,child leaver=keeps,one end=1h", want: []string{"one"}, may: "one-daemon"},
		"hurry":  {do: "start=hold,child leaver=deaf,one hurry", hurry: true, want: []string{"one"}},
	} {
		t.Run(name, func(t *testing.T) {
			// They are there before it is told to end them: the await is the test's.
			do := strings.Replace(c.do, " end=", " await end=", 1)
			f := newFamily(t, "guarded:say=second "+strings.Replace(do, " hurry", " await hurry", 1)+" say=over forever").begin()
			f.await(append([]string{"second", "child"}, c.want...)...)
			if c.may != "" {
				f.await(c.may)
			}
			_, _ = f.in.Write([]byte("x"))
			if c.hurry {
				_, _ = f.in.Write([]byte("x"))
			}
			f.await("over")
			var got []string
			f.told(&got)
			want := []string{}
			for _, n := range c.want {
				want = append(want, fmt.Sprintf("%s (pid %d)", n, f.pids[n]))
				if s, ok := procfs.ReadStat(f.pids[n]); ok {
					t.Errorf("%s is still there: %+v", n, s)
				}
			}
			if c.may != "" {
				may := fmt.Sprintf("%s (pid %d)", c.may, f.pids[c.may])
				got = slices.DeleteFunc(got, func(n string) bool { return n == may })
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("it ended %q, expected %q", got, want)
			}
			f.lives("child")
			f.kill(f.pids["second"], syscall.SIGKILL)
			f.exits(137)
			f.gone()
		})
	}
}

// TestOrphansFamily: what descends from an orphan is told to end at once, and not
// only when its parent is gone.
func TestOrphansFamily(t *testing.T) {
	f := newFamily(t, "guarded:say=second leaver=deafparent,one await hurry say=over forever").begin()
	f.await("second", "one", "one-child")
	_, _ = f.in.Write([]byte("x"))
	f.await("one-child-told")
	f.lives("one")
	_, _ = f.in.Write([]byte("x"))
	f.await("over")
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()
}

// TestKept: what is to be kept outlives the end of the program, of either kind,
// with all that it has; so does who keeps a job, whoever started it. All else is
// ended.
func TestKept(t *testing.T) {
	for _, how := range []string{"ends", "first", "second"} {
		t.Run(how, func(t *testing.T) {
			f := newFamily(t, "guarded:say=second keep=kept leaver=keeper,job start=deaf,child leaver=hold,daemon await end=1h say=ended await exit=0").begin()
			f.await("second", "kept", "kept-daemon", "job", "child", "daemon")
			_, _ = f.in.Write([]byte("x"))
			f.await("ended")
			var names []string
			f.told(&names)
			if want := fmt.Sprintf("daemon (pid %d)", f.pids["daemon"]); !slices.Equal(names, []string{want}) {
				t.Errorf("ended %q, expected %q", names, want)
			}
			second := openPid(t, f.pids["second"])
			child := openPid(t, f.pids["child"])
			switch how {
			case "ends":
				_, _ = f.in.Write([]byte("x"))
				f.exits(0)
			case "first":
				f.kill(f.Process.Pid, syscall.SIGKILL)
				_ = f.Cmd.Wait()
			case "second":
				f.kill(f.pids["second"], syscall.SIGKILL)
				f.exits(137)
			}
			second.ended("the second process")
			child.ended("the child")
			for _, name := range []string{"kept", "kept-daemon", "job"} {
				f.lives(name)
				f.kill(f.pids[name], syscall.SIGKILL)
			}
			f.gone()
		})
	}
}

// pidfd is a process, whose end can be waited for by who is not its parent.
type pidfd struct {
	t  *testing.T
	fd int
}

func openPid(t *testing.T, pid int) pidfd {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Skipf("needs pidfd_open (Linux 5.3): %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return pidfd{t, fd}
}

func (p pidfd) ended(what string) {
	p.t.Helper()
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
		if err == unix.EINTR && time.Now().Before(end) {
			continue
		}
		if n != 1 {
			p.t.Fatalf("waited in vain for the end of %s (%v)", what, err)
		}
		return
	}
}

// TestBefore: what the process started before it became this program is left
// alone.
func TestBefore(t *testing.T) {
	f := newFamily(t, "guarded:say=second leaver=hold,daemon await exit=4")
	exe := f.Path
	f.Path = "/bin/sh"
	f.Args = []string{"sh", "-c", roleVar + `=hold:before "$0" & exec "$0"`, exe}
	f.begin().await("before", "second", "daemon")
	_, _ = f.in.Write([]byte("x"))
	f.exits(4)
	f.lives("before")
	f.kill(f.pids["before"], syscall.SIGKILL)
	f.gone()
}

// TestSignals: signals to the first process are the second one's, each once, and
// a stop is the first one's, too.
func TestSignals(t *testing.T) {
	f := newFamily(t, "guarded:listen").begin()
	f.await("listens")
	for _, s := range append(forwarded, syscall.SIGTSTP) {
		sig := s.(syscall.Signal)
		f.kill(f.Process.Pid, sig)
		if got := f.next("for " + unix.SignalName(sig)); got != unix.SignalName(sig) {
			t.Errorf("%s arrived as %s", unix.SignalName(sig), got)
		}
		if sig == syscall.SIGTSTP {
			f.stopped()
			f.kill(f.Process.Pid, syscall.SIGCONT)
			if got := f.next("for SIGCONT"); got != "SIGCONT" {
				t.Errorf("after SIGTSTP it got %s", got)
			}
		}
	}
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()
}

// stopped waits for the first process to be stopped.
func (f *family) stopped() {
	f.t.Helper()
	done := make(chan error, 1)
	go func() {
		for {
			if err := unix.Waitid(unix.P_PID, f.Process.Pid, nil, unix.WSTOPPED, nil); err != unix.EINTR {
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			f.t.Fatal(err)
		}
	case <-time.After(limit):
		f.t.Fatal("waited in vain for the first process to be stopped")
	}
}

// TestIgnored: a signal that the caller ignores is ignored in both.
func TestIgnored(t *testing.T) {
	f := newFamily(t, "guarded:listen")
	exe := f.Path
	f.Path = "/bin/sh"
	f.Args = []string{"sh", "-c", `trap "" HUP INT; exec "$0"`, exe}
	f.begin().await("listens")
	f.kill(f.Process.Pid, syscall.SIGHUP)
	f.kill(f.Process.Pid, syscall.SIGINT)
	f.kill(f.Process.Pid, syscall.SIGTERM)
	if got := f.next("for SIGTERM"); got != "SIGTERM" {
		t.Errorf("it got %s", got)
	}
	f.kill(f.pids["listens"], syscall.SIGHUP)
	f.kill(f.pids["listens"], syscall.SIGUSR2)
	if got := f.next("for SIGUSR2"); got != "SIGUSR2" {
		t.Errorf("it got %s", got)
	}
}

// TestSignal: Signal reaches the group of each process that was started, and no
// other.
func TestSignal(t *testing.T) {
	f := newFamily(t, "guarded:say=second start=hears,one start=hears,two leaver=hears,daemon await signal forever").begin()
	f.await("one", "two", "daemon")
	_, _ = f.in.Write([]byte("x"))
	f.await("one-SIGUSR1", "two-SIGUSR1")
	f.kill(f.pids["daemon"], syscall.SIGUSR1) // had it got one before, two would be said
	f.await("daemon-SIGUSR1")
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()
}

// TestInherited: descriptors that the caller gave are known, are the second
// process's alone, and do not reach what it starts.
func TestInherited(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := newFamily(t, "guarded:inherited start=hold,child close=3 say=closed forever")
	f.ExtraFiles = []*os.File{w}
	f.begin()
	_ = w.Close()
	var fds []int
	f.told(&fds)
	// What the caller of this test gave it goes on to all that it starts.
	own := slices.DeleteFunc(openOnExec(), func(fd int) bool { return fd == 3 })
	same := func(want []int) bool {
		slices.Sort(fds)
		slices.Sort(want)
		return fds != nil && slices.Equal(fds, want)
	}
	if !same(append(slices.Clone(own), 3)) {
		t.Errorf("it was given %d, expected 3 besides %d", fds, own)
	}
	f.await("closed", "child")
	_ = r.SetReadDeadline(time.Now().Add(limit))
	if n, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("somebody still has the pipe: %d, %v", n, err)
	}
	f.lives("closed")
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()

	f = newFamily(t, "guarded:inherited exit=0").begin()
	f.told(&fds)
	if !same(own) {
		t.Errorf("without any it says %#v, expected %d", fds, own)
	}
	f.exits(0)
}

// TestReaps: an orphan that ends while a process goes on is reaped, and a child
// that is the host's own is left to the host.
func TestReaps(t *testing.T) {
	f := newFamily(t, "guarded:start=hold,child leaver=hold,daemon reaped host say=hosted forever").begin()
	f.await("child", "daemon")
	f.kill(f.pids["daemon"], syscall.SIGKILL)
	f.await("reaped", "hosted")
	if s, ok := procfs.ReadStat(f.pids["daemon"]); ok {
		t.Errorf("the orphan is there: %+v", s)
	}
	f.kill(f.Process.Pid, syscall.SIGKILL)
	f.gone()
}

// TestStaleEnv: what another process left in the environment is not taken for
// the own guard.
func TestStaleEnv(t *testing.T) {
	for _, v := range []string{"", "x", "3:4", "0:1:1", "3:4:999999999"} {
		f := newFamily(t, "guarded:say=second leaver=hold,daemon exit=6")
		f.Env = append(f.Env, env+"="+v)
		f.begin().exits(6)
		f.await("second")
		if f.pids["second"] == f.Process.Pid {
			t.Errorf("%s=%q: there is no second process", env, v)
		}
		f.gone()
	}
}

// TestKeep: only what there is can be kept, and a pid that was used again is not
// the kept one.
func TestKeep(t *testing.T) {
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	g := &Guard{kept: map[int]string{}}
	if err := g.Keep(pid); err != nil || !keeps(g.kept, pid) {
		t.Errorf("%v, %v", g.kept, err)
	}
	if keeps(map[int]string{pid: "1"}, pid) || keeps(map[int]string{pid + 1: ""}, pid) {
		t.Error("another process is taken for the kept one")
	}
	if !keeps(map[int]string{pid: ""}, pid) {
		t.Error("one whose start is not known is not kept")
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	if keeps(g.kept, pid) {
		t.Error("one that is gone is kept")
	}
	if err := g.Keep(pid); err == nil || err.Error() != fmt.Sprintf("guard: process %d is gone", pid) {
		t.Errorf("%v", err)
	}
}

// TestKeptBy: the first process learns what to keep, however much it is, and a
// line that was cut by the end of the second one harms no other.
func TestKeptBy(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range 1000 {
			fmt.Fprintf(w, "%d %d\n", i+1, 1000000+i)
		}
		_, _ = fmt.Fprint(w, "junk\nx 5\n\n77")
		_ = w.Close()
	}()
	kept := map[int]string{5000: ""}
	keptBy(int(r.Fd()), kept)
	if len(kept) != 1001 || kept[1] != "1000000" || kept[1000] != "1000999" || kept[77] != "1000076" {
		t.Errorf("%d are kept: %q, %q, %q", len(kept), kept[1], kept[1000], kept[77])
	}
}
