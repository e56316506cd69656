package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/guard"
	"github.com/pipe-runner/pipe/runner/job"
	"github.com/pipe-runner/pipe/runner/report"
)

type runFlags struct {
	params     []string
	dir        string
	root       string
	parallel   int
	keepGoing  bool
	dryRun     bool
	resumed    string
	watch      bool
	foreground bool
	ifRunning  string
	force      bool
	output     string
}

func runCommand() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "run [FILE] [STEP]… [-- ARG…]",
		Short: "Run a pipeline",
		Long: `Run a pipeline, or only the named steps and the steps they depend on. Without
FILE, pipe.yaml is run; - is stdin. The arguments after -- become the list args
of the pipeline.

The exit status is 0 if every step succeeded. Otherwise it is the status of the
step that failed first: its exit code, 128+N for signal N, 124 for a timeout, 127
for a program that was not found, 126 for one that could not be started. 130 means
that pipe was interrupted, 143 that it was terminated, and 2 that the file, a
parameter or the command line is wrong and nothing was started.`,
		Example: `  pipe run                           every step of pipe.yaml
  pipe run build.yaml -p target=arm64
  pipe run test lint                 two steps of pipe.yaml and the steps they need
  pipe run build.yaml --help         the parameters of a file`,
		RunE: func(c *cobra.Command, args []string) error {
			named, rest := args, []string(nil)
			if at := c.ArgsLenAtDash(); at >= 0 {
				named, rest = args[:at], args[at:]
			}
			return f.run(c, named, rest)
		},
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.params, "param", "p", nil, "give a parameter, as NAME=VALUE; repeat it for a list")
	fl.StringVarP(&f.dir, "directory", "C", "", "change to this folder first")
	fl.StringVar(&f.root, "root", "", "a folder that must contain every cwd and every file that pipe opens for a step; it does not confine programs")
	fl.IntVarP(&f.parallel, "jobs", "j", 0, "how many processes may run at once in async mode; 0 is no limit (default: the file's maxParallel, or the number of CPUs)")
	fl.BoolVarP(&f.keepGoing, "keep-going", "k", false, "after a failure, go on with the steps that do not need the failed one")
	fl.StringVar(&f.resumed, "resume", "", "go on with an earlier run, given by its id or as last (the last run of this folder): steps that succeeded in it, and whose command, variables and sources are unchanged, are not run again")
	fl.StringVar(&f.ifRunning, "if-running", "fail", "what to do if a job is already running: fail, keep (leave it running) or restart")
	fl.BoolVar(&f.force, "force", false, "run steps even if they are up to date")
	fl.BoolVar(&f.foreground, "foreground", false, "run detached steps like other steps: wait for them, and end them with the run")
	fl.BoolVar(&f.watch, "watch", false, "run again whenever the file or the content of a step's source changes; a run that is going on is ended first")
	fl.BoolP("help", "h", false, "explain the command or, after a FILE, the file's parameters")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print what would run, and run nothing")
	fl.StringVar(&f.output, "output", "auto", "how to print lines of output: prefix (after the step's name), plain (as they are), or auto (prefix in async mode)")
	help := c.HelpFunc()
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		named := c.Flags().Args()
		if err := f.changeDir(); err != nil || len(named) == 0 {
			help(c, args)
			return
		}
		file, steps := splitFile(named)
		if err := defaultMissing(c, file, steps); err != nil {
			os.Exit(int(refused(err)))
		}
		p, err := load(file)
		if err != nil {
			os.Exit(2) // a cobra help function cannot return an error
		}
		paramHelp(c, p)
	})
	return c
}

// paramHelp prints the name, description, parameters and steps of a pipeline.
func paramHelp(c *cobra.Command, p *pipeline.Pipeline) {
	out := c.OutOrStdout()
	name := p.Name
	if name == "" {
		name = p.File
	}
	fmt.Fprintln(out, name)
	if p.Description != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimSpace(p.Description))
	}
	fmt.Fprintf(out, "\nUsage:\n  pipe run %s [-p NAME=VALUE]… [STEP]… [-- ARG…]\n", p.File)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(p.Params) > 0 {
		fmt.Fprintf(w, "\nParameters:\n")
	}
	for _, prm := range p.Params {
		note := "must be given"
		if prm.Default != nil {
			text, _ := pipeline.Text(prm.Default)
			if list, ok := prm.Default.([]string); ok {
				text = strings.Join(list, " ")
			}
			note = "default " + text
		}
		if len(prm.Enum) > 0 {
			note += "; one of " + strings.Join(prm.Enum, ", ")
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t(%s)\n", prm.Name, prm.Type, prm.Help, note)
	}
	fmt.Fprintf(w, "\nSteps:\n")
	for i, s := range p.Steps {
		fmt.Fprintf(w, "  %s\t%s\n", p.Label(i), s.Help)
	}
	_ = w.Flush()
}

