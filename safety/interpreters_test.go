package safety_test

import (
	"strings"
	"testing"

	"github.com/pipe-runner/pipe/safety"
)

// arguments makes arguments of words: one with ⟨⟩ holds a value there.
func arguments(line string) []safety.Arg {
	var out []safety.Arg
	for _, w := range strings.Split(line, "|") {
		text, _, dynamic := strings.Cut(w, "⟨⟩")
		out = append(out, safety.Arg{Text: text, Dynamic: dynamic})
	}
	return out
}

// TestProgramText: the argument that an interpreter reads as a program, by its
// place, or -1.
func TestProgramText(t *testing.T) {
	for line, want := range map[string]int{
		"sh|-c|⟨⟩": 2, "sh|-c|echo \"$1\"|sh|⟨⟩": -1, "sh|script|⟨⟩": -1, "bash|-euo|pipefail|-c|x⟨⟩": 4, "bash|--rcfile|x|-c|⟨⟩": 4,
		"bash|-c⟨⟩": 1, "sh|-c|--|⟨⟩": 3, "sh|--|⟨⟩": -1, "/usr/bin/dash|+x|-c|⟨⟩": 3, "sh|⟨⟩": -1,
		"python3|-c|⟨⟩": 2, "python3.12|-c⟨⟩": 1, "python3|-c|x|⟨⟩": -1, "python3|x.py|⟨⟩": -1, "python3|-W|⟨⟩": -1, "python3|-m|⟨⟩": 2,
		"perl|-e|⟨⟩": 2, "perl|-ne|⟨⟩": 2, "perl|-pe|s/a/b/|⟨⟩": 3, "perl|-pi|-e|s/a/b/|⟨⟩": -1, "perl|-M⟨⟩": 1, "perl|-n|--|⟨⟩": 3, "perl|x.pl|⟨⟩": -1,
		"ruby|-e|⟨⟩": 2, "ruby|-I|x|-e|⟨⟩": 4, "lua|-e⟨⟩": 1, "php|-r|⟨⟩": 2, "php|--run|⟨⟩": 2, "php|--process-code=⟨⟩": 1,
		"node|-e|⟨⟩": 2, "node|--eval=⟨⟩": 1, "node|--require|x|--print|⟨⟩": 4, "node|x.js|⟨⟩": -1, "nodejs|-p|⟨⟩": 2, "node|--title|⟨⟩": -1,
		"awk|⟨⟩": 1, "awk|-v|x=⟨⟩|{print x}|⟨⟩": -1, "gawk|-f|x.awk|⟨⟩": -1, "awk|--source|⟨⟩": 2, "awk|-e⟨⟩": 1, "awk|--|⟨⟩": 2, "awk|--|x|⟨⟩": -1, "awk|-F|⟨⟩|{}": -1, "awk|-fx|⟨⟩": -1, "awk|-i|⟨⟩": 2,
		"ssh|host|ls|⟨⟩": 3, "ssh|⟨⟩": -1, "ssh|-o|⟨⟩|host": 2, "ssh|-oProxyCommand=⟨⟩|h": 1, "ssh|-p|22|host|⟨⟩": 4, "ssh|host": -1,
		"su|u|-c|⟨⟩": 3, "su|-c⟨⟩|u": 1, "su|--command=⟨⟩": 1, "su|--command|⟨⟩": 2, "su|⟨⟩": -1, "runuser|-u|x|-c|⟨⟩": 4,
		"env|A=⟨⟩|make": -1, "env|A=b|sh|-c|⟨⟩": 4, "env|-u|X|-i|sh|-c|⟨⟩": 6, "env|-S|⟨⟩": 2, "env|-S|sh -c|⟨⟩": 3, "env|-Ssh -c|⟨⟩": 2, "env|--split-string=sh -c|⟨⟩": 2, "env|--split-string|sh -c|⟨⟩": 3, "env|--unset|X|--|sh|-c|⟨⟩": 6, "env|-S|ls|⟨⟩": -1, "env": -1, "env|-S⟨⟩": 1,
		"timeout|5|sh|-c|⟨⟩": 4, "timeout|-k|1|5|sh|-c|⟨⟩": 6, "timeout|--kill-after|1|5|sh|-c|⟨⟩": 6, "nice|-n|5|sh|-c|⟨⟩": 5, "nohup|--|sh|-c|⟨⟩": 4, "sudo|-u|x|A=b|sh|-c|⟨⟩": 6, "xargs|-n|1|sh|-c|⟨⟩": 5, "time|-|ls|⟨⟩": -1,
		"command|-v|⟨⟩": -1, "command|sh|-c|⟨⟩": 3, "chroot|/x|sh|-c|⟨⟩": 4, "taskset|1|sh|-c|⟨⟩": 4, "busybox|sh|-c|⟨⟩": 3,
		"find|.|-name|⟨⟩": -1, "find|.|-exec|sh|-c|⟨⟩|;": 5, "find|.|-exec|rm|{}|;|-exec|sh|-c|⟨⟩|;": 9, "fd|-x|sh|-c|⟨⟩": 4,
		"watch|-n|1|ls|⟨⟩": 4, "parallel|-j|4|echo|⟨⟩": 4, "script|-c|⟨⟩": 2,
		"docker|run|x|sh|-c|⟨⟩": 5, "docker|run|x|ls|⟨⟩": -1, "kubectl|exec|p|--|bash|-lc|⟨⟩": 6, "flock|f|-c|⟨⟩": 3, "nix-shell|--command|⟨⟩": 2, "docker|⟨⟩": -1,
		"ls|⟨⟩": -1, "⟨⟩": -1, "⟨⟩|-c|⟨⟩": -1, "echo|sh|-c|⟨⟩": -1,
	} {
		got, why := safety.ProgramText(arguments(line))
		if got != want || (got >= 0) != (why != "") {
			t.Errorf("%s: argument %d, expected %d (%s)", line, got, want, why)
		}
	}
	if got, _ := safety.ProgramText(nil); got != -1 {
		t.Errorf("nothing: %d", got)
	}
	deep := strings.Repeat("nohup|", 30) + "sh|-c|⟨⟩"
	if got, _ := safety.ProgramText(arguments(deep)); got != -1 {
		t.Errorf("behind 30 programs: %d", got)
	}
}
