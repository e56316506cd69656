//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

const journalled = `
steps:
  - {name: a, exec: "echo a >>log; echo out"}
  - {name: b, sources: [in], generates: [made], exec: "echo b >>log; echo ${{ steps.a.stdout }} >made"}
  - {name: c, exec: "echo c >>log"}
`

// TestKilledJournal kills the runner before each of its writes, renames and
// links in turn: whatever is left, the run can be taken up, every step is run,
// and one that is believed to have ended well did.
func TestKilledJournal(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	t.Parallel()
	var killed atomic.Int32
	t.Cleanup(func() {
		if n := killed.Load(); n < 10 {
			t.Errorf("only %d kills", n)
		}
	})
	for _, call := range []string{"write", "/rename", "/link", "/unlink", "flock"} {
		name := strings.Trim(call, "/")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Which thread makes a call, and so which number it has, varies a little: the
			// series is over when two runs in a row made no more such calls.
			for n, unharmed := 1, 0; n <= 12 && unharmed < 2; n++ {
				if killedJournal(t, call, n) {
					killed.Add(1)
					unharmed = 0
				} else {
					unharmed++
				}
			}
		})
	}
}

// killedJournal kills a run before the nth call of a kind, if it makes that many.
func killedJournal(t *testing.T, call string, n int) (killed bool) {
	t.Run(strconv.Itoa(n), func(t *testing.T) {
		c := pipeCommand(t, "run", "f.yaml")
		state := filepath.Join(c.Dir, "state")
		c.Env = append(c.Env, "PIPE_STATE_DIR="+state)
		for file, text := range map[string]string{"f.yaml": journalled, "in": "1\n"} {
			if err := os.WriteFile(filepath.Join(c.Dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		strace := exec.Command("strace", append([]string{
			"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call, "-e", "inject=" + call + ":signal=KILL:when=" + strconv.Itoa(n),
		}, c.Args...)...)
		strace.Dir, strace.Env = c.Dir, c.Env
		if strace.Run() == nil {
			return
		}
		killed = true
		before, _ := os.ReadFile(filepath.Join(c.Dir, "log"))
		again := exec.Command(c.Args[0], "run", "--resume", "last")
		again.Dir, again.Env = c.Dir, c.Env
		out, err := again.CombinedOutput()
		if err != nil && strings.Contains(string(out), "no run of ") {
			again = exec.Command(c.Args[0], "run", "f.yaml")
			again.Dir, again.Env = c.Dir, c.Env
			out, err = again.CombinedOutput()
		}
		if err != nil && !strings.Contains(string(out), "the journal ends in its first line") {
			t.Fatalf("after %q: %v\n%s", before, err, out)
		}
		if err != nil {
			return
		}
		log, _ := os.ReadFile(filepath.Join(c.Dir, "log"))
		made, _ := os.ReadFile(filepath.Join(c.Dir, "made"))
		for _, step := range []string{"a", "b", "c"} {
			if k := strings.Count(string(log), step+"\n"); k < 1 || k > 2 {
				t.Errorf("step %s ran %d times: %q, then\n%s", step, k, before, out)
			}
		}
		if string(made) != "out\n" {
			t.Errorf("made has %q\n%s", made, out)
		}
	})
	return killed
}
