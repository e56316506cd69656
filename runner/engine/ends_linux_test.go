package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// family is a process with a lifeline and what the family says. The lifeline is a
// pipe that every descendant holds: its end is the end of all of them.
type family struct {
	*running
	said, lifeline *reader
	stdin          *os.File
}

// startFamily runs shell text, whose stdout is for what it has to say. Descriptor
// 3 is the lifeline; nobody but the shell itself has its stdin.
func startFamily(t *testing.T, e engine.Engine, text string) *family {
	t.Helper()
	said, stdout := newPipe(t)
	lifeline, end := newPipe(t)
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	c := sh(text)
	c.Stdin, c.Stdout, c.Extra = in, stdout, []*os.File{end}
	p := start(t, e, c)
	_, _, _ = in.Close(), stdout.Close(), end.Close()
	return &family{p, said, lifeline, stdin}
}

// TestSignalTree: a signal reaches every descendant, also those that left the
// group or the session, as long as their parents live (P6, rows 57, 58, 75).
func TestSignalTree(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"grandchildren":   `sh -c 'sh -c "echo up; sleep 1000" & wait' & wait`,
		"another session": `setsid sh -c 'setsid sh -c "echo up; exec sleep 1000" & wait' & wait`,
		"stopped":         `sh -c 'kill -STOP $$' & until grep -q '^State:.T' /proc/$!/status; do :; done; echo up; wait`,
		"ignores HUP":     `trap "" HUP; sh -c 'echo up; sleep 1000; :' & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startFamily(t, engine.Local{}, text)
			p.said.line("the family to be up")
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if st := p.status(); st.Signal != syscall.SIGTERM {
				t.Errorf("it ended with %v", st)
			}
			p.lifeline.end("the end of all descendants")
		})
	}
}

// TestSignalJobControl: stop and continue are not followed by a continue of the
// engine's (row 69). The kernel stops nobody by SIGTSTP in a session without a
// terminal; that no continue follows it shows in who is stopped already.
func TestSignalJobControl(t *testing.T) {
	t.Parallel()
	p := startFamily(t, engine.Local{}, `sh -c 'echo $$; exec sleep 1000' & wait`)
	pid := p.said.pid("the child to be up")
	state := func() string { s, _ := procfs.ReadStat(pid); return string(s.State) }
	for _, x := range []struct {
		sig  syscall.Signal
		want string
	}{{syscall.SIGSTOP, "T"}, {syscall.SIGCONT, "S"}, {syscall.SIGSTOP, "T"}, {syscall.SIGTSTP, "T"}, {syscall.SIGUSR1, ""}} {
		if err := p.Signal(x.sig); err != nil {
			t.Error(err)
		}
		waittest.Until(t, fmt.Sprintf("the state %q after %v", x.want, x.sig), func() bool { return strings.Trim(state(), "\x00Z") == x.want })
	}
	p.status()
}

// TestSignalAfterEnd: after the end there is nobody to signal, which is no error;
// a group that has the number by then is another one's (row 124).
func TestSignalAfterEnd(t *testing.T) {
	t.Parallel()
	p := start(t, engine.Local{}, sh("exit 0"))
	p.status()
	for _, sig := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL} {
		if err := p.Signal(sig); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
	if engine.Left(p.Process) || engine.End(p.Process, syscall.SIGTERM, time.Hour) != nil {
		t.Error("something is left of a process without children")
	}
	const last = "/proc/sys/kernel/ns_last_pid"
	for range 1000 {
		if err := os.WriteFile(last, []byte(strconv.Itoa(p.Pid()-1)), 0); err != nil {
			t.Skipf("pids cannot be chosen: %v", err)
		}
		other := hold(t, engine.Local{}, &engine.Cmd{Dir: "/"}, "")
		if other.Pid() != p.Pid() { // others start processes too
			other.let()
			continue
		}
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if st := other.let(); !st.OK() {
			t.Errorf("a stranger of the same pid ended with %v", st)
		}
		return
	}
	t.Skip("the pid was not free for 1000 times")
}

// TestEnd: what a process left behind is named and ended, at once if it obeys
// and after the grace if it does not (P6, rows 54, 55, 57, 58).
func TestEnd(t *testing.T) {
	t.Parallel()
	const grace = 100 * time.Millisecond
	for name, tt := range map[string]struct {
		text  string // prints the pids of who is left, and "up"
		sig   syscall.Signal
		grace time.Duration
		least time.Duration
		stop  bool // before (row 75)
	}{
		"obeys":          {`sleep 1000 & echo $!; echo up; read x`, syscall.SIGTERM, time.Hour, 0, false},
		"two":            {`sleep 1000 & echo $!; sleep 1000 & echo $!; echo up; read x`, syscall.SIGHUP, time.Hour, 0, false},
		"ignores":        {`(trap "" TERM; exec sleep 1000) & echo $!; until grep -q '^SigIgn:.*4...$' /proc/$!/status; do :; done; echo up; read x`, syscall.SIGTERM, grace, grace, false},
		"never killed":   {`mkfifo f; sh -c 'trap exit TERM; exec 4<>f; echo $$; echo up; read y <&4' & read x`, syscall.SIGTERM, 0, 0, false},
		"stopped":        {`sleep 1000 & echo $!; echo up; read x`, syscall.SIGTERM, time.Hour, 0, true},
		"killed at once": {`(trap "" TERM; exec sleep 1000) & echo $!; echo up; read x`, syscall.SIGKILL, time.Hour, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startFamily(t, engine.Local{}, tt.text)
			var pids []string
			for up := false; !up || len(pids) == 0; {
				switch l := p.said.line("the family to be up"); l {
				case "up":
					up = true
				default:
					pids = append(pids, l)
				}
			}
			_ = p.stdin.Close()
			if st := p.status(); st.Signal != 0 {
				t.Fatal(st)
			}
			if !engine.Left(p.Process) {
				t.Error("nothing is left")
			}
			if tt.stop {
				_ = p.Signal(syscall.SIGSTOP)
			}
			began := time.Now()
			left := engine.End(p.Process, tt.sig, tt.grace)
			took := time.Since(began)
			if len(left) != len(pids) {
				t.Errorf("left: %q, want %q", left, pids)
			}
			for _, pid := range pids {
				if !strings.Contains(strings.Join(left, ", "), "(pid "+pid+")") {
					t.Errorf("left: %q, want %q", left, pids)
				}
			}
			if took < tt.least || took > waittest.Patience {
				t.Errorf("it took %v", took)
			}
			p.lifeline.end("the end of what was left")
			if again := engine.End(p.Process, tt.sig, tt.grace); len(again) > 0 {
				t.Errorf("%q are left after all was ended", again)
			}
		})
	}
}

// TestEndOutsideGroup: who was signalled outside of the group and did not obey is
// ended too, though by then nobody can say whose child it was (rows 58, 61).
func TestEndOutsideGroup(t *testing.T) {
	t.Parallel()
	p := startFamily(t, engine.Local{}, `mkfifo f; setsid sh -c 'trap "" TERM; exec 4<>f; echo $$; read y <&4' & wait`)
	pid := p.said.pid("the child to be up")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	p.status()
	if !engine.Left(p.Process) {
		t.Error("the child that ignores SIGTERM is not left")
	}
	if err := p.Signal(0); err != nil {
		t.Error(err)
	}
	if left, want := engine.End(p.Process, syscall.SIGTERM, time.Millisecond), []string{fmt.Sprintf("sh (pid %d)", pid)}; !reflect.DeepEqual(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
	if s, ok := procfs.ReadStat(pid); ok && !s.Gone() {
		t.Errorf("it lives: %+v", s)
	}
}

// TestHolders: a process that keeps an output open is named, and given up without
// the loss of what was written before (P4, row 31).
func TestHolders(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		up, signal := newPipe(t)
		var out bytes.Buffer
		c := sh("printf before; sleep 1000 <&3 3<&- & echo $! >&4; exit 7")
		in, stdin, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		c.Stdout, c.Stderr, c.Extra = &out, &out, []*os.File{in, signal}
		p := start(t, engine.Local{}, c)
		_, _ = in.Close(), signal.Close()
		pid := up.pid("the pid of who stays")
		if st := p.status(); st.Code != 7 {
			t.Error(st)
		}
		select {
		case <-p.Closed():
			t.Error("the streams have ended")
		default:
		}
		if got := engine.Holders(p.Process); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprintf(" (pid %d)", pid)) {
			t.Errorf("holders %q, want pid %d", got, pid)
		}
		engine.Release(p.Process, force)
		p.closed()
		if !force && out.String() != "before" {
			t.Errorf("%q was delivered", &out)
		}
		engine.End(p.Process, syscall.SIGKILL, 0)
	}
}

// gate is a writer that waits to be let.
type gate struct {
	mu      sync.Mutex
	got     bytes.Buffer
	blocked chan struct{}
	open    chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	select {
	case g.blocked <- struct{}{}:
	default:
	}
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.Write(b)
}

// TestReleaseSlowReader: what is still being delivered to a slow reader is kept
// when streams are given up, and dropped when that is forced.
func TestReleaseSlowReader(t *testing.T) {
	t.Parallel()
	const size = 200_000 // more than a buffer and a pipe hold
	for _, force := range []bool{false, true} {
		g := &gate{blocked: make(chan struct{}, 1), open: make(chan struct{})}
		c := sh(fmt.Sprintf("head -c %d /dev/zero", size))
		c.Stdout = g
		p := start(t, engine.Local{}, c)
		waittest.For(t, "the first write", g.blocked)
		if force {
			_ = p.Signal(syscall.SIGKILL)
		} else {
			close(g.open)
		}
		p.status()
		engine.Release(p.Process, force)
		if force {
			close(g.open)
		}
		p.closed()
		if g.got.Len() == size == force {
			t.Errorf("force %v: %d bytes of %d were delivered", force, g.got.Len(), size)
		}
	}
}

// TestContextAfterStart: the end of the context of a start does not end what was
// started.
func TestContextAfterStart(t *testing.T) {
	t.Parallel()
	in, done, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer done.Close()
	out, w := newPipe(t)
	c := sh("echo up; read x; exit 9")
	c.Dir, c.Stdin, c.Stdout = "/", in, w
	for _, start := range []func(context.Context) (engine.Process, error){
		func(ctx context.Context) (engine.Process, error) { return engine.Start(ctx, engine.Local{}, c) },
		func(ctx context.Context) (engine.Process, error) { return engine.Local{}.Start(ctx, c) },
	} {
		ctx, cancel := context.WithCancel(context.Background())
		p, err := start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out.line("the shell to be up")
		cancel()
		if _, err := done.WriteString("go\n"); err != nil {
			t.Error(err)
		}
		if st := p.Wait(); st.Code != 9 {
			t.Errorf("%+v", st)
		}
		if _, err := start(ctx); err == nil {
			t.Error("with a context that is done it was started")
		}
	}
}
