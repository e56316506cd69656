//go:build unix

package history

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// world is a folder of state, and one where a step runs.
type world struct {
	t      testing.TB
	folder string
	dir    string
	public []string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, folder: filepath.Join(t.TempDir(), "state"), dir: t.TempDir(), public: []string{"HOME=/h", "LANG=C", "TERM=x"}}
	w.write("a.src", "a")
	w.write("b.src", "b")
	w.write("in", "stdin")
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) {
	w.t.Helper()
	path := w.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(w.path(name)); err != nil {
		w.t.Fatal(err)
	}
}

// view opens the memory anew, as another run does.
func (w *world) view(previous *PastRun, change ...func(*View)) *View {
	w.t.Helper()
	m, err := Open(w.folder, w.public, previous)
	if err != nil {
		w.t.Fatal(err)
	}
	v := &View{Memory: m, File: "/f/x.yaml", Name: "x", Dir: w.dir, Readers: map[string]bool{}}
	for _, f := range change {
		f(v)
	}
	return v
}

// program is a stage that is no shell text, shell one that is.
func (w *world) program() step.Stage {
	return step.Stage{
		Program: "prog", Args: []string{"prog", "one", "two"}, Dir: w.dir, Env: []string{"HOME=/h", "LANG=C", "X=x"}, Inherits: true, Declared: []string{"X"},
		Stdio: []step.Stdio{{Kind: step.StdioIgnore}, {Kind: step.StdioPipe}, {Kind: step.StdioPipe}}, Command: "prog one two",
	}
}

func (w *world) shell() step.Stage {
	st := w.program()
	st.Program, st.Args = "", nil
	st.Shell, st.Written, st.Text, st.Vars, st.Set = step.BuiltinShell, "echo ${{ v }}", "echo ${V}", []safety.Var{{Name: "V", Value: "v"}}, []string{"errexit"}
	st.Keep = &step.Keep{Max: 10, Overflow: step.OverflowSpill}
	return st
}

// spec is a step with sources, of one process.
func (w *world) spec() *step.Spec {
	return &step.Spec{Label: "build", Stages: []step.Stage{w.program()}, Sources: []step.Glob{{Pattern: "*.src"}}}
}

func (w *world) try(v *View, spec *step.Spec) *Trial {
	w.t.Helper()
	trial, err := v.Try(spec, About{Name: "build"})
	if err != nil {
		w.t.Fatal(err)
	}
	return trial
}

// ok is the end of a step that did what it should.
func ok(label, stdout string) *Entry {
	return &Entry{
		End: step.End{Status: step.StatusSuccess, Command: "prog"}, Label: label, Start: time.Now(), Duration: time.Second,
		Stages: []step.StageResult{{Exit: engine.Status{}, Stdout: step.Recall([]byte(stdout))}},
	}
}

// did runs a step that ends well, and returns what there is to warn of.
func (w *world) did(v *View, spec *step.Spec) string {
	w.t.Helper()
	trial := w.try(v, spec)
	if trial.Reused != "" {
		w.t.Fatalf("%s is taken over: %s", spec.Label, trial.Reused)
	}
	return v.Keep(trial, ok(spec.Label, "out\n"))
}

