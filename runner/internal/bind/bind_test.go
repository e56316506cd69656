package bind_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/bind"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// callers is the environment that the tests bind with.
var callers = []string{
	"HOME=/h", "PATH=/bin:/usr/bin", "LANG=C", "LC_TIME=x", "TOKEN=token-12345", "BASH_ENV=/evil", "BASH_FUNC_f%%=() {", "NODE_CHANNEL_FD=3", "EQ=a=b",
}

// values returns what the tests bind with; the folder need not exist.
func values(change ...func(*bind.Values)) bind.Values {
	v := bind.Values{Dir: "/d", Environ: callers, RunID: "run-1"}
	for _, f := range change {
		f(&v)
	}
	return v
}

func given(name string, words ...string) func(*bind.Values) {
	return func(v *bind.Values) {
		if v.Params == nil {
			v.Params = map[string][]string{}
		}
		v.Params[name] = words
	}
}

func parse(t testing.TB, src string) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse("/f/test.yaml", []byte(src))
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return p
}

// bound binds the last step of a pipeline, as if none had run.
func bound(t testing.TB, p *pipeline.Pipeline, v bind.Values, look bind.Look) (*step.Spec, error) {
	t.Helper()
	b, err := bind.New(p, v)
	if err != nil {
		t.Fatal(err)
	}
	i := len(p.Steps) - 1
	return b.Spec(p.Steps[i], p.Label(i), b.Vars(bind.Unknown), look)
}

// specOf is bound without an error.
func specOf(t testing.TB, src string, change ...func(*bind.Values)) *step.Spec {
	t.Helper()
	spec, err := bound(t, parse(t, src), values(change...), bind.Look{})
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return spec
}

// rows compares what one function takes out of the Specs.
type rows []struct {
	name, src string
	want      any
}

func (list rows) run(t *testing.T, get func(*step.Spec) any, change ...func(*bind.Values)) {
	t.Helper()
	t.Parallel()
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := get(specOf(t, tt.src, change...)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s\n     got %#v\nexpected %#v", tt.src, got, tt.want)
			}
		})
	}
}

func first(s *step.Spec) *step.Stage { return &s.Stages[0] }

// TestCwd: each level is relative to the one outside, the outermost to the
// caller's folder.
func TestCwd(t *testing.T) {
	rows{
		{"none", `steps: [{spawn: [x]}]`, []string{"/d"}},
		{"of the file", "cwd: a\nsteps: [{spawn: [x]}]", []string{"/d/a"}},
		{"of file and step", "cwd: a\nsteps: [{spawn: [x], cwd: b}]", []string{"/d/a/b"}},
		{"of all levels", "cwd: a\nsteps: [{cwd: b, pipe: [{spawn: [x], cwd: c}, {spawn: [y]}]}]", []string{"/d/a/b/c", "/d/a/b"}},
		{"absolute", "cwd: /a\nsteps: [{pipe: [{spawn: [x], cwd: c}, {spawn: [y], cwd: /e}]}]", []string{"/a/c", "/e"}},
		{"upwards, and cleaned", "cwd: a/./b\nsteps: [{spawn: [x], cwd: ../../../q}]", []string{"/q"}},
		{"above the root", "steps: [{spawn: [x], cwd: ../../../..}]", []string{"/"}},
		{"an expression", "params: {p: {type: path, default: sub}}\nsteps: [{spawn: [x], cwd: '${{ params.p }}/more'}]", []string{"/d/sub/more"}},
		{"in branches", "steps: [{cwd: a, pipe: [{spawn: [x]}, {tee: [{spawn: [y], cwd: b}, [{spawn: [z]}]]}]}]", []string{"/d/a", "/d/a/b", "/d/a"}},
	}.run(t, func(s *step.Spec) any {
		var out []string
		s.Each(func(st *step.Stage) { out = append(out, st.Dir) })
		return out
	})
}

