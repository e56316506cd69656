package step_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

// role is what a fake process does besides its behaviour.
type role struct {
	runnertest.Behaviour
	starting  time.Duration   // how long its start takes
	obeys     bool            // it ends with exit code 0 when it is told to
	says      []time.Duration // when it writes a line
	open      time.Duration   // how long its streams stay open after its end; -1: until they are released
	obstinate int             // 1: they are released by force only; 2: not even so
	left      time.Duration   // how long what is left of its tree takes to end, but for SIGKILL; 0: nothing is left
	deaf      bool            // it cannot be signalled
}

// stage is a fake engine that writes down what happens, and when.
type stage struct {
	runnertest.Engine
	cast  []role // by stage
	start time.Time
	seen  func(context.Context)

	mu    sync.Mutex
	lines []string
}

func newStage(cast []role) *stage {
	s := &stage{cast: cast, start: time.Now()}
	s.Behave = func(c *engine.Cmd) runnertest.Behaviour { return s.cast[c.Stage].Behaviour }
	return s
}

func (s *stage) note(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, time.Since(s.start).String()+" "+fmt.Sprintf(format, a...))
}

// transcript returns what happened. The exits of one moment, and what is said of
// them, are in alphabetical order, since processes end in any order.
func (s *stage) transcript() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	exit := func(line string) bool {
		return strings.Contains(line, "s exit ") || strings.Contains(line, "s warning")
	}
	for i := 0; i < len(s.lines); i++ {
		j := i
		for j < len(s.lines) && exit(s.lines[j]) && strings.Fields(s.lines[j])[0] == strings.Fields(s.lines[i])[0] {
			j++
		}
		slices.Sort(s.lines[i:j])
	}
	return strings.Join(s.lines, "\n")
}

// sink writes down the events.
func (s *stage) sink(e step.Event) {
	switch e.Type {
	case step.EventSpawn:
		s.note("spawn %d", e.Stage)
	case step.EventData:
		s.note("data %d %q", e.Stage, e.Data)
	case step.EventExit:
		s.note("exit %d: %s", e.Stage, e.Exit)
	case step.EventClose:
		s.note("close %d", e.Stage)
	case step.EventWarning:
		s.note("warning: %s", e.Message)
	case step.EventReady:
		s.note("ready")
	case step.EventFreed:
		s.note("freed")
	}
}

