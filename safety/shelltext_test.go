package safety_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"github.com/pipe-runner/pipe/safety"
)

// payloads are values that would run code, or be changed, if they were text.
// Each tries to create the file M.
var payloads = []string{
	"plain", "", " ", "two words", "a\nb", "-n", "--help", "*", "~", "$HOME", "`touch M`", "$(touch M)", "; touch M;", "| touch M", "& touch M",
	"' ; touch M; '", `" ; touch M; "`, `'"$(touch M)"'`, "\n touch M\n", "EOF\ntouch M\n", "\nEOF\ntouch M", "} ; touch M; {", ") ; touch M; (", "a[$(touch M)]",
	"x=1 touch M", "if", "FOO=bar", "{a,b}", "\\", `\$(touch M)`, "!!", "#c", ">M", "<M", "=ls", "%s%n", "ü€\xff", "\r", "\t tab", "a\n\n", "]] && touch M", "esac; touch M", "\x01\x02",
}

// split makes pieces and holes of a text with ⟨⟩ for holes.
func split(text string) (pieces, holes []string, kinds []safety.Kind) {
	pieces = strings.Split(text, "⟨⟩")
	for range len(pieces) - 1 {
		holes = append(holes, "${{ v }}")
		kinds = append(kinds, safety.KindAny)
	}
	return pieces, holes, kinds
}

// contexts print the value between < and > and nothing else.
var contexts = []struct{ name, text, only string }{
	{"bare", `printf '<%s>' ⟨⟩`, ""},
	{"part", `printf '<%s>' ⟨⟩""`, ""},
	{"double", `printf '<%s>' "⟨⟩"`, ""},
	{"single", `printf '<%s>' '⟨⟩'`, ""},
	{"dollar", `printf '<%s>' $'⟨⟩'`, "bash mksh zsh builtin"},
	{"assign", `x=⟨⟩; printf '<%s>' "$x"`, ""},
	{"assign double", `x="⟨⟩"; printf '<%s>' "$x"`, ""},
	{"prefix", `x=⟨⟩ sh -c 'printf "<%s>" "$x"'`, ""},
	{"export", `export x=⟨⟩; sh -c 'printf "<%s>" "$x"'`, ""},
	{"subst", `printf '<%s' "$(printf '%s' ⟨⟩; printf x)" | sed '$s/x$/>/' | tr -d '\000'`, "bash dash mksh zsh"},
	{"backquote", "printf '%s' `printf '<%s>' ⟨⟩ >out`; cat out", ""},
	{"heredoc", "cat <<EOF | sed '$d' | head -c -1\n<⟨⟩>\n\nEOF", ""},
	{"heredoc quoted", "cat <<'EOF' | sed '$d' | head -c -1\n<⟨⟩>\n\nEOF", ""},
	{"heredoc escapes", "cat <<'EOF' | sed '1d;$d' | head -c -1\n$HOME `x` \\\\ \"\n<⟨⟩>\n\nEOF", ""},
	{"default", `printf '<%s>' "${unset_x:-⟨⟩}"`, ""},
	{"default bare", `printf '<%s>' ${unset_x:-⟨⟩}`, "bash dash mksh"},
	{"default assign", `x=${unset_x:-⟨⟩}; printf '<%s>' "$x"`, ""},
	{"case word", `case ⟨⟩ in no-such) ;; *) printf '<%s>' "⟨⟩";; esac`, ""},
	{"case pattern", `case "$1" in ⟨⟩) printf '<%s>' "$1";; *) echo other;; esac`, ""},
	{"test ==", `[[ "$1" == ⟨⟩ ]] && printf '<%s>' ⟨⟩`, "bash mksh zsh builtin"},
	{"for", `for x in ⟨⟩; do printf '<%s>' "$x"; done`, ""},
	{"array", `a=(⟨⟩); printf '<%s>' "${a[@]}"`, "bash mksh zsh builtin"},
	{"glued", `p=; printf '<%s>' "$p⟨⟩"`, ""},
	{"glued bare", `p=; printf '<%s>' $p⟨⟩`, ""},
	{"function", `f() { printf '<%s>' "$@"; }; f ⟨⟩`, ""},
	{"nested", `printf '<%s>' "$(echo "$(printf '%s' "a" '⟨⟩' >/dev/null)")⟨⟩"`, ""},
}

