package pipeline

// This file holds the rules of the linter against their own examples, and
// docs/rules.md, which is made from them.

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func lint(t *testing.T, src string) []Finding {
	t.Helper()
	p, err := Parse("f.yaml", []byte(src))
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return p.Lint([]string{"LD_PRELOAD=x", "PATH=/bin"})
}

func TestRules(t *testing.T) {
	var doc strings.Builder
	doc.WriteString("# Rules of `pipe check`\n\nWarnings; the exit status stays 0. `# pipe:ignore RULE` on the line, or alone on the line above, silences one.\nMade from the rules; `go test ./pipeline -update` writes it anew.\n")
	for _, r := range Rules() {
		found := lint(t, r.Bad)
		if len(found) == 0 || found[0].Rule != r.Name && found[len(found)-1].Rule != r.Name {
			t.Errorf("%s: its bad example gives %v", r.Name, found)
		}
		for _, f := range lint(t, r.Good) {
			if f.Rule == r.Name {
				t.Errorf("%s: its good example gives %s", r.Name, f)
			}
		}
		if len(found) > 0 {
			lines := strings.Split(r.Bad, "\n")
			at := found[0].Pos.Line - 1
			lines[at] += " # pipe:ignore " + r.Name
			for _, f := range lint(t, strings.Join(lines, "\n")) {
				if f.Rule == r.Name && f.Pos.Line == at+1 {
					t.Errorf("%s: not silenced: %s", r.Name, f)
				}
			}
			above := "# pipe:ignore other " + r.Name + "\n" + r.Bad
			for _, f := range lint(t, above) {
				if f.Rule == r.Name && f.Pos.Line == 2 {
					t.Errorf("%s: not silenced from above: %s", r.Name, f)
				}
			}
		}
		fmt.Fprintf(&doc, "\n## %s\n\n%s\n\n```yaml\n# bad\n%s\n```\n\n```yaml\n# good\n%s\n```\n", r.Name, r.Help, r.Bad, r.Good)
	}
	if *update {
		if err := os.WriteFile("../docs/rules.md", []byte(doc.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("../docs/rules.md"); err != nil || string(got) != doc.String() {
		t.Errorf("docs/rules.md is not what the rules say (%v); run go test ./pipeline -run TestRules -update", err)
	}
}

func TestQuiet(t *testing.T) {
	for _, src := range []string{
		`params: {n: {type: int, default: 1}, e: {enum: [a, b], default: a}}` + "\nsteps: [{spawn: [head, -n, \"${{ params.n }}\"]}, {spawn: [cat, \"${{ params.e }}\"]}]\nextendEnv: [PATH]",
		"extendEnv: [PATH]\nsteps: [{exec: 'x=$y; [[ $x == a ]] && echo \"$x\" $? $# $((x+1)); case $x in a) ;; esac'}]",
		"env: {A: b}\nextendEnv: [PATH]\nsteps: [{exec: echo}]",
	} {
		for _, f := range lint(t, src) {
			t.Errorf("%s\n%s", f, src)
		}
	}
}
