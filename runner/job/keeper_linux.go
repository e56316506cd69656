package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/guard"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// Keeper is the main function of a keeper; it returns its exit status. A program
// calls it first thing where its first argument is [KeeperArg].
func Keeper() int {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(4 << 20) // what it holds is small; so is what it leaves lying about
	// Signals are taken, not ignored: what is ignored would be in the job too.
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2)
	stops := make(chan os.Signal, 4)
	signal.Notify(stops, syscall.SIGTERM)
	for _, fd := range []int{0, 1, 2, 3} {
		unix.CloseOnExec(fd)
	}
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil || o.File == nil || o.Spec == nil {
		return 1 // who started it is gone
	}
	disarm(reflect.ValueOf(&o.Spec).Elem())
	_ = os.WriteFile("/proc/self/comm", []byte("pipe-keeper"), 0)
	k := &keeper{
		dir: o.Dir, file: o.File, spec: o.Spec, stops: stops, guard: guard.Adopt(),
		log: &logWriter{dir: o.Dir, limit: o.LogSize, files: o.LogFiles},
	}
	if null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Dup3(null, 0, unix.O_CLOEXEC)
		_ = unix.Close(null)
	}
	k.keep()
	return 0
}

// keeper keeps one job.
type keeper struct {
	dir   string
	spec  *step.Spec
	stops <-chan os.Signal
	guard *guard.Guard
	log   *logWriter

	mu       sync.Mutex
	file     *file
	unsaved  bool
	answered bool
	stopping atomic.Bool
}

// change changes what is known of the job, and writes it down.
func (k *keeper) change(f func(*Info)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.file.Info)
	k.log.mu.Lock()
	k.file.LogLost = k.log.lost
	k.log.mu.Unlock()
	k.unsaved = k.file.save(k.dir) != nil
}

// saved keeps trying until it is written down, for as long as it takes: the end
// of a job is not lost because the disk is full.
func (k *keeper) saved() {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 10*time.Second) {
		k.mu.Lock()
		unsaved := k.unsaved
		k.mu.Unlock()
		if !unsaved {
			return
		}
		if _, err := os.Stat(k.dir); errors.Is(err, os.ErrNotExist) {
			return // somebody removed it
		}
		time.Sleep(delay)
		k.change(func(*Info) {})
	}
}

// answer tells who started the job that it runs, or why not; once.
func (k *keeper) answer(a answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answered {
		return
	}
	k.answered = true
	_ = json.NewEncoder(os.Stdout).Encode(a)
	if null, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Dup3(null, 1, unix.O_CLOEXEC)
		_ = unix.Close(null)
	}
}

func (k *keeper) say(format string, args ...any) {
	k.log.write(LogKeeper, []byte(fmt.Sprintf(format, args...)+"\n"))
}

// keep runs the job until it is over.
func (k *keeper) keep() {
	policy := k.spec.Job.Restart
	began := time.Now()
	var restarts []time.Time
	delay := policy.Delay
	for {
		started := time.Now()
		res := k.once()
		k.over(res)
		var se *engine.StartError
		switch {
		case k.stopping.Load():
			k.change(func(i *Info) { i.State = StateStopped })
			k.answer(answer{"it was stopped while it started", signame.ExitCode(syscall.SIGTERM)})
			k.saved()
			return
		case errors.As(res.Err, &se):
			text := res.Err.Error() // in which secrets are masked; in its cause they are not
			k.change(func(i *Info) { i.State, i.Error = StateFailed, text })
			k.say("cannot be started: %s", text)
			k.answer(answer{text, se.ExitCode()})
			k.saved()
			return
		}
		k.answer(answer{})
		again := policy.Policy == step.RestartAlways || policy.Policy == step.RestartOnFailure && res.Status != step.StatusSuccess
		if !again {
			if res.Reason != "" && res.Reason != step.ReasonExit {
				k.say("ended with %s: %s", runnerEnd(res), res.Command)
			}
			k.change(func(i *Info) { i.State = StateExited })
			k.saved()
			return
		}
		now := time.Now()
		window := policy.Window
		for window > 0 && len(restarts) > 0 && now.Sub(restarts[0]) > window {
			restarts = restarts[1:]
		}
		if most := policy.Most; most > 0 && len(restarts) >= most {
			span := now.Sub(began)
			if window > 0 {
				span = min(span, window)
			}
			why := fmt.Sprintf("it ended %d times within %s, the last time with %s", len(restarts)+1, span.Round(time.Second), runnerEnd(res))
			k.change(func(i *Info) { i.State, i.Error = StateFailed, why })
			k.say("failed: %s", why)
			k.saved()
			return
		}
		restarts = append(restarts, now)
		if now.Sub(started) > max(10*time.Second, 2*delay) { // it ran well for a while
			delay = policy.Delay
		}
		if !k.pause(delay, policy.Fixed, res) {
			k.change(func(i *Info) { i.State = StateStopped })
			k.saved()
			return
		}
		if !policy.Fixed {
			delay = min(2*delay, max(time.Minute, policy.Delay))
		}
	}
}