// Start starts a fake process.
func (s *stage) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	r := s.cast[c.Stage]
	if s.seen != nil {
		s.seen(ctx)
	}
	if r.starting > 0 {
		select {
		case <-time.After(r.starting):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	p, err := s.Engine.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	a := &actor{Process: p, role: r, s: s, n: c.Stage, closed: make(chan struct{}), killed: make(chan struct{})}
	if out := c.Stdout; len(r.says) > 0 {
		go func() {
			for _, d := range r.says {
				time.Sleep(time.Until(s.start.Add(d)))
				_, _ = io.WriteString(out, "line\n")
			}
		}()
	}
	return a, nil
}

// actor is a process of a stage.
type actor struct {
	engine.Process
	role
	s      *stage
	n      int
	closed chan struct{}
	close  sync.Once
	killed chan struct{}
	kill   sync.Once
}

func (a *actor) String() string { return fmt.Sprintf("actor %d", a.n) }

func (a *actor) Wait() engine.Status {
	st := a.Process.Wait()
	if a.obeys {
		st = engine.Status{}
	}
	switch {
	case a.open == 0:
		a.shut()
	case a.open > 0:
		time.AfterFunc(a.open, a.shut)
	}
	return st
}

func (a *actor) shut() { a.close.Do(func() { close(a.closed) }) }

func (a *actor) Closed() <-chan struct{} { return a.closed }

func (a *actor) Signal(sig syscall.Signal) error {
	select {
	case <-a.killed: // a step that fails to start and is told to end at once has two causes
		return nil
	default:
	}
	a.s.note("%s to %d", signame.Name(sig), a.n)
	if a.deaf {
		return syscall.EPERM
	}
	if sig == syscall.SIGKILL {
		a.kill.Do(func() { close(a.killed) })
	}
	return a.Process.Signal(sig)
}

func (a *actor) Left() bool { return a.left > 0 }

func (a *actor) End(sig syscall.Signal, grace time.Duration) []string {
	a.s.note("end %d: %s, %s", a.n, signame.Name(sig), grace)
	select {
	case <-time.After(min(a.left, cmp.Or(grace, a.left))):
	case <-a.killed:
	}
	a.left = 0
	if a.open < 0 && a.obstinate == 0 {
		a.shut()
	}
	return []string{fmt.Sprintf("child of %d", a.n)}
}

func (a *actor) Holders() []string {
	if a.left == 0 {
		return nil
	}
	return []string{fmt.Sprintf("child of %d", a.n)}
}

func (a *actor) Release(force bool) {
	select {
	case <-a.closed:
		return // whether it is asked depends on who is faster
	default:
	}
	a.s.note("release %d %t", a.n, force)
	if a.obstinate == 0 || a.obstinate == 1 && force {
		a.shut()
	}
}

// fakeSpec is a step of n stages that have the names of letters, SIGTERM, a grace
// of 5 s and a drain of 1 s.
func fakeSpec(n int) *step.Spec {
	spec := &step.Spec{Label: "x"}
	for i := range n {
		spec.Stages = append(spec.Stages, step.Stage{
			Program: "/bin/fake", Args: []string{"fake"}, Dir: "/", Command: string(rune('a' + i)),
			Stdio:      []step.Stdio{{Kind: step.StdioIgnore}, {Kind: step.StdioPipe}, {Kind: step.StdioPipe}},
			KillSignal: syscall.SIGTERM, KillAfter: 5 * time.Second, Drain: time.Second,
		})
	}
	return spec
}

// cue is something that happens to a step from outside.
type cue struct {
	at    time.Duration // -1: when the first stage has started
	stop  *step.Stop
	force bool
}

// TestEnds runs steps that end, or are ended, and compares all that happens.
func TestEnds(t *testing.T) {
	second := func(n float64) *time.Duration { d := time.Duration(n * float64(time.Second)); return &d }
	lasts := func(d time.Duration) role { return role{Behaviour: runnertest.Behaviour{For: d}} }
	ignores := func(d time.Duration) role { return role{Behaviour: runnertest.Behaviour{For: d, Ignore: true}} }
	told := func(at time.Duration, s step.Stop) cue { return cue{at: at, stop: &s} }
	forced := func(at time.Duration) cue { return cue{at: at, force: true} }
	for _, tt := range []struct {
		name string
		cast []role
		spec func(*step.Spec)
		cues []cue
		want string
	}{
		{"by itself", []role{{Behaviour: runnertest.Behaviour{Output: "hi", For: time.Second}}}, nil, nil,
			`0s data 0 "hi"|0s spawn 0|1s exit 0: exit status 0|1s freed|1s close 0|1s success  0 command=a`},
		{"two stages, the first of which fails", []role{{Behaviour: runnertest.Behaviour{For: time.Second, Status: engine.Status{Code: 3}}}, lasts(2 * time.Second)}, nil, nil,
			`0s spawn 0|0s spawn 1|1s exit 0: exit status 3|2s exit 1: exit status 0|2s close 0|2s close 1|2s failure exit 3 command=a`},
		{"killSignal", []role{lasts(time.Hour)}, func(s *step.Spec) { s.Stages[0].KillSignal = syscall.SIGINT }, []cue{told(time.Second, step.Stop{})},
			`0s spawn 0|1s SIGINT to 0|1s exit 0: SIGINT|1s close 0|1s cancelled signal 130 signal=SIGINT command=a`},
		{"SIGKILL after the grace", []role{ignores(time.Hour)}, nil, []cue{told(time.Second, step.Stop{})},
			`0s spawn 0|1s SIGTERM to 0|6s SIGKILL to 0|6s exit 0: SIGKILL|6s close 0|6s cancelled signal 137 signal=SIGKILL command=a`},
		{"each stage has its signal, and all have the longest grace", []role{ignores(time.Hour), lasts(time.Hour)},
			func(s *step.Spec) { s.Stages[0].KillAfter, s.Stages[1].KillSignal = time.Second, syscall.SIGHUP }, []cue{told(time.Second, step.Stop{})},
			`0s spawn 0|0s spawn 1|1s SIGTERM to 0|1s SIGHUP to 1|1s exit 1: SIGHUP|6s SIGKILL to 0|6s SIGKILL to 1|6s exit 0: SIGKILL|6s close 0|6s close 1|6s cancelled signal 129 signal=SIGHUP command=b`},
		{"a grace of 0 is for ever", []role{ignores(time.Hour)}, func(s *step.Spec) { s.Stages[0].KillAfter = 0 }, []cue{told(time.Second, step.Stop{})},
			`0s spawn 0|1s SIGTERM to 0|1h0m0s exit 0: exit status 0|1h0m0s close 0|1h0m0s cancelled  0 command=a`},
		{"the stop's own signal and grace", []role{ignores(time.Hour)}, nil, []cue{told(time.Second, step.Stop{Signal: syscall.SIGHUP, Grace: second(2)})},
			`0s spawn 0|1s SIGHUP to 0|3s SIGKILL to 0|3s exit 0: SIGKILL|3s close 0|3s cancelled signal 137 signal=SIGKILL command=a`},
		{"the stop's own grace of 0 is none", []role{ignores(time.Hour)}, func(s *step.Spec) { s.Stages[0].KillAfter = 0 }, []cue{told(time.Second, step.Stop{Signal: syscall.SIGHUP, Grace: second(0)})},
			`0s spawn 0|1s SIGKILL to 0|1s exit 0: SIGKILL|1s close 0|1s cancelled signal 137 signal=SIGKILL command=a`},
		{"force within the grace", []role{ignores(time.Hour)}, nil, []cue{told(time.Second, step.Stop{}), forced(2 * time.Second)},
			`0s spawn 0|1s SIGTERM to 0|2s SIGKILL to 0|2s exit 0: SIGKILL|2s close 0|2s cancelled signal 137 signal=SIGKILL command=a`},
		{"force where nothing was told to end", []role{ignores(time.Hour)}, nil, []cue{forced(2 * time.Second)},
			`0s spawn 0|2s SIGKILL to 0|2s exit 0: SIGKILL|2s close 0|2s failure signal 137 signal=SIGKILL command=a`},
		{"timeout", []role{lasts(time.Hour)}, func(s *step.Spec) { s.Timeout = 3 * time.Second }, nil,
			`0s spawn 0|3s SIGTERM to 0|3s exit 0: SIGTERM|3s close 0|3s failure timeout 124 signal=SIGTERM command=a`},
		{"timeout that is obeyed with 0", []role{{Behaviour: runnertest.Behaviour{For: time.Hour}, obeys: true}}, func(s *step.Spec) { s.Timeout = 3 * time.Second }, nil,
			`0s spawn 0|3s SIGTERM to 0|3s exit 0: exit status 0|3s close 0|3s failure timeout 124 command=a`},
		{"it ended just before its timeout", []role{lasts(3*time.Second - 1)}, func(s *step.Spec) { s.Timeout = 3 * time.Second }, nil,
			`0s spawn 0|2.999999999s exit 0: exit status 0|2.999999999s freed|2.999999999s close 0|2.999999999s success  0 command=a`},
		{"idleTimeout", []role{lasts(time.Hour)}, func(s *step.Spec) { s.IdleTimeout = 2 * time.Second }, nil,
			`0s spawn 0|2s SIGTERM to 0|2s exit 0: SIGTERM|2s close 0|2s failure idleTimeout 124 signal=SIGTERM command=a`},
		{"output puts the idleTimeout off", []role{{Behaviour: runnertest.Behaviour{For: time.Hour}, obeys: true, says: []time.Duration{time.Second, 2500 * time.Millisecond}}}, func(s *step.Spec) { s.IdleTimeout = 2 * time.Second }, nil,
			`0s spawn 0|1s data 0 "line\n"|2.5s data 0 "line\n"|4.5s SIGTERM to 0|4.5s exit 0: exit status 0|4.5s close 0|4.5s failure idleTimeout 124 command=a`},
		{"one killSignal, however often it is told", []role{ignores(time.Hour)}, func(s *step.Spec) { s.Timeout, s.IdleTimeout = 2*time.Second, 3*time.Second }, []cue{told(time.Second, step.Stop{}), told(4*time.Second, step.Stop{})},
			`0s spawn 0|1s SIGTERM to 0|6s SIGKILL to 0|6s exit 0: SIGKILL|6s close 0|6s cancelled signal 137 signal=SIGKILL command=a`},
		{"a stop before the start", []role{lasts(0), lasts(0)}, nil, []cue{told(0, step.Stop{})}, `0s cancelled  0 command=b`},
		{"a stop when the first has started", []role{lasts(time.Hour), lasts(time.Hour)}, nil, []cue{told(-1, step.Stop{})},
			`0s spawn 0|0s SIGTERM to 0|0s exit 0: SIGTERM|0s close 0|0s cancelled signal 143 signal=SIGTERM command=a`},
		{"a stop while the second starts", []role{lasts(time.Hour), {starting: 9 * time.Second}}, nil, []cue{told(time.Second, step.Stop{Reason: step.ReasonTimeout})},
			`0s spawn 0|1s SIGKILL to 0|1s exit 0: SIGKILL|1s close 0|1s failure timeout 124 command=b`},
		{"the second does not start", []role{ignores(time.Hour), {Behaviour: runnertest.Behaviour{Err: errors.New("no more")}}}, nil, nil,
			`0s spawn 0|0s SIGKILL to 0|0s exit 0: SIGKILL|0s close 0|0s failure spawn 126 command=b err=no more`},
		{"the second is not found", []role{ignores(time.Hour), {Behaviour: runnertest.Behaviour{Err: &engine.StartError{Code: engine.CodeNotFound, Msg: "no b"}}}}, nil, nil,
			`0s spawn 0|0s SIGKILL to 0|0s exit 0: SIGKILL|0s close 0|0s failure spawn 127 command=b err=no b`},
		{"a process that cannot be signalled", []role{{Behaviour: runnertest.Behaviour{For: 2 * time.Second}, deaf: true}}, nil, []cue{told(time.Second, step.Stop{})},
			`0s spawn 0|1s SIGTERM to 0|1s warning: cannot send SIGTERM to actor 0: operation not permitted|2s exit 0: exit status 0|2s close 0|2s cancelled  0 command=a`},
		// what is left when the processes have ended
		{"a stream that is open for a while", []role{{open: time.Second / 2}}, nil, nil,
			`0s spawn 0|0s exit 0: exit status 0|0s freed|500ms close 0|500ms success  0 command=a`},
		{"a stranger holds a stream", []role{{open: -1, left: time.Second / 4}}, nil, nil,
			`0s spawn 0|0s exit 0: exit status 0|0s freed|1s warning: the step has ended, but its output is still held open after 1s by child of 0|1s end 0: SIGTERM, 5s|1.25s warning: processes that the step left behind were ended: child of 0|1.25s close 0|1.25s success  0 command=a`},
		{"the longest drain counts", []role{{open: 3 * time.Second}, {}}, func(s *step.Spec) { s.Stages[0].Drain = 3500 * time.Millisecond }, nil,
			`0s spawn 0|0s spawn 1|0s exit 0: exit status 0|0s exit 1: exit status 0|0s freed|3s close 0|3s close 1|3s success  0 command=b`},
		{"something is left, but no stream is open", []role{{left: time.Second}}, nil, nil,
			`0s spawn 0|0s exit 0: exit status 0|0s freed|0s end 0: SIGTERM, 5s|1s warning: processes that the step left behind were ended: child of 0|1s close 0|1s success  0 command=a`},
		{"force while what is left ends", []role{{left: time.Hour}}, func(s *step.Spec) { s.Stages[0].KillAfter = 0 }, []cue{forced(2 * time.Second)},
			`0s spawn 0|0s exit 0: exit status 0|0s freed|0s end 0: SIGTERM, 0s|2s SIGKILL to 0|2s warning: processes that the step left behind were ended: child of 0|2s close 0|2s success  0 command=a`},
		{"what a stage left ends while others go on", []role{{left: time.Hour}, {Behaviour: runnertest.Behaviour{For: time.Hour}}}, nil, []cue{told(2*time.Second, step.Stop{})},
			`0s spawn 0|0s spawn 1|0s exit 0: exit status 0|1s end 0: SIGTERM, 5s|2s SIGTERM to 0|2s SIGTERM to 1|2s exit 1: SIGTERM|6s warning: processes that the step left behind were ended: child of 0|6s close 0|6s close 1|6s cancelled signal 143 signal=SIGTERM command=b`},
		{"and does not keep force from them", []role{{left: time.Hour}, {Behaviour: runnertest.Behaviour{For: time.Hour, Ignore: true}}}, func(s *step.Spec) { s.Stages[0].KillAfter, s.Stages[1].KillAfter = 0, 0 }, []cue{told(2*time.Second, step.Stop{}), forced(3 * time.Second)},
			`0s spawn 0|0s spawn 1|0s exit 0: exit status 0|1s end 0: SIGTERM, 0s|2s SIGTERM to 0|2s SIGTERM to 1|3s SIGKILL to 0|3s SIGKILL to 1|3s exit 1: SIGKILL|3s warning: processes that the step left behind were ended: child of 0|3s close 0|3s close 1|3s cancelled signal 137 signal=SIGKILL command=b`},
		{"a stop by SIGKILL while what is left ends", []role{{left: time.Hour}}, func(s *step.Spec) { s.Stages[0].KillAfter = 0 }, []cue{told(2*time.Second, step.Stop{Grace: new(time.Duration)})},
			`0s spawn 0|0s exit 0: exit status 0|0s freed|0s end 0: SIGTERM, 0s|2s SIGKILL to 0|2s warning: processes that the step left behind were ended: child of 0|2s close 0|2s success  0 command=a`},
		{"force while the stream is held", []role{{open: -1, left: time.Hour}}, nil, []cue{forced(time.Second / 2)},
			`0s spawn 0|0s exit 0: exit status 0|0s freed|500ms SIGKILL to 0|500ms end 0: SIGKILL, 5s|500ms close 0|500ms success  0 command=a`},
		{"a stop while the stream is held", []role{{open: -1, left: time.Second}}, nil, []cue{told(time.Second/2, step.Stop{})},
			`0s spawn 0|0s exit 0: exit status 0|0s freed|500ms SIGTERM to 0|500ms end 0: SIGTERM, 5s|1.5s close 0|1.5s success  0 command=a`},
		{"a timeout while the stream is held", []role{{open: -1, left: time.Second}}, func(s *step.Spec) { s.Timeout = time.Second / 2 }, nil,
			`0s spawn 0|0s exit 0: exit status 0|0s freed|500ms SIGTERM to 0|500ms end 0: SIGTERM, 5s|1.5s close 0|1.5s failure timeout 124 command=a`},
		{"a slow reader is given time", []role{{open: 20 * time.Second, obstinate: 1}}, nil, nil,
			`0s spawn 0|0s exit 0: exit status 0|0s freed|1s release 0 false|20s close 0|20s success  0 command=a`},
		{"a slow reader is given up when the step is to end", []role{{open: 20 * time.Second, obstinate: 1}}, nil, []cue{told(5*time.Second, step.Stop{})},
			`0s spawn 0|0s exit 0: exit status 0|0s freed|1s release 0 false|5s SIGTERM to 0|6s release 0 true|6s close 0|6s success  0 command=a`},
		{"and when the time is over", []role{{open: 20 * time.Second, obstinate: 1}}, func(s *step.Spec) { s.Timeout = 5 * time.Second }, nil,
			`0s spawn 0|0s exit 0: exit status 0|0s freed|1s release 0 false|5s SIGTERM to 0|6s release 0 true|6s close 0|6s failure timeout 124 command=a`},
		{"and at once with force", []role{{open: 20 * time.Second, obstinate: 1}}, nil, []cue{forced(5 * time.Second)},
			`0s spawn 0|0s exit 0: exit status 0|0s freed|1s release 0 false|5s SIGKILL to 0|5s release 0 true|5s close 0|5s success  0 command=a`},
		{"a reader that hangs is left behind", []role{{Behaviour: runnertest.Behaviour{For: time.Hour}, open: -1, obstinate: 2}}, nil, []cue{told(time.Second, step.Stop{})},
			`0s spawn 0|1s SIGTERM to 0|1s exit 0: SIGTERM|1s release 0 false|2s release 0 true|2.1s close 0|2.1s cancelled signal 143 signal=SIGTERM command=a`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := newStage(tt.cast)
				spec := fakeSpec(len(tt.cast))
				if tt.spec != nil {
					tt.spec(spec)
				}
				ctx, stop := context.WithCancelCause(t.Context())
				force := make(chan struct{})
				play := func(c cue) {
					if c.force {
						close(force)
					} else {
						stop(c.stop)
					}
				}
				for _, c := range tt.cues {
					if c.at == 0 {
						play(c)
					} else if c.at > 0 {
						defer time.AfterFunc(c.at, func() { play(c) }).Stop()
					}
				}
				ctx, cancel := step.WithTimeout(step.WithForce(ctx, force), spec.Timeout)
				defer cancel()
				res := step.Run(ctx, spec, &step.Services{Engine: e}, func(ev step.Event) {
					e.sink(ev)
					for _, c := range tt.cues {
						if c.at == -1 && ev.Type == step.EventSpawn {
							play(c)
						}
					}
				})
				e.note("%s", describe(res.End))
				if got, want := e.transcript(), strings.ReplaceAll(tt.want, "|", "\n"); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				if left := strings.Contains(tt.want, " end 0"); left != (len(res.Left) == 1) {
					t.Errorf("Left is %v", res.Left)
				}
				if len(res.Stages) != len(tt.cast) {
					t.Errorf("%d results of stages", len(res.Stages))
				}
				for i, err := range tt.cast {
					if got := res.Stages[i].Err; (got != nil) != (err.Err != nil || tt.cast[i].starting > 0) {
						t.Errorf("stage %d has the error %v", i, got)
					}
				}
			})
		})
	}
}