// TestRunsAgain: each change that makes a step with sources run again says so,
// and each that should not does not.
func TestRunsAgain(t *testing.T) {
	t.Parallel()
	const shape = "how its stages are joined, or its exit codes or buffers are taken, changed"
	uid := func(n uint32) *uint32 { return &n }
	stage := func(f func(*step.Stage)) func(*world, *step.Spec) {
		return func(_ *world, s *step.Spec) { f(&s.Stages[0]) }
	}
	shell := func(w *world, s *step.Spec) { s.Stages[0] = w.shell() }
	stdin := func(kind step.StdioKind, name string) func(*world, *step.Spec) {
		return func(w *world, s *step.Spec) {
			s.Stages[0].Stdio[0] = step.Stdio{Kind: kind}
			if name != "" {
				s.Stages[0].Stdio[0].Path = w.path(name)
			}
		}
	}
	input := func(text string) func(*world, *step.Spec) {
		return func(_ *world, s *step.Spec) {
			s.Stages[0].Stdio[0].Kind, s.Stages[0].Input = step.StdioInput, text
		}
	}
	tee := func(name string, app bool) func(*world, *step.Spec) {
		return func(w *world, s *step.Spec) {
			s.Stages = append(s.Stages, step.Stage{Tee: []step.Branch{{Chain: []step.Stage{w.shell()}}, {File: w.path(name), Append: app}}})
		}
	}
	for _, tt := range []struct {
		name        string
		first, then func(*world, *step.Spec) // what is different from spec, the first time and then
		want        string                   // "": it is up to date
	}{
		{"nothing", nil, nil, ""},
		{"an argument", nil, stage(func(s *step.Stage) { s.Args[1] = "x" }), "argument 1 changed"},
		{"its own name", nil, stage(func(s *step.Stage) { s.Args[0] = "x" }), "argument 0 changed"},
		{"one argument more", nil, stage(func(s *step.Stage) { s.Args = append(s.Args, "") }), "argument 3 is new"},
		{"one argument less", nil, stage(func(s *step.Stage) { s.Args = s.Args[:2] }), "argument 2 is gone"},
		{"the same text in other arguments", nil, stage(func(s *step.Stage) { s.Args = []string{"prog", "onetwo"} }), "argument 1 changed, argument 2 is gone"},
		{"many things", nil, stage(func(s *step.Stage) { s.Program, s.Args = "q", []string{"q", "1", "2"} }), "the program changed, argument 0 changed, argument 1 changed and 1 more"},
		{"the program", nil, stage(func(s *step.Stage) { s.Program = "other" }), "the program changed"},
		{"a variable that the file sets", nil, stage(func(s *step.Stage) { s.Env[2] = "X=y" }), "variable X changed"},
		{"one that it sets now", nil, stage(func(s *step.Stage) { s.Env = append(s.Env, "Y="); s.Declared = append(s.Declared, "Y") }), "variable Y is new"},
		{"one that it sets no more", nil, stage(func(s *step.Stage) { s.Env, s.Declared = s.Env[:2], nil }), "variable X is gone"},
		{"a variable that is inherited", nil, stage(func(s *step.Stage) { s.Env[0] = "HOME=/other" }), ""},
		{"an inherited one that is gone", nil, stage(func(s *step.Stage) { s.Env = s.Env[1:] }), ""},
		{"any variable where not all is inherited", stage(func(s *step.Stage) { s.Inherits = false }), stage(func(s *step.Stage) { s.Inherits, s.Env[0] = false, "HOME=/other" }), "variable HOME changed"},
		{"extendEnv", nil, stage(func(s *step.Stage) { s.Inherits, s.Env = false, s.Env[2:] }), "extendEnv changed"},
		{"unset", nil, stage(func(s *step.Stage) { s.Unset = []string{"U"} }), "unset changed"},
		{"cwd", stage(func(s *step.Stage) { s.Dir = "/" }), func(_ *world, s *step.Spec) { s.Stages[0].Dir = os.TempDir() }, "cwd changed"},
		{"shell text", shell, func(w *world, s *step.Spec) { shell(w, s); s.Stages[0].Written = "echo  ${{ v }}" }, "the shell text changed"},
		{"a value in shell text", shell, func(w *world, s *step.Spec) { shell(w, s); s.Stages[0].Vars[0].Value = "w" }, "a value in the shell text changed"},
		{"text of another shell", func(w *world, s *step.Spec) {
			shell(w, s)
			s.Stages[0].Shell, s.Stages[0].Text, s.Stages[0].Args = "sh", "", []string{"sh", "-c", "a"}
		}, func(w *world, s *step.Spec) {
			shell(w, s)
			s.Stages[0].Shell, s.Stages[0].Text, s.Stages[0].Args = "sh", "", []string{"sh", "-c", "b"}
		}, "a value in the shell text changed"},
		{"the shell", shell, func(w *world, s *step.Spec) { shell(w, s); s.Stages[0].Set = nil }, "the shell changed"},
		{"the content of stdin", stdin(step.StdioFile, "in"), func(w *world, s *step.Spec) { stdin(step.StdioFile, "in")(w, s); w.write("in", "stdio") }, "the content of stdin changed"},
		{"stdin from another file of that content", stdin(step.StdioFile, "in"), func(w *world, s *step.Spec) { w.write("in2", "stdin"); stdin(step.StdioFile, "in2")(w, s) }, "descriptor 0 changed"},
		{"stdin of the caller", stdin(step.StdioInherit, ""), stdin(step.StdioInherit, ""), "no earlier success is recorded"},
		{"stdin that was another's", nil, stdin(step.StdioInherit, ""), "its stdin is the caller's"},
		{"a descriptor of the caller", nil, stdin(step.StdioFD, ""), "its stdin is the caller's"},
		{"stdin that is no file", nil, stdin(step.StdioFile, "."), "its stdin is not a regular file"},
		{"stdin that is missing", stdin(step.StdioFile, "in"), func(w *world, s *step.Spec) { stdin(step.StdioFile, "in")(w, s); w.remove("in") }, "the content of stdin is gone"},
		{"input", input("a"), input("b"), "input changed"},
		{"input that is new", nil, input(""), "descriptor 0 changed, input is new"},
		{"stdout to a file", nil, stage(func(s *step.Stage) { s.Stdio[1] = step.Stdio{Kind: step.StdioFile, Path: "/o"} }), "descriptor 1 changed"},
		{"another descriptor", nil, stage(func(s *step.Stage) { s.Stdio = append(s.Stdio, step.Stdio{}) }), "descriptor 3 is new"},
		{"appending", stage(func(s *step.Stage) { s.Stdio[1] = step.Stdio{Kind: step.StdioFile, Path: "/o"} }), stage(func(s *step.Stage) { s.Stdio[1] = step.Stdio{Kind: step.StdioFile, Path: "/o", Append: true} }), "descriptor 1 changed"},
		{"uid", stage(func(s *step.Stage) { s.UID = uid(1) }), stage(func(s *step.Stage) { s.UID = uid(2) }), "uid changed"},
		{"a gid", nil, stage(func(s *step.Stage) { s.GID = uid(0) }), "gid is new"},
		{"success codes", nil, stage(func(s *step.Stage) { s.SuccessCodes = []int{0, 1} }), shape},
		{"a buffer", nil, stage(func(s *step.Stage) { s.Keep = &step.Keep{} }), shape},
		{"the size of a buffer", shell, func(w *world, s *step.Spec) { shell(w, s); s.Stages[0].Keep.Max = 11 }, shape},
		{"what comes past it", shell, func(w *world, s *step.Spec) { shell(w, s); s.Stages[0].Keep.Overflow = step.OverflowTruncate }, shape},
		{"another stage", nil, func(w *world, s *step.Spec) { s.Stages = append(s.Stages, w.program()) }, ""},
		{"a file of a tee", tee("o", false), tee("p", false), "file 1 of a tee changed"},
		{"a tee that appends", tee("o", false), tee("o", true), shape},
		{"a buffer in a branch", tee("o", false), func(w *world, s *step.Spec) {
			tee("o", false)(w, s)
			s.Stages[1].Tee[0].Chain[0].Keep = nil
		}, shape},
		{"a stage of a branch", tee("o", false), func(w *world, s *step.Spec) {
			tee("o", false)(w, s)
			s.Stages[1].Tee[0].Chain[0].Written = "x"
		}, "of stage 2, the shell text changed"},
		{"a source", nil, func(w *world, _ *step.Spec) { w.write("a.src", "A") }, "a.src changed"},
		{"a source more", nil, func(w *world, _ *step.Spec) { w.write("c.src", "a") }, "c.src is new"},
		{"a source less", nil, func(w *world, _ *step.Spec) { w.remove("b.src") }, "b.src is gone"},
		{"a source by another name", nil, func(w *world, _ *step.Spec) { w.write("c.src", "b"); w.remove("b.src") }, "c.src is new, b.src is gone"},
		{"sources and the command", nil, func(w *world, s *step.Spec) { w.write("a.src", "A"); s.Stages[0].Args[1] = "x" }, "argument 1 changed, a.src changed"},
		{"a pattern more, no file more", nil, func(_ *world, s *step.Spec) { s.Sources = append(s.Sources, step.Glob{Pattern: "a.*"}) }, ""},
		{"a pattern that takes away", nil, func(_ *world, s *step.Spec) { s.Sources = append(s.Sources, step.Glob{Pattern: "a.*", Not: true}) }, "a.src is gone"},
		{"the times of a source", nil, func(w *world, _ *step.Spec) {
			if err := os.Chtimes(w.path("a.src"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				w.t.Error(err)
			}
		}, ""},
		{"the mode of a source", nil, func(w *world, _ *step.Spec) {
			if err := os.Chmod(w.path("a.src"), 0o400); err != nil {
				w.t.Error(err)
			}
		}, ""},
		{"a source that is another file of that content", nil, func(w *world, _ *step.Spec) { w.remove("a.src"); w.write("a.src", "a") }, ""},
		{"how it ends", nil, func(_ *world, s *step.Spec) {
			s.Timeout, s.IdleTimeout, s.Held = 1, 2, true
			s.Stages[0].KillSignal, s.Stages[0].KillAfter, s.Stages[0].Drain, s.Stages[0].Command, s.Stages[0].Path = 9, 1, 1, "other", "/other"
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			spec := w.spec()
			if tt.first != nil {
				tt.first(w, spec)
			}
			if tt.name == "cwd" { // the sources are those of both folders
				spec.Sources = []step.Glob{{Pattern: w.path("*.src")}}
			}
			if warning := w.did(w.view(nil), spec); warning != "" {
				t.Fatal(warning)
			}
			again := w.spec()
			if tt.then != nil {
				tt.then(w, again)
			} else if tt.first != nil {
				tt.first(w, again)
			}
			if tt.name == "cwd" {
				again.Sources = spec.Sources
			}
			why, _, err := w.view(nil).Stale(again, "build")
			if err != nil {
				t.Fatal(err)
			}
			trial := w.try(w.view(nil), again)
			switch {
			case tt.name == "another stage": // all parts are called by another name
				if !strings.HasPrefix(why, shape[:len(shape)-1]) && !strings.Contains(why, "of stage 1, the program is new") {
					t.Errorf("%q", why)
				}
			case tt.name == "cwd": // what a source is called depends on it
				if !strings.HasPrefix(why, tt.want) {
					t.Errorf("%q", why)
				}
			case why != tt.want:
				t.Errorf("it runs: %q\nexpected  %q", why, tt.want)
			}
			if (trial.Reused == "up to date") != (why == "") || trial.Reused == "" && trial.last != nil && trial.Why != why {
				t.Errorf("stale: %q; tried: %q, %q", why, trial.Why, trial.Reused)
			}
			if trial.Reused != "" {
				return
			}
			if why, _, _ := w.view(nil).Stale(again, "build"); why != "no earlier success is recorded" {
				t.Errorf("a step that began to run is not forgotten: %q", why)
			}
		})
	}
}

// TestGenerates: what a step makes must be there, as it made it, and is none of
// its sources.
func TestGenerates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*world)
		want   string
	}{
		{"nothing", func(*world) {}, ""},
		{"changed", func(w *world) { w.write("out/1.src", "x") }, "out/1.src changed"},
		{"missing", func(w *world) { w.remove("out/1.src") }, "out/1.src is gone"},
		{"another one that matches", func(w *world) { w.write("out/3.src", "x") }, "out/3.src is new"},
		{"its times", func(w *world) { _ = os.Chtimes(w.path("out/1.src"), time.Unix(1, 0), time.Unix(1, 0)) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			spec := w.spec()
			spec.Sources, spec.Generates = []step.Glob{{Pattern: "**/*.src"}}, []step.Glob{{Pattern: "out/*"}}
			v := w.view(nil)
			trial := w.try(v, spec)
			w.write("out/1.src", "1")
			w.write("out/2.src", "2")
			if msg := v.Keep(trial, ok("build", "")); msg != "" {
				t.Fatal(msg)
			}
			tt.change(w)
			if why, _, err := w.view(nil).Stale(spec, "build"); err != nil || why != tt.want {
				t.Errorf("%q, %v", why, err)
			}
		})
	}
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		spec := w.spec()
		spec.Sources, spec.Generates = nil, []step.Glob{{Pattern: "a.src"}}
		w.did(w.view(nil), spec)
		if trial := w.try(w.view(nil), spec); trial.Reused != "up to date" {
			t.Errorf("%+v", trial)
		}
		w.remove("a.src")
		if trial := w.try(w.view(nil), spec); trial.Why != "a.src is gone" {
			t.Errorf("%+v", trial)
		}
	})
}

