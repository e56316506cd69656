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

// defaultFile is what is run where no file is named.
const defaultFile = "pipe.yaml"

// splitFile takes the file from the arguments before the "--": a first one that
// has a slash or the ending of YAML, or, where there is no pipe.yaml that could
// have a step of that name, one that exists.
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

// parse reads and checks a file.
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

// load is parse that writes to stderr what is wrong.
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

// read reads a regular file, or stdin; never one without an end.
func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, pipeline.MaxFile+1))
	}
	if _, err := os.Stat(file); file == defaultFile && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s here; name a file, as in: pipe run FILE", defaultFile)
	}
	return pipeline.ReadFile(file)
}
