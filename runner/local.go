package runner

// This file holds the local engine: what is the same on every system.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/safety"
)

// Local starts processes on this machine. The zero value works.
//
// Each process leads a process group of its own. Where the system lets one
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
}

// Start starts a process; see [Engine].
func (l Local) Start(ctx context.Context, c *Cmd) (Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &localProcess{tree: l.Tree, closed: make(chan struct{}), name: filepath.Base(c.Path)}
	files, err := p.streams(c)
	if err == nil {
		err = retryStart(ctx, func() error { return p.start(c, files) })
	}
	for _, f := range p.childEnds {
		_ = f.Close()
	}
	p.childEnds = nil
	if err != nil {
		for _, f := range p.parentEnds {
			_ = f.Close()
		}
		return nil, diagnose(c, err)
	}
	if len(p.copiers) == 0 {
		close(p.closed)
	}
	p.copying.Store(int32(len(p.copiers)))
	for _, copyStream := range p.copiers {
		go func() {
			copyStream()
			if p.copying.Add(-1) == 0 {
				close(p.closed)
			}
		}()
	}
	return p, nil
}

// retryStart repeats a start that failed for a reason which passes: a program
// that another process holds open for writing for a moment (a fork between
// open and exec, golang.org/issue/22315), or a lack of process slots.
func retryStart(ctx context.Context, start func() error) error {
	delay := time.Millisecond
	for waited := time.Duration(0); ; waited += delay {
		err := start()
		if !errors.Is(err, syscall.ETXTBSY) && !errors.Is(err, syscall.EAGAIN) || waited > time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
		}
		delay = min(delay*2, 100*time.Millisecond)
	}
}

// LookPath finds a program as [safety.LookPath] does.
func (Local) LookPath(name, path, dir string) (string, error) {
	return safety.LookPath(name, path, dir)
}

// localProcess is a process and what descends from it.
type localProcess struct {
	osProcess
	tree Tree
	name string

	childEnds  []*os.File // closed as soon as the child has them
	parentEnds []*os.File // of pipes that are copied
	released   atomic.Bool
	copiers    []func()
	copying    atomic.Int32 // how many still do
	closed     chan struct{}
}

// streams opens what the child gets as descriptors 0, 1, 2 and on. Files that
// are opened here stand in childEnds or parentEnds, also after an error.
func (p *localProcess) streams(c *Cmd) ([]*os.File, error) {
	stdin, err := p.input(c.Stdin)
	if err != nil {
		return nil, err
	}
	stdout, err := p.output(c.Stdout)
	if err != nil {
		return nil, err
	}
	stderr := stdout
	if c.Stderr == nil || c.Stderr != c.Stdout {
		if stderr, err = p.output(c.Stderr); err != nil {
			return nil, err
		}
	}
	return append([]*os.File{stdin, stdout, stderr}, c.Extra...), nil
}

func (p *localProcess) null(flag int) (*os.File, error) {
	f, err := openNull(flag)
	if err == nil {
		p.childEnds = append(p.childEnds, f)
	}
	return f, err
}

func (p *localProcess) input(r io.Reader) (*os.File, error) {
	switch r := r.(type) {
	case nil:
		return p.null(os.O_RDONLY)
	case *os.File:
		return r, nil
	}
	pr, pw, err := pipeToChild()
	if err != nil {
		return nil, err
	}
	p.childEnds = append(p.childEnds, pr)
	p.parentEnds = append(p.parentEnds, pw)
	p.copiers = append(p.copiers, func() {
		_, _ = io.Copy(pw, r) // a child that does not read all is no error
		_ = pw.Close()
	})
	return pr, nil
}

func (p *localProcess) output(w io.Writer) (*os.File, error) {
	switch w := w.(type) {
	case nil:
		return p.null(os.O_WRONLY)
	case *os.File:
		return w, nil
	}
	pr, pw, err := pipeFromChild()
	if err != nil {
		return nil, err
	}
	p.childEnds = append(p.childEnds, pw)
	p.parentEnds = append(p.parentEnds, pr)
	p.copiers = append(p.copiers, func() { copyOut(w, pr, &p.released) })
	return pw, nil
}

// copyOut copies a child's output until its end, or until nobody wants it.
// Where the stream has been released, it ends with what is there.
func copyOut(w io.Writer, pr *os.File, released *atomic.Bool) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := pr.Read(*buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && released.Load() {
			n, err = readNow(pr, *buf)
		}
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = pr.Close()
}

// release ends the copying from or to our ends of pipes: of those that a
// stranger holds open, and, with force, of all.
func release(ends []*os.File, released *atomic.Bool, force bool) {
	released.Store(true)
	for _, f := range ends {
		if !force && otherEndGone(f) {
			continue // it ends by itself, as soon as all has been delivered
		}
		if force || f.SetDeadline(time.Now()) != nil {
			_ = f.Close()
		}
	}
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Closed is closed when the streams have ended.
func (p *localProcess) Closed() <-chan struct{} { return p.closed }

// Holders names the processes that keep a stream open.
func (p *localProcess) Holders() []string { return holders(p.parentEnds) }

// Release ends the copying.
func (p *localProcess) Release(force bool) { release(p.parentEnds, &p.released, force) }

// diagnose turns what the system said about a start into one sentence: the
// system names the program where the directory or the interpreter is at fault.
func diagnose(c *Cmd, err error) error {
	e := &StartError{Path: c.Path, Code: 126, Err: err}
	if info, derr := os.Stat(c.Dir); derr != nil || !info.IsDir() {
		e.Msg = fmt.Sprintf("cwd %s is not a directory", c.Dir)
		if errors.Is(derr, os.ErrNotExist) {
			e.Msg = fmt.Sprintf("cwd %s does not exist", c.Dir)
		} else if derr != nil {
			e.Msg = fmt.Sprintf("cwd %s: %v", c.Dir, errors.Unwrap(derr))
		}
		return e
	}
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
		e.Code = 127
	}
	return e
}

// maxArg is the kernel's limit for one argument or variable, with its NUL.
const maxArg = 128 << 10

func tooBig(c *Cmd) string {
	total := 0
	for i, a := range c.Args {
		if len(a) >= maxArg {
			return fmt.Sprintf("argument %d is %d bytes long and the kernel takes at most %d; give the value on stdin (input) or in a file", i, len(a), maxArg-1)
		}
		total += len(a) + 1
	}
	for _, v := range c.Env {
		if len(v) >= maxArg {
			name, _, _ := strings.Cut(v, "=")
			return fmt.Sprintf("the variable %s is %d bytes long and the kernel takes at most %d; give the value on stdin (input) or in a file", name, len(v), maxArg-1)
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
