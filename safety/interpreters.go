package safety

// This file holds the table of programs that read an argument as program text.

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Arg is one argument of a program.
type Arg struct {
	Text    string // as far as it is known: the constant beginning of one that is not
	Dynamic bool   // it holds a value
}

// ProgramText finds the first argument that holds a value and that a known
// interpreter would read as program text, directly or behind programs that
// start others. It returns -1 where there is none, and else the place of the
// argument and what to write instead.
//
// The interpreters are those of language.md: shells, python, perl, ruby, node,
// php, lua, awk, ssh and su; behind env, timeout, nice, nohup, setsid, stdbuf,
// sudo, doas, chroot, time, command, exec, xargs, find -exec and busybox.
// ProgramText has no state and may be called by several goroutines at once.
func ProgramText(args []Arg) (at int, why string) { return programText(args, 0, 0) }

// programName returns the last part of a program's path.
func programName(p string) string { return path.Base(p) }

var (
	shells     = []string{"sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "lksh", "ash", "fish", "rbash", "rzsh", "yash", "tcsh", "csh"}
	versioned  = regexp.MustCompile(`^(python|perl|ruby|lua|php|node|tclsh)[0-9.]*$`)
	evalFlags  = map[string]string{"python": "c", "perl": "eE", "ruby": "e", "lua": "e", "php": "rBRE", "node": "ep"}
	longEval   = map[string][]string{"node": {"--eval", "--print"}, "php": {"--run"}}
	assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

	// wrappers start another program; the value lists the options that take an
	// argument of their own, and how many words stand before the program.
	wrappers = map[string]struct {
		takes string // short options with an argument
		long  []string
		skip  int
	}{
		"env":      {"uCS", []string{"--unset", "--chdir"}, 0},
		"timeout":  {"ks", []string{"--kill-after", "--signal"}, 1},
		"nice":     {"n", []string{"--adjustment"}, 0},
		"ionice":   {"cnpPu", nil, 0},
		"nohup":    {"", nil, 0},
		"setsid":   {"", nil, 0},
		"stdbuf":   {"ioe", []string{"--input", "--output", "--error"}, 0},
		"sudo":     {"ugpCchrtTUD", []string{"--user", "--group"}, 0},
		"doas":     {"uCa", nil, 0},
		"chroot":   {"", nil, 1},
		"time":     {"fo", []string{"--format", "--output"}, 0},
		"command":  {"", nil, 0},
		"exec":     {"a", nil, 0},
		"builtin":  {"", nil, 0},
		"xargs":    {"aEeIiLlnPsd", []string{"--max-args", "--max-procs", "--replace", "--delimiter", "--arg-file"}, 0},
		"busybox":  {"", nil, 0},
		"toybox":   {"", nil, 0},
		"unshare":  {"RSGw", nil, 0},
		"nsenter":  {"tSG", nil, 0},
		"strace":   {"eopsSuaEPIObX", nil, 0},
		"taskset":  {"", nil, 1},
		"flock":    {"wE", nil, 1},
		"runuser":  {"ugGs", nil, 0},
		"setpriv":  {"", nil, 0},
		"caffeine": {"", nil, 0},
	}
)

const maxWrapped = 20

func programText(args []Arg, from, depth int) (int, string) {
	if from >= len(args) || depth > maxWrapped {
		return -1, ""
	}
	name := programName(args[from].Text)
	if args[from].Dynamic && depth > 0 && args[from].Text == "" {
		return -1, "" // a program that is a value: looked at when it is known
	}
	if m := versioned.FindStringSubmatch(name); m != nil {
		name = m[1]
	}
	switch {
	case slices.Contains(shells, name):
		return evalOption(args, from, "c", nil, "[sh, -c, 'echo \"$1\"', sh, \"${{ … }}\"]")
	case evalFlags[name] != "":
		return evalOption(args, from, evalFlags[name], longEval[name], "a later argument, which the program reads from its list of arguments")
	case name == "awk" || name == "gawk" || name == "mawk" || name == "nawk":
		return awk(args, from)
	case name == "ssh" || name == "rsh":
		return remote(args, from)
	case name == "su":
		return evalOption(args, from, "c", []string{"--command"}, "an environment variable")
	case name == "script" || name == "watch":
		return joined(args, from)
	case name == "find" || name == "fd":
		return find(args, from, depth)
	}
	w, ok := wrappers[name]
	if !ok {
		return nested(args, from)
	}
	i := options(args, from+1, w.takes, w.long)
	if name == "env" {
		for k := from + 1; k < len(args); k++ {
			t := args[k].Text
			if args[k].Dynamic && (strings.HasPrefix(t, "-S") || strings.HasPrefix(t, "--split-string")) || k > from+1 && args[k].Dynamic && (args[k-1].Text == "-S" || args[k-1].Text == "--split-string") {
				return k, refusal("env -S", "arguments of their own")
			}
		}
		for i < len(args) && assignment.MatchString(args[i].Text) {
			i++
		}
	}
	return programText(args, i+w.skip, depth+1)
}

func refusal(who, instead string) string {
	return fmt.Sprintf("%s reads this argument as a program, so no value can stand in it; pass the value as %s", who, instead)
}

// options returns the place of the first argument that is no option.
func options(args []Arg, i int, takes string, long []string) int {
	for ; i < len(args); i++ {
		t := args[i].Text
		if !strings.HasPrefix(t, "-") || t == "-" {
			return i
		}
		if t == "--" && !args[i].Dynamic {
			return i + 1
		}
		if strings.HasPrefix(t, "--") {
			if slices.Contains(long, t) {
				i++
			}
			continue
		}
		// Of a cluster only the last letter can take the next word.
		if k := strings.IndexAny(t[1:], takes); takes != "" && k == len(t)-2 && !args[i].Dynamic {
			i++
		}
	}
	return i
}

// evalOption looks for an option whose argument is program text: alone, in a
// cluster as in -ec, or with the text behind it as in -e'…' or --eval=….
func evalOption(args []Arg, from int, flags string, long []string, instead string) (int, string) {
	who := programName(args[from].Text)
	for i := from + 1; i < len(args); i++ {
		t := args[i].Text
		for _, l := range long {
			if t == l && !args[i].Dynamic && i+1 < len(args) && args[i+1].Dynamic {
				return i + 1, refusal(who+" "+l, instead)
			}
			if strings.HasPrefix(t, l+"=") && args[i].Dynamic {
				return i, refusal(who+" "+l, instead)
			}
		}
		if len(t) < 2 || t[0] != '-' && t[0] != '+' || strings.HasPrefix(t, "--") {
			if t == "" && args[i].Dynamic || !strings.HasPrefix(t, "-") && !optionArgument(args, from, i) {
				return -1, "" // the script: what follows are its arguments
			}
			continue
		}
		k := strings.IndexAny(t[1:], flags)
		if k < 0 {
			continue
		}
		if args[i].Dynamic {
			return i, refusal(who+" -"+string(t[k+1]), instead)
		}
		isShell := slices.Contains(shells, who)
		if !isShell && k+2 < len(t) {
			continue // the text is the rest of this word
		}
		// A shell takes the first word that is no option, later options too.
		next := i + 1
		if isShell {
			next = options(args, i+1, "oO", nil)
		}
		if next < len(args) && args[next].Dynamic {
			return next, refusal(who+" -"+string(t[k+1]), instead)
		}
		if isShell {
			return -1, ""
		}
	}
	return -1, ""
}

// optionArgument reports whether a word belongs to the option before it, as in
// bash -o pipefail or perl -I lib.
func optionArgument(args []Arg, from, i int) bool {
	if i-1 <= from || args[i-1].Dynamic {
		return false
	}
	switch t := args[i-1].Text; t {
	case "-o", "+o", "-O", "+O", "-I", "-M", "-W", "-X", "-r", "-d", "-l", "--rcfile", "--init-file", "--require", "--import", "-C":
		return true
	default:
		return len(t) > 2 && t[0] == '-' && t[1] != '-' && strings.HasSuffix(t, "o") && slices.Contains(shells, programName(args[from].Text))
	}
}

func awk(args []Arg, from int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		t := args[i].Text
		switch {
		case t == "-f" || t == "--file" || strings.HasPrefix(t, "-f") || strings.HasPrefix(t, "--file="):
			return -1, ""
		case t == "-e" || t == "--source":
			if i+1 < len(args) && args[i+1].Dynamic {
				return i + 1, refusal("awk", `-v name="${{ … }}"`)
			}
			return -1, ""
		case t == "-v" || t == "-F" || t == "--assign" || t == "--field-separator":
			i++
		case t == "--" && !args[i].Dynamic:
			if i+1 < len(args) && args[i+1].Dynamic {
				return i + 1, refusal("awk", `-v name="${{ … }}"`)
			}
			return -1, ""
		case strings.HasPrefix(t, "-") && len(t) > 1:
		case args[i].Dynamic:
			return i, refusal("awk", `-v name="${{ … }}"`)
		default:
			return -1, ""
		}
	}
	return -1, ""
}