// TestPaths: a relative path of the caller holds elsewhere too; one written in
// the file is relative to where the step runs.
func TestPaths(t *testing.T) {
	const params = "params: {p: {type: path, default: sub}, s: {default: sub}}\n"
	rows{
		{"at home", params + `steps: [{spawn: [x, "${{ params.p }}", "${{ params.s }}"]}]`, []string{"x", "sub", "sub"}},
		{"elsewhere", params + `steps: [{cwd: e, spawn: [x, "${{ params.p }}", "${{ params.s }}"]}]`, []string{"x", "/d/sub", "sub"}},
		{"there and back", params + `steps: [{cwd: /d, spawn: [x, "${{ params.p }}"]}]`, []string{"x", "sub"}},
		{"in text", params + `steps: [{cwd: e, spawn: [x, "a=${{ params.p }}"]}]`, []string{"x", "a=/d/sub"}},
		{"the cwd itself", params + "cwd: e\nsteps: [{cwd: '${{ params.p }}', spawn: [x, '${{ params.p }}']}]", []string{"x", "/d/sub"}},
	}.run(t, func(s *step.Spec) any { return first(s).Args })
	t.Run("given", func(t *testing.T) {
		spec := specOf(t, params+`steps: [{cwd: e, spawn: [x, "${{ params.p }}"]}]`, given("p", "-rf"))
		if got := first(spec).Args[1]; got != "/d/-rf" {
			t.Errorf("%q", got)
		}
		spec = specOf(t, params+`steps: [{spawn: [x, "${{ params.p }}"]}]`, given("p", "-rf"))
		if got := first(spec).Args[1]; got != "./-rf" {
			t.Errorf("%q", got)
		}
		spec = specOf(t, params+`steps: [{cwd: e, spawn: [x, "${{ params.p }}"]}]`, given("p", "/abs"))
		if got := first(spec).Args[1]; got != "/abs" {
			t.Errorf("%q", got)
		}
	})
}

// TestEnvironment: the levels of env, extendEnv and unset.
func TestEnvironment(t *testing.T) {
	all := []string{"EQ=a=b", "HOME=/h", "LANG=C", "LC_TIME=x", "PATH=/bin:/usr/bin", "TOKEN=token-12345"}
	with := func(more ...string) []string { s := append(slices.Clone(all), more...); slices.Sort(s); return s }
	rows{
		{"nothing is said", `steps: [{spawn: [x]}]`, with()},
		{"env replaces", `steps: [{spawn: [x], env: {A: "1"}}]`, []string{"A=1"}},
		{"an empty env", `steps: [{spawn: [x], env: {}}]`, []string{}},
		{"an empty env of the file", "env: {}\nsteps: [{spawn: [x]}]", []string{}},
		{"levels merge, the inner wins", "env: {A: a, B: b, C: c}\nsteps: [{env: {B: bb, D: d}, pipe: [{spawn: [x], env: {D: dd, E: ''}}, {spawn: [y]}]}]", []string{"A=a", "B=bb", "C=c", "D=dd", "E="}},
		{"extendEnv alone", `steps: [{spawn: [x], extendEnv: [HOME]}]`, []string{"HOME=/h"}},
		{"extendEnv with env", `steps: [{spawn: [x], env: {A: "1"}, extendEnv: true}]`, with("A=1")},
		{"env above extendEnv", `steps: [{spawn: [x], env: {HOME: mine}, extendEnv: [HOME, PATH]}]`, []string{"HOME=mine", "PATH=/bin:/usr/bin"}},
		{"globs", `steps: [{spawn: [x], extendEnv: ["L*", "?OME", NOPE]}]`, []string{"HOME=/h", "LANG=C", "LC_TIME=x"}},
		{"the innermost extendEnv", "extendEnv: true\nenv: {A: a}\nsteps: [{extendEnv: [HOME], pipe: [{spawn: [x], extendEnv: [LANG]}, {spawn: [y]}]}]", []string{"A=a", "LANG=C"}},
		{"the file's extendEnv under a step's env", "extendEnv: [HOME]\nsteps: [{spawn: [x], env: {A: a}}]", []string{"A=a", "HOME=/h"}},
		{"an empty extendEnv", `steps: [{spawn: [x], extendEnv: []}]`, []string{}},
		{"start files of shells by name only", `steps: [{spawn: [x], extendEnv: [BASH_ENV, "B*", "NODE*"]}]`, []string{"BASH_ENV=/evil"}},
		{"unset", `steps: [{spawn: [x], unset: [HOME, TOKEN, NOPE]}]`, slices.DeleteFunc(with(), func(s string) bool { return strings.HasPrefix(s, "HOME") || strings.HasPrefix(s, "TOKEN") })},
		{"unset outside, set inside", "unset: [A, B]\nenv: {A: a, B: b}\nsteps: [{spawn: [x], env: {A: again}}]", []string{"A=again"}},
		{"unset inside", "env: {A: a, B: b}\nsteps: [{spawn: [x], unset: [A]}]", []string{"B=b"}},
		{"values", "params: {n: {type: int, default: 3}, l: {type: list, default: [a, b]}}\nsteps: [{spawn: [x], env: {N: '${{ params.n }}', L: '${{ params.l }}', T: 'a ${{ env.HOME }} $HOME', Y: yes, F: 3.10}}]",
			[]string{"F=3.10", `L=["a","b"]`, "N=3", "T=a /h $HOME", "Y=yes"}},
	}.run(t, func(s *step.Spec) any { return first(s).Env })
}

