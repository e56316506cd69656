package runner

// This file holds the embedded shell. Each program that shell text starts goes
// through the same Engine.Start as every other, and leads a group of its own;
// the tree of the step is all of them.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"github.com/pipe-runner/pipe/safety"
)

// shellCmd is shell text with what it runs in.
type shellCmd struct {
	text       string
	vars       []safety.Var // that the text reads and no child gets
	root       *safety.Dir
	tree       *syntax.File
	set        []string
	env        []string
	dir        string
	path       string // where programs are looked up if env has no PATH
	in         io.Reader
	out, err   io.Writer
	owned      []*os.File // of the streams: what ends with the text
	uid, gid   *uint32
	sigpipeErr bool
	terminal   *os.File
	step       string
	stage      int
}

// shell is a running shell text; it is a [Process] without a pid.
type shell struct {
	engine Engine
	cmd    shellCmd
	cancel context.CancelFunc
	done   chan struct{} // the text has ended
	closed chan struct{}
	close  sync.Once // of closed
	status Status

	in        io.Reader
	out, err  *os.File   // what the text and its children write to
	ours      []*os.File // the ones of these that end with the text
	readers   []*os.File // the other ends of pipes that are copied
	copying   sync.WaitGroup
	released  atomic.Bool
	unwritten atomic.Pointer[error] // the first write of a built-in command that failed

	mu       sync.Mutex
	children map[Process]chan struct{} // closed when the child has ended
	over     []Process                 // ended, but their trees have members left
	stopping syscall.Signal
	abandon  chan struct{} // closed when SIGKILL was asked for
}

func startShell(engine Engine, c shellCmd) (*shell, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &shell{
		engine: engine, cmd: c, cancel: cancel,
		done: make(chan struct{}), closed: make(chan struct{}), abandon: make(chan struct{}),
		children: map[Process]chan struct{}{},
	}
	if err := s.streams(); err != nil {
		cancel()
		s.closeAll(s.ours, s.readers)
		return nil, &StartError{Path: "exec", Code: 126, Msg: err.Error(), Err: err}
	}
	var params []string
	for _, name := range c.set {
		params = append(params, "-o", name)
	}
	env := &shellEnv{Environ: expand.ListEnviron(c.env...), vars: map[string]string{}}
	for _, v := range c.vars {
		env.vars[v.Name] = v.Value
	}
	opts := []interp.RunnerOption{
		interp.Env(env),
		interp.Params(params...),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.exec }),
		interp.CallHandler(s.call),
		interp.OpenHandler(s.open),
		interp.Dir(c.dir),
	}
	if c.root != nil {
		if _, err := c.root.Stat(c.dir); err != nil {
			cancel()
			s.closeAll(s.ours, s.readers)
			return nil, &StartError{Path: "exec", Code: 126, Msg: fmt.Sprintf("cwd %s: %v", c.dir, cause(err)), Err: err}
		}
		opts = append(opts, interp.StatHandler(s.stat), interp.ReadDirHandler2(s.readDir), interp.AccessHandler(s.access))
	}
	opts = append(opts, interp.StdIO(s.in, s.writer(s.out), s.writer(s.err)))
	r, err := interp.New(opts...)
	if err != nil {
		cancel()
		s.closeAll(s.ours, s.readers)
		return nil, &StartError{Path: "exec", Code: 126, Msg: fmt.Sprintf("cwd %s is not a directory", c.dir), Err: err}
	}
	r.Reset()
	env.started = true
	go s.run(ctx, r)
	return s, nil
}

// shellEnv is exactly the variables of the step, all exported. The interpreter
// would invent some that are not there when it starts; until then it is told
// that they are.
type shellEnv struct {
	expand.Environ
	vars    map[string]string // not exported
	started bool
}

