package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/shell"
	"github.com/pipe-runner/pipe/safety"
)

// plumb opens the streams of all stages and joins them.
func (ex *execution) plumb() error {
	n := ex.spec.Processes()
	ex.procs = make([]*proc, 0, n)
	ex.result.Stages = make([]StageResult, 0, n)
	in, err := ex.stdin(&ex.spec.Stages[0])
	if err != nil {
		p := &proc{spec: &ex.spec.Stages[0]}
		ex.result.Stages = append(ex.result.Stages, StageResult{Command: p.spec.Command})
		return ex.fault(p, err)
	}
	if err := ex.chain(ex.spec.Stages, in, false); err != nil {
		return err
	}
	for _, p := range ex.procs { // all programs are there before one starts
		if err := ex.resolve(p); err != nil {
			return ex.fault(p, err)
		}
	}
	return nil
}

// fault notes which stage an error is about.
func (ex *execution) fault(p *proc, err error) error {
	ex.command, ex.result.Stages[p.stage].Err = p.spec.Command, err
	return err
}

// chain joins stages, the first of which reads in.
func (ex *execution) chain(stages []Stage, in io.Reader, branch bool) error {
	var before *proc // the stage that writes what this one reads; nil: none, or a tee is between
	for i := range stages {
		st, last := &stages[i], i == len(stages)-1
		if st.Tee != nil {
			next, err := ex.tee(st, in, last)
			if err != nil {
				return err
			}
			in, before = next, nil
			continue
		}
		p := &proc{spec: st, stage: len(ex.result.Stages), last: last}
		ex.result.Stages = append(ex.result.Stages, StageResult{Command: st.Command, Branch: branch})
		ex.procs = append(ex.procs, p)
		p.cmd.Stdin, in = in, nil
		if !last {
			pr, pw, err := ex.pipe()
			if err != nil {
				return err
			}
			p.cmd.Stdout, in = pw, pr
		} else if err := ex.stdout(p); err != nil {
			return ex.fault(p, err)
		}
		if err := ex.others(p); err != nil {
			return ex.fault(p, err)
		}
		if before != nil {
			before.reader = p
		}
		before = p
	}
	return nil
}

// tee joins the branches of a tee and returns what the next stage reads, if there
// is one.
func (ex *execution) tee(st *Stage, in io.Reader, last bool) (io.Reader, error) {
	f, ok := in.(*os.File)
	if !ok {
		return nil, errors.New("tee: no stream")
	}
	t := &tee{in: ex.own(f), done: make(chan struct{})}
	t.files = []*os.File{t.in}
	ex.tees = append(ex.tees, t)
	for i := range st.Tee {
		b := &st.Tee[i]
		if b.File != "" {
			out, err := ex.file("tee", b.File, fileFlags(b.Append))
			if err != nil {
				return nil, err
			}
			t.add(ex.own(out), b.File)
			continue
		}
		pr, pw, err := ex.pipe()
		if err != nil {
			return nil, err
		}
		t.add(ex.own(pw), "")
		if err := ex.chain(b.Chain, pr, true); err != nil {
			return nil, err
		}
	}
	if last {
		return nil, nil
	}
	pr, pw, err := ex.pipe()
	if err != nil {
		return nil, err
	}
	t.add(ex.own(pw), "")
	return pr, nil
}

// own takes a file from those that are closed when all have started.
func (ex *execution) own(f *os.File) *os.File {
	ex.open = slices.DeleteFunc(ex.open, func(o *os.File) bool { return o == f })
	return f
}

// pipe returns a kernel pipe; up to a bound it is a large one.
func (ex *execution) pipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, &engine.StartError{Msg: "no pipe to be had: " + err.Error(), Err: err}
	}
	ex.open = append(ex.open, r, w)
	select {
	case ex.sv.Large <- struct{}{}:
		ex.large++
		osfile.Grow(w)
	default:
	}
	return r, w, nil
}

// stdin returns what the first stage reads; nil is the null device.
func (ex *execution) stdin(st *Stage) (io.Reader, error) {
	switch in := st.Stdio[0]; in.Kind {
	case StdioInput:
		return strings.NewReader(st.Input), nil
	case StdioInherit:
		return ex.inherit()
	case StdioFile:
		return ex.file("stdin", in.Path, os.O_RDONLY)
	case StdioFD:
		if in.FD == 0 {
			return ex.inherit()
		}
		return ex.descriptor(in.FD)
	}
	return nil, nil
}

