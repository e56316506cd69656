package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

func parse(t testing.TB, src string) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse("test.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// prog behaves as its arguments say: sleep D, fail CODE, ignore D.
func prog(c *runner.Cmd) runnertest.Behaviour {
	var b runnertest.Behaviour
	for _, a := range c.Args[1:] {
		word, val, _ := strings.Cut(a, "=")
		switch word {
		case "for":
			b.For, _ = time.ParseDuration(val)
		case "exit":
			_, _ = fmt.Sscan(val, &b.Status.Code)
		case "ignore":
			b.Ignore = true
		}
	}
	return b
}

// progOnce is prog for one run: with the word once a process fails the first
// time only.
func progOnce() func(*runner.Cmd) runnertest.Behaviour {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(c *runner.Cmd) runnertest.Behaviour {
		b := prog(c)
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(c.Args, "once") && seen[c.Step] {
			b.Status = runner.Status{}
		}
		seen[c.Step] = true
		return b
	}
}

// TestBackoff: the delay doubles, is jittered downwards by half at the most, and
// is capped.
func TestBackoff(t *testing.T) {
	p := parse(t, `steps: [{name: a, retry: {attempts: 6, delay: 1s, maxDelay: 4s, backoff: exponential}, spawn: ["true", exit=3]}]`)
	synctest.Test(t, func(t *testing.T) {
		var delays []time.Duration
		r := runner.Runner{Engine: &runnertest.Engine{Behave: prog}, Sink: func(e runner.Event) {
			if e.Type == runner.EventRetry {
				delays = append(delays, e.Delay)
				if e.Attempt != len(delays) || e.Result.ExitCode != 3 {
					t.Errorf("attempt %d: %+v", e.Attempt, e.Result)
				}
			}
		}}
		res, err := r.Run(t.Context(), p)
		if err == nil || len(res.Steps[0].Attempts) != 5 {
			t.Fatal(err, res)
		}
		for i, want := range []time.Duration{1, 2, 4, 4, 4} {
			if want *= time.Second; delays[i] < want/2 || delays[i] > want {
				t.Errorf("delay %d is %s, expected %s to %s", i+1, delays[i], want/2, want)
			}
		}
	})
}

func statuses(res *runner.Result) string {
	var out []string
	for i := range res.Steps {
		out = append(out, res.Steps[i].Label+":"+res.Steps[i].Status.String())
	}
	return strings.Join(out, " ")
}

func TestScheduling(t *testing.T) {
	// true is a program that exists; what is started is the fake.
	for _, tt := range []struct {
		name, src string
		r         runner.Runner
		want      string
		code      int
		took      time.Duration
	}{
		{"sync is one after another", `
steps:
  - {name: a, spawn: ["true", for=1s]}
  - {name: b, spawn: ["true", for=1s]}`, runner.Runner{}, "a:success b:success", 0, 2 * time.Second},
		{"async is at once", `
mode: async
maxParallel: 0
steps:
  - {name: a, spawn: ["true", for=1s]}
  - {name: b, spawn: ["true", for=1s]}
  - {name: c, needs: [a, b], spawn: ["true", for=1s]}`, runner.Runner{}, "a:success b:success c:success", 0, 2 * time.Second},
		{"sync edge", `
mode: async
maxParallel: 0
steps:
  - {name: a, spawn: ["true", for=3s]}
  - {name: b, sync: true, spawn: ["true", for=1s]}
  - {name: c, spawn: ["true", for=1s]}`, runner.Runner{}, "a:success b:success c:success", 0, 3 * time.Second},
		{"maxParallel", `
mode: async
maxParallel: 1
steps:
  - {name: a, spawn: ["true", for=1s]}
  - {name: b, spawn: ["true", for=1s]}`, runner.Runner{}, "a:success b:success", 0, 2 * time.Second},
		{"the first failure cancels", `
mode: async
maxParallel: 0
steps:
  - {name: a, spawn: ["true", for=1s, exit=3]}
  - {name: b, spawn: ["true", for=9s]}
  - {name: c, needs: [b], spawn: ["true"]}
  - {name: d, needs: [b], if: always(), spawn: ["true", for=1s]}`, runner.Runner{}, "a:failure b:cancelled c:skipped d:success", 3, 2 * time.Second},
		{"SIGKILL after the grace", `
mode: async
maxParallel: 0
steps:
  - {name: a, spawn: ["true", for=1s, exit=3]}
  - {name: b, killAfter: 2s, spawn: ["true", for=9s, ignore]}`, runner.Runner{}, "a:failure b:cancelled", 3, 3 * time.Second},
		{"keep going", `
mode: async
maxParallel: 0
steps:
  - {name: a, spawn: ["true", exit=3]}
  - {name: b, spawn: ["true", for=9s]}
  - {name: c, needs: [a], spawn: ["true"]}
  - {name: d, needs: [c], if: failure(), spawn: ["true"]}`, runner.Runner{KeepGoing: true}, "a:failure b:success c:skipped d:success", 3, 9 * time.Second},
		{"timeout", `
steps:
  - {name: a, timeout: 1s, spawn: ["true", for=9s]}
  - {name: b, spawn: ["true"]}`, runner.Runner{}, "a:failure b:skipped", 124, time.Second},
		{"cleanupTimeout", `
cleanupTimeout: 2s
steps:
  - {name: a, spawn: ["true", exit=1]}
  - {name: b, if: always(), spawn: ["true", for=9s]}
  - {name: c, if: always(), spawn: ["true"]}`, runner.Runner{}, "a:failure b:cancelled c:skipped", 1, 2 * time.Second},
		{"timeout of the pipeline", `
timeout: 1s
steps:
  - {name: a, spawn: ["true", for=9s]}
  - {name: b, if: cancelled(), spawn: ["true"]}`, runner.Runner{}, "a:cancelled b:success", 124, time.Second},
		{"instances one after another in sync mode", `
steps:
  - {name: a, forEach: "1..3", spawn: ["true", for=1s]}
  - {name: b, spawn: ["true"]}`, runner.Runner{}, "a:success b:success", 0, 3 * time.Second},
		{"instances at once in async mode", `
mode: async
maxParallel: 0
steps:
  - {name: a, forEach: "1..5", spawn: ["true", for=1s]}
  - {name: b, forEach: "1..4", maxParallel: 2, spawn: ["true", for=1s]}
  - {name: c, needs: [a, b], spawn: ["true", for=1s]}`, runner.Runner{}, "a:success b:success c:success", 0, 3 * time.Second},
		{"the limit of the pipeline holds for instances", `
mode: async
maxParallel: 2
steps:
  - {name: a, forEach: "1..5", spawn: ["true", for=1s]}
  - {name: b, spawn: ["true", for=1s]}`, runner.Runner{}, "a:success b:success", 0, 3 * time.Second},
		{"the first instance that fails ends the others", `
mode: async
maxParallel: 0
steps:
  - {name: a, forEach: "1..3", spawn: ["true", "for=${{ item }}s", "exit=${{ item == 2 ? 5 : 0 }}"]}
  - {name: b, needs: [a], spawn: ["true"]}
  - {name: c, needs: [a], if: failure(), spawn: ["true"]}`, runner.Runner{}, "a:failure b:skipped c:success", 5, 2 * time.Second},
		{"an interrupt ends instances", `
timeout: 1500ms
steps:
  - {name: a, forEach: "1..3", spawn: ["true", for=1s]}`, runner.Runner{}, "a:cancelled", 124, 1500 * time.Millisecond},
		{"an instance is tried again by itself", `
mode: async
maxParallel: 0
steps:
  - {name: a, forEach: "1..2", retry: {attempts: 2, delay: 3s}, spawn: ["true", for=1s, exit=3, once]}`, runner.Runner{}, "a:success", 0, 5 * time.Second},
		{"cleaning up expands too", `
steps:
  - {name: a, spawn: ["true", exit=1]}
  - {name: b, if: always(), forEach: "1..2", spawn: ["true", for=1s]}`, runner.Runner{}, "a:failure b:success", 1, 2 * time.Second},
		{"retry with a fixed delay", `
steps:
  - {name: a, retry: {attempts: 3, delay: 2s}, spawn: ["true", for=1s, exit=3]}
  - {name: b, spawn: ["true"]}`, runner.Runner{}, "a:failure b:skipped", 3, 7 * time.Second},
		{"the last attempt counts", `
steps:
  - {name: a, retry: {attempts: 2, delay: 2s}, spawn: ["true", exit=3, once]}
  - {name: b, needs: a, if: "steps.a.exitCode == 0", spawn: ["true"]}`, runner.Runner{}, "a:success b:success", 0, 2 * time.Second},
		{"who waits for an attempt lets others run", `
mode: async
maxParallel: 1
steps:
  - {name: a, retry: {attempts: 2, delay: 5s}, spawn: ["true", exit=3, once]}
  - {name: b, spawn: ["true", for=4s]}`, runner.Runner{}, "a:success b:success", 0, 5 * time.Second},
		{"no attempt after the end of the run", `
mode: async
maxParallel: 0
steps:
  - {name: a, retry: {attempts: 9, delay: 5s}, spawn: ["true", exit=3]}
  - {name: b, spawn: ["true", for=1s, exit=4]}`, runner.Runner{}, "a:failure b:failure", 4, time.Second},
		{"only what on names", `
steps:
  - {name: a, retry: {attempts: 9, delay: 5s, on: [4, timeout]}, spawn: ["true", exit=3]}`, runner.Runner{}, "a:failure", 3, 0},
		{"a timeout is for each attempt", `
steps:
  - {name: a, timeout: 1s, retry: {attempts: 2, on: [timeout]}, spawn: ["true", for=9s]}`, runner.Runner{}, "a:failure", 124, 2 * time.Second},
		{"continueOnError", `
steps:
  - {name: a, continueOnError: true, spawn: ["true", exit=1]}
  - {name: b, needs: a, spawn: ["true"]}
  - {name: c, if: failure(), spawn: ["true"]}`, runner.Runner{}, "a:failure b:success c:skipped", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := parse(t, tt.src)
			synctest.Test(t, func(t *testing.T) {
				r := tt.r
				r.Engine = &runnertest.Engine{Behave: progOnce()}
				start := time.Now()
				res, err := r.Run(t.Context(), p)
				if res == nil || (err == nil) != (res.ExitCode == 0) {
					t.Fatal(err)
				}
				if got := statuses(res); got != tt.want || res.ExitCode != tt.code {
					t.Errorf("%s, exit code %d\nexpected %s, %d", got, res.ExitCode, tt.want, tt.code)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %s, expected %s", took, tt.took)
				}
			})
		})
	}
}

