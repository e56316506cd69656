package pipeline

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

// TestFindings: what is found, with its place.
func TestFindings(t *testing.T) {
	for _, tt := range []struct{ src, want string }{
		{"secrets: [T]\nextendEnv: [PATH]\nsteps:\n  - {env: {A: \"${{ env.T }}\"}, spawn: [a], stderr: {file: x}}", "f.yaml:4:52: warning: stderr of a step that has the secret T does not pass through the runner, so nothing in it is masked [mask-has-no-effect]"},
		{"secrets: [T]\nextendEnv: [PATH]\nsteps:\n  - pipe: [{spawn: [a, \"${{ env.T }}\"]}, {tee: [{spawn: [b]}]}, {spawn: [c]}]", "f.yaml:4:12: warning: what a step that has the secret T writes to the next stage is not masked on its way [mask-has-no-effect]"},
		{"secrets: [T]\nextendEnv: [PATH]\nsteps:\n  - {spawn: [a, \"${{ env.U }}\"], stdout: inherit}", ""},
		{"extendEnv: [PATH]\nparams: {f: {}}\nsteps:\n  - {spawn: [jq, --arg, a, b, \"${{ params.f }}\"]}", "f.yaml:4:32: warning: jq reads this argument as a program in its own language; hand the value over in another way, such as a file, stdin or a variable [program-text]"},
		{"extendEnv: [PATH]\nparams: {f: {}}\nsteps:\n  - {spawn: [sed, -e, \"${{ params.f }}\"]}", "f.yaml:4:24: warning: sed reads this argument as a program in its own language; hand the value over in another way, such as a file, stdin or a variable [program-text]"},
		{"extendEnv: [PATH]\nparams: {f: {}}\nsteps:\n  - {spawn: [psql, -c, \"${{ params.f }}\"]}", "f.yaml:4:25: warning: psql reads this argument as a program in its own language; hand the value over in another way, such as a file, stdin or a variable [program-text]"},
		{"extendEnv: [PATH]\nparams: {f: {}}\nsteps:\n  - {spawn: [mysql, --execute, \"${{ params.f }}\"]}", "f.yaml:4:33: warning: mysql reads this argument as a program in its own language; hand the value over in another way, such as a file, stdin or a variable [program-text]"},
		{"extendEnv: [PATH]\nparams: {f: {type: path}}\nsteps:\n  - {spawn: [sed, -f, x, \"${{ params.f }}\"]}\n  - {spawn: [jq, --arg, a, \"${{ params.f }}\", .x]}\n  - {spawn: [sed, s/a/b/, \"${{ params.f }}\"]}", ""},
		{"extendEnv: [PATH]\nparams: {f: {pattern: \"[a-z]+\"}, g: {pattern: \"-.*\"}}\nsteps:\n  - {spawn: [rm, \"${{ params.f }}\"]}\n  - {spawn: [rm, \"${{ params.g }}\"]}", "f.yaml:5:19: warning: a value that begins with - is an option to rm; write [rm, --, ${{ params.g }}], or declare the parameter with type: path [option-injection]"},
		{"extendEnv: [PATH]\nsteps:\n  - {spawn: [rm, \"${{ args[0] }}\"]}", "f.yaml:3:19: warning: a value that begins with - is an option to rm; write [rm, --, ${{ args[0] }}], or declare the parameter with type: path [option-injection]"},
		{"extendEnv: [PATH]\nsteps:\n  - {spawn: [rm, \"${{ pipeline.dir }}\", -x, \"x${{ args[0] }}\"]}", ""},
		{"extendEnv: [PATH]\nsteps:\n  - exec: |\n      x=$1; rm é \"$x\"; for x in $(ls) $y; do :; done", "f.yaml:4:33: warning: $(…) without quotes is split into words and expanded as file patterns; write \"$(…)\" [unquoted-expansion]\nf.yaml:4:39: warning: $y without quotes is split into words and expanded as file patterns; write \"$y\" [unquoted-expansion]"},
		{"extendEnv: [PATH]\nsteps:\n  - exec: |\n      echo é ${{ args[0] }} $x", "f.yaml:4:29: warning: $x without quotes is split into words and expanded as file patterns; write \"$x\" [unquoted-expansion]"},
		{"extendEnv: [PATH]\nshell: zsh\nsteps:\n  - {exec: \"echo $x\"}", ""},
		{"extendEnv: [PATH]\nshell: bash\nsteps:\n  - {exec: \"for x in $(ls); do echo; done\"}", "f.yaml:4:22: warning: $(…) without quotes is split into words and expanded as file patterns; write \"$(…)\" [unquoted-expansion]"},
		{"extendEnv: [PATH]\nshell: bash\nsteps:\n  - {exec: \"(\"}", ""},
		{"mode: async\nextendEnv: [PATH]\nsteps:\n  - {name: s, background: true, spawn: [a]}\n  - {needs: [s], spawn: [a]}", ""},
		{"extendEnv: [PATH]\nsteps:\n  - {name: s, background: true, spawn: [a]}\n  - {needs: [s], spawn: [a]}", ""},
		{"env: {A: b}\nsteps:\n  - {spawn: [a]}\n  - {spawn: [b]}", "f.yaml:1:7: warning: env replaces the environment, so the program has no PATH and no HOME; add extendEnv: [PATH, HOME], or give them [env-without-path]"},
		{"env: {}\nsteps:\n  - {spawn: [a]}\n  - {spawn: [b], env: {A: b}, envFile: x}", ""},
	} {
		var got []string
		for _, f := range lint(t, tt.src) {
			got = append(got, f.String())
		}
		if s := strings.Join(got, "\n"); s != tt.want {
			t.Errorf("%s\ngot\n  %s\nexpected\n  %s", tt.src, s, tt.want)
		}
	}
}

