// Package shell is the embedded shell. It runs shell text with the interpreter of
// mvdan.cc/sh and starts the programs of the text with an [engine.Engine]. Each
// program leads a process group of its own.
package shell

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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/tty"
	"github.com/pipe-runner/pipe/safety"
)

// Cmd is a shell text to run, with its environment and streams.
type Cmd struct {
	Text string       // in the language of bash
	Vars []safety.Var // variables that the text reads and that are not exported
	Root *safety.Dir  // the text opens no file outside of it; nil: it is not confined
	Set  []string     // names of options, as for set -o
	Env  []string     // the complete environment, as NAME=VALUE
	Dir  string       // the working directory, absolute
	Path string       // the PATH for looking up programs if Env has none
	// The streams are as in [engine.Cmd].
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Owned          []*os.File       // the streams that the text closes when it has ended
	UID, GID       *uint32          // of the programs that the text starts; nil: the runner's
	SigpipeFails   bool             // in a pipe of the text, the end of a program by SIGPIPE is a failure
	Terminal       *engine.Terminal // the text and its programs own it; nil: none
	Step           string           // see [engine.Cmd]
	Stage          int
}

// text is a running shell text. It implements [engine.Process].
type text struct {
	engine engine.Engine
	cmd    Cmd
	tree   *syntax.File
	cancel context.CancelFunc
	done   chan struct{} // closed when the text has ended
	closed chan struct{} // see Closed
	close  sync.Once     // closes closed
	status engine.Status // valid when done is closed

	in        io.Reader
	out, err  *os.File   // the stdout and stderr of the text and its children
	childIn   io.Reader  // what children read where the text reads in
	ours      []*os.File // the files that the text closes when it has ended
	feed      *os.File   // the other end of the pipe that the text's stdin is, or nil
	copies    osfile.Copies
	unwritten atomic.Pointer[error] // the error of the first failed write of a built-in command

	mu        sync.Mutex           // guards the fields below
	starting  map[*launch]struct{} // children that the engine is starting
	children  map[*child]struct{}  // running children
	over      []engine.Process     // children that have ended and left descendants
	stopping  syscall.Signal       // the signal that ends the text; 0: none
	terminals []*os.File           // descriptors of the terminal that the text has opened; the interpreter closes them
	abandon   chan struct{}        // closed on SIGKILL
}

// launch is a child that the engine is starting.
type launch struct {
	missed []syscall.Signal // that were sent meanwhile
	over   chan struct{}    // closed when the child runs, or was not started
}

// child is a running child. An engine's processes need not be comparable.
type child struct {
	engine.Process
	ended chan struct{} // closed at its end
}

// Start starts to run shell text. If the text cannot be parsed, the error says so;
// otherwise it is an [engine.StartError], or that of ctx. Once Start has returned, the
// end of ctx does not end the text; the values of ctx reach the engine.
func Start(ctx context.Context, e engine.Engine, c Cmd) (engine.Process, error) {
	tree, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(c.Text), "")
	if err != nil { // only a raw() value can cause this: the text was checked before
		return nil, fmt.Errorf("shell text: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &text{
		engine: e, cmd: c, tree: tree, cancel: cancel,
		done: make(chan struct{}), closed: make(chan struct{}), abandon: make(chan struct{}),
		starting: map[*launch]struct{}{}, children: map[*child]struct{}{},
	}
	r, err := s.interpreter()
	if err != nil {
		cancel()
		osfile.Close(s.ours...)
		s.copies.Abandon()
		return nil, err
	}
	s.copies.Begin()
	go s.run(ctx, r)
	return s, nil
}

// interpreter opens the streams and returns the interpreter for the text.
func (s *text) interpreter() (*interp.Runner, error) {
	if err := s.streams(); err != nil {
		return nil, &engine.StartError{Path: "exec", Msg: err.Error(), Err: err}
	}
	c := &s.cmd
	var params []string
	for _, name := range c.Set {
		params = append(params, "-o", name)
	}
	env := &environ{Environ: expand.ListEnviron(c.Env...), vars: map[string]string{}}
	for _, v := range c.Vars {
		env.vars[v.Name] = v.Value
	}
	opts := []interp.RunnerOption{
		interp.Env(env),
		interp.Params(params...),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.exec }),
		interp.CallHandler(s.call),
		interp.OpenHandler(s.open),
		interp.Dir(c.Dir),
	}
	if c.Root != nil {
		if _, err := c.Root.Stat(c.Dir); err != nil {
			return nil, &engine.StartError{Path: c.Dir, Msg: fmt.Sprintf("cwd %s: %v", c.Dir, osfile.Cause(err)), Err: err}
		}
		opts = append(opts, interp.StatHandler(s.stat), interp.ReadDirHandler2(s.readDir), interp.AccessHandler(s.access))
	}
	opts = append(opts, interp.StdIO(s.in, s.writer(s.out), s.writer(s.err)))
	r, err := interp.New(opts...)
	if err != nil {
		return nil, &engine.StartError{Path: c.Dir, Msg: fmt.Sprintf("cwd %s is not a directory", c.Dir), Err: err}
	}
	r.Reset()
	env.started = true
	return r, nil
}