// TestInterrupt: the first interrupt is handed on and lets steps clean up, a
// second one kills at once.
func TestInterrupt(t *testing.T) {
	p := parse(t, `
steps:
  - {name: a, spawn: ["true", for=60s, ignore], killAfter: 30s}
  - {name: b, if: always(), spawn: ["true", for=1s]}`)
	for _, second := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			again := make(chan struct{})
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(&runner.Interrupt{Signal: syscall.SIGINT, Again: again}) })
			if second {
				time.AfterFunc(2*time.Second, func() { close(again) })
			}
			start := time.Now()
			r := runner.Runner{Engine: &runnertest.Engine{Behave: prog}}
			res, err := r.Run(ctx, p)
			if res == nil || !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			want, took := "a:cancelled b:skipped", 31*time.Second // cleanupTimeout is 30 s
			if second {
				took = 2 * time.Second
			}
			if got := statuses(res); got != want || res.ExitCode != 130 || time.Since(start) != took {
				t.Errorf("second %v: %s, exit code %d after %s", second, got, res.ExitCode, time.Since(start))
			}
		})
	}
}

// TestLimit: 1,000 steps never have more processes than is allowed.
func TestLimit(t *testing.T) {
	var p pipeline.Pipeline
	p.Mode = pipeline.ModeAsync
	for range 1000 {
		p.Steps = append(p.Steps, pipeline.SpawnStep("", "true", "for=1s"))
	}
	synctest.Test(t, func(t *testing.T) {
		e := &runnertest.Engine{Behave: prog}
		limit := 7
		r := runner.Runner{Engine: e, MaxParallel: &limit}
		if _, err := r.Run(t.Context(), &p); err != nil {
			t.Fatal(err)
		}
		if e.Most() != 7 || len(e.Started()) != 1000 {
			t.Errorf("%d at once, %d started", e.Most(), len(e.Started()))
		}
	})
}

