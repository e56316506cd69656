// Command pipe runs pipelines of processes that are declared in YAML.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pipe-runner/pipe/runner/job"
)

// version is the version of the program. Release builds set it with
// -ldflags "-X main.version=…".
var version = "0.1.0-dev"

// exitError is the exit status of a command that has already printed its error
// message.
type exitError int

// Error returns a text such as "exit status 2".
func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	if len(os.Args) > 1 && os.Args[1] == job.KeeperArg {
		os.Exit(job.Keeper())
	}
	os.Exit(run(os.Args[1:]))
}

// run runs the command line args and returns the exit status of the program.
func run(args []string) int {
	root := &cobra.Command{
		Use:                        "pipe",
		Short:                      "Run pipelines of processes declared in YAML",
		Version:                    version,
		SilenceUsage:               true,
		SilenceErrors:              true,
		Args:                       unknownCommand,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(runCommand(), checkCommand(), explainCommand(), runsCommand(), versionCommand())
	root.AddCommand(jobsCommand(), logsCommand(), waitCommand(), stopCommand(), restartCommand(), attachCommand(), rmCommand(), pruneCommand())
	root.SetFlagErrorFunc(flagError)
	root.SetArgs(args)
	err := root.Execute()
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(os.Stderr, "pipe: %v\n", err)
	return 2
}

// elsewhere maps commands of other tools to the equivalent command of pipe.
var elsewhere = map[string]string{
	"ps": "jobs", "ls": "jobs", "list": "jobs", "status": "jobs", "top": "jobs --watch", "kill": "stop", "down": "stop --all", "delete": "rm", "remove": "rm",
	"start": "run", "up": "run", "exec": "run", "log": "logs", "lint": "check", "validate": "check", "fg": "attach", "history": "runs", "clean": "prune",
}

// unknownCommand returns an error that says what to write instead of args[0],
// which is not a command.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if strings.HasSuffix(args[0], ".yaml") || strings.HasSuffix(args[0], ".yml") {
		return fmt.Errorf("%q is not a command; to run the file write: pipe run %s", args[0], args[0])
	}
	if other, ok := elsewhere[args[0]]; ok {
		return fmt.Errorf("unknown command %q; here it is: pipe %s", args[0], other)
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q; did you mean %q?", args[0], near[0])
	}
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("unknown command %q; there are %s", args[0], strings.Join(names, ", "))
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "pipe", version)
			return err
		},
	}
}
