package engine_test

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/safety"
)

// fails starts a command that cannot be started, with copied streams, and
// returns why.
func fails(t *testing.T, e engine.Engine, c *engine.Cmd) *engine.StartError {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader("in"), &out, &errs
	if c.Args == nil {
		c.Args = []string{c.Path}
	}
	p, err := e.Start(context.Background(), c)
	if err == nil {
		_ = p.Signal(syscall.SIGKILL)
		p.Wait()
		t.Fatal("it was started")
	}
	var se *engine.StartError
	if !errors.As(err, &se) || p != nil {
		t.Fatalf("%v, %T %v", p, err, err)
	}
	return se
}

// loaderless writes a program whose loader does not exist.
func loaderless(t *testing.T, path string) {
	t.Helper()
	const model = "/bin/sh"
	f, err := elf.Open(model)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = f.Close() }()
	s := f.Section(".interp")
	if s == nil {
		t.Skip(model, "needs no loader")
	}
	b, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[s.Offset:], "/none")
	write(t, path, string(b), 0o755)
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// TestStartErrors: a start that fails says in one sentence what is at fault, and
// leaves no descriptor, goroutine or process (P2, rows 2, 4–6, 8, 9, 11, 12, 17, 18, 22).
func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("plain"), "#!/bin/sh\n", 0o644)
	write(t, in("orphan"), "#!/no/such -x\n", 0o755)
	write(t, in("crlf"), "#!/bin/sh\r\nexit 0\r\n", 0o755)
	write(t, in("locked"), "#!"+in("plain")+"\n", 0o755)
	write(t, in("bare"), "echo hi\n", 0o755)
	write(t, in("empty"), "", 0o755)
	write(t, in("elf"), "\x7fELF", 0o755)
	if err := os.Mkdir(in("closed"), 0o700); err != nil {
		t.Fatal(err)
	}
	nobody := uint32(65534)
	long, many := strings.Repeat("x", engine.MaxArg), slices.Repeat([]string{"A=" + strings.Repeat("x", 100_000)}, 70)
	check := leaks(t)
	for name, tt := range map[string]struct {
		cmd  engine.Cmd
		code int
		err  error
		path string // "": of the program
		text string
		prep func(t *testing.T)
	}{
		"missing":        {cmd: engine.Cmd{Path: in("nope")}, code: 127, err: fs.ErrNotExist, text: "program " + in("nope") + " not found"},
		"below a file":   {cmd: engine.Cmd{Path: in("plain/x")}, code: 126, err: unix.ENOTDIR, text: "program " + in("plain/x") + " not found"},
		"not executable": {cmd: engine.Cmd{Path: in("plain")}, code: 126, err: fs.ErrPermission, text: in("plain") + " is not executable; chmod +x it, or name its interpreter"},
		"directory":      {cmd: engine.Cmd{Path: dir}, code: 126, err: unix.EACCES, text: dir + " is a directory, not a program"},
		"interpreter":    {cmd: engine.Cmd{Path: in("orphan")}, code: 126, err: unix.ENOENT, text: in("orphan") + ": its interpreter /no/such does not exist"},
		"CRLF":           {cmd: engine.Cmd{Path: in("crlf")}, code: 126, err: unix.ENOENT, text: `the interpreter "/bin/sh" is not found; save it with LF line ends`},
		"locked":         {cmd: engine.Cmd{Path: in("locked")}, code: 126, err: unix.EACCES, text: in("locked") + ": its interpreter " + in("plain") + " cannot be executed"},
		"no #!":          {cmd: engine.Cmd{Path: in("bare")}, code: 126, err: unix.ENOEXEC, text: "has no #! line and is no program; add one, such as #!/bin/sh"},
		"empty":          {cmd: engine.Cmd{Path: in("empty")}, code: 126, err: unix.ENOEXEC, text: in("empty") + " is an empty file"},
		"truncated":      {cmd: engine.Cmd{Path: in("elf")}, code: 126, err: unix.ENOEXEC, text: in("elf") + " is not a program for this machine, or it is truncated"},
		"loader":         {cmd: engine.Cmd{Path: in("loader")}, code: 126, err: unix.ENOENT, text: "exists, but the loader it asks for does not", prep: func(t *testing.T) { loaderless(t, in("loader")) }},
		"long argument":  {cmd: engine.Cmd{Path: "/bin/true", Args: []string{"true", "", long}}, code: 126, err: unix.E2BIG, text: "argument 2 is 131072 bytes long and the kernel takes at most 131071"},
		"long variable":  {cmd: engine.Cmd{Path: "/bin/true", Env: []string{"BIG=" + long}}, code: 126, err: unix.E2BIG, text: "the variable BIG is 131076 bytes long"},
		"all too long":   {cmd: engine.Cmd{Path: "/bin/true", Env: many}, code: 126, err: unix.E2BIG, text: "arguments and environment are 7000220 bytes, more than the kernel takes"},
		"NUL":            {cmd: engine.Cmd{Path: "/bin/true", Args: []string{"true", "a\x00b"}}, code: 126, err: unix.EINVAL, text: "/bin/true: invalid argument"},
		"no cwd":         {cmd: engine.Cmd{Path: "/bin/true", Dir: in("nope")}, code: 126, err: fs.ErrNotExist, path: in("nope"), text: "cwd " + in("nope") + " does not exist"},
		"cwd is a file":  {cmd: engine.Cmd{Path: "/bin/true", Dir: in("plain")}, code: 126, err: unix.ENOTDIR, path: in("plain"), text: "cwd " + in("plain") + " is not a directory"},
		"cwd below one":  {cmd: engine.Cmd{Path: "/bin/true", Dir: in("plain/x")}, code: 126, err: unix.ENOTDIR, path: in("plain/x"), text: "cwd " + in("plain/x") + ": not a directory"},
		"cwd is closed": {cmd: engine.Cmd{Path: "/bin/true", Dir: in("closed"), UID: &nobody}, code: 126, err: unix.EACCES, text: "user 65534 may not run /bin/true, or not enter its cwd " + in("closed"), prep: func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("changing to another user takes root")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.prep != nil {
				tt.prep(t)
			}
			c := tt.cmd
			if c.Dir == "" {
				c.Dir = dir
			}
			if tt.path == "" {
				tt.path = c.Path
			}
			e := fails(t, engine.Local{}, &c)
			if e.ExitCode() != tt.code || !errors.Is(e, tt.err) || e.Path != tt.path || !strings.Contains(e.Error(), tt.text) {
				t.Errorf("code %d, path %s, cause %v: %v", e.ExitCode(), e.Path, e.Err, e)
			}
		})
		check(name)
	}
}