// TestKept: what is not remembered, and what is said of it.
func TestKept(t *testing.T) {
	t.Parallel()
	const each = ", so the step will run again each time"
	redactor, err := safety.NewRedactor([]string{"secret-name"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*world, *View, *step.Spec, *Entry)
		want   string
		kept   bool
	}{
		{"all is well", func(*world, *View, *step.Spec, *Entry) {}, "", true},
		{"a pattern matches nothing", func(_ *world, _ *View, s *step.Spec, _ *Entry) {
			s.Sources = append(s.Sources, step.Glob{Pattern: "no/*.c"})
		}, "sources: no/*.c matches no file" + each, false},
		{"a folder", func(w *world, _ *View, s *step.Spec, _ *Entry) {
			w.write("d/f", "")
			s.Sources = []step.Glob{{Pattern: "d"}}
		}, "sources: d is a folder (d/** is what is in it)" + each, false},
		{"an absolute folder", func(w *world, _ *View, s *step.Spec, _ *Entry) { s.Sources = []step.Glob{{Pattern: w.dir}} }, "", false},
		{"nothing is made", func(_ *world, _ *View, s *step.Spec, _ *Entry) { s.Generates = []step.Glob{{Pattern: "made"}} }, "generates: made was not written" + each, false},
		{"it failed", func(_ *world, _ *View, _ *step.Spec, e *Entry) { e.Status = step.StatusFailure }, "", false},
		{"it was cancelled", func(_ *world, _ *View, _ *step.Spec, e *Entry) { e.Status = step.StatusCancelled }, "", false},
		{"a service", func(_ *world, _ *View, s *step.Spec, _ *Entry) { s.Service = &step.Service{} }, "", false},
		{"a job", func(_ *world, _ *View, s *step.Spec, _ *Entry) { s.Job = &step.Job{} }, "", false},
		{"no sources", func(_ *world, _ *View, s *step.Spec, _ *Entry) { s.Sources = nil }, "", false},
		{"empty sources", func(_ *world, _ *View, s *step.Spec, _ *Entry) { s.Sources = []step.Glob{} }, "", true},
		{"stdin of the caller", func(_ *world, _ *View, s *step.Spec, _ *Entry) { s.Stages[0].Stdio[0].Kind = step.StdioInherit }, "", false},
		{"a secret in a name", func(w *world, v *View, _ *step.Spec, _ *Entry) { v.Redactor = redactor; w.write("secret-name.src", "") }, "a secret is in the name of a file, which is not stored" + each, false},
		{"no folder", func(_ *world, v *View, _ *step.Spec, _ *Entry) { v.Memory = Volatile() }, "", false},
		{"a folder that is gone", func(w *world, _ *View, _ *step.Spec, _ *Entry) { _ = os.RemoveAll(w.folder) }, "cannot remember that the step is up to date: no such file or directory", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v, spec, e := w.view(nil), w.spec(), ok("build", "x")
			tt.change(w, v, spec, e)
			got := v.Keep(w.try(v, spec), e)
			if tt.name == "an absolute folder" {
				tt.want = "sources: " + w.dir + " is a folder (" + w.dir + "/** is what is in it)" + each
			}
			if got != tt.want {
				t.Errorf("%q\nexpected %q", got, tt.want)
			}
			if files, _ := os.ReadDir(filepath.Join(w.folder, "steps")); (len(files) == 1) != tt.kept {
				t.Errorf("%d records", len(files))
			}
		})
	}
}

