// Package runner runs the steps of a pipeline.
//
//	p, err := pipeline.Parse("build.yaml", src)
//	...
//	res, err := (&runner.Runner{}).Run(ctx, p)
//
// The error says which step failed, and how; it is nil only where all went well.
// What became of each step is in the result.
//
// The zero [Runner] works. It installs no signal handlers, keeps no state in
// the package and prints nothing of its own; package runner/guard holds the
// one thing that a program must switch on itself, the end of all descendants
// when the program is killed.
package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/history"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// Runner runs pipelines. The zero value runs them on this machine, in the
// current directory, with this program's environment and stdio. A Runner is
// not changed by its methods, which several goroutines may call at once, also
// for different pipelines.
type Runner struct {
	Engine Engine // nil: Local{}
	Dir    string // the caller's directory; "": the current one
	// Root, if not "", is a directory that every cwd and every file that is
	// opened for a step must be inside of, symbolic links included. It does not
	// confine what the programs do that are started.
	Root string
	Env  []string // the runner's environment; nil: os.Environ()
	// Stdout and Stderr are what inherit means; nil: os.Stdout and os.Stderr. An
	// *os.File goes to the child itself. To any other writer the output is
	// copied, by one Write at a time.
	Stdout, Stderr io.Writer
	// Inherited are the descriptors past 2 that {fd: N} may name; nil: any that
	// is open in this program.
	Inherited []int
	// Sink gets all events. nil: nobody listens, and output that would pass
	// through the runner goes to Stdout and Stderr.
	Sink func(Event)
	// MaxParallel overrides the pipeline's, if not nil; 0: no limit.
	MaxParallel *int
	KeepGoing   bool // after a failure, go on with what does not need the step

	// State, if not "", is the folder where the run is recorded and where steps
	// with sources are remembered; see [StateDir]. It is made, for this user
	// alone. "": nothing is kept, and steps with sources always run.
	State string
	// Force runs every step, also one that is up to date.
	Force bool

	// Jobs starts detached steps; nil: there can be none.
	Jobs Jobs
	// Foreground makes detached steps ones like any other, which are waited for
	// and ended with the run.
	Foreground bool
}

// Input is what one run is given. The zero value gives nothing, and runs all
// steps.
type Input struct {
	Params map[string][]string // values by name, several for a list
	Args   []string            // the list args
	// Stdin is what a step with stdin: inherit reads; nil: os.Stdin. Of what is
	// no *os.File, a goroutine reads ahead, and is left behind where the Read
	// does not return when the run has ended.
	Stdin io.Reader
	Steps []string // run these and what they take; nil: all
	// Resume, if not nil, is an earlier run of the same pipeline: a step that
	// ended well in it, and would do the same now, is not run again.
	Resume *PastRun
}

// Interrupt is a cause for [context.WithCancelCause] that says which signal
// the run is ended with. Without it steps are ended with their killSignal.
type Interrupt struct {
	Signal syscall.Signal
	// Again, if not nil, is closed to end everything with SIGKILL at once.
	Again <-chan struct{}
}

// Error names the signal.
func (i *Interrupt) Error() string { return "interrupted by " + signame.Name(i.Signal) }

// ErrParams is wrapped by an error of Run about parameters, or about steps
// that were named and do not exist; nothing was started then.
var ErrParams = errors.New("runner: bad parameters")

// paramError is an error about what the caller gave.
type paramError struct{ err error }

// Error returns the text of the error.
func (e *paramError) Error() string { return e.err.Error() }

// Unwrap returns the error, and [ErrParams].
func (e *paramError) Unwrap() []error { return []error{ErrParams, e.err} }

// errDeadline is what errors wrap that a time was over.
var errDeadline = context.DeadlineExceeded