// TestEnvironmentNotes: what is noted of an environment beside its values.
func TestEnvironmentNotes(t *testing.T) {
	type notes struct {
		inherits        bool
		declared, unset []string
		path            string
	}
	rows{
		{"nothing is said", `steps: [{spawn: [x]}]`, notes{inherits: true, path: "/bin:/usr/bin"}},
		{"env", `steps: [{spawn: [x], env: {A: "1"}}]`, notes{declared: []string{"A"}, path: "/bin:/usr/bin"}},
		{"a PATH of its own", `steps: [{spawn: [x], env: {PATH: /mine}}]`, notes{declared: []string{"PATH"}, path: "/mine"}},
		{"an empty PATH", `steps: [{spawn: [x], env: {PATH: ""}}]`, notes{declared: []string{"PATH"}}},
		{"all levels", "env: {A: a}\nunset: [U]\nsteps: [{extendEnv: true, env: {B: b}, unset: [V], pipe: [{spawn: [x], env: {A: c}}, {spawn: [y]}]}]",
			notes{true, []string{"A", "B", "A"}, []string{"U", "V"}, "/bin:/usr/bin"}},
		{"unset PATH", `steps: [{spawn: [x], unset: [PATH]}]`, notes{true, nil, []string{"PATH"}, "/bin:/usr/bin"}},
	}.run(t, func(s *step.Spec) any {
		st := first(s)
		return notes{st.Inherits, st.Declared, st.Unset, st.Path}
	})
}

// TestSharedEnvironment: a runner without PATH has none to look programs up in,
// and what is no NAME=value is left out.
func TestSharedEnvironment(t *testing.T) {
	t.Parallel()
	spec := specOf(t, `steps: [{spawn: [x]}]`, func(v *bind.Values) { v.Environ = []string{"A=1", "junk", "=C:=x", "A=2"} })
	if st := first(spec); !slices.Equal(st.Env, []string{"A=2"}) || st.Path != "" {
		t.Errorf("%q, PATH %q", st.Env, st.Path)
	}
}

// TestSecrets: a secret reaches a step that names it, and no other.
func TestSecrets(t *testing.T) {
	rows{
		{"not inherited", "secrets: [TOKEN]\nsteps: [{spawn: [x], extendEnv: [HOME]}]", []string{"HOME=/h"}},
		{"not by a glob", "secrets: [TOKEN]\nsteps: [{spawn: [x], extendEnv: ['TOK*']}]", []string{}},
		{"not by true", "secrets: [TOKEN]\nsteps: [{spawn: [x], extendEnv: true}]", []string{"EQ=a=b", "HOME=/h", "LANG=C", "LC_TIME=x", "PATH=/bin:/usr/bin"}},
		{"not where nothing is said", "secrets: [TOKEN, NOPE]\nsteps: [{spawn: [x]}]", []string{"EQ=a=b", "HOME=/h", "LANG=C", "LC_TIME=x", "PATH=/bin:/usr/bin"}},
		{"by its name", "secrets: [TOKEN]\nsteps: [{spawn: [x], extendEnv: [TOKEN]}]", []string{"TOKEN=token-12345"}},
		{"by env", "secrets: [TOKEN]\nsteps: [{spawn: [x], env: {T: '${{ env.TOKEN }}'}}]", []string{"T=token-12345"}},
	}.run(t, func(s *step.Spec) any { return first(s).Env })
}