func dialect(shell string) safety.Dialect {
	if shell == "builtin" {
		return safety.DialectEmbedded
	}
	return safety.DialectOf(shell)
}

type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string { return l.b.String() }

// runShell runs bound text in a shell with the value as $1.
func runShell(t *testing.T, shell, dir, text string, vars []safety.Var, arg string) string {
	t.Helper()
	out, errs := &locked{}, &locked{} // the stages of a pipe write at once
	if shell != "builtin" {
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, []byte(safety.Assignments(vars)+text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(shell, path, arg)
		c.Dir, c.Stdout, c.Stderr = dir, out, errs
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
		if err := c.Run(); err != nil {
			t.Logf("%v\n%s", err, errs.String())
		}
		return out.String()
	}
	tree, err := syntax.NewParser().Parse(strings.NewReader(text), "")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	for _, v := range vars {
		env = append(env, v.Name+"="+v.Value)
	}
	r, err := interp.New(interp.Env(expand.ListEnviron(env...)), interp.Dir(dir), interp.StdIO(nil, out, errs), interp.Params("--", arg))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(context.Background(), tree); err != nil {
		t.Logf("%v\n%s", err, errs.String())
	}
	return out.String()
}

// TestContexts: in every context and shell each payload is printed byte for
// byte, and none runs (row 101).
func TestContexts(t *testing.T) {
	for _, shell := range []string{"builtin", "bash", "dash", "mksh", "zsh"} {
		t.Run(shell, func(t *testing.T) {
			if shell != "builtin" {
				if _, err := exec.LookPath(shell); err != nil {
					t.Skipf("%s is not installed", shell)
				}
			}
			t.Parallel()
			for _, c := range contexts {
				if c.only != "" && !strings.Contains(c.only, shell) {
					continue
				}
				pieces, holes, kinds := split(c.text)
				st, err := safety.ParseShell(pieces, holes, kinds, dialect(shell))
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
					continue
				}
				for _, p := range payloads {
					dir := t.TempDir()
					values := make([]safety.Value, len(holes))
					for i := range values {
						values[i].Text = p
					}
					text, vars, err := st.Bind(values)
					if err != nil {
						t.Errorf("%s: %v", c.name, err)
						continue
					}
					got := runShell(t, shell, dir, text, vars, p)
					if want := "<" + p + ">"; got != want {
						t.Errorf("%s: value %q\ntext %s\ngave %q", c.name, p, text, got)
					}
					if _, err := os.Stat(filepath.Join(dir, "M")); err == nil {
						t.Errorf("%s: value %q ran as code", c.name, p)
					}
				}
			}
		})
	}
}

