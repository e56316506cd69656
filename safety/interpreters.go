package safety

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Arg is one argument of a program.
type Arg struct {
	Text    string // the constant text up to the first value or expansion
	Dynamic bool   // it holds a value
	NoDash  bool   // the value never begins with a dash
	Unknown bool   // an expansion of the shell follows Text
	Solid   bool   // the expansion is one word and no option: it has a path in it
	Vanish  bool   // the expansion may come to no word at all
}

// ProgramText finds the first argument that holds a value and that a known
// interpreter would read as program text. It returns the index of that argument
// and a sentence that says what to write instead, or -1 and "".
//
// It knows shells, python, perl, ruby, node, php, lua, awk, ssh and su. It finds
// them behind programs that start others (env, timeout, nice, nohup, setsid,
// stdbuf, sudo, doas, chroot, time, command, exec, xargs, find -exec, busybox and
// their like), and anywhere in the arguments of programs that run others in
// another place, such as docker.
func ProgramText(args []Arg) (at int, why string) { return scan{}.program(args, 0, 0) }

// scan looks through arguments. A strict scan is for shell text, which nobody
// looks at again once the values are known: a value in it may be neither a
// program nor an option of an interpreter.
type scan struct{ strict bool }

// programName returns the last part of a program's path.
func programName(p string) string { return path.Base(p) }

