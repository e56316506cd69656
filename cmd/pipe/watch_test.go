//go:build linux

package main

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched is a pipe run --watch, and the lines that it writes.
type watched struct {
	t     *testing.T
	dir   string
	lines chan string
	end   func(syscall.Signal) error
}

func startWatch(t *testing.T, files map[string]string) *watched {
	t.Helper()
	c := pipeCommand(t, "run", "w.yaml", "--watch", "--output", "plain")
	for name, text := range files {
		path := filepath.Join(c.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pr, pw := io.Pipe()
	c.Stdout, c.Stderr = pw, pw
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, dir: c.Dir, lines: make(chan string, 1000)}
	go func() {
		in := bufio.NewScanner(pr)
		for in.Scan() {
			w.lines <- in.Text()
		}
		close(w.lines)
	}()
	w.end = func(sig syscall.Signal) error {
		_ = c.Process.Signal(sig)
		err := c.Wait()
		_ = pw.Close()
		return err
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	return w
}

// expect waits for a line with the text, and returns those before it.
func (w *watched) expect(text string) (before []string) {
	w.t.Helper()
	limit := time.After(longest)
	for {
		select {
		case l, ok := <-w.lines:
			if !ok {
				w.t.Fatalf("it ended before %q; it wrote %q", text, before)
			}
			if strings.Contains(l, text) {
				return before
			}
			before = append(before, l)
		case <-limit:
			w.t.Fatalf("%q does not come; there is %q", text, before)
		}
	}
}

func (w *watched) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// TestWatch: a change of content starts a run, a write without one does not,
// also one by the step itself; a new folder is seen, and a broken file is said
// and mended.
func TestWatch(t *testing.T) {
	t.Parallel()
	w := startWatch(t, map[string]string{
		"src/a": "one\n",
		"w.yaml": `
steps:
  - {name: s, sources: ["src/**"], spawn: [sh, -c, "cat src/*; cp src/a b; cat b >src/a; echo ran"]}
`})
	w.expect("ran")
	w.expect("watching 1 files")
	w.write("src/a", "one\n") // nothing comes of it: the next line is of the next write
	w.write("src/a", "two\n")
	if got := w.expect("src/a changed"); len(got) != 0 {
		t.Errorf("there is %q before the change", got)
	}
	w.expect("ran")
	if got := w.expect("watching 1 files"); len(got) != 0 {
		t.Errorf("the step's own write did something: %q", got)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "src/deep/er"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("src/deep/er/b", "three\n")
	w.expect("src/deep/er/b changed")
	w.expect("watching 2 files")
	w.write("w.yaml", "steps: [{spwan: [x]}]\n")
	w.expect("unknown key")
	w.write("w.yaml", "steps: [{name: s, sources: [src/a], spawn: [echo, mended]}]\n")
	w.expect("mended")
	w.expect("watching 1 files")
	if err := w.end(syscall.SIGINT); err == nil || err.Error() != "exit status 130" {
		t.Errorf("it ended with %v, expected exit status 130", err)
	}
}

// TestWatchEnds: a run that goes on is ended by a change, all of it, before the
// next one begins.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	w := startWatch(t, map[string]string{
		"a": "one\n",
		"w.yaml": `
steps:
  - {name: s, sources: [a], killAfter: 10s, spawn: [sh, -c, "mkdir busy || echo overlap; leaver sh -c 'trap \"\" HUP; hold here'; trap 'sleep 0.2; rmdir busy; exit' TERM; echo started; while :; do sleep 0.01; done"]}
  - {if: always(), spawn: [sh, -c, 'test ! -e busy && echo cleaned']}
`})
	w.expect("started")
	ready(t, filepath.Join(w.dir, "here"))
	for _, text := range []string{"two\n", "three\n"} {
		w.write("a", text)
		got := strings.Join(w.expect("started"), "\n")
		if strings.Contains(got, "overlap") || !strings.Contains(got, "cleaned") || !strings.Contains(got, "processes that left their step were ended") {
			t.Errorf("between the runs there is %q", got)
		}
	}
	if err := w.end(syscall.SIGTERM); err == nil || err.Error() != "exit status 143" {
		t.Errorf("it ended with %v, expected exit status 143", err)
	}
	if left := find(w.dir + "/here"); left != "" {
		t.Errorf("%q is left", left)
	}
}

// TestWatchNothing: without sources there is nothing to wait for.
func TestWatchNothing(t *testing.T) {
	t.Parallel()
	w := startWatch(t, map[string]string{"w.yaml": "steps: [{spawn: [echo]}]\n"})
	w.expect("no step of w.yaml names any")
}

// TestWatchLoop: a run that writes its own source, another content each time, is
// said and ends.
func TestWatchLoop(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]string{
		"short": "{name: s, sources: [a], exec: 'date +%N >a; echo ran'}",
		"long":  "{name: s, sources: [a], exec: 'date +%N >a; sleep 0.3; echo ran'}",
	} {
		t.Run(name, func(t *testing.T) {
			w := startWatch(t, map[string]string{"a": "", "w.yaml": "steps: [" + step + "]\n"})
			w.expect("a changes in each run, so the run seems to write it")
			w.write("w.yaml", "steps: ["+strings.Replace(step, "date", "true; date", 1)+"]\n") // a run that nothing else starts
			got := strings.Join(w.expect("w.yaml changed"), "\n")
			if n := strings.Count(got, "ran"); n > 1 {
				t.Errorf("%d more runs: %s", n, got)
			}
			w.expect("ran")
			_ = w.end(syscall.SIGINT)
		})
	}
}