// inherit returns the runner's stdin, once it is the step's turn to read it. A
// service does not wait: it would have its turn for as long as the run.
func (ex *execution) inherit() (io.Reader, error) {
	if ex.sv.Turn != nil && ex.spec.Service == nil {
		select {
		case ex.sv.Turn <- struct{}{}:
		default:
			ex.warn("waiting for stdin, which another step reads")
			select {
			case ex.sv.Turn <- struct{}{}:
			case <-ex.ctx.Done():
				return nil, context.Cause(ex.ctx)
			}
		}
		ex.turn = true
	}
	if term.IsTerminal(int(ex.sv.Stdin.Fd())) {
		ex.terminal = engine.OwnTerminal(ex.sv.Engine, ex.sv.Stdin)
	}
	return ex.sv.Stdin, nil
}

// file opens a file of stdio. The step can be ended while a FIFO blocks.
func (ex *execution) file(key, path string, flag int) (*os.File, error) {
	f, err := osfile.Open(ex.ctx, ex.sv.Root, path, flag, 0o666)
	if err != nil {
		return nil, &engine.StartError{Path: path, Msg: fmt.Sprintf("%s: cannot open %s: %v", key, path, osfile.Cause(err)), Err: err}
	}
	ex.open = append(ex.open, f)
	return f, nil
}

// descriptor returns one of the runner's own descriptors.
func (ex *execution) descriptor(fd int) (*os.File, error) {
	switch fd {
	case 0:
		return ex.sv.Stdin, nil
	case 1, 2:
		if f, ok := ex.sv.out(fd).(*os.File); ok {
			return f, nil
		}
		return nil, &engine.StartError{Msg: fmt.Sprintf("descriptor %d of the runner is no file here, so that it can only be a stdout or stderr", fd)}
	}
	f, err := osfile.Dup(fd)
	if err == nil && ex.sv.Inherited != nil && !slices.Contains(ex.sv.Inherited, fd) {
		_ = f.Close()
		err = os.ErrInvalid // it is the runner's own
	}
	if err != nil {
		return nil, &engine.StartError{Msg: fmt.Sprintf("the runner has no descriptor %d; open it where pipe is called, as in %d<file", fd, fd), Err: err}
	}
	ex.open = append(ex.open, f)
	return f, nil
}

