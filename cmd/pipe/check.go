package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/pipe-runner/pipe/pipeline"
)

// finding is one error or warning, as --format json prints it.
type finding struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Severity string `json:"severity"` // error or warning
	Rule     string `json:"rule"`     // "invalid" for errors
	Message  string `json:"message"`
}

func checkCommand() *cobra.Command {
	format := "text"
	c := &cobra.Command{
		Use:   "check [FILE]…",
		Short: "Report everything that is wrong in pipeline files, and run nothing",
		Long: `Report everything that is wrong in pipeline files, and what is worth a second
look. Nothing is run. Without FILE, pipe.yaml is checked; - is stdin. The exit
status is 2 if there is an error, and 0 if there are only warnings. docs/rules.md
explains the warnings; "# pipe:ignore RULE" on a line silences that rule there.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if err := defaultMissing(c, defaultFile, nil); err != nil && format == "text" {
					return err
				}
				args = []string{defaultFile}
			}
			switch format {
			case "text", "json", "sarif":
			default:
				return fmt.Errorf("--format %s: expected text, json or sarif", format)
			}
			found := []finding{}
			failed := false
			for _, file := range args {
				f, ok := check(file, format == "text")
				found = append(found, f...)
				failed = failed || !ok
			}
			var err error
			switch format {
			case "json":
				err = writeJSON(c.OutOrStdout(), found)
			case "sarif":
				err = writeJSON(c.OutOrStdout(), sarif(found))
			}
			if err == nil && failed {
				err = exitError(2)
			}
			return err
		},
	}
	c.Flags().StringVar(&format, "format", format, "text, json or sarif (2.1.0)")
	return c
}

// check returns the findings of a file, and reports whether the file can be
// run. If text is true, it writes the findings to stderr and returns none.
func check(file string, text bool) ([]finding, bool) {
	if text {
		p, err := load(file)
		if err != nil {
			return nil, false
		}
		for _, f := range p.Lint(os.Environ()) {
			fmt.Fprintln(os.Stderr, f)
		}
		return nil, true
	}
	p, err := parse(file)
	if err == nil {
		var out []finding
		for _, f := range p.Lint(os.Environ()) {
			out = append(out, finding{f.File, f.Pos.Line, f.Pos.Col, "warning", f.Rule, f.Msg})
		}
		return out, true
	}
	var errs pipeline.Errors
	if !errors.As(err, &errs) {
		return []finding{{File: file, Severity: "error", Rule: "invalid", Message: err.Error()}}, false
	}
	var out []finding
	for _, e := range errs {
		out = append(out, finding{e.File, e.Pos.Line, e.Pos.Col, "error", "invalid", e.Msg})
	}
	return out, false
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// sarif returns a log in the Static Analysis Results Interchange Format 2.1.0,
// ready to be encoded as JSON.
func sarif(found []finding) any {
	type m = map[string]any
	rules := []m{{"id": "invalid", "shortDescription": m{"text": "The file is not a valid pipeline."}}}
	for _, r := range pipeline.Rules() {
		rules = append(rules, m{"id": r.Name, "shortDescription": m{"text": r.Help}, "help": m{"text": "bad:\n" + r.Bad + "\n\ngood:\n" + r.Good}})
	}
	results := []m{}
	for _, f := range found {
		place := m{"artifactLocation": m{"uri": (&url.URL{Path: f.File}).String()}}
		if f.Line > 0 {
			region := m{"startLine": f.Line}
			if f.Column > 0 {
				region["startColumn"] = f.Column
			}
			place["region"] = region
		}
		results = append(results, m{
			"ruleId": f.Rule, "level": f.Severity, "message": m{"text": f.Message},
			"locations": []m{{"physicalLocation": place}},
		})
	}
	return m{
		"version": "2.1.0",
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json",
		"runs": []m{{
			"tool":    m{"driver": m{"name": "pipe", "version": version, "rules": rules}},
			"results": results,
		}},
	}
}
