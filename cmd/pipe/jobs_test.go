//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/job"
)

// jobs is a folder with a pipeline file, and a state folder of its own.
type jobs struct {
	t     *testing.T
	dir   string
	store *job.Store
	pipe  string // the program
	env   []string
}

func newJobs(t *testing.T, text string) *jobs {
	t.Helper()
	c := pipeCommand(t)
	j := &jobs{t: t, dir: c.Dir, pipe: c.Path, store: &job.Store{Dir: filepath.Join(t.TempDir(), "state")}}
	j.env = append(c.Env, "PIPE_STATE_DIR="+j.store.Dir, "PWD="+j.dir)
	if err := os.WriteFile(filepath.Join(j.dir, "pipe.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endJobs(t, j.store.Dir) })
	return j
}

func (j *jobs) command(args ...string) *exec.Cmd {
	c := exec.Command(j.pipe, args...)
	c.Dir, c.Env = j.dir, j.env
	return c
}

// run runs pipe, which must end with a status, and returns what it wrote.
func (j *jobs) run(status int, args ...string) string {
	j.t.Helper()
	c := j.command(args...)
	out, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil || c.ProcessState.ExitCode() != status {
		j.t.Fatalf("pipe %q: %v, expected status %d\n%s", args, err, status, out)
	}
	return string(out)
}

// only returns the one job that there is.
func (j *jobs) only() *job.Info {
	j.t.Helper()
	list, err := j.store.List()
	if err != nil || len(list) != 1 {
		j.t.Fatalf("%d jobs, %v", len(list), err)
	}
	return list[0]
}

func (j *jobs) file(name string) string {
	j.t.Helper()
	b, err := os.ReadFile(filepath.Join(j.dir, name))
	if err != nil {
		j.t.Fatal(err)
	}
	return string(b)
}

const ticking = `
steps:
  - name: tick
    detached: true
    unref: true
    spawn: [sh, -c, 'i=0; while :; do i=$((i+1)); echo tick $i; echo $i >count; sleep 0.02; done']
  - {name: rest, exec: "echo x >started; sleep 100"}
`

// TestJobSurvives: a job lives on when its runner is killed, both processes of
// it, and when its terminal is gone; its log grows, and its status is known
// (rows 130, 131).
func TestJobSurvives(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"first", "second", "group", "terminal"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			j := newJobs(t, ticking)
			var c *exec.Cmd
			if how == "terminal" {
				if _, err := exec.LookPath("script"); err != nil {
					t.Skip("needs script(1)")
				}
				c = exec.Command("script", "-qec", j.pipe+" run", os.DevNull)
				c.Dir, c.Env = j.dir, j.env
			} else {
				c = j.command("run")
			}
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ready(t, filepath.Join(j.dir, "started"))
			pid := c.Process.Pid
			switch how {
			case "second":
				pid = onlyChild(t, pid)
			case "group":
				pid = -pid
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_ = c.Wait()
			info := j.only()
			if info.State != job.StateRunning || !info.Keeper.Alive() {
				t.Fatalf("it is %s, %s", info.State, info.Problem)
			}
			before := j.file("count")
			if err := awaitChange(j.dir, "the job to go on", func() bool { now := j.file("count"); return now != before && now != "" }); err != nil {
				t.Fatal(err)
			}
			j.run(0, "stop", "tick")
			if info = j.only(); info.State != job.StateStopped || info.Signal != "SIGTERM" {
				t.Errorf("it is %s, %s", info.State, info.Signal)
			}
			log := j.run(0, "logs", "tick")
			last := strings.TrimSpace(j.file("count"))
			n, _ := strconv.Atoi(last)
			if lines := strings.Count(log, "tick "); lines < n {
				t.Errorf("%d lines in the log, and it counted to %d", lines, n)
			}
		})
	}
}

func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []byte
	for _, f := range files {
		b, _ := os.ReadFile(f)
		all = append(all, b...)
	}
	words := strings.Fields(string(all))
	if len(words) != 1 {
		t.Fatalf("the children of %d are %q", pid, words)
	}
	n, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKeeperKilled: a job whose keeper was killed is lost, with the reason, and
// its process is gone; who waits for it learns of it.
func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	j := newJobs(t, ticking)
	j.run(0, "run", "pipe.yaml", "tick")
	info := j.only()
	wait := j.command("wait", "tick")
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(info.Keeper.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := wait.Wait(); err == nil || err.Error() != "exit status 1" {
		t.Errorf("wait: %v", err)
	}
	if out := j.run(0, "jobs", "--all"); !strings.Contains(out, "lost (its keeper was killed") {
		t.Errorf("%s", out)
	}
	j.run(0, "stop", "tick")
	for _, p := range info.Pids {
		if p.Alive() {
			t.Errorf("process %d is still there", p.Pid)
		}
	}
	j.run(0, "run", "pipe.yaml", "tick") // it does not stand in the way of another
	j.run(0, "stop", "tick")
	j.run(0, "prune")
	if out := j.run(0, "jobs", "--all"); strings.Contains(out, "tick") {
		t.Errorf("%s", out)
	}
}

