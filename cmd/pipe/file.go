package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/pipe-runner/pipe/pipeline"
)

// defaultFile is the file that a command reads when none is named.
const defaultFile = "pipe.yaml"

// splitFile splits the arguments before "--" into the pipeline file and the rest.
// The first argument is the file if it is "-", contains a slash or ends in .yaml
// or .yml. Without a pipe.yaml, the first argument cannot name a step, so it is
// also the file if a file of that name exists.
func splitFile(args []string) (file string, rest []string) {
	if len(args) == 0 {
		return defaultFile, nil
	}
	first := args[0]
	if first == "-" || strings.ContainsRune(first, '/') || strings.HasSuffix(first, ".yaml") || strings.HasSuffix(first, ".yml") {
		return first, args[1:]
	}
	if _, err := os.Stat(defaultFile); err != nil {
		if info, err := os.Stat(first); err == nil && !info.IsDir() {
			return first, args[1:]
		}
	}
	return defaultFile, args
}

// parse reads and checks a pipeline file; "-" is stdin.
func parse(file string) (*pipeline.Pipeline, error) {
	src, err := read(file)
	if err != nil {
		return nil, err
	}
	name := file
	if file == "-" {
		name = "stdin"
	}
	return pipeline.Parse(name, src)
}

// load is like parse, but writes the errors to stderr and returns an exitError.
func load(file string) (*pipeline.Pipeline, error) {
	p, err := parse(file)
	if err == nil {
		return p, nil
	}
	var errs pipeline.Errors
	if errors.As(err, &errs) {
		errs.Render(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))
	} else {
		fmt.Fprintf(os.Stderr, "pipe: %v\n", err)
	}
	return nil, exitError(2)
}

// read returns the text of a pipeline file; "-" is stdin. It reads at most one
// byte more than pipeline.MaxFile, so that an endless stdin cannot hang it.
func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, pipeline.MaxFile+1))
	}
	if _, err := os.Stat(file); file == defaultFile && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s here; name a file", defaultFile)
	}
	return pipeline.ReadFile(file)
}
