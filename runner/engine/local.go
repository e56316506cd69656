package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/safety"
)

// Local starts processes on this machine. The zero value works.
//
// Each process leads a session and a process group of its own, but for those that
// own a terminal: they share a group (see [Terminal]). Where the system lets one
// look (Linux), descendants that left the group are found as long as their
// parents live, and after that too if Tree adopts them.
type Local struct {
	// Tree, if not nil, is told of every process and looks after orphans; it is
	// what package runner/guard provides. nil: the death of this program leaves
	// its processes alone.
	Tree Tree
}

// Tree follows the processes of a program.
type Tree interface {
	// Fork calls start, which starts one process and returns its pid, and
	// notes the pid. The tree may ask for a signal that the child gets when
	// this program dies; 0 is none.
	Fork(start func(deathSignal syscall.Signal) (pid int, err error)) (int, error)
	// Reaped tells that the process has been waited for.
	Reaped(pid int)
	// Job returns the process group that a shell takes for this program; 0 is the
	// program's own.
	Job() int
}

// Start starts a process; see [Engine].
func (l Local) Start(ctx context.Context, c *Cmd) (Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &process{tree: l.Tree, name: filepath.Base(c.Path)}
	files, err := p.streams(c)
	if err == nil {
		err = retryStart(ctx, func() error { return p.start(c, files) })
	}
	osfile.Close(p.childEnds...)
	p.childEnds = nil
	if err != nil {
		p.copies.Abandon()
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return nil, err // it was not the system that said no
		}
		return nil, diagnose(c, err)
	}
	p.copies.Begin()
	return p, nil
}

// retryStart repeats a start that failed for a reason which passes: a program
// that another process holds open for writing for a moment (a fork between
// open and exec, golang.org/issue/22315), or a lack of process slots. Where the
// context ends the waiting, the error is its cause.
func retryStart(ctx context.Context, start func() error) error {
	delay := time.Millisecond
	for waited := time.Duration(0); ; waited += delay {
		err := start()
		if !errors.Is(err, syscall.ETXTBSY) && !errors.Is(err, syscall.EAGAIN) || waited > time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(delay*2, 100*time.Millisecond)
	}
}

// LookPath finds a program as [safety.LookPath] does.
func (Local) LookPath(name, path, dir string) (string, error) {
	return safety.LookPath(name, path, dir)
}

// process is a process of this machine and what descends from it.
type process struct {
	osProcess
	tree      Tree
	name      string
	childEnds []*os.File // closed as soon as the child has them
	copies    osfile.Copies
}

// String names the process for people.
func (p *process) String() string { return fmt.Sprintf("%s (pid %d)", p.name, p.pid) }

// streams opens what the child gets as descriptors 0, 1, 2 and on. What it opens
// stands in childEnds and copies, also after an error.
func (p *process) streams(c *Cmd) ([]*os.File, error) {
	stdin, err := p.input(c.Stdin)
	if err != nil {
		return nil, err
	}
	stdout, err := p.output(c.Stdout)
	if err != nil {
		return nil, err
	}
	stderr := stdout
	if c.Stderr == nil || !SameWriter(c.Stderr, c.Stdout) {
		if stderr, err = p.output(c.Stderr); err != nil {
			return nil, err
		}
	}
	return append([]*os.File{stdin, stdout, stderr}, c.Extra...), nil
}

func (p *process) input(r io.Reader) (*os.File, error) {
	switch r := r.(type) {
	case nil:
		return p.childEnd(osfile.Null(os.O_RDONLY))
	case *os.File:
		return r, nil
	}
	return p.childEnd(p.copies.To(r))
}

func (p *process) output(w io.Writer) (*os.File, error) {
	switch w := w.(type) {
	case nil:
		return p.childEnd(osfile.Null(os.O_WRONLY))
	case *os.File:
		return w, nil
	}
	return p.childEnd(p.copies.From(w))
}

// SameWriter reports whether two writers are the same. Writers that cannot be
// compared are not.
func SameWriter(a, b io.Writer) bool {
	defer func() { _ = recover() }()
	return a == b
}

// childEnd notes a file that only the child is to keep.
func (p *process) childEnd(f *os.File, err error) (*os.File, error) {
	if err == nil {
		p.childEnds = append(p.childEnds, f)
	}
	return f, err
}

// Closed is closed when all output has been delivered.
func (p *process) Closed() <-chan struct{} { return p.copies.Done() }

// Holders names the processes that keep a stream open.
func (p *process) Holders() []string { return procfs.Holders(p.copies.Ends()) }

// Release gives up streams.
func (p *process) Release(force bool) { p.copies.Release(force) }

// CheckDir returns a [StartError] unless dir is a directory.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && info.IsDir() {
		return nil
	}
	e := &StartError{Path: dir, Err: err}
	switch {
	case errors.Is(err, os.ErrNotExist):
		e.Msg = fmt.Sprintf("cwd %s does not exist", dir)
	case err != nil:
		e.Msg = fmt.Sprintf("cwd %s: %v", dir, errors.Unwrap(err))
	default:
		e.Msg, e.Err = fmt.Sprintf("cwd %s is not a directory", dir), syscall.ENOTDIR
	}
	return e
}