// TestNothingLeft: after a run there are as many descriptors and goroutines as
// before (rows 33, 81).
func TestNothingLeft(t *testing.T) {
	p := parse(t, `
mode: async
steps:
  - pipe: [{spawn: [head, -c, 10M, /dev/zero]}, {tee: [{spawn: [head, -c, 1000000]}, {file: /dev/null}]}, {spawn: [head, -n, 100000], stdout: ignore}]
  - {name: e, exec: "for i in 1 2 3; do echo $i | cat; done; sleep 100 & exit 0", drain: 10ms}
  - {name: missing, continueOnError: true, pipe: [{spawn: [cat]}, {spawn: [no-such-prog]}]}
  - {continueOnError: true, execFile: ["yes"], maxBuffer: 1, onOverflow: kill}
  - {continueOnError: true, timeout: 10ms, exec: "while :; do :; done"}
`)
	count := func() (files, routines int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc/self/fd")
		}
		return len(fds), runtime.NumGoroutine()
	}
	run := func() {
		r := runner.Runner{Sink: func(runner.Event) {}}
		res, err := r.Run(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if res.ExitCode != 0 {
			t.Errorf("%s", statuses(res))
		}
		res.Close()
	}
	run() // what is opened once, is now
	files, routines := count()
	for range 5 {
		run()
	}
	for range 1000 { // the last goroutines may be on their way out
		if f, g := count(); f <= files && g <= routines {
			break
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	if f, g := count(); f > files || g > routines {
		t.Errorf("%d descriptors and %d goroutines before, %d and %d after", files, routines, f, g)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Skip("this kernel does not list children")
	}
	for _, f := range tasks {
		if b, _ := os.ReadFile(f); len(b) > 0 {
			t.Errorf("children left: %s", b)
		}
	}
}

// TestNoSink: where nobody listens, output goes to the runner's own files.
func TestNoSink(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := runner.Runner{Stdout: pw}
	res, err := r.Run(t.Context(), parse(t, `steps: [{spawn: [echo, spawned]}, {exec: echo buffered}]`))
	if err != nil || res.ExitCode != 0 {
		t.Fatal(err, res)
	}
	_ = pw.Close()
	if got, _ := io.ReadAll(pr); string(got) != "spawned\nbuffered\n" {
		t.Errorf("%q", got)
	}
}

// TestEvents: each event of a step once, in an order that can be relied on.
func TestEvents(t *testing.T) {
	var got []string
	names := map[runner.EventType]string{
		runner.EventStepStart: "start", runner.EventSpawn: "spawn", runner.EventData: "data",
		runner.EventExit: "exit", runner.EventClose: "close", runner.EventStepEnd: "end", runner.EventRunEnd: "run-end",
	}
	ch := make(chan string, 100)
	r := runner.Runner{Sink: func(e runner.Event) { ch <- names[e.Type] }}
	if _, err := r.Run(t.Context(), parse(t, `steps: [{execFile: [echo, x]}]`)); err != nil {
		t.Fatal(err)
	}
	close(ch)
	for e := range ch {
		got = append(got, e)
	}
	all := strings.Join(got, " ")
	if len(got) != 7 || got[0] != "start" || got[4] != "close" && got[4] != "exit" || !strings.HasSuffix(all, "close end run-end") || strings.Index(all, "spawn") > strings.Index(all, "exit") {
		t.Errorf("%s", all)
	}
}

// TestLeftGroup: a descendant that left the group is found as long as its
// parent lives, without a guard (row 58).
func TestLeftGroup(t *testing.T) {
	if _, err := os.Stat("/proc/self/task"); err != nil {
		t.Skip("no /proc: who left the group cannot be found")
	}
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("setsid is not installed")
	}
	dir := t.TempDir()
	p := parse(t, `steps: [{spawn: [sh, -c, 'setsid sh -c "echo \$\$ >pid.new; mv pid.new pid; exec sleep 1000" & wait']}]`)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	r := runner.Runner{Dir: dir}
	if res, err := r.Run(ctx, p); !errors.Is(err, context.Canceled) || res.Steps[0].Status != runner.StatusCancelled {
		t.Fatal(err, res)
	}
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	_, _ = fmt.Sscan(string(b), &pid)
	left, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if left.Signal(syscall.Signal(0)) == nil {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if !strings.Contains(string(stat), ") Z ") { // nobody may have reaped it yet
			t.Errorf("process %d lives: %s", pid, stat)
			_ = left.Kill()
		}
	}
}
