//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pipeCommand returns this test binary as pipe, which testscript.Main made it.
func pipeCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("pipe")
	if err != nil {
		t.Fatal(err) // testscript.Main puts it into PATH
	}
	c := exec.Command(path, args...)
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	c.Dir = t.TempDir()
	return c
}

const family = `
steps:
  - spawn: [sh, -c, 'hold $PWD/one & leaver hold $PWD/two; leaver sh -c "leaver hold $PWD/three; hold $PWD/four"; hold $PWD/five']
  - if: always()
    spawn: [touch, cleaned]
`

// TestKilled: after a SIGKILL of either process of the runner no descendant
// lives after a second: not a child, not one that left the group, not a daemon
// (rows 58, 62).
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"first", "second"} {
		t.Run(victim, func(t *testing.T) {
			c := pipeCommand(t, "run", "f.yaml")
			if err := os.WriteFile(filepath.Join(c.Dir, "f.yaml"), []byte(family), 0o600); err != nil {
				t.Fatal(err)
			}
			c.Env = append(c.Env, "PWD="+c.Dir)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{"one", "two", "three", "four", "five"} {
				ready(t, filepath.Join(c.Dir, f))
			}
			pid := c.Process.Pid
			if victim == "second" {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
				if err != nil || len(b) == 0 {
					all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
					for _, f := range all {
						if x, _ := os.ReadFile(f); len(x) > 0 {
							b = x
						}
					}
				}
				if _, err := fmt.Sscan(string(b), &pid); err != nil {
					t.Fatal(err)
				}
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait()
			if _, err := os.Stat(filepath.Join(c.Dir, "cleaned")); err == nil {
				t.Error("a step started after the kill")
			}
			awaitGone(t, c.Dir, time.Second)
		})
	}
}

// TestSignalled: a signal to the runner ends what runs, lets it clean up, and
// is the exit status (row 73).
func TestSignalled(t *testing.T) {
	t.Parallel()
	for sig, status := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
		c := pipeCommand(t, "run", "f.yaml")
		if err := os.WriteFile(filepath.Join(c.Dir, "f.yaml"), []byte(family), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Env = append(c.Env, "PWD="+c.Dir)
		var stderr strings.Builder
		c.Stderr = &stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"one", "two", "three", "four", "five"} {
			ready(t, filepath.Join(c.Dir, f))
		}
		_ = c.Process.Signal(sig)
		_ = c.Wait()
		if got := c.ProcessState.ExitCode(); got != status {
			t.Errorf("%s: status %d, expected %d\n%s", sig, got, status, stderr.String())
		}
		if _, err := os.Stat(filepath.Join(c.Dir, "cleaned")); err != nil {
			t.Errorf("%s: nothing was cleaned up\n%s", sig, stderr.String())
		}
		if p := find(c.Dir); p != "" {
			t.Errorf("%s: alive after the end: %q", sig, p)
		}
	}
}

// TestSignalledTwice: a second signal is SIGKILL for what ignores the first
// (row 67), also for what a step that has ended left behind.
func TestSignalledTwice(t *testing.T) {
	t.Parallel()
	for name, yaml := range map[string]string{
		"running": `steps: [{spawn: [sh, -c, 'trap "echo x >got" INT TERM; echo x >one; while :; do sleep 0.01; done'], killAfter: 100s}]`,
		"left":    `steps: [{spawn: [sh, -c, 'sh -c "trap \"echo x >got\" INT TERM; echo x >one; while :; do sleep 0.01; done" >/dev/null 2>&1 & while ! test -s one; do :; done'], killAfter: 100s}]`,
	} {
		t.Run(name, func(t *testing.T) {
			c := pipeCommand(t, "run", "f.yaml")
			if err := os.WriteFile(filepath.Join(c.Dir, "f.yaml"), []byte(yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ready(t, filepath.Join(c.Dir, "one"))
			_ = c.Process.Signal(syscall.SIGINT)
			ready(t, filepath.Join(c.Dir, "got"))
			_ = c.Process.Signal(syscall.SIGINT)
			_ = c.Wait()
			if got := c.ProcessState.ExitCode(); got != 130 {
				t.Errorf("status %d, expected 130", got)
			}
		})
	}
}

// TestKilledBeforeSplit: the second process runs nothing where the first one was
// killed before the second came to look for it.
func TestKilledBeforeSplit(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("steps: [{exec: 'echo ran'}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{true, false} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close(); _ = w.Close() }()
		if gone {
			_ = w.Close()
		}
		c := pipeCommand(t, "run", "a.yaml")
		c.Dir, c.Env, c.ExtraFiles = dir, append(os.Environ(), "PIPE_GUARD=3:4:1", "PIPE_STATE_DIR="+dir+"/state"), []*os.File{r}
		out, _ := c.CombinedOutput()
		if code := c.ProcessState.ExitCode(); gone && (code != 137 || len(out) > 0) || !gone && (code != 0 || string(out) != "ran\n") {
			t.Errorf("the first process is gone: %t: exit code %d, %q", gone, code, out)
		}
	}
}
