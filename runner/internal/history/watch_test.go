//go:build unix

package history

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

func globs(patterns ...string) (out []step.Glob) {
	for _, p := range patterns {
		name, not := strings.CutPrefix(p, "!")
		out = append(out, step.Glob{Pattern: name, Not: not})
	}
	return out
}

func paths(files []fileState) string {
	var out []string
	for _, f := range files {
		out = append(out, f.Path)
	}
	return strings.Join(out, " ")
}

// TestMatch: what patterns match, in order, each file once.
func TestMatch(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "a[b]*")} // the folder stands for itself
	for _, name := range []string{"x.c", "y.h", "sub/x.c", "sub/deep/z.c", ".git/config", "sub/.git/x.c", ".hidden.c", "g.c"} {
		w.write(name, name)
	}
	for link, to := range map[string]string{"link.c": "x.c", "loop": ".", "dangling.c": "nope", "folder.c": "sub"} {
		if err := os.Symlink(to, w.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(w.path("fifo.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	for _, tt := range []struct {
		globs   []step.Glob
		want    string
		missing string
	}{
		{nil, "", ""},
		{globs("x.c"), "x.c", ""},
		{globs("*.c"), ".hidden.c g.c link.c x.c", ""},
		{globs("**/*.c"), ".hidden.c g.c link.c sub/deep/z.c sub/x.c x.c", ""},
		{globs("*.c", "x.*", "./x.c"), ".hidden.c g.c link.c x.c", ""},
		{globs("*.c", "!x.c", "!.*"), "g.c link.c", ""},
		{globs("!x.c", "*.c"), ".hidden.c g.c link.c x.c", ""},
		{globs("**", "!sub/**"), ".hidden.c g.c link.c x.c y.h", ""},
		{globs("{x,y}.[ch]", "s?b/x.c"), "sub/x.c x.c y.h", ""},
		{globs(".git/*"), ".git/config", ""},
		{globs("nope/**", "x.c", "!gone", "*.z"), "x.c", "nope/** *.z"},
		{globs("sub"), "", "sub"},
		{globs("dangling.c", "fifo.c"), "", ""},
		{globs(w.pattern("y.h")), "y.h", ""},
		{globs("../*/y.h"), "y.h", ""},
	} {
		v := &View{Memory: Volatile()}
		files, missing, err := v.match(tt.globs, w.dir, nil)
		if err != nil || paths(files) != tt.want {
			t.Errorf("%v: %s, %v\nexpected %s", tt.globs, paths(files), err, tt.want)
		}
		if got := strings.Join(missing, " "); got != tt.missing && tt.want != "" {
			t.Errorf("%v: nothing matches %s, expected %s", tt.globs, got, tt.missing)
		}
	}
	v := &View{Memory: Volatile()}
	if files, _, err := v.match(globs(w.pattern("x.c")), other, nil); err != nil || paths(files) != w.path("x.c") {
		t.Errorf("a file elsewhere is called %s, %v", paths(files), err)
	}
	for _, bad := range [][]step.Glob{globs("[a"), globs("x.c", "{a")} {
		if _, _, err := v.match(bad, w.dir, nil); err == nil || !strings.HasSuffix(strings.SplitN(err.Error(), ":", 2)[0], "is not a pattern") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// pattern returns the pattern of one file.
func (w *world) pattern(name string) string {
	return strings.NewReplacer("[", `\[`, "*", `\*`).Replace(w.path(name))
}

// TestRoot: what leads out of the root is no source, but an error.
func TestRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("rooted/x", "x")
	if err := os.Symlink("../a.src", w.path("rooted/link")); err != nil {
		t.Fatal(err)
	}
	root, err := safety.OpenDir(w.path("rooted"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	v := &View{Memory: Volatile(), Root: root}
	if files, _, err := v.match(globs("x"), w.path("rooted"), nil); err != nil || paths(files) != "x" {
		t.Errorf("%s, %v", paths(files), err)
	}
	for _, p := range []string{"link", "../a.src"} {
		if files, _, err := v.match(globs(p), w.path("rooted"), nil); err == nil {
			t.Errorf("%s is taken: %s", p, paths(files))
		}
	}
	// So is one that is a pattern: the step does not run.
	spec := w.spec()
	spec.Stages[0].Dir, spec.Sources = w.path("rooted"), globs("link")
	if _, err := w.view(nil, func(v *View) { v.Root = root }).Try(spec, About{}); err == nil {
		t.Error("a source outside of the root is no error")
	}
}

// TestUnreadableSource: a file that cannot be read is an error that names it.
func TestUnreadableSource(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root reads any file")
	}
	w := newWorld(t)
	if err := os.Chmod(w.path("a.src"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.view(nil).Try(w.spec(), About{}); err == nil || !strings.HasPrefix(err.Error(), w.path("a.src")+": ") {
		t.Errorf("%v", err)
	}
}

// TestFileName: a name that JSON would change is quoted, and no two are the same.
func TestFileName(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for path, want := range map[string]string{
		"/d/a": "a", "/d/s/a": "s/a", "/e/a": "/e/a", "/d": ".", "/d/\xff": `"\xff"`, `/d/"\xff"`: `"\"\\xff\""`, "/d/ä": "ä", "/d/..a": "/d/..a", "/": "/",
	} {
		got := fileName(path, "/d")
		if got != want {
			t.Errorf("%q: %q, expected %q", path, got, want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q are both called %q", path, other, got)
		}
		seen[got] = path
	}
}

// TestSureNow: more is known of files once they have settled.
func TestSureNow(t *testing.T) {
	t.Parallel()
	a, b := fileState{ID: fileID{Size: 1}, Sure: true}, fileState{ID: fileID{Size: 2}, Sure: true}
	c := fileState{ID: fileID{Size: 1}}
	for _, tt := range []struct {
		before, now []fileState
		want        bool
	}{
		{nil, nil, false}, {nil, []fileState{c}, false}, {nil, []fileState{a}, true}, {[]fileState{a}, []fileState{a}, false},
		{[]fileState{c}, []fileState{a}, true}, {[]fileState{b}, []fileState{a}, true}, {[]fileState{a}, []fileState{c}, false},
	} {
		if got := sureNow(tt.before, tt.now); got != tt.want {
			t.Errorf("%v, %v: %v", tt.before, tt.now, got)
		}
	}
}

// TestSettled: what is known for sure of an old file is stored, once it is, so
// that the next run does not read it.
func TestSettled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.did(w.view(nil), w.spec())
	v := w.view(nil)
	rec := v.loadRecord(w.spec())
	rec.Sources[0].Sure = true // as if it had been old
	if err := v.store("build", rec); err != nil {
		t.Fatal(err)
	}
	trial := w.try(v, w.spec())
	if trial.Reused != "up to date" || !trial.finger.sources[0].Sure || trial.finger.sources[1].Sure {
		t.Errorf("%+v", trial.finger.sources)
	}
	rec.Sources[0].Sum = "what it was" // it is believed, and not read
	if err := v.store("build", rec); err != nil {
		t.Fatal(err)
	}
	if trial := w.try(v, w.spec()); trial.finger.sources[0].Sum != "what it was" {
		t.Errorf("%+v", trial.finger.sources)
	}
	w.write("a.src", "aa") // another size
	if trial := w.try(w.view(nil), w.spec()); trial.Why != "a.src changed" {
		t.Errorf("%+v", trial)
	}
}

// TestWatch: the sources of steps by their content, and where more may come.
func TestWatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("sub/deep/c.src", "c")
	w.write("sub/.git/d.src", "d")
	w.write("out/e.src", "e")
	w.write("elsewhere/f", "f")
	if err := os.Symlink("elsewhere/f", w.path("link.src")); err != nil {
		t.Fatal(err)
	}
	look := func(before *Watched, specs ...*step.Spec) *Watched {
		t.Helper()
		watched := NewWatched(before)
		v := &View{Memory: Volatile()}
		for _, s := range specs {
			if err := v.Watch(s, watched); err != nil {
				t.Fatal(err)
			}
		}
		return watched
	}
	rel := func(list []string) string {
		var out []string
		for _, p := range list {
			r, err := filepath.Rel(w.dir, p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return strings.Join(out, " ")
	}
	deep := w.spec()
	deep.Sources, deep.Generates = globs("**/*.src", "!b.src"), globs("out/*")
	first := look(nil, deep)
	if got := rel(slices.Sorted(maps.Keys(first.Sums))); got != "a.src link.src sub/deep/c.src" {
		t.Errorf("%s", got)
	}
	if got := rel(first.Dirs); got != ". elsewhere out sub sub/deep" {
		t.Errorf("folders: %s", got)
	}
	flat := w.spec()
	if got := look(nil, flat); rel(got.Dirs) != ". elsewhere" || len(got.Sums) != 3 {
		t.Errorf("%+v", got)
	}
	if got := look(nil, &step.Spec{Stages: flat.Stages}); len(got.Sums) != 0 || got.Dirs != nil {
		t.Errorf("without sources: %+v", got)
	}
	later := w.spec()
	later.Sources = globs("not/yet/*.src") // it may come
	if got := look(nil, later); rel(got.Dirs) != ". elsewhere out sub sub/deep" {
		t.Errorf("folders of what may come: %s", rel(got.Dirs))
	}
	both := look(nil, deep, flat)
	if len(both.Sums) != 4 || !slices.IsSorted(both.Dirs) || len(slices.Compact(slices.Clone(both.Dirs))) != len(both.Dirs) {
		t.Errorf("%+v", both)
	}
	w.write("a.src", "A")
	w.write("sub/new.src", "n")
	w.remove("sub/deep/c.src")
	second := look(first, deep)
	if got := rel(second.Changed(first)); got != "a.src sub/deep/c.src sub/new.src" {
		t.Errorf("changed: %s", got)
	}
	w.write("a.src", "A")
	if got := look(second, deep).Changed(second); got != nil {
		t.Errorf("written anew with the same content: %v", got)
	}
	bad := w.spec()
	bad.Sources = globs("[a")
	if err := (&View{Memory: Volatile()}).Watch(bad, NewWatched(nil)); err == nil {
		t.Error("a bad pattern is no error")
	}
	bad.Sources, bad.Generates = globs("*.src"), globs("[a")
	if err := (&View{Memory: Volatile()}).Watch(bad, NewWatched(nil)); err == nil {
		t.Error("a bad pattern of generates is no error")
	}
}

// TestWatchKnown: what was known for sure before saves the reading.
func TestWatchKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := &View{Memory: Volatile()}
	first := NewWatched(nil)
	if err := v.Watch(w.spec(), first); err != nil {
		t.Fatal(err)
	}
	for i := range first.known {
		first.known[i].Sure, first.known[i].Sum = true, fmt.Sprint("known ", i)
	}
	second := NewWatched(first)
	if err := (&View{Memory: Volatile()}).Watch(w.spec(), second); err != nil {
		t.Fatal(err)
	}
	if second.Sums[w.path("a.src")] != "known 0" || second.Sums[w.path("b.src")] != "known 1" {
		t.Errorf("%v", second.Sums)
	}
}

// TestRemoveFile: one that is not there is removed already.
func TestRemoveFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := errors.Join(removeFile(w.path("a.src")), removeFile(w.path("a.src"))); err != nil {
		t.Error(err)
	}
	if err := removeFile(w.dir); err == nil {
		t.Error("a folder with files in it is removed")
	}
}
