package safety_test

// This file holds environments and the look-up of programs.

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