// TestStageSuccess: what counts as the success of a stage. All end by themselves;
// a status is an exit code, or a signal where it is negative.
func TestStageSuccess(t *testing.T) {
	t.Parallel()
	const pipe = -int(syscall.SIGPIPE)
	for _, tt := range []struct {
		name   string
		stages []int
		spec   func(*step.Spec)
		want   string
	}{
		{"all", []int{0, 0, 0}, nil, "success  0 command=c"},
		{"SIGPIPE of one whose reader had enough", []int{pipe, 0}, nil, "success  0 command=b"},
		{"SIGPIPE of several", []int{pipe, pipe, 0}, nil, "success  0 command=c"},
		{"SIGPIPE of the last", []int{0, pipe}, nil, "failure signal 141 signal=SIGPIPE command=b"},
		{"SIGPIPE of the only one", []int{pipe}, nil, "failure signal 141 signal=SIGPIPE command=a"},
		{"sigpipe: fail", []int{pipe, 0}, func(s *step.Spec) { s.Stages[0].SigpipeFails = true }, "failure signal 141 signal=SIGPIPE command=a"},
		{"exit code 141 of a program", []int{141, 0}, nil, "failure exit 141 command=a"},
		{"exit code 141 of a shell", []int{141, 0}, func(s *step.Spec) { s.Stages[0].Shell = "/bin/sh" }, "success  0 command=b"},
		{"exit code 141 of a shell, and sigpipe: fail", []int{141, 0}, func(s *step.Spec) { s.Stages[0].Shell, s.Stages[0].SigpipeFails = "/bin/sh", true }, "failure exit 141 command=a"},
		{"exit code 141 of a shell that is the last", []int{0, 141}, func(s *step.Spec) { s.Stages[1].Shell = "/bin/sh" }, "failure exit 141 command=b"},
		{"another signal", []int{-int(syscall.SIGTERM), 0}, nil, "failure signal 143 signal=SIGTERM command=a"},
		{"successCodes", []int{0, 4}, func(s *step.Spec) { s.Stages[1].SuccessCodes = []int{1, 4} }, "success  4 command=b"},
		{"successCodes of another stage", []int{4, 0}, func(s *step.Spec) { s.Stages[1].SuccessCodes = []int{4, 0} }, "failure exit 4 command=a"},
		{"successCodes without 0", []int{0}, func(s *step.Spec) { s.Stages[0].SuccessCodes = []int{1} }, "failure exit 0 command=a"},
		{"successCodes do not hold for a signal", []int{-int(syscall.SIGTERM)}, func(s *step.Spec) { s.Stages[0].SuccessCodes = []int{143} }, "failure signal 143 signal=SIGTERM command=a"},
		{"successCodes with none", []int{0}, func(s *step.Spec) { s.Stages[0].SuccessCodes = []int{} }, "failure exit 0 command=a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			spec := fakeSpec(len(tt.stages))
			if tt.spec != nil {
				tt.spec(spec)
			}
			e := &runnertest.Engine{Behave: func(c *engine.Cmd) runnertest.Behaviour {
				st := engine.Status{Code: tt.stages[c.Stage]}
				if st.Code < 0 {
					st = engine.Killed(syscall.Signal(-st.Code))
				}
				return runnertest.Behaviour{Status: st}
			}}
			freed := false
			res := step.Run(t.Context(), spec, &step.Services{Engine: e}, func(ev step.Event) { freed = freed || ev.Type == step.EventFreed })
			if got := describe(res.End); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if well := res.Status == step.StatusSuccess; freed != well {
				t.Errorf("it was told that all have ended well: %t", freed)
			}
		})
	}
}