// TestSystemErrors: what the system may lack is told with what to do about it
// (rows 13–15). The tree fails as the system would.
func TestSystemErrors(t *testing.T) {
	t.Parallel()
	uid := uint32(1)
	for _, tt := range []struct {
		err  syscall.Errno
		uid  *uint32
		text string
	}{
		{unix.EMFILE, nil, "/bin/true: too many open files; raise ulimit -n or lower maxParallel"},
		{unix.ENFILE, nil, "/bin/true: too many open files; raise ulimit -n or lower maxParallel"},
		{unix.ENOMEM, nil, "/bin/true: cannot allocate memory"},
		{unix.EPERM, &uid, "/bin/true: not permitted to change to another uid or gid; that takes root"},
		{unix.EPERM, nil, "/bin/true: operation not permitted"},
		{unix.EACCES, nil, "/bin/true: permission denied (the file system may be mounted noexec)"},
		{unix.EAGAIN, nil, "/bin/true: the limit of processes is reached (ulimit -u); nothing was free for a second"},
		{unix.ETXTBSY, nil, "/bin/true is open for writing in another process, so it cannot be run"},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			t.Parallel()
			x := &tree{before: func(int) error { return tt.err }}
			e := fails(t, engine.Local{Tree: x}, &engine.Cmd{Path: "/bin/true", Dir: "/", UID: tt.uid})
			if e.Error() != tt.text || e.ExitCode() != 126 || !errors.Is(e, tt.err) {
				t.Errorf("%v", e)
			}
			if retried := tt.err == unix.EAGAIN || tt.err == unix.ETXTBSY; retried != (x.starts > 5) {
				t.Errorf("%d starts", x.starts)
			}
		})
	}
}