// environ is the environment of the text. The interpreter, when it starts, would add
// variables such as HOME if they are not set; until started is true, Get pretends that
// they are.
type environ struct {
	expand.Environ                   // the exported variables
	vars           map[string]string // the variables that are not exported
	started        bool
}

// Get returns a variable.
func (e *environ) Get(name string) expand.Variable {
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

// Each calls f for each variable. The interpreter uses it to copy the environment for
// a subshell.
func (e *environ) Each(f func(string, expand.Variable) bool) {
	e.Environ.Each(f)
	for name := range e.vars {
		if !f(name, e.Get(name)) {
			return
		}
	}
}

// run interprets the text and then waits for its background commands.
func (s *text) run(ctx context.Context, r *interp.Runner) {
	defer s.cancel()
	s.cmd.Terminal.Hold()
	err := s.interpret(ctx, r, s.tree)
	s.status = statusOf(err)
	if sig := s.stoppedBy(); sig != 0 && ctx.Err() != nil {
		s.status = engine.Killed(sig)
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
		s.status = engine.Status{Code: 1}
	}
	close(s.done)
	if background(s.tree) {
		lit := func(s string) *syntax.Word { return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: s}}} }
		wait := &syntax.Stmt{ // with stderr redirected, so that xtrace prints nothing
			Cmd:    &syntax.CallExpr{Args: []*syntax.Word{lit("wait")}},
			Redirs: []*syntax.Redirect{{Op: syntax.RdrOut, N: &syntax.Lit{Value: "2"}, Word: lit(os.DevNull)}},
		}
		_ = s.interpret(ctx, r, wait)
	}
	osfile.Close(s.ours...)
	<-s.copies.Done()
	s.close.Do(func() { close(s.closed) })
}

// interpret runs n. The interpreter panics on some values, such as patterns that are
// not valid UTF-8; interpret returns that as an error.
func (s *text) interpret(ctx context.Context, r *interp.Runner, n syntax.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the embedded shell failed: %v", p)
			if s.err != nil {
				fmt.Fprintf(s.err, "%v; write shell: bash (or sh) on the step\n", err)
			}
		}
	}()
	return r.Run(ctx, n)
}

// streams opens a file for each stream of the text. As in os/exec, a stream that is
// not an *os.File becomes a pipe, and its content is copied.
func (s *text) streams() (err error) {
	s.ours = s.cmd.Owned
	switch in := s.cmd.Stdin.(type) {
	case nil:
	case *os.File:
		s.in, s.childIn = in, in
		if slices.Contains(s.ours, in) {
			break
		}
		if again := osfile.Reopen(in); again != nil { // a read of the caller's own could not be ended
			s.in, s.ours = again, append(s.ours, again)
		}
	default:
		pr, err := s.copies.To(in)
		if err != nil {
			return err
		}
		s.in, s.childIn, s.ours = pr, pr, append(s.ours, pr)
		s.feed = s.copies.Ends()[len(s.copies.Ends())-1]
	}
	if s.out, err = s.stream(s.cmd.Stdout); err != nil {
		return err
	}
	if s.err = s.out; !engine.SameWriter(s.cmd.Stderr, s.cmd.Stdout) {
		s.err, err = s.stream(s.cmd.Stderr)
	}
	return err
}

// stream returns the file for an output stream of the text; nil is nil.
func (s *text) stream(w io.Writer) (*os.File, error) {
	switch w := w.(type) {
	case nil:
		return nil, nil
	case *os.File:
		return w, nil
	}
	pw, err := s.copies.From(w)
	if err == nil {
		s.ours = append(s.ours, pw)
	}
	return pw, err
}

// sink is a file that the text writes to. Because the built-in commands ignore errors
// of writes, sink records the first one, and the text as a whole fails.
type sink struct {
	*os.File
	s *text
}

// Write writes to the file. EPIPE is not recorded: the reader has closed the pipe.
func (k *sink) Write(b []byte) (int, error) {
	n, err := k.File.Write(b)
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		k.s.unwritten.CompareAndSwap(nil, &err)
	}
	return n, err
}