// TestEnvFile: files of variables lie below env, and are read at each binding.
func TestEnvFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	one := write("one", "A=1\n# no\nexport B='two words'\nC=\"x\\ny\"\n")
	two := write("two", "B=over\nD=$A\n")
	write("lots", "X="+strings.Repeat("x", 9<<20))
	write("bad", "A=1\nno name\n")
	write("forbidden", "NODE_UNIQUE_ID=1\n")
	here := func(v *bind.Values) { v.Dir = dir }
	for _, tt := range []struct{ src, want string }{
		{`steps: [{spawn: [x], env: {}, envFile: ` + one + `}]`, "A=1|B=two words|C=x\ny"},
		{`steps: [{spawn: [x], env: {A: mine}, envFile: one}]`, "A=mine|B=two words|C=x\ny"},
		{`steps: [{spawn: [x], env: {}, envFile: [one, ` + two + `]}]`, "A=1|B=over|C=x\ny|D=$A"},
		{"envFile: two\nenv: {D: outer}\nsteps: [{spawn: [x], envFile: one}]", "A=1|B=two words|C=x\ny|D=outer"},
		{`steps: [{spawn: [x], extendEnv: [HOME], unset: [B, C], envFile: one}]`, "A=1|HOME=/h"},
	} {
		spec := specOf(t, tt.src, here)
		if got := strings.Join(first(spec).Env, "|"); got != tt.want {
			t.Errorf("%s\n%q, expected %q", tt.src, got, tt.want)
		}
	}
	if got := first(specOf(t, `steps: [{spawn: [x], env: {E: e}, envFile: one}]`, here)).Declared; !slices.Equal(got, []string{"A", "B", "C", "E"}) {
		t.Errorf("declared: %v", got)
	}
	for _, tt := range []struct{ file, want string }{
		{"nope", "envFile: cannot open " + dir + "/nope: no such file or directory"},
		{".", "envFile: " + dir + " is not a regular file"},
		{"lots", "envFile: cannot read " + dir + "/lots: it is larger than 8388608 bytes"},
		{"bad", "envFile " + dir + "/bad: line 2: expected NAME=VALUE"},
		{"forbidden", "envFile " + dir + "/forbidden: NODE_UNIQUE_ID is for children with a message channel only"},
		{"'${{ args[0] }}'", "envFile: ${{ args[0] }}: "},
	} {
		p := parse(t, `steps: [{spawn: [x], envFile: `+tt.file+`}]`)
		_, err := bound(t, p, values(here), bind.Look{})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("envFile %s: %v, expected %s", tt.file, err, tt.want)
		}
	}
	// Looked at before the run, a file that is not there yet is no error.
	p := parse(t, `steps: [{spawn: [x], env: {A: a}, envFile: nope}]`)
	spec, err := bound(t, p, values(here), bind.Look{AsWritten: func(bool) bool { return true }})
	if err != nil || !slices.Equal(first(spec).Env, []string{"A=a"}) {
		t.Errorf("%v, %v", spec, err)
	}
	// Inside of a root nothing outside of it is read, whatever the name.
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(one, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	open, err := safety.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	for _, name := range []string{"link", "../one", one} {
		p := parse(t, `steps: [{spawn: [x], envFile: `+name+`}]`)
		_, err := bound(t, p, values(func(v *bind.Values) { v.Dir, v.Root = root, open }), bind.Look{})
		if err == nil || !strings.HasPrefix(err.Error(), "envFile: cannot open ") {
			t.Errorf("envFile %s outside of the root: %v", name, err)
		}
	}
}