// Run runs a pipeline, which it checks where that has not been done since it was
// changed, and returns when its last process has ended. At most one Input may be
// given.
//
// The error is nil only if all went well. Where nothing was started there is no
// result: the error is of type [pipeline.Errors], wraps [ErrParams], is a
// [LockError], or says what else was wrong. Otherwise the result is beside it:
//
//   - where a step failed, the error is a [*StepError] of the first;
//   - where the pipeline's timeout was over, or ctx done, it is that cause (see
//     [Interrupt]), and no StepError unless a step had failed before: then it is
//     both, joined. [errors.As] finds either.
//
// When ctx is done, everything that runs is ended, and steps that clean up still
// run.
func (r *Runner) Run(ctx context.Context, p *pipeline.Pipeline, in ...Input) (*Result, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	res, err := s.run(ctx)
	if err != nil {
		return nil, err
	}
	return res, res.err()
}

// scene is everything that a run of a pipeline has before it starts. It is made
// by one function, and not changed any more, so that all goroutines of a run may
// read it; looking at a pipeline without running it takes no more.
type scene struct {
	*Runner
	p        *pipeline.Pipeline
	in       Input
	outer    *outer // nil: no step of another pipeline runs this one
	dir      string // the caller's, absolute
	environ  []string
	bind     *bind.Binder
	services *step.Services
	view     *history.View // nil: nothing is kept
	limit    int           // of processes at once; 0: none
	selected []bool        // by place in p.Steps; nil: all
	feed     *os.File      // read end of the pipe that Input.Stdin is copied to, or nil
}

// outer is the step that runs a pipeline.
type outer struct {
	*scene
	label    string
	after    string   // the step before it that ran again, in a resumed run
	declared []string // variables that it, or a step further out, sets
}

