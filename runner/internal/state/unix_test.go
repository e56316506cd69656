//go:build unix

package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	roles["lock"] = func(args []string) error { // holds the lock of a file until stdin ends
		f, err := OpenFile(args[0], os.O_RDWR|os.O_CREATE)
		if err != nil {
			return err
		}
		if err := Lock(f); err != nil {
			return err
		}
		fmt.Println("locked")
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// umask sets the umask of the test, which must not be parallel to others.
func umask(t *testing.T, mask int) {
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

// TestModes: what is made is the user's alone, whatever the umask is.
func TestModes(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o277} {
		t.Run(fmt.Sprintf("%04o", mask), func(t *testing.T) {
			top := t.TempDir()
			umask(t, mask)
			state := filepath.Join(top, "a", "b", "state")
			sub, err := Sub(state, "jobs")
			if err != nil || sub != filepath.Join(state, "jobs") {
				t.Fatal(sub, err)
			}
			for dir := sub; dir != top; dir = filepath.Dir(dir) {
				if m := mode(t, dir); m != 0o700 {
					t.Errorf("%s has mode %04o", dir, m)
				}
			}
			f, err := OpenFile(filepath.Join(state, "opened"), os.O_WRONLY|os.O_CREATE)
			if err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			if err := errors.Join(Replace(filepath.Join(state, "replaced"), nil), ReplaceSynced(filepath.Join(state, "synced"), nil)); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"opened", "replaced", "synced"} {
				if m := mode(t, filepath.Join(state, name)); m != 0o600 {
					t.Errorf("%s has mode %04o", name, m)
				}
			}
			if _, err := NewHasher(state); err != nil {
				t.Fatal(err)
			}
			if m := mode(t, filepath.Join(state, "key")); m&^0o600 != 0 || m == 0 {
				t.Errorf("the key has mode %04o", m)
			}
		})
	}
}

// TestPrivate: a folder that others can read is closed; one that others could
// have written to, a link to a folder and a file are refused.
func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, m := range map[string]fs.FileMode{"open": 0o755, "shut": 0o700, "strict": 0o500, "group": 0o770, "others": 0o702} {
		if err := os.Mkdir(path(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path(name), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"link": "shut", "dangling": "nowhere"} {
		if err := os.Symlink(path(to), path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"open": "", "shut": "", "strict": "", "new": "", "far/off/new": "",
		"group":    "others can write to " + path("group") + " (mode 0770); see what is in it, and chmod 700 it",
		"others":   "others can write to ",
		"file":     path("file") + " is not a folder",
		"link":     path("link") + " is not a folder",
		"dangling": path("dangling") + " is not a folder",
		"file/in":  "not a directory",
	} {
		err := Private(path(name))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want == "":
			if m := mode(t, path(name)); m != 0o700 {
				t.Errorf("%s has mode %04o", name, m)
			}
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, expected %q", name, err, want)
		}
	}
	if m := mode(t, path("group")); m != 0o770 {
		t.Errorf("a folder that is refused has mode %04o now", m)
	}
	if _, err := os.Lstat(path("nowhere")); err == nil {
		t.Error("a folder was made behind a link")
	}
	for _, folder := range []string{"link", "group", "file"} {
		if sub, err := Sub(path(folder), "jobs"); err == nil || sub != "" {
			t.Errorf("Sub of %s: %q, %v", folder, sub, err)
		}
		if _, err := NewHasher(path(folder)); err == nil {
			t.Errorf("a key was made in %s", folder)
		}
	}
}

// TestForeign: what belongs to another user is refused.
func TestForeign(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file away")
	}
	dir := t.TempDir()
	folder, file := filepath.Join(dir, "folder"), filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(file); err != nil || string(b) != "x" {
		t.Fatalf("before: %q, %v", b, err)
	}
	if err := errors.Join(os.Chown(folder, 12345, -1), os.Chown(file, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	want := " belongs to user 12345, not to this user (0)"
	if err := Private(folder); err == nil || err.Error() != folder+want {
		t.Errorf("Private: %v", err)
	}
	if b, err := Read(file); err == nil || err.Error() != file+want {
		t.Errorf("Read: %q, %v", b, err)
	}
	if f, err := Open(file); err == nil || f != nil {
		t.Errorf("Open: %v, %v", f, err)
	}
}

// TestLinks: no link is followed, neither to read nor to write, and what it
// points to stays as it is; what is no regular file is not read, and nobody
// waits for it.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	precious := bytes.Repeat([]byte("precious"), 4) // as long as a key
	if err := os.WriteFile(target, precious, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	for _, name := range []string{"link", "key", "synced.new", "replaced"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := Read(link); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Read: %q, %v", b, err)
	}
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY | os.O_CREATE | os.O_TRUNC, os.O_RDWR | os.O_APPEND} {
		if _, err := OpenFile(link, flag); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("OpenFile(%#x): %v", flag, err)
		}
	}
	if _, err := NewHasher(dir); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("NewHasher: %v", err)
	}
	if err := ReplaceSynced(filepath.Join(dir, "synced"), []byte("x")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("ReplaceSynced: %v", err)
	}
	if err := Replace(filepath.Join(dir, "replaced"), []byte("x")); err != nil {
		t.Errorf("Replace: %v", err)
	}
	if b, err := os.ReadFile(target); err != nil || !bytes.Equal(b, precious) || mode(t, target) != 0o644 {
		t.Errorf("the target is %q with mode %04o, %v", b, mode(t, target), err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir, os.DevNull} {
		if b, err := Read(path); err == nil || err.Error() != path+" is not a regular file" {
			t.Errorf("Read(%s): %q, %v", path, b, err)
		}
	}
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Read of none: %v", err)
	}
}