// TestArguments: what the program is given, and what people are shown.
func TestArguments(t *testing.T) {
	const l = "params: {l: {type: list, default: [a, b c]}, e: {type: list, default: []}, i: {type: int, default: 7}, s: {default: \"-x'y\"}}\n"
	rows{
		{"as written", `steps: [{spawn: [x, 3.10, yes, 0.6, 012, "~", $HOME, ""]}]`, "x|3.10|yes|0.6|012|~|$HOME|; x 3.10 yes 0.6 012 '~' '$HOME' ''"},
		{"a list is several", l + `steps: [{spawn: [x, "${{ params.l }}", z]}]`, "x|a|b c|z; x a 'b c' z"},
		{"an empty list is none", l + `steps: [{spawn: [x, "${{ params.e }}", z]}]`, "x|z; x z"},
		{"a list in text is JSON", l + `steps: [{spawn: [x, "l=${{ params.l }}"]}]`, `x|l=["a","b c"]; x 'l=["a","b c"]'`},
		{"one argument whatever it holds", l + `steps: [{spawn: [x, "${{ params.s }}", "${{ params.i }}"]}]`, `x|-x'y|7; x '-x'"'"'y' 7`},
		{"the program is an expression", l + `steps: [{spawn: ["${{ params.l[0] }}", z]}]`, "a|z; a z"},
		{"args", `steps: [{spawn: [x, "${{ args }}"]}]`, "x|one|two; x one two"},
		{"argv0", `steps: [{spawn: [x, y], argv0: "-z"}]`, "-z|y; x y"},
		{"an empty argv0", `steps: [{spawn: [x, y], argv0: ""}]`, "x|y; x y"},
		{"execFile", `steps: [{execFile: [x, y]}]`, "x|y; x y"},
		{"an escaped expression", `steps: [{spawn: [x, "$${{ a }}"]}]`, "x|${{ a }}; x '${{ a }}'"},
	}.run(t, func(s *step.Spec) any {
		st := first(s)
		if st.Program != "x" && st.Program != "a" {
			t.Errorf("program %q", st.Program)
		}
		return strings.Join(st.Args, "|") + "; " + st.Command
	}, func(v *bind.Values) { v.Args = []string{"one", "two"} })
}

// TestStdio: all kinds of descriptors, and their defaults.
func TestStdio(t *testing.T) {
	show := func(s *step.Spec) any {
		var all []string
		s.Each(func(st *step.Stage) {
			var out []string
			for _, io := range st.Stdio {
				word := string(io.Kind)
				if io.Path != "" {
					word += " " + io.Path
				}
				if io.Append {
					word += "+"
				}
				if io.Kind == step.StdioFD {
					word += fmt.Sprint(" ", io.FD)
				}
				out = append(out, word)
			}
			all = append(all, strings.Join(out, ", "))
			if st.Input != "" {
				all = append(all, "input "+st.Input)
			}
		})
		return strings.Join(all, "; ")
	}
	rows{
		{"defaults", `steps: [{spawn: [x]}]`, "ignore, pipe, pipe"},
		{"of exec", `steps: [{exec: x}]`, "ignore, pipe, pipe"},
		{"inherit", `steps: [{spawn: [x], stdio: inherit}]`, "inherit, inherit, inherit"},
		{"ignore", `steps: [{spawn: [x], stdio: ignore}]`, "ignore, ignore, ignore"},
		{"pipe, but for stdin", `steps: [{spawn: [x], stdio: [ignore, pipe, pipe]}]`, "ignore, pipe, pipe"},
		{"a short list", `steps: [{spawn: [x], stdio: [inherit]}]`, "inherit, pipe, pipe"},
		{"a name above a list", `steps: [{spawn: [x], stdio: [inherit, ignore, ignore], stdout: pipe}]`, "inherit, pipe, ignore"},
		{"files", `steps: [{spawn: [x], cwd: sub, stdin: {file: in}, stdout: {file: /o}, stderr: {file: ../e, append: true}}]`, "file /d/sub/in, file /o, file /d/e+"},
		{"a file by an expression", "params: {f: {type: path, default: in}}\nsteps: [{spawn: [x], cwd: sub, stdin: {file: '${{ params.f }}'}}]", "file /d/in, pipe, pipe"},
		{"descriptors of the runner", `steps: [{spawn: [x], stdio: [{fd: 0}, {fd: 1}, {fd: 2}, {fd: 7}, inherit, ignore, {file: f}]}]`, "fd 0, fd 1, fd 2, fd 7, inherit, ignore, file /d/f"},
		{"one beyond that is not open", `steps: [{spawn: [x], stdio: [ignore, pipe, pipe, null, ignore]}]`, "ignore, pipe, pipe, , ignore"},
		{"2>&1", `steps: [{spawn: [x], stderr: stdout}]`, "ignore, pipe, stdout"},
		{"input", `steps: [{spawn: [x], input: "a ${{ env.HOME }}"}]`, "input, pipe, pipe; input a /h"},
		{"of a pipe", `steps: [{stdin: inherit, stdout: {file: o}, stderr: ignore, pipe: [{spawn: [x]}, {spawn: [y]}]}]`, "inherit, pipe, ignore; ignore, file /d/o, ignore"},
		{"input of a pipe", `steps: [{input: text, pipe: [{spawn: [x]}, {spawn: [y]}]}]`, "input, pipe, pipe; input text; ignore, pipe, pipe"},
	}.run(t, show)
}