// TestUnknownStatus: a status that somebody else took is a failure, also where the
// stage's code would count as success.
func TestUnknownStatus(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(1)
	spec.Stages[0].SuccessCodes = []int{0, 1}
	e := &runnertest.Engine{Behave: func(*engine.Cmd) runnertest.Behaviour {
		return runnertest.Behaviour{Status: engine.Status{Code: 1, Err: errors.New("taken")}}
	}}
	if res := step.Run(t.Context(), spec, &step.Services{Engine: e}, func(step.Event) {}); describe(res.End) != "failure exit 1 command=a err=taken" {
		t.Error(describe(res.End))
	}
}

// TestEndedBeforeTheStop: a step whose processes had ended when it was told to end
// has ended by itself, also where nobody had heard of it yet.
func TestEndedBeforeTheStop(t *testing.T) {
	t.Parallel()
	for range 20 { // either may be heard of first
		synctest.Test(t, func(t *testing.T) {
			cast := []role{{Behaviour: runnertest.Behaviour{For: time.Second}}, {Behaviour: runnertest.Behaviour{For: 2 * time.Second}}}
			ctx, stop := context.WithCancelCause(t.Context())
			time.AfterFunc(3*time.Second, func() { stop(&step.Stop{}) })
			res := step.Run(ctx, fakeSpec(2), &step.Services{Engine: newStage(cast)}, func(e step.Event) {
				if e.Type == step.EventExit && e.Stage == 0 {
					time.Sleep(4 * time.Second)
				}
			})
			if got := describe(res.End); got != "success  0 command=b" {
				t.Error(got)
			}
		})
	}
}