// TestReboot: after a reboot no job is running, and nobody is signalled.
func TestReboot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	j := newJobs(t, ticking)
	j.run(0, "run", "pipe.yaml", "tick")
	// What is left of a job that ran when the machine went down is its file, with
	// the boot of that time, and a lock that nobody has.
	path := filepath.Join(j.store.Dir, "jobs", j.only().ID, "job")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	j.run(0, "stop", "tick")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	boot := filepath.Join(j.dir, "boot")
	if err := os.WriteFile(boot, []byte("11111111-2222-3333-4444-555555555555\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "-m", "sh", "-c", "mount --bind "+boot+" /proc/sys/kernel/random/boot_id && exec "+j.pipe+" jobs --all")
	c.Dir, c.Env = j.dir, j.env
	out, err := c.CombinedOutput()
	if err != nil {
		t.Skipf("needs unshare and mount: %v %s", err, out)
	}
	if !strings.Contains(string(out), "lost (the machine was started anew)") {
		t.Errorf("%s", out)
	}
}

// TestReusedPid: a process that has the pid of a job, and is none of its own, is
// never taken for it and never signalled.
func TestReusedPid(t *testing.T) {
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	p := job.Process{Pid: c.Process.Pid, Start: "1"}
	if p.Alive() {
		t.Error("a process that was started at another time is taken for it")
	}
}

// TestTornJob: a file of a job that is torn, changed, empty, of a newer format,
// of another job, a link or a folder is reported, and the others are usable
// (rows 122, 123).
func TestTornJob(t *testing.T) {
	t.Parallel()
	j := newJobs(t, ticking)
	j.run(0, "run", "pipe.yaml", "tick")
	j.run(0, "stop", "tick")
	info := j.only()
	j.run(0, "run", "pipe.yaml", "tick")
	path := filepath.Join(j.store.Dir, "jobs", info.ID, "job")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(good[9:]), `"version":1`, `"version":2`, 1)
	for name, put := range map[string]func() error{
		"empty": func() error { return os.WriteFile(path, nil, 0o600) },
		"half":  func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"changed": func() error {
			return os.WriteFile(path, bytes.Replace(good, []byte("stopped"), []byte("running"), 1), 0o600)
		},
		"garbage": func() error { return os.WriteFile(path, bytes.Repeat([]byte("x\x00"), 1<<16), 0o600) },
		"newer":   func() error { return os.WriteFile(path, sealed(newer), 0o600) },
		"missing": func() error { return nil },
		"link":    func() error { return os.Symlink("/etc/passwd", path) },
		"folder":  func() error { return os.Mkdir(path, 0o700) },
		"fifo":    func() error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			out := j.run(0, "jobs", "--all")
			if !strings.Contains(out, info.ID+"  ?     unreadable (") || !strings.Contains(out, "tick  running") {
				t.Errorf("%s", out)
			}
			if name == "newer" && !strings.Contains(out, "is of format 2, and this program reads 1") {
				t.Errorf("%s", out)
			}
			j.run(0, "stop", info.ID) // there is nothing to stop
			j.run(1, "wait", info.ID)
		})
	}
	j.run(0, "rm", info.ID)
	if got := j.only(); got.State != job.StateRunning {
		t.Errorf("the other one is %s", got.State)
	}
}

// sealed returns text behind its checksum, as files of state have it.
func sealed(text string) []byte {
	text = strings.TrimSuffix(text, "\n")
	return []byte(fmt.Sprintf("%08x %s\n", crc(text), text))
}

// TestStartsAtOnce: of many starts of one job at once one wins, and the others
// say which (row 127).
func TestStartsAtOnce(t *testing.T) {
	const n = 100
	j := newJobs(t, ticking)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			out, err := j.command("run", "pipe.yaml", "tick").CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !strings.Contains(string(out), "job tick is running already, as "):
				t.Errorf("%v\n%s", err, out)
			}
		}()
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of %d starts won", won, n)
	}
	if info := j.only(); info.State != job.StateRunning {
		t.Errorf("it is %s", info.State)
	}
}

