package history

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
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// fileState is the state of the content of a file.
type fileState struct {
	Path string `json:"p"` // relative to the cwd of the step if the file is inside; see fileName
	Sum  string `json:"s"` // the digest of the content
	ID   fileID `json:"i"`
	// Sure reports that a file with this ID certainly has the content of Sum. It
	// is false if the file had been written shortly before it was read: it may
	// have been written again in the same tick of the clock.
	Sure bool `json:"ok,omitempty"`
}

// fileID is metadata of a file that changes whenever the file is written: programs
// cannot set the ctime.
type fileID struct {
	Dev, Ino     uint64 `json:",omitempty"`
	Size         int64  `json:",omitempty"` // bytes
	Mtime, Ctime int64  `json:",omitempty"` // ns since 1970
}

// settled is how long ago a file must have been written for its ID to be trusted: longer
// than a tick of any clock, and longer than the kernel may delay the update of the times
// after a write through a memory mapping.
const settled = time.Minute

// match returns the states of the files in dir that match patterns, sorted by path, and
// the patterns that match no file (exclusions left out). It does not read files that
// known shows to be unchanged.
func (v *View) match(globs []step.Glob, dir string, known []fileState) (files []fileState, missing []string, err error) {
	if len(globs) == 0 {
		return nil, nil, nil
	}
	paths, missing, err := matchPaths(globs, dir)
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
		st, err := v.fileState(path, before[name])
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotRegular) {
			continue // it was removed meanwhile, or is a symbolic link to a folder
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, osfile.Cause(err))
		}
		st.Path = name
		files = append(files, st)
	}
	return files, missing, nil
}

// fileName returns the name of a file in a record: relative to dir if the file is
// inside, and quoted if it is not valid UTF-8, which JSON would alter.
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

// without removes from files those that match the patterns.
func without(files []fileState, dir string, globs []step.Glob) ([]fileState, error) {
	paths, _, err := matchPaths(globs, dir)
	if err != nil {
		return nil, err
	}
	own := make(map[string]bool, len(paths))
	for _, p := range paths {
		own[fileName(p, dir)] = true
	}
	return slices.DeleteFunc(files, func(f fileState) bool { return own[f.Path] }), nil
}

// inDir makes a pattern absolute; dir is taken literally.
func inDir(dir, pattern string) string {
	if filepath.IsAbs(pattern) {
		return pattern
	}
	return filepath.Join(pipeline.EscapePattern(dir), pattern)
}

// matchPaths returns the paths of the files that match, sorted, and the patterns that
// match none.
func matchPaths(globs []step.Glob, dir string) (paths, missing []string, err error) {
	for _, g := range globs {
		full := inDir(dir, g.Pattern)
		if g.Not {
			paths = slices.DeleteFunc(paths, func(p string) bool {
				ok, _ := doublestar.PathMatch(full, p)
				return ok
			})
			continue
		}
		found, err := findFiles(g.Pattern, full)
		if err != nil {
			return nil, nil, err
		}
		if len(found) == 0 {
			missing = append(missing, g.Pattern)
		}
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	return slices.Compact(paths), missing, nil
}

// findFiles returns the files that one pattern matches. full is the absolute pattern;
// pattern is for messages.
func findFiles(pattern, full string) ([]string, error) {
	opts := []doublestar.GlobOption{doublestar.WithFilesOnly()}
	if strings.Contains(pattern, "**") { // symbolic links may form cycles
		opts = append(opts, doublestar.WithNoFollow())
	}
	found, err := doublestar.FilepathGlob(full, opts...)
	if err != nil {
		return nil, fmt.Errorf("%q is not a pattern: %w", pattern, err)
	}
	if strings.Contains(pattern, ".git") {
		return found, nil
	}
	base, _ := doublestar.SplitPattern(full)
	return slices.DeleteFunc(found, func(p string) bool { // ** does not mean the files of Git
		return strings.Contains(strings.TrimPrefix(p, base), "/.git/")
	}), nil
}

// errNotRegular reports that a file is a folder, a device or the like.
var errNotRegular = errors.New("is not a regular file")

// fileState returns the state of a file. It reads the file only if its content may
// differ from before, and has not been read in this run.
func (v *View) fileState(path string, before fileState) (fileState, error) {
	info, err := v.Root.Stat(path)
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
	if known, ok := v.files.Load(id); ok {
		if st, ok := known.(fileState); ok {
			return st, nil
		}
	}
	now := time.Now()
	f, err := v.Root.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fileState{}, err
	}
	defer f.Close()
	st := fileState{}
	if st.Sum, err = v.hash.DigestOf(f); err != nil {
		return fileState{}, err
	}
	after, err := f.Stat()
	if err != nil {
		return fileState{}, err
	}
	st.ID = identify(after)
	age := now.Sub(time.Unix(0, max(st.ID.Ctime, st.ID.Mtime)))
	if st.Sure = st.ID == id && st.ID.Ctime != 0 && age > settled && v.truthful(id.Dev, f); st.Sure {
		v.files.Store(id, st)
	}
	return st, nil
}

