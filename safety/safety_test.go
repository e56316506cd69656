package safety_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pipe-runner/pipe/safety"
)

func TestEnv(t *testing.T) {
	caller := []string{"PATH=/bin", "HOME=/root", "LC_ALL=C", "BASH_ENV=x", "ENV=x", "BASH_FUNC_f%%=() { :; }", "NODE_CHANNEL_FD=3", "=odd", "odd"}
	var zero safety.Env
	if got := zero.Environ(); got == nil || len(got) != 0 {
		t.Errorf("the zero Env is %q", got)
	}
	var all safety.Env
	all.Inherit(caller)
	if got := all.Environ(); !slices.Equal(got, []string{"HOME=/root", "LC_ALL=C", "PATH=/bin"}) {
		t.Errorf("inherited %q", got)
	}
	var named safety.Env
	if err := named.InheritNamed(caller, []string{"L*", "BASH*", "ENV", "NODE_*"}); err != nil {
		t.Fatal(err)
	}
	if got := named.Environ(); !slices.Equal(got, []string{"ENV=x", "LC_ALL=C"}) {
		t.Errorf("by name %q", got)
	}
	if named.InheritNamed(caller, []string{"["}) == nil {
		t.Error("a malformed glob is no error")
	}
	for _, bad := range [][2]string{{"", "x"}, {"A=B", "x"}, {"A\x00", "x"}, {"A", "x\x00"}} {
		if named.Set(bad[0], bad[1]) == nil {
			t.Errorf("%q=%q is accepted", bad[0], bad[1])
		}
	}
	_ = named.Set("ENV", "a\nB=c") // row 105: one variable
	named.Unset("LC_ALL")
	if got := named.Environ(); !slices.Equal(got, []string{"ENV=a\nB=c"}) {
		t.Errorf("set %q", got)
	}
}

func TestParseEnvFile(t *testing.T) {
	names, values, err := safety.ParseEnvFile("\ufeff# x\r\n\r\nA=1\r\nexport B = two # note\nC='$x # \\n'\nD=\"a\\nb \\$x \\q\" # y\nE=\n")
	if err != nil || !slices.Equal(names, []string{"A", "B", "C", "D", "E"}) || !slices.Equal(values, []string{"1", "two", `$x # \n`, "a\nb $x \\q", ""}) {
		t.Errorf("%q %q %v", names, values, err)
	}
	for _, bad := range []string{"A", "=x", "A B=x", "A='x", `A="x" y`} {
		if _, _, err := safety.ParseEnvFile(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestLookPath: rows 1, 2, 4, 5, 20, 21.
func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"prog": 0o755, "plain": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		program, path string
		err           error
	}{
		{"prog", "/nope:" + dir, nil},
		{"./prog", "", nil},
		{filepath.Join(dir, "prog"), "", nil},
		{"plain", dir, safety.ErrNotExecutable},
		{"./plain", "", safety.ErrNotExecutable},
		{"missing", dir, safety.ErrNotFound},
		{"prog", "", safety.ErrNotFound},
		{"prog", ":.:", safety.ErrNotFound},
	} {
		got, err := safety.LookPath(tt.program, tt.path, dir)
		if !errors.Is(err, tt.err) || err == nil && got != filepath.Join(dir, "prog") {
			t.Errorf("%s in %q: %q, %v", tt.program, tt.path, got, err)
		}
	}
	if _, err := safety.LookPath(dir, "", dir); err == nil {
		t.Error("a directory is a program")
	}
}

// TestHistory: where each variable comes from, also one that was removed.
func TestHistory(t *testing.T) {
	var e safety.Env
	e.Trace()
	e.From("inherited")
	e.Inherit([]string{"A=1", "B=2"})
	e.From("file")
	if err := e.Set("A", "3"); err != nil {
		t.Fatal(err)
	}
	e.From("unset")
	e.Unset("B")
	e.Unset("C")
	if v, ok := e.Lookup("A"); v != "3" || !ok {
		t.Errorf("A is %q", v)
	}
	if _, ok := e.Lookup("B"); ok {
		t.Error("B is there")
	}
	h := e.History()
	if !slices.Equal(h["A"], []safety.Origin{{Source: "inherited", Value: "1"}, {Source: "file", Value: "3"}}) || !slices.Equal(h["B"], []safety.Origin{{Source: "inherited", Value: "2"}, {Source: "unset", Unset: true}}) || len(h) != 2 {
		t.Errorf("%v", h)
	}
	if err := e.Set("NODE_CHANNEL_FD", "3"); err == nil {
		t.Error("the channel of the runner's parent is set")
	}
}

// TestLookPathErrors: what is said, and what the cause is.
func TestLookPathErrors(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		program, path, want string
		is                  error
	}{
		{"plain", dir, plain + " is not executable; chmod +x it, or name its interpreter", safety.ErrNotExecutable},
		{"none", dir, `program "none" not found in PATH (` + dir + ")", safety.ErrNotFound},
		{"none", "", `program "none" not found: PATH is empty`, safety.ErrNotFound},
		{"cd", dir, `program "cd" not found in PATH (` + dir + "); cd is a shell builtin; use cwd:, env: or exec", safety.ErrNotFound},
		{"ls -l", dir, `program "ls -l" not found in PATH (` + dir + "); the blanks are part of the name; write [ls, -l], or use exec", safety.ErrNotFound},
		{"plain", "/none", `program "plain" not found in PATH (/none); the folder of the step has a file of that name; write ./plain`, safety.ErrNotFound},
		{"./none", "", "program ./none not found", safety.ErrNotFound},
		{dir, "", dir + ": is a directory, not a program", nil},
		{plain + "/x", "", plain + "/x: not a directory", nil},
	} {
		_, err := safety.LookPath(tt.program, tt.path, dir)
		var le *safety.LookPathError
		if !errors.As(err, &le) || err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) || le.Program != tt.program {
			t.Errorf("%s in %q: got\n  %v\nexpected\n  %s", tt.program, tt.path, err, tt.want)
		}
	}
}
