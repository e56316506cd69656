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

// The causes of a [LookPathError].
var (
	ErrNotFound      = errors.New("not found")      // PATH has no file of that name
	ErrNotExecutable = errors.New("not executable") // it has one that cannot be run
)

// LookPathError says that a program was not found, and where it was looked for.
type LookPathError struct {
	Program string
	Path    string // the PATH that was searched; "" for a program with a slash
	File    string // the file that was found and cannot be run, or ""
	Err     error  // ErrNotFound, ErrNotExecutable, or what the system said
	Hint    string // what to write instead; "": nothing is known
}

// Error returns a sentence that names the program and what was searched.
func (e *LookPathError) Error() string {
	if e.Hint != "" {
		return e.message() + "; " + e.Hint
	}
	return e.message()
}

func (e *LookPathError) message() string {
	switch {
	case errors.Is(e.Err, ErrNotExecutable):
		return fmt.Sprintf("%s is not executable; chmod +x it, or name its interpreter", e.File)
	case e.File != "" && e.Err != nil && !errors.Is(e.Err, ErrNotFound):
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	case strings.ContainsRune(e.Program, '/'):
		return fmt.Sprintf("program %s not found", e.Program)
	case e.Path == "":
		return fmt.Sprintf("program %q not found: PATH is empty", e.Program)
	}
	return fmt.Sprintf("program %q not found in PATH (%s)", e.Program, e.Path)
}

// Unwrap returns the cause.
func (e *LookPathError) Unwrap() error { return e.Err }

// LookPath finds a program for a child that has the given PATH and working
// directory, and returns its absolute path. A name with a slash is relative to
// dir. LookPath ignores elements of PATH that are empty or relative, so that no
// program is started just because it lies in the current directory. The error is
// a [*LookPathError].
func LookPath(program, path, dir string) (string, error) {
	if strings.ContainsRune(program, '/') {
		file := program
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		if err := executable(file); err != nil {
			return "", &LookPathError{Program: program, File: file, Err: err}
		}
		return file, nil
	}
	var found *LookPathError
	for _, elem := range filepath.SplitList(path) {
		if !filepath.IsAbs(elem) {
			continue
		}
		file := filepath.Join(elem, program)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if found == nil && errors.Is(err, ErrNotExecutable) {
			found = &LookPathError{Program: program, Path: path, File: file, Err: err}
		}
	}
	if found != nil {
		return "", found
	}
	return "", &LookPathError{Program: program, Path: path, Err: ErrNotFound, Hint: instead(program, dir)}
}

// onlyInShells are commands that change the shell they run in.
var onlyInShells = []string{
	".", "alias", "cd", "declare", "eval", "exec", "export", "local", "popd", "pushd", "read", "set", "shift", "source", "trap", "ulimit", "umask", "unset",
}

// instead says what to write for the name of a program that PATH does not have.
func instead(program, dir string) string {
	if info, err := os.Stat(filepath.Join(dir, program)); err == nil && info.Mode().IsRegular() {
		return fmt.Sprintf("the folder of the step has a file of that name; write ./%s", program)
	}
	if slices.Contains(onlyInShells, program) {
		return program + " is a shell builtin; use cwd:, env: or exec"
	}
	if words := strings.Fields(program); len(words) > 1 {
		return fmt.Sprintf("the blanks are part of the name; write [%s], or use exec", strings.Join(words, ", "))
	}
	return ""
}

// executable returns nil where this program may run the file.
func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case err != nil:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	case info.IsDir():
		return errors.New("is a directory, not a program")
	case !mayExecute(file, info):
		return ErrNotExecutable
	}
	return nil
}