// Get returns a variable.
func (e *shellEnv) Get(name string) expand.Variable {
	if text, ok := e.vars[name]; ok {
		return expand.Variable{Set: true, Kind: expand.String, Str: text}
	}
	v := e.Environ.Get(name)
	if !v.IsSet() && !e.started {
		switch name {
		case "HOME", "UID", "EUID", "GID":
			return expand.Variable{Set: true, Kind: expand.String}
		}
	}
	return v
}

// Each calls f for each variable; a subshell is made from what it gives.
func (e *shellEnv) Each(f func(string, expand.Variable) bool) {
	e.Environ.Each(f)
	for name := range e.vars {
		if !f(name, e.Get(name)) {
			return
		}
	}
}

// run interprets the text, and then what it left in the background.
func (s *shell) run(ctx context.Context, r *interp.Runner) {
	defer s.cancel()
	if s.cmd.terminal != nil {
		defer ownTerminal(s.cmd.terminal)()
	}
	err := s.interpret(ctx, r, s.cmd.tree)
	s.status = shellStatus(err)
	if s.stoppedBy() != 0 && ctx.Err() != nil {
		sig := s.stoppedBy()
		s.status = Status{Code: 128 + int(sig), Signal: sig}
	}
	if err := s.unwritten.Load(); err != nil && s.status.OK() {
		why := *err
		var pe *os.PathError
		if errors.As(why, &pe) {
			why = fmt.Errorf("%s: %w", pe.Path, pe.Err)
		}
		if s.err != nil {
			fmt.Fprintf(s.err, "cannot write to %v\n", why)
		}
		s.status = Status{Code: 1}
	}
	close(s.done)
	if background(s.cmd.tree) {
		lit := func(s string) *syntax.Word { return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: s}}} }
		wait := &syntax.Stmt{ // silent, also under xtrace
			Cmd:    &syntax.CallExpr{Args: []*syntax.Word{lit("wait")}},
			Redirs: []*syntax.Redirect{{Op: syntax.RdrOut, N: &syntax.Lit{Value: "2"}, Word: lit(os.DevNull)}},
		}
		_ = s.interpret(ctx, r, wait)
	}
	s.closeAll(s.ours)
	s.copying.Wait()
	s.close.Do(func() { close(s.closed) })
}

// interpret runs text. The interpreter panics on some values, such as patterns
// that are not UTF-8: that is a failure of the text.
func (s *shell) interpret(ctx context.Context, r *interp.Runner, n syntax.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the embedded shell broke down: %v", p)
			if s.err != nil {
				fmt.Fprintf(s.err, "%v; write shell: bash (or sh) on the step\n", err)
			}
		}
	}()
	return r.Run(ctx, n)
}

// streams gives the text a file for each stream. As with a process, what is
// not a file is copied from a pipe, which the children of the text hold too.
func (s *shell) streams() (err error) {
	s.ours = s.cmd.owned
	if s.in = s.cmd.in; s.in != nil {
		if _, ok := s.in.(*os.File); !ok {
			if err := s.input(); err != nil {
				return err
			}
		}
	}
	if s.out, err = s.stream(s.cmd.out); err != nil {
		return err
	}
	if s.err = s.out; s.cmd.err != s.cmd.out {
		s.err, err = s.stream(s.cmd.err)
	}
	return err
}

// input gives the text a pipe to read what is not a file.
func (s *shell) input() error {
	from := s.in
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.in = pr
	s.ours = append(s.ours, pr)
	go func() {
		_, _ = io.Copy(pw, from) // a text that does not read all is no error
		_ = pw.Close()
	}()
	return nil
}

func (s *shell) stream(w io.Writer) (*os.File, error) {
	switch w := w.(type) {
	case nil:
		return nil, nil
	case *os.File:
		return w, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.ours = append(s.ours, pw)
	s.readers = append(s.readers, pr)
	s.copying.Go(func() { copyOut(w, pr, &s.released) })
	return pw, nil
}

func (s *shell) closeAll(lists ...[]*os.File) {
	for _, files := range lists {
		for _, f := range files {
			_ = f.Close()
		}
	}
}

// sink is a file that the text writes to. Built-in commands do not notice that
// a write failed; the text as a whole fails then.
type sink struct {
	*os.File
	s *shell
}

// Write writes to the file.
func (k *sink) Write(b []byte) (int, error) {
	n, err := k.File.Write(b)
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		k.s.unwritten.CompareAndSwap(nil, &err)
	}
	return n, err
}