// remote is ssh: all that follows the host is one text for a shell there.
func remote(args []Arg, from int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		t := args[i].Text
		if args[i].Dynamic && strings.HasPrefix(t, "-o") || i > from+1 && args[i].Dynamic && args[i-1].Text == "-o" {
			return i, "an option of ssh can name a command to run (ProxyCommand), so no value can stand in it"
		}
	}
	host := options(args, from+1, "BbcDEeFIiJLlmOopQRSWw", nil)
	for i := host + 1; i < len(args); i++ {
		if args[i].Dynamic {
			return i, "ssh hands what follows the host to a shell there as one text, so no value can stand in it; write ${{ raw(quote(…)) }}, or send the value on stdin with input"
		}
	}
	return -1, ""
}

// joined is a program that runs its arguments as one text of a shell.
func joined(args []Arg, from int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		if args[i].Dynamic {
			return i, refusal(programName(args[from].Text), "an environment variable")
		}
	}
	return -1, ""
}

func find(args []Arg, from, depth int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		switch args[i].Text {
		case "-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch":
			end := i + 1
			for end < len(args) && args[end].Text != ";" {
				end++
			}
			if at, why := programText(args[:end], i+1, depth+1); at >= 0 {
				return at, why
			}
		}
	}
	return -1, ""
}

// nested looks for a shell or interpreter among the arguments of a program that
// is not known, as in docker exec NAME sh -c '…'.
func nested(args []Arg, from int) (int, string) {
	for i := from + 1; i+1 < len(args); i++ {
		if args[i].Dynamic {
			continue
		}
		name := programName(args[i].Text)
		if !slices.Contains(shells, name) || !strings.HasPrefix(args[i+1].Text, "-") {
			continue
		}
		if at, why := evalOption(args, i, "c", nil, "a later argument, as in [sh, -c, 'echo \"$1\"', sh, \"${{ … }}\"]"); at >= 0 {
			return at, why
		}
	}
	return -1, ""
}
