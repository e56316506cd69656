package runner_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

func names(p *runner.PastRun) (out []string) {
	for _, s := range p.Results {
		if s.Status != "killed" { // that one had started
			out = append(out, s.Label)
		}
	}
	return out
}

// TestTornJournal: of a journal that ends anywhere, what is read is what was
// written whole; of one with any byte changed, nothing behind that is believed.
func TestTornJournal(t *testing.T) {
	state := t.TempDir()
	if err := os.Chmod(state, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &pipeline.Pipeline{File: "x.yaml", Steps: []*pipeline.Step{
		pipeline.SpawnStep("a", "true"), pipeline.SpawnStep("b", "true"), pipeline.SpawnStep("c", "true"),
	}}
	r := runner.Runner{Engine: &runnertest.Engine{}, State: state, Dir: t.TempDir()}
	if _, err := r.Run(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	whole, err := runner.OpenRun(state, "last", "")
	if err != nil || whole.Status != runner.RunEnded || len(whole.Results) != 3 {
		t.Fatalf("%+v, %v", whole, err)
	}
	path := filepath.Join(state, "runs", whole.ID)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	steps := func(b []byte) int { // of those lines that are whole
		return bytes.Count(b[:bytes.LastIndexByte(b, '\n')+1], []byte(" {\"step\""))
	}
	if lines := bytes.Count(text, []byte("\n")); lines != 8 || steps(text) != 3 {
		t.Fatalf("%d lines in %s", lines, text)
	}
	for n := range text {
		if err := os.WriteFile(path, text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := runner.OpenRun(state, whole.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		done := bytes.Count(text[:n], []byte("\n"))
		if want := steps(text[:n]); len(names(got)) != want || (done == 0) != (got.Status == runner.RunUnreadable) || got.Status == runner.RunEnded {
			t.Errorf("of %d bytes: %v, %s (%s)", n, names(got), got.Status, got.Problem)
		}
		if list, err := runner.Runs(state); err != nil || len(list) != 1 || list[0].Status != got.Status {
			t.Errorf("of %d bytes: listed as %+v, %v", n, list, err)
		}
	}
	for n := 0; n < len(text); n += 7 {
		bad := bytes.Clone(text)
		bad[n] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := runner.OpenRun(state, whole.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(names(got)) > steps(text[:n]) || got.Status == runner.RunEnded {
			t.Errorf("with byte %d changed: %v, %s", n, names(got), got.Status)
		}
	}
}