var (
	shells    = []string{"sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "lksh", "ash", "fish", "rbash", "rzsh", "yash", "tcsh", "csh", "hush"}
	versioned = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(python|perl|ruby|lua|php|node|tclsh)[0-9.]*(?:js)?$`)
	})
	interpreters = map[string]struct {
		flags  string   // letters of the options that take program text
		behind bool     // the text may follow the letter in the same word
		long   []string // long options that take program text
		takes  string   // letters of the options that take another argument
		skips  []string // long options that take another argument
	}{
		"python": {"cm", true, nil, "WXQ", []string{"--check-hash-based-pycs"}},
		"perl":   {"eE", true, nil, "", nil},
		"ruby":   {"e", true, nil, "ICEr", nil},
		"lua":    {"e", true, nil, "l", nil},
		"php":    {"rBRE", true, []string{"--run", "--process-begin", "--process-code", "--process-end"}, "cdfSt", nil},
		"node":   {"ep", false, []string{"--eval", "--print", "--import", "--loader", "--experimental-loader"}, "rC", []string{"--require", "--conditions", "--title", "--input-type", "--unhandled-rejections", "--env-file", "--max-old-space-size"}},
	}

	// wrappers are programs that start another one.
	wrappers = map[string]struct {
		takes string   // letters of the options that take an argument
		long  []string // beginnings of the long options that take one
		skip  int      // words before the other program
	}{
		"timeout":   {"ks", []string{"--k", "--s"}, 1},
		"nice":      {"n", []string{"--adj"}, 0},
		"ionice":    {"cnpPu", []string{"--class", "--pid", "--uid"}, 0},
		"nohup":     {"", nil, 0},
		"setsid":    {"", nil, 0},
		"stdbuf":    {"ioe", []string{"--input", "--output", "--error"}, 0},
		"sudo":      {"ugpCchrtTUDR", []string{"--user", "--group", "--prompt", "--chdir", "--host", "--role", "--type", "--close-from", "--other-user", "--command-timeout", "--chroot"}, 0},
		"doas":      {"uCa", nil, 0},
		"chroot":    {"", nil, 1},
		"time":      {"fo", []string{"--format", "--output"}, 0},
		"command":   {"", nil, 0},
		"exec":      {"a", nil, 0},
		"builtin":   {"", nil, 0},
		"noglob":    {"", nil, 0},
		"nocorrect": {"", nil, 0},
		"coproc":    {"", nil, 0},
		"-":         {"", nil, 0},
		"xargs":     {"aEILnPsd", []string{"--max-args", "--max-procs", "--max-lines", "--max-chars", "--delimiter", "--arg-file", "--process-slot-var"}, 0},
		"busybox":   {"", nil, 0},
		"toybox":    {"", nil, 0},
		"unshare":   {"RSGw", nil, 0},
		"nsenter":   {"tSG", nil, 0},
		"strace":    {"eopsSuaEPIObX", nil, 0},
		"taskset":   {"", nil, 1},
		"chrt":      {"TPD", nil, 1},
	}
	// elsewhere are programs that run another one in another place. Their own
	// arguments come first, in an order that is not followed here.
	elsewhere = strings.Fields("docker podman nerdctl kubectl oc lxc incus machinectl systemd-run systemd-nspawn bwrap firejail proot fakeroot prlimit setpriv cgexec flock entr valgrind perf ltrace gdb npx uv poetry pipenv bundle vagrant nix-shell runuser gosu su-exec sshpass xvfb-run dbus-run-session tini dumb-init pkexec")
)

const (
	maxWrapped = 20
	laterWord  = "a later argument, as in [sh, -c, 'echo \"$1\"', sh, \"${{ … }}\"]"
	laterArg   = "a later argument, which the program reads from its list of arguments"
)

// interpreter returns the name that an interpreter is known by, or "".
func interpreter(name string) string {
	name = programName(name)
	if m := versioned().FindStringSubmatch(name); m != nil {
		name = m[1]
	}
	if _, ok := interpreters[name]; ok || slices.Contains(shells, name) {
		return name
	}
	switch name {
	case "awk", "gawk", "mawk", "nawk", "ssh", "rsh", "su":
		return name
	}
	return ""
}

func (s scan) program(args []Arg, from, depth int) (int, string) {
	if from >= len(args) || depth > maxWrapped {
		return -1, ""
	}
	if a := args[from]; a.Dynamic && depth > 0 && s.strict {
		return from, "a value cannot be the name of a command; write the command itself, or use spawn with a list, where a value may be the program"
	}
	if args[from].Unknown {
		if next := from + 1; s.strict && args[from].Vanish && next < len(args) && args[next].Dynamic && args[next].Text == "" {
			return next, "the word before may come to nothing, and the value would be the command then; write quotes around that word"
		}
		return s.elsewhere(args, from, depth)
	}
	name := programName(args[from].Text)
	known := interpreter(name)
	switch {
	case slices.Contains(shells, known):
		return s.shell(args, from)
	case known == "ssh" || known == "rsh":
		return s.remote(args, from)
	case known == "su" || name == "runuser":
		return substitute(args, from)
	case strings.HasSuffix(known, "awk"):
		return awk(args, from)
	case known != "":
		return s.eval(args, from, known)
	case name == "env":
		return s.env(args, from, depth)
	case name == "script":
		return substitute(args, from)
	case name == "watch":
		return joined(args, options(args, from+1, "n", []string{"--interval"}))
	case name == "find" || name == "fd":
		return s.find(args, from, depth)
	case slices.Contains(elsewhere, name):
		if at, why := s.elsewhere(args, from, depth); at >= 0 {
			return at, why
		}
		if name == "flock" || name == "nix-shell" {
			return substitute(args, from)
		}
		return -1, ""
	case name == "parallel":
		return joined(args, options(args, from+1, "jNnaI", []string{"--jobs", "--max-args"}))
	}
	w, ok := wrappers[name]
	if !ok {
		return -1, ""
	}
	i := options(args, from+1, w.takes, w.long)
	if name == "sudo" {
		for i < len(args) && strings.Contains(args[i].Text, "=") {
			i++
		}
	}
	if name == "command" && i > from+1 && strings.ContainsAny(args[i-1].Text, "vV") {
		return -1, "" // it looks a name up
	}
	return s.program(args, i+w.skip, depth+1)
}

// elsewhere looks for an interpreter among arguments whose order is not known.
func (s scan) elsewhere(args []Arg, from, depth int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		if !args[i].Dynamic && !args[i].Unknown && interpreter(args[i].Text) != "" {
			if at, why := (scan{}).program(args, i, depth+1); at >= 0 {
				return at, why
			}
		}
		if args[from].Unknown && args[i].Dynamic && i > from+1 && textOption().MatchString(args[i-1].Text) {
			return i, refusal("what runs here", laterArg)
		}
	}
	return -1, ""
}

// textOption is an option of the kind that takes program text.
var textOption = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:-[a-z]*[ce]|--eval)$`) })

func refusal(who, instead string) string {
	return fmt.Sprintf("%s reads this argument as a program, so no value can stand in it; pass the value as %s", who, instead)
}

