package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// roleVar names what the test program is to do in place of its tests.
const roleVar = "STATE_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"key": func(args []string) error { // says the digest of a word, once it is told to go
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		h, err := NewHasher(args[0])
		if err != nil {
			return err
		}
		fmt.Println(h.Digest("word"))
		return nil
	},
	"replace": func(args []string) error { // replaces a file for ever
		one, two := contents()
		for first := true; ; first = false {
			if err := errors.Join(replacers[args[0]](args[1], one), replacers[args[0]](args[1], two)); err != nil {
				return err
			}
			if first {
				fmt.Println("ready")
			}
		}
	},
}

var replacers = map[string]func(string, []byte) error{"Replace": Replace, "ReplaceSynced": ReplaceSynced}

// TestMain makes the test program a process that a test starts, if it has a role:
// whole processes are tried, too.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// actor is the test program in a role.
type actor struct {
	*exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

// act starts the test program in a role, and kills it at the end of the test if
// that has not ended it. It is given up, and so is what waits for its lines,
// after a minute.
func act(t *testing.T, role string, args ...string) *actor {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe, args...)
	c.Env = append(os.Environ(), roleVar+"="+role, "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() {
		fmt.Fprintf(os.Stderr, "the %s process is killed: it took more than a minute\n", role)
		_ = c.Process.Kill()
	})
	t.Cleanup(func() {
		limit.Stop()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return &actor{c, in, bufio.NewReader(out)}
}

// line returns the next line that it writes.
func (a *actor) line(t *testing.T) string {
	t.Helper()
	l, err := a.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the other process ended before it wrote a line: %v", err)
	}
	return strings.TrimSuffix(l, "\n")
}

func TestSeal(t *testing.T) {
	type value struct {
		S string
		N any
		M map[string]any
	}
	v := value{"two\nlines \"é\"", json.Number("9007199254740993"), map[string]any{"x": []any{true, nil}}}
	line, err := Seal(v)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(line, []byte("\n")); n != 1 || line[len(line)-1] != '\n' {
		t.Errorf("%q is not one line", line)
	}
	for _, l := range [][]byte{line, line[:len(line)-1]} { // as a scanner gives it
		var got value
		if err := Unseal(l, &got); err != nil || got.S != v.S || got.N != v.N || fmt.Sprint(got.M) != fmt.Sprint(v.M) {
			t.Errorf("Unseal(%q): %+v, %v", l, got, err)
		}
	}
	if _, err := Seal(func() {}); err == nil {
		t.Error("a function was sealed")
	}
}

// TestUnsealDamaged: no line that was cut anywhere, and none of which one bit is
// another, is read.
func TestUnsealDamaged(t *testing.T) {
	line, err := Seal(map[string]string{"name": "tick", "state": "running"})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, l []byte) {
		t.Helper()
		v := map[string]string{}
		if err := Unseal(l, &v); !errors.Is(err, ErrTorn) || len(v) != 0 {
			t.Errorf("%s: %q was read as %v, %v", what, l, v, err)
		}
	}
	body := line[:len(line)-1]
	for n := range len(body) {
		refused(fmt.Sprintf("cut at %d", n), body[:n])
		for bit := range 8 {
			l := slices.Clone(body)
			l[n] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, n), l)
		}
	}
	refused("another line behind it", append(slices.Clone(line), line...))
	refused("upper-case checksum", append(bytes.ToUpper(line[:8]), line[8:]...))
	refused("zeros", make([]byte, len(line)))
}

// contents are what a file is replaced by, by turns; both are larger than what
// is written at once.
func contents() (one, two []byte) {
	return bytes.Repeat([]byte("1"), 1<<17), bytes.Repeat([]byte("2"), 1<<17)
}