// TestWarnedOnce: that nothing can be remembered is said once for a run.
func TestWarnedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.view(nil)
	trial := w.try(v, w.spec())
	if err := os.RemoveAll(w.folder); err != nil {
		t.Fatal(err)
	}
	if first, second := v.Keep(trial, ok("build", "")), v.Keep(trial, ok("build", "")); first == "" || second != "" {
		t.Errorf("%q, then %q", first, second)
	}
	if v.FirstFailure() {
		t.Error("it is said again")
	}
	if m := Volatile(); !m.FirstFailure() || m.FirstFailure() {
		t.Error("the first failure is not the first one")
	}
}

// TestForce: a step that is up to date runs if it must.
func TestForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.did(w.view(nil), w.spec())
	v := w.view(nil, func(v *View) { v.Force = true })
	if trial := w.try(v, w.spec()); trial.Reused != "" || trial.Why != "--force" {
		t.Errorf("%+v", trial)
	}
	if trial := w.try(v, w.spec()); trial.Why != "" { // it is not known that it ended well before
		t.Errorf("%+v", trial)
	}
}

// TestAgain: another attempt of a step is not looked at again.
func TestAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.did(w.view(nil), w.spec())
	trial, err := w.view(nil).Try(w.spec(), About{Name: "build", Again: true})
	if err != nil || trial.Reused != "" || trial.Why != "" || trial.finger == nil {
		t.Errorf("%+v, %v", trial, err)
	}
}

