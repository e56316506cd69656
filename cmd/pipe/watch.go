package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
)

// quiet is how long no source may change before the sources are compared: editors
// and compilers write a file in several steps.
const quiet = 50 * time.Millisecond

// errChanged is the cause with which --watch cancels a run whose sources changed.
var errChanged = errors.New("its sources changed")

// watcher watches the sources and the files of a pipeline for changes.
type watcher struct {
	files  []string // the file of the pipeline and the files of its nested pipelines
	broken []string // files that have errors now
	r      *runner.Runner
	in     runner.Input
	notify *fsnotify.Watcher
	dirs   map[string]bool    // the folders that notify watches
	last   *pipeline.Pipeline // the last one without errors
	now    *runner.Watched    // the sources as last seen
	// during counts, by file, the consecutive runs during which the file changed.
	during map[string]int
	texts  map[string]string // the contents of files and broken, by name
}

// watch runs the pipeline, and runs it again whenever a source has changed, until
// ctx is done.
func (s *session) watch(ctx context.Context, r *runner.Runner, file string, p *pipeline.Pipeline) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	defer func() { _ = notify.Close() }()
	w := &watcher{r: r, in: s.in, notify: notify, dirs: map[string]bool{}, during: map[string]int{}}
	if err := w.look(p); err != nil {
		return refused(err)
	}
	if len(w.now.Dirs) == 0 {
		return fmt.Errorf("--watch runs again when a file changes that a step names in its sources, and no step of %s names any; add sources: [\"src/**\"]", file)
	}
	for _, label := range w.now.Unknown {
		fmt.Fprintf(os.Stderr, "pipe: %s: warning: its sources are known only during a run, and are not watched\n", label)
	}
	for {
		watched := len(w.now.Sums)
		runCtx, stop := context.WithCancelCause(ctx)
		changed := make(chan []string, 1)
		over := make(chan struct{})
		go func() {
			names := w.wait(runCtx, p, over)
			if names != nil {
				stop(errChanged)
			}
			changed <- names
		}()
		if p != nil {
			_ = s.run(runCtx, r, p) // run has printed the error
		}
		close(over)
		if ctx.Err() == nil && context.Cause(runCtx) == nil {
			fmt.Fprintf(os.Stderr, "pipe: watching %d files\n", watched)
		}
		names := <-changed
		stop(nil)
		if ctx.Err() != nil {
			return interruptStatus(ctx)
		}
		here, _ := os.Getwd()
		for i, n := range names {
			if rel, err := filepath.Rel(here, n); err == nil && !strings.HasPrefix(rel, "..") {
				names[i] = rel
			}
		}
		if len(names) > 3 {
			names = append(names[:3], fmt.Sprintf("and %d more", len(names)-3))
		}
		fmt.Fprintf(os.Stderr, "pipe: %s changed\n", strings.Join(names, ", "))
		w.broken = nil
		if next, err := load(file); err != nil {
			p = nil // load has printed the errors; the next change may fix them
			w.mend(err)
		} else if err := w.look(next); err != nil {
			_ = refused(err)
			p = nil
		} else {
			p = next
		}
	}
}

// interruptStatus returns the exit status for the cause of the end of ctx.
func interruptStatus(ctx context.Context) error {
	var by *runner.Interrupt
	if errors.As(context.Cause(ctx), &by) {
		return exitError(by.ExitCode())
	}
	return exitError(1)
}

// look reads the state of the sources, and watches the folders that they are in.
func (w *watcher) look(p *pipeline.Pipeline) error {
	for { // until no folder is new: a file may have come before its folder was watched
		now, err := w.r.Sources(p, w.now, w.in)
		if err != nil {
			return err
		}
		w.now = now
		w.files, w.last = p.Files(), p
		w.texts = w.read()
		fresh := false
		dirs := slices.Clone(now.Dirs)
		for _, f := range append(slices.Clone(w.files), w.broken...) {
			dirs = append(dirs, filepath.Dir(f))
		}
		dirs = withParents(dirs)
		keep := map[string]bool{}
		for _, dir := range dirs {
			if keep[dir] = true; w.dirs[dir] {
				continue
			}
			if err := w.notify.Add(dir); err != nil {
				switch {
				case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
					continue
				case errors.Is(err, syscall.ENOSPC):
					err = errors.New("too many folders are watched; raise fs.inotify.max_user_watches")
				}
				return fmt.Errorf("--watch: cannot watch %s: %w", dir, err)
			}
			w.dirs[dir], fresh = true, true
		}
		for dir := range w.dirs {
			if !keep[dir] {
				_ = w.notify.Remove(dir)
				delete(w.dirs, dir)
			}
		}
		if !fresh {
			return nil
		}
	}
}

