package safety

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Dir is a directory that files must not lead out of, not even through symbolic
// links or races (see [os.Root]). A nil Dir confines nothing. Several goroutines
// may use one at once.
//
// A Dir confines what is opened through it. It does not confine a process that
// is started in it.
type Dir struct {
	root    *os.Root
	names   []string // absolute, as given and without symbolic links
	escapes error    // the cause that root gives for a path that leads out
}

// OutsideError says that a path leads out of a [Dir].
type OutsideError struct{ Path, Root string }

// Error names both.
func (e *OutsideError) Error() string {
	return fmt.Sprintf("%s is outside of the root %s", e.Path, e.Root)
}

// OpenDir opens a directory to confine files to. The caller must close it.
func OpenDir(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, names: []string{abs}}
	if _, err := root.Lstat(".."); err != nil { // os has no name for this value
		d.escapes = errors.Unwrap(err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil && real != abs {
		d.names = append(d.names, real)
	}
	return d, nil
}

// Close closes the directory. Closing a nil Dir does nothing.
func (d *Dir) Close() error {
	if d == nil {
		return nil
	}
	return d.root.Close()
}

// rel returns an absolute path as one from the root.
func (d *Dir) rel(path string) (string, error) {
	for strings.Contains(path, "//") { // nothing else is cleaned: through a link, x/.. may be another place
		path = strings.ReplaceAll(path, "//", "/")
	}
	for _, name := range d.names {
		if path == name {
			return ".", nil
		}
		if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(name, "/")+"/"); ok && rest != "" {
			return rest, nil
		}
	}
	return "", &OutsideError{path, d.names[0]}
}

// devices count as inside every Dir, because they hold no data.
var devices = []string{os.DevNull, "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// OpenFile opens a file as [os.OpenFile] does. The path must be absolute. If it
// leads outside, the error is an [*OutsideError]. Devices that hold no data, such
// as /dev/null, count as inside every Dir.
func (d *Dir) OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	if d == nil || slices.Contains(devices, path) {
		return os.OpenFile(path, flag, perm)
	}
	rel, err := d.rel(path)
	if err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(rel, flag, perm)
	return f, d.escaped(path, err)
}

// Stat is [os.Stat] for an absolute path. It follows links that stay inside.
func (d *Dir) Stat(path string) (fs.FileInfo, error) {
	if d == nil || slices.Contains(devices, path) {
		return os.Stat(path)
	}
	rel, err := d.rel(path)
	if err != nil {
		return nil, err
	}
	info, err := d.root.Stat(rel)
	return info, d.escaped(path, err)
}

// Lstat is Stat, but does not follow a link that the path itself is.
func (d *Dir) Lstat(path string) (fs.FileInfo, error) {
	if d == nil || slices.Contains(devices, path) {
		return os.Lstat(path)
	}
	rel, err := d.rel(path)
	if err != nil {
		return nil, err
	}
	info, err := d.root.Lstat(rel)
	return info, d.escaped(path, err)
}

// escaped makes the error of a path that leads out one that says so.
func (d *Dir) escaped(path string, err error) error {
	if d.escapes != nil && errors.Is(err, d.escapes) {
		return &OutsideError{path, d.names[0]}
	}
	return err
}
