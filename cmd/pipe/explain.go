package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pipe-runner/pipe/runner"
)

func explainCommand() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "explain [FILE] STEP [-- ARG…]",
		Short: "Show what a step would run, and where its environment comes from",
		Long: `Show what a step would run: its arguments, program and cwd, where each variable
of its environment comes from, and which values that variable hides. Nothing is
run. Name an instance of a step with matrix or forEach as pipe prints it, as in
'build[arm64]'. For a step with sources, explain also says whether the step is up
to date and, if it is not, what changed. Secrets are masked.`,
		RunE: func(c *cobra.Command, args []string) error {
			rest := []string(nil)
			if at := c.ArgsLenAtDash(); at >= 0 {
				args, rest = args[:at], args[at:]
			}
			params, err := parseParams(f.params)
			if err == nil {
				err = f.changeDir()
			}
			if err != nil {
				return err
			}
			file, steps := splitFile(args)
			if len(steps) != 1 {
				return errors.New("explain takes the name of one step, as in: pipe explain FILE STEP")
			}
			if err := defaultMissing(c, file, steps); err != nil {
				return err
			}
			p, err := load(file)
			if err != nil {
				return err
			}
			r := &runner.Runner{Root: f.root}
			in := runner.Input{Params: params, Args: rest}
			if r.State, err = runner.StateDir(os.Environ()); err != nil && !errors.Is(err, runner.ErrNoState) {
				return err
			}
			list, err := r.Explain(p, steps[0], in)
			if err != nil {
				return refused(err)
			}
			state, err := r.UpToDate(p, steps[0], in)
			if err != nil {
				return refused(err)
			}
			if state != "" {
				fmt.Fprintf(c.OutOrStdout(), "state: %s\n", state)
			}
			for i, e := range list {
				if len(list) > 1 {
					fmt.Fprintf(c.OutOrStdout(), "stage %d\n", i+1)
				}
				if _, err := fmt.Fprint(c.OutOrStdout(), e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringArrayVarP(&f.params, "param", "p", nil, "give a parameter, as NAME=VALUE; repeat it for a list")
	c.Flags().StringVarP(&f.dir, "directory", "C", "", "change to this folder first")
	c.Flags().StringVar(&f.root, "root", "", "as for run")
	return c
}