// optionRisk refuses a value that could be an option of an interpreter.
func (s scan) optionRisk(a Arg) bool {
	return s.strict && a.Dynamic && !a.NoDash && a.Text == ""
}

func optionRefusal(who string) string {
	return fmt.Sprintf("a value that begins with - would be an option of %s, which can name a program; write -- or ./ before it, or declare the parameter with type: path", who)
}

// options returns the place of the first argument that is no option. long are
// the beginnings of long options that take the next word.
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
			if !strings.Contains(t, "=") && slices.ContainsFunc(long, func(l string) bool { return strings.HasPrefix(t, l) }) {
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

// shell follows the options of a shell: after -c, anywhere in a cluster, the
// first word that is no option is program text.
func (s scan) shell(args []Arg, from int) (int, string) {
	who := programName(args[from].Text)
	text := false
	for i := from + 1; i < len(args); i++ {
		a := args[i]
		switch t := a.Text; {
		case text && a.Dynamic:
			return i, refusal(who+" -c", laterWord)
		case a.Solid:
			return -1, ""
		case a.Unknown && t == "": // it may be an option, or nothing
			continue
		case !text && s.optionRisk(a):
			return i, optionRefusal(who)
		case t == "--" && !a.Dynamic:
			if text && i+1 < len(args) && args[i+1].Dynamic {
				return i + 1, refusal(who+" -c", laterWord)
			}
			return -1, ""
		case strings.HasPrefix(t, "--"):
			if t == "--rcfile" || t == "--init-file" {
				i++
			}
			continue
		case len(t) > 1 && (t[0] == '-' || t[0] == '+'):
			if a.Dynamic {
				return i, refusal(who+" "+t[:2], laterWord)
			}
			text = text || t[0] == '-' && strings.Contains(t, "c")
			i += strings.Count(t, "o") + strings.Count(t, "O") // each names an option in a word of its own
			continue
		}
		return -1, "" // the text, or a script: what follow are its arguments
	}
	return -1, ""
}

// eval follows the options of another interpreter.
func (s scan) eval(args []Arg, from int, name string) (int, string) {
	who, known := programName(args[from].Text), interpreters[name]
	loop, inPlace := false, false // of perl, over its operands
	for i := from + 1; i < len(args); i++ {
		a := args[i]
		t := a.Text
		if name == "perl" && len(t) > 1 && t[0] == '-' && t[1] != '-' {
			head, _, _ := strings.Cut(t[1:], "i")
			inPlace = inPlace || len(head) < len(t)-1 && !strings.ContainsAny(head, "eEIMmF")
			loop = loop || strings.ContainsAny(head, "npa") && !strings.ContainsAny(head[:strings.IndexAny(head, "npa")], "eEIMmF")
		}
		switch {
		case a.Solid:
			return -1, ""
		case a.Unknown && t == "":
			continue
		case s.optionRisk(a):
			return i, optionRefusal(who)
		case t == "--" && !a.Dynamic:
			return perlFiles(args, i+1, loop && !inPlace)
		case strings.HasPrefix(t, "--"):
			word, _, given := strings.Cut(t, "=")
			switch {
			case slices.Contains(known.long, word) && given && a.Dynamic:
				return i, refusal(who+" "+word, laterArg)
			case slices.Contains(known.long, word) && !given && i+1 < len(args) && args[i+1].Dynamic:
				return i + 1, refusal(who+" "+word, laterArg)
			case slices.Contains(known.long, word) && !given, slices.Contains(known.skips, word) && !given:
				i++
			}
		case len(t) > 1 && t[0] == '-':
			k := strings.IndexAny(t[1:], known.flags)
			take := strings.IndexAny(t[1:], known.takes)
			switch {
			case name == "perl" && a.Dynamic && (strings.ContainsAny(t[1:2], "mM") || strings.Contains(t, "F")):
				return i, refusal(who+" "+t[:2], laterArg)
			case known.takes != "" && take >= 0 && (k < 0 || take < k):
				if take == len(t)-2 {
					i++
				}
			case k < 0:
			case a.Dynamic:
				return i, refusal(who+" -"+t[k+1:k+2], laterArg)
			case known.behind && k+2 < len(t): // the text is the rest of this word
			case i+1 < len(args) && args[i+1].Dynamic:
				return i + 1, refusal(who+" -"+t[k+1:k+2], laterArg)
			default:
				i++
				if name == "python" {
					return -1, "" // what follow are its arguments
				}
			}
		default: // the script, or with -e the first file
			return perlFiles(args, i, loop && !inPlace)
		}
	}
	return -1, ""
}

// perlFiles refuses values among the operands of perl -n and -p, which opens
// them in a way that runs what ends in a |.
func perlFiles(args []Arg, from int, loop bool) (int, string) {
	for i := from; loop && i < len(args); i++ {
		if args[i].Dynamic {
			return i, "perl -n and -p run an operand that ends in | as a command, so no value can stand in it; give the file on stdin, as in stdin: {file: …} or <"
		}
	}
	return -1, ""
}

func awk(args []Arg, from int) (int, string) {
	have := false // a program, or a file with one
	instead := `-v name="${{ … }}"`
	for i := from + 1; i < len(args); i++ {
		t := args[i].Text
		next := i+1 < len(args) && args[i+1].Dynamic
		switch {
		case t == "-f" || t == "--file" || t == "-E" || t == "--exec":
			have = true
			i++
		case strings.HasPrefix(t, "-f") || strings.HasPrefix(t, "--file="):
			have = true
		case (t == "-e" || t == "--source" || t == "-i" || t == "--include" || t == "-l" || t == "--load" || t == "-W") && !args[i].Dynamic:
			if next {
				return i + 1, refusal("awk", instead)
			}
			have = have || t == "-e" || t == "--source"
			i++
		case args[i].Dynamic && (strings.HasPrefix(t, "-e") || strings.HasPrefix(t, "--source") || strings.HasPrefix(t, "-i") || strings.HasPrefix(t, "-l") || strings.HasPrefix(t, "-W")):
			return i, refusal("awk", instead)
		case t == "-v" || t == "-F" || t == "--assign" || t == "--field-separator":
			i++
		case t == "--" && !args[i].Dynamic:
			if !have && next {
				return i + 1, refusal("awk", instead)
			}
			return -1, ""
		case strings.HasPrefix(t, "-") && len(t) > 1:
		case !have && args[i].Dynamic:
			return i, refusal("awk", instead)
		default:
			return -1, ""
		}
	}
	return -1, ""
}

// remote is ssh: all that follows the host is one text for a shell there.
func (s scan) remote(args []Arg, from int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		t := args[i].Text
		if args[i].Dynamic && strings.HasPrefix(t, "-o") || i > from+1 && args[i].Dynamic && args[i-1].Text == "-o" {
			return i, "an option of ssh can name a command to run (ProxyCommand), so no value can stand in it"
		}
	}
	host := options(args, from+1, "BbcDEeFIiJLlmOopQRSWw", nil)
	if host < len(args) && s.optionRisk(args[host]) && args[host-1].Text != "--" {
		return host, optionRefusal("ssh")
	}
	for i := host + 1; i < len(args); i++ {
		if args[i].Dynamic {
			return i, "ssh hands what follows the host to a shell there as one text, so no value can stand in it; write ${{ raw(quote(…)) }}, or send the value on stdin with input"
		}
	}
	return -1, ""
}

