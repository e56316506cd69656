package main

// This file holds pipe run --watch: run again when the content of a source
// changes.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
)

// quiet is how long the sources must be left alone before they are looked at:
// editors and compilers write several times.
const quiet = 50 * time.Millisecond

// errChanged ends a run because its sources are others now.
var errChanged = errors.New("its sources changed")

// watcher knows the sources of a pipeline, and when they change.
type watcher struct {
	files  []string // of the pipeline, and those that it runs
	r      *runner.Runner
	notify *fsnotify.Watcher
	dirs   map[string]bool
	now    *runner.Watched
	texts  map[string]string // of the files
}

// watch runs the pipeline, and again whenever a source has changed, until the
// context ends.
func (s *session) watch(ctx context.Context, r *runner.Runner, file string, p *pipeline.Pipeline) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	defer func() { _ = notify.Close() }()
	w := &watcher{r: r, notify: notify, dirs: map[string]bool{}}
	if err := w.look(p); err != nil {
		return refused(err)
	}
	if len(w.now.Dirs) == 0 {
		return fmt.Errorf("--watch runs again when the files change that steps name as sources, and no step of %s names any; add sources: [\"src/**\"]", file)
	}
	for _, label := range w.now.Unknown {
		fmt.Fprintf(os.Stderr, "pipe: %s: warning: its sources are known during a run only, and are not watched\n", label)
	}
	for {
		watched := len(w.now.Sums)
		runCtx, stop := context.WithCancelCause(ctx)
		changed := make(chan []string, 1)
		go func() {
			names := w.wait(runCtx, p)
			if names != nil {
				stop(errChanged)
			}
			changed <- names
		}()
		if p != nil {
			err = s.run(runCtx, r, p)
		}
		if ctx.Err() == nil && context.Cause(runCtx) == nil {
			fmt.Fprintf(os.Stderr, "pipe: watching %d files\n", watched)
		}
		names := <-changed
		stop(nil)
		if ctx.Err() != nil {
			var code exitError
			if errors.As(err, &code) {
				return err
			}
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
		if next, err := load(file); err != nil {
			p = nil // it is said what is wrong; the next change may mend it
		} else if err := w.look(next); err != nil {
			_ = refused(err)
			p = nil
		} else {
			p = next
		}
	}
}

// interruptStatus returns the exit status for what ended the watching.
func interruptStatus(ctx context.Context) error {
	var by *runner.Interrupt
	if errors.As(context.Cause(ctx), &by) {
		return exitError(128 + int(by.Signal))
	}
	return exitError(1)
}

// look takes in what the sources are, and watches where they are.
func (w *watcher) look(p *pipeline.Pipeline) error {
	for { // what comes while a folder is not watched yet is seen by looking again
		now, err := w.r.Sources(p, w.now)
		if err != nil {
			return err
		}
		w.now = now
		w.files = p.Files()
		w.texts = w.read()
		fresh := false
		dirs := slices.Clone(now.Dirs)
		for _, f := range w.files {
			dirs = append(dirs, filepath.Dir(f))
		}
		keep := map[string]bool{}
		for _, dir := range dirs {
			if keep[dir] = true; w.dirs[dir] {
				continue
			}
			if err := w.notify.Add(dir); err != nil {
				if errors.Is(err, os.ErrNotExist) {
					continue
				}
				return fmt.Errorf("--watch: cannot watch %s: %w (see fs.inotify.max_user_watches)", dir, err)
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

// read returns the texts of the files of the pipeline, but for those that are
// gone: an editor may be about to put a new one there.
func (w *watcher) read() map[string]string {
	out := map[string]string{}
	for _, f := range w.files {
		if text, err := pipeline.ReadFile(f); err == nil {
			out[f] = string(text)
		}
	}
	return out
}

// wait returns the files whose content has changed, or nil when the context
// ends. Of a pipeline that could not be read (nil) that is its own file.
func (w *watcher) wait(ctx context.Context, p *pipeline.Pipeline) []string {
	before, texts := w.now, w.texts
	var settle <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.notify.Events:
			if !ok {
				return nil
			}
			if e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				delete(w.dirs, e.Name) // a folder that came back is another one
			}
			settle = time.After(quiet)
		case _, ok := <-w.notify.Errors: // events were lost
			if !ok {
				return nil
			}
			settle = time.After(quiet)
		case <-settle:
			settle = nil
			var names []string
			for file, text := range w.read() {
				if text != texts[file] {
					names = append(names, file)
				}
			}
			if p != nil {
				if err := w.look(p); err == nil {
					names = append(names, w.now.Changed(before)...)
				}
			}
			if names != nil {
				return names
			}
		}
	}
}