// WriteString writes to the file.
func (k *sink) WriteString(text string) (int, error) { return k.Write([]byte(text)) }

// writer returns the file as a writer that is nil where the file is.
func (s *shell) writer(f *os.File) io.Writer {
	if f == nil {
		return nil
	}
	return &sink{f, s}
}

// fileOf returns the file that a stream of the text is, or nil.
func fileOf(w io.Writer) *os.File {
	switch w := w.(type) {
	case *sink:
		return w.File
	case *os.File:
		return w
	}
	return nil
}

func shellStatus(err error) Status {
	var code interp.ExitStatus
	switch {
	case err == nil:
		return Status{}
	case errors.As(err, &code):
		return Status{Code: int(code)}
	}
	return Status{Code: 1}
}

// background reports whether the text starts anything with &.
func background(f *syntax.File) bool {
	found := false
	syntax.Walk(f, func(n syntax.Node) bool {
		if st, ok := n.(*syntax.Stmt); ok && st.Background {
			found = true
		}
		return !found
	})
	return found
}

// call ends a subshell whose reader has gone, when it is about to write: a
// shell of its own process would get SIGPIPE then. As in a pipe of stages that
// is no failure.
func (s *shell) call(ctx context.Context, args []string) ([]string, error) {
	switch args[0] {
	case "test", "[":
		result, decided, err := classicTest(args)
		switch {
		case err != nil:
			return []string{testError, args[0], err.Error()}, nil
		case decided && result:
			return []string{"true"}, nil
		case decided:
			return []string{"false"}, nil
		}
	case "echo", "printf", "pwd", "type", "help":
		if f := fileOf(interp.HandlerCtx(ctx).Stdout); f != nil && otherEndGone(f) {
			if s.cmd.sigpipeErr {
				return []string{"exit", "141"}, nil
			}
			return []string{"exit", "0"}, nil
		}
		if args[0] == "echo" && (len(args) < 2 || !strings.HasPrefix(args[1], "-")) {
			// In one write: those of jobs in the background would mix.
			return []string{"printf", "%s\n", strings.Join(args[1:], " ")}, nil
		}
	}
	return args, nil
}

// testError is the name of the command that fails as a test does whose operand
// is no number.
const testError = "\x00test"

// open opens a file for a redirection without ever blocking: a FIFO is waited
// for at its other end, so that the text can be cancelled meanwhile.
func (s *shell) open(ctx context.Context, path string, flag int, perm os.FileMode) (io.ReadWriteCloser, error) {
	hc := interp.HandlerCtx(ctx)
	if path == "" {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(hc.Dir, path)
	}
	switch path { // the step's streams, and not this program's
	case "/dev/stdout":
		return dupStream(fileOf(hc.Stdout), s)
	case "/dev/stderr":
		return dupStream(fileOf(hc.Stderr), s)
	}
	f, err := openFile(ctx, s.cmd.root, path, flag, perm)
	var out *safety.OutsideError
	if errors.As(err, &out) { // the interpreter reports this type only
		err = &os.PathError{Op: "open", Path: path, Err: cause(err)}
	}
	if err != nil || flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return f, err
	}
	return &sink{f, s}, nil
}

