//go:build linux

package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
	"github.com/pipe-runner/pipe/safety"
)

// TestLikeBash: what a text prints, and its status. Each row is what bash does.
func TestLikeBash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Log("bash is not installed; the rows are not compared with it")
	}
	files := map[string]string{"plain.txt": "plain\n", "sub/x": "", "data": "no program"}
	for _, tt := range []struct {
		text string
		out  string
		code int
		set  string
	}{
		{text: "", out: ""},
		{text: "exit 3; echo no", code: 3},
		{text: "exit 300", code: 44},
		{text: "false", code: 1},
		{text: "false; echo no", code: 1, set: "errexit"},
		{text: "if false; then :; fi; false || true; ! true; echo yes", out: "yes\n", set: "errexit"},
		{text: "x=$(false); echo no", code: 1, set: "errexit"},
		{text: "(exit 4); echo no", code: 4, set: "errexit"},
		{text: "false | true; echo $?", out: "0\n"},
		{text: "false | true; echo $?", out: "1\n", set: "pipefail"},
		{text: "exit 3 | exit 4 | true; exit $?", code: 4, set: "pipefail"},
		{text: "echo ${u:-d}-${u+x}", out: "d-\n", set: "nounset"},
		{text: "printf 'b\\na\\nc\\n' | sort | head -1", out: "a\n"},
		{text: "seq 1 2000 | while read n; do echo $n; done | tail -1", out: "2000\n"},
		{text: "yes | head -2; echo $?", out: "y\ny\n0\n"},
		{text: "x=1; (x=2; cd sub; exit 5); echo $x $?; ls sub", out: "1 5\nx\n"},
		{text: "x=1; { x=2; }; echo $x", out: "2\n"},
		{text: "x=$(printf 'a\\n\\n'; exit 6); echo \"[$x] $?\"", out: "[a] 6\n"},
		{text: "v='a  b'; cat <<EOF\n$v $((1+2)) \\$v $(echo s)\nEOF", out: "a  b 3 $v s\n"},
		{text: "cat <<'EOF'\n$v `x`\nEOF", out: "$v `x`\n"},
		{text: "cat <<-EOF\n\t\tin\n\tEOF", out: "in\n"},
		{text: "cat <<< 'a  b'", out: "a  b\n"},
		{text: "echo a >f; echo b >>f; cat <f", out: "a\nb\n"},
		{text: "{ echo o; echo e >&2; } 2>&1 | sort", out: "e\no\n"},
		{text: "ls nope 2>/dev/null || echo $?", out: "2\n"},
		{text: "cat <nope 2>/dev/null; echo $?", out: "1\n"},
		{text: "echo x >''; echo $?", out: "1\n"},
		{text: "echo a >/dev/stdout; { echo b >/dev/stderr; } 2>&1; (echo c >/dev/stdout) | cat", out: "a\nb\nc\n"},
		{text: "echo a >/dev/null; : >&-; echo b", out: "b\n"},
		{text: "f() { local y=$1; return 3; }; f a; echo $? \"[$y]\" $#", out: "3 [] 0\n"},
		{text: "f() { echo $1; [ $1 = 0 ] || f $(($1-1)); }; f 2", out: "2\n1\n0\n"},
		{text: "trap 'echo bye $?' EXIT; echo hi; exit 4", out: "hi\nbye 4\n", code: 4},
		{text: "trap 'echo bye' EXIT; false; echo no", out: "bye\n", code: 1, set: "errexit"},
		{text: "printf ' a b  c \\n' | { read x y; echo \"$y,$x\"; }", out: "b  c,a\n"},
		{text: "read x </dev/null || echo eof $?; IFS=: read a b <<< 'x:y:z'; echo $b", out: "eof 1\ny:z\n"},
		{text: "printf '1\\n2\\n' | { read a; read b; echo $b$a; }", out: "21\n"},
		{text: "echo $((7/2)) $((2**10)) $((0x1f)) $((-7%3)) $((1<<4)) $((3>2?1:0))", out: "3 1024 31 -1 16 1\n"},
		{text: "i=0; while ((i<3)); do ((i++)); [ $i = 2 ] && continue; echo $i; done", out: "1\n3\n"},
		{text: "for i in a 'b c' *.txt; do echo \"<$i>\"; done; echo sub/* no*", out: "<a>\n<b c>\n<plain.txt>\nsub/x no*\n"},
		{text: "case abc in x) echo x;; a*|b) echo a;; esac; [[ abc == *c && ! a > b ]] && echo y", out: "a\ny\n"},
		{text: "x=(1 '2 3'); echo ${#x[@]} \"${x[1]}\"; s=hello; echo ${s#he} ${s%l*} ${s/l/L} ${#s} ${s:1:2}", out: "2 2 3\nllo hel heLlo 5 el\n"},
		{text: "set -- a 'b c'; echo $# \"$2\"; shift; echo \"$*\"", out: "2 b c\nb c\n"},
		{text: "for v in '(' ')' '!' -n -z = ''; do [ \"$v\" ] && echo \"$v\"; [ \"$v\" = x ] && echo no; [ -n \"$v\" ] || echo empty; done", out: "(\n)\n!\n-z\n=\nempty\n"},
		{text: "[ -f plain.txt ] && [ -d sub ] && [ ! -e nope ] && [ 1 -lt 2 -a a = a ] && echo y", out: "y\n"},
		{text: "[ x -eq 1 ] 2>/dev/null; echo $?; test; echo $?", out: "2\n1\n"},
		{text: "x=1 sh -c 'echo $x'; echo [$x]; export y=2; sh -c 'echo $y'; unset y; sh -c 'echo [$y]'", out: "1\n[]\n2\n[]\n"},
		{text: "no-such-prog 2>/dev/null; echo $?; ./sub 2>/dev/null; echo $?; ./nope 2>/dev/null", out: "127\n126\n", code: 127},
		{text: "chmod 644 data; ./data 2>/dev/null", code: 126},
		{text: "sh -c 'kill -TERM $$'; echo $?; sh -c 'exit 7' || echo $?", out: "143\n7\n"},
		{text: "echo a & wait; echo b; (exit 3) & wait $!; echo $?", out: "a\nb\n3\n"},
		{text: "echo -n a; echo -e 'b\\tc'; echo '-n'; printf '%s-%d\\n' x 3", out: "ab\tc\nx-3\n"},
		{text: "cd sub && pwd | sed 's|.*/||'; cd ..; cd nope 2>/dev/null || echo $?", out: "sub\n1\n"},
		{text: "eval 'echo $((1+1))'; . ./data 2>/dev/null; echo $?", out: "2\n127\n"},
		{text: "exec sh -c 'echo over'; echo no", out: "over\n"},
	} {
		c := Cmd{Text: tt.text, Dir: folder(t, files), Env: []string{testPath, "LC_ALL=C"}}
		if tt.set != "" {
			c.Set = []string{tt.set}
		}
		got := run(t, c)
		if got.out != tt.out || got.st != (engine.Status{Code: tt.code}) {
			t.Errorf("%s %s: %v, %q, want %d, %q; stderr: %s", tt.set, tt.text, got.st, got.out, tt.code, tt.out, got.err)
		}
		if err != nil {
			continue
		}
		b := exec.Command(bash, "--norc", "-c", tt.text)
		if tt.set != "" {
			b.Args = []string{bash, "--norc", "-o", tt.set, "-c", tt.text}
		}
		b.Dir, b.Env = folder(t, files), c.Env
		out, err := b.Output()
		var ee *exec.ExitError
		if err != nil && !errors.As(err, &ee) {
			t.Fatal(err)
		}
		if string(out) != tt.out || b.ProcessState.ExitCode() != tt.code {
			t.Errorf("bash, %s %s: %d, %q, want %d, %q", tt.set, tt.text, b.ProcessState.ExitCode(), out, tt.code, tt.out)
		}
	}
}

