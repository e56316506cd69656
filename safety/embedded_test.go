package safety_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pipe-runner/pipe/safety"
)

func parsed(t *testing.T, text string, d safety.Dialect) *safety.ShellText {
	t.Helper()
	pieces, holes, kinds := split(text)
	st, err := safety.ParseShell(pieces, holes, kinds, d)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return st
}

// TestLacks: what the embedded shell cannot do, with its place, and what it can.
func TestLacks(t *testing.T) {
	for text, want := range map[string]string{
		"echo ⟨⟩; umask 022":                         "umask at 1:16",
		"echo é\nkill 1; jobs":                       "kill at 2:1, jobs at 2:9",
		"coproc x":                                   "coproc at 1:1",
		"cat <(ls) >(wc)":                            "process substitution (<(…)) at 1:5, process substitution (>(…)) at 1:11",
		"read -t 1 x; read -n1 x":                    "read -t at 1:1, read -n1 at 1:14",
		"read -rs x; read -p a x; read":              "",
		"printf -v x y":                              "printf -v at 1:1",
		`printf "%q" x; printf a'%q'b`:               "printf %q at 1:1, printf %q at 1:16",
		`printf "%%q$x" y; printf`:                   "",
		"trap x INT TERM":                            "trap for signal INT at 1:1",
		"trap x EXIT ERR 0; trap - EXIT":             "",
		"(trap x EXIT); x=$(trap y EXIT)":            "trap in a subshell at 1:1, trap in a subshell at 1:18",
		"(echo $(ls))":                               "",
		"declare -i x; local -l y=1":                 "declare -i at 1:1, local -l at 1:15",
		"declare -a x; export A=b":                   "",
		`echo "${PIPESTATUS[0]}" $SHLVL`:             "$PIPESTATUS at 1:7, $SHLVL at 1:25",
		"echo >&3; echo 3>x; echo <&4":               "redirection to >&3 at 1:6, redirection of descriptor 3 at 1:16, redirection from <&4 at 1:26",
		"echo <>x; echo >|y":                         "the redirection <> at 1:6, the redirection >| at 1:16",
		"a >x 2>&1 <y >>z <<<q 2>&-; cat <<E <&-\nE": "",
	} {
		var got []string
		for _, l := range parsed(t, text, safety.DialectEmbedded).Lacks() {
			got = append(got, fmt.Sprintf("%s at %d:%d", l.What, l.Place.Line, l.Place.Col))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s\nlacks    %s\nexpected %s", text, s, want)
		}
	}
}

// TestUnquoted: expansions that become several words, with their places.
func TestUnquoted(t *testing.T) {
	for text, want := range map[string]string{
		`rm $x "$y" ${z}a '$w'`:             "$x at 3, $z at 11",
		"é=1; é ⟨⟩; ls ⟨⟩ $x":               "$x at 31",
		"for i in $(ls) $@; do :; done":     "$(…) at 9, $@ at 15",
		"x=$y; [[ $x == a ]]; echo >$f":     "",
		`echo $# $? $! $- $$ ${#x} ${x:-1}`: "$x at 26",
		"echo $((x+1)) `date`":              "$(…) at 14",
		"case $x in a) ;; esac":             "",
	} {
		show := func(d safety.Dialect) string {
			var got []string
			for _, e := range parsed(t, text, d).Unquoted() {
				got = append(got, fmt.Sprintf("%s at %d", e.Text, e.Place.Offset))
			}
			return strings.Join(got, ", ")
		}
		if s := show(safety.DialectBash); s != want {
			t.Errorf("%s\nhas      %s\nexpected %s", text, s, want)
		}
		if s := show(safety.DialectZsh); s != "" {
			t.Errorf("%s in zsh has %s", text, s)
		}
	}
}

// TestLimits: text that would overflow the stack of the parser is refused, in
// every dialect.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		d          safety.Dialect
	}{
		{strings.Repeat("(", 1001), "opens more than 1000 constructs", safety.DialectEmbedded},
		{strings.Repeat("(", 1<<20), "opens more than 1000 constructs", safety.DialectBash},
		{strings.Repeat("if ", 1001), "opens more than 1000 constructs", safety.DialectPOSIX},
		{"#" + strings.Repeat("x", 256<<10), "262145 bytes; the embedded shell takes at most 262144", safety.DialectEmbedded},
		{"#" + strings.Repeat("x", 256<<10), "", safety.DialectBash},
		{strings.Repeat("(case x in a) ", 1001), "opens more than 1000 constructs", safety.DialectBash},
		{strings.Repeat("case x in a) ;; esac; ", 1000) + strings.Repeat("(", 1001), "opens more than 1000 constructs", safety.DialectBash},
		{strings.Repeat("! ", 1001), "opens more than 1000 constructs", safety.DialectBash},
		{"#" + strings.Repeat("x", 1<<20), "1048577 bytes; one with values has at most 1048576", safety.DialectBash},
		{strings.Repeat("! [ ! -f x ];\n", 2000), "", safety.DialectBash},
		{strings.Repeat("x=$(for i in a; do echo; done)\n", 2000), "", safety.DialectBash},
		{strings.Repeat("(true);", 2000), "", safety.DialectEmbedded},
		{strings.Repeat("if true; then true; fi; ", 2000), "", safety.DialectBash},
	} {
		_, err := safety.ParseShell([]string{tt.text}, nil, nil, tt.d)
		var se *safety.ShellError
		if (err == nil) != (tt.want == "") || err != nil && (!errors.As(err, &se) || !strings.Contains(se.Msg, tt.want) || se.Hole >= 0) {
			t.Errorf("%.20s…: %v; expected %q", tt.text, err, tt.want)
		}
	}
}

func TestDialectOf(t *testing.T) {
	for shell, want := range map[string]safety.Dialect{
		"builtin": safety.DialectEmbedded, "/usr/bin/bash": safety.DialectBash, "zsh": safety.DialectZsh,
		"/bin/mksh": safety.DialectMksh, "sh": safety.DialectPOSIX, "/bin/dash": safety.DialectPOSIX, "fish": safety.DialectPOSIX,
	} {
		if got := safety.DialectOf(shell); got != want {
			t.Errorf("%s: %d", shell, got)
		}
	}
}