func fileFlags(appends bool) int {
	if appends {
		return os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	return os.O_WRONLY | os.O_CREATE | os.O_TRUNC
}

// output returns where a stdout or stderr goes that is no pipe; nil is the null
// device.
func (ex *execution) output(io Stdio, fd int) (io.Writer, error) {
	var f *os.File
	var err error
	switch io.Kind {
	case StdioInherit:
		return ex.sv.out(fd), nil
	case StdioFD:
		if io.FD == 1 || io.FD == 2 {
			return ex.sv.out(io.FD), nil
		}
		f, err = ex.descriptor(io.FD)
	case StdioFile:
		f, err = ex.file([]string{"", "stdout", "stderr"}[fd], io.Path, fileFlags(io.Append))
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (ex *execution) stdout(p *proc) (err error) {
	if io := p.spec.Stdio[1]; io.Kind != StdioPipe {
		p.cmd.Stdout, err = ex.output(io, 1)
		return err
	}
	p.cmd.Stdout, p.out = ex.stream(p, 1)
	return nil
}

// others opens stderr and what lies beyond it.
func (ex *execution) others(p *proc) (err error) {
	switch io := p.spec.Stdio[2]; io.Kind {
	case StdioStdout:
		p.cmd.Stderr = p.cmd.Stdout
	case StdioPipe:
		p.cmd.Stderr, p.errs = ex.stream(p, 2)
	default:
		if p.cmd.Stderr, err = ex.output(io, 2); err != nil {
			return err
		}
	}
	for i, io := range p.spec.Stdio[3:] {
		f, err := ex.extra(io, i+3)
		if err != nil {
			return err
		}
		p.cmd.Extra = append(p.cmd.Extra, f)
	}
	p.cmd.Terminal = ex.terminal
	return nil
}

// extra opens a descriptor past 2; nil is one that is not open.
func (ex *execution) extra(io Stdio, fd int) (*os.File, error) {
	key := fmt.Sprintf("stdio[%d]", fd)
	switch io.Kind {
	case StdioInherit:
		return ex.descriptor(fd)
	case StdioFD:
		return ex.descriptor(io.FD)
	case StdioFile:
		return ex.file(key, io.Path, fileFlags(io.Append))
	case StdioIgnore:
		return ex.file(key, os.DevNull, os.O_RDWR)
	}
	return nil, nil
}

// env returns the environment of a stage.
func (ex *execution) env(st *Stage) []string {
	if ex.notify == nil {
		return st.Env
	}
	return ex.notify.env(st.Env)
}

// resolve completes the Cmd of a program: which file it is, and where it runs.
func (ex *execution) resolve(p *proc) (err error) {
	st, c := p.spec, &p.cmd
	if st.Shell == BuiltinShell {
		return nil
	}
	if c.Path, err = LookPath(ex.sv.Engine, st); err != nil {
		return err
	}
	c.Args, c.Env, c.Dir, c.UID, c.GID = st.Args, ex.env(st), st.Dir, st.UID, st.GID
	c.Step, c.Stage = ex.spec.Label, p.stage
	if c.DirFile, err = engine.OpenDir(ex.sv.Root, c.Dir); err != nil {
		return err
	}
	if c.DirFile != nil {
		ex.open = append(ex.open, c.DirFile)
	}
	if st.Script {
		f, err := osfile.Text(st.Text)
		if err != nil {
			return &engine.StartError{Path: c.Path, Msg: "no file for the shell text: " + err.Error(), Err: err}
		}
		ex.open = append(ex.open, f)
		c.Extra = append(c.Extra, f)
	}
	return nil
}

// LookPath returns the file that the program of a stage is. The error is an
// [engine.StartError].
func LookPath(e engine.Engine, st *Stage) (string, error) {
	path, err := engine.LookPath(e, st.Program, st.Path, st.Dir)
	if err == nil {
		return path, nil
	}
	if derr := engine.CheckDir(st.Dir); derr != nil { // then that is the cause
		return "", derr
	}
	se := &engine.StartError{Path: st.Program, Msg: err.Error(), Err: err}
	if errors.Is(err, safety.ErrNotFound) {
		se.Code = engine.CodeNotFound
	}
	return "", se
}

// startProc starts a stage.
func (ex *execution) startProc(p *proc) (err error) {
	if p.spec.Shell == BuiltinShell {
		p.handle, err = ex.startShell(p)
	} else {
		p.handle, err = engine.Start(ex.ctx, ex.sv.Engine, &p.cmd)
	}
	var se *engine.StartError
	if err != nil && !errors.As(err, &se) && p.spec.Shell != BuiltinShell && !errors.Is(err, context.Cause(ex.ctx)) { // of another's engine
		err = &engine.StartError{Path: p.spec.Program, Msg: err.Error(), Err: err}
	}
	return err
}

// startShell starts a text of the embedded shell. It shares no descriptor with
// the step: what it holds open ends with it.
func (ex *execution) startShell(p *proc) (engine.Process, error) {
	st := p.spec
	c := shell.Cmd{
		Text: st.Text, Vars: st.Vars, Root: ex.sv.Root, Set: st.Set, Env: ex.env(st), Dir: st.Dir, Path: st.Path,
		Stdin: p.cmd.Stdin, Stdout: p.cmd.Stdout, Stderr: p.cmd.Stderr,
		UID: st.UID, GID: st.GID, SigpipeFails: st.SigpipeFails, Terminal: p.cmd.Terminal,
		Step: ex.spec.Label, Stage: p.stage,
	}
	for _, f := range ex.open {
		if c.Stdin == io.Reader(f) || c.Stdout == io.Writer(f) || c.Stderr == io.Writer(f) {
			c.Owned = append(c.Owned, f)
		}
	}
	text, err := shell.Start(ex.ctx, ex.sv.Engine, c)
	if err == nil {
		for _, f := range c.Owned {
			ex.own(f)
		}
	}
	return text, err
}