// TestBindShell: values are variables, by their kinds.
func TestBindShell(t *testing.T) {
	p, err := Parse("f", []byte("params: {a: {default: x}, i: {type: int, default: 1}, l: {type: list, default: []}}\nsteps:\n  - exec: |\n      echo ${{ params.l }} $(( ${{ params.i }} + 1 )) \"${{ params.a }}\" ${{ raw(params.a) }}\n  - exec: echo '$${{ x }}'\n"))
	if err != nil {
		t.Fatal(err)
	}
	st := p.Steps[0].Stages[0]
	text, vars, err := st.BindShell(&Vars{Params: map[string]any{"a": "a b", "i": 3, "l": []string{"p", "q"}}})
	if want := "echo \"${pipe_v0_0}\" \"${pipe_v0_1}\" $(( pipe_v1_ + 1 )) \"${pipe_v2_}\" a b\n"; err != nil || text != want || fmt.Sprint(vars) != "[{pipe_v0_0 p} {pipe_v0_1 q} {pipe_v1_ 3} {pipe_v2_ a b}]" {
		t.Errorf("%s%v %v", text, vars, err)
	}
	for _, tt := range []struct {
		a, i any
		want string
	}{
		{nil, 1, "shell text: the expression is null"},
		{"a", "x[$(y)]", "shell text: ${{ params.i }}: the value stands in arithmetic"},
		{"a\x00", 1, "shell text: ${{ params.a }}: the value holds a NUL byte"},
	} {
		if _, _, err := st.BindShell(&Vars{Params: map[string]any{"a": tt.a, "i": tt.i, "l": []any{1}}}); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v", err)
		}
	}
	if _, _, err := st.BindShell(&Vars{Params: map[string]any{"a": "", "i": 1, "l": []any{nil}}}); err == nil {
		t.Error("a null in a list is taken")
	}
	if text, vars, err := p.Steps[1].Stages[0].BindShell(&Vars{}); err != nil || text != "echo '${{ x }}'" || vars != nil {
		t.Errorf("%s %v %v", text, vars, err)
	}
	if !p.Steps[0].Stages[0].script.Dynamic() || st.script.ReadsSteps() {
		t.Error("what the text depends on")
	}
}