// TestWhose: the record of a step is that of its file, its pipeline, the caller's
// folder and its label.
func TestWhose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.did(w.view(nil), w.spec())
	for name, change := range map[string]func(*View){
		"file": func(v *View) { v.File = "/f/y.yaml" }, "pipeline": func(v *View) { v.Name = "y" }, "folder": func(v *View) { v.Dir = "/" }, "prefix": func(v *View) { v.Prefix = "outer/" },
		"no file": func(v *View) { v.File = "" },
	} {
		if trial := w.try(w.view(nil, change), w.spec()); trial.Reused != "" || trial.Why != "" {
			t.Errorf("of another %s: %+v", name, trial)
		}
	}
	spec := w.spec()
	spec.Label = "build[a]"
	if trial := w.try(w.view(nil), spec); trial.Reused != "" {
		t.Errorf("of another label: %+v", trial)
	}
	if trial := w.try(w.view(nil), w.spec()); trial.Reused == "" {
		t.Errorf("%+v", trial)
	}
}

// TestDeclaredOutside: what a step around a pipeline sets counts as set by the file.
func TestDeclaredOutside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outside := func(v *View) { v.Declared = []string{"HOME"} }
	w.did(w.view(nil, outside), w.spec())
	spec := w.spec()
	spec.Stages[0].Env[0] = "HOME=/other"
	if why, _, err := w.view(nil, outside).Stale(spec, "build"); err != nil || why != "variable HOME changed" {
		t.Errorf("%q, %v", why, err)
	}
}

