package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
)

// TestFilesHandedThrough: a file is the child's own descriptor, blocking, and
// stays open here; nothing else is open in the child (P5, rows 33, 34, 47).
func TestFilesHandedThrough(t *testing.T) {
	t.Parallel()
	out, stdout := newPipe(t)
	extra, err := os.Create(filepath.Join(t.TempDir(), "extra"))
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	stranger, err := unix.Dup(int(extra.Fd())) // inheritable, and not for the child
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(stranger) }()
	unix.CloseOnExec(stranger) // as the runner does with what its caller left open
	c := &engine.Cmd{Stdout: stdout, Stderr: extra, Extra: []*os.File{nil, extra, nil, stdout}}
	p := hold(t, engine.Local{}, c, "")
	out.line("the shell to be up")

	fds := descriptors(t, p.Pid())
	mine := descriptors(t, os.Getpid())
	pipe := mine[int(stdout.Fd())]
	want := map[int]string{0: fds[0], 1: pipe, 2: extra.Name(), 4: extra.Name(), 6: pipe}
	if !reflect.DeepEqual(fds, want) || !strings.HasPrefix(fds[0], "pipe:") || fds[0] == pipe {
		t.Errorf("descriptors %v, want %v", fds, want)
	}
	for fd := range fds {
		if nonblocking(t, p.Pid(), fd) {
			t.Errorf("descriptor %d does not block", fd)
		}
	}
	if st := p.let(); !st.OK() {
		t.Error(st)
	}
	p.closed()
	if _, err := extra.WriteString("x"); err != nil {
		t.Errorf("a file of the caller: %v", err)
	}
	if _, err := stdout.WriteString("x\n"); err != nil || out.line("the pipe") != "x" {
		t.Errorf("the caller's end of a pipe: %v", err)
	}
}

// TestStreamsOpened: for what is no file the child gets the null device or a
// pipe, one pipe for both streams if both have one writer.
func TestStreamsOpened(t *testing.T) {
	t.Parallel()
	one, other := &bytes.Buffer{}, &bytes.Buffer{}
	for name, tt := range map[string]struct {
		stdout, stderr io.Writer
		kinds          [2]string
		same           bool
	}{
		"nil":          {nil, nil, [2]string{os.DevNull, os.DevNull}, true},
		"only stdout":  {one, nil, [2]string{"pipe:", os.DevNull}, false},
		"only stderr":  {nil, one, [2]string{os.DevNull, "pipe:"}, false},
		"two writers":  {one, other, [2]string{"pipe:", "pipe:"}, false},
		"one for both": {one, one, [2]string{"pipe:", "pipe:"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			up, signal := newPipe(t)
			in, done := io.Pipe()
			c := sh("echo up >&3; exec 3>&-; read x")
			c.Stdin, c.Stdout, c.Stderr, c.Extra = in, tt.stdout, tt.stderr, []*os.File{signal}
			p := start(t, engine.Local{}, c)
			_ = signal.Close()
			up.line("the shell to be up")
			up.end("the shell to close its descriptor 3")
			fds := descriptors(t, p.Pid())
			if len(fds) != 3 || !strings.HasPrefix(fds[1], tt.kinds[0]) || !strings.HasPrefix(fds[2], tt.kinds[1]) || (fds[1] == fds[2]) != tt.same {
				t.Errorf("descriptors %v", fds)
			}
			_ = done.Close()
			p.status()
			p.closed()
		})
	}
	t.Run("no stdin", func(t *testing.T) { // row 51
		var out bytes.Buffer
		c := sh("cat; echo end")
		c.Stdout = &out
		p := start(t, engine.Local{}, c)
		p.status()
		p.closed()
		if out.String() != "end\n" {
			t.Errorf("%q", &out)
		}
	})
}

// lockless is a writer that only one goroutine may use, as any is.
type lockless struct{ writes []string }

func (w *lockless) Write(b []byte) (int, error) {
	w.writes = append(w.writes, string(b))
	return len(b), nil
}

// TestCopied: what passes through the engine arrives whole and unchanged, also
// in the moment of the exit; one writer for both streams is used by one goroutine
// and keeps their order (P12, rows 36, 38, 46).
func TestCopied(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	for i := range 300_000 {
		all.Write([]byte{byte(i), byte(i >> 8), '\r', 0xff})
	}
	var out, errs bytes.Buffer
	c := sh("cat; printf bad >&2")
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(all.Bytes()), &out, &errs
	p := start(t, engine.Local{}, c)
	p.status()
	p.closed()
	if !bytes.Equal(out.Bytes(), all.Bytes()) || errs.String() != "bad" {
		t.Errorf("%d bytes of %d came back, and %q", out.Len(), all.Len(), &errs)
	}

	both := &lockless{}
	c = sh("for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done")
	c.Stdout, c.Stderr = both, both
	p = start(t, engine.Local{}, c)
	p.status()
	p.closed()
	want := ""
	for i := 1; i < 10; i++ {
		want += fmt.Sprintf("o%d\ne%d\n", i, i)
	}
	if got := strings.Join(both.writes, ""); got != want {
		t.Errorf("%q", got)
	}
}

