package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// Jobs starts jobs: steps with detached. Package runner/job has those of this
// machine.
type Jobs interface {
	// Start starts a job, or returns an error (see [StartError]) and has started
	// nothing. A job that has a method Kept() bool says by it that it was there
	// before, and was left as it is.
	Start(ctx context.Context, spec *JobSpec) (Job, error)
}

// JobSpec is a step with all its values: plain data, from which a keeper runs it.
// It may hold secrets: it is handed over, and not stored. Its fields, whose types
// cannot be named outside of this module:
//
//	Label                string
//	Stages               []Stage // one for each process, or a tee
//	Timeout, IdleTimeout time.Duration // 0: none
//	Held                 bool // output is delivered whole, at the end
//	Service              *Service // nil
//	Nested               *Nested  // nil, or another pipeline that is run
//	Job                  *Job     // Unref, File, Dir, Params, Args, Hidden, and the restart policy
//	Sources, Generates   []Glob
//
// and its methods:
//
//	Command() string          // what the step runs, for people
//	Processes() int           // how many it has
//	Grace() time.Duration     // from the signal to SIGKILL; 0: never
//	Each(func(*Stage))        // calls it for each stage that is no tee
//	Files(func(path string, reads bool)) // and for each file of a descriptor or tee
type JobSpec = step.Spec

// Job is a job that was started.
type Job interface {
	// ID returns how it is found from any process.
	ID() string
	// Wait returns when the job has ended, or ctx is done. output, if not nil,
	// is given what it writes to its log meanwhile.
	Wait(ctx context.Context, output func(Stream, []byte)) (JobEnd, error)
}

// JobEnd is how a job ended.
type JobEnd struct {
	Exit   Status
	Reason Reason // "" where it ended well
	Err    error  // why it could not be started, or is lost
}

// detach hands the step over, as a job, until ctx is done. Without unref it waits
// for the job's end until whole is done; that is none of the job's concern.
func (t *task) detach(ctx, whole context.Context, spec *step.Spec) *outcome {
	command := spec.Command()
	if t.Jobs == nil {
		return unstarted(ctx, &engine.StartError{Msg: "a detached step needs a store of jobs; set Runner.Jobs to &job.Store{Dir: …}, or Runner.Foreground"}, command)
	}
	if t.services.Root != nil {
		if err := confined(t.services.Root, spec); err != nil {
			return unstarted(ctx, err, command)
		}
	}
	job, err := t.Jobs.Start(ctx, spec)
	if err != nil {
		return unstarted(ctx, err, command)
	}
	out := &outcome{Result: step.Ended(step.Facts{Command: command}), job: job.ID()}
	if k, ok := job.(interface{ Kept() bool }); ok {
		out.kept = k.Kept()
	}
	t.tell(Event{Type: EventJob, Message: out.job})
	if !spec.Job.Unref {
		out.Result = step.Ended(t.follow(whole, job, command))
	}
	return out
}

// follow waits for a job, which nothing of the runner ends.
func (t *task) follow(ctx context.Context, job Job, command string) step.Facts {
	end, err := job.Wait(ctx, func(s Stream, b []byte) {
		if t.Sink != nil {
			t.tell(Event{Type: EventData, Stream: s, Data: b})
			return
		}
		w := t.services.Stdout
		if s == StreamStderr {
			w = t.services.Stderr
		}
		_, _ = w.Write(b) // as with a child's own write, its concern
	})
	switch {
	case ctx.Err() != nil:
		t.warn(fmt.Sprintf("the job %s goes on; pipe logs -f %s follows it, pipe stop %s ends it", job.ID(), job.ID(), job.ID()))
		return step.Facts{Stop: step.StopOf(ctx), Command: command}
	case err != nil:
		return step.Facts{Err: err, Command: command}
	}
	f := step.Facts{Inner: &step.End{
		Status: StatusSuccess, Reason: end.Reason, ExitCode: end.Exit.Code, Signal: signame.Name(end.Exit.Signal), Err: end.Err, Command: command,
	}}
	if end.Reason != "" {
		f.Inner.Status = StatusFailure
	}
	return f
}

// confined refuses a job whose folder or files are outside of the root. The
// keeper of a job is not confined: it is checked once, here.
func confined(root *safety.Dir, spec *step.Spec) (err error) {
	spec.Each(func(st *step.Stage) {
		if _, serr := root.Stat(st.Dir); serr != nil && err == nil {
			err = &engine.StartError{Path: st.Dir, Msg: fmt.Sprintf("cwd %s: %v", st.Dir, osfile.Cause(serr)), Err: serr}
		}
	})
	spec.Files(func(path string, reads bool) {
		if err != nil {
			return
		}
		flag := os.O_WRONLY | os.O_CREATE
		if reads {
			flag = os.O_RDONLY
		}
		f, oerr := root.OpenFile(path, flag|syscall.O_NONBLOCK, 0o666)
		if oerr != nil {
			err = &engine.StartError{Path: path, Msg: fmt.Sprintf("cannot open %s: %v", path, osfile.Cause(oerr)), Err: oerr}
			return
		}
		_ = f.Close()
	})
	return err
}

// BindJob returns the job that a detached step is now, of a pipeline whose
// steps have not run. What the step takes from others is not known then, which
// is an error. label is the name of the step, or of one of its instances.
func (r *Runner) BindJob(p *pipeline.Pipeline, label string, in ...Input) (*JobSpec, error) {
	s, err := r.scene(p, in, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	for i, st := range p.Steps {
		name := p.Label(i)
		if !st.Detached || name != label && !strings.HasPrefix(label, name+"[") {
			continue
		}
		if len(st.Reads()) > 0 {
			return nil, fmt.Errorf("%s takes values from steps that have to run before it; run the pipeline again, with --if-running=restart", label)
		}
		list, err := s.instances(i)
		if err != nil {
			return nil, err
		}
		for _, in := range list {
			if in.label == label {
				spec, err := s.bind.Spec(st, label, in.vars, bind.Look{})
				return spec, s.masked(err)
			}
		}
	}
	return nil, fmt.Errorf("%s has no detached step %s any more", p.File, label)
}

// errKnownLater tells that what a step runs for is known during a run only.
var errKnownLater = errors.New("known during a run only")

// instance is a step, or one thing that a step expands to, before the run.
type instance struct {
	name  string // in brackets behind the step's; "": the step does not expand
	label string
	vars  pipeline.Vars
}

// instances returns what a step runs for, as far as that is known before the run;
// the error may be errKnownLater.
func (s *scene) instances(i int) ([]instance, error) {
	st, label := s.p.Steps[i], s.p.Label(i)
	vars := s.bind.Vars(bind.Unknown)
	if !st.Expands() {
		return []instance{{label: label, vars: vars}}, nil
	}
	if st.ForEach != nil && len(st.Reads()) > 0 {
		return nil, errKnownLater
	}
	list, err := st.Instances(&vars)
	if err != nil {
		return nil, s.masked(err)
	}
	out := make([]instance, len(list))
	for k, in := range list {
		v := vars
		v.Matrix, v.Item = in.Matrix, in.Item
		name := s.bind.Redactor.String(in.Label)
		out[k] = instance{name, fmt.Sprintf("%s[%s]", label, name), v}
	}
	return out, nil
}
