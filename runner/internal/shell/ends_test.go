//go:build linux

package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// TestSignalEnds: a signal ends a text and its children, whatever it waits for
// (P6, rows 54, 57). All that runs holds the
// stdout of the text.
func TestSignalEnds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"program":             "sh -c 'echo up; exec sleep 1000'",
		"tree of a program":   "sh -c 'sh -c \"echo up; sleep 1000; :\" & wait'",
		"pipe":                "echo up; sleep 1000 | cat",
		"subshell":            "(echo up; sleep 1000)",
		"substitution":        "echo up; x=$(sleep 1000)",
		"function":            "f() { echo up; while :; do /bin/true; done; }; f",
		"loop":                "echo up; while :; do :; done",
		"read of a stream":    "echo up; read x",
		"read of a FIFO":      "echo up; read x <fifo",
		"write to a FIFO":     "echo up; echo x >fifo",
		"read of an open one": "exec 0<&-; echo up; read x <fifo",
		"job":                 "sleep 1000 & echo up; wait",
		"here-document":       "echo up; sleep 1000 <<EOF\nx\nEOF",
	} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprint(name, " ", sig), func(t *testing.T) {
				t.Parallel()
				in, stdin, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer stdin.Close()
				out, stdout := newPipe(t)
				p := start(t, engine.Local{}, Cmd{
					Text: text, Dir: folder(t, map[string]string{"fifo|": ""}), Stdin: in, Stdout: stdout, Owned: []*os.File{in, stdout},
				})
				if got := out.line("the text to be up"); got != "up" {
					t.Fatalf("it said %q", got)
				}
				if err := p.Signal(sig); err != nil {
					t.Error(err)
				}
				if st := p.status(); st.Code != signame.ExitCode(sig) {
					t.Errorf("%+v", st)
				}
				engine.End(p.Process, syscall.SIGKILL, 0)
				p.closed()
				if got := out.end("the end of all that it started"); got != "" {
					t.Errorf("it went on, and said %q", got)
				}
				if err := p.Signal(sig); err != nil {
					t.Errorf("after the end: %v", err)
				}
				if p.Pid() != 0 {
					t.Errorf("pid %d", p.Pid())
				}
			})
		}
	}
}

// TestSignalStops: to stop and to continue ends nothing (row 69). The kernel
// stops nobody by SIGTSTP in a session without a terminal, and SIGTSTP does not
// continue who is stopped.
func TestSignalStops(t *testing.T) {
	t.Parallel()
	out, stdout := newPipe(t)
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	p := start(t, engine.Local{}, Cmd{Text: "sh -c 'echo $$; read x'; echo on $?", Stdin: in, Stdout: stdout, Owned: []*os.File{in, stdout}})
	pid := out.line("the pid of the program")
	state := func(want string) {
		t.Helper()
		waittest.Until(t, "the state "+want, func() bool {
			b, _ := os.ReadFile("/proc/" + pid + "/stat")
			return strings.Contains(string(b), ") "+want+" ")
		})
	}
	for _, x := range []struct {
		sig  syscall.Signal
		want string
	}{{syscall.SIGSTOP, "T"}, {syscall.SIGTSTP, "T"}, {syscall.SIGCONT, "S"}, {syscall.SIGSTOP, "T"}, {syscall.SIGCONT, "S"}} {
		if err := p.Signal(x.sig); err != nil {
			t.Error(err)
		}
		state(x.want)
	}
	if _, err := stdin.WriteString("x\n"); err != nil {
		t.Error(err)
	}
	if got := out.line("the text to go on"); got != "on 0" {
		t.Errorf("%q", got)
	}
	if st := p.status(); !st.OK() {
		t.Error(st)
	}
}

// TestBackground: a text ends with its last command, its streams with its jobs,
// whose output is kept.
func TestBackground(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"fifo|": ""})
	var out, errs bytes.Buffer
	p := start(t, engine.Local{}, Cmd{Text: "set -x; { read x; echo job $x; sh -c 'echo child'; } <fifo & echo over; exit 3", Dir: dir, Stdout: &out, Stderr: &errs})
	if st := p.status(); st.Code != 3 {
		t.Error(st)
	}
	select {
	case <-p.Closed():
		t.Error("the streams have ended")
	default:
	}
	f, err := os.OpenFile(dir+"/fifo", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("well\n"); err != nil {
		t.Error(err)
	}
	_ = f.Close()
	p.closed()
	if out.String() != "over\njob well\nchild\n" || strings.Contains(errs.String(), "wait") {
		t.Errorf("%q, %q", &out, &errs)
	}
}

