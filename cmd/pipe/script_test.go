//go:build unix

package main

// This file runs the scripts of testdata/script: the command line as a user
// has it, on real processes.

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pipe-runner/pipe/runner/job"
)

func TestMain(m *testing.M) {
	testscript.Main(stateful{m}, map[string]func(){
		"pipe":   main,
		"hold":   hold,
		"leaver": leaver,
	})
}

// stateful runs the tests with a state folder of their own.
type stateful struct{ *testing.M }

// Run is that of testing.M. Most of the time a test waits for processes, so that
// more of them go on at once than there are processors; -parallel says otherwise.
// A signal that is ignored here, as in the background of a shell, is not in what
// the tests start.
func (m stateful) Run() int {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "pipe-state-")
	if err == nil {
		err = os.Setenv("PIPE_STATE_DIR", dir)
	}
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return m.M.Run()
}

// hold creates the file that it is told, and waits for ever: a process that is
// known to have started.
func hold() {
	if err := os.WriteFile(os.Args[1], []byte("here\n"), 0o600); err != nil {
		os.Exit(1)
	}
	select {}
}

// leaver leaves its session and group, and starts what it is told there.
func leaver() {
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.Start() != nil {
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(4 * time.Minute), // what waits in vain is ended, and its script shown
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars,
				"GORACE=atexit_sleep_ms=0", // or each exit of a race build takes a second
				"PIPE_STATE_DIR="+e.WorkDir+"-state",
				"EVIL='\";$(touch M)`touch M`",
			)
			e.Defer(func() { endJobs(t, e.WorkDir+"-state") })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"gone":  gone,
			"await": await,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			name, ok := strings.CutPrefix(cond, "prog:")
			if !ok {
				return false, nil
			}
			_, err := exec.LookPath(name)
			return err == nil, nil
		},
	})
}

// endJobs ends what a test left behind.
func endJobs(t testing.TB, state string) {
	if _, err := os.Stat(filepath.Join(state, "jobs")); err != nil {
		return
	}
	store := &job.Store{Dir: state}
	list, err := store.List()
	if err != nil {
		t.Error(err)
	}
	for _, i := range list {
		if i.State.Live() || i.State == job.StateLost {
			if _, err := store.Stop(context.Background(), i.ID, 0, new(time.Duration)); err != nil {
				t.Error(err)
			}
		}
	}
}

// exits STATUS PROGRAM ARG… runs a program, which must end with that status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARG…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("status %s, expected %s", got, args[0])
	}
}

// gone TEXT checks that no process has the text in its command line.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	if p := find(args[0]); (p == "") == neg {
		ts.Fatalf("processes with %q: %q", args[0], p)
	}
}

// find returns the command line of a process that has the text in it.
func find(text string) string {
	_, line := findProcess(text)
	return line
}

// findProcess returns a process that has the text in its command line, and that;
// 0 if there is none.
func findProcess(text string) (pid int, line string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte(text)) {
			pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return pid, string(b)
		}
	}
	return 0, ""
}

// await FILE waits until a file is there that has something in it.
func await(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(awaitFile(ts.MkAbs(args[0])))
}
