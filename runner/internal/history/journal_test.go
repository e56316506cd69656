//go:build unix

package history

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// id returns the id of run n.
func id(n int) string { return fmt.Sprintf("20260101-000000.000-%06x", n) }

// begun starts the journal of run n.
func (w *world) begun(n int, change ...func(*Header)) *View {
	w.t.Helper()
	h := Header{ID: id(n), File: "x.yaml", Name: "x", Dir: w.dir, Params: map[string][]string{"p": {"v"}}, Args: []string{"one", "two words"}, Steps: []string{"build"}, Root: "/r"}
	for _, f := range change {
		f(&h)
	}
	v := w.view(nil)
	if err := v.Begin(h, nil); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = v.journal.f.Close() })
	return v
}

// killed gives up the journal as the end of the process does.
func (w *world) killed(v *View) {
	w.t.Helper()
	if err := errors.Join(v.Flush(), v.journal.f.Close()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end(v *View, code int, cause, interrupt string) {
	w.t.Helper()
	if err := v.End(code, cause, interrupt); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) past(n int) *PastRun {
	w.t.Helper()
	p, err := OpenRun(w.folder, id(n), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// journalFile returns the path of the journal of run n.
func (w *world) journalFile(n int) string { return filepath.Join(w.folder, "runs", id(n)) }

func ended(label string, e step.End) *Entry {
	return &Entry{End: e, Label: label, Start: time.Unix(1000, 0), Duration: time.Second, Attempts: 2}
}

// TestJournal: what is written down of a run is what is read of it.
func TestJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.begun(1)
	list := func() *PastRun {
		t.Helper()
		runs, err := Runs(w.folder)
		if err != nil || len(runs) != 1 {
			t.Fatalf("%v, %v", runs, err)
		}
		return runs[0]
	}
	if p := list(); p.Status != RunRunning || p.Pid != os.Getpid() || p.Results != nil {
		t.Errorf("%+v", p)
	}
	v.Started("a")
	v.Started("b")
	if p := w.past(1); len(p.Results) != 0 {
		t.Errorf("something is written before Flush: %+v", p.Results)
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	v.Ended(nil, ended("a", step.End{Status: step.StatusFailure, Reason: step.ReasonSignal, ExitCode: 137, Signal: "SIGKILL", Command: "sleep", Err: errors.New("why")}))
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	p := w.past(1)
	if len(p.Results) != 2 || p.Results[1].Label != "b" || p.Results[1].Status != "running" || p.Status != RunRunning {
		t.Errorf("%+v", p)
	}
	want := PastStep{Label: "a", Status: "failure", Reason: step.ReasonSignal, ExitCode: 137, Signal: "SIGKILL", Command: "sleep", Error: "why", Attempts: 2, Start: p.Results[0].Start, Duration: time.Second}
	if p.Results[0] != want || !p.Results[0].Start.Equal(time.Unix(1000, 0)) {
		t.Errorf("%+v", p.Results[0])
	}
	w.end(v, 137, "a", "interrupted")
	p = w.past(1)
	if p.Status != RunEnded || p.ExitCode != 137 || p.Cause != "a" || p.Error != "interrupted" || p.End.Before(p.Start) || len(p.Results) != 1 {
		t.Errorf("%+v", p)
	}
	if p.ID != id(1) || p.File != "x.yaml" || p.Name != "x" || p.Dir != w.dir || p.Params["p"][0] != "v" || p.Args[1] != "two words" || p.Steps[0] != "build" || p.Root != "/r" || p.Problem != "" {
		t.Errorf("%+v", p)
	}
	if p := list(); p.Status != RunEnded || p.ExitCode != 137 || p.Cause != "a" || p.Results != nil {
		t.Errorf("%+v", p)
	}
	if err := v.Begin(Header{ID: id(1)}, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("two runs of one id: %v", err)
	}
}

// TestKilledRun: a run whose journal nobody holds, without an end, was killed; so
// were the steps that had started.
func TestKilledRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.begun(1)
	v.Started("a")
	v.Started("b")
	v.Ended(nil, ended("a", step.End{Status: step.StatusSuccess}))
	w.killed(v)
	p := w.past(1)
	if p.Status != RunKilled || len(p.Results) != 2 || p.Results[1].Label != "b" || p.Results[1].Status != "killed" || p.Problem != "" {
		t.Errorf("%+v", p)
	}
}

// TestNotRecorded: without a journal nothing is written down, and that is no error.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	v := newWorld(t).view(nil)
	v.Started("a")
	v.Ended(nil, ended("a", step.End{}))
	if err := errors.Join(v.Flush(), v.End(0, "", "")); err != nil {
		t.Error(err)
	}
}

// TestFullDisk: after the first error nothing more is written, and each call says
// it; so does a value that cannot be written at all.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.begun(1)
	if err := v.journal.f.Close(); err != nil {
		t.Fatal(err)
	}
	v.Started("a")
	first := v.Flush()
	v.Started("b")
	if second := v.Flush(); first == nil || !errors.Is(first, os.ErrClosed) || !errors.Is(second, first) || v.End(0, "", "") == nil {
		t.Errorf("%v, then %v", first, second)
	}
	if v.journal.buf != nil {
		t.Error("what cannot be written piles up")
	}
	if err := w.view(nil).Begin(Header{ID: "no/id"}, nil); err == nil {
		t.Error("a journal in no folder")
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := &Memory{folder: w.path("a.src")}
	if err := m.Begin(Header{ID: id(2)}, nil); err == nil {
		t.Error("a folder of state that is a file")
	}
}

// TestUnreadable: what is wrong with a journal is said, and nothing behind it is
// believed.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	line := func(v any) string {
		b, err := state.Seal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	header := func(version int, name string) string {
		return line(journalLine{Run: &journalHeader{Version: version, ID: name}})
	}
	step1 := line(journalLine{Step: &record{Label: "a", Status: "success"}})
	for _, tt := range []struct {
		name, text string
		status     RunStatus
		problem    string
		steps      int
	}{
		{"empty", "", RunUnreadable, "the journal ends in its first line", 0},
		{"half a line", header(1, id(1))[:20], RunUnreadable, "the journal ends in its first line", 0},
		{"no journal", "hello\n", RunUnreadable, "the journal's first line is torn or was changed: its checksum does not match", 0},
		{"another first line", step1, RunUnreadable, "the journal's first line is torn or was changed: its checksum does not match", 0},
		{"of another run", header(1, id(2)), RunUnreadable, "the journal's first line is torn or was changed: its checksum does not match", 0},
		{"of another version", header(2, id(1)), RunUnreadable, "the journal is of format 2, and this program reads 1", 0},
		{"of no version", header(0, id(1)), RunUnreadable, "the journal is of format 0, and this program reads 1", 0},
		{"a changed line", header(1, id(1)) + step1 + "0" + step1 + step1, RunKilled, "line 3 of the journal is torn or was changed; the rest of the journal is ignored", 1},
		{"torn at its end", header(1, id(1)) + step1 + step1[:9], RunKilled, "", 1},
		{"an unknown line", header(1, id(1)) + line(map[string]int{"later": 1}) + step1, RunKilled, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.view(nil)
			if _, err := state.Sub(w.folder, "runs"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(w.journalFile(1), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := w.past(1)
			if p.Status != tt.status || p.Problem != tt.problem || len(p.Results) != tt.steps {
				t.Errorf("%+v", p)
			}
			runs, err := Runs(w.folder)
			if err != nil || runs[0].Status != tt.status {
				t.Errorf("%+v, %v", runs[0], err)
			}
			if err := p.Resumable(func(string) bool { return true }, true); err == nil {
				t.Error("it can be resumed") // it is of no file
			}
		})
	}
	t.Run("a link", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.end(w.begun(1), 0, "", "")
		if err := os.Symlink(w.journalFile(1), w.journalFile(2)); err != nil {
			t.Fatal(err)
		}
		if p := w.past(2); p.Status != RunUnreadable || p.Problem == "" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.end(w.begun(1), 0, "", "")
		if err := os.Mkdir(w.journalFile(2), 0o700); err != nil {
			t.Fatal(err)
		}
		if p := w.past(2); p.Status != RunUnreadable || !strings.HasSuffix(p.Problem, "is not a regular file") {
			t.Errorf("%+v", p)
		}
	})
}

// TestReadLine: lines of any length are whole, but one that is too long is none.
func TestReadLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	in := bufio.NewReaderSize(strings.NewReader("a\n"+long+"\nend"), 16)
	for _, want := range []string{"a\n", long + "\n"} {
		if got, err := readLine(in, 2000); string(got) != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := readLine(in, 2000); string(got) != "end" || err != io.EOF {
		t.Errorf("%q, %v", got, err)
	}
	in = bufio.NewReaderSize(strings.NewReader(long+"\n"), 16)
	if got, err := readLine(in, 100); got != nil || !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestLongSteps: a list of runs reads the end behind steps of any length.
func TestLongSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.begun(1)
	v.Ended(nil, ended("a", step.End{Status: step.StatusFailure, Command: strings.Repeat("x", 200<<10)}))
	w.end(v, 3, "a", "")
	runs, err := Runs(w.folder)
	if err != nil || runs[0].Status != RunEnded || runs[0].ExitCode != 3 {
		t.Errorf("%+v, %v", runs[0], err)
	}
	if p := w.past(1); len(p.Results) != 1 || len(p.Results[0].Command) != 200<<10 {
		t.Errorf("%+v", p.Status)
	}
}

// TestOpenRun: by the whole id, its beginning, or as the last one of a folder.
func TestOpenRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n, dir := range map[int]string{0xa1: "/a", 0xa2: "/a", 0xb1: "/b"} {
		w.end(w.begun(n, func(h *Header) { h.Dir = dir }), 0, "", "")
	}
	for _, name := range []string{"other", id(3) + "x", "20260101"} { // what is no journal is not looked at
		if err := os.WriteFile(filepath.Join(w.folder, "runs", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ id, dir, want, err string }{
		{id(0xa1), "", id(0xa1), ""},
		{id(0xa1)[:len(id(0))-1], "", "", fmt.Sprintf("the ids of 2 runs begin with %q; give more of the id", id(0xa1)[:len(id(0))-1])},
		{id(0xb1)[:len(id(0))-1], "/nope", id(0xb1), ""},
		{"2026", "", "", `the ids of 3 runs begin with "2026"; give more of the id`},
		{"last", "", id(0xb1), ""},
		{"last", "/a", id(0xa2), ""},
		{"last", "/c", "", "no run of /c is recorded; pipe runs lists those of other folders"},
		{"", "", "", `no run "" is recorded; pipe runs lists them`},
		{"1999", "", "", `no run "1999" is recorded; pipe runs lists them`},
		{"../" + id(0xa1), "", "", `no run "../` + id(0xa1) + `" is recorded; pipe runs lists them`},
		{"other", "", "", `no run "other" is recorded; pipe runs lists them`},
	} {
		p, err := OpenRun(w.folder, tt.id, tt.dir)
		if tt.err != "" {
			if p != nil || err == nil || err.Error() != tt.err {
				t.Errorf("%s in %q: %v, %v", tt.id, tt.dir, p, err)
			}
			continue
		}
		if err != nil || p.ID != tt.want {
			t.Errorf("%s in %q: %v, %v", tt.id, tt.dir, p, err)
		}
	}
	bad := w.path("a.src") // a folder of state that is none
	_, err1 := Runs(bad)
	_, err2 := OpenRun(bad, "last", "")
	_, err3 := PruneRuns(bad, 0)
	_, err4 := Open(bad, nil, nil)
	if err1 == nil || err2 == nil || err3 == nil || err4 == nil {
		t.Errorf("%v, %v, %v, %v", err1, err2, err3, err4)
	}
	if runs, err := Runs(filepath.Join(t.TempDir(), "new")); err != nil || len(runs) != 0 {
		t.Errorf("a folder that is new: %v, %v", runs, err)
	}
}

// TestPrune: the latest are kept, and one that goes on; what is no journal is no
// reason to keep others.
func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	goesOn := w.begun(1)
	for n := 2; n <= 5; n++ {
		w.end(w.begun(n), 0, "", "")
	}
	w.killed(w.begun(6))
	if err := os.Mkdir(w.journalFile(0), 0o700); err != nil {
		t.Fatal(err)
	}
	left := func() string {
		runs, err := Runs(w.folder)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, p := range runs {
			out = append(out, strings.TrimLeft(p.ID[len(p.ID)-6:], "0"))
		}
		return strings.Join(out, " ")
	}
	if n, err := PruneRuns(w.folder, 4); n != 1 || err == nil || !strings.Contains(err.Error(), "is not a regular file") || left() != "6 5 4 3 1 " {
		t.Errorf("%d removed, %v: %s", n, err, left())
	}
	if n, err := PruneRuns(w.folder, 100); n != 0 || err != nil {
		t.Errorf("%d removed, %v: %s", n, err, left())
	}
	if err := os.Remove(w.journalFile(0)); err != nil {
		t.Fatal(err)
	}
	if n, err := PruneRuns(w.folder, -1); n != 4 || err != nil || left() != "1" {
		t.Errorf("%d removed, %v: %s", n, err, left())
	}
	w.end(goesOn, 0, "", "")
	if n, err := PruneRuns(w.folder, 0); n != 1 || err != nil || left() != "" {
		t.Errorf("%d removed, %v: %s", n, err, left())
	}
}

// TestOldOnes: journals do not pile up: once there are many more than are kept,
// the end of a run removes the old ones.
func TestOldOnes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := state.Sub(w.folder, "runs"); err != nil {
		t.Fatal(err)
	}
	most := keptRuns + keptRuns/4
	for n := range most - 1 {
		if err := os.WriteFile(w.journalFile(n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range []int{most, keptRuns, keptRuns + 1} {
		w.end(w.begun(most+n), 0, "", "")
		if files, err := os.ReadDir(filepath.Join(w.folder, "runs")); err != nil || len(files) != want {
			t.Errorf("%d journals, expected %d (%v)", len(files), want, err)
		}
	}
	if p := w.past(most + 2); p.Status != RunEnded {
		t.Errorf("the latest is %+v", p)
	}
}

// TestResumable: why a run cannot be resumed.
func TestResumable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	redactor, err := safety.NewRedactor([]string{"token-12345"})
	if err != nil {
		t.Fatal(err)
	}
	w.begun(1)
	w.end(w.begun(2), 1, "", "")
	w.end(w.begun(3, func(h *Header) { h.File = "" }), 1, "", "")
	w.end(w.begun(4, func(h *Header) { h.File = "stdin" }), 1, "", "")
	secret := w.view(nil)
	if err := secret.Begin(Header{ID: id(5), File: "f", Params: map[string][]string{"a": {"x"}, "p": {"token-12345"}}, Args: []string{"token-12345"}}, redactor); err != nil {
		t.Fatal(err)
	}
	w.end(secret, 0, "", "")
	w.end(w.begun(6, func(h *Header) { h.Params = map[string][]string{"p": {"\xff"}}; h.Args = []string{"\xff"} }), 0, "", "")
	w.end(w.begun(7), 0, "", "")
	text, err := os.ReadFile(w.journalFile(7))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.journalFile(7), bytes.Replace(text, []byte(`"end"`), []byte(`"End"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	const lost = " held a secret or invalid UTF-8, which is not stored; give "
	for _, tt := range []struct {
		n           int
		param, args bool // they are missing
		want        string
	}{
		{1, false, false, fmt.Sprintf("run %s is still going on (pid %d)", id(1), os.Getpid())},
		{2, true, true, ""},
		{3, true, true, "run " + id(3) + " did not read its pipeline from a file, and cannot be resumed"},
		{4, true, true, "run " + id(4) + " did not read its pipeline from a file, and cannot be resumed"},
		{5, true, true, "run " + id(5) + ": an argument after --" + lost + "the arguments again"},
		{5, true, false, "run " + id(5) + ": parameter p" + lost + "it again, as -p p=…"},
		{5, false, false, ""},
		{6, true, true, "run " + id(6) + ": an argument after --" + lost + "the arguments again"},
		{6, true, false, "run " + id(6) + ": parameter p" + lost + "it again, as -p p=…"},
		{7, true, true, "run " + id(7) + ": line 2 of the journal is torn or was changed; the rest of the journal is ignored"},
	} {
		asked := ""
		err := w.past(tt.n).Resumable(func(name string) bool { asked += name; return tt.param }, tt.args)
		if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%s\nexpected %s", got, tt.want)
		}
		if strings.Contains(asked, "a") {
			t.Errorf("asked of %s", asked)
		}
	}
}

// TestResumes: each reason why a step of a resumed run runs again.
func TestResumes(t *testing.T) {
	t.Parallel()
	spec := func(w *world) *step.Spec { return &step.Spec{Label: "build", Stages: []step.Stage{w.program()}} }
	end := func(e step.End) func(*world, *View, *step.Spec) {
		return func(_ *world, v *View, _ *step.Spec) { v.Ended(nil, ended("build", e)) }
	}
	for _, tt := range []struct {
		name   string
		before func(*world, *View, *step.Spec) // what the journal has; nil: it ended well
		now    func(*world, *View, *step.Spec, *About)
		want   string // "": it is taken over
	}{
		{"it ended well", nil, nil, ""},
		{"it had not run", func(*world, *View, *step.Spec) {}, nil, "it had not run"},
		{"it was running", func(_ *world, v *View, _ *step.Spec) { v.Started("build") }, nil, "it was running when the run was killed"},
		{"a signal", end(step.End{Status: step.StatusFailure, Reason: step.ReasonSignal, Signal: "SIGSEGV"}), nil, "it failed by SIGSEGV"},
		{"an exit code", end(step.End{Status: step.StatusFailure, Reason: step.ReasonExit, ExitCode: 7}), nil, "it failed with exit code 7"},
		{"a timeout", end(step.End{Status: step.StatusFailure, Reason: step.ReasonTimeout}), nil, "it failed (timeout)"},
		{"no start", end(step.End{Status: step.StatusFailure, Reason: step.ReasonSpawn}), nil, "it failed (spawn)"},
		{"skipped", end(step.End{Status: step.StatusSkipped}), nil, "it was skipped"},
		{"cancelled", end(step.End{Status: step.StatusCancelled}), nil, "it was cancelled"},
		{"stdin", nil, func(_ *world, _ *View, s *step.Spec, _ *About) { s.Stages[0].Stdio[0].Kind = step.StdioInherit }, "its stdin is the caller's"},
		{"--force", nil, func(_ *world, v *View, _ *step.Spec, _ *About) { v.Force = true }, "--force"},
		{"a service", nil, func(_ *world, _ *View, s *step.Spec, _ *About) { s.Service = &step.Service{} }, "it is a service"},
		{"a job", nil, func(_ *world, _ *View, s *step.Spec, _ *About) { s.Job = &step.Job{} }, "it is a job, which goes on if it is running"},
		{"cleaning up", nil, func(_ *world, _ *View, _ *step.Spec, a *About) { a.CleansUp = true }, "it cleans up, in every run"},
		{"another argument", nil, func(_ *world, _ *View, s *step.Spec, _ *About) { s.Stages[0].Args[1] = "x" }, "argument 1 changed"},
		{"another variable of its own", nil, func(_ *world, _ *View, s *step.Spec, _ *About) { s.Stages[0].Env[2] = "X=y" }, "variable X changed"},
		{"an inherited variable", nil, func(_ *world, v *View, _ *step.Spec, _ *About) { v.environ["HOME"] = "x" }, "the environment changed: HOME"},
		{"one that is new, one that is gone", nil, func(_ *world, v *View, _ *step.Spec, _ *About) { v.environ["NEW"] = "x"; delete(v.environ, "LANG") }, "the environment changed: LANG, NEW"},
		{"one that the step sets itself", nil, func(_ *world, v *View, _ *step.Spec, _ *About) { v.environ["X"] = "x" }, ""},
		{"one that it does not inherit", func(_ *world, v *View, s *step.Spec) {
			s.Stages[0].Inherits = false
			tr, _ := v.Try(s, About{})
			v.Ended(tr, ok("build", ""))
		}, func(_ *world, v *View, s *step.Spec, _ *About) { s.Stages[0].Inherits = false; v.environ["HOME"] = "x" }, ""},
		{"after another", nil, func(_ *world, _ *View, _ *step.Spec, a *About) { a.After = "prepare" }, "it comes after prepare, which ran again"},
		{"its output is read", nil, func(_ *world, v *View, _ *step.Spec, _ *About) { v.Readers["build"] = true }, "its output was not stored, and an expression now reads it"},
		{"its output was read", func(_ *world, v *View, s *step.Spec) {
			v.Readers["build"] = true
			tr, _ := v.Try(s, About{Name: "build"})
			v.Ended(tr, ok("build", "x"))
		}, func(_ *world, v *View, _ *step.Spec, _ *About) { v.Readers["build"] = true }, ""},
		{"of another prefix", nil, func(_ *world, v *View, _ *step.Spec, _ *About) { v.Prefix = "outer/" }, "it had not run"},
		{"another attempt", nil, func(_ *world, _ *View, _ *step.Spec, a *About) { a.Again = true }, "-"},
		{"a nested pipeline", nil, func(_ *world, _ *View, s *step.Spec, _ *About) { s.Stages, s.Nested = nil, &step.Nested{} }, "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.begun(1)
			s := spec(w)
			if tt.before != nil {
				tt.before(w, v, s)
			} else {
				v.Ended(w.try(v, s), ok("build", "out"))
			}
			w.killed(v)
			now := w.view(w.past(1))
			s, about := spec(w), About{Name: "build"}
			if tt.now != nil {
				tt.now(w, now, s, &about)
			}
			trial, err := now.Try(s, about)
			reused := ""
			if tt.want == "" {
				reused = "run " + id(1)
			}
			if tt.want == "-" {
				tt.want = ""
			}
			if err != nil || trial.Why != tt.want || trial.Reused != reused {
				t.Errorf("%q, %q, %v\nexpected %q", trial.Why, trial.Reused, err, tt.want)
			}
		})
	}
}

// TestResumedTwice: what a resumed run takes over, the next one takes over too,
// as of the run that ran it.
func TestResumedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := &step.Spec{Label: "build", Stages: []step.Stage{w.program()}}
	v := w.begun(1)
	v.Readers["build"] = true
	v.Ended(w.try(v, spec), ok("build", "out"))
	w.killed(v)
	second := w.view(w.past(1))
	if err := second.Begin(Header{ID: id(2), File: "x.yaml"}, nil); err != nil {
		t.Fatal(err)
	}
	trial := w.try(second, spec)
	second.Ended(trial, &Entry{End: step.End{Status: step.StatusSuccess}, Label: "build", Reused: trial.Reused})
	w.end(second, 0, "", "")
	third := w.view(w.past(2), func(v *View) { v.Readers["build"] = true })
	trial = w.try(third, spec)
	if trial.Reused != "run "+id(2) || trial.taken.Run != id(1) || string(trial.taken.Stdout) != "out" {
		t.Errorf("%+v, %+v", trial, trial.taken)
	}
	if p := w.past(2); p.Results[0].Reused != "run "+id(1) {
		t.Errorf("%+v", p.Results)
	}
}

// TestRanSince: a step with sources is up to date in a resumed run whoever ran
// it; that it was another run is told.
func TestRanSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.spec()
	v := w.begun(1)
	trial := w.try(v, spec)
	v.Keep(trial, ok("build", ""))
	v.Ended(trial, ok("build", ""))
	w.end(v, 1, "", "")
	if trial := w.try(w.view(w.past(1)), spec); trial.Reused != "up to date" || trial.RanSince {
		t.Errorf("%+v", trial)
	}
	w.write("a.src", "other")
	v = w.begun(2)
	w.did(v, spec)
	w.end(v, 0, "", "")
	if trial := w.try(w.view(w.past(1)), spec); trial.Reused != "up to date" || !trial.RanSince {
		t.Errorf("%+v", trial)
	}
	if why, run, err := w.view(nil).Stale(spec, "build"); why != "" || run != id(2) || err != nil {
		t.Errorf("%q, %q, %v", why, run, err)
	}
	if why, run, err := w.view(nil).Stale(&step.Spec{Label: "build", Stages: spec.Stages}, "build"); why != "" || run != "" || err != nil {
		t.Errorf("of a step without sources: %q, %q, %v", why, run, err)
	}
}