// TestRefused: places without a safe form, with a part of what is said.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"⟨⟩ x", "name of a command"},
		{"./⟨⟩/x", "name of a command"},
		{`"⟨⟩"`, "name of a command"},
		{"echo a # ⟨⟩", "comment"},
		{"cat <<⟨⟩\nx\n⟨⟩", "unclosed here-document"},
		{"echo $⟨⟩", "name of a variable"},
		{"echo ${⟨⟩}", "name of a variable"},
		{"echo ${x⟨⟩:-1}", "name of a variable"},
		{"⟨⟩=1", "name of a variable"},
		{"eval ⟨⟩", "eval reads"},
		{"eval 'echo ⟨⟩'", "eval reads"},
		{`eval "$(echo ⟨⟩)"`, "eval reads"},
		{". ⟨⟩", ". reads"},
		{"alias x=⟨⟩", "alias reads"},
		{"trap '⟨⟩' EXIT", "trap reads"},
		{"printf -v ⟨⟩ x", "name of a variable"},
		{"printf ⟨⟩ x", "format of printf"},
		{"read ⟨⟩", "names of variables"},
		{"unset ⟨⟩", "names of variables"},
		{"export ⟨⟩", "name of a variable"},
		{"declare ⟨⟩=1", "name of a variable"},
		{"sh -c ⟨⟩", "sh reads"},
		{"sh -c 'echo ⟨⟩'", "sh -c reads"},
		{`timeout 5 bash -ec "echo ⟨⟩"`, "bash -c reads"},
		{`find . -exec sh -c 'echo ⟨⟩' \;`, "sh -c reads"},
		{"awk '{print \"⟨⟩\"}'", "awk reads"},
		{`ssh host "ls ⟨⟩"`, "ssh hands"},
		{"[[ x =~ ⟨⟩ ]]", "=~"},
		{"[[ -v ⟨⟩ ]]", "-v expects"},
		{"[ -v ⟨⟩ ]", "-v expects"},
		{"[ ⟨⟩ x ]", "operator"},
		{"echo ${x//⟨⟩/y}", "no safe form"},
		{"echo >&⟨⟩", "descriptor"},
		{"f⟨⟩() { :; }", "name"},
		{"for ⟨⟩ in a; do :; done", "name of a variable"},
		{"echo $((1⟨⟩))", "stands alone"},
		{"echo \"`echo ⟨⟩`\"", "write $(…)"},
		{"set ⟨⟩", "write set --"},
		{"echo ${x#⟨⟩}", "no safe form"},
		{"echo ${x:-⟨⟩}", "double quotes around"},
		{"echo 'a", "closing quote"},
		{`"${CC:-⟨⟩}" M`, "name of a command"},
		{`echo $(( ${n:-⟨⟩} + 1 ))`, "stands alone"},
		{"command eval ⟨⟩", "eval reads"},
		{"builtin eval ⟨⟩", "eval reads"},
		{"command printf -v ⟨⟩ x", "name of a variable"},
		{"builtin unset ⟨⟩", "names of variables"},
		{"command set ⟨⟩", "write set --"},
		{"command ⟨⟩ M", "name of a command"},
		{"exec ⟨⟩ M", "name of a command"},
		{"timeout 5 ⟨⟩ M", "name of a command"},
		{"env ⟨⟩", "by env"},
		{"echo M | xargs ⟨⟩", "name of a command"},
		{`find . -exec ⟨⟩ M \;`, "name of a command"},
		{"ssh ⟨⟩ uptime", "option of ssh"},
		{"python3 ⟨⟩", "option of python3"},
		{"sh ⟨⟩ 'touch M'", "option of sh"},
		{"declare -i x=⟨⟩", "evaluated when it is set"},
		{"declare -i n; n+=⟨⟩", "evaluated when it is set"},
		{"declare -i n; for n in ⟨⟩; do :; done", "evaluated when it is set"},
		{"declare -n r=⟨⟩", "evaluated when it is set"},
		{`declare -a x="⟨⟩"`, "list of an array"},
		{`a=(); declare a="⟨⟩"`, "list of an array"},
		{"RANDOM=⟨⟩", "evaluated when it is set"},
		{"COLUMNS=⟨⟩ ls", "evaluated when it is set"},
		{"PS4=⟨⟩", "evaluated when it is set"},
		{"printf -v⟨⟩ x", "name of a variable"},
		{`printf "hello ⟨⟩\n"`, "format of printf"},
		{"printf -- ⟨⟩", "format of printf"},
		{`sh {-c,⟨⟩}`, "quote the braces"},
		{"sh $S -c ⟨⟩", "sh -c reads"},
		{`"$BASH" -c ⟨⟩`, "reads this argument"},
		{"sh <<EOF\necho ⟨⟩\nEOF", "as its program"},
		{`sh <<<"echo ⟨⟩"`, "as its program"},
		{"cat <<'EOF' | sh\n⟨⟩\nEOF", "read as a program"},
		{`echo "⟨⟩" | bash -s`, "read as a program"},
		{`printf '[%s]' ${x:-"⟨⟩"}`, "double quotes around"},
		{`echo \⟨⟩ x`, "backslash"},
		{"bash -e <<EOF\necho ⟨⟩\nEOF", "as its program"},
		{"bash -euo pipefail <<EOF\necho ⟨⟩\nEOF", "as its program"},
		{"ssh host bash -s <<EOF\ncd ⟨⟩\nEOF", "as its program"},
		{"ssh host 'bash -s' <<EOF\ncd ⟨⟩\nEOF", "as its program"},
		{"timeout 5 bash <<EOF\n⟨⟩\nEOF", "as its program"},
		{"docker run -i x sh <<EOF\n⟨⟩\nEOF", "as its program"},
		{"sudo su - u <<EOF\n⟨⟩\nEOF", "as its program"},
		{"(bash) <<EOF\n⟨⟩\nEOF", "as its program"},
		{`echo "echo ⟨⟩" | (cd . && sh)`, "read as a program"},
		{`echo "echo ⟨⟩" | env bash`, "read as a program"},
		{"f() { bash; }; echo ⟨⟩ | f", "read as a program"},
		{". /dev/stdin <<EOF\n⟨⟩\nEOF", "as its program"},
		{"sh <<EOF\necho $(printf %s \"⟨⟩\")\nEOF", "as its program"},
		{`bash < <(echo "echo ⟨⟩")`, "as its program"},
		{`bash <(echo "echo ⟨⟩")`, "read as a program"},
		{"python3 -W ignore <<EOF\n⟨⟩\nEOF", "as its program"},
		{"perl -Mstrict <<EOF\n⟨⟩\nEOF", "as its program"},
		{`sh -c "$HOME/nope ⟨⟩"`, "sh -c reads"},
		{`bash -c "$(echo ⟨⟩)"`, "bash -c reads"},
		{`echo ⟨⟩ | xargs -I{} sh -c "echo {}"`, "read as a program"},
		{`echo ⟨⟩ | xargs -d x sh -c`, "read as a program"},
		{"$EDITOR ⟨⟩", "come to nothing"},
		{"env $X ⟨⟩", "come to nothing"},
		{`retry() { "$@"; }; retry bash -c "echo ⟨⟩"`, "bash -c reads"},
		{`S=env; $S bash -lc "echo ⟨⟩"`, "bash -c reads"},
		{"gosu u bash -c ⟨⟩", "bash -c reads"},
		{`parallel "echo ⟨⟩" ::: a`, "reads this argument"},
		{"perl -pe 's/a/b/' -- ⟨⟩", "ends in |"},
		{"command declare -i x=⟨⟩", "may evaluate"},
		{`o=-i; declare $o x=⟨⟩`, "evaluate"},
		{`a[0]=x; declare a="⟨⟩"`, "list of an array"},
		{`read -ra a <<<"x y"; declare a="⟨⟩"`, "list of an array"},
		{"f=-v; [ $f ⟨⟩ ]", "operator"},
		{"node --loader=⟨⟩ x.js", "node --loader reads"},
		{`local "x=⟨⟩"`, "quotes behind the ="},
	} {
		pieces, holes, kinds := split(tt.text)
		_, err := safety.ParseShell(pieces, holes, kinds, safety.DialectEmbedded)
		if tt.want == "sh reads" {
			tt.want = "sh -c reads"
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; expected %q", tt.text, err, tt.want)
		}
	}
}

