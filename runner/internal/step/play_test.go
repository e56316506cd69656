//go:build unix

package step_test

// This file has what the tests of real processes share.

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// TestMain runs the tests in a temporary directory of their own, and then looks
// for what they have left. With STEP_TEST_SAY it is a service that says that to
// $NOTIFY_SOCKET instead, and ends with its stdin.
func TestMain(m *testing.M) {
	if say := os.Getenv("STEP_TEST_SAY"); say != "" {
		os.Exit(notify(say))
	}
	os.Exit(tidy(m))
}

func tidy(m *testing.M) int {
	dir, err := os.MkdirTemp("", "step-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	_ = os.Setenv("TMPDIR", dir)
	if r, w, err := os.Pipe(); err == nil { // the poller opens descriptors, once
		_, _ = r.Close(), w.Close()
	}
	before := count()
	code := m.Run()
	if left := before.grown(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "after all tests: "+left)
		return 1
	}
	return code
}

func notify(say string) int {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, text := range strings.Split(say, ",") {
		if _, err := c.Write([]byte(text)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// holdings are what this program holds.
type holdings struct {
	goroutines int
	files      []string
	children   []string
	temporary  []string
}

func count() holdings {
	h := holdings{goroutines: runtime.NumGoroutine()}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "/proc/") { // not the listing itself
			h.files = append(h.files, fd.Name()+" "+to)
		}
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		pids, _ := os.ReadFile(task)
		h.children = append(h.children, strings.Fields(string(pids))...)
	}
	temp, _ := os.ReadDir(os.TempDir())
	for _, e := range temp {
		h.temporary = append(h.temporary, e.Name())
	}
	return h
}

// grown says what there is more of than before, if that does not pass.
func (h holdings) grown() string {
	var why string
	within(func() bool {
		now := count()
		why = ""
		if now.goroutines > h.goroutines {
			stacks := make([]byte, 1<<20)
			why = fmt.Sprintf("%d goroutines rather than %d:\n%s", now.goroutines, h.goroutines, stacks[:runtime.Stack(stacks, true)])
		}
		for _, k := range []struct {
			what        string
			before, now []string
		}{{"descriptors", h.files, now.files}, {"children", h.children, now.children}, {"temporary files", h.temporary, now.temporary}} {
			if len(k.now) > len(k.before) {
				why = fmt.Sprintf("%s: %q rather than %q", k.what, k.now, k.before)
			}
		}
		return why == ""
	})
	return why
}

// within reports whether something becomes true before it has taken too long.
func within(f func() bool) bool {
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// arrives waits for a channel.
func arrives[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// play is how a step is run.
type play struct {
	ctx context.Context // nil: the test's
	sv  step.Services   // the engine is the local one unless it is set
	on  func(step.Event)
}

// record is what came of a run.
type record struct {
	*step.Result
	mu       sync.Mutex
	data     map[[2]int]*bytes.Buffer // by stage and descriptor
	warnings []string
	order    []step.EventType // without data
	pieces   int              // of data
	over     chan struct{}
}

var plays atomic.Int64

// mark is a variable that names one run of this process.
func mark(id string) string { return fmt.Sprintf("STEP_TEST_RUN=%d-%s-", os.Getpid(), id) }

// run runs a step that JSON has carried, and looks for goroutines and processes
// that it has left.
func (p play) run(t testing.TB, spec *step.Spec) *record {
	t.Helper()
	r := p.begin(t, spec)
	arrives(t, "the end of the step", r.over)
	return r
}

// stages runs a step of these stages.
func (p play) stages(t testing.TB, stages ...step.Stage) *record {
	t.Helper()
	return p.run(t, &step.Spec{Label: "x", Stages: stages})
}

// begin is run that does not wait for the end. over tells of it.
func (p play) begin(t testing.TB, spec *step.Spec) *record {
	t.Helper()
	id := strconv.FormatInt(plays.Add(1), 10)
	spec = decoded(t, spec)
	spec.Each(func(st *step.Stage) { st.Env = append(st.Env, mark(id)) })
	if p.sv.Engine == nil {
		p.sv.Engine = engine.Local{}
	}
	if p.ctx == nil {
		p.ctx = t.Context()
	}
	r := &record{data: map[[2]int]*bytes.Buffer{}, over: make(chan struct{})}
	go pprof.Do(p.ctx, pprof.Labels("run", id), func(ctx context.Context) {
		defer close(r.over)
		r.Result = step.Run(ctx, spec, &p.sv, func(e step.Event) {
			if p.on != nil {
				p.on(e)
			}
			r.take(e)
		})
	})
	t.Cleanup(func() { // before the context ends what is left
		arrives(t, "the end of the step", r.over)
		label := fmt.Sprintf(`"run":%q`, id)
		if !within(func() bool {
			var all bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&all, 1)
			return !strings.Contains(all.String(), label)
		}) {
			t.Error("goroutines of the step are left")
		}
		if !within(func() bool { return len(marked(mark(id))) == 0 }) {
			t.Errorf("processes of the step are left: %v", marked(mark(id)))
		}
		for _, st := range r.Stages {
			st.Stdout.Close()
			st.Stderr.Close()
		}
	})
	return r
}

// marked returns the processes that have a variable in their environment.
func marked(v string) (pids []string) {
	all, _ := os.ReadDir("/proc")
	for _, p := range all {
		if p.Name()[0] > '9' {
			continue
		}
		if env, err := os.ReadFile("/proc/" + p.Name() + "/environ"); err == nil && strings.Contains(string(env), v) {
			pids = append(pids, p.Name())
		}
	}
	return pids
}

func (r *record) take(e step.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Type {
	case step.EventData:
		k := [2]int{e.Stage, e.FD}
		if r.data[k] == nil {
			r.data[k] = &bytes.Buffer{}
		}
		r.data[k].Write(e.Data)
		r.pieces++
		return
	case step.EventWarning:
		r.warnings = append(r.warnings, e.Message)
	}
	r.order = append(r.order, e.Type)
}

// out returns what a stage wrote to a descriptor, as far as it was shown.
func (r *record) out(stage, fd int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.data[[2]int{stage, fd}]; b != nil {
		return b.String()
	}
	return ""
}

// saw reports whether there was an event.
func (r *record) saw(e step.EventType) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.order, e)
}