// substitute is su and its like: -c and its text may stand anywhere.
func substitute(args []Arg, from int) (int, string) {
	who := programName(args[from].Text)
	for i := from + 1; i < len(args); i++ {
		t := args[i].Text
		short := len(t) > 1 && t[0] == '-' && t[1] != '-' && strings.Contains(t, "c")
		long := strings.HasPrefix(t, "--c") || strings.HasPrefix(t, "--session-c")
		if !short && !long {
			continue
		}
		if args[i].Dynamic {
			return i, refusal(who+" -c", "an environment variable")
		}
		if i+1 < len(args) && args[i+1].Dynamic && (short && strings.HasSuffix(t, "c") || long && !strings.Contains(t, "=")) {
			return i + 1, refusal(who+" -c", "an environment variable")
		}
	}
	return -1, ""
}

// joined is a program that runs its arguments as one text of a shell.
func joined(args []Arg, from int) (int, string) {
	for i := from; i < len(args); i++ {
		if args[i].Dynamic {
			return i, refusal("the shell that runs here", "an environment variable")
		}
	}
	return -1, ""
}

// env has assignments before the program, and -S, whose text is more arguments.
func (s scan) env(args []Arg, from, depth int) (int, string) {
	i := from + 1
	for ; i < len(args); i++ {
		a := args[i]
		t := a.Text
		split, at := "", -1
		switch {
		case strings.HasPrefix(t, "--split-string"):
			if _, v, ok := strings.Cut(t, "="); ok {
				split, at = v, i
			} else if i+1 < len(args) {
				split, at = args[i+1].Text, i+1
			}
		case len(t) > 1 && t[0] == '-' && t[1] != '-' && strings.Contains(t, "S"):
			if _, v, _ := strings.Cut(t, "S"); v != "" || a.Dynamic {
				split, at = v, i
			} else if i+1 < len(args) {
				split, at = args[i+1].Text, i+1
			}
		}
		if at >= 0 {
			if args[at].Dynamic {
				return at, refusal("env -S", "arguments of their own")
			}
			var words []Arg
			for _, w := range strings.Fields(split) {
				words = append(words, Arg{Text: strings.Trim(w, `'"`)})
			}
			found, why := s.env(append(append([]Arg{{Text: "env"}}, words...), args[at+1:]...), 0, depth+1)
			if found > len(words) {
				return found - len(words) + at, why
			}
			return -1, ""
		}
		switch {
		case a.Dynamic && t == "" && s.strict:
			return i, "a value here would be read as an option, a variable or a program by env; write NAME=value, or the program itself"
		case t == "-" || strings.HasPrefix(t, "--") && t != "--":
			if t == "--unset" || t == "--chdir" {
				i++
			}
		case t == "--":
			return s.program(args, i+1, depth+1)
		case strings.HasPrefix(t, "-"):
			if last := t[len(t)-1]; last == 'u' || last == 'C' {
				i++
			}
		case strings.Contains(t, "="):
		default:
			return s.program(args, i, depth+1)
		}
	}
	return -1, ""
}