// scene prepares a run. The error says why nothing can be started; secrets are
// masked in it.
func (r *Runner) scene(p *pipeline.Pipeline, in []Input, out *outer) (*scene, error) {
	if p == nil {
		return nil, &paramError{errors.New("runner: the pipeline is nil")}
	}
	if len(in) > 1 {
		return nil, &paramError{errors.New("runner: a run takes one Input")}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	s := &scene{Runner: r, p: p, outer: out, environ: r.Env}
	if len(in) > 0 {
		s.in = in[0]
	}
	if s.environ == nil {
		s.environ = os.Environ()
	}
	err := s.prepare()
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *scene) prepare() (err error) {
	if s.dir, err = filepath.Abs(s.Dir); err != nil {
		return err
	}
	s.services = &step.Services{Engine: s.Engine, Inherited: s.Inherited, Direct: s.Sink == nil, Large: step.NewLarge(), Turn: make(chan struct{}, 1), Whole: &sync.Mutex{}}
	if s.Engine == nil {
		s.services.Engine = Local{}
	}
	if s.outer != nil {
		s.services.Turn = s.outer.services.Turn
	}
	if s.Root != "" {
		if s.services.Root, err = safety.OpenDir(s.Root); err != nil {
			return &paramError{fmt.Errorf("root %s: %w", s.Root, osfile.Cause(err))}
		}
		if _, err := s.services.Root.Stat(s.dir); err != nil {
			return &paramError{fmt.Errorf("the caller's folder %s: %w; change to one inside", s.dir, osfile.Cause(err))}
		}
	}
	if s.bind, err = bind.New(s.p, s.values()); err != nil {
		var pe *bind.ParamError
		if errors.As(err, &pe) {
			return &paramError{pe.Err}
		}
		return err
	}
	s.services.Redactor = s.bind.Redactor
	if len(s.in.Steps) > 0 {
		if s.selected, err = s.p.Select(s.in.Steps); err != nil {
			return &paramError{s.masked(err)}
		}
	}
	s.limit = s.p.Parallelism(runtime.NumCPU())
	if s.MaxParallel != nil {
		s.limit = *s.MaxParallel
	}
	if files := maxProcesses(); files > 0 && (s.limit == 0 || s.limit > files) {
		s.limit = files
	}
	return s.stdio()
}

// values returns what binding starts from.
func (s *scene) values() bind.Values {
	v := bind.Values{
		Params: s.in.Params, Args: s.in.Args, Dir: s.dir, Environ: s.environ, Root: s.services.Root, Foreground: s.Foreground,
	}
	if o := s.outer; o != nil { // a nested pipeline is part of the run of its caller
		v.Nested, v.Declared, v.Hidden, v.RunID = true, o.declared, o.bind.Hidden, o.bind.RunID()
		return v
	}
	now := time.Now().UTC() // ids sort by time, those of one millisecond too
	v.RunID = fmt.Sprintf("%s-%06x", now.Format("20060102-150405.000"), now.Nanosecond()/1000%1000<<14|rand.N(1<<14))
	return v
}

// close gives up what the scene has open.
func (s *scene) close() {
	osfile.Close(s.feed)
	if s.services != nil {
		_ = s.services.Root.Close()
	}
}

// masked returns an error in whose text no secret shows.
func (s *scene) masked(err error) error { return step.Masked(s.bind.Redactor, err) }

// wanted reports whether a step is among those that were asked for.
func (s *scene) wanted(i int) bool { return s.selected == nil || s.selected[i] }

// remember opens what the run remembers of others, and leaves to others. Without
// a folder that is nothing.
func (s *scene) remember() error {
	v := &history.View{
		Root: s.services.Root, Redactor: s.bind.Redactor, File: s.p.File, Name: s.p.Name, Dir: s.dir, Readers: s.p.ReadSteps(), Force: s.Force,
	}
	switch o := s.outer; {
	case o != nil && o.view == nil:
		return nil
	case o != nil:
		v.Memory, v.Prefix, v.Declared = o.view.Memory, o.view.Prefix+o.label+"/", o.declared
	case s.State == "" && s.in.Resume != nil:
		return errors.New("a run that is to be resumed needs the folder of its state")
	case s.State == "":
		return nil
	default:
		m, err := history.Open(s.State, s.bind.Public, s.in.Resume)
		if err != nil {
			return err
		}
		v.Memory = m
	}
	s.view = v
	return nil
}

// run runs the pipeline. The error says why nothing was started.
func (s *scene) run(ctx context.Context) (*Result, error) {
	r := newRun(ctx, s)
	if err := s.remember(); err != nil {
		if s.in.Resume != nil {
			return nil, err
		}
		r.warn(-1, fmt.Sprintf("nothing of this run is kept: %v", err))
	}
	if l := s.p.Lock; l != nil {
		vars := s.bind.Vars(nil)
		unlock, err := s.lock(ctx, l, &vars, func(msg string) { r.warn(-1, "waiting: "+msg) })
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	records := s.view != nil && s.outer == nil
	if records {
		h := history.Header{
			ID: s.bind.RunID(), File: s.p.File, Name: s.p.Name, Dir: s.dir, Root: s.Root, Params: s.in.Params, Args: s.in.Args, Steps: s.in.Steps,
		}
		if err := s.view.Begin(h, s.bind.Redactor); err != nil {
			records = false
			r.warn(-1, fmt.Sprintf("this run is not recorded: %v", err))
		}
	}
	res := r.loop(ctx)
	if records {
		cause, interrupt := "", ""
		if res.Cause != nil {
			cause = res.Cause.Label
		}
		if res.Interrupted != nil {
			interrupt = s.masked(res.Interrupted).Error()
		}
		if err := s.view.End(res.ExitCode, cause, interrupt); err != nil {
			r.warn(-1, fmt.Sprintf("the journal of the run is incomplete: %v", osfile.Cause(err)))
		}
	}
	r.emit(Event{Type: EventRunEnd, Step: -1})
	return res, nil
}

// lock takes a lock of the pipeline or of one of its steps.
func (s *scene) lock(ctx context.Context, l *pipeline.Lock, vars *pipeline.Vars, waits func(string)) (func(), error) {
	name, err := l.Name.Eval(vars)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return history.Lock(ctx, s.environ, name, l.Wait, s.p.File, waits)
}
