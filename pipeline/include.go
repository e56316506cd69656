package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Include is another pipeline that a step runs.
type Include struct {
	Pos      Pos
	Path     string // as written, relative to the folder of the file; "" for one built in Go
	Pipeline *Pipeline
	With     []WithParam
}

// WithParam is a parameter that is given to a pipeline.
type WithParam struct {
	Pos   Pos
	Name  string
	Value Template
}

// maxIncludes is how deep pipelines may run others.
const maxIncludes = 20

// readRun reads the path of a pipeline, and the pipeline.
func (p *parser) readRun(t *target, n *yaml.Node) {
	if !p.scalar(n, "the path of a pipeline file") {
		return
	}
	inc := t.step.include()
	inc.Pos, inc.Path = pos(n), n.Value
	if strings.Contains(n.Value, "${{") {
		p.add(pos(n), "run takes a constant path, so that the pipeline can be checked before anything starts")
		return
	}
	full := n.Value
	if !filepath.IsAbs(full) {
		full = filepath.Join(filepath.Dir(p.report.file), full)
	}
	abs, err := filepath.Abs(full)
	if err != nil {
		p.add(pos(n), "run: %s", err)
		return
	}
	if i := slices.Index(p.chain, abs); i >= 0 {
		var names []string
		for _, c := range append(p.chain[i:], abs) {
			names = append(names, filepath.Base(c))
		}
		p.add(pos(n), "pipelines run each other in a loop: %s", strings.Join(names, " -> "))
		return
	}
	if len(p.chain) >= maxIncludes {
		p.add(pos(n), "pipelines run others more than %d deep", maxIncludes)
		return
	}
	src, err := ReadFile(full)
	if err != nil {
		p.add(pos(n), "run: %s", err)
		return
	}
	child, err := parse(full, src, append(slices.Clone(p.chain), abs))
	var errs Errors
	if errors.As(err, &errs) {
		p.errs = append(p.errs, errs...)
		return
	}
	inc.Pipeline = child
}

// ReadFile reads a pipeline file. It refuses what is not a regular file, because
// a device or a pipe may never end. Of a file that is too large it reads just
// enough for [Parse] to say so.
func ReadFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file", path)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file; to read a pipeline from a pipe, write - for stdin", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, MaxFile+1))
}

func (p *parser) readWith(t *target, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "with is a mapping of parameters to values, not %s", kindOf(n))
		return
	}
	inc := t.step.include()
	p.pairs(n, func(k, v *yaml.Node) {
		if v.Kind == yaml.SequenceNode {
			p.add(pos(v), "a list is given as an expression, as in \"${{ ['a', 'b'] }}\"")
			return
		}
		inc.With = append(inc.With, WithParam{pos(k), k.Value, p.template(v)})
	})
}

func (s *Step) include() *Include {
	if s.Run == nil {
		s.Run = &Include{}
	}
	return s.Run
}

// label names the pipeline that is run.
func (inc *Include) label() string {
	return cmp.Or(inc.Path, inc.Pipeline.Name, "the pipeline that it runs")
}

// include checks a step that runs a pipeline.
func (c *checker) include(s *Step) {
	inc := s.Run
	if inc.Pipeline == nil {
		if len(c.errs) == 0 {
			c.add(s.Pos, "run names no pipeline")
		}
		return
	}
	if err := inc.Pipeline.Check(); err != nil { // it was built in Go, or changed
		c.add(s.Pos, "run: %s", err)
		return
	}
	var names []string
	for _, prm := range inc.Pipeline.Params {
		names = append(names, prm.Name)
	}
	given := map[string]bool{}
	for _, w := range inc.With {
		if given[w.Name] = true; !slices.Contains(names, w.Name) {
			c.add(w.Pos, "unknown parameter %q of %s%s", w.Name, inc.label(), didYouMean(w.Name, names, ""))
		}
	}
	for _, prm := range inc.Pipeline.Params {
		if prm.Default == nil && !given[prm.Name] {
			c.add(inc.Pos, "%s must be given its parameter %s: add with: {%s: …}", inc.label(), prm.Name, prm.Name)
		}
	}
}