// TestMessages: what a text says itself when something does not work.
func TestMessages(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"orphan": "#!/no/such\n", "plain": ""})
	if err := os.Chmod(filepath.Join(dir, "plain"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]struct {
		err  string
		code int
	}{
		"no-such-prog":                         {`no-such-prog: program "no-such-prog" not found in PATH (/usr/bin:/bin)`, 127},
		"./nope":                               {"./nope: program ./nope not found", 127},
		"./plain":                              {"./plain: " + dir + "/plain is not executable; chmod +x it, or name its interpreter", 126},
		"./orphan":                             {"./orphan: " + dir + "/orphan: its interpreter /no/such does not exist", 126},
		"PATH=; ls":                            {`ls: program "ls" not found: PATH is empty`, 127},
		"[ a -eq 1 ]":                          {`[: "a" is not a whole number`, 2},
		"test 1 -lt ''":                        {`test: "" is not a whole number`, 2},
		"echo x >/dev/full":                    {"cannot write to /dev/full: no space left on device", 1},
		"set -u; echo $u; echo no":             {"u: unbound variable", 1},
		"cat </nope":                           {"open /nope: no such file or directory", 1},
		"mkdir d; cd d; rmdir ../d; /bin/true": {"/bin/true: cwd " + dir + "/d does not exist", 126},
	} {
		got := run(t, Cmd{Text: text, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"}})
		if !strings.HasPrefix(got.err, want.err) || got.st.Code != want.code || got.out != "" {
			t.Errorf("%s: %v, %q, want %q", text, got.st, got.err, want.err)
		}
	}
}

// TestVariables: the text reads its variables, no child gets one that is not
// exported, and what the environment does not have is not invented (P10).
func TestVariables(t *testing.T) {
	t.Parallel()
	env := "/usr/bin/env"
	if _, err := os.Stat(env); err != nil {
		t.Skip(err)
	}
	vars := []safety.Var{{Name: "V", Value: "a $(x) 'b"}, {Name: "W", Value: "w"}}
	for _, tt := range []struct {
		name, text string
		vars       []safety.Var
		env        []string
		out        string
	}{
		{"empty", env + "; (" + env + "); " + env + " | cat; x=$(" + env + "); echo \"[$x]\"", nil, []string{}, "[]\n"},
		{"not invented", `echo "[$HOME][$UID$EUID$GID][$PWDX]"; ` + env, nil, []string{}, "[][][]\n"},
		{"exact", env, nil, []string{"B=2", "A=a\nb", "C="}, "A=a\nb\nB=2\nC=\n"},
		{"last wins", env, nil, []string{"A=1", "B=2", "A=3"}, "A=3\nB=2\n"},
		{"vars", `echo "$V"; (echo "$V"); echo "$V" | cat; ` + env, vars, []string{"A=1"}, strings.Repeat("a $(x) 'b\n", 3) + "A=1\n"},
		{"var exported", "export W; " + env, vars, []string{}, "W=w\n"},
		{"var changed", "W=other; echo $W; (W=inner; echo $W); echo $W; " + env, vars, []string{}, "other\ninner\nother\n"},
		{"local to a call", "A=2 B=3 " + env + "; " + env, nil, []string{"A=1"}, "A=2\nB=3\nA=1\n"},
		{"split", `IFS=,; set -- $W; echo $#; unset IFS; x="a b"; set -- $x; echo $#; ` + env, []safety.Var{{Name: "W", Value: "1,2,3"}}, []string{}, "3\n2\n"},
	} {
		got := run(t, Cmd{Text: tt.text, Vars: tt.vars, Env: tt.env, Path: "/usr/bin:/bin"})
		if got.out != tt.out || !got.st.OK() {
			t.Errorf("%s: %v, %q, want %q; stderr: %s", tt.name, got.st, got.out, tt.out, got.err)
		}
	}
}

type key struct{}

// TestPrograms: each program is started by the engine as a step's is, with the
// values of the context, the user, the root and what of the pipeline it is; the
// terminal of the text is that of all of them, whatever their stdin is, and without
// one they have none.
func TestPrograms(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"bare": "echo bare $1 $#\n"})
	root, err := safety.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	e, own := &recorder{}, &engine.Terminal{}
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
	p, err := Start(ctx, e, Cmd{
		Text: "/bin/cat; echo piped | /bin/cat; ./bare 'a b' >/dev/null; /bin/true 2>&1", Root: root, Dir: dir, Env: []string{"A=1"}, UID: &uid, GID: &gid,
		Stdin: null, Stdout: &out, Stderr: io.Discard, Terminal: own, Step: "step", Stage: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // it does not end the text
	st := p.Wait()
	waittest.For(t, "the end of the streams", p.Closed())
	if !st.OK() || out.String() != "piped\n" {
		t.Errorf("%v, %q", st, &out)
	}
	var got []string
	for i, c := range e.cmds {
		got = append(got, fmt.Sprintf("%s %q %v terminal %v", c.Path, c.Args, c.Env, c.Terminal == own))
		if c.Dir != dir || c.DirFile == nil || c.UID != &uid || c.GID != &gid || c.Step != "step" || c.Stage != 2 || c.Extra != nil {
			t.Errorf("%+v", c)
		}
		if e.ctxs[i].Value(key{}) != "value" || e.ctxs[i].Err() != nil {
			t.Errorf("the context has %v, %v", e.ctxs[i].Value(key{}), e.ctxs[i].Err())
		}
		if _, err := c.DirFile.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the directory is still open: %v", err)
		}
	}
	want := []string{
		`/bin/cat ["/bin/cat"] [A=1] terminal true`,
		`/bin/cat ["/bin/cat"] [A=1] terminal true`,
		`./bare ["./bare" "a b"] [A=1] terminal true`,
		`/bin/sh ["sh" "./bare" "a b"] [A=1] terminal true`,
		`/bin/true ["/bin/true"] [A=1] terminal true`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("programs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	none := &recorder{}
	if st := start(t, none, Cmd{Text: "/bin/cat; echo piped | /bin/cat", Stdin: null}).status(); !st.OK() || len(none.cmds) != 2 {
		t.Errorf("%v, %d programs", st, len(none.cmds))
	}
	for _, c := range none.cmds {
		if c.Terminal != nil {
			t.Errorf("%s has a terminal, and its text has none", c.Path)
		}
	}
}

// TestBareScript: a program without #! is run by sh, as shells do (row 8).
func TestBareScript(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"bare": "echo $0 $1 $#; exit 5\n"})
	got := run(t, Cmd{Text: "./bare 'a b'", Dir: dir})
	if got.out != dir+"/bare a b 1\n" || got.st.Code != 5 {
		t.Errorf("%v, %q, %q", got.st, got.out, got.err)
	}
}

// TestEngineFails: what an engine says of a program is the text's to tell; a start
// error has its own code, and a status that is not known is no success.
func TestEngineFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		code int
	}{
		{&engine.StartError{Msg: "busy", Code: 127}, 127},
		{&engine.StartError{Msg: "busy", Err: unix.EBUSY}, 126},
		{errors.New("busy"), 126},
	} {
		var errs bytes.Buffer
		e := &recorder{fails: func(*engine.Cmd) error { return tt.err }}
		p := start(t, e, Cmd{Text: "prog", Stderr: &errs})
		st := p.status()
		p.closed()
		if st.Code != tt.code || errs.String() != "prog: busy\n" {
			t.Errorf("%v: %v, %q", tt.err, st, &errs)
		}
	}
	var errs bytes.Buffer
	p := start(t, lost{}, Cmd{Text: "prog", Stderr: &errs})
	st := p.status()
	p.closed()
	if st.Code != 126 || errs.String() != "prog: the machine is gone\n" {
		t.Errorf("%v, %q", st, &errs)
	}
}