// read returns the contents of files and broken. It leaves out a file that does
// not exist: an editor may be about to replace it.
func (w *watcher) read() map[string]string {
	out := map[string]string{}
	for _, f := range append(slices.Clone(w.files), w.broken...) {
		if text, err := pipeline.ReadFile(f); err == nil {
			out[f] = string(text)
		}
	}
	return out
}

// withParents returns dirs as absolute paths, sorted, with their parents up to the
// working directory. The parents are watched because only they report that a folder
// was renamed.
func withParents(dirs []string) []string {
	here, err := os.Getwd()
	if err != nil {
		return dirs
	}
	out := make([]string, 0, len(dirs))
	for _, d := range dirs {
		if !filepath.IsAbs(d) {
			d = filepath.Join(here, d)
		}
		out = append(out, d)
		for strings.HasPrefix(d, here+"/") {
			d = filepath.Dir(d)
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// mend adds the files in which err has errors to those that are watched.
func (w *watcher) mend(err error) {
	var errs pipeline.Errors
	if !errors.As(err, &errs) {
		return
	}
	for _, e := range errs {
		if e.File != "" {
			w.broken = append(w.broken, e.File)
			if dir, err := filepath.Abs(filepath.Dir(e.File)); err == nil && !w.dirs[dir] && w.notify.Add(dir) == nil {
				w.dirs[dir] = true
			}
		}
	}
	w.texts = w.read()
}

// gone stops watching the folder name and the folders below it. A new folder may
// have taken its place, which look then watches.
func (w *watcher) gone(name string) {
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	for dir := range w.dirs {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			_ = w.notify.Remove(dir)
			delete(w.dirs, dir)
		}
	}
}

// wait returns the files whose content has changed, or nil when ctx is done. The
// caller closes over when the run has ended. Files that have changed during several
// consecutive runs count as written by the run: until over is closed, their changes
// are ignored.
func (w *watcher) wait(ctx context.Context, p *pipeline.Pipeline, over <-chan struct{}) []string {
	before, texts := w.now, w.texts
	var settle <-chan time.Time
	var first time.Time // of the first event since the sources were last compared
	running := p != nil
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			over, running = nil, false
			if w.now == nil || p == nil {
				continue
			}
			if err := w.look(p); err == nil {
				if names := w.meanwhile(before); names != nil {
					return names
				}
				before = w.now // with what the run wrote
			}
			for n := range w.during {
				if w.during[n] < written {
					delete(w.during, n)
				}
			}
		case e, ok := <-w.notify.Events:
			if !ok {
				return nil
			}
			if e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				w.gone(e.Name)
			}
			settle, first = w.soon(first)
		case _, ok := <-w.notify.Errors: // events may have been lost
			if !ok {
				return nil
			}
			settle, first = w.soon(first)
		case <-settle:
			settle, first = nil, time.Time{}
			var names []string
			for file, text := range w.read() {
				if text != texts[file] {
					names = append(names, file)
				}
			}
			if err := w.look(w.last); err != nil {
				fmt.Fprintf(os.Stderr, "pipe: warning: %v\n", err)
				continue
			}
			if running {
				names = append(names, w.meanwhile(before)...)
			} else {
				names = append(names, w.now.Changed(before)...)
			}
			if names != nil {
				return names
			}
		}
	}
}

// meanwhile returns the files that have changed since a run began, except those
// that change in each run.
func (w *watcher) meanwhile(before *runner.Watched) []string {
	var names []string
	for _, n := range w.now.Changed(before) {
		if w.during[n]++; w.during[n] == written {
			fmt.Fprintf(os.Stderr, "pipe: warning: %s changes in each run, so the run seems to write it; changes to it no longer start a run (name it in generates)\n", n)
		}
		if w.during[n] < written {
			names = append(names, n)
		}
	}
	return names
}

// written is the number of consecutive runs during which a file must change to
// count as written by the run.
const written = 3

// soon returns a channel that fires when the sources are to be compared, and the
// time of the first event. The channel fires after quiet, but no later than ten
// times quiet after the first event, in case events never cease.
func (w *watcher) soon(first time.Time) (<-chan time.Time, time.Time) {
	if first.IsZero() {
		first = time.Now()
	}
	return time.After(min(quiet, max(0, time.Until(first.Add(10*quiet))))), first
}
