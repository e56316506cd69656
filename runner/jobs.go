package runner

// This file holds steps that outlive the runner: what a step comes to as plain
// data, how it is handed over, and how it is run from that by somebody else.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
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

// JobSpec is a step that is bound: plain data, from which [RunJob] runs it. It
// may hold secrets: it is handed over, and not stored.
type JobSpec struct {
	Name   string // of the step, or how it is shown
	File   string // of the pipeline, absolute; "" if it has none
	Dir    string // the caller's
	Params map[string][]string
	Args   []string

	Stages      []JobStage
	Timeout     time.Duration // 0: none
	IdleTimeout time.Duration // 0: none
	Restart     pipeline.Restart
	KillSignal  syscall.Signal
	KillAfter   time.Duration
	Hidden      []string // secrets, which become *** in the log
	Command     string   // for people, secrets masked
	Nested      bool     // a pipeline that another one runs has the step
}

// JobStage is a stage of a [JobSpec]: a process, or a tee.
type JobStage struct {
	Tee []JobBranch `json:",omitempty"`

	Shell   bool // Text is run, by a shell
	Program string
	Args    []string
	Text    string
	Vars    []safety.Var // that Text reads
	Script  bool         // Text is handed to the shell as a file
	Env     []string
	Dir     string
	Path    string // where programs are looked up
	Input   string
	Stdio   []pipeline.StdioKind // by descriptor
	Files   []string             // by descriptor; "": none
	Append  []bool
	Options pipeline.Options
	Codes   []int // that count as success; nil: 0
	Command string
}

// JobBranch is a branch of a tee.
type JobBranch struct {
	File   string
	Append bool
	Chain  []JobStage
}

// jobSpec returns the step as plain data. Its stages are bound.
func (ex *execution) jobSpec() *JobSpec {
	r := ex.r
	spec := &JobSpec{
		Name: ex.u.label, File: r.p.File, Dir: r.dir, Params: r.given.params, Args: r.given.args,
		Nested: r.parent != nil, Timeout: ex.step.Timeout, IdleTimeout: ex.step.IdleTimeout, Hidden: r.hidden,
		KillSignal: ex.bounds[0].opts.KillSignal, KillAfter: killAfter(ex.bounds),
	}
	if abs, err := filepath.Abs(r.p.File); err == nil && r.p.File != "" {
		spec.File = abs
	}
	if ex.step.Restart != nil {
		spec.Restart = *ex.step.Restart
	}
	bounds, files := ex.bounds, ex.teeFiles
	spec.Stages = jobStages(ex.step.Stages, &bounds, &files)
	for i, b := range ex.bounds {
		if i > 0 {
			spec.Command += " | "
		}
		spec.Command += r.redactor.String(b.command)
	}
	return spec
}

func jobStages(stages []*pipeline.Stage, bounds *[]*bound, files *[]string) []JobStage {
	out := make([]JobStage, 0, len(stages))
	for _, st := range stages {
		if st.Action == pipeline.ActionTee {
			branches := make([]JobBranch, 0, len(st.Tee))
			for _, b := range st.Tee {
				if b.File != nil {
					branches = append(branches, JobBranch{File: (*files)[0], Append: b.File.Append})
					*files = (*files)[1:]
					continue
				}
				branches = append(branches, JobBranch{Chain: jobStages(b.Chain, bounds, files)})
			}
			out = append(out, JobStage{Tee: branches})
			continue
		}
		b := (*bounds)[0]
		*bounds = (*bounds)[1:]
		j := JobStage{
			Shell: st.UsesShell(), Program: b.program, Args: b.args, Text: b.text, Vars: b.vars, Script: b.script,
			Env: b.env, Dir: b.dir, Path: b.path, Input: b.input, Options: b.opts, Codes: st.SuccessCodes, Command: b.redactor.String(b.command),
		}
		for i, io := range append([]pipeline.Stdio{st.Stdin, st.Stdout, st.Stderr}, st.Extra...) {
			j.Stdio, j.Files, j.Append = append(j.Stdio, io.Kind), append(j.Files, b.file(i)), append(j.Append, io.Append)
		}
		out = append(out, j)
	}
	return out
}