func (s scan) find(args []Arg, from, depth int) (int, string) {
	for i := from + 1; i < len(args); i++ {
		switch args[i].Text {
		case "-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch":
			end := i + 1
			for end < len(args) && args[end].Text != ";" {
				end++
			}
			if at, why := s.program(args[:end], i+1, depth+1); at >= 0 {
				return at, why
			}
		}
	}
	return -1, ""
}

// isStdin reports whether a program that opens the path reads its stdin.
func isStdin(path string) bool {
	return path == "-" || path == "/dev/stdin" || path == "/dev/fd/0" || path == "/proc/self/fd/0"
}

// readsProgram reports whether a command reads its stdin as program text: it is,
// or starts, an interpreter that was given neither a script nor text.
func readsProgram(args []Arg) bool { return readsProgramAt(args, 0) }

func readsProgramAt(args []Arg, depth int) bool {
	if len(args) == 0 || depth > maxWrapped {
		return false
	}
	name := programName(args[0].Text)
	known := interpreter(name)
	switch {
	case slices.Contains(shells, known):
		return shellReadsStdin(args)
	case known == "ssh" || known == "rsh":
		host := options(args, 1, "BbcDEeFIiJLlmOopQRSWw", nil)
		if host >= len(args)-1 {
			return true
		}
		var words []Arg
		for _, a := range args[host+1:] {
			for _, w := range strings.Fields(a.Text) {
				words = append(words, Arg{Text: strings.Trim(w, `'"`)})
			}
		}
		return readsProgramAt(words, depth+1)
	case known == "su" || name == "runuser":
		return !slices.ContainsFunc(args, func(a Arg) bool {
			return strings.HasPrefix(a.Text, "--c") || len(a.Text) > 1 && a.Text[0] == '-' && a.Text[1] != '-' && strings.Contains(a.Text, "c")
		})
	case strings.HasSuffix(known, "awk"):
		for i, a := range args {
			if a.Text == "-f" && i+1 < len(args) && isStdin(args[i+1].Text) || strings.HasPrefix(a.Text, "-f") && isStdin(a.Text[2:]) {
				return true
			}
		}
		return false
	case known != "":
		return evalReadsStdin(args, known)
	case name == "." || name == "source":
		return len(args) > 1 && isStdin(args[1].Text)
	case name == "xargs":
		return xargsRuns(args, depth)
	case name == "env":
		i := 1
		for ; i < len(args); i++ {
			t := args[i].Text
			if t == "-u" || t == "-C" || t == "--unset" || t == "--chdir" {
				i++
			} else if !strings.HasPrefix(t, "-") && !strings.Contains(t, "=") {
				break
			}
		}
		return readsProgramAt(args[min(i, len(args)):], depth+1)
	case slices.Contains(elsewhere, name):
		for i := 1; i < len(args); i++ {
			if interpreter(args[i].Text) != "" && readsProgramAt(args[i:], depth+1) {
				return true
			}
		}
		return false
	}
	w, ok := wrappers[name]
	if !ok {
		return false
	}
	i := options(args, 1, w.takes, w.long)
	for name == "sudo" && i < len(args) && strings.Contains(args[i].Text, "=") {
		i++
	}
	if i += w.skip; i >= len(args) { // chroot, sudo -s: a shell
		return name == "chroot" || name == "sudo" || name == "doas" || name == "nsenter" || name == "unshare"
	}
	return readsProgramAt(args[i:], depth+1)
}

