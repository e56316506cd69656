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

// Keeper runs a keeper until its job has ended, and returns the exit status for the
// program. A program that can be a keeper (see [Store]) calls Keeper first thing in
// its main if its first argument is [KeeperArg], and exits with the result. It must
// not be called otherwise: it reads the job from stdin and takes over descriptors 0
// to 3 and the signals of the process.
func Keeper() int {
	// A keeper holds little data, and there may be many keepers: collect early.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(4 << 20)
	// Catch these signals rather than ignore them: the job would inherit an ignored
	// signal.
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2)
	stops := make(chan os.Signal, 4)
	signal.Notify(stops, syscall.SIGTERM)
	for _, fd := range []int{0, 1, 2, 3} {
		unix.CloseOnExec(fd)
	}
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil || o.File == nil || o.Spec == nil {
		return 1 // the program that started the keeper has gone
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

// keeper is the state of the keeper of one job.
type keeper struct {
	dir   string // the folder of the job
	spec  *step.Spec
	stops <-chan os.Signal // SIGTERM: stop the job
	guard *guard.Guard
	log   *logWriter

	mu       sync.Mutex // guards file, unsaved and answered
	file     *file
	unsaved  bool        // file could not be written
	answered bool        // answer has been called
	stopping atomic.Bool // the job was asked to stop
}

// change updates the description of the job with f and writes it to the job's file.
// If the file cannot be written, saved tries again later.
func (k *keeper) change(f func(*Info)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.file.Info)
	k.log.mu.Lock()
	k.file.LogLost = k.log.lost
	k.log.mu.Unlock()
	k.unsaved = k.file.save(k.dir) != nil
}

// saved returns when the description of the job is in its file. It tries for as long
// as it takes, so that a full disk does not lose how the job ended.
func (k *keeper) saved() {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 10*time.Second) {
		k.mu.Lock()
		unsaved := k.unsaved
		k.mu.Unlock()
		if !unsaved {
			return
		}
		if _, err := os.Stat(k.dir); errors.Is(err, os.ErrNotExist) {
			return // the job was removed
		}
		time.Sleep(delay)
		k.change(func(*Info) {})
	}
}

// answer reports to the program that started the keeper, on stdout, that the job
// runs or why it does not. Only the first call has an effect.
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

// say writes a message of the keeper to the log.
func (k *keeper) say(format string, args ...any) {
	k.log.write(LogKeeper, []byte(fmt.Sprintf(format, args...)+"\n"))
}

// keep runs the job, and runs it again as its restart policy says, until it is over.
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
			text := res.Err.Error() // masked; the text of se may hold secrets
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
		if now.Sub(started) > max(10*time.Second, 2*delay) { // it ran long enough to start over with the first delay
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

// pause waits until the job is to be started again. It returns false if the job is to
// stop instead.
func (k *keeper) pause(delay time.Duration, fixed bool, res *step.Result) bool {
	if !fixed && delay > 1 {
		delay += rand.N(delay/4 + 1) // jitter: jobs that failed together should not restart together
	}
	k.change(func(i *Info) { i.State = StateRestarting; i.Restarts++ })
	k.log.endLines() // the output of the next start must not continue an unfinished line
	k.say("ended with %s; starting again in %s", runnerEnd(res), delay.Round(time.Millisecond))
	select {
	case <-time.After(delay):
		return true
	case <-k.stops:
		return false
	}
}

// runnerEnd says how the job ended, for messages: "SIGKILL", "exit status 3".
func runnerEnd(res *step.Result) string {
	if res.Reason == step.ReasonTimeout || res.Reason == step.ReasonIdleTimeout {
		return "its " + string(res.Reason)
	}
	if res.Signal != "" {
		return res.Signal
	}
	return fmt.Sprintf("exit status %d", res.ExitCode)
}

// once runs the job once, and ends the orphans that it leaves.
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
	if k.stopping.Load() { // the stop has already used its grace
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

// watch waits for requests to stop the job until done is closed. The first request
// calls stop. A later one can only shorten the time until rush, which makes the run
// send SIGKILL.
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

// started records that all processes of the job have started, and answers the
// program that started the keeper.
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

// over records how the job ended this time.
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

// request reads and removes the request to stop the job. Without one it returns the
// zero request: stop as the spec says.
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