// TestKilledStart kills the runner and the keeper before each of their calls that
// change the state: what is left is no job, or one whose state is true, and a new
// start works (row 121).
func TestKilledStart(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	t.Parallel()
	var killed atomic.Int32
	t.Cleanup(func() {
		if n := killed.Load(); n < 5 {
			t.Errorf("only %d kills", n)
		}
	})
	for _, call := range []string{"write", "/rename", "fsync", "flock", "mkdirat", "/clone"} {
		for n := 1; n <= 8; n++ {
			t.Run(strings.Trim(call, "/")+strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				j := newJobs(t, "steps: [{name: a, detached: true, unref: true, spawn: [sh, -c, 'echo x >>ran; exec sleep 100']}]")
				c := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+call+":signal=KILL:when="+strconv.Itoa(n), j.pipe, "run")
				c.Dir, c.Env = j.dir, j.env
				// The keeper is traced too, and strace would wait for it.
				done := make(chan struct{})
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				go func() { _ = c.Wait(); close(done) }()
				limit := time.After(longest)
				look := time.NewTicker(5 * time.Millisecond) // nobody is told of the end of a tracee
				defer look.Stop()
				for over := false; !over; {
					select {
					case <-done:
						killed.Add(1)
						over = true
					case <-look.C:
						list, _ := j.store.List()
						over = len(list) == 1 && list[0].State == job.StateRunning && onlyStrace(c.Process.Pid)
					case <-limit:
						t.Fatal("it neither runs nor ends")
					}
				}
				list, err := j.store.List()
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range list {
					if i.State.Live() && !i.Keeper.Alive() {
						t.Errorf("job %s is said to be %s, and its keeper is gone", i.ID, i.State)
					}
				}
				endJobs(t, j.store.Dir)
				<-done
				j.run(0, "run")
				if out := j.run(0, "jobs"); !strings.Contains(out, "a     running") {
					t.Errorf("%s", out)
				}
				j.run(0, "stop", "a")
			})
		}
	}
}

// onlyStrace reports whether the runner that strace traces has ended.
func onlyStrace(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return len(bytes.TrimSpace(b)) == 0
}

