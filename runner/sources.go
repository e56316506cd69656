package runner

// This file holds the files that steps name as sources and generates: what
// matches, and whether its content has changed.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/state"
)

// fileState is what is known of the content of a file.
type fileState struct {
	Path string `json:"p"` // relative to the cwd of the step where it is inside
	Sum  string `json:"s"`
	ID   fileID `json:"i"`
	// Sure says that the file, if it is as ID says, has the content that Sum
	// says. It is not where the file had just been written when it was read: it
	// may have been written again in the same tick of the clock.
	Sure bool `json:"ok,omitempty"`
}

// fileID changes whenever a file is written. Its ctime cannot be set.
type fileID struct {
	Dev, Ino     uint64 `json:",omitempty"`
	Size         int64  `json:",omitempty"`
	Mtime, Ctime int64  `json:",omitempty"` // ns
}

// settled is how long a file must have been left alone for its times to tell
// the truth: longer than any tick of a clock, and than the kernel keeps what is
// written through a mapping from the times of its file.
const settled = time.Minute

// match returns the files of patterns in dir, in order, and which patterns that
// take nothing away match nothing. What is known of the files saves reading them.
func (ex *execution) match(globs []pipeline.Glob, dir string, known []fileState) (files []fileState, missing []string, err error) {
	if len(globs) == 0 {
		return nil, nil, nil
	}
	vars := ex.vars
	if vars.Dir = dir; dir != ex.r.dir {
		vars.Params = ex.r.absParams
	}
	paths, missing, err := matchPaths(globs, dir, &vars)
	if err != nil {
		return nil, nil, err
	}
	before := make(map[string]fileState, len(known))
	for _, k := range known {
		before[k.Path] = k
	}
	files = make([]fileState, 0, len(paths))
	for _, path := range paths {
		name := fileName(path, dir)
		st, err := ex.fileState(path, before[name])
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotRegular) {
			continue // it went in between, or is a link to a folder
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, cause(err))
		}
		st.Path = name
		files = append(files, st)
	}
	return files, missing, nil
}

// fileName returns how a file is called in a record: from the folder where it is
// inside, and quoted where JSON would not keep it as it is.
func fileName(path, dir string) string {
	name := path
	if rel, err := filepath.Rel(dir, path); err == nil && !strings.HasPrefix(rel, "..") {
		name = rel
	}
	if !utf8.ValidString(name) || strings.HasPrefix(name, `"`) {
		return strconv.QuoteToASCII(name)
	}
	return name
}

// without takes the files away that match patterns.
func (ex *execution) without(files []fileState, dir string, globs []pipeline.Glob) ([]fileState, error) {
	vars := ex.vars
	if vars.Dir = dir; dir != ex.r.dir {
		vars.Params = ex.r.absParams
	}
	paths, _, err := matchPaths(globs, dir, &vars)
	if err != nil {
		return nil, err
	}
	own := make(map[string]bool, len(paths))
	for _, p := range paths {
		own[fileName(p, dir)] = true
	}
	return slices.DeleteFunc(files, func(f fileState) bool { return own[f.Path] }), nil
}