// TestNoDescriptors: without descriptors for its streams nothing is started, and
// those that were opened before are closed (row 15).
func TestNoDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	check := leaks(t)
	low := limit
	for free := range 8 { // two for each stream, and two for the fork
		open := descriptors(t, os.Getpid())
		low.Cur = 0
		for unused := 0; unused < free || open[int(low.Cur)] != ""; low.Cur++ {
			if open[int(low.Cur)] == "" {
				unused++
			}
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		_, err := engine.Local{}.Start(context.Background(), &engine.Cmd{Path: "/bin/true", Dir: "/", Stdin: endless{}, Stdout: &out, Stderr: &errs})
		if serr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); serr != nil {
			t.Fatal(serr)
		}
		var se *engine.StartError
		if !errors.As(err, &se) || !errors.Is(err, unix.EMFILE) || !strings.Contains(se.Error(), "raise ulimit -n") {
			t.Errorf("with %d free: %v", free, err)
		}
		check(fmt.Sprintf("with %d free", free))
	}
}

// TestBusyProgram: a program that is open for writing for a moment is tried
// again, until nobody wants it any more (row 10).
func TestBusyProgram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "prog")
	write(t, path, "#!/bin/sh\nexit 4\n", 0o755)
	busy := func() *os.File {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := busy()
	var failed []error
	x := &tree{failed: func(err error) { failed = append(failed, err); _ = f.Close() }}
	p := start(t, engine.Local{Tree: x}, &engine.Cmd{Path: path, Args: []string{"prog"}})
	if st := p.status(); st.Code != 4 {
		t.Error(st)
	}
	if len(failed) == 0 || !errors.Is(failed[0], unix.ETXTBSY) {
		t.Errorf("it failed with %v before", failed)
	}

	f = busy()
	defer f.Close()
	why := errors.New("the reason")
	ctx, cancel := context.WithCancelCause(context.Background())
	x = &tree{failed: func(error) { cancel(why) }}
	if _, err := (engine.Local{Tree: x}).Start(ctx, &engine.Cmd{Path: path, Args: []string{"prog"}, Dir: "/"}); !errors.Is(err, why) || errors.Is(err, unix.ETXTBSY) {
		t.Errorf("%v, where the run was to end", err)
	}
	if x.starts != 1 {
		t.Errorf("%d starts after the context was done", x.starts)
	}
}

// TestConfinedDir: the directory that is opened for a child is inside of the
// root, and a directory (row 115).
func TestConfinedDir(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	root := filepath.Join(base, "root")
	if err := os.MkdirAll(filepath.Join(root, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "file"), "", 0o600)
	if err := os.Symlink("..", filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	d, err := safety.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for path, text := range map[string]string{
		"root/sub": "", "root": "",
		"root/file": "is not a directory", "root/nope": "no such file or directory", "root/out": "it is outside of the root " + root, "": "it is outside of the root",
	} {
		path = filepath.Join(base, path)
		f, err := engine.OpenDir(d, path)
		var se *engine.StartError
		switch {
		case text == "" && err == nil:
			info, err := f.Stat()
			if err != nil || !info.IsDir() {
				t.Errorf("%s: %v, %v", path, info, err)
			}
			_ = f.Close()
		case text == "" || !errors.As(err, &se) || se.Path != path || !strings.HasPrefix(se.Error(), "cwd "+path+": ") || !strings.Contains(se.Error(), text):
			t.Errorf("%s: %v", path, err)
		}
	}
	if f, err := engine.OpenDir(nil, "/nope"); f != nil || err != nil {
		t.Errorf("without a root: %v, %v", f, err)
	}
}
