package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// noArgs refuses arguments of a command that takes none.
func noArgs(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !c.HasSubCommands():
		return fmt.Errorf("%s takes no arguments, but %q was given", c.CommandPath(), args[0])
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	return fmt.Errorf("%s has no command %q; it has %s", c.CommandPath(), args[0], strings.Join(names, ", "))
}

// oneRun refuses all but the id of one run.
func oneRun(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one run, by its id or as last; pipe runs lists them", c.CommandPath())
	}
	return nil
}

// someJobs refuses a command line without a job.
func someJobs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s takes jobs, by their names or ids; pipe jobs --all lists them", c.CommandPath())
	}
	return nil
}

var (
	flagName     = regexp.MustCompile(`--([a-z][a-z-]+)`)
	invalidValue = regexp.MustCompile(`^invalid argument .* for "(?:-., )?--(.*)" flag: `)
)

// flagError says of an option that is wrong what was expected.
func flagError(c *cobra.Command, err error) error {
	var unknown interface {
		error
		GetSpecifiedName() string
		GetSpecifiedShortnames() string
	}
	var invalid interface {
		error
		GetValue() string
	}
	text := err.Error()
	switch {
	case errors.As(err, &unknown) && strings.HasPrefix(text, "unknown shorthand flag"):
		return fmt.Errorf("unknown option -%s; %s --help lists the options", unknown.GetSpecifiedName(), c.CommandPath())
	case errors.As(err, &unknown) && strings.HasPrefix(text, "unknown flag"):
		name := unknown.GetSpecifiedName()
		if near := nearFlag(c, name); near != "" {
			return fmt.Errorf("unknown option --%s; did you mean --%s?", name, near)
		}
		return fmt.Errorf("unknown option --%s; %s --help lists the options", name, c.CommandPath())
	case errors.As(err, &invalid):
		m := invalidValue.FindStringSubmatch(text)
		if m == nil {
			return err
		}
		expected := map[string]string{"int": "a whole number", "bool": "true or false", "duration": "a duration, as in 10m"}
		if flag := c.Flags().Lookup(m[1]); flag != nil && expected[flag.Value.Type()] != "" {
			return fmt.Errorf("--%s %s: expected %s", m[1], invalid.GetValue(), expected[flag.Value.Type()])
		}
	}
	if rest, ok := strings.CutPrefix(text, "flag needs an argument: "); ok {
		return fmt.Errorf("option %s needs a value; %s --help says which", rest, c.CommandPath())
	}
	return err
}

// nearFlag returns the option of a command whose name is next to the given one,
// or "".
func nearFlag(c *cobra.Command, name string) string {
	best, most := "", 3
	for _, m := range flagName.FindAllStringSubmatch(c.Flags().FlagUsages(), -1) {
		if d := distance(m[1], name); d < most && c.Flags().Lookup(m[1]) != nil {
			best, most = m[1], d
		}
	}
	return best
}

// distance returns how many bytes are to be put in, left out or replaced to make b
// of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}

// defaultMissing says what to do where a command is to read the default file and
// there is none; args are the steps that were named.
func defaultMissing(c *cobra.Command, file string, args []string) error {
	if _, err := os.Stat(defaultFile); file != defaultFile || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if len(args) == 0 {
		return fmt.Errorf("there is no %s here; name a file, as in: %s FILE", defaultFile, c.CommandPath())
	}
	why := fmt.Sprintf("%q is not a file, and there is no %s that could have a step of that name", args[0], defaultFile)
	rest := args[1:]
	if c.Name() == "explain" {
		rest = []string{"STEP"}
	}
	for _, ext := range []string{".yaml", ".yml"} {
		if _, err := os.Stat(args[0] + ext); err == nil {
			return fmt.Errorf("%s; did you mean %s?", why, strings.Join(append([]string{c.CommandPath(), args[0] + ext}, rest...), " "))
		}
	}
	return fmt.Errorf("%s; name a file, as in: %s FILE %s", why, c.CommandPath(), args[0])
}
