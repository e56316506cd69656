package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pipe-runner/pipe/runner"
)

func runsCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "runs",
		Short: "List the recorded runs, show one, remove old ones",
		Long: `List the recorded runs, the latest first. About 200 runs are kept, in
$PIPE_STATE_DIR, or else in $XDG_STATE_HOME/pipe or ~/.local/state/pipe.

The journal of a run that was killed holds what the run had done until then;
pipe run --resume goes on from there.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			state, err := runner.StateDir(os.Environ())
			if err != nil {
				return err
			}
			list, err := runner.Runs(state)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c, jsonRuns(list))
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tSTARTED\tTOOK\tSTATUS\tFILE")
			for _, r := range list {
				started := "-"
				if !r.Start.IsZero() {
					started = r.Start.Local().Format("2006-01-02 15:04:05")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, started, took(r), outcome(r), runFile(r))
			}
			return w.Flush()
		},
	}
	c.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	show := &cobra.Command{
		Use:   "show ID",
		Short: "Show the steps of a run; ID is an id, a prefix of one, or last (the last run of this folder)",
		Args:  oneRun,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := openRun(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				j := jsonRun(r)
				for _, s := range r.Results {
					j.Steps = append(j.Steps, jsonStep{
						s.Label, s.Status, string(s.Reason), s.ExitCode, s.Signal, s.Command, s.Error, s.Attempts + 1, s.Start, s.Duration.Seconds(), s.Reused,
					})
				}
				return printJSON(c, j)
			}
			return showRun(c, r)
		},
	}
	keep := 0
	prune := &cobra.Command{
		Use:   "prune",
		Short: "Remove the journals of runs that have ended, except the latest",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if keep < 0 {
				return fmt.Errorf("--keep %d: expected 0 or more", keep)
			}
			state, err := runner.StateDir(os.Environ())
			if err != nil {
				return err
			}
			n, err := runner.PruneRuns(state, keep)
			fmt.Fprintf(c.OutOrStdout(), "%d removed\n", n)
			return err
		},
	}
	prune.Flags().IntVar(&keep, "keep", 10, "how many of the latest runs to keep")
	c.AddCommand(show, prune)
	return c
}

// openRun opens a run by its id or a prefix of it, or, for "last", the last run
// that was started in the working directory.
func openRun(id string) (*runner.PastRun, error) {
	state, err := runner.StateDir(os.Environ())
	if err != nil {
		return nil, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return runner.OpenRun(state, id, dir)
}

func showRun(c *cobra.Command, r *runner.PastRun) error {
	out := c.OutOrStdout()
	fmt.Fprintf(out, "run:     %s\nfile:    %s\nstarted: %s\ntook:    %s\nstatus:  %s\n", r.ID, runFile(r), r.Start.Local().Format(time.RFC3339), took(r), outcome(r))
	if r.Problem != "" {
		fmt.Fprintf(out, "problem: %s\n", r.Problem)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSTEP\tSTATUS\tEXIT\tTOOK\tCOMMAND")
	for _, s := range r.Results {
		status := s.Status
		switch {
		case s.Reused != "":
			status += " (" + s.Reused + ")"
		case s.Reason != "" && s.Reason != runner.ReasonExit:
			status += " (" + string(s.Reason) + ")"
		}
		if s.Attempts > 0 {
			status += fmt.Sprintf(" (attempt %d)", s.Attempts+1)
		}
		exit, took := strconv.Itoa(s.ExitCode), s.Duration.Round(time.Millisecond).String()
		switch {
		case s.Start.IsZero() || s.Status == runner.StatusSkipped.String():
			exit, took = "-", "-"
		case s.Reused != "": // the time is that of the run that it is taken from
			took = "-"
		}
		if s.Signal != "" {
			exit = s.Signal
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Label, status, exit, took, oneLine(s.Command))
	}
	for _, s := range r.Results {
		if s.Error != "" {
			fmt.Fprintf(w, "\n%s: %s\n", s.Label, s.Error)
		}
	}
	return w.Flush()
}

// oneLine shortens s to fit a cell of a table: to at most 70 characters of its
// first line, without control characters.
func oneLine(s string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	r := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, first))
	if len(r) > 70 {
		return string(r[:70]) + "…"
	}
	if rest != "" {
		return string(r) + " …"
	}
	return string(r)
}

// runFile returns the path of the file of a run, made absolute with the folder of
// the run.
func runFile(r *runner.PastRun) string {
	if r.File == "" || filepath.IsAbs(r.File) || r.File == "stdin" {
		return r.File
	}
	return filepath.Join(r.Dir, r.File)
}

func took(r *runner.PastRun) string {
	if r.End.IsZero() {
		return "-"
	}
	return r.End.Sub(r.Start).Round(time.Millisecond).String()
}

// outcome returns the state of a run, and how it ended, in a few words.
func outcome(r *runner.PastRun) string {
	switch {
	case r.Status == runner.RunUnreadable:
		return "unreadable: " + r.Problem
	case r.Status == runner.RunRunning:
		return fmt.Sprintf("running (pid %d)", r.Pid)
	case r.Status == runner.RunKilled:
		return "killed"
	case r.Error != "":
		return fmt.Sprintf("%s (%d)", oneLine(r.Error), r.ExitCode)
	case r.ExitCode == 0:
		return "success"
	case r.Cause != "":
		return fmt.Sprintf("failure %d (%s)", r.ExitCode, r.Cause)
	}
	return fmt.Sprintf("failure %d", r.ExitCode)
}

type runJSON struct {
	ID       string              `json:"id"`
	File     string              `json:"file"`
	Dir      string              `json:"dir"`
	Params   map[string][]string `json:"params,omitempty"`
	Args     []string            `json:"args,omitempty"`
	Status   string              `json:"status"`
	ExitCode *int                `json:"exitCode"` // null: the run has not ended
	Cause    string              `json:"cause,omitempty"`
	Error    string              `json:"error,omitempty"`
	Problem  string              `json:"problem,omitempty"`
	Pid      int                 `json:"pid,omitempty"`
	Start    *time.Time          `json:"start"`
	End      *time.Time          `json:"end"`
	Steps    []jsonStep          `json:"steps,omitempty"`
}

type jsonStep struct {
	Label    string    `json:"label"`
	Status   string    `json:"status"`
	Reason   string    `json:"reason,omitempty"`
	ExitCode int       `json:"exitCode"`
	Signal   string    `json:"signal,omitempty"`
	Command  string    `json:"command,omitempty"`
	Error    string    `json:"error,omitempty"`
	Attempts int       `json:"attempts"`
	Start    time.Time `json:"start"`
	Seconds  float64   `json:"seconds"`
	Reused   string    `json:"reused,omitempty"`
}

func jsonRun(r *runner.PastRun) runJSON {
	j := runJSON{ID: r.ID, File: r.File, Dir: r.Dir, Params: r.Params, Args: r.Args, Status: string(r.Status), Cause: r.Cause, Error: r.Error, Problem: r.Problem, Pid: r.Pid}
	if r.Status == runner.RunEnded {
		j.ExitCode = &r.ExitCode
	}
	if !r.Start.IsZero() {
		j.Start = &r.Start
	}
	if !r.End.IsZero() {
		j.End = &r.End
	}
	return j
}

func jsonRuns(list []*runner.PastRun) []runJSON {
	out := make([]runJSON, len(list))
	for i, r := range list {
		out[i] = jsonRun(r)
	}
	return out
}

func printJSON(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// resume opens the run that --resume names and changes to its folder. It returns
// the file, steps and arguments of that run where the command line gives no others,
// and adds to params the parameters that the command line does not give.
func (f *runFlags) resume(named, args []string, params map[string][]string) (file string, steps, rest []string, past *runner.PastRun, err error) {
	if past, err = openRun(f.resumed); err != nil {
		return "", nil, nil, nil, err
	}
	missing := func(name string) bool { _, ok := params[name]; return !ok }
	if err := past.Resumable(missing, args == nil); err != nil {
		return "", nil, nil, nil, err
	}
	file, steps, rest = past.File, past.Steps, past.Args
	if len(named) > 0 {
		given, more := splitFile(named)
		abs, err := filepath.Abs(given)
		if err != nil {
			return "", nil, nil, nil, err
		}
		if was := runFile(past); abs != filepath.Clean(was) {
			return "", nil, nil, nil, fmt.Errorf("run %s was of %s, not of %s", past.ID, was, given)
		}
		if len(more) > 0 {
			steps = more
		}
	}
	if args != nil {
		rest = args
	}
	for name, words := range past.Params {
		if missing(name) {
			params[name] = words
		}
	}
	if err := os.Chdir(past.Dir); err != nil {
		return "", nil, nil, nil, fmt.Errorf("run %s was in %s: %w", past.ID, past.Dir, errors.Unwrap(err))
	}
	return file, steps, rest, past, nil
}