// TestTeeThatDoesNotBegin: a tee one of whose files cannot be had is not waited for.
func TestTeeThatDoesNotBegin(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none", "x")
	synctest.Test(t, func(t *testing.T) {
		e := newStage(make([]role, 2))
		spec := fakeSpec(2)
		spec.Stages = slices.Insert(spec.Stages, 1, step.Stage{Tee: []step.Branch{{File: none}}})
		res := step.Run(t.Context(), spec, &step.Services{Engine: e}, e.sink)
		e.note("%s", res.Reason)
		if got := e.transcript(); got != "0s spawn" {
			t.Error(got)
		}
	})
}

// TestContextOfTheEngine: the values of the run's context reach the engine, and
// its end does not outlast the start.
func TestContextOfTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var got []any
		var given []context.Context
		e := newStage([]role{{Behaviour: runnertest.Behaviour{For: time.Hour}}, {Behaviour: runnertest.Behaviour{For: time.Hour}}})
		e.seen = func(ctx context.Context) { got, given = append(got, ctx.Value(key{})), append(given, ctx) }
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		time.AfterFunc(time.Second, cancel)
		step.Run(ctx, fakeSpec(2), &step.Services{Engine: e}, func(step.Event) {})
		if len(got) != 2 || got[0] != "value" || got[1] != "value" {
			t.Errorf("the engine saw %v", got)
		}
		for i, ctx := range given {
			if ctx.Err() != nil {
				t.Errorf("the context of start %d is done after it", i)
			}
		}
	})
}

// TestServiceIsReady: a service without a probe can be used as soon as it has
// started, and is told of once. Run returns when all that it tells has been heard.
func TestServiceIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newStage([]role{{Behaviour: runnertest.Behaviour{For: time.Hour}}})
		spec := fakeSpec(1)
		spec.Service = &step.Service{}
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { stop(&step.Stop{}) })
		res := step.Run(ctx, spec, &step.Services{Engine: e}, func(ev step.Event) {
			e.sink(ev)
			if ev.Type == step.EventReady {
				time.Sleep(2 * time.Second)
			}
		})
		if took := time.Since(e.start); took != 2*time.Second {
			t.Errorf("Run has returned after %s", took)
		}
		const want = "0s spawn 0\n0s ready\n2s SIGTERM to 0\n2s exit 0: SIGTERM\n2s close 0"
		if got := e.transcript(); got != want || res.Status != step.StatusCancelled {
			t.Errorf("%s\n%s", got, describe(res.End))
		}
	})
}