// fileChanges returns a phrase for each file that differs, such as "x.c changed".
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

// sureNow reports whether a file in now is sure that was not in before, so that storing
// now saves reading the file the next time.
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

// Watched describes the sources of a pipeline at one moment. Use NewWatched to create
// one. It must not be used concurrently while Watch adds to it.
type Watched struct {
	Sums map[string]string // digests of the contents, by absolute path; only good for comparing
	Dirs []string          // the folders in which sources are or may appear, sorted
	// Unknown holds the labels of steps whose sources are known only during a run.
	Unknown []string

	before []fileState // the known states of an earlier Watched
	known  []fileState // the states of the files in Sums
}

// Changed returns the paths of the files that are new, gone or have another content
// than in before, sorted.
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

// NewWatched returns an empty Watched. before, if not nil, is an earlier one: files that
// have not changed since are not read again.
func NewWatched(before *Watched) *Watched {
	w := &Watched{Sums: map[string]string{}}
	if before != nil {
		w.before = before.known
	}
	return w
}

// Watch adds to w the sources of a step that the step does not generate itself.
func (v *View) Watch(spec *step.Spec, w *Watched) error {
	if len(spec.Sources) == 0 {
		return nil
	}
	dir := spec.Stages[0].Dir
	known := make([]fileState, len(w.before))
	for i, k := range w.before {
		k.Path = fileName(k.Path, dir)
		known[i] = k
	}
	files, _, err := v.match(spec.Sources, dir, known)
	if err != nil {
		return err
	}
	if files, err = without(files, dir, spec.Generates); err != nil {
		return err
	}
	for _, f := range files {
		if !filepath.IsAbs(f.Path) {
			f.Path = filepath.Join(dir, f.Path)
		}
		if _, ok := w.Sums[f.Path]; !ok {
			w.known = append(w.known, f)
		}
		w.Sums[f.Path] = f.Sum
		if info, err := os.Lstat(f.Path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if real, err := filepath.EvalSymlinks(f.Path); err == nil {
				w.Dirs = append(w.Dirs, filepath.Dir(real))
			}
		}
	}
	for _, g := range spec.Sources {
		if !g.Not {
			w.Dirs = append(w.Dirs, patternDirs(inDir(dir, g.Pattern))...)
		}
	}
	slices.Sort(w.Dirs)
	w.Dirs = slices.Compact(w.Dirs)
	return nil
}

// patternDirs returns the folders in which files that match a pattern are or may appear.
func patternDirs(pattern string) []string {
	base, rest := doublestar.SplitPattern(pattern)
	for {
		if info, err := os.Stat(base); err == nil && info.IsDir() {
			break
		}
		if base == filepath.Dir(base) {
			return nil
		}
		rest, base = "x/"+rest, filepath.Dir(base) // base may be created later
	}
	out := []string{base}
	if !strings.Contains(rest, "/") && !strings.Contains(rest, "**") {
		return out
	}
	_ = filepath.WalkDir(base, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && e != nil && e.IsDir():
			if out[len(out)-1] == path { // a folder that cannot be read cannot be watched
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
