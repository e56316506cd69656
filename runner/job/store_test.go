//go:build linux

package job_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/job"
)

// In a keeper that tests with coverage started, what it covers is counted too.
func init() {
	if len(os.Args) < 2 || os.Args[1] != job.KeeperArg {
		return
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	for _, word := range strings.Split(string(line), "\x00") {
		if dir, ok := strings.CutPrefix(word, "-test.gocoverdir="); ok {
			_ = os.Setenv("GOCOVERDIR", dir)
		}
	}
}

// bound is the job that a step is, given by its name, program and other keys.
func bound(t *testing.T, dir, name, words, keys string, env ...string) *runner.JobSpec {
	t.Helper()
	p, err := pipeline.Parse(filepath.Join(dir, "f.yaml"), []byte("params: {p: {default: x}}\nsteps: [{name: "+name+", detached: true, "+words+keys+"}]"))
	if err != nil {
		t.Fatal(err)
	}
	r := runner.Runner{Dir: dir, Env: append(env, "PATH="+os.Getenv("PATH"))}
	spec, err := r.BindJob(p, name, runner.Input{Params: map[string][]string{"p": {"given"}}})
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// soon bounds what a test waits for.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errors.New("waited 30 s for a job"))
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, s *job.Store, spec *runner.JobSpec) runner.Job {
	t.Helper()
	j, err := s.Start(soon(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// fifo makes one, and returns its name, and what waits for the next byte in it.
func fifo(t *testing.T, dir string) (path string, wait func(what string)) {
	t.Helper()
	path = filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skipf("no FIFO can be made: %v", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // so that no end waits for the other
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return path, func(what string) {
		t.Helper()
		if err := f.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(make([]byte, 1)); err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

// logOf returns the lines of a log, with their streams.
func logOf(t *testing.T, s *job.Store, id string) string {
	t.Helper()
	var b strings.Builder
	if err := s.Logs(soon(t), id, false, func(l job.LogLine) error {
		fmt.Fprintf(&b, "%s %s\n", l.Stream, l.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestJobEnds: how a job ends is written down, and told to who waits.
func TestJobEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, words, keys string
		state             job.State
		code              int
		signal            string
		reason            runner.Reason
		restarts          int
		log               string // it has this
	}{
		{"well", "spawn: [sh, -c, 'echo out; echo err >&2']", "", job.StateExited, 0, "", "", 0, "stdout out\n"},
		{"code", "spawn: [sh, -c, 'exit 7']", "", job.StateExited, 7, "", runner.ReasonExit, 0, ""},
		{"signal", "spawn: [sh, -c, 'kill -9 $$']", "", job.StateExited, 137, "SIGKILL", runner.ReasonSignal, 0, "keeper ended with SIGKILL: "},
		{"timeout", "spawn: [sleep, '100']", ", timeout: 30ms", job.StateExited, 124, "", runner.ReasonTimeout, 0, "keeper ended with its timeout: "},
		{"shell", "exec: 'echo ${{ params.p }}; exit 3'", "", job.StateExited, 3, "", runner.ReasonExit, 0, "stdout given\n"},
		{"pipe", "pipe: [{spawn: [echo, a]}, {spawn: [cat]}]", "", job.StateExited, 0, "", "", 0, "stdout a\n"},
		{"restarted", "spawn: [sh, -c, 'printf x; exit 3']", ", restart: {policy: on-failure, delay: 1ms, backoff: fixed, maxRestarts: 2, window: 1m}", job.StateFailed, 3, "", runner.ReasonExit, 2, "keeper failed: it ended 3 times within "},
		{"enough", "spawn: ['true']", ", restart: {policy: always, delay: 1ms, maxRestarts: 1, window: 0}", job.StateFailed, 0, "", "", 1, "keeper failed: it ended 2 times within "},
		{"once", "spawn: ['true']", ", restart: {policy: on-failure}", job.StateExited, 0, "", "", 0, ""},
		{"left", "spawn: [sh, -c, 'setsid sleep 1000 & exit 0']", ", drain: 0, killAfter: 1s", job.StateExited, 0, "", "", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, dir := newStore(t), t.TempDir()
			spec := bound(t, dir, tt.name, tt.words, tt.keys)
			j := start(t, s, spec)
			var out strings.Builder
			end, err := j.Wait(soon(t), func(_ runner.Stream, b []byte) { out.Write(b) })
			if err != nil {
				t.Fatal(err)
			}
			info, err := s.Get(j.ID())
			if err != nil {
				t.Fatal(err)
			}
			if info.State != tt.state || info.ExitCode != tt.code || info.Reason != tt.reason || info.Restarts != tt.restarts || tt.signal != "" && info.Signal != tt.signal {
				t.Errorf("%+v", info)
			}
			want := tt.code
			if tt.state == job.StateFailed {
				want = max(1, want)
			}
			if end.Exit.Code != want || (end.Reason == "") != (info.State == job.StateExited && info.Reason == "") || (end.Err != nil) != (tt.state == job.StateFailed) {
				t.Errorf("%+v of %+v", end, info)
			}
			if got := logOf(t, s, j.ID()); !strings.Contains(got, tt.log) {
				t.Errorf("the log is %q", got)
			}
			if l, err := s.LastLine(j.ID()); err != nil || tt.name == "restarted" && (string(l.Text) != "x" || l.Stream != job.LogStdout) {
				t.Errorf("the last line is %+v, %v", l, err) // not what the keeper says
			}
			if tt.name == "well" && !strings.Contains(out.String(), "out\n") {
				t.Errorf("who waits has seen %q", out.String())
			}
			if info.Name != tt.name || info.File != filepath.Join(dir, "f.yaml") || info.Dir != dir || info.Params["p"][0] != "given" || info.Pids != nil || info.Kept() || info.State.Live() || info.Command == "" {
				t.Errorf("%+v", info)
			}
			if u := info.Usage(); u != (job.Usage{}) {
				t.Errorf("%+v", u)
			}
			if again, err := s.Stop(soon(t), j.ID(), 0, nil); err != nil || again.State != tt.state {
				t.Errorf("one that has ended is stopped: %+v, %v", again, err)
			}
			if err := s.Remove(j.ID()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFind: a job is found by its id, its name, or the beginning of either; of
// several of a step the one that goes on, or else the latest.
func TestFind(t *testing.T) {
	t.Parallel()
	s, dir, other := newStore(t), t.TempDir(), t.TempDir()
	path, wait := fifo(t, dir)
	sleeper := "spawn: [sh, -c, 'echo last line; echo >" + path + "; exec sleep 1000']"
	first := start(t, s, bound(t, dir, "worker", "spawn: ['true']", "")).ID()
	if _, err := s.Wait(soon(t), first); err != nil {
		t.Fatal(err)
	}
	second := start(t, s, bound(t, dir, "worker", sleeper, ", unref: true")).ID()
	wait("the second job")
	find := func(name string) string {
		info, err := s.Find(name)
		var none *job.NotFoundError
		switch {
		case errors.As(err, &none):
			return fmt.Sprint(len(none.Jobs), " could be")
		case err != nil:
			t.Error(err)
			return ""
		}
		return info.ID
	}
	for name, want := range map[string]string{"worker": second, "work": second, first: first, second: second, first[:7]: first, "": "0 could be", "nope": "0 could be", "orker": "0 could be"} {
		if got := find(name); got != want {
			t.Errorf("%q: %s, expected %s", name, got, want)
		}
	}
	third := start(t, s, bound(t, other, "worker", sleeper, ", unref: true")).ID()
	wait("the third job")
	if got := find("worker"); got != "2 could be" {
		t.Errorf("two that go on: %s", got)
	}
	if _, err := s.Find("worker"); err == nil || !strings.HasSuffix(err.Error(), "; give an id") || !strings.Contains(err.Error(), third+" (worker of "+other+"/f.yaml)") {
		t.Errorf("%v", err)
	}
	list, err := s.List()
	if err != nil || len(list) != 3 || list[0].ID != third || list[2].ID != first {
		t.Errorf("%v, %v", list, err)
	}
	info, err := s.Get(second)
	if err != nil || info.State != job.StateRunning || len(info.Pids) != 1 || !info.Pids[0].Alive() || !info.Keeper.Alive() || !info.Kept() || !info.Ended.IsZero() {
		t.Fatalf("%+v, %v", info, err)
	}
	if u := info.Usage(); u.Processes != 1 || u.RSS <= 0 {
		t.Errorf("%+v", u)
	}
	if dead := (job.Process{Pid: info.Pids[0].Pid, Start: "1"}); dead.Alive() || (job.Process{Pid: 1 << 30, Start: "1"}).Alive() {
		t.Error("another process of the same pid is taken for it")
	}
	if l, err := s.LastLine(second); err != nil || string(l.Text) != "last line" || l.Stream != job.LogStdout || time.Since(l.Time) > time.Hour {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := s.LastLine(first); err != nil || l.Text != nil {
		t.Errorf("%+v, %v", l, err)
	}
	var none *job.NotFoundError
	if _, err := s.LastLine("../x"); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
	if err := s.Logs(soon(t), "nope", true, nil); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
	if _, err := s.Stop(soon(t), "nope", 0, nil); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
	if _, err := s.Wait(soon(t), "nope"); !errors.As(err, &none) || !strings.Contains(err.Error(), `there is no job "nope"`) {
		t.Errorf("%v", err)
	}
	if err := s.Remove(second); err == nil || err.Error() != "job "+second+" is running; stop it first" {
		t.Errorf("%v", err)
	}
	// One of a step at a time.
	spec := bound(t, dir, "worker", sleeper, ", unref: true")
	var running *job.RunningError
	if _, err := s.Start(soon(t), spec); !errors.As(err, &running) || running.ID != second || !strings.HasPrefix(err.Error(), "job worker is running already, as "+second) {
		t.Errorf("%v", err)
	}
	s.IfRunning = "keep"
	if j := start(t, s, spec); j.ID() != second || !j.(interface{ Kept() bool }).Kept() {
		t.Errorf("another one is started: %s", j.ID())
	}
	s.IfRunning = "restart"
	fourth := start(t, s, spec)
	wait("the fourth job")
	if info, err := s.Get(second); err != nil || info.State != job.StateStopped || fourth.ID() == second || fourth.(interface{ Kept() bool }).Kept() {
		t.Errorf("%+v, %v", info, err)
	}
	if gone, err := s.Prune(time.Hour); err != nil || len(gone) != 0 {
		t.Errorf("%v, %v", gone, err)
	}
	gone, err := s.Prune(time.Nanosecond)
	if slices.Sort(gone); err != nil || !slices.Equal(gone, slices.Sorted(slices.Values([]string{first, second}))) {
		t.Errorf("%v, %v", gone, err)
	}
	// Of one that is stopped while somebody waits for it, that is told.
	ended := make(chan runner.JobEnd, 1)
	go func() {
		end, _ := fourth.Wait(soon(t), nil)
		ended <- end
	}()
	if info, err := s.Stop(soon(t), fourth.ID(), syscall.SIGINT, nil); err != nil || info.State != job.StateStopped || info.Signal != "SIGINT" {
		t.Errorf("%+v, %v", info, err)
	}
	if end := <-ended; end.Err == nil || end.Exit.Signal != syscall.SIGINT || end.Exit.Code != 130 || end.Reason != runner.ReasonSignal {
		t.Errorf("%+v", end)
	}
}

// TestShorterGrace: who asks a second time, with less patience, is not made to
// wait for the patience of the first.
func TestShorterGrace(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	path, wait := fifo(t, dir)
	j := start(t, s, bound(t, dir, "deaf", `spawn: [sh, -c, 'trap "echo >`+path+`" TERM; echo >`+path+`; while :; do sleep 0.01; done']`, ", killAfter: 10m"))
	wait("the job")
	type result struct {
		info *job.Info
		err  error
	}
	stopped := make(chan result, 2)
	stop := func(grace *time.Duration) {
		info, err := s.Stop(soon(t), j.ID(), 0, grace)
		stopped <- result{info, err}
	}
	go stop(nil)
	wait("the signal of the first")
	if info, err := s.Get(j.ID()); err != nil || !info.State.Live() {
		t.Errorf("%+v, %v", info, err)
	}
	short := 20 * time.Millisecond
	go stop(&short)
	for range 2 {
		if r := <-stopped; r.err != nil || r.info.State != job.StateStopped || r.info.Signal != "SIGKILL" {
			t.Errorf("%+v, %v", r.info, r.err)
		}
	}
}

// TestBytes: arguments, variables and input that are no text arrive as they are.
func TestBytes(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	raw := "\xff\xfe \xc3( \u2028 \x01 end"
	spec := bound(t, dir, "bytes", `spawn: [sh, -c, 'printf %s "$1" >arg; printf %s "$V" >env; cat >in', sh, ARG], env: {V: VALUE}, extendEnv: [PATH], input: INPUT`, "")
	st := &spec.Stages[0]
	st.Args[len(st.Args)-1] = raw
	for i, kv := range st.Env {
		st.Env[i] = strings.Replace(kv, "VALUE", raw, 1)
	}
	st.Input = raw + "\x00" + raw
	if _, err := start(t, s, spec).Wait(soon(t), nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"arg": raw, "env": raw, "in": st.Input} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, expected %q (%v)", name, got, want, err)
		}
	}
	if st.Args[len(st.Args)-1] != raw {
		t.Error("the spec itself was changed")
	}
}

// TestNotStarted: a job that cannot be started leaves nothing.
func TestNotStarted(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	cancelled, cancel := context.WithCancelCause(context.Background())
	why := errors.New("why")
	cancel(why)
	missing, exe := *s, *s
	missing.Helper = []string{"/no/such/helper"}
	exe.Helper = []string{"false"} // it ends at once
	refused := *s
	refused.Keep = func(int) error { return why }
	for _, tt := range []struct {
		name  string
		s     *job.Store
		ctx   context.Context
		words string
		code  int
		is    error
		text  string // the error begins with what matches
	}{
		{"no folder", &job.Store{}, soon(t), "spawn: ['true']", 126, runner.ErrNoState, ""},
		{"no program", s, soon(t), "spawn: [no-such-prog]", 127, nil, "program \"no-such-prog\" not found"},
		{"no cwd", s, soon(t), "spawn: ['true'], cwd: nope", 126, nil, "cwd "},
		{"no helper", &missing, soon(t), "spawn: ['true']", 126, nil, ""},
		{"a helper that is none", &exe, soon(t), "spawn: ['true']", 126, nil, `cannot write to the keeper \(pid \d+\): |the keeper \(pid \d+\) does not answer: `},
		{"nobody keeps the keeper", &refused, soon(t), "spawn: ['true']", 126, why, "why"},
		{"given up", s, cancelled, "spawn: [sleep, '1000']", 126, why, "why"},
	} {
		j, err := tt.s.Start(tt.ctx, bound(t, dir, "a", tt.words, ""))
		var se *runner.StartError
		if j != nil || !errors.As(err, &se) || se.ExitCode() != tt.code || tt.is != nil && !errors.Is(err, tt.is) || !regexp.MustCompile("^(?:"+tt.text+")").MatchString(err.Error()) {
			t.Errorf("%s: %v, %v", tt.name, j, err)
		}
		if tt.s.Dir == "" {
			continue
		}
		if list, err := s.List(); err != nil || len(list) != 0 {
			t.Errorf("%s: left %v, %v", tt.name, list, err)
		}
	}
	if _, err := (&job.Store{Dir: filepath.Join(dir, "f")}).List(); err != nil {
		t.Errorf("a folder that is made: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&job.Store{Dir: filepath.Join(dir, "file")}).List(); err == nil {
		t.Error("a folder that is a file")
	}
}

// TestLost: a job whose keeper was killed is lost; what is left of it is ended by
// stop, and keeps it from being removed until then.
func TestLost(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	path, wait := fifo(t, dir)
	j := start(t, s, bound(t, dir, "lost", "spawn: [sh, -c, 'echo >"+path+"; exec sleep 1000']", ""))
	wait("the job")
	info, err := s.Get(j.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(info.Keeper.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lost, err := s.Wait(soon(t), j.ID())
	if err != nil || lost.State != job.StateLost || !strings.HasPrefix(lost.Problem, "its keeper was killed") {
		t.Fatalf("%+v, %v", lost, err)
	}
	end, err := j.Wait(soon(t), nil)
	if err != nil || end.Err == nil || end.Exit.Code != 1 || end.Reason != runner.ReasonExit {
		t.Errorf("%+v, %v", end, err)
	}
	if info, err := s.Stop(soon(t), j.ID(), syscall.SIGKILL, nil); err != nil || info.State != job.StateLost {
		t.Errorf("%+v, %v", info, err)
	}
	if info.Pids[0].Alive() {
		t.Errorf("process %d lives", info.Pids[0].Pid)
	}
	if err := s.Remove(j.ID()); err != nil {
		t.Error(err)
	}
}

// TestUnreadable: a file of a job that is torn, foreign or missing is not
// believed, but said; the job can be removed.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	id := start(t, s, bound(t, dir, "a", "spawn: ['true']", "")).ID()
	if _, err := s.Wait(soon(t), id); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir, "jobs", id, "job")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(v map[string]any) []byte {
		b, err := state.Seal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tt := range map[string]struct {
		text    []byte
		problem string
	}{
		"torn":            {text[:len(text)/2], "its file is torn or was changed: the checksum does not match"},
		"changed":         {bytes.Replace(text, []byte("exited"), []byte("exiteD"), 1), "its file is torn or was changed: the checksum does not match"},
		"another version": {sealed(map[string]any{"version": 9, "id": id}), "its file is of format 9, and this program reads 1"},
		"another job":     {sealed(map[string]any{"version": 1, "id": "0badcafe"}), `its file belongs to job "0badcafe"`},
		"missing":         {nil, "its file is missing: the start of the job was interrupted"},
	} {
		if err := os.WriteFile(path, tt.text, 0o600); tt.text == nil {
			err = os.Remove(path)
			if err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		info, err := s.Get(id)
		if err != nil || info.State != job.StateUnreadable || info.Problem != tt.problem || info.Name != "?" || info.State.Live() {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if list, err := s.List(); err != nil || len(list) != 1 || list[0].State != job.StateUnreadable {
			t.Errorf("%s: %v, %v", name, list, err)
		}
		if info, err := s.Stop(soon(t), id, 0, nil); err != nil || info.State != job.StateUnreadable {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
	// Of another boot of the machine nothing goes on.
	if err := os.WriteFile(path, sealed(map[string]any{"version": 1, "boot": "another", "id": id, "state": "running", "processes": []any{map[string]any{"pid": os.Getpid(), "start": "1"}}}), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := s.Get(id); err != nil || info.State != job.StateLost || info.Problem != "the machine was started anew" || info.Pids != nil {
		t.Errorf("%+v, %v", info, err)
	}
	if err := s.Remove(id); err != nil {
		t.Error(err)
	}
}

// TestEnvironChanges: how the variables of a job differ from those of now.
func TestEnvironChanges(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	j := start(t, s, bound(t, dir, "a", "spawn: ['true']", "", "A=1", "B=1", "C=1", "TERM=x", "SHLVL=1"))
	info, err := s.Wait(soon(t), j.ID())
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.EnvironChanges(info, bound(t, dir, "a", "spawn: ['true']", "", "A=1", "B=2", "D=1", "TERM=y", "DISPLAY=:0"))
	if err != nil || !slices.Equal(got, []string{"-C", "~B", "+D"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := s.EnvironChanges(info, bound(t, dir, "a", "spawn: ['true']", "", "C=1", "B=1", "A=1")); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	for name, sum := range info.Environ {
		if sum == "1" || len(sum) < 16 {
			t.Errorf("%s is stored as %q", name, sum)
		}
	}
}

// TestFollow: who follows a log gets what is written while it looks, until the
// job ends, f fails, or the context is done.
func TestFollow(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t), t.TempDir()
	path, wait := fifo(t, dir)
	j := start(t, s, bound(t, dir, "talks", "spawn: [sh, -c, 'echo one; echo >"+path+"; while ! test -e go; do sleep 0.01; done; seq 1 2000; printf half']", ""))
	wait("the first line")
	ctx, cancel := context.WithCancel(soon(t))
	if err := s.Logs(ctx, j.ID(), true, func(job.LogLine) error { cancel(); return nil }); err != nil {
		t.Errorf("a context that is done: %v", err)
	}
	why := errors.New("why")
	if err := s.Logs(soon(t), j.ID(), true, func(job.LogLine) error { return why }); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	var lines int
	var last job.LogLine
	err := s.Logs(soon(t), j.ID(), true, func(l job.LogLine) error {
		if string(l.Text) == "one" {
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Error(err)
			}
		}
		lines++
		last = l
		last.Text = bytes.Clone(l.Text)
		return nil
	})
	if err != nil || lines < 100 || string(last.Text) != "half" || !last.Partial || last.Stream != job.LogStdout {
		t.Errorf("%d lines, the last %+v, %v", lines, last, err)
	}
	if l, err := s.LastLine(j.ID()); err != nil || string(l.Text) != "half" {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestUnit: what a unit file for systemd says of a job.
func TestUnit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		name, words, keys string
		has, hasNot       []string
	}{
		{"plain", `spawn: [sh, -c, 'echo "$HOME" 100% \']`, "", []string{
			"Description=plain, a job of /f.yaml\n", "WorkingDirectory=" + dir + "\n", `/sh" "-c" "echo \"$$HOME\" 100%% \\"` + "\n", "KillSignal=SIGTERM\nTimeoutStopSec=5\nRestart=no\n", "Environment=\"A=a b\"\n", "\n[Install]\nWantedBy=default.target\n",
		}, []string{"TERM=", "RestartSec", "SuccessExitStatus", "EnvironmentFile"}},
		{"ends", "spawn: ['true'], successCodes: [0, 3], uid: 7, gid: 8, killSignal: INT, killAfter: 0", "", []string{"KillSignal=SIGINT\nTimeoutStopSec=infinity\nSuccessExitStatus=0 3\nUser=7\nGroup=8\n"}, nil},
		{"streams", "spawn: ['true'], stdin: {file: in}, stdout: {file: out, append: true}, stderr: {file: err}", "", []string{"StandardInput=file:" + dir + "/in\nStandardOutput=append:" + dir + "/out\nStandardError=truncate:" + dir + "/err\n"}, nil},
		{"ignored", "spawn: ['true'], stdout: ignore, argv0: other", "", []string{"StandardOutput=null\n", "# argv[0] was other\n"}, []string{"StandardError"}},
		{"restart", "spawn: ['true']", ", restart: {policy: on-failure, delay: 1500ms, maxRestarts: 4, window: 1m}", []string{"Restart=on-failure\nRestartSec=1.5\n# systemd 254 and later:\nRestartSteps=6\nRestartMaxDelaySec=60\n", "StartLimitBurst=5\nStartLimitIntervalSec=60\n\n[Service]"}, nil},
		{"fixed", "spawn: ['true']", ", restart: {policy: always, backoff: fixed, maxRestarts: 0}", []string{"Restart=always\nRestartSec=1\n"}, []string{"RestartSteps", "StartLimit"}},
		{"shell", "exec: 'echo x'", "", []string{`ExecStart="/bin/pipe" "run" "--foreground" "--output" "plain" "-p" "p=given" "/f.yaml" "shell" "--" "one" "$$two"` + "\n", "EnvironmentFile=-%h/.config/pipe/shell.env\n"}, []string{"A=a b"}},
		{"timed", "spawn: ['true']", ", timeout: 1h", []string{`"run" "--foreground"`}, nil},
	} {
		spec := bound(t, dir, tt.name, tt.words, tt.keys, "A=a b", "TERM=x")
		info := &job.Info{Name: tt.name, File: "/f.yaml", Params: map[string][]string{"p": {"given"}}, Args: []string{"one", "$two"}}
		text, err := job.Unit(info, spec, "/bin/pipe")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, want := range tt.has {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing in\n%s", tt.name, want, text)
			}
		}
		for _, bad := range tt.hasNot {
			if strings.Contains(text, bad) {
				t.Errorf("%s: %q is in\n%s", tt.name, bad, text)
			}
		}
	}
	if _, err := job.Unit(&job.Info{}, bound(t, dir, "a", "spawn: [no-such-prog]", ""), "pipe"); err == nil {
		t.Error("a program that is not there")
	}
	text, err := job.Unit(&job.Info{Name: "a\n[Service]\nExecStart=/evil"}, bound(t, dir, "a", `spawn: ['true', "a\nb"]`, ""), "pipe")
	if err != nil || strings.Contains(text, "\nExecStart=/evil") || !strings.Contains(text, `"a\x0ab"`) {
		t.Errorf("%v: %s", err, text)
	}
}