// OpenDir opens a working directory that is confined, so that it cannot become
// another one before the child is in it. It returns nil where nothing is
// confined; an error is a [StartError].
func OpenDir(root *safety.Dir, dir string) (*os.File, error) {
	if root == nil {
		return nil, nil
	}
	f, err := root.OpenFile(dir, os.O_RDONLY, 0)
	if err == nil {
		info, serr := f.Stat()
		if serr == nil && info.IsDir() {
			return f, nil
		}
		_ = f.Close()
		err = errors.New("is not a directory")
	}
	return nil, &StartError{Path: dir, Msg: fmt.Sprintf("cwd %s: %v", dir, osfile.Cause(err)), Err: err}
}

// diagnose turns what the system said about a start into one sentence: the
// system names the program where the directory or the interpreter is at fault.
func diagnose(c *Cmd, err error) error {
	if derr := CheckDir(c.Dir); derr != nil {
		return derr
	}
	e := &StartError{Path: c.Path, Err: err}
	switch {
	case errors.Is(err, syscall.E2BIG):
		e.Msg = tooBig(c)
	case errors.Is(err, syscall.EACCES) && c.UID != nil:
		e.Msg = fmt.Sprintf("user %d may not run %s, or not enter its cwd %s", *c.UID, c.Path, c.Dir)
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.ENOTDIR):
		e.Msg = badProgram(c.Path, err)
	case errors.Is(err, syscall.EPERM) && (c.UID != nil || c.GID != nil):
		e.Msg = fmt.Sprintf("%s: not permitted to change to another uid or gid; that takes root", c.Path)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		e.Msg = fmt.Sprintf("%s: too many open files; raise ulimit -n or lower maxParallel", c.Path)
	case errors.Is(err, syscall.EAGAIN):
		e.Msg = fmt.Sprintf("%s: the limit of processes is reached (ulimit -u); nothing was free for a second", c.Path)
	case errors.Is(err, syscall.ETXTBSY):
		e.Msg = fmt.Sprintf("%s is open for writing in another process, so it cannot be run", c.Path)
	default:
		e.Msg = fmt.Sprintf("%s: %v", c.Path, err)
	}
	if _, serr := os.Stat(c.Path); errors.Is(serr, os.ErrNotExist) {
		e.Code = CodeNotFound
	}
	return e
}

// MaxArg is the kernel's limit for one argument or variable, in bytes with its
// NUL.
const MaxArg = 128 << 10

func tooBig(c *Cmd) string {
	total := 0
	for i, a := range c.Args {
		if len(a) >= MaxArg {
			return fmt.Sprintf("argument %d is %d bytes long and the kernel takes at most %d; give the value on stdin (input) or in a file", i, len(a), MaxArg-1)
		}
		total += len(a) + 1
	}
	for _, v := range c.Env {
		if len(v) >= MaxArg {
			name, _, _ := strings.Cut(v, "=")
			return fmt.Sprintf("the variable %s is %d bytes long and the kernel takes at most %d; give the value on stdin (input) or in a file", name, len(v), MaxArg-1)
		}
		total += len(v) + 1
	}
	return fmt.Sprintf("arguments and environment are %d bytes, more than the kernel takes (a quarter of ulimit -s); give them on stdin (input) or in a file", total)
}

// badProgram says why a program that may well exist cannot be started.
func badProgram(path string, err error) string {
	info, serr := os.Stat(path)
	switch {
	case serr != nil:
		return fmt.Sprintf("program %s not found", path)
	case info.IsDir():
		return fmt.Sprintf("%s is a directory, not a program", path)
	case info.Mode()&0o111 == 0:
		return fmt.Sprintf("%s is not executable; chmod +x it, or name its interpreter", path)
	}
	head := make([]byte, 256)
	if f, oerr := os.Open(path); oerr == nil {
		n, _ := io.ReadFull(f, head)
		head = head[:n]
		_ = f.Close()
	}
	line, _, _ := strings.Cut(string(head), "\n")
	if interp, ok := strings.CutPrefix(line, "#!"); ok {
		word, _, _ := strings.Cut(strings.TrimSpace(interp), " ")
		switch {
		case strings.HasSuffix(line, "\r"):
			return fmt.Sprintf("%s: its first line ends in a carriage return (CRLF), so the interpreter %q is not found; save it with LF line ends", path, strings.TrimSuffix(word, "\r"))
		case errors.Is(err, syscall.EACCES):
			return fmt.Sprintf("%s: its interpreter %s cannot be executed", path, word)
		}
		return fmt.Sprintf("%s: its interpreter %s does not exist", path, word)
	}
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fmt.Sprintf("%s exists, but the loader it asks for does not; it is built for another system or libc", path)
	case errors.Is(err, syscall.ENOEXEC) && len(head) == 0:
		return fmt.Sprintf("%s is an empty file", path)
	case errors.Is(err, syscall.ENOEXEC) && strings.HasPrefix(line, "\x7fELF"):
		return fmt.Sprintf("%s is not a program for this machine, or it is truncated", path)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Sprintf("%s has no #! line and is no program; add one, such as #!/bin/sh", path)
	}
	return fmt.Sprintf("%s: permission denied (the file system may be mounted noexec)", path)
}
