//go:build unix

package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/internal/state"
)

// holder is the variable that makes the test program hold a lock until it is
// killed, in the folder of state that it names.
const holder = "PIPE_TEST_HOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(holder); folder != "" {
		_, err := Lock(context.Background(), []string{"PIPE_STATE_DIR=" + folder}, "one", nil, "child.yaml", nil)
		fmt.Println("holds it:", err)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the tests are gone, at the latest
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lockDir returns the environment of a new folder of state.
func lockDir(t *testing.T) []string {
	t.Helper()
	return []string{"PIPE_STATE_DIR=" + filepath.Join(t.TempDir(), "state")}
}

// within waits for one value, for long enough that only a bug makes it too short.
func within[T any](t *testing.T, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited 20 s for %s", what)
	}
	return v
}

// TestLock: one holder at a time; who waits is told for whom, once, and gets it
// when it is given back.
func TestLock(t *testing.T) {
	t.Parallel()
	ctx, environ := t.Context(), lockDir(t)
	unlock, err := Lock(ctx, environ, "one", nil, "a.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(fmt.Sprintf(`^lock one is held by pid %d \(a\.yaml\), since \d{4}-\d\d-\d\dT[^ ]+$`, os.Getpid()))
	var le *LockError
	if _, err := Lock(ctx, environ, "one", new(time.Duration), "b.yaml", func(string) { t.Error("it waits") }); !errors.As(err, &le) || le.Name != "one" || !form.MatchString(err.Error()) {
		t.Errorf("not waiting: %v", err)
	}
	if other, err := Lock(ctx, environ, "two", new(time.Duration), "b.yaml", nil); err != nil {
		t.Errorf("another lock: %v", err)
	} else {
		other()
	}
	short := 20 * time.Millisecond
	told := 0
	if _, err := Lock(ctx, environ, "one", &short, "b.yaml", func(string) { told++ }); !errors.As(err, &le) || told != 1 {
		t.Errorf("waiting for a moment: %v, told %d times", err, told)
	}
	waits, got := make(chan string, 10), make(chan error, 1)
	go func() {
		unlock, err := Lock(ctx, environ, "one", nil, "c.yaml", func(who string) { waits <- who })
		if err == nil {
			unlock()
		}
		got <- err
	}()
	if who := within(t, "the one who waits", waits); !form.MatchString(who) {
		t.Errorf("%q", who)
	}
	unlock()
	if err := within(t, "the lock", got); err != nil {
		t.Error(err)
	}
	unlock, err = Lock(ctx, environ, "one", new(time.Duration), "d.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestLockCancelled: the end of the context ends the waiting, with its cause.
func TestLockCancelled(t *testing.T) {
	t.Parallel()
	environ := lockDir(t)
	unlock, err := Lock(t.Context(), environ, "one", nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := Lock(ctx, environ, "one", nil, "", func(string) { cancel(why) })
		got <- err
	}()
	if err := within(t, "the end of the waiting", got); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// TestLockOfKilled: the kernel frees the lock of a process that is killed.
func TestLockOfKilled(t *testing.T) {
	t.Parallel()
	environ := lockDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), holder+"="+strings.TrimPrefix(environ[0], "PIPE_STATE_DIR="))
	in, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- line
	}()
	if line := within(t, "the child's lock", lines); line != "holds it: <nil>\n" {
		t.Fatalf("%q", line)
	}
	waits, got := make(chan string, 1), make(chan error, 1)
	go func() {
		unlock, err := Lock(t.Context(), environ, "one", nil, "", func(who string) { waits <- who })
		if err == nil {
			unlock()
		}
		got <- err
	}()
	if who := within(t, "the one who waits", waits); !strings.HasPrefix(who, fmt.Sprintf("lock one is held by pid %d (child.yaml), since ", child.Process.Pid)) {
		t.Errorf("%q", who)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "the lock of the one who was killed", got); err != nil {
		t.Error(err)
	}
	_ = child.Wait()
}

// TestLockErrors: names that are none, folders that cannot be had.
func TestLockErrors(t *testing.T) {
	t.Parallel()
	environ := lockDir(t)
	for _, name := range []string{"", ".", "..", ".x", "-x", "a/b", "a b", "ä", "a\n", strings.Repeat("a", 101), strings.Repeat("a", 1000)} {
		want := fmt.Sprintf("lock %.120q: a name has letters, digits, _, - and . (at most 100), and begins with a letter, digit or _", name)
		_, err := Lock(t.Context(), environ, name, nil, "", nil)
		if err == nil || err.Error() != want || len(err.Error()) > 250 {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"a", "_", "0", "A.b-c_d", strings.Repeat("a", 100)} {
		unlock, err := Lock(t.Context(), environ, name, nil, "", nil)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		unlock()
	}
	if _, err := Lock(t.Context(), nil, "one", nil, "", nil); !errors.Is(err, ErrNoState) || !strings.HasPrefix(err.Error(), "lock one: ") {
		t.Errorf("without a folder: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(t.Context(), []string{"PIPE_STATE_DIR=" + file}, "one", nil, "", nil); err == nil || !strings.Contains(err.Error(), file+" is not a folder") {
		t.Errorf("a folder that is a file: %v", err)
	}
	folder, err := StateDir(environ)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(folder, "locks", "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(t.Context(), environ, "link", nil, "", nil); err == nil || !strings.HasPrefix(err.Error(), "lock link: ") {
		t.Errorf("a lock that is a link: %v", err)
	}
}

// TestHolder: what a holder wrote is shown as far as it is text.
func TestHolder(t *testing.T) {
	t.Parallel()
	environ := lockDir(t)
	folder, err := StateDir(environ)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := state.Sub(folder, "locks")
	if err != nil {
		t.Fatal(err)
	}
	f, err := state.OpenFile(filepath.Join(dir, "one"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if held, err := state.TryLock(f); err != nil || !held {
		t.Fatal(held, err)
	}
	for text, want := range map[string]string{
		"": "lock one is held by another run", "me\nand more": "lock one is held by me", "a\x1b[31m": "lock one is held by a", "\n": "lock one is held by another run",
		strings.Repeat("x", 400): "lock one is held by " + strings.Repeat("x", 300),
	} {
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(int64(len(text))); err != nil {
			t.Fatal(err)
		}
		if _, err := Lock(t.Context(), environ, "one", new(time.Duration), "", nil); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestStateDir: which variable names the folder.
func TestStateDir(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ environ, want, err string }{
		{"PIPE_STATE_DIR=/p XDG_STATE_HOME=/x HOME=/h", "/p", ""},
		{"XDG_STATE_HOME=/x HOME=/h", "/x/pipe", ""},
		{"HOME=/h", "/h/.local/state/pipe", ""},
		{"PIPE_STATE_DIR= XDG_STATE_HOME= HOME=/h", "/h/.local/state/pipe", ""},
		{"PIPE_STATE_DIR=rel HOME=/h", "", `PIPE_STATE_DIR is "rel"; expected an absolute path`},
		{"XDG_STATE_HOME=rel HOME=/h", "/h/.local/state/pipe", ""},
		{"XDG_STATE_HOME=rel HOME=rel", "", ErrNoState.Error()},
		{"", "", ErrNoState.Error()},
		{"PIPE_STATE_DIRX=/p HOMER=/h", "", ErrNoState.Error()},
		{"HOME=/a HOME=/b", "/b/.local/state/pipe", ""},
	} {
		got, err := StateDir(strings.Fields(tt.environ))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %q, %v", tt.environ, got, err)
		}
		if tt.err == ErrNoState.Error() && !errors.Is(err, ErrNoState) {
			t.Errorf("%s: %#v", tt.environ, err)
		}
	}
}