// dupStream returns a stream of the text once more; the null device where it has
// no file.
func dupStream(f *os.File, s *shell) (io.ReadWriteCloser, error) {
	if f == nil {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var again *os.File
	cerr := rc.Control(func(fd uintptr) { again, err = dupDescriptor(int(fd)) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, err
	}
	return &sink{again, s}, nil
}

// stat, readDir and access are what the text learns of files where it is
// confined.
func (s *shell) stat(ctx context.Context, path string, follow bool) (fs.FileInfo, error) {
	if path = s.abs(ctx, path); follow {
		return s.cmd.root.Stat(path)
	}
	return s.cmd.root.Lstat(path)
}

func (s *shell) readDir(ctx context.Context, path string) ([]fs.DirEntry, error) {
	f, err := s.cmd.root.OpenFile(s.abs(ctx, path), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

func (s *shell) access(ctx context.Context, path string, mode interp.AccessMode) error {
	info, err := s.cmd.root.Stat(s.abs(ctx, path))
	if err != nil {
		return err
	}
	// The mode bits decide; who is confined here is no other user.
	if info.Mode().Perm()&(fs.FileMode(mode)*0o111) == 0 {
		return fs.ErrPermission
	}
	return nil
}

func (s *shell) abs(ctx context.Context, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(interp.HandlerCtx(ctx).Dir, path)
}

// exec starts a program for the text and waits for it.
func (s *shell) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if args[0] == testError {
		fmt.Fprintf(hc.Stderr, "%s: %s\n", args[1], args[2])
		return interp.ExitStatus(2)
	}
	var env []string
	hc.Env.Each(func(name string, v expand.Variable) bool {
		if v.Exported && v.Kind == expand.String {
			env = append(env, name+"="+v.String())
		}
		return true
	})
	env = lastWins(env)
	search := s.cmd.path
	if v := hc.Env.Get("PATH"); v.IsSet() {
		search = v.String()
	}
	path, err := lookPath(s.engine, args[0], search, hc.Dir)
	if err != nil {
		fmt.Fprintf(hc.Stderr, "%s: %v\n", args[0], err)
		if errors.Is(err, safety.ErrNotFound) {
			return interp.ExitStatus(127)
		}
		return interp.ExitStatus(126)
	}
	c := &Cmd{
		Path: path, Args: args, Env: env, Dir: hc.Dir, Stdin: hc.Stdin,
		Stdout: s.childStream(hc.Stdout), Stderr: s.childStream(hc.Stderr),
		UID: s.cmd.uid, GID: s.cmd.gid, Step: s.cmd.step, Stage: s.cmd.stage,
	}
	if hc.Stdin == s.in {
		c.Terminal = s.cmd.terminal
	}
	if c.DirFile, err = openDir(s.cmd.root, c.Dir); err != nil {
		fmt.Fprintf(hc.Stderr, "%s: %v\n", args[0], err)
		return interp.ExitStatus(126)
	}
	if c.DirFile != nil {
		defer c.DirFile.Close()
	}
	st, err := s.child(ctx, c)
	if errors.Is(err, syscall.ENOEXEC) { // as a shell does with a script that has no #! line
		c.Path, c.Args = "/bin/sh", append([]string{"sh", path}, args[1:]...)
		st, err = s.child(ctx, c)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(hc.Stderr, "%s: %v\n", args[0], err)
		var se *StartError
		if errors.As(err, &se) {
			return interp.ExitStatus(se.Code)
		}
		return interp.ExitStatus(126)
	}
	if st.Signal == syscall.SIGPIPE && !s.cmd.sigpipeErr && fileOf(hc.Stdout) != s.out {
		return nil // its reader, inside of the text, had enough
	}
	if st.Code != 0 {
		return interp.ExitStatus(st.Code)
	}
	return nil
}

// childStream returns what a child gets for a stream of the text.
func (s *shell) childStream(w io.Writer) io.Writer {
	if w == io.Discard {
		return nil
	}
	if f := fileOf(w); f != nil {
		return f
	}
	return w
}

func lastWins(env []string) []string {
	at := make(map[string]int, len(env))
	out := env[:0]
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

// child starts a program and waits for it, unless the step is being ended.
func (s *shell) child(ctx context.Context, c *Cmd) (Status, error) {
	s.mu.Lock()
	if s.stopping != 0 {
		s.mu.Unlock()
		return Status{}, context.Canceled
	}
	// Under the lock, so that a signal that comes now reaches the child too.
	p, err := s.engine.Start(ctx, c)
	if err != nil {
		s.mu.Unlock()
		return Status{}, err
	}
	ended := make(chan struct{})
	s.children[p] = ended
	s.mu.Unlock()
	st := p.Wait()
	if fileOf(c.Stdout) == nil || fileOf(c.Stderr) == nil {
		// What it printed is on its way to the text, as in x=$(command).
		select {
		case <-p.Closed():
		case <-ctx.Done():
			p.Release(true)
		}
	}
	close(ended)
	s.mu.Lock()
	delete(s.children, p)
	if p.Left() { // a group that is empty stays so, and its number may become another's
		s.over = append(s.over, p)
	}
	s.mu.Unlock()
	if st.Err != nil {
		return st, st.Err
	}
	return st, nil
}

// Pid returns 0: the text has no process of its own.
func (s *shell) Pid() int { return 0 }

// Wait returns when the text has ended, or has been told to by SIGKILL.
func (s *shell) Wait() Status {
	select {
	case <-s.done:
		return s.status
	case <-s.abandon:
	}
	// A text between two commands stops at the next one. One that expands a
	// variable for seconds cannot be stopped; it is left behind.
	select {
	case <-s.done:
	case <-time.After(time.Second):
	}
	return Status{Code: 137, Signal: syscall.SIGKILL}
}

func (s *shell) stoppedBy() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Closed is closed when the text, its background and all streams have ended.
func (s *shell) Closed() <-chan struct{} { return s.closed }

// Signal sends a signal to every child. One that asks for an end stops the
// text as well.
func (s *shell) Signal(sig syscall.Signal) {
	s.mu.Lock()
	all := append(slices.Collect(maps.Keys(s.children)), s.over...)
	ends := !jobControl(sig)
	if ends {
		s.stopping = sig
	}
	if sig == syscall.SIGKILL {
		select {
		case <-s.abandon:
		default:
			close(s.abandon)
		}
	}
	s.mu.Unlock()
	for _, p := range all {
		p.Signal(sig)
	}
	if ends {
		s.cancel()
		for _, f := range s.ours {
			_ = f.SetDeadline(time.Now()) // a read or write that blocks ends
		}
	}
}

// End ends what is left of the trees of all children.
func (s *shell) End(sig syscall.Signal, grace time.Duration) []string {
	s.mu.Lock()
	live := maps.Clone(s.children)
	over := slices.Clone(s.over)
	s.stopping = sig
	s.mu.Unlock()
	s.cancel()
	var left []string
	for p := range live {
		if l, ok := p.(*localProcess); ok {
			left = append(left, fmt.Sprintf("%s (pid %d)", l.name, l.pid))
		}
		p.Signal(sig)
	}
	var kill <-chan time.Time
	if grace > 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		kill = timer.C
	}
	for p, ended := range live {
		select {
		case <-ended:
		case <-kill:
			for p := range live {
				p.Signal(syscall.SIGKILL)
			}
			<-ended
			kill = nil
		}
		left = append(left, p.End(sig, grace)...)
	}
	for _, p := range over {
		left = append(left, p.End(sig, grace)...)
	}
	return left
}

// Left reports whether any child, or a tree of one, lives.
func (s *shell) Left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.children) > 0 || slices.ContainsFunc(s.over, Process.Left)
}

// Holders names the processes that keep a stream open.
func (s *shell) Holders() []string { return holders(s.readers) }

// Release ends the copying. With force the text itself is given up too, which
// may hang in a read that nothing can end.
func (s *shell) Release(force bool) {
	s.cancel()
	release(s.readers, &s.released, force)
	if force {
		s.close.Do(func() { close(s.closed) })
	}
}