func shellReadsStdin(args []Arg) bool {
	for i := 1; i < len(args); i++ {
		t := args[i].Text
		switch {
		case isStdin(t):
			return true
		case strings.HasPrefix(t, "--"):
			if t == "--rcfile" || t == "--init-file" {
				i++
			}
		case len(t) > 1 && (t[0] == '-' || t[0] == '+'):
			if t[0] == '-' && strings.Contains(t, "c") {
				return false
			}
			if strings.Contains(t, "s") {
				return true
			}
			i += strings.Count(t, "o") + strings.Count(t, "O")
		case args[i].Unknown && !args[i].Solid:
		default:
			return false // a script
		}
	}
	return true
}

func evalReadsStdin(args []Arg, name string) bool {
	known := interpreters[name]
	for i := 1; i < len(args); i++ {
		t := args[i].Text
		word, _, given := strings.Cut(t, "=")
		switch {
		case isStdin(t):
			return true
		case slices.Contains(known.long, word):
			return false
		case strings.HasPrefix(t, "--"):
			if !given && slices.Contains(known.skips, word) {
				i++
			}
		case len(t) > 1 && t[0] == '-':
			k, take := strings.IndexAny(t[1:], known.flags), strings.IndexAny(t[1:], known.takes)
			if known.takes != "" && take >= 0 && (k < 0 || take < k) {
				if take == len(t)-2 {
					i++
				}
			} else if k >= 0 && !(name == "perl" && strings.ContainsAny(t[1:2], "MmI")) {
				return false
			}
		case args[i].Unknown && !args[i].Solid:
		default:
			return false
		}
	}
	return true
}

// xargsRuns reports whether xargs makes program text of what it reads, because
// it appends that to the arguments of an interpreter, or puts it in place of {}.
func xargsRuns(args []Arg, depth int) bool {
	w := wrappers["xargs"]
	i := options(args, 1, w.takes, w.long)
	place := "{}"
	for k := 1; k < i && k < len(args); k++ {
		if args[k].Text == "-I" && k+1 < len(args) {
			place = args[k+1].Text
		} else if strings.HasPrefix(args[k].Text, "-I") {
			place = args[k].Text[2:]
		}
	}
	if i >= len(args) {
		return false
	}
	for k := i; k < len(args); k++ {
		if interpreter(args[k].Text) == "" {
			continue
		}
		at, _ := (scan{}).program(append(slices.Clone(args[k:]), Arg{Dynamic: true}), 0, depth+1)
		if at == len(args)-k {
			return true // what it appends would be the text
		}
		for _, a := range args[k:] {
			if place != "" && strings.Contains(a.Text, place) {
				at, _ := (scan{}).program(markDynamic(args[k:], place), 0, depth+1)
				return at >= 0
			}
		}
	}
	return false
}

// markDynamic returns the arguments, with a value wherever one holds place.
func markDynamic(args []Arg, place string) []Arg {
	out := slices.Clone(args)
	for i, a := range out {
		if before, _, ok := strings.Cut(a.Text, place); ok {
			out[i] = Arg{Text: before, Dynamic: true}
		}
	}
	return out
}