// TestAllowed: ordinary text that must not be refused.
func TestAllowed(t *testing.T) {
	for _, text := range []string{
		"cat <<EOF\n{\"version\": \"⟨⟩\", \"b\": 1}\nEOF", "cat <<'EOF'\nserver { listen ⟨⟩, x; }\nEOF", "echo {}/⟨⟩", `x={⟨⟩,b}`,
		`python3 "$DIR/tool.py" ⟨⟩`, `bash "$DIR/deploy.sh" "⟨⟩"`, "command -v ⟨⟩", "ssh -- ⟨⟩ uptime", "sudo FOO=⟨⟩ make", `read -rp "⟨⟩" x`,
		"while read -r l; do echo \"$l\"; done <<EOF\n⟨⟩\nEOF", "ssh h 'cat >file' <<EOF\n⟨⟩\nEOF", "bash script.sh <<EOF\n⟨⟩\nEOF", "psql <<EOF\n⟨⟩\nEOF",
		"echo ⟨⟩ | tee f | wc -l", "perl -pi -e 's/a/b/' -- ⟨⟩", "echo ⟨⟩ | xargs -n1 rm --", "$SUDO rm -- ⟨⟩",
		"sh ./⟨⟩ x", "python3 script.py ⟨⟩", "ssh user@⟨⟩ uptime", "env A=⟨⟩ make", "timeout ⟨⟩ make", "bash -c 'echo \"$1\"' sh ⟨⟩",
		"[[ ⟨⟩ =~ ^[0-9]+$ ]]", "cat <<'E-F'\n⟨⟩\nE-F", `read -p "⟨⟩" x`, "printf '%s %d\\n' ⟨⟩ ⟨⟩", "export PATH=⟨⟩:$PATH", "awk -v x=⟨⟩ '{print x}' ⟨⟩",
		"docker run img ls ⟨⟩", "git log -- bash -c ⟨⟩", "echo sh -c ⟨⟩", "python3 x.py <<EOF\n⟨⟩\nEOF", "echo ⟨⟩ | sh ./script", "grep -r ⟨⟩ .",
		"if [ ⟨⟩ = x ]; then echo; fi", "[ -f ⟨⟩ ]", "test -n ⟨⟩", "echo $(( $(wc -l <⟨⟩) + 1 ))", "find ⟨⟩ -name ⟨⟩ -exec rm {} +", "a[⟨⟩]=x", "${CC:-cc} ⟨⟩", `"$EDITOR" ⟨⟩`,
	} {
		pieces, holes, kinds := split(text)
		if _, err := safety.ParseShell(pieces, holes, kinds, safety.DialectBash); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRawBeside: a raw value beside another takes nothing from what is said of
// that one.
func TestRawBeside(t *testing.T) {
	_, err := safety.ParseShell([]string{"eval ", "", ""}, []string{"r", "v"}, []safety.Kind{safety.KindRaw, safety.KindAny}, safety.DialectEmbedded)
	if err == nil || !strings.Contains(err.Error(), "eval reads") {
		t.Errorf("%v", err)
	}
	st, err := safety.ParseShell([]string{"echo ", " ", ""}, []string{"r", "v"}, []safety.Kind{safety.KindRaw, safety.KindAny}, safety.DialectEmbedded)
	if err != nil {
		t.Fatal(err)
	}
	text, vars, err := st.Bind([]safety.Value{{Text: "a b"}, {Text: "c d"}})
	if err != nil || !strings.HasPrefix(text, "echo a b \"$") || len(vars) != 1 {
		t.Errorf("%s %v %v", text, vars, err)
	}
}

// TestIntegers: arithmetic takes integers only.
func TestIntegers(t *testing.T) {
	for _, text := range []string{"echo $((1-⟨⟩))", "a=(x y z); echo ${#a[⟨⟩+3]}", "x=abcdef; echo ${x:⟨⟩+3:2}", "[[ 5 -gt ⟨⟩ ]] && echo 4"} {
		pieces, holes, kinds := split(text)
		st, err := safety.ParseShell(pieces, holes, kinds, safety.DialectBash)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, _, err := st.Bind([]safety.Value{{Text: "a[$(touch M)]"}}); err == nil || !strings.Contains(err.Error(), "int") {
			t.Errorf("%s: text was taken: %v", text, err)
		}
		bound, vars, err := st.Bind([]safety.Value{{Text: "-3", Int: true}})
		if err != nil {
			t.Fatal(err)
		}
		for _, shell := range []string{"builtin", "bash"} {
			if _, err := exec.LookPath("bash"); err != nil && shell == "bash" {
				continue
			}
			if got := runShell(t, shell, t.TempDir(), bound, vars, ""); text == "echo $((1-⟨⟩))" && got != "4\n" {
				t.Errorf("%s in %s: %q", bound, shell, got)
			}
		}
	}
}

// TestLists: a list alone becomes several words, also none.
func TestLists(t *testing.T) {
	for _, tt := range []struct {
		text string
		list []string
		want string
	}{
		{`printf '<%s>' a ⟨⟩ b`, []string{"x y", "$(touch M)", ""}, "<a><x y><$(touch M)><><b>"},
		{`printf '<%s>' a ⟨⟩ b`, []string{}, "<a><b>"},
		{`for x in ⟨⟩; do printf '<%s>' "$x"; done`, []string{"1", "2"}, "<1><2>"},
		{`a=(⟨⟩); printf '<%s>' "${#a[@]}"`, []string{"1", "2 3"}, "<2>"},
		{`printf '<%s>' "⟨⟩"`, []string{"1", "2"}, `<["1","2"]>`},
	} {
		pieces, holes, kinds := split(tt.text)
		st, err := safety.ParseShell(pieces, holes, kinds, safety.DialectBash)
		if err != nil {
			t.Fatal(err)
		}
		text, vars, err := st.Bind([]safety.Value{{Text: `["1","2"]`, List: tt.list}})
		if err != nil {
			t.Fatal(err)
		}
		if got := runShell(t, "builtin", t.TempDir(), text, vars, ""); got != tt.want {
			t.Errorf("%s: %q, expected %q", text, got, tt.want)
		}
	}
}

// TestPlace: positions are those of the source, whatever the marks did to it.
func TestPlace(t *testing.T) {
	_, err := safety.ParseShell([]string{"echo ", " ", "\necho 'x"}, []string{"${{ a }}", "${{\nlong }}"}, make([]safety.Kind, 2), safety.DialectBash)
	var se *safety.ShellError
	if err == nil {
		t.Fatal("no error")
	}
	if s, ok := err.(*safety.ShellError); ok {
		se = s
	}
	if se == nil || se.Place.Line != 3 || se.Place.Col != 6 {
		t.Errorf("%#v", err)
	}
}

// FuzzShellText holds the invariant: for any template and value, the tree of
// what runs is that for a harmless value.
func FuzzShellText(f *testing.F) {
	for _, c := range contexts {
		for _, p := range payloads[:12] {
			f.Add(c.text, p, uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, text, value string, d uint8) {
		if len(text) > 2000 || strings.ContainsRune(value, 0) || strings.Count(text, "(")+strings.Count(text, "{")+strings.Count(text, "`") > 100 {
			return
		}
		pieces, holes, kinds := split(text)
		st, err := safety.ParseShell(pieces, holes, kinds, safety.Dialect(d%5))
		if err != nil || len(holes) == 0 {
			return
		}
		shape := func(v string) string {
			values := make([]safety.Value, len(holes))
			for i := range values {
				values[i] = safety.Value{Text: v, Int: true}
			}
			bound, vars, err := st.Bind(values)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(safety.Assignments(vars), "\x00") {
				t.Fatal("NUL")
			}
			tree, err := syntax.NewParser(syntax.Variant([]syntax.LangVariant{syntax.LangBash, syntax.LangBash, syntax.LangPOSIX, syntax.LangMirBSDKorn, syntax.LangZsh}[d%5])).Parse(strings.NewReader(bound), "")
			if err != nil {
				t.Fatalf("bound text does not parse: %v\n%s", err, bound)
			}
			var b strings.Builder
			if err := syntax.DebugPrint(&b, tree); err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		if a, b := shape("x"), shape(value); a != b {
			t.Errorf("%q changes the tree of %q", value, text)
		}
		// The assignments are so many assignments of constants, and no more.
		_, vars, _ := st.Bind(func() []safety.Value {
			vs := make([]safety.Value, len(holes))
			for i := range vs {
				vs[i] = safety.Value{Text: strings.ToValidUTF8(value, "?"), Int: true} // the parser takes no other
			}
			return vs
		}())
		tree, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(safety.Assignments(vars)), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range tree.Stmts {
			c, ok := s.Cmd.(*syntax.CallExpr)
			if !ok || len(c.Args) > 0 || len(c.Assigns) != 1 || s.Redirs != nil {
				t.Fatalf("assignments are %s", fmt.Sprint(vars))
			}
		}
	})
}

// BenchmarkShellText: parsing a text of five values, and binding it.
func BenchmarkShellText(b *testing.B) {
	pieces, holes, kinds := split("set -e\nfor f in ⟨⟩; do\n  cp -- \"$f\" ⟨⟩/'⟨⟩'\ndone\ncat <<EOF\n⟨⟩ and ⟨⟩\nEOF\n")
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			if _, err := safety.ParseShell(pieces, holes, kinds, safety.DialectBash); err != nil {
				b.Fatal(err)
			}
		}
	})
	st, err := safety.ParseShell(pieces, holes, kinds, safety.DialectBash)
	if err != nil {
		b.Fatal(err)
	}
	values := []safety.Value{{Text: "x", List: []string{"a b", "c"}}, {Text: "/tmp"}, {Text: "$(x)"}, {Text: "y"}, {Text: "z"}}
	b.Run("bind", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := st.Bind(values); err != nil {
				b.Fatal(err)
			}
		}
	})
}