// TestBadRecord: a record that is torn, or somebody else's, is as if there were
// none; the step runs.
func TestBadRecord(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string, text []byte) error{
		"torn":     func(path string, text []byte) error { return os.WriteFile(path, text[:len(text)/2], 0o600) },
		"empty":    func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
		"changed":  func(path string, text []byte) error { text[20] ^= 1; return os.WriteFile(path, text, 0o600) },
		"no json":  func(path string, _ []byte) error { return os.WriteFile(path, []byte("00000000 \n"), 0o600) },
		"a folder": func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a link": func(path string, _ []byte) error {
			return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path))
		},
		"a link to nothing": func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Symlink("/nope", path)) },
		"a FIFO":            func(path string, _ []byte) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		"another's": func(path string, _ []byte) error {
			if os.Geteuid() != 0 {
				return os.Remove(path) // it cannot be given away
			}
			return os.Lchown(path, 12345, -1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.view(nil)
			w.did(v, w.spec())
			path := v.recordPath("build")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path, text); err != nil {
				t.Fatal(err)
			}
			if trial := w.try(w.view(nil), w.spec()); trial.Reused != "" || trial.Why != "" || trial.last != nil {
				t.Errorf("%+v", trial)
			}
		})
	}
}

// TestTaken: what is taken over has the end, the times and the output of then.
func TestTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reads := func(v *View) { v.Readers["build"] = true }
	v := w.view(nil, reads)
	e := ok("build", "")
	e.Start, e.Duration, e.Job, e.Command = time.Unix(1000, 5), 7*time.Second, "0badcafe", "prog one"
	e.Stages = []step.StageResult{{Exit: engine.Killed(syscall.SIGPIPE)}, {Exit: engine.Status{Code: 0}, Stdout: step.Recall([]byte("out\xff\n")), Stderr: step.Recall([]byte("err"))}}
	if msg := v.Keep(w.try(v, w.spec()), e); msg != "" {
		t.Fatal(msg)
	}
	res, job, start, took := w.try(w.view(nil, reads), w.spec()).Taken()
	out, _ := res.Stages[1].Stdout.Bytes(0)
	errs, _ := res.Stages[1].Stderr.Bytes(0)
	if res.Status != step.StatusSuccess || res.Command != "prog one" || res.Stages[0].Exit.Signal != syscall.SIGPIPE || string(out) != "out\xff\n" || string(errs) != "err" {
		t.Errorf("%+v: %q, %q", res, out, errs)
	}
	if job != "0badcafe" || !start.Equal(time.Unix(1000, 5)) || took != 7*time.Second {
		t.Errorf("%s, %s, %s", job, start, took)
	}
	// What was not kept because nobody read it is missing once somebody does.
	w = newWorld(t)
	w.did(w.view(nil), w.spec())
	if trial := w.try(w.view(nil, reads), w.spec()); trial.Why != "its output was not stored, and an expression now reads it" {
		t.Errorf("%+v", trial)
	}
}

