package pipeline

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/keys.md anew")

func TestReference(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Keys of a pipeline file\n\nMade from the schema that files are read by; `go test ./pipeline -update` writes it anew.\n")
	for _, pn := range placeNames {
		fmt.Fprintf(&b, "\n## In %s\n\n| key | what it is |\n|---|---|\n", pn.name)
		for _, k := range schema {
			if k.at&pn.at != 0 && k.read != nil {
				fmt.Fprintf(&b, "| `%s` | %s |\n", k.name, strings.ReplaceAll(k.help, "|", "\\|"))
			}
		}
	}
	b.WriteString("\n## In expressions\n\n`${{ … }}` in any string value; an `if` is one with or without it. The language is that of expr-lang.org.\n\n| name | what it is |\n|---|---|\n")
	fmt.Fprintf(&b, "| `params.NAME` | a parameter |\n| `args` | the list of what follows `--` |\n| `env.NAME` | a variable of the runner |\n")
	fmt.Fprintf(&b, "| `steps.NAME.…` | of a step that has ended: %s; stdout and stderr without the newlines at their end |\n", strings.Join(stepFields, ", "))
	fmt.Fprintf(&b, "| `steps.NAME.outputs.X` | what the pipeline of a step with `run` puts out |\n| `steps.NAME.each[i].…` | of an instance of a step that expands, in order; also `matrix` and `item` |\n")
	fmt.Fprintf(&b, "| `matrix.AXIS`, `item` | of the instance that runs |\n")
	fmt.Fprintf(&b, "| `pipeline.…` | %s |\n| `host.…` | %s |\n", strings.Join(pipelineFields, ", "), strings.Join(hostFields, ", "))
	fmt.Fprintf(&b, "| functions | %s, and those of expr-lang |\n| in an `if` | %s |\n", strings.Join(functions, "(), ")+"()", strings.Join(statusFuncs, "(), ")+"()")
	if *update {
		if err := os.WriteFile("../docs/keys.md", []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("../docs/keys.md")
	if err != nil || string(got) != b.String() {
		t.Errorf("docs/keys.md is not what the schema says (%v); run go test ./pipeline -run TestReference -update", err)
	}
}