// TestLeft: what a text leaves, as its own job or a program's, is named and ended,
// after the grace by SIGKILL (rows 31, 55, 57).
func TestLeft(t *testing.T) {
	t.Parallel()
	const stubborn = `trap "" TERM; mkfifo f$$; exec 3<>f$$; echo $$; read x <&3`
	for name, tt := range map[string]struct {
		text  string
		grace time.Duration
		names int
	}{
		"job":              {"sh -c 'mkfifo f; exec 3<>f; echo $$; read x <&3' & read x", time.Hour, 1},
		"of a program":     {"sh -c 'sleep 1000 & echo $!'", time.Hour, 1},
		"stubborn":         {"sh -c '" + stubborn + "' & read x", 50 * time.Millisecond, 1},
		"two stubborn":     {"sh -c '" + stubborn + "' & sh -c '" + stubborn + "' & read x; read x", 50 * time.Millisecond, 2},
		"stubborn, of one": {"sh -c \"sh -c '" + strings.ReplaceAll(stubborn, `"`, `\"`) + "' &\"; read x", 50 * time.Millisecond, 1},
		"never killed":     {"sh -c 'mkfifo f; trap exit TERM; exec 3<>f; echo $$; read x <&3' & read x", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, stdout := newPipe(t)
			in, stdin, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			p := start(t, engine.Local{}, Cmd{Text: tt.text, Stdin: in, Stdout: stdout, Owned: []*os.File{in, stdout}})
			for range tt.names {
				out.line("what is to be left to be up")
				if _, err := stdin.WriteString("\n"); err != nil && !errors.Is(err, unix.EPIPE) {
					t.Error(err)
				}
			}
			p.status()
			if !engine.Left(p.Process) {
				t.Error("nothing is left")
			}
			left := engine.End(p.Process, syscall.SIGTERM, tt.grace)
			if len(left) != tt.names || !strings.Contains(left[0], " (pid ") {
				t.Errorf("left: %q", left)
			}
			p.closed()
			out.end("the end of what was left")
		})
	}
}

// TestStranger: a process that keeps the output of a text is named, and given up
// with all that was written before (P4).
func TestStranger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	up, signal := newPipe(t)
	p := start(t, engine.Local{}, Cmd{Text: "printf before; setsid sh -c 'echo $$ >&2; exec sleep 1000' & sh -c 'exec >&-; read x <fifo'", Dir: folder(t, map[string]string{"fifo|": ""}), Stdout: &out, Stderr: signal, Owned: []*os.File{signal}})
	pid := up.line("the stranger to be up")
	holders := strings.Join(engine.Holders(p.Process), ", ")
	if !strings.Contains(holders, "(pid "+pid+")") {
		t.Errorf("holders %q, want pid %s", holders, pid)
	}
	engine.Release(p.Process, true)
	p.closed()
	_ = p.Signal(syscall.SIGKILL)
	p.status()
}

// TestSigpipe: who writes to a reader that has had enough ends, builtin or not;
// that is no failure, unless it is to be one (P3, rows 25, 26).
func TestSigpipe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text  string
		fails bool
		code  int
	}{
		{"yes | head -1", false, 0},
		{"yes | head -1", true, 141},
		{"while echo y; do :; done | head -1", false, 0},
		{"while echo y; do :; done | head -1", true, 141},
		{"while printf 'y\\n'; do :; done | sh -c 'head -1'", false, 0},
		{"(yes; exit 3) | head -1", false, 3},
		{"sh -c 'kill -PIPE $$' >f; echo y", true, 0},
		{"echo y; sh -c 'kill -PIPE $$'", false, 141},
	} {
		got := run(t, Cmd{Text: tt.text, Set: []string{"pipefail"}, SigpipeFails: tt.fails})
		if got.out != "y\n" || got.st.Code != tt.code {
			t.Errorf("%s: %v, %q, %q, want %d", tt.text, got.st, got.out, got.err, tt.code)
		}
	}
}