// matchPaths returns the regular files that match.
func matchPaths(globs []pipeline.Glob, dir string, vars *pipeline.Vars) (paths, missing []string, err error) {
	for _, g := range globs {
		patterns, err := g.Pattern.EvalGlob(vars)
		if err != nil {
			return nil, nil, err
		}
		for _, pattern := range patterns {
			full := pattern
			if !filepath.IsAbs(pattern) {
				full = filepath.Join(pipeline.EscapePattern(dir), pattern)
			}
			if g.Not {
				paths = slices.DeleteFunc(paths, func(p string) bool {
					ok, _ := doublestar.PathMatch(full, p)
					return ok
				})
				continue
			}
			opts := []doublestar.GlobOption{doublestar.WithFilesOnly()}
			if strings.Contains(pattern, "**") { // links may lead in circles
				opts = append(opts, doublestar.WithNoFollow())
			}
			found, err := doublestar.FilepathGlob(full, opts...)
			if err != nil {
				return nil, nil, fmt.Errorf("%q is not a pattern: %w", pattern, err)
			}
			if !strings.Contains(pattern, ".git") { // nobody means the insides of a repository
				base, _ := doublestar.SplitPattern(full)
				found = slices.DeleteFunc(found, func(p string) bool {
					return strings.Contains(strings.TrimPrefix(p, base), "/.git/")
				})
			}
			if len(found) == 0 {
				missing = append(missing, pattern)
			}
			paths = append(paths, found...)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), missing, nil
}

// errNotRegular tells that a file has no content of its own.
var errNotRegular = errors.New("is not a regular file")

// fileState returns the state of the content of a file, which is read only if
// it may be another than before.
func (ex *execution) fileState(path string, before fileState) (fileState, error) {
	m := ex.r.memory
	info, err := ex.r.root.Stat(path)
	if err != nil {
		return fileState{}, err
	}
	if !info.Mode().IsRegular() {
		return fileState{}, errNotRegular
	}
	id := identify(info)
	if before.Sure && before.ID == id {
		return before, nil
	}
	if known, ok := m.files.Load(id); ok {
		if st, ok := known.(fileState); ok {
			return st, nil
		}
	}
	now := time.Now()
	f, err := ex.r.root.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fileState{}, err
	}
	defer f.Close()
	st := fileState{}
	if st.Sum, err = m.hash.DigestOf(f); err != nil {
		return fileState{}, err
	}
	after, err := f.Stat()
	if err != nil {
		return fileState{}, err
	}
	st.ID = identify(after)
	age := now.Sub(time.Unix(0, max(st.ID.Ctime, st.ID.Mtime)))
	if st.Sure = st.ID == id && st.ID.Ctime != 0 && age > settled && m.truthful(id.Dev, f); st.Sure {
		m.files.Store(id, st)
	}
	return st, nil
}

// fileChanges says which files differ.
func fileChanges(before, now []fileState) []string {
	parts := func(files []fileState) []part {
		out := make([]part, len(files))
		for i, f := range files {
			out[i] = part{f.Path, f.Sum}
		}
		return out
	}
	return differences(parts(before), parts(now))
}