// pause waits until the job is to be started again; false: it is to stop.
func (k *keeper) pause(delay time.Duration, fixed bool, res *step.Result) bool {
	if !fixed && delay > 1 {
		delay += rand.N(delay/4 + 1) // or all that failed together come back together
	}
	k.change(func(i *Info) { i.State = StateRestarting; i.Restarts++ })
	k.log.endLines() // the next one does not continue them
	k.say("ended with %s; starting again in %s", runnerEnd(res), delay.Round(time.Millisecond))
	select {
	case <-time.After(delay):
		return true
	case <-k.stops:
		return false
	}
}

func runnerEnd(res *step.Result) string {
	if res.Reason == step.ReasonTimeout || res.Reason == step.ReasonIdleTimeout {
		return "its " + string(res.Reason)
	}
	if res.Signal != "" {
		return res.Signal
	}
	return fmt.Sprintf("exit status %d", res.ExitCode)
}

// once runs the job one time.
func (k *keeper) once() *step.Result {
	force := make(chan struct{})
	ctx, stop := context.WithCancelCause(step.WithForce(context.Background(), force))
	defer stop(nil)
	rush := sync.OnceFunc(func() { close(force) })
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		k.watch(stop, rush, done)
	}()
	res := k.run(ctx)
	grace := k.spec.Grace()
	if grace == 0 {
		grace = 5 * time.Second
	}
	if k.stopping.Load() { // who ignored the signal has had its time
		grace = min(grace, time.Second)
	}
	if left := k.guard.EndOrphansUntil(grace, force); len(left) > 0 {
		k.say("processes that left the job were ended with it: %s", strings.Join(left, ", "))
	}
	close(done)
	<-watched
	return res
}

// run runs the job until its last process has ended, or ctx is done.
func (k *keeper) run(ctx context.Context) *step.Result {
	redactor, err := safety.NewRedactor(k.spec.Job.Hidden)
	if err != nil {
		return step.Ended(step.Facts{Err: err})
	}
	ctx, cancel := step.WithTimeout(ctx, k.spec.Timeout)
	defer cancel()
	sv := &step.Services{Engine: engine.Local{Tree: k.guard}, Redactor: redactor, Large: step.NewLarge()}
	want := k.spec.Processes()
	var pids []Process
	var mu sync.Mutex
	res := step.Run(ctx, k.spec, sv, func(e step.Event) {
		switch e.Type {
		case step.EventData:
			k.log.write([]string{"", LogStdout, LogStderr}[e.FD], e.Data)
		case step.EventWarning:
			k.say("%s", strings.TrimSpace(e.Message))
		case step.EventSpawn:
			mu.Lock()
			defer mu.Unlock()
			if e.Pid > 0 {
				s, _ := procfs.ReadStat(e.Pid)
				pids = append(pids, Process{e.Pid, s.Start})
			}
			if want--; want == 0 {
				k.started(pids)
			}
		}
	})
	res.Err = step.Masked(redactor, res.Err)
	return res
}

// watch ends the job as it is asked to: the first time by stop; a later request
// can only shorten the time until SIGKILL, which rush brings.
func (k *keeper) watch(stop context.CancelCauseFunc, rush func(), done <-chan struct{}) {
	var soon *time.Timer
	defer func() {
		if soon != nil {
			soon.Stop()
		}
	}()
	for {
		select {
		case <-k.stops:
			again := k.stopping.Swap(true)
			r := k.request()
			stop(&step.Stop{Signal: r.Signal, Grace: r.Grace})
			if r.Grace != nil && *r.Grace == 0 {
				rush()
			} else if r.Grace != nil && again {
				if soon != nil {
					soon.Stop()
				}
				soon = time.AfterFunc(*r.Grace, rush)
			}
			k.change(func(i *Info) { i.State = StateStopping })
		case <-done:
			return
		}
	}
}

// started writes down that all processes of the job have started, and tells who
// started it.
func (k *keeper) started(pids []Process) {
	k.change(func(i *Info) {
		i.Pids, i.Started, i.Ended = pids, time.Now(), time.Time{}
		if i.State = StateRunning; k.stopping.Load() {
			i.State = StateStopping
		}
	})
	k.answer(answer{})
	shrink()
}

// over writes down how the job ended this time.
func (k *keeper) over(res *step.Result) {
	k.change(func(i *Info) {
		i.Pids, i.Ended = nil, time.Now()
		i.ExitCode, i.Signal, i.Reason, i.Error = res.ExitCode, res.Signal, res.Reason, ""
		if res.Err != nil {
			i.Error = res.Err.Error()
		}
		if res.Status == step.StatusSuccess {
			i.Reason = ""
		}
	})
}

// request returns how the job is to be stopped; the zero request is as its spec
// says.
func (k *keeper) request() request {
	path := filepath.Join(k.dir, "request")
	data, err := state.Read(path)
	var r request
	if err != nil || state.Unseal(data, &r) != nil {
		return request{}
	}
	_ = os.Remove(path)
	return r
}