// WriteString writes to the file.
func (k *sink) WriteString(text string) (int, error) { return k.Write([]byte(text)) }

// writer returns f as a writer, or a nil interface if f is nil.
func (s *text) writer(f *os.File) io.Writer {
	if f == nil {
		return nil
	}
	return &sink{f, s}
}

// fileOf returns the file behind a stream of the interpreter, or nil.
func fileOf(w io.Writer) *os.File {
	switch w := w.(type) {
	case *sink:
		return w.File
	case *os.File:
		return w
	}
	return nil
}

// statusOf returns the status for the error that the interpreter returned.
func statusOf(err error) engine.Status {
	var code interp.ExitStatus
	switch {
	case err == nil:
		return engine.Status{}
	case errors.As(err, &code):
		return engine.Status{Code: int(code)}
	}
	return engine.Status{Code: 1}
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

// call replaces commands before the interpreter runs them. It evaluates test and [;
// see classicTest. If the reader of a built-in command's output has gone, it ends the
// subshell, which as a process would get SIGPIPE. Like SIGPIPE in a pipe of stages,
// that is not a failure unless SigpipeFails is set.
func (s *text) call(ctx context.Context, args []string) ([]string, error) {
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
		if f := fileOf(interp.HandlerCtx(ctx).Stdout); f != nil && osfile.OtherEndGone(f) {
			if s.cmd.SigpipeFails {
				return []string{"exit", strconv.Itoa(signame.ExitCode(syscall.SIGPIPE))}, nil
			}
			return []string{"exit", "0"}, nil
		}
		if args[0] == "echo" && (len(args) < 2 || !strings.HasPrefix(args[1], "-")) {
			// printf writes the line at once; echo would let the words of background
			// commands mix.
			return []string{"printf", "%s\n", strings.Join(args[1:], " ")}, nil
		}
	}
	return args, nil
}

// testError is the name of an internal command. It fails like test with an operand
// that is not a number.
const testError = "\x00test"

// open opens a file for a redirection. While it waits for the other end of a FIFO, the
// end of ctx cancels it.
func (s *text) open(ctx context.Context, path string, flag int, perm os.FileMode) (io.ReadWriteCloser, error) {
	hc := interp.HandlerCtx(ctx)
	if path == "" {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(hc.Dir, path)
	}
	switch path { // the streams of the step, not those of this program
	case "/dev/tty":
		return s.terminal(path, flag)
	case "/dev/stdout":
		return dupStream(fileOf(hc.Stdout), s)
	case "/dev/stderr":
		return dupStream(fileOf(hc.Stderr), s)
	}
	f, err := osfile.Open(ctx, s.cmd.Root, path, flag, perm)
	var out *safety.OutsideError
	if errors.As(err, &out) { // the interpreter reports only this type
		err = &os.PathError{Op: "open", Path: path, Err: osfile.Cause(err)}
	}
	if err != nil || flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return f, err
	}
	return &sink{f, s}, nil
}

// terminal opens the controlling terminal, if the text has one.
func (s *text) terminal(path string, flag int) (io.ReadWriteCloser, error) {
	if s.cmd.Terminal == nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENXIO}
	}
	f, err := os.OpenFile(path, flag&^(os.O_CREATE|os.O_TRUNC|os.O_EXCL), 0)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.terminals = append(s.terminals, f)
	if s.stopping != 0 {
		_ = f.SetDeadline(time.Now())
	}
	return &sink{f, s}, nil
}