// TestReplace: who reads a file while it is replaced reads the old one or the
// new one; so does who reads it after the writer was killed.
func TestReplace(t *testing.T) {
	for name, replace := range replacers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			one, two := contents()
			for range 5 {
				a := act(t, "replace", name, path)
				a.line(t)
				for range 40 {
					if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, one) && !bytes.Equal(b, two) {
						t.Fatalf("%d bytes were read: %v", len(b), err)
					}
				}
				_ = a.Process.Kill()
				_ = a.Wait()
				if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, one) && !bytes.Equal(b, two) {
					t.Fatalf("%d bytes are left after a kill: %v", len(b), err)
				}
			}
			if err := replace(path, []byte("last")); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "last" {
				t.Errorf("the file has %q, %v", b, err)
			}
		})
	}
}

// TestReplaceFails: where a file cannot be replaced the error says so, and
// nothing is left of the attempt.
func TestReplaceFails(t *testing.T) {
	for name, replace := range replacers {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := replace(path, []byte("x")); err == nil {
			t.Errorf("%s: a folder was replaced", name)
		}
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("%s left %q", name, got)
		}
		if err := replace(filepath.Join(dir, "missing", "file"), nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s in a folder that is missing: %v", name, err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestHasher: a digest is the same for the same key only, tells words apart, and
// is not one that somebody without the key can compute.
func TestHasher(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	h, err := NewHasher(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewHasher(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewHasher(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string][]string{}
	for _, words := range [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"b", "a"}, {"ab", ""}, {"", "ab"}, {strings.Repeat("x", 300)}} {
		d := h.Digest(words...)
		if d != h.Digest(words...) || d != again.Digest(words...) {
			t.Errorf("the digest of %q changes", words)
		}
		if d == other.Digest(words...) {
			t.Errorf("the digest of %q does not depend on the key", words)
		}
		if was, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", was, words)
		}
		seen[d] = words
		if plain := sha256.Sum256([]byte(strings.Join(words, ""))); d == hex.EncodeToString(plain[:16]) {
			t.Errorf("the digest of %q can be computed without the key", words)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"key"}) {
		t.Errorf("the folder has %q", got)
	}
}

func TestDigestOf(t *testing.T) {
	digest := func(h *Hasher, r io.Reader) string {
		t.Helper()
		d, err := h.DigestOf(r)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	h, other := &Hasher{bytes.Repeat([]byte{1}, 32)}, &Hasher{bytes.Repeat([]byte{2}, 32)}
	d := digest(h, strings.NewReader("secret"))
	if d != digest(h, io.MultiReader(strings.NewReader("sec"), strings.NewReader("ret"))) {
		t.Error("it depends on how the reader gives it")
	}
	if d == digest(other, strings.NewReader("secret")) || d == digest(h, strings.NewReader("Secret")) {
		t.Error("another key, or another text, has the same digest")
	}
	broken := errors.New("broken")
	if d, err := h.DigestOf(io.MultiReader(strings.NewReader("sec"), errReader{broken})); !errors.Is(err, broken) || d != "" {
		t.Errorf("of a reader that fails: %q, %v", d, err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestKeyTorn: a key that a crash tore is made anew, and nothing else is.
func TestKeyTorn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, torn := range []string{"", "half of a key", strings.Repeat("x", 33)} {
		if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := NewHasher(dir)
		if err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(key, h.key) || len(key) != sha256.Size || bytes.Equal(key, make([]byte, sha256.Size)) {
			t.Errorf("after a key of %d bytes: it is of %d bytes now, %v", len(torn), len(key), err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := NewHasher(dir); err == nil {
		t.Error("a folder was taken for the key")
	}
}

// TestKeyAtOnce: processes that need the key of a new folder at once have the
// same.
func TestKeyAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var all [8]*actor
	for i := range all {
		all[i] = act(t, "key", dir)
	}
	for _, a := range all {
		a.line(t)
	}
	var wg sync.WaitGroup
	for _, a := range all {
		wg.Go(func() { _, _ = io.WriteString(a.in, "go\n") })
	}
	wg.Wait()
	want := all[0].line(t)
	for _, a := range all[1:] {
		if got := a.line(t); got != want {
			t.Errorf("one has %s, another one %s", got, want)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"key"}) {
		t.Errorf("the folder has %q", got)
	}
}