// TestStdinOutlived: a reader that has more, or that hangs, does not keep a
// process, or its streams, from ending.
func TestStdinOutlived(t *testing.T) {
	t.Parallel()
	hanging, end := io.Pipe()
	defer func() { _ = end.Close() }()
	for name, in := range map[string]io.Reader{"endless": endless{}, "hanging": hanging} {
		c := sh("exit 5")
		c.Stdin, c.Stdout = in, io.Discard
		p := start(t, engine.Local{}, c)
		if st := p.status(); st.Code != 5 {
			t.Errorf("%s: %v", name, st)
		}
		p.closed()
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestEnvironment: the environment is exactly what is given, byte for byte, and
// empty if there is none (P9, P10, row 107).
func TestEnvironment(t *testing.T) {
	t.Setenv("ENGINE_TEST_LEAK", "1")
	for name, env := range map[string][]string{
		"nil":   nil,
		"empty": {},
		"some":  {"B=2", "A=", "C=a\nb \xff", "D==", "A=again"},
	} {
		p := hold(t, engine.Local{}, &engine.Cmd{Env: env}, "")
		want := ""
		for _, kv := range env {
			want += kv + "\x00"
		}
		if got := proc(t, p.Pid(), "environ"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		p.let()
	}
}

// TestArguments: the words are the child's byte for byte, and the first one is
// not the program's name (P9).
func TestArguments(t *testing.T) {
	t.Parallel()
	out, w := newPipe(t)
	c := sh("")
	c.Args = []string{"odd name", "-c", "echo up; read x", "", "-rf", "a\nb", "\xff*'\"$x"}
	in, done := io.Pipe()
	c.Stdin, c.Stdout = in, w
	p := start(t, engine.Local{}, c)
	_ = w.Close()
	out.line("the shell to be up")
	if got := proc(t, p.Pid(), "cmdline"); got != strings.Join(c.Args, "\x00")+"\x00" {
		t.Errorf("%q", got)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Pid())); err != nil || !strings.HasSuffix(exe, "sh") {
		t.Errorf("the program is %q (%v)", exe, err)
	}
	if got := fmt.Sprint(p.Process); got != fmt.Sprintf("sh (pid %d)", p.Pid()) {
		t.Errorf("in messages it is %q", got)
	}
	_ = done.Close()
	p.status()
}

// TestDirectory: the child is where Dir says, or, whatever Dir names by now, in
// the directory that was opened for it (row 115).
func TestDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	old, new := filepath.Join(base, "dir"), filepath.Join(base, "moved")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	cwd := func(c *engine.Cmd) string {
		t.Helper()
		p := hold(t, engine.Local{}, c, "")
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.Pid()))
		if err != nil {
			t.Error(err)
		}
		p.let()
		return dir
	}
	if got := cwd(&engine.Cmd{Dir: old}); got != old {
		t.Errorf("the child is in %s", got)
	}
	f, err := os.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(old, new); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", old); err != nil {
		t.Fatal(err)
	}
	if got := cwd(&engine.Cmd{Dir: old, DirFile: f}); got != new {
		t.Errorf("the child is in %s, and not in the directory that was opened", got)
	}
}

// TestUser: a child is who it is to be, and has no group besides.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing to another user takes root")
	}
	groups, err := syscall.Getgroups()
	if err == nil {
		err = syscall.Setgroups([]int{12345}) // which a child of another user is not to have
	}
	if err != nil {
		t.Skip("groups cannot be set: ", err)
	}
	defer func() { _ = syscall.Setgroups(groups) }()
	id := func(n uint32) *uint32 { return &n }
	for _, tt := range []struct {
		uid, gid *uint32
		want     [2]int
	}{
		{nil, nil, [2]int{os.Getuid(), os.Getgid()}},
		{id(65534), nil, [2]int{65534, os.Getgid()}},
		{nil, id(65533), [2]int{os.Getuid(), 65533}},
		{id(65534), id(65533), [2]int{65534, 65533}},
	} {
		p := hold(t, engine.Local{}, &engine.Cmd{Dir: "/", UID: tt.uid, GID: tt.gid}, "")
		status := proc(t, p.Pid(), "status")
		for i, name := range []string{"Uid:", "Gid:"} {
			if want := fmt.Sprintf("%s\t%d\t%[2]d\t%[2]d\t%[2]d\n", name, tt.want[i]); !strings.Contains(status, want) {
				t.Errorf("no %q in %s", want, status)
			}
		}
		if (tt.uid != nil || tt.gid != nil) && !strings.Contains(strings.ReplaceAll(status, " \n", "\n"), "Groups:\t\n") {
			t.Errorf("it has other groups: %s", status)
		}
		p.let()
	}
}