// dupStream returns a duplicate of f, or the null device if f is nil.
func dupStream(f *os.File, s *text) (io.ReadWriteCloser, error) {
	if f == nil {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var again *os.File
	cerr := rc.Control(func(fd uintptr) { again, err = osfile.Dup(int(fd)) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, err
	}
	return &sink{again, s}, nil
}

// stat, readDir and access replace the interpreter's own functions if the text is
// confined to a root.
func (s *text) stat(ctx context.Context, path string, follow bool) (fs.FileInfo, error) {
	if path = s.abs(ctx, path); follow {
		return s.cmd.Root.Stat(path)
	}
	return s.cmd.Root.Lstat(path)
}

func (s *text) readDir(ctx context.Context, path string) ([]fs.DirEntry, error) {
	f, err := s.cmd.Root.OpenFile(s.abs(ctx, path), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

func (s *text) access(ctx context.Context, path string, mode interp.AccessMode) error {
	info, err := s.cmd.Root.Stat(s.abs(ctx, path))
	if err != nil {
		return err
	}
	// An approximation: it does not look at which user the bits are for.
	if info.Mode().Perm()&(fs.FileMode(mode)*0o111) == 0 {
		return fs.ErrPermission
	}
	return nil
}

// abs returns path relative to the working directory of the command in ctx.
func (s *text) abs(ctx context.Context, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(interp.HandlerCtx(ctx).Dir, path)
}

// exec starts a program for the text and waits for it.
func (s *text) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if args[0] == testError {
		fmt.Fprintf(hc.Stderr, "%s: %s\n", args[1], args[2])
		return interp.ExitStatus(2)
	}
	env := exported(hc.Env)
	search := s.cmd.Path
	if v := hc.Env.Get("PATH"); v.IsSet() {
		search = v.String()
	}
	path, err := engine.LookPath(s.engine, args[0], search, hc.Dir)
	if err != nil {
		fmt.Fprintf(hc.Stderr, "%s: %v\n", args[0], err)
		if errors.Is(err, safety.ErrNotFound) {
			return interp.ExitStatus(engine.CodeNotFound)
		}
		return interp.ExitStatus(engine.CodeCannotStart)
	}
	c := &engine.Cmd{
		Path: path, Args: args, Env: env, Dir: hc.Dir, Stdin: s.childStdin(hc.Stdin),
		Stdout: s.childStream(hc.Stdout), Stderr: s.childStream(hc.Stderr),
		UID: s.cmd.UID, GID: s.cmd.GID, Terminal: s.cmd.Terminal, Step: s.cmd.Step, Stage: s.cmd.Stage,
	}
	if c.DirFile, err = engine.OpenDir(s.cmd.Root, c.Dir); err != nil {
		fmt.Fprintf(hc.Stderr, "%s: %v\n", args[0], err)
		return interp.ExitStatus(engine.CodeCannotStart)
	}
	if c.DirFile != nil {
		defer c.DirFile.Close()
	}
	st, err := s.program(ctx, c)
	if errors.Is(err, syscall.ENOEXEC) { // as a shell does with a script that has no #! line
		c.Path, c.Args = "/bin/sh", append([]string{"sh", path}, args[1:]...)
		st, err = s.program(ctx, c)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(hc.Stderr, "%s: %v\n", args[0], err)
		var se *engine.StartError
		if errors.As(err, &se) {
			return interp.ExitStatus(se.ExitCode())
		}
		return interp.ExitStatus(engine.CodeCannotStart)
	}
	if s.cmd.Terminal != nil && (st.Signal == syscall.SIGINT || st.Signal == syscall.SIGQUIT) { // as a shell, the text ends by it too
		s.mu.Lock()
		s.stopping = st.Signal
		s.mu.Unlock()
		s.stop()
		return ctx.Err()
	}
	if st.Signal == syscall.SIGPIPE && !s.cmd.SigpipeFails && fileOf(hc.Stdout) != s.out {
		return nil // its reader, a command of the text, closed the pipe
	}
	if st.Code != 0 {
		return interp.ExitStatus(st.Code)
	}
	return nil
}

// childStdin returns what a child gets for a stdin of the text.
func (s *text) childStdin(in io.Reader) io.Reader {
	if in == s.in {
		return s.childIn
	}
	if k, ok := in.(*sink); ok {
		return k.File
	}
	return in
}

// childStream returns what a child gets for a stream of the text.
func (s *text) childStream(w io.Writer) io.Writer {
	if w == io.Discard {
		return nil
	}
	if f := fileOf(w); f != nil {
		return f
	}
	return w
}

// exported returns the environment of a child. Each visits outer variables first:
// an inner one hides them, also where it is unset or not exported.
func exported(from expand.Environ) []string {
	at := map[string]int{}
	var env []string
	from.Each(func(name string, v expand.Variable) bool {
		kv := ""
		if v.IsSet() && v.Exported && v.Kind == expand.String {
			kv = name + "=" + v.String()
		}
		if i, ok := at[name]; ok {
			env[i] = kv
			return true
		}
		at[name] = len(env)
		env = append(env, kv)
		return true
	})
	return slices.DeleteFunc(env, func(kv string) bool { return kv == "" })
}

// program starts a program and waits until it has ended. If the text is being stopped,
// it starts nothing.
func (s *text) program(ctx context.Context, c *engine.Cmd) (engine.Status, error) {
	s.mu.Lock()
	if s.stopping != 0 {
		s.mu.Unlock()
		return engine.Status{}, context.Canceled
	}
	// An engine may take long, until ctx is done. So Signal must not wait for it,
	// and leaves here what the child has to be sent.
	begun := &launch{over: make(chan struct{})}
	s.starting[begun] = struct{}{}
	s.mu.Unlock()
	p, err := engine.Start(ctx, s.engine, c)
	s.mu.Lock()
	delete(s.starting, begun)
	close(begun.over)
	if err != nil {
		s.mu.Unlock()
		return engine.Status{}, err
	}
	running := &child{p, make(chan struct{})}
	s.children[running] = struct{}{}
	for _, sig := range begun.missed { // under the lock, before what comes next
		_ = p.Signal(sig)
	}
	s.mu.Unlock()
	st := p.Wait()
	if fileOf(c.Stdout) == nil || fileOf(c.Stderr) == nil {
		// Wait for the copying of its output, which the text may read, as in
		// x=$(command).
		select {
		case <-p.Closed():
		case <-ctx.Done():
			engine.Release(p, true)
		}
	}
	s.mu.Lock()
	delete(s.children, running)
	close(running.ended)
	if engine.Left(p) { // an empty group must not be signalled later: its id may be reused
		s.over = append(s.over, p)
	}
	s.mu.Unlock()
	if st.Err != nil {
		return st, st.Err
	}
	return st, nil
}

// Pid returns 0: the text has no process of its own.
func (s *text) Pid() int { return 0 }

// Wait waits until the text has ended. After SIGKILL it waits for at most one second.
func (s *text) Wait() engine.Status {
	select {
	case <-s.done:
		return s.status
	case <-s.abandon:
	}
	// The interpreter stops before the next command. A long expansion cannot be
	// stopped: its goroutine is abandoned.
	select {
	case <-s.done:
	case <-time.After(time.Second):
	}
	return engine.Killed(syscall.SIGKILL)
}

// stoppedBy returns the signal that stopped the text, or 0.
func (s *text) stoppedBy() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Closed returns a channel that is closed when the text and its background commands
// have ended and their output has been copied.
func (s *text) Closed() <-chan struct{} { return s.closed }

// Signal sends a signal to every child. All signals but those of job control also
// stop the text before its next command.
func (s *text) Signal(sig syscall.Signal) error {
	s.mu.Lock()
	all := slices.Clone(s.over)
	for c := range s.children {
		all = append(all, c.Process)
	}
	for begun := range s.starting {
		begun.missed = append(begun.missed, sig)
	}
	ends := !tty.JobControl(sig)
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
	if ends {
		s.stop() // before its children: no command may follow the one that the signal ends
	}
	var errs error
	for _, p := range all {
		errs = errors.Join(errs, p.Signal(sig))
	}
	return errs
}

// stop ends the text, also where it blocks in a read or a write.
func (s *text) stop() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range slices.Concat(s.ours, s.terminals) {
		_ = f.SetDeadline(time.Now())
	}
	osfile.Close(s.feed) // its other end has no deadlines
}

// End ends what is left of the trees of all children.
func (s *text) End(sig syscall.Signal, grace time.Duration) []string {
	s.mu.Lock()
	s.stopping = sig
	starting := maps.Clone(s.starting)
	s.mu.Unlock()
	s.cancel()
	for begun := range starting { // s.cancel ends what takes long
		<-begun.over
	}
	s.mu.Lock()
	live := maps.Clone(s.children)
	over := slices.Clone(s.over)
	s.mu.Unlock()
	var left []string
	for c := range live {
		if name := engine.Name(c.Process); name != "" {
			left = append(left, name)
		}
		_ = c.Signal(sig) // a child that cannot be signalled is waited for below
	}
	var kill <-chan time.Time
	if grace > 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		kill = timer.C
	}
	for c := range live {
		select {
		case <-c.ended:
		case <-kill:
			for c := range live {
				_ = c.Signal(syscall.SIGKILL)
			}
			<-c.ended
			kill = nil
		}
		left = append(left, engine.End(c.Process, sig, grace)...)
	}
	for _, p := range over {
		left = append(left, engine.End(p, sig, grace)...)
	}
	return left
}

// Left reports whether any child or descendant of a child is left.
func (s *text) Left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.starting) > 0 || len(s.children) > 0 || slices.ContainsFunc(s.over, engine.Left)
}

// Holders returns the names of the processes that keep a stream open.
func (s *text) Holders() []string { return procfs.Holders(s.copies.Ends()) }

// Release stops the text and the copying of its streams. With force it also closes
// the channel of Closed, in case the text blocks in a read that cannot be cancelled.
func (s *text) Release(force bool) {
	s.cancel()
	s.copies.Release(force)
	if force {
		s.close.Do(func() { close(s.closed) })
	}
}