// lost is an engine that never learns how a process ended.
type lost struct{}

func (lost) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	p, err := engine.Local{}.Start(ctx, &engine.Cmd{Path: "/bin/true", Args: []string{"true"}, Dir: c.Dir})
	return lostProcess{p}, err
}

type lostProcess struct{ engine.Process }

func (p lostProcess) Wait() engine.Status {
	p.Process.Wait()
	return engine.Status{Err: errors.New("the machine is gone")}
}

// TestRoot: a confined text opens, lists and looks at nothing outside, by whatever
// name, and is not kept from what is inside (row 115).
func TestRoot(t *testing.T) {
	t.Parallel()
	base := folder(t, map[string]string{"secret/s": "secret\n", "root/in": "in\n", "root/sub/x": "", "root/out": "-> ../secret", "root/abs": "-> /etc", "root/fine": "-> sub", "root/prog": "#!/bin/sh\n"})
	dir := filepath.Join(base, "root")
	root, err := safety.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for _, tt := range []struct {
		text, out string
		code      int
	}{
		{"cat <in; cat <./sub/../in; cat <" + dir + "/in", "in\nin\nin\n", 0},
		{"cat <../secret/s", "", 1}, {"cat <out/s", "", 1}, {"cat <abs/hostname", "", 1}, {"cat </etc/hostname", "", 1}, {"cat <" + base + "/secret/s", "", 1},
		{"echo x >../new", "", 1}, {"echo x >out/new", "", 1}, {"echo x >/tmp/new", "", 1},
		{"echo x >new; cat <new; echo y >/dev/null", "x\n", 0},
		{"cd ..", "", 1}, {"cd out", "", 1}, {"cd /", "", 1}, {"cd sub; cd ..; cd fine; cat <../in", "in\n", 0},
		{"echo *; echo sub/* fine/*", "abs fine in out prog sub\nsub/x fine/x\n", 0},
		{"echo ../*", "", -1}, {"echo out/*", "", -1}, {"echo abs/host*", "", -1}, {"echo /etc/host*", "", -1},
		{"[ -e in ] && [ -d sub ] && [ -x prog ] && [ -L out ] && echo y", "y\n", 0},
		{"[ -e ../secret ] || [ -e out/s ] || [ -f /etc/hostname ] || [ -d out ] || [ -x /bin/sh ] || echo hidden", "hidden\n", 0},
		{". out/s", "", 1},
	} {
		_ = os.Remove(filepath.Join(dir, "new"))
		got := run(t, Cmd{Text: tt.text, Root: root, Dir: dir})
		hidden := tt.code < 0 && (got.err != "" || got.out == strings.TrimPrefix(tt.text, "echo ")+"\n") // as if nothing were there
		if !hidden && (got.out != tt.out || (got.st.Code != 0) != (tt.code != 0)) {
			t.Errorf("%s: %v, %q, want %q; stderr: %s", tt.text, got.st, got.out, tt.out, got.err)
		}
	}
	for _, path := range []string{"new", "secret/new"} {
		if _, err := os.Stat(filepath.Join(base, path)); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	for _, outside := range []string{base, filepath.Join(dir, "out"), "/"} {
		_, err := Start(context.Background(), engine.Local{}, Cmd{Text: ":", Root: root, Dir: outside})
		var se *engine.StartError
		if !errors.As(err, &se) || !strings.Contains(se.Error(), "it is outside of the root "+dir) {
			t.Errorf("%s: %v", outside, err)
		}
	}
}

// TestCannotStart: a text that cannot run says why, and leaves nothing open.
func TestCannotStart(t *testing.T) {
	check := leaks(t)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	dir := t.TempDir()
	for _, tt := range []struct {
		ctx  context.Context
		c    Cmd
		text string
		err  error
	}{
		{context.Background(), Cmd{Text: "if x", Dir: dir}, "shell text: 1:1:", nil},
		{context.Background(), Cmd{Text: "echo 'a", Dir: dir}, "shell text: 1:6:", nil},
		{done, Cmd{Text: ":", Dir: dir}, "context canceled", context.Canceled},
		{context.Background(), Cmd{Text: ":", Dir: "/nope"}, "cwd /nope is not a directory", nil},
	} {
		var out bytes.Buffer
		c := tt.c
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader("in"), &out, io.Discard
		p, err := Start(tt.ctx, engine.Local{}, c)
		if p != nil || err == nil || !strings.Contains(err.Error(), tt.text) || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%q: %v, %v", c.Text, p, err)
		}
		check(c.Text)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 3
	for _, c := range []Cmd{{Stdin: strings.NewReader("in")}, {Stdout: io.Discard}, {Stderr: io.Discard}} { // row 15
		c.Text, c.Dir = ":", dir
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		_, err := Start(context.Background(), engine.Local{}, c)
		if serr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); serr != nil {
			t.Fatal(serr)
		}
		var se *engine.StartError
		if !errors.As(err, &se) || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%v", err)
		}
		check("without descriptors")
	}
}