// TestBuffers: what is kept of output, and how.
func TestBuffers(t *testing.T) {
	mib := int64(1 << 20)
	keep := func(n int64, o step.Overflow) *step.Keep { return &step.Keep{Max: n, Overflow: o} }
	rows{
		{"spawn keeps nothing", `steps: [{spawn: [x]}]`, (*step.Keep)(nil)},
		{"exec", `steps: [{exec: x}]`, keep(mib, step.OverflowSpill)},
		{"execFile", `steps: [{execFile: [x]}]`, keep(mib, step.OverflowSpill)},
		{"a size", `steps: [{execFile: [x], maxBuffer: 64KiB}]`, keep(64<<10, step.OverflowSpill)},
		{"nothing in memory", `steps: [{execFile: [x], maxBuffer: 0, onOverflow: spill}]`, keep(0, step.OverflowSpill)},
		{"kill", `steps: [{execFile: [x], onOverflow: kill}]`, keep(mib, step.OverflowKill)},
		{"truncate", `steps: [{exec: x, onOverflow: truncate}]`, keep(mib, step.OverflowTruncate)},
		{"a service keeps nothing", `steps: [{exec: x, background: true}]`, (*step.Keep)(nil)},
		{"a job keeps nothing", `steps: [{exec: x, detached: true, unref: true}]`, (*step.Keep)(nil)},
	}.run(t, func(s *step.Spec) any { return first(s).Keep })
	t.Run("in the foreground", func(t *testing.T) {
		spec := specOf(t, `steps: [{exec: x, detached: true, unref: true}]`, func(v *bind.Values) { v.Foreground = true })
		if first(spec).Keep == nil || spec.Job != nil {
			t.Errorf("%+v", spec)
		}
	})
}