// parseParams parses NAME=VALUE words. It returns the values by name, in order.
func parseParams(words []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("-p %s: expected NAME=VALUE", w)
		}
		out[name] = append(out[name], value)
	}
	return out, nil
}

func (f *runFlags) changeDir() error {
	if f.dir == "" {
		return nil
	}
	if err := os.Chdir(f.dir); err != nil {
		return fmt.Errorf("-C %s: %w", f.dir, errors.Unwrap(err))
	}
	return nil
}

func (f *runFlags) run(c *cobra.Command, named, args []string) error {
	if f.output != "auto" && f.output != "prefix" && f.output != "plain" {
		return fmt.Errorf("--output %s: expected auto, prefix or plain", f.output)
	}
	if f.ifRunning != "fail" && f.ifRunning != "keep" && f.ifRunning != "restart" {
		return fmt.Errorf("--if-running %s: expected fail, keep or restart", f.ifRunning)
	}
	if f.parallel < 0 {
		return fmt.Errorf("-j %d: expected 0 (no limit) or more", f.parallel)
	}
	params, err := parseParams(f.params)
	if err != nil {
		return err
	}
	var g *guard.Guard
	if !f.dryRun {
		// Enter executes the program again, so nothing may have side effects
		// before it.
		if g, err = guard.Enter(); err != nil {
			fmt.Fprintf(os.Stderr, "pipe: warning: %v\n", err)
		}
	}
	if err := f.changeDir(); err != nil {
		return err
	}
	file, steps := splitFile(named)
	var past *runner.PastRun
	if f.resumed != "" {
		if file, steps, args, past, err = f.resume(named, args, params); err != nil {
			return err
		}
	} else if err := defaultMissing(c, file, steps); err != nil {
		return err
	}
	if f.dryRun {
		return f.printPlan(c, file, runner.Input{Params: params, Args: args, Steps: steps})
	}
	if f.watch && (file == "-" || past != nil) {
		return errors.New("--watch reads the file again before each run: it cannot be used with stdin or with --resume")
	}
	p, err := load(file)
	if err != nil {
		return err
	}
	r := &runner.Runner{KeepGoing: f.keepGoing, Root: f.root, Foreground: f.foreground, Force: f.force}
	in := runner.Input{Params: params, Args: args, Steps: steps, Resume: past}
	if past != nil && f.root == "" {
		r.Root = past.Root
	}
	if r.State, err = runner.StateDir(os.Environ()); err != nil && !errors.Is(err, runner.ErrNoState) {
		return err
	}
	if g != nil {
		r.Engine, r.Inherited = runner.Local{Tree: g}, g.Inherited()
	}
	store := &job.Store{Dir: r.State, IfRunning: f.ifRunning}
	if past != nil && !c.Flags().Changed("if-running") {
		store.IfRunning = "keep" // the jobs of the resumed run are to go on
	}
	if g != nil {
		store.Keep = g.Keep
	}
	r.Jobs = store
	if c.Flags().Changed("jobs") {
		r.MaxParallel = &f.parallel
	}
	return f.execute(r, in, file, p, g)
}

// execute runs the pipeline, once or again and again with --watch, and prints
// output and messages.
func (f *runFlags) execute(r *runner.Runner, in runner.Input, file string, p *pipeline.Pipeline, g *guard.Guard) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	s := &session{f: f, in: in, g: g, cancel: cancel, out: newOutput(os.Stdout, "/dev/stdout"), errs: newOutput(os.Stderr, "/dev/stderr")}
	defer forwardSignals(cancel, func() { s.out.limit(); s.errs.limit() })()
	if g != nil {
		defer g.HandOnStops()()
	}
	if f.watch {
		return s.watch(ctx, r, file, p)
	}
	return s.run(ctx, r, p)
}

// session holds what the runs of one call of the program share.
type session struct {
	f         *runFlags
	in        runner.Input
	g         *guard.Guard
	cancel    context.CancelCauseFunc
	out, errs *output
}