// sureNow reports whether more is known of the files than before.
func sureNow(before, now []fileState) bool {
	for i := range now {
		if now[i].Sure && (i >= len(before) || !before[i].Sure || before[i].ID != now[i].ID) {
			return true
		}
	}
	return false
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Watched are the files that a pipeline has as sources, and where more of them
// may come.
type Watched struct {
	Sums map[string]string // by absolute path: a digest of the content, of use for comparing only
	Dirs []string          // folders in which a change may be one of the sources
	// Unknown are the labels of steps whose sources are known during a run only.
	Unknown []string

	known []fileState
}

// Sources returns the sources of all steps as they are now. before, if not nil,
// is what was returned last; files that cannot have changed since are not read
// again. The errors are those of Run about parameters.
func (r *Runner) Sources(p *pipeline.Pipeline, before *Watched) (*Watched, error) {
	w := &Watched{Sums: map[string]string{}}
	if before != nil {
		w.known = before.known
	}
	states := map[string]fileState{}
	if err := r.sources(p, w, states); err != nil {
		return nil, err
	}
	w.known = w.known[:0:0]
	for path, st := range states {
		st.Path = path
		w.Sums[path] = st.Sum
		w.known = append(w.known, st)
	}
	slices.Sort(w.Dirs)
	w.Dirs = slices.Compact(w.Dirs)
	return w, nil
}

// Changed returns the paths of the files whose content differs.
func (w *Watched) Changed(before *Watched) []string {
	var out []string
	for path, sum := range w.Sums {
		if before.Sums[path] != sum {
			out = append(out, path)
		}
	}
	for path := range before.Sums {
		if _, ok := w.Sums[path]; !ok {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// sources adds those of one pipeline, and of those that it runs.
func (r *Runner) sources(p *pipeline.Pipeline, w *Watched, states map[string]fileState) error {
	run, err := r.lookInto(p)
	if err != nil {
		return err
	}
	defer func() { _ = run.root.Close() }()
	run.memory = &memory{hash: &state.Hasher{}}
	for i, s := range p.Steps {
		if s.Sources == nil && s.Run == nil {
			continue
		}
		vars := run.base
		vars.Steps = unknownStep
		instances := []pipeline.Instance{{}}
		if s.Expands() {
			if s.ForEach != nil && len(s.Reads()) > 0 {
				instances = nil
			} else if instances, err = s.Instances(&vars); err != nil {
				instances = nil
			}
		}
		if instances == nil || readsSteps(slices.Concat(s.Sources, s.Generates)) {
			w.Unknown = append(w.Unknown, p.Label(i))
			continue
		}
		for _, in := range instances {
			vars.Matrix, vars.Item = in.Matrix, in.Item
			ex := &execution{r: run, u: &unit{step: i, label: p.Label(i)}, step: s, vars: vars}
			if err := ex.watch(w, states); err != nil {
				w.Unknown = append(w.Unknown, p.Label(i))
				break
			}
		}
	}
	return nil
}

func readsSteps(globs []pipeline.Glob) bool {
	return slices.ContainsFunc(globs, func(g pipeline.Glob) bool { return g.Pattern.ReadsSteps() })
}

// watch adds the sources of one execution, and those of the pipeline it runs.
func (ex *execution) watch(w *Watched, states map[string]fileState) error {
	st := programStage
	if ex.step.Run == nil {
		st = ex.step.Stages[0]
	}
	vars := ex.vars
	if err := ex.r.enter(ex.r.p.Levels(ex.step, st), &vars); err != nil {
		return err
	}
	dir := vars.Dir
	known := make([]fileState, len(w.known))
	for i, k := range w.known {
		known[i] = k
		if rel, err := filepath.Rel(dir, k.Path); err == nil && !strings.HasPrefix(rel, "..") {
			known[i].Path = rel
		}
	}
	files, _, err := ex.match(ex.step.Sources, dir, known)
	if err != nil {
		return err
	}
	if files, err = ex.without(files, dir, ex.step.Generates); err != nil {
		return err
	}
	for _, f := range files {
		path := f.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		states[path] = f
		if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				w.Dirs = append(w.Dirs, filepath.Dir(real))
			}
		}
	}
	for _, g := range ex.step.Sources {
		patterns, err := g.Pattern.EvalGlob(&vars)
		if err != nil {
			return err
		}
		for _, pattern := range patterns {
			if g.Not {
				continue
			}
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(pipeline.EscapePattern(dir), pattern)
			}
			w.Dirs = append(w.Dirs, patternDirs(pattern)...)
		}
	}
	if ex.step.Run == nil {
		return nil
	}
	if err := ex.bindAll(); err != nil {
		return err
	}
	sub, err := ex.subRunner()
	if err != nil {
		return err
	}
	return sub.sources(ex.step.Run.Pipeline, w, states)
}

// patternDirs returns the folders where files of a pattern are or may come.
func patternDirs(pattern string) []string {
	base, rest := doublestar.SplitPattern(pattern)
	for {
		if info, err := os.Stat(base); err == nil && info.IsDir() {
			break
		}
		if base == filepath.Dir(base) {
			return nil
		}
		rest, base = "x/"+rest, filepath.Dir(base) // it may come
	}
	out := []string{base}
	if !strings.Contains(rest, "/") && !strings.Contains(rest, "**") {
		return out
	}
	_ = filepath.WalkDir(base, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && e != nil && e.IsDir():
			if out[len(out)-1] == path { // it cannot be read, nor watched
				out = out[:len(out)-1]
			}
			return fs.SkipDir
		case err == nil && e.IsDir() && e.Name() == ".git":
			return fs.SkipDir
		case err == nil && e.IsDir():
			out = append(out, path)
		}
		return nil
	})
	return out
}