// unpack turns plain data back into stages and what they are bound to.
func (ex *execution) unpack(stages []JobStage, redactor *safety.Redactor) []*pipeline.Stage {
	out := make([]*pipeline.Stage, 0, len(stages))
	for i := range stages {
		j := &stages[i]
		if j.Tee != nil {
			st := &pipeline.Stage{Action: pipeline.ActionTee}
			for _, b := range j.Tee {
				if b.Chain != nil {
					st.Tee = append(st.Tee, pipeline.Branch{Chain: ex.unpack(b.Chain, redactor)})
					continue
				}
				ex.teeFiles = append(ex.teeFiles, b.File)
				st.Tee = append(st.Tee, pipeline.Branch{File: &pipeline.Stdio{Kind: pipeline.StdioFile, Append: b.Append}})
			}
			out = append(out, st)
			continue
		}
		st := &pipeline.Stage{Action: pipeline.ActionSpawn, Text: j.Text, SuccessCodes: j.Codes, Input: pipeline.Literal(j.Input)}
		if !j.Shell {
			st.Args = []pipeline.Template{pipeline.Literal(j.Program)}
		}
		b := &bound{
			stage: st, opts: j.Options, args: j.Args, program: j.Program, env: j.Env, dir: j.Dir, path: j.Path,
			text: j.Text, vars: j.Vars, script: j.Script, input: j.Input, command: j.Command, redactor: redactor,
		}
		for k, kind := range j.Stdio {
			io := pipeline.Stdio{Kind: kind, Append: j.Append[k]}
			if k < 3 {
				*[]*pipeline.Stdio{&st.Stdin, &st.Stdout, &st.Stderr}[k] = io
				b.files[k] = j.Files[k]
				continue
			}
			st.Extra, b.extra = append(st.Extra, io), append(b.extra, j.Files[k])
		}
		ex.bounds = append(ex.bounds, b)
		out = append(out, st)
	}
	return out
}

// JobStop asks a job that runs to end.
type JobStop struct {
	Signal syscall.Signal // 0: that of the spec
	Grace  *time.Duration // until SIGKILL; nil: that of the spec; 0: at once
}

// RunJob runs a job from plain data, once, and returns when the last of its
// processes has ended. Its output, of what is not sent elsewhere, and what
// happens go to sink. It ends the job for each value that it receives from stop.
func RunJob(engine Engine, spec *JobSpec, sink func(Event), stop <-chan JobStop) *StepResult {
	res := &StepResult{Label: spec.Name, Start: time.Now()}
	r := &run{
		p: &pipeline.Pipeline{Name: spec.Name, File: spec.File}, engine: engine, dir: spec.Dir, sink: sink, hidden: spec.Hidden,
		pipes: make(chan struct{}, maxBigPipes), results: []StepResult{*res},
	}
	var err error
	if r.redactor, err = safety.NewRedactor(spec.Hidden); err != nil {
		res.Status, res.Reason, res.ExitCode, res.Err = StatusFailure, ReasonExpression, 1, err
		return res
	}
	step := &pipeline.Step{Name: spec.Name, Timeout: spec.Timeout, IdleTimeout: spec.IdleTimeout, Detached: true}
	ex := &execution{r: r, u: &unit{label: spec.Name, res: res}, step: step, stopReq: make(chan stopRequest, 4)}
	step.Stages = ex.unpack(spec.Stages, r.redactor)
	over := make(chan struct{})
	go func() {
		ex.execute()
		close(over)
	}()
	for {
		select {
		case s := <-stop:
			req := stopRequest{sig: s.Signal, grace: s.Grace, force: s.Grace != nil && *s.Grace == 0}
			ex.requestStop(req)
		case <-over:
			start := res.Start
			*res = ex.result
			res.Label, res.Start, res.End = spec.Name, start, time.Now()
			if ex.stopped && res.Err == nil || errors.Is(res.Err, errNotStarted) {
				res.Status = StatusCancelled
			}
			r.mask(res)
			return res
		}
	}
}