// run runs the pipeline once. When it returns, all processes of the run have ended.
func (s *session) run(ctx context.Context, r *runner.Runner, p *pipeline.Pipeline) error {
	console := &report.Console{
		Out: s.out, Err: s.errs,
		Prefix: s.f.output == "prefix" || s.f.output == "auto" && p.Mode == pipeline.ModeAsync,
		Color:  colors(os.Stderr),
	}
	console.Fail = func(err error) {
		if errors.Is(err, syscall.EPIPE) { // the reader closed stdout: end as SIGPIPE would
			err = &runner.Interrupt{Signal: syscall.SIGPIPE}
		} else {
			err = fmt.Errorf("cannot write to stdout: %w", errors.Unwrap(err))
		}
		s.cancel(err)
	}
	r.Sink = console.Event
	res, err := r.Run(ctx, p, s.in)
	if res == nil {
		return notStarted(err)
	}
	defer res.Close()
	if s.g != nil {
		if left := s.g.EndOrphans(longestGrace(p)); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "pipe: warning: processes that left their step were ended with the run: %s\n", strings.Join(left, ", "))
		}
	}
	if errors.Is(res.Interrupted, errChanged) { // the next run follows at once
		return nil
	}
	console.Summary(p, res)
	if res.ExitCode != 0 {
		return exitError(res.ExitCode)
	}
	return nil
}

// notStarted writes to stderr why the run did not start, and returns the exit
// status.
func notStarted(err error) error {
	var held *runner.LockError
	var by *runner.Interrupt
	switch {
	case errors.As(err, &held): // the file is not at fault
		fmt.Fprintf(os.Stderr, "pipe: %v\n", err)
		return exitError(1)
	case errors.As(err, &by):
		fmt.Fprintf(os.Stderr, "pipe: %v\n", err)
		return exitError(by.ExitCode())
	case errors.Is(err, errChanged):
		return nil
	}
	return refused(err)
}

// longestGrace returns the longest killAfter of all steps. It is the grace for
// orphans, because pipe does not know which step an orphan belongs to.
func longestGrace(p *pipeline.Pipeline) time.Duration {
	var d time.Duration
	for _, s := range p.Steps {
		for _, st := range s.Stages {
			d = max(d, p.Options(s, st).KillAfter)
		}
	}
	if d == 0 { // the file says never, but the run must end
		d = 5 * time.Second
	}
	return d
}

// refused writes err to stderr, line by line, and returns exit status 2.
func refused(err error) exitError {
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintf(os.Stderr, "pipe: %s\n", line)
	}
	return exitError(2)
}

// forwardSignals makes SIGINT, SIGTERM, SIGHUP and SIGQUIT end the run. The first
// signal calls begun and is passed to the steps; the second one kills the steps at
// once. The returned function stops the forwarding.
//
// A signal that was ignored when the program started (nohup) is caught and dropped
// rather than left ignored: the steps would inherit the ignored signal.
func forwardSignals(cancel context.CancelCauseFunc, begun func()) func() {
	signals := make(chan os.Signal, 8)
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, syscall.SIGPIPE) // so that writes return EPIPE instead
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(deaf, s)
		} else {
			signal.Notify(signals, s)
		}
	}
	again := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		count := 0
		var long *time.Timer
		defer func() {
			if long != nil {
				long.Stop()
			}
		}()
		for {
			select {
			case s := <-signals:
				count++
				sig, _ := s.(syscall.Signal)
				switch count {
				case 1:
					begun()
					long = time.AfterFunc(time.Second, func() {
						fmt.Fprintln(os.Stderr, "pipe: waiting for the steps to end; a second signal kills them")
					})
					cancel(&runner.Interrupt{Signal: sig, Again: again})
				case 2:
					close(again)
				}
			case <-stop:
				return
			}
		}
	}()
	return func() { signal.Stop(signals); close(stop) }
}

// colors reports whether escape sequences may be written to f.
func colors(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || os.Getenv("TERM") == "" {
		return false
	}
	return term.IsTerminal(int(f.Fd()))
}

// printPlan prints the steps in the order in which a run would consider them.
func (f *runFlags) printPlan(c *cobra.Command, file string, in runner.Input) error {
	p, err := load(file)
	if err != nil {
		return err
	}
	r := &runner.Runner{Root: f.root, Force: f.force}
	if r.State, err = runner.StateDir(os.Environ()); err != nil && !errors.Is(err, runner.ErrNoState) {
		return err
	}
	plan, err := r.Plan(p, in)
	if err != nil {
		return refused(err)
	}
	for _, line := range plan {
		if _, err := fmt.Fprintln(c.OutOrStdout(), line); err != nil {
			return err
		}
	}
	return nil
}