// TestFullDisk: a job whose log and state cannot be written goes on, and its
// status is there once there is room again (row 133).
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	j := newJobs(t, `
steps:
  - {name: full, detached: true, unref: true, spawn: [sh, -c, 'head -c 3000000 /dev/zero | tr "\\0" x | fold -w 99; echo >wrote x; until test -e go; do sleep 0.01; done; exit 9']}
`)
	script := `mount -t tmpfs -o size=256k,mode=700 none "$PIPE_STATE_DIR" || exit 77
"$1" run || exit 1
until test -s wrote; do :; done
head -c 300000 /dev/zero >"$PIPE_STATE_DIR/filler"
echo x >go
"$1" wait full & w=$!
rm "$PIPE_STATE_DIR/filler" "$PIPE_STATE_DIR"/jobs/*/log.*
wait $w; echo "status $?"
"$1" logs full 2>&1 | tail -1
`
	if err := os.Mkdir(j.store.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "-m", "sh", "-c", script, "sh", j.pipe)
	c.Dir, c.Env = j.dir, j.env
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() == 77 {
		t.Skipf("needs unshare and mount: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "status 9") || !strings.Contains(string(out), "bytes of output are missing") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLogBounds: the log of a job that writes much stays within its limit and
// loses no line but the oldest; its keeper stays small.
func TestLogBounds(t *testing.T) {
	t.Parallel()
	const lines = 2_000_000
	j := newJobs(t, fmt.Sprintf("steps: [{name: chatty, detached: true, unref: true, spawn: [seq, 1, %d]}]", lines))
	j.run(0, "run")
	j.run(0, "wait", "chatty")
	info := j.only()
	files, err := filepath.Glob(filepath.Join(j.store.Dir, "jobs", info.ID, "log*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 8<<20 {
			t.Errorf("%s: %v, %v", f, st.Size(), err)
		}
	}
	out := strings.Fields(j.run(0, "logs", "chatty"))
	first, _ := strconv.Atoi(out[0])
	if len(out) < 100000 || out[len(out)-1] != strconv.Itoa(lines) || len(out) != lines-first+1 {
		t.Errorf("%d lines, from %s to %s", len(out), out[0], out[len(out)-1])
	}
}

// TestFollow: who follows a log sees each line once, over the change of its
// files, until the job ends.
func TestFollow(t *testing.T) {
	t.Parallel()
	const lines = 400_000
	j := newJobs(t, fmt.Sprintf("steps: [{name: chatty, detached: true, unref: true, spawn: [sh, -c, 'until test -e go; do sleep 0.01; done; seq 1 %d']}]", lines))
	j.run(0, "run")
	c := j.command("logs", "-f", "chatty")
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(out.String())
	for i, w := range got {
		if w != strconv.Itoa(i+1) {
			t.Fatalf("line %d is %s", i+1, w)
		}
	}
	if len(got) != lines {
		t.Errorf("%d lines of %d", len(got), lines)
	}
}

// TestUpgrade: a job goes on, and is found and ended, when the program is another
// one by then (row 135).
func TestUpgrade(t *testing.T) {
	t.Parallel()
	j := newJobs(t, ticking)
	old, err := os.ReadFile(j.pipe)
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(j.dir, "pipe")
	if err := os.WriteFile(mine, old, 0o700); err != nil {
		t.Fatal(err)
	}
	was := j.pipe
	j.pipe = mine
	j.run(0, "run", "pipe.yaml", "tick")
	if err := os.WriteFile(mine+".new", []byte("#!/bin/sh\nexec "+was+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(mine+".new", mine); err != nil {
		t.Fatal(err)
	}
	j.pipe = was
	if out := j.run(0, "jobs"); !strings.Contains(out, "tick  running") {
		t.Errorf("%s", out)
	}
	j.run(0, "stop", "tick")
	j.run(143, "wait", "tick")
}

// TestDetachedInterrupted: an interrupted runner leaves a detached step alive
// and says how it is found.
func TestDetachedInterrupted(t *testing.T) {
	t.Parallel()
	j := newJobs(t, "steps: [{name: d, detached: true, spawn: [sh, -c, 'echo x >up; exec sleep 100']}]")
	c := j.command("run")
	pipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(pipe)
	for in.Scan() && !strings.Contains(in.Text(), "runs as job") {
	}
	_ = c.Process.Signal(syscall.SIGINT)
	var out strings.Builder
	for in.Scan() {
		out.WriteString(in.Text() + "\n")
	}
	if err := c.Wait(); err == nil || err.Error() != "exit status 130" {
		t.Errorf("%v", err)
	}
	if info := j.only(); info.State != job.StateRunning || !strings.Contains(out.String(), "the job "+info.ID+" goes on; pipe logs -f "+info.ID) {
		t.Errorf("it is %s\n%s", info.State, out.String())
	}
}

func crc(s string) uint32 { return crc32.Checksum([]byte(s), crc32.MakeTable(crc32.Castagnoli)) }

// TestInterruptedStart: an interrupt while a job is started, at any moment, leaves
// a job that is found, or none at all; and the runner ends.
func TestInterruptedStart(t *testing.T) {
	name := fmt.Sprintf("interrupted-%d", os.Getpid()) // no other keeper on the machine is counted
	j := newJobs(t, `
steps:
  - name: `+name+`
    detached: true
    unref: true
    killAfter: 0
    pipe:
`+strings.Repeat("      - spawn: [sh, -c, \"trap '' TERM INT PIPE; while :; do sleep 0.05; done\"]\n", 8))
	for n := range 30 {
		c := j.command("run")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(n) * 1500 * time.Microsecond) // somewhere in the start: which is what is tried
		_ = c.Process.Signal(syscall.SIGINT)
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = c.Process.Kill()
			t.Fatal("the runner does not end")
		}
		keepers := 0
		for _, pid := range pids() {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(b, []byte(job.KeeperArg+"\x00"+name+"\x00")) {
				keepers++
			}
		}
		list, err := j.store.List()
		if err != nil {
			t.Fatal(err)
		}
		live := 0
		for _, i := range list {
			if i.State.Live() {
				live++
			}
		}
		if live != keepers {
			t.Fatalf("try %d: %d jobs that go on, and %d keepers", n, live, keepers)
		}
		endJobs(t, j.store.Dir)
	}
}

func pids() []int {
	files, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, f := range files {
		n, _ := strconv.Atoi(filepath.Base(f))
		out = append(out, n)
	}
	return out
}

// TestKeeperReaps: what a job leaves behind and ends while the job goes on is no
// zombie for long.
func TestKeeperReaps(t *testing.T) {
	t.Parallel()
	j := newJobs(t, "steps: [{name: d, detached: true, unref: true, spawn: [sh, -c, 'for i in 1 2 3 4 5; do (leaver true); done; echo x >up; exec sleep 100']}]")
	j.run(0, "run")
	ready(t, filepath.Join(j.dir, "up"))
	keeper := j.only().Keeper.Pid
	limit := time.After(longest)
	look := time.NewTicker(20 * time.Millisecond) // nobody is told of the reaping
	defer look.Stop()
	for {
		zombies := 0
		for _, pid := range pids() {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && strings.Contains(string(b), fmt.Sprintf(") Z %d ", keeper)) {
				zombies++
			}
		}
		if zombies == 0 {
			return
		}
		select {
		case <-look.C:
		case <-limit:
			t.Fatalf("waited in vain for %d zombies to be reaped", zombies)
		}
	}
}