// detach hands the step over, as a job. Without unref it waits for its end; the
// end of the runner is none of the job's concern.
func (ex *execution) detach() {
	if ex.r.jobs == nil {
		ex.fail(&StartError{Code: 126, Msg: "a detached step needs what keeps jobs; see Runner.Jobs"})
		return
	}
	if ex.r.root != nil {
		if err := ex.confined(); err != nil {
			ex.fail(err)
			return
		}
	}
	spec := ex.jobSpec()
	var job Job
	err := ex.interruptible(func(ctx context.Context) (err error) {
		job, err = ex.r.jobs.Start(ctx, spec)
		return err
	})
	ex.result.Command = spec.Command
	if err != nil {
		ex.fail(err)
		return
	}
	if k, ok := job.(interface{ Kept() bool }); ok {
		ex.kept = k.Kept()
	}
	ex.result.Job = job.ID()
	ex.emit(Event{Type: EventJob, Message: job.ID()})
	if !ex.step.Unref {
		ex.follow(job)
	}
}

// follow waits for a job, which nothing of the runner ends.
func (ex *execution) follow(job Job) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type outcome struct {
		end JobEnd
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		end, err := job.Wait(ctx, func(s Stream, b []byte) {
			if ex.r.sink == nil {
				_, _ = ex.r.stdio[s].Write(b) // as with a child's own write, its concern
				return
			}
			ex.emit(Event{Type: EventData, Stream: s, Data: b})
		})
		done <- outcome{end, err}
	}()
	select {
	case <-ex.stopReq:
		cancel()
		<-done
		ex.stopped = true
		ex.warn(fmt.Sprintf("the job %s goes on; pipe logs -f %s follows it, pipe stop %s ends it", job.ID(), job.ID(), job.ID()))
		ex.result.Status = StatusFailure
	case o := <-done:
		if o.err != nil {
			ex.fail(o.err)
			return
		}
		res := &ex.result
		res.ExitCode, res.Signal, res.Reason, res.Err = o.end.Exit.Code, pipeline.SignalName(o.end.Exit.Signal), o.end.Reason, o.end.Err
		if res.Reason != "" {
			res.Status = StatusFailure
		}
	}
}

// confined refuses a job whose folder or files are outside of the root. The
// keeper of a job is not confined: it is checked once, here.
func (ex *execution) confined() error {
	for _, b := range ex.bounds {
		if _, err := ex.r.root.Stat(b.dir); err != nil {
			return &StartError{Path: b.dir, Code: 126, Msg: fmt.Sprintf("cwd %s: %v", b.dir, cause(err)), Err: err}
		}
		for i, f := range slices.Concat(b.files[:], b.extra, ex.teeFiles) {
			if f == "" {
				continue
			}
			flag := os.O_WRONLY | os.O_CREATE
			if i == 0 {
				flag = os.O_RDONLY
			}
			file, err := ex.r.root.OpenFile(f, flag|syscall.O_NONBLOCK, 0o666)
			if err != nil {
				return &StartError{Path: f, Code: 126, Msg: fmt.Sprintf("cannot open %s: %v", f, cause(err)), Err: err}
			}
			_ = file.Close()
		}
	}
	return nil
}

// BindJob returns the job that a detached step is now, of a pipeline whose
// steps have not run. What the step takes from others is not known then, which
// is an error. label is the name of the step, or of one of its instances.
func (r *Runner) BindJob(p *pipeline.Pipeline, label string) (*JobSpec, error) {
	run, err := r.lookInto(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = run.root.Close() }()
	for i, s := range p.Steps {
		if !s.Detached {
			continue
		}
		vars := run.base
		vars.Steps = unknownStep
		instances := []pipeline.Instance{{}}
		if s.Expands() && len(s.Reads()) == 0 {
			if instances, err = s.Instances(&vars); err != nil {
				return nil, run.masked(err)
			}
		}
		for _, in := range instances {
			name := p.Label(i)
			if in.Label != "" {
				name = run.redactor.String(fmt.Sprintf("%s[%s]", name, in.Label))
			}
			if name != label {
				continue
			}
			if len(s.Reads()) > 0 {
				return nil, fmt.Errorf("%s takes values from steps that have to run before it; run the pipeline again, with --if-running=restart", label)
			}
			vars.Matrix, vars.Item = in.Matrix, in.Item
			ex := &execution{r: run, u: &unit{step: i, label: name}, step: s, vars: vars}
			if err := ex.bindAll(); err != nil {
				return nil, run.masked(err)
			}
			return ex.jobSpec(), nil
		}
	}
	return nil, fmt.Errorf("%s has no detached step %s any more", p.File, label)
}