// TestEnds: who a stage runs as, and how it is ended.
func TestEnds(t *testing.T) {
	type ends struct {
		uid, gid    any
		sig         syscall.Signal
		after       time.Duration
		drain       time.Duration
		sigpipe     bool
		codes       []int
		limit, idle time.Duration
	}
	def := ends{nil, nil, syscall.SIGTERM, 5 * time.Second, time.Second, false, nil, 0, 0}
	with := func(f func(*ends)) ends { e := def; f(&e); return e }
	rows{
		{"defaults", `steps: [{spawn: [x]}]`, def},
		{"uid", `steps: [{spawn: [x], uid: 7}]`, with(func(e *ends) { e.uid = uint32(7) })},
		{"uid 0 and gid", `steps: [{spawn: [x], uid: 0, gid: 8}]`, with(func(e *ends) { e.uid, e.gid = uint32(0), uint32(8) })},
		{"of the step", `steps: [{uid: 7, killSignal: SIGINT, killAfter: 2s, drain: 0, sigpipe: fail, pipe: [{spawn: [x]}, {spawn: [y]}]}]`,
			with(func(e *ends) {
				e.uid, e.sig, e.after, e.drain, e.sigpipe = uint32(7), syscall.SIGINT, 2*time.Second, 0, true
			})},
		{"the stage wins", `steps: [{killSignal: INT, killAfter: 0, sigpipe: fail, pipe: [{spawn: [x], killSignal: HUP, killAfter: 1m, sigpipe: ok}, {spawn: [y]}]}]`,
			with(func(e *ends) { e.sig, e.after = syscall.SIGHUP, time.Minute })},
		{"never killed", `steps: [{spawn: [x], killAfter: 0}]`, with(func(e *ends) { e.after = 0 })},
		{"codes", `steps: [{spawn: [x], successCodes: [1, 255]}]`, with(func(e *ends) { e.codes = []int{1, 255} })},
		{"times", `steps: [{spawn: [x], timeout: 1m30s, idleTimeout: 300ms}]`, with(func(e *ends) { e.limit, e.idle = 90*time.Second, 300*time.Millisecond })},
	}.run(t, func(s *step.Spec) any {
		st := first(s)
		e := ends{nil, nil, st.KillSignal, st.KillAfter, st.Drain, st.SigpipeFails, st.SuccessCodes, s.Timeout, s.IdleTimeout}
		if st.UID != nil {
			e.uid = *st.UID
		}
		if st.GID != nil {
			e.gid = *st.GID
		}
		return e
	})
}

// TestOfTheStep: what holds for the step as a whole.
func TestOfTheStep(t *testing.T) {
	rows{
		{"sync", `steps: [{name: a, spawn: [x]}]`, []any{"a", false, false, false}},
		{"async is held", "mode: async\nsteps: [{spawn: [x]}]", []any{"#1 x", true, false, false}},
		{"a service", `steps: [{name: a, background: true, spawn: [x]}]`, []any{"a", false, true, false}},
		{"a job", `steps: [{name: a, detached: true, spawn: [x]}]`, []any{"a", false, false, true}},
	}.run(t, func(s *step.Spec) any { return []any{s.Label, s.Held, s.Service != nil, s.Job != nil} })
}

// TestTee: branches are chains or files, in the folder of the tee.
func TestTee(t *testing.T) {
	t.Parallel()
	spec := specOf(t, `
params: {f: {type: path, default: p}}
steps:
  - cwd: sub
    pipe:
      - {spawn: [x]}
      - tee:
          - {spawn: [a]}
          - [{spawn: [b]}, {exec: c}]
          - {file: out, append: true}
          - {file: "/abs/${{ params.f }}"}
          - [{spawn: [d]}, {spawn: [e], stdout: {file: deep}}]
      - {spawn: [y]}`)
	var shown []string
	var show func(prefix string, stages []step.Stage)
	show = func(prefix string, stages []step.Stage) {
		for i := range stages {
			if stages[i].Tee == nil {
				shown = append(shown, prefix+stages[i].Command)
			}
			for _, b := range stages[i].Tee {
				if b.File != "" {
					shown = append(shown, fmt.Sprint(prefix, b.File, " ", b.Append))
				}
				show(prefix+">", b.Chain)
			}
		}
	}
	show("", spec.Stages)
	want := "x|>a|>b|>c|/d/sub/out true|/abs//d/p false|>d|>e|y"
	if got := strings.Join(shown, "|"); got != want {
		t.Errorf("%s\nexpected %s", got, want)
	}
	if st := spec.Stages[1]; st.Args != nil || st.Stdio != nil || st.Env != nil {
		t.Errorf("the tee is a process: %+v", st)
	}
	var files []string
	spec.Files(func(path string, reads bool) { files = append(files, fmt.Sprint(path, reads)) })
	if got := strings.Join(files, " "); got != "/d/sub/outfalse /abs//d/pfalse /d/sub/deepfalse" || spec.Processes() != 7 {
		t.Errorf("%s, %d processes", got, spec.Processes())
	}
}