// TestGroup: each process leads a session; no signal is blocked for it,
// and none is ignored that this program was not told to ignore (P5, rows 26, 27).
func TestGroup(t *testing.T) {
	t.Parallel()
	p := hold(t, engine.Local{}, &engine.Cmd{}, "")
	s, ok := procfs.ReadStat(p.Pid())
	if !ok || s.Ppid != os.Getpid() || s.Pgrp != p.Pid() || s.Session != p.Pid() {
		t.Errorf("%+v", s)
	}
	_, own, _ := strings.Cut(proc(t, os.Getpid(), "status"), "SigIgn:\t")
	for _, want := range []string{"SigBlk:\t0000000000000000\n", "SigIgn:\t" + own[:17]} {
		if !strings.Contains(proc(t, p.Pid(), "status"), want) {
			t.Errorf("no %q", want)
		}
	}
	p.let()
}

// TestStatus: exit codes and signals are told apart (P1, rows 77, 78).
func TestStatus(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]engine.Status{
		"exit 0":                     {},
		"exit 1":                     {Code: 1},
		"exit 255":                   {Code: 255},
		"exit 137":                   {Code: 137},
		"exit 127":                   {Code: 127},
		"kill -KILL $$":              engine.Killed(syscall.SIGKILL),
		"kill -TERM $$":              engine.Killed(syscall.SIGTERM),
		"kill -PIPE $$":              engine.Killed(syscall.SIGPIPE),
		"exec sh -c 'exit 300'":      {Code: 44},
		"ulimit -c 0; kill -QUIT $$": engine.Killed(syscall.SIGQUIT),
	} {
		p := start(t, engine.Local{}, sh(text))
		got := p.status()
		p.closed()
		if got.MaxRSS <= 100<<10 || got.User+got.Sys < 0 {
			t.Errorf("%s: used %d bytes and %v, %v", text, got.MaxRSS, got.User, got.Sys)
		}
		got.MaxRSS, got.User, got.Sys = 0, 0, 0
		if got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	t.Run("core", func(t *testing.T) {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Max == 0 {
			t.Skip("the limit of core files (ulimit -Hc) is 0")
		}
		c := sh("ulimit -c $(ulimit -Hc); kill -QUIT $$")
		p := start(t, engine.Local{}, c)
		if st := p.status(); st.Signal != syscall.SIGQUIT || !st.CoreDumped {
			if kind, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); strings.HasPrefix(string(kind), "|") || strings.HasPrefix(string(kind), "/") {
				t.Skipf("core files go to %s, which may not take them", kind)
			}
			t.Errorf("%+v", st)
		}
	})
	t.Run("work", func(t *testing.T) {
		p := start(t, engine.Local{}, sh("i=0; while test $i -lt 20000; do i=$((i+1)); done"))
		if st := p.status(); st.User <= 0 {
			t.Errorf("it took %v, %v", st.User, st.Sys)
		}
	})
}

// TestStatusTaken: a status that another part of the program reaped is unknown,
// and not a success (row 80).
func TestStatusTaken(t *testing.T) {
	t.Parallel()
	c := sh("read x")
	in, done := io.Pipe()
	c.Stdin, c.Dir = in, "/"
	p, err := engine.Local{}.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	_ = done.Close()
	if _, err := syscall.Wait4(p.Pid(), nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	st := p.Wait()
	if st.OK() || !errors.Is(st.Err, syscall.ECHILD) || !strings.Contains(st.Err.Error(), fmt.Sprintf("sh (pid %d)", p.Pid())) {
		t.Errorf("%+v", st)
	}
}

// TestTree: a tree starts the process and is told once when it has been reaped;
// the child gets the signal that the tree asked for when the thread that started
// it ends (row 66).
func TestTree(t *testing.T) {
	t.Parallel()
	x := &tree{}
	p := hold(t, engine.Local{Tree: x}, &engine.Cmd{}, "")
	want := []string{fmt.Sprintf("fork %d", p.Pid())}
	if got := x.noted(); !reflect.DeepEqual(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	p.let()
	want = append(want, fmt.Sprintf("reaped %d", p.Pid()))
	if got := x.noted(); !reflect.DeepEqual(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}

	dying := &tree{death: syscall.SIGUSR1, thread: make(chan struct{})}
	p = hold(t, engine.Local{Tree: dying}, &engine.Cmd{}, "")
	close(dying.thread)
	if st := p.status(); st.Signal != syscall.SIGUSR1 {
		t.Errorf("when its parent ended, the child ended with %v", st)
	}
}

// TestLookPath: programs are found in the PATH that is given (rows 1, 20, 21).
func TestLookPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prog"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, found := range map[string]bool{dir: true, "/nope:" + dir: true, "/nope": false, ".": false, ":": false, "": false} {
		got, err := engine.LookPath(engine.Local{}, "prog", path, dir)
		if found != (err == nil) || found && got != filepath.Join(dir, "prog") {
			t.Errorf("PATH=%s: %q, %v", path, got, err)
		}
	}
}