// TestLock: a lock is another process's until that ends, however it does.
func TestLock(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"killed", "ended"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "lock")
			a := act(t, "lock", path)
			a.line(t)
			f, err := OpenFile(path, os.O_RDWR)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if held, err := TryLock(f); held || err != nil {
				t.Fatalf("TryLock while another process has it: %v, %v", held, err)
			}
			if !Held(f) {
				t.Error("it is not said to be held")
			}
			start := time.Now()
			if err := Lock(f); err == nil || err.Error() != path+" is locked by another process" {
				t.Errorf("Lock: %v", err)
			} else if d := time.Since(start); d < time.Second || d > 30*time.Second {
				t.Errorf("it gave up after %s", d)
			}
			if how == "killed" {
				_ = a.Process.Kill()
			} else {
				_ = a.in.Close()
			}
			_ = a.Wait()
			if Held(f) {
				t.Error("it is said to be held by one that has ended")
			}
			if held, err := TryLock(f); !held || err != nil {
				t.Errorf("TryLock after its end: %v, %v", held, err)
			}
		})
	}
}

// TestLockWaits: Lock has the lock as soon as who only looked has let it go.
func TestLockWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := OpenFile(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	looks, too, wants := open(), open(), open()
	if Held(looks) || Held(too) {
		t.Fatal("two that look stand in each other's way")
	}
	_ = too.Close()
	if held, err := TryLock(wants); held || err != nil {
		t.Fatalf("TryLock while another looks: %v, %v", held, err)
	}
	done := make(chan error, 1)
	go func() { done <- Lock(wants) }()
	_ = looks.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !Held(open()) {
		t.Error("it is not locked")
	}
}

// TestLockFails: what cannot be locked is an error, and not held.
func TestLockFails(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if held, err := TryLock(f); held || err == nil {
		t.Errorf("TryLock of a closed file: %v, %v", held, err)
	}
	if err := Lock(f); err == nil || Held(f) {
		t.Errorf("Lock of a closed file: %v", err)
	}
}
