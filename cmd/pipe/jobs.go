package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/job"
)

// openStore returns the store with the user's jobs.
func openStore() (*job.Store, error) {
	dir, err := runner.StateDir(os.Environ())
	if err != nil {
		return nil, err
	}
	return &job.Store{Dir: dir}, nil
}

// findJob returns the job that a command-line argument names, and its store.
func findJob(name string) (*job.Store, *job.Info, error) {
	s, err := openStore()
	if err != nil {
		return nil, nil, err
	}
	info, err := s.Find(name)
	return s, info, err
}

// oneJob makes c a command that takes one job. SIGINT and SIGTERM cancel the
// context that run is given.
func oneJob(c *cobra.Command, run func(ctx context.Context, c *cobra.Command, s *job.Store, info *job.Info) error) *cobra.Command {
	c.ValidArgsFunction = completeJobs
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one job, by its name or id; pipe jobs lists them", c.Name())
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		s, info, err := findJob(args[0])
		if err != nil {
			return err
		}
		ctx, stop := untilSignal()
		defer stop()
		return run(ctx, c, s, info)
	}
	return c
}

// completeJobs completes the names and ids of jobs in a shell.
func completeJobs(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := openStore()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := s.List()
	var out []string
	for _, i := range list {
		note := fmt.Sprintf("%s, %s", i.State, i.Command)
		out = append(out, i.Name+"\t"+note, i.ID+"\t"+note)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// untilSignal returns a context that SIGINT and SIGTERM cancel. The caller must
// call the function to stop catching the signals.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

type jobJSON struct {
	*job.Info
	Processes int     `json:"processCount"`
	CPU       float64 `json:"cpuSeconds"`
	RSS       int64   `json:"rss"` // bytes
	LastLine  string  `json:"lastLine"`
}

func jobsCommand() *cobra.Command {
	var asJSON, all, watch bool
	c := &cobra.Command{
		Use:   "jobs",
		Short: "List the jobs that steps with detached have left",
		Long: `List the jobs of all pipelines that are running, have failed or are lost: their
state and age, the CPU and memory they use, and their last line of output. --all
lists the other jobs too.

Other commands take a job by its id, by the name of its step, or by an
unambiguous prefix of either.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStore()
			if err != nil {
				return err
			}
			if asJSON {
				list, err := s.List()
				if err != nil {
					return err
				}
				out := []jobJSON{}
				for _, i := range list {
					if all || i.State.Live() {
						u := i.Usage()
						i.Environ = nil
						out = append(out, jobJSON{i, u.Processes, u.CPU.Seconds(), u.RSS, lastLine(s, i.ID)})
					}
				}
				return printJSON(c, out)
			}
			if watch {
				return watchJobs(c, s, all)
			}
			return jobTable(c.OutOrStdout(), s, all, nil, 0)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&all, "all", "a", false, "also list jobs that have ended")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "print the table every second, until Ctrl-C")
	c.AddCommand(unitCommand())
	return c
}

// watchJobs prints the table of jobs every second, until a signal arrives.
func watchJobs(c *cobra.Command, s *job.Store, all bool) error {
	ctx, stop := untilSignal()
	defer stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	used := map[string]time.Duration{}
	for before := time.Now(); ; {
		var b bytes.Buffer
		if colors(os.Stdout) {
			b.WriteString("\x1b[H\x1b[2J")
		}
		now := time.Now()
		if err := jobTable(&b, s, all, used, now.Sub(before)); err != nil {
			return err
		}
		before = now
		if _, err := c.OutOrStdout().Write(b.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// jobTable writes the table of jobs. used, if not nil, holds by job id the CPU
// time that each job had used when the table was last written, since ago; jobTable
// updates it. The CPU column is the job's share over that time, or, where used has
// no entry, its share since the job started.
func jobTable(out io.Writer, s *job.Store, all bool, used map[string]time.Duration, since time.Duration) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tAGE\tCPU\tMEMORY\tFILE\tLAST LINE")
	hidden := 0
	for _, i := range list {
		if !all && !i.State.Live() && i.State != job.StateFailed && i.State != job.StateLost {
			hidden++
			continue
		}
		cpu, memory := "-", "-"
		if u := i.Usage(); u.Processes > 0 {
			took, span := u.CPU, time.Since(i.Started)
			if before, ok := used[i.ID]; ok && since > 0 {
				took, span = u.CPU-before, since
			}
			if used != nil {
				used[i.ID] = u.CPU
			}
			cpu = fmt.Sprintf("%.0f%%", 100*max(0, took.Seconds())/max(span.Seconds(), 0.01))
			memory = bytesText(u.RSS)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.ID, oneLine(i.Name), stateText(i), age(i), cpu, memory, shortPath(i.File), oneLine(lastLine(s, i.ID)))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if hidden > 0 && used == nil {
		fmt.Fprintf(os.Stderr, "pipe: jobs that have ended are not shown (%d); --all shows them\n", hidden)
	}
	return nil
}

// shortPath returns path relative to the working directory if that is shorter,
// and "-" if path is empty.
func shortPath(path string) string {
	here, err := os.Getwd()
	if err != nil || path == "" {
		return "-"
	}
	if rel, err := filepath.Rel(here, path); err == nil && len(rel) < len(path) {
		path = rel
	}
	return oneLine(path)
}

// stateText returns the state of a job with what explains it: the problem, the
// exit code or signal, or the number of restarts.
func stateText(i *job.Info) string {
	switch {
	case i.Problem != "":
		return fmt.Sprintf("%s (%s)", i.State, i.Problem)
	case i.State == job.StateExited && i.Signal != "":
		return fmt.Sprintf("exited (%s)", i.Signal)
	case i.State == job.StateExited:
		return fmt.Sprintf("exited (%d)", i.ExitCode)
	case i.State.Live() && i.Restarts > 0:
		return fmt.Sprintf("%s (%d restarts)", i.State, i.Restarts)
	}
	return string(i.State)
}

// age returns how long a job has been running, or how long ago it ended.
func age(i *job.Info) string {
	switch {
	case i.State == job.StateUnreadable:
		return "-"
	case i.State.Live() && !i.Started.IsZero():
		return span(time.Since(i.Started))
	case i.Ended.IsZero():
		return span(time.Since(i.Created))
	}
	return span(time.Since(i.Ended)) + " ago"
}

func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

func bytesText(n int64) string {
	switch {
	case n < 1<<20:
		return fmt.Sprintf("%dKiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return fmt.Sprintf("%dGiB", n>>30)
}

// lastLine returns the last line that a job wrote.
func lastLine(s *job.Store, id string) string {
	l, _ := s.LastLine(id)
	return string(l.Text)
}

func logsCommand() *cobra.Command {
	var follow, onlyErr, stamps bool
	var since string
	tail := -1
	c := oneJob(&cobra.Command{
		Use:   "logs JOB",
		Short: "Print what a job wrote, its stdout on stdout and its stderr on stderr",
		Long: `Print what a job wrote: its stdout on stdout, and its stderr and the messages of
its keeper on stderr. The log holds at most 5 files of 8 MiB; when it is full,
the oldest output is removed.`,
	}, func(ctx context.Context, c *cobra.Command, s *job.Store, info *job.Info) error {
		from, err := sinceTime(since)
		if err != nil {
			return err
		}
		p := &logPrinter{out: c.OutOrStdout(), errs: c.ErrOrStderr(), onlyErr: onlyErr, stamps: stamps, since: from}
		if tail >= 0 {
			if p.skip, err = countLines(ctx, s, info.ID, p, tail); err != nil {
				return err
			}
		}
		if err := s.Logs(ctx, info.ID, follow, p.line); err != nil {
			return err
		}
		if info.LogLost > 0 {
			fmt.Fprintf(os.Stderr, "pipe: %d bytes of output are missing: they could not be written to the log\n", info.LogLost)
		}
		return nil
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new output until the job ends or Ctrl-C")
	c.Flags().StringVar(&since, "since", "", "only print output since then: a duration such as 10m, or a time such as 2026-01-02T15:04:05Z")
	c.Flags().BoolVar(&onlyErr, "stderr", false, "only print the job's stderr")
	c.Flags().BoolVarP(&stamps, "timestamps", "t", false, "begin each line with the time it was written")
	c.Flags().IntVarP(&tail, "tail", "n", -1, "only print the last `N` lines; -1 prints all")
	return c
}

// sinceTime parses the value of --since: a duration before now, or a time.
func sinceTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %s: expected a duration such as 10m, or a time such as 2026-01-02T15:04:05Z", s)
}

// logPrinter writes the lines of a log to stdout and stderr.
type logPrinter struct {
	out, errs       io.Writer
	onlyErr, stamps bool
	since           time.Time       // older lines are not written
	skip            int             // number of lines still to be skipped
	skipping        bool            // the current line is being skipped
	open            map[string]bool // by stream: the last piece read did not end its line
	midway          [2]string       // for out and errs: the stream whose line is not yet ended; "": none
}

func (p *logPrinter) wants(l job.LogLine) bool {
	return (!p.onlyErr || l.Stream == job.LogStderr) && !l.Time.Before(p.since)
}

// begins reports whether a piece is the first of its line. It must be called once
// for each piece, in order.
func (p *logPrinter) begins(l job.LogLine) bool {
	begins := !p.open[l.Stream]
	if p.open == nil {
		p.open = map[string]bool{}
	}
	p.open[l.Stream] = l.Partial
	return begins
}

func (p *logPrinter) line(l job.LogLine) error {
	if !p.wants(l) {
		return nil
	}
	if p.begins(l) {
		if p.skipping = p.skip > 0; p.skipping {
			p.skip--
		}
	}
	if p.skipping {
		return nil
	}
	w, k, end, stamp, prefix := p.out, 0, "", "", ""
	if l.Stream != job.LogStdout {
		w, k = p.errs, 1
	}
	if l.Stream != job.LogStdout && l.Stream != job.LogStderr {
		prefix = "pipe: "
	}
	// End the unfinished line of another stream rather than continue it.
	if before := p.midway[k]; before != "" && before != l.Stream || prefix != "" && p.midway[0] != "" {
		end, p.midway[k] = "\n", ""
	}
	if p.stamps && p.midway[k] == "" {
		stamp = l.Time.Local().Format("2006-01-02T15:04:05.000Z07:00 ")
	}
	if p.midway[k] = l.Stream; !l.Partial {
		p.midway[k] = ""
		l.Text = append(l.Text, '\n')
	}
	_, err := w.Write(append([]byte(end+stamp+prefix), l.Text...))
	return err
}

// countLines reads the log and returns how many lines p must skip to print only
// the last n.
func countLines(ctx context.Context, s *job.Store, id string, p *logPrinter, n int) (int, error) {
	count := 0
	starts := *p
	err := s.Logs(ctx, id, false, func(l job.LogLine) error {
		if p.wants(l) && starts.begins(l) {
			count++
		}
		return nil
	})
	return max(0, count-n), err
}

func waitCommand() *cobra.Command {
	return oneJob(&cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job has ended, and exit with its status",
	}, func(ctx context.Context, _ *cobra.Command, s *job.Store, info *job.Info) error {
		info, err := s.Wait(ctx, info.ID)
		if err != nil {
			if ctx.Err() != nil {
				return exitError(130)
			}
			return err
		}
		return jobStatus(info)
	})
}

// jobStatus returns the exit status for a job that has ended. Where that is not
// the exit code of the job's own process, it says why on stderr.
func jobStatus(i *job.Info) error {
	switch i.State {
	case job.StateLost, job.StateUnreadable:
		fmt.Fprintf(os.Stderr, "pipe: job %s is %s: %s\n", i.ID, i.State, i.Problem)
		return exitError(1)
	case job.StateFailed:
		fmt.Fprintf(os.Stderr, "pipe: job %s failed: %s\n", i.ID, i.Error)
		return exitError(max(1, i.ExitCode))
	}
	if i.ExitCode != 0 {
		return exitError(i.ExitCode)
	}
	return nil
}

func stopCommand() *cobra.Command {
	var sig string
	var grace time.Duration
	var kill, all bool
	c := &cobra.Command{
		Use:   "stop JOB…",
		Short: "End jobs, with all of their processes",
		Long: `End jobs, with all of their processes: each job gets its killSignal and, if it
has not ended after its killAfter, SIGKILL. Stopping a job that has already ended
is not an error.`,
		ValidArgsFunction: completeJobs,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return errors.New("stop takes either jobs, by name or id, or --all")
			}
			var signal syscall.Signal
			var err error
			if sig != "" {
				if signal, err = pipeline.ParseSignal(sig); err != nil {
					return err
				}
			}
			var wait *time.Duration
			if c.Flags().Changed("grace") {
				wait = &grace
			}
			if kill {
				wait = new(time.Duration)
			}
			ctx, stop := untilSignal()
			defer stop()
			if all {
				s, err := openStore()
				if err != nil {
					return err
				}
				list, err := s.List()
				if err != nil {
					return err
				}
				for _, i := range list {
					if i.State.Live() {
						args = append(args, i.ID)
					}
				}
			}
			for _, name := range args {
				s, info, err := findJob(name)
				if err != nil {
					return err
				}
				was := info.Kept() || info.State == job.StateLost
				if info, err = s.Stop(ctx, info.ID, signal, wait); err != nil {
					return err
				}
				if was {
					fmt.Fprintf(c.OutOrStdout(), "%s (%s): %s\n", info.ID, info.Name, stateText(info))
				} else {
					fmt.Fprintf(c.OutOrStdout(), "%s (%s): %s already\n", info.ID, info.Name, stateText(info))
				}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&sig, "signal", "s", "", "the signal to send first (default: the step's killSignal)")
	c.Flags().DurationVar(&grace, "grace", 0, "time until SIGKILL (default: the step's killAfter)")
	c.Flags().BoolVarP(&all, "all", "a", false, "stop all running jobs")
	c.Flags().BoolVarP(&kill, "kill", "k", false, "send SIGKILL at once")
	return c
}

// rebind reads the file of a job again and binds the job's step with the
// parameters and arguments the job was started with.
func rebind(i *job.Info) (*runner.JobSpec, error) {
	switch {
	case i.File == "" || i.Problem != "" && i.State == job.StateUnreadable:
		return nil, fmt.Errorf("job %s does not come from a file", i.ID)
	case i.Secret:
		return nil, fmt.Errorf("a parameter or argument of job %s held a secret or invalid UTF-8, which is not stored; run its pipeline again, with --if-running=restart", i.ID)
	case i.Nested:
		return nil, fmt.Errorf("job %s was started by a pipeline that another one runs, and gets values from it; run the outer pipeline again, with --if-running=restart", i.ID)
	}
	p, err := load(i.File)
	if err != nil {
		return nil, err
	}
	return (&runner.Runner{Dir: i.Dir}).BindJob(p, i.Name, runner.Input{Params: i.Params, Args: i.Args})
}

func restartCommand() *cobra.Command {
	return oneJob(&cobra.Command{
		Use:   "restart JOB",
		Short: "Stop a job if it is running, and start its step anew",
		Long: `Stop a job if it is running, and start its step anew. The file is read again, and
the new job gets the environment of this call. Differences to the environment of
the old job are printed: +NAME is new, -NAME is gone, ~NAME has another value.`,
	}, func(ctx context.Context, c *cobra.Command, s *job.Store, info *job.Info) error {
		spec, err := rebind(info) // first: if the file has errors, the job keeps running
		if err != nil {
			return err
		}
		changes, err := s.EnvironChanges(info, spec)
		if err != nil {
			return err
		}
		if _, err = s.Stop(ctx, info.ID, 0, nil); err != nil {
			return err
		}
		j, err := s.Start(ctx, spec)
		if err != nil {
			fmt.Fprintf(os.Stderr, "pipe: %v\n", err)
			var se *runner.StartError
			if errors.As(err, &se) {
				return exitError(se.ExitCode())
			}
			return exitError(1)
		}
		if len(changes) > 0 {
			fmt.Fprintf(c.OutOrStdout(), "environment: %s\n", strings.Join(changes, " "))
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s (%s): started, after %s\n", j.ID(), spec.Label, info.ID)
		return err
	})
}

func attachCommand() *cobra.Command {
	return oneJob(&cobra.Command{
		Use:   "attach JOB",
		Short: "Show what a job writes from now on, and exit with its status; Ctrl-C detaches",
		Long: `Show what a job writes from now on, until it ends, and exit with its status. The
job does not read what you type: its stdin is not the terminal. Ctrl-C ends the
command and leaves the job running.`,
	}, func(ctx context.Context, c *cobra.Command, s *job.Store, info *job.Info) error {
		p := &logPrinter{out: c.OutOrStdout(), errs: c.ErrOrStderr(), since: time.Now()}
		if err := s.Logs(ctx, info.ID, true, p.line); err != nil {
			return err
		}
		if ctx.Err() != nil {
			if term.IsTerminal(int(os.Stderr.Fd())) {
				fmt.Fprintln(os.Stderr)
			}
			fmt.Fprintf(os.Stderr, "pipe: detached; job %s goes on\n", info.ID)
			return nil
		}
		last, err := s.Get(info.ID)
		if err != nil {
			return err
		}
		return jobStatus(last)
	})
}

func rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm JOB…",
		Short:             "Remove jobs that have ended, with their logs",
		Args:              someJobs,
		ValidArgsFunction: completeJobs,
		RunE: func(_ *cobra.Command, args []string) error {
			for _, name := range args {
				s, info, err := findJob(name)
				if err != nil {
					return err
				}
				if err := s.Remove(info.ID); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func pruneCommand() *cobra.Command {
	var older time.Duration
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove all jobs that have ended, with their logs",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStore()
			if err != nil {
				return err
			}
			ids, err := s.Prune(older)
			fmt.Fprintf(c.OutOrStdout(), "%d removed\n", len(ids))
			return err
		},
	}
	c.Flags().DurationVar(&older, "older", 0, "only remove jobs that ended longer ago than this, such as 24h")
	return c
}

func unitCommand() *cobra.Command {
	return oneJob(&cobra.Command{
		Use:   "unit JOB",
		Short: "Print a systemd unit for a job that must survive a reboot",
		Long: `Print a systemd unit file that does what the job does, with systemd in the place
of the keeper. Save it as ~/.config/systemd/user/NAME.service, and start it with:
systemctl --user enable --now NAME`,
	}, func(_ context.Context, c *cobra.Command, _ *job.Store, info *job.Info) error {
		spec, err := rebind(info)
		if err != nil {
			return err
		}
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		text, err := job.Unit(info, spec, exe)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.OutOrStdout(), text)
		return err
	})
}