// warned returns all warnings.
func (r *record) warned() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.warnings, "\n")
}

// ended compares the end with a line of describe, without the command.
func (r *record) ended(t testing.TB, want string) {
	t.Helper()
	e := r.End
	e.Command = ""
	if got := describe(e); got != want {
		t.Errorf("\n got %s\nwant %s\nwarnings: %s\nstderr: %s", got, want, r.warned(), r.out(0, 2))
	}
}

// prog is a stage that runs a program: without stdin, output through the runner.
func prog(args ...string) step.Stage {
	return step.Stage{
		Program: args[0], Args: args, Path: os.Getenv("PATH"), Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"},
		Stdio:      []step.Stdio{{Kind: step.StdioIgnore}, {Kind: step.StdioPipe}, {Kind: step.StdioPipe}},
		KillSignal: syscall.SIGTERM, KillAfter: 5 * time.Second, Drain: 5 * time.Second,
		Command: strings.Join(args, " "),
	}
}

// sh is a stage that runs shell text with arguments.
func sh(text string, args ...string) step.Stage {
	st := prog(append([]string{"sh", "-c", text, "sh"}, args...)...)
	st.Command = text
	return st
}

// builtin is a text of the embedded shell.
func builtin(text string) step.Stage {
	st := prog(text)
	st.Program, st.Args, st.Shell, st.Text = "", nil, step.BuiltinShell, text
	return st
}

// tee is a stage with branches.
func tee(branches ...step.Branch) step.Stage { return step.Stage{Tee: branches} }

func chain(stages ...step.Stage) step.Branch { return step.Branch{Chain: stages} }

// with returns a stage with some of its descriptors set.
func with(st step.Stage, set map[int]step.Stdio) step.Stage {
	st.Stdio = slices.Clone(st.Stdio)
	for fd, io := range set {
		for len(st.Stdio) <= fd {
			st.Stdio = append(st.Stdio, step.Stdio{})
		}
		st.Stdio[fd] = io
	}
	return st
}

// reads gives a stage a text on its stdin.
func reads(st step.Stage, text string) step.Stage {
	st = with(st, map[int]step.Stdio{0: {Kind: step.StdioInput}})
	st.Input = text
	return st
}

// keeps gives a stage a buffer.
func keeps(st step.Stage, limit int64, o step.Overflow) step.Stage {
	st.Keep = &step.Keep{Max: limit, Overflow: o}
	return st
}

func file(path string) step.Stdio { return step.Stdio{Kind: step.StdioFile, Path: path} }

// content returns what is in a file.
func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pipe returns a pipe that the test closes.
func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// fifo returns a FIFO that is open for both, so that no open of it blocks.
func fifo(t testing.TB) (string, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return path, f
}

// needs skips a test where a program is missing.
func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs the program %s", program)
	}
}

// input is text of n bytes in which every line is another one.
func input(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(strconv.Itoa(i))
		b.WriteByte('\n')
	}
	return b.String()[:n]
}