// TestBrokenStreams: an output that fails is a failure of the text; one whose
// reader is gone ends it; one that is not there takes all (P13, rows 40, 42).
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	full := func() *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip(err)
		}
		return f
	}
	closed := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		return w
	}
	const full1 = "cannot write to /dev/full: no space left on device\n"
	for _, tt := range []struct {
		text           string
		stdout, stderr *os.File
		st             engine.Status
		errs           string
	}{
		{"echo x; true", full(), nil, engine.Status{Code: 1}, full1},
		{"echo x; exit 3", full(), nil, engine.Status{Code: 3}, ""},
		{"(echo x) & wait", full(), nil, engine.Status{Code: 1}, full1},
		{"true", full(), nil, engine.Status{}, ""},
		{"echo x >/dev/stdout", full(), nil, engine.Status{Code: 1}, "no space left on device\n"},
		{"echo x >&2", nil, full(), engine.Status{Code: 1}, ""},
		{"echo x; echo y >f; exit 5", closed(), nil, engine.Status{}, ""},
		{"/bin/echo x; exit 5", closed(), nil, engine.Status{Code: 5}, ""},
	} {
		var errs bytes.Buffer
		c := Cmd{Text: tt.text}
		if tt.stdout != nil {
			c.Stdout, c.Stderr, c.Owned = tt.stdout, &errs, []*os.File{tt.stdout}
		} else {
			c.Stderr, c.Owned = tt.stderr, []*os.File{tt.stderr}
		}
		p := start(t, engine.Local{}, c)
		st := p.status()
		p.closed()
		if got := errs.String(); st != tt.st || !strings.HasSuffix(got, tt.errs) {
			t.Errorf("%s: %v, %q, want %v", tt.text, st, got, tt.st)
		}
		if err := c.Owned[0].Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: a stream of its own is still open (%v)", tt.text, err)
		}
	}
	none := start(t, engine.Local{}, Cmd{Text: "echo a; echo b >&2; echo c >/dev/stdout; echo d >/dev/stderr; /bin/echo e; read x || cat"})
	if st := none.status(); !st.OK() {
		t.Error(st)
	}
	none.closed()
}

// TestOneWriter: one writer for both streams gets them in order, from the text and
// its programs alike (row 46).
func TestOneWriter(t *testing.T) {
	t.Parallel()
	var both bytes.Buffer
	got := run(t, Cmd{Text: "for i in 1 2 3; do echo o$i; echo e$i >&2; sh -c 'echo p; echo q >&2'; done", Stdout: &both, Stderr: &both})
	if want := strings.Repeat("o\ne\np\nq\n", 3); strings.NewReplacer("1", "", "2", "", "3", "").Replace(both.String()) != want || !got.st.OK() {
		t.Errorf("%v, %q", got.st, &both)
	}
	in := strings.NewReader("first\nsecond\nthird\n")
	if got := run(t, Cmd{Text: "cat; echo end", Stdin: in}); got.out != "first\nsecond\nthird\nend\n" {
		t.Errorf("%q", got.out)
	}
}

// TestPanic: a text at which the interpreter panics fails, and says what to do.
func TestPanic(t *testing.T) {
	t.Parallel()
	for _, set := range [][]string{nil, {"errexit"}} {
		got := run(t, Cmd{Text: `x=abc; echo ${x#$'\xff'}; echo after`, Set: set})
		if got.st.OK() || got.out != "" || !strings.Contains(got.err, "the embedded shell failed: ") || !strings.Contains(got.err, "write shell: bash (or sh) on the step") {
			t.Errorf("%v, %q, %q", got.st, got.out, got.err)
		}
	}
	p := start(t, engine.Local{}, Cmd{Text: `x=abc; echo ${x#$'\xff'}`})
	if st := p.status(); st.OK() {
		t.Error("without stderr it is a success")
	}
}

// TestGivenUp: a text that hangs in a read which nothing can end is left behind
// by SIGKILL and a forced release.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	hanging, end := io.Pipe()
	out, stdout := newPipe(t)
	p := start(t, engine.Local{}, Cmd{Text: "echo up; read x; echo no", Stdin: hanging, Stdout: stdout, Owned: []*os.File{stdout}})
	out.line("the text to be up")
	if err := errors.Join(p.Signal(syscall.SIGKILL), p.Signal(syscall.SIGKILL)); err != nil {
		t.Error(err)
	}
	if st := p.status(); st.Signal != syscall.SIGKILL {
		t.Error(st)
	}
	engine.Release(p.Process, true)
	engine.Release(p.Process, false)
	p.closed()
	_ = end.Close()
	if got := out.end("the end of the text"); got != "" {
		t.Errorf("it went on, and said %q", got)
	}
}