// TestOutputKept: what is stored of an output that is read.
func TestOutputKept(t *testing.T) {
	t.Parallel()
	redactor, err := safety.NewRedactor([]string{"token-12345"})
	if err != nil {
		t.Fatal(err)
	}
	closed := step.Recall([]byte("x"))
	closed.Close()
	for _, tt := range []struct {
		name           string
		stdout, stderr *step.Buffer
		redactor       *safety.Redactor
		lost           string
	}{
		{"plain", step.Recall([]byte("x")), nil, redactor, ""},
		{"a secret", step.Recall([]byte("a token-12345")), nil, redactor, "a secret is in its output, which is not stored"},
		{"a secret in stderr", nil, step.Recall([]byte("a token-12345")), redactor, "a secret is in its output, which is not stored"},
		{"a closed one", closed, nil, nil, "its output could not be stored: file already closed"},
		{"too large", step.Recall(make([]byte, 16<<20+1)), nil, nil, "its output was too large to be stored"},
	} {
		rec := &record{}
		rec.keep([]step.StageResult{{Stdout: tt.stdout, Stderr: tt.stderr}}, tt.redactor)
		if rec.Lost != tt.lost || tt.lost != "" && rec.Stdout != nil {
			t.Errorf("%s: %q, %d bytes", tt.name, rec.Lost, len(rec.Stdout))
		}
	}
}

// TestNoSecret: of a secret nothing is in any file of the state folder, in
// whatever form, nor of the value of any variable.
func TestNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "token-12345"
	redactor, err := safety.NewRedactor([]string{secret})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.public = append(w.public, "PRIVATE=a-private-value")
	v := w.view(nil, func(v *View) { v.Redactor, v.Readers["build"] = redactor, true })
	h := Header{ID: "20260101-000000.000-000001", File: "/f/x.yaml", Params: map[string][]string{"p": {"a", "x" + secret}}, Args: []string{secret}}
	if err := v.Begin(h, redactor); err != nil {
		t.Fatal(err)
	}
	spec := w.spec()
	spec.Stages[0].Args[1], spec.Stages[0].Env = secret, append(spec.Stages[0].Env, "T="+secret)
	spec.Stages[0].Declared = append(spec.Stages[0].Declared, "T")
	spec.Stages[0].Stdio[0].Kind, spec.Stages[0].Input = step.StdioInput, secret
	w.write("s.src", secret)
	v.Started("build")
	trial := w.try(v, spec)
	e := ok("build", "said: "+secret+"\n")
	e.Command = "prog " + secret
	if msg := v.Keep(trial, e); msg != "" {
		t.Fatal(msg)
	}
	e.Command = "prog ***" // as the runner gives it to the journal
	v.Ended(trial, e)
	if err := errors.Join(v.Flush(), v.End(0, "", "")); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		for _, bad := range []string{secret, "a-private-value"} {
			if bytes.Contains(text, []byte(bad)) || bytes.Contains([]byte(path), []byte(bad)) {
				t.Errorf("%s holds %s", path, bad)
			}
		}
		if redactor.String(string(text)) != string(text) {
			t.Errorf("%s holds a form of the secret", path)
		}
		if info, _ := d.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %s", path, info.Mode())
		}
		return err
	})
	if err != nil || files != 3 { // key, journal, record
		t.Errorf("%d files, %v", files, err)
	}
	p, err := OpenRun(w.folder, h.ID, "")
	if err != nil || p.Params["p"][1] != "x***" || p.Args[0] != "***" || !slices.Equal(p.header.SecretParams, []string{"p"}) || !p.header.SecretArgs {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestDigests: what a step inherits is known by its digest, but not what is of a
// session only; the same value in another folder has another one.
func TestDigests(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	a, b := w.view(nil).environ, other.view(nil).environ
	if names := slices.Sorted(maps.Keys(a)); !slices.Equal(names, []string{"HOME", "LANG"}) || a["HOME"] == b["HOME"] || a["HOME"] == a["LANG"] {
		t.Errorf("%v, %v", a, b)
	}
	if again := w.view(nil).environ; again["HOME"] != a["HOME"] {
		t.Errorf("%v, then %v", a, again)
	}
	h := w.view(nil).hash
	if h.Digest("ab", "c") == h.Digest("a", "bc") {
		t.Error("words run into one another")
	}
	for _, name := range state.Volatile {
		if _, ok := environDigests(h, []string{name + "=x"})[name]; ok {
			t.Errorf("%s counts", name)
		}
	}
}

// TestFew: not more than three things are named.
func TestFew(t *testing.T) {
	t.Parallel()
	for n, want := range []string{"", "1", "1, 2", "1, 2, 3", "1, 2, 3 and 1 more", "1, 2, 3 and 2 more"} {
		var words []string
		for i := range n {
			words = append(words, fmt.Sprint(i+1))
		}
		if got := few(words); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}