// TestContext: the end of the context of a start is not the end of the text, but
// none is started with a context that is done.
func TestContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	p, err := Start(ctx, engine.Local{}, Cmd{Text: "/bin/echo a; read x; /bin/echo b", Dir: "/", Stdin: strings.NewReader("x\n"), Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	st := p.Wait()
	waittest.For(t, "the end of the streams", p.Closed())
	if !st.OK() || out.String() != "a\nb\n" {
		t.Errorf("%v, %q", st, &out)
	}
}

// slow is an engine that takes until it is told to go on or, if it is patient, does
// not mind the end of the context.
type slow struct {
	patient bool
	begun   chan struct{} // receives when a start has begun
	goOn    chan struct{}
}

func (e slow) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	e.begun <- struct{}{}
	over := ctx.Done()
	if e.patient {
		over = nil
	}
	select {
	case <-e.goOn:
		return engine.Local{}.Start(ctx, c)
	case <-over:
		return nil, ctx.Err()
	}
}

// TestSlowStart: what a text is sent while its program is being started ends the
// start or, where the engine does not mind, reaches the program.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	for _, patient := range []bool{false, true} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			e := slow{patient, make(chan struct{}, 1), make(chan struct{})}
			p := start(t, e, Cmd{Text: "sleep 1000; echo after >&2", Env: []string{testPath}})
			waittest.For(t, "the start", e.begun)
			if !p.Process.(*text).Left() {
				t.Errorf("%v: it says that nothing is left", sig)
			}
			told := make(chan struct{})
			go func() { _ = p.Signal(sig); close(told) }()
			waittest.For(t, "the signal, which waits for no engine", told)
			if patient {
				close(e.goOn)
			}
			if st := p.status(); st.Signal != sig {
				t.Errorf("patient %t, %v: %v", patient, sig, st)
			}
			p.closed()
		}
	}
}

// TestEndOfSlowStart: what is left is ended also where it is being started.
func TestEndOfSlowStart(t *testing.T) {
	t.Parallel()
	e := slow{false, make(chan struct{}, 1), make(chan struct{})}
	p := start(t, e, Cmd{Text: "sleep 1000 &", Env: []string{testPath}})
	waittest.For(t, "the start", e.begun)
	ended := make(chan struct{})
	go func() { p.Process.(*text).End(syscall.SIGTERM, time.Hour); close(ended) }()
	waittest.For(t, "the end of what is left", ended)
	p.closed()
}

// TestNothingLeft: texts leave no descriptor and no goroutine, however they end.
func TestNothingLeft(t *testing.T) {
	dir := folder(t, map[string]string{"fifo|": "", "f": "x\n"})
	check := leaks(t)
	for _, text := range []string{
		"echo x | cat; x=$(echo y); cat <f >g; cat <<< z; (cd /; /bin/true); no-such-prog",
		"echo x >/dev/stdout; . ./f; exit 3",
		"/bin/true & { echo x; } & wait",
		"yes | head -1",
		"x=abc; echo ${x#$'\\xff'}",
	} {
		var out, errs bytes.Buffer
		p, err := Start(context.Background(), engine.Local{}, Cmd{Text: text, Dir: dir, Env: []string{testPath}, Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errs})
		if err != nil {
			t.Fatal(err)
		}
		p.Wait()
		waittest.For(t, "the end of the streams of "+text, p.Closed())
		check(text)
	}
	for _, text := range []string{"sleep 1000", "cat <fifo", "echo x >fifo", "sleep 1000 | cat", "while :; do :; done"} {
		out, stdout := newPipe(t)
		p, err := Start(context.Background(), engine.Local{}, Cmd{Text: "echo up; " + text, Dir: dir, Env: []string{testPath}, Stdout: stdout, Owned: []*os.File{stdout}})
		if err != nil {
			t.Fatal(err)
		}
		out.line("the text to be up")
		_ = p.Signal(syscall.SIGTERM)
		p.Wait()
		engine.End(p, syscall.SIGTERM, time.Hour)
		waittest.For(t, "the end of the streams of "+text, p.Closed())
		_ = out.f.Close()
		check(text)
	}
}
