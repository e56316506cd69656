//go:build unix

package step_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// TestPipes runs programs, and texts of the embedded shell, that are joined.
func TestPipes(t *testing.T) {
	t.Parallel()
	big := input(512 << 10)
	for _, tt := range []struct {
		name   string
		stages []step.Stage
		want   string // stdout of the last one
		end    string
	}{
		{"three stages", []step.Stage{sh("printf 'b\na\nc\n'"), prog("sort"), prog("tail", "-n", "2")}, "b\nc\n", "success  0"},
		{"a reader that has enough", []step.Stage{prog("yes"), prog("head", "-n", "1")}, "y\n", "success  0"},
		{"and sigpipe: fail", []step.Stage{func() step.Stage { st := prog("yes"); st.SigpipeFails = true; return st }(), prog("head", "-n", "1")}, "y\n", "failure signal 141 signal=SIGPIPE"},
		{"a stage dies in the middle", []step.Stage{prog("yes"), sh("kill -9 $$"), prog("wc", "-c")}, "0\n", "failure signal 137 signal=SIGKILL"},
		{"the last one does not read", []step.Stage{prog("yes"), sh("exit 3")}, "", "failure exit 3"},
		{"stdin is empty", []step.Stage{sh("cat; echo end")}, "end\n", "success  0"},
		{"stdin is a text", []step.Stage{reads(prog("cat"), big)}, big, "success  0"},
		{"stdin is an empty text", []step.Stage{reads(prog("wc", "-c"), "")}, "0\n", "success  0"},
		{"stdin is a text that nobody reads", []step.Stage{reads(sh("echo over"), strings.Repeat("x", 1<<20))}, "over\n", "success  0"},
		{"no newline at the end, and every byte", []step.Stage{prog("printf", `\000\033[1m\r\377\376x`)}, "\x00\x1b[1m\r\xff\xfex", "success  0"},
		{"stderr is stdout, in order", []step.Stage{with(sh("for i in 1 2 3; do echo o$i; echo e$i >&2; done"), map[int]step.Stdio{2: {Kind: step.StdioStdout}})}, "o1\ne1\no2\ne2\no3\ne3\n", "success  0"},
		{"stderr is stdout in a pipe", []step.Stage{with(sh("echo o; echo e >&2"), map[int]step.Stdio{2: {Kind: step.StdioStdout}}), prog("cat")}, "o\ne\n", "success  0"},
		{"the embedded shell", []step.Stage{builtin("echo a; printf b | tr b c; exit 4")}, "a\nc", "failure exit 4"},
		{"the embedded shell between programs", []step.Stage{reads(prog("cat"), big), builtin("tr 0-9 1-90 | cat"), prog("wc", "-c")}, "524288\n", "success  0"},
		{"the embedded shell at both ends", []step.Stage{builtin("for i in 1 2 3; do echo $i; done"), builtin("while read x; do echo $x$x; done")}, "11\n22\n33\n", "success  0"},
		{"the embedded shell, whose reader has enough", []step.Stage{builtin("while echo y; do :; done"), prog("head", "-n", "1")}, "y\n", "success  0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			needs(t, "yes")
			r := play{sv: step.Services{Large: make(chan struct{}, 1)}}.stages(t, tt.stages...)
			r.ended(t, tt.end)
			if got := strings.ReplaceAll(r.out(len(tt.stages)-1, 1), " ", ""); got != tt.want {
				t.Errorf("%.200q, expected %.200q", got, tt.want)
			}
			first, last := r.order[0], r.order[len(r.order)-1]
			if first != step.EventSpawn || last != step.EventClose {
				t.Errorf("the events are %v", r.order)
			}
			for i, st := range r.Stages {
				if (st.Pid == 0) != (tt.stages[i].Shell == step.BuiltinShell) || st.Command != tt.stages[i].Command {
					t.Errorf("stage %d: %+v", i, st)
				}
			}
		})
	}
}

// TestManyLarge: places for large pipes are given back.
func TestManyLarge(t *testing.T) {
	t.Parallel()
	large := make(chan struct{}, 2)
	for range 2 {
		play{sv: step.Services{Large: large}}.stages(t, sh("echo a"), prog("cat"), prog("cat"), prog("cat")).ended(t, "success  0")
		if len(large) != 0 {
			t.Fatalf("%d places are taken after the end", len(large))
		}
	}
}

// TestDescriptors: what each kind of descriptor is to the child.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, []byte("from the file"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	open := func(p string, flag int) *os.File {
		f, err := os.OpenFile(p, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	fd := func(f *os.File) step.Stdio { return step.Stdio{Kind: step.StdioFD, FD: int(f.Fd())} }
	inherit := step.Stdio{Kind: step.StdioInherit}
	type kinds = map[int]step.Stdio
	for _, tt := range []struct {
		name  string
		text  string
		kinds kinds
		sv    step.Services
		want  string            // stdout as shown
		files map[string]string // what is in files afterwards
	}{
		{"stdin: file", "cat", kinds{0: file(in)}, step.Services{}, "from the file", nil},
		{"stdin: inherit", "cat", kinds{0: inherit}, step.Services{Stdin: open(in, os.O_RDONLY)}, "from the file", nil},
		{"stdin: fd", "cat", kinds{0: fd(open(in, os.O_RDONLY))}, step.Services{}, "from the file", nil},
		{"stdin: fd 0", "cat", kinds{0: {Kind: step.StdioFD}}, step.Services{Stdin: open(in, os.O_RDONLY)}, "from the file", nil},
		{"ignore", "echo lost; echo lost >&2", kinds{1: {Kind: step.StdioIgnore}, 2: {Kind: step.StdioIgnore}}, step.Services{}, "", nil},
		{"file", "echo o; echo e >&2", kinds{1: file(path("1", "old old")), 2: file(dir + "/2")}, step.Services{}, "", map[string]string{"1": "o\n", "2": "e\n"}},
		{"append", "echo o; echo e >&2", kinds{1: {Kind: step.StdioFile, Path: path("3", "old "), Append: true}, 2: {Kind: step.StdioStdout}}, step.Services{}, "", map[string]string{"3": "old o\ne\n"}},
		{"inherit, to files", "echo o; echo e >&2", kinds{1: inherit, 2: inherit},
			step.Services{Stdout: open(path("4", ""), os.O_WRONLY), Stderr: open(path("5", ""), os.O_WRONLY)}, "", map[string]string{"4": "o\n", "5": "e\n"}},
		{"inherit, to nothing", "echo o; echo e >&2", kinds{1: inherit, 2: inherit}, step.Services{}, "", nil},
		{"fd 1 and 2 cross over", "echo o; echo e >&2", kinds{1: {Kind: step.StdioFD, FD: 2}, 2: {Kind: step.StdioFD, FD: 1}},
			step.Services{Stdout: open(path("6", ""), os.O_WRONLY), Stderr: open(path("7", ""), os.O_WRONLY)}, "", map[string]string{"6": "e\n", "7": "o\n"}},
		{"fd", "echo o; echo e >&2", kinds{1: fd(open(path("8", ""), os.O_WRONLY)), 2: fd(open(path("9", ""), os.O_WRONLY))}, step.Services{}, "", map[string]string{"8": "o\n", "9": "e\n"}},
		{"past 2: file, append, null device, fd", "echo 3 >&3; echo 4 >&4; echo 5 >&5; cat <&5; cat <&6",
			kinds{3: file(path("10", "old")), 4: {Kind: step.StdioFile, Path: path("11", "old "), Append: true}, 5: {Kind: step.StdioIgnore}, 6: fd(open(in, os.O_RDONLY))},
			step.Services{}, "from the file", map[string]string{"10": "3\n", "11": "old 4\n"}},
		{"past 2: the runner's own stdout and stdin", "cat <&4; echo 3 >&3", kinds{3: {Kind: step.StdioFD, FD: 1}, 4: {Kind: step.StdioFD, FD: 0}},
			step.Services{Stdin: open(in, os.O_RDONLY), Stdout: open(path("12", ""), os.O_WRONLY)}, "from the file", map[string]string{"12": "3\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := play{sv: tt.sv}.stages(t, with(sh(tt.text), tt.kinds))
			r.ended(t, "success  0")
			if got := r.out(0, 1); got != tt.want {
				t.Errorf("stdout is %q, expected %q", got, tt.want)
			}
			for name, want := range tt.files {
				if got := content(t, filepath.Join(dir, name)); got != want {
					t.Errorf("%s has %q, expected %q", name, got, want)
				}
			}
		})
	}
	t.Run("past 2: inherit, the ones between closed", func(t *testing.T) {
		t.Parallel()
		f := open(in, os.O_RDONLY)
		n := int(f.Fd())
		st := with(sh(`eval "cat <&$1"; : <&3`, fmt.Sprint(n)), kinds{n: inherit})
		if n > 9 {
			needs(t, "bash") // other shells take one digit
			st.Program, st.Args[0] = "bash", "bash"
		}
		r := play{sv: step.Services{Inherited: []int{n}}}.stages(t, st)
		if r.out(0, 1) != "from the file" || n > 3 && r.ExitCode == 0 {
			t.Errorf("%q, %s", r.out(0, 1), describe(r.End))
		}
	})
}

// TestNoMoreDescriptors: a child has the descriptors of its stdio and no others.
func TestNoMoreDescriptors(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/self/fd")
	}
	inherited, err := exec.Command("ls", "/proc/self/fd").Output() // whoever started the test may have left some open
	if err != nil {
		t.Fatal(err)
	}
	list := prog("ls", "/proc/self/fd")
	for _, tt := range []struct {
		more   string
		stages []step.Stage
	}{
		{"", []step.Stage{list}},
		{"4", []step.Stage{with(list, map[int]step.Stdio{4: {Kind: step.StdioIgnore}})}},
		{"", []step.Stage{prog("true"), tee(chain(prog("cat"))), list}},
	} {
		r := play{}.stages(t, tt.stages...)
		got, want := strings.Fields(r.out(len(r.Stages)-1, 1)), append(strings.Fields(string(inherited)), strings.Fields(tt.more)...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s, expected %s", got, want)
		}
	}
}

// locked is a writer for several goroutines, and no file.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestInheritedWriters: what is inherited need not be a file, but then it can be a
// stdout or stderr only.
func TestInheritedWriters(t *testing.T) {
	t.Parallel()
	var both locked
	sv := step.Services{Stdout: &both, Stderr: &both}
	inherit := step.Stdio{Kind: step.StdioInherit}
	r := play{sv: sv}.stages(t, with(sh("for i in 1 2 3; do echo o$i; echo e$i >&2; done"), map[int]step.Stdio{1: inherit, 2: inherit}))
	r.ended(t, "success  0")
	if got := both.b.String(); got != "o1\ne1\no2\ne2\no3\ne3\n" || r.pieces > 0 {
		t.Errorf("%q, and %d events", got, r.pieces)
	}
	play{sv: sv}.stages(t, with(sh(":"), map[int]step.Stdio{3: {Kind: step.StdioFD, FD: 1}})).
		ended(t, "failure spawn 126 err=descriptor 1 of the runner is no file here, so that it can only be a stdout or stderr")
}

// TestCannotBegin: what is missing is found before anything starts, but for a
// folder, and is the runner's failure rather than a program's.
func TestCannotBegin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := safety.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	within := func(st step.Stage) step.Stage { st.Dir = dir; return st }
	at := func(d string, st step.Stage) step.Stage { st.Dir = d; return st }
	for _, tt := range []struct {
		name  string
		stage step.Stage
		sv    step.Services
		want  string // the end, $ being the directory
	}{
		{"no program", prog("no-such-program"), step.Services{}, "127 no-such-program"},
		{"no program there", prog(dir + "/none"), step.Services{}, "127 none"},
		{"no folder", at(dir+"/none", prog("true")), step.Services{}, "126 cwd $/none does not exist"},
		{"no folder, no program", at(dir+"/none", prog("./true")), step.Services{}, "126 cwd $/none does not exist"},
		{"no folder for the embedded shell", at(dir+"/none", builtin(":")), step.Services{}, "126 cwd $/none is not a directory"},
		{"no stdin", with(prog("cat"), map[int]step.Stdio{0: file(dir + "/none")}), step.Services{}, "126 stdin: cannot open $/none: no such file"},
		{"no stdout", with(prog("cat"), map[int]step.Stdio{1: file(dir + "/none/x")}), step.Services{}, "126 stdout: cannot open $/none/x: no such file"},
		{"no stderr", with(prog("cat"), map[int]step.Stdio{2: file(dir + "/none/x")}), step.Services{}, "126 stderr: cannot open $/none/x: no such file"},
		{"no fourth", with(prog("cat"), map[int]step.Stdio{3: file(dir + "/none/x")}), step.Services{}, "126 stdio[3]: cannot open $/none/x: no such file"},
		{"no descriptor", with(prog("cat"), map[int]step.Stdio{0: {Kind: step.StdioFD, FD: 9999}}), step.Services{}, "126 the runner has no descriptor 9999; open it where pipe is called, as in 9999<file"},
		{"no descriptor for stdout", with(prog("cat"), map[int]step.Stdio{1: {Kind: step.StdioFD, FD: 9999}}), step.Services{}, "126 the runner has no descriptor 9999"},
		{"a descriptor that is not for children", with(prog("cat"), map[int]step.Stdio{4: {Kind: step.StdioInherit}}), step.Services{Inherited: []int{}}, "126 the runner has no descriptor 4"},
		{"a folder outside of the root", prog("true"), step.Services{Root: root}, "126 cwd /: it is outside of the root $"},
		{"a folder that is a file", at("/etc/passwd", prog("true")), step.Services{}, "126 cwd /etc/passwd is not a directory"},
		{"a file outside of the root", within(with(prog("true"), map[int]step.Stdio{1: file("/etc/pipe-step-test")})), step.Services{Root: root}, "126 stdout: cannot open /etc/pipe-step-test: it is outside of the root $"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stages := []step.Stage{prog("cat"), tt.stage}
			if tt.stage.Stdio[0].Kind != step.StdioIgnore { // only the first stage has a stdin of its own
				stages = stages[1:]
			}
			r := play{sv: tt.sv}.stages(t, stages...)
			code, msg, _ := strings.Cut(strings.ReplaceAll(tt.want, "$", dir), " ")
			if r.Reason != step.ReasonSpawn || fmt.Sprint(r.ExitCode) != code || r.Err == nil || !strings.Contains(r.Err.Error(), msg) {
				t.Errorf("%s", describe(r.End))
			}
			if r.saw(step.EventSpawn) && !strings.Contains(tt.name, "folder") {
				t.Error("something was started")
			}
		})
	}
}

// TestConfined: inside of the root all works.
func TestConfined(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := safety.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	first := with(sh("pwd -P; echo text >in; cat in"), map[int]step.Stdio{2: file(dir + "/err")})
	second := builtin("cat; cat in >out; cat /etc/passwd >x || echo refused")
	third := prog("cat")
	first.Dir, second.Dir, third.Dir = dir, dir, dir
	r := play{sv: step.Services{Root: root}}.stages(t, first, second, tee(step.Branch{File: dir + "/copy"}), third)
	real, _ := filepath.EvalSymlinks(dir)
	if got := r.out(2, 1); got != real+"\ntext\n" && got != real+"\ntext\nrefused\n" {
		t.Errorf("%q, %s, %q", got, describe(r.End), r.out(1, 2))
	}
	if got := content(t, dir+"/copy"); got != r.out(2, 1) {
		t.Errorf("the branch has %q", got)
	}
	if got := content(t, dir+"/out"); got != "text\n" {
		t.Errorf("out has %q", got)
	}
}

// TestBlockedOpen: a FIFO that nobody opens does not keep a step that is to end.
func TestBlockedOpen(t *testing.T) {
	t.Parallel()
	for fd := range 2 {
		path := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { stop(&step.Stop{}) })
		r := play{ctx: ctx}.stages(t, with(prog("cat"), map[int]step.Stdio{fd: file(path)}))
		r.ended(t, "cancelled  0")
		if r.saw(step.EventSpawn) {
			t.Errorf("descriptor %d: the events are %v", fd, r.order)
		}
	}
}

// TestScript: a shell is given its text in a file on the descriptor after those of
// stdio; the text can be of any length and read stdin.
func TestScript(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/self/fd")
	}
	script := func(fd int, text string) step.Stage {
		st := prog("sh", fmt.Sprintf("/proc/self/fd/%d", fd), "arg")
		st.Shell, st.Script, st.Text = "/bin/sh", true, text
		return st
	}
	r := play{}.stages(t, reads(script(3, "# "+strings.Repeat("x", 200<<10)+"\nread a\necho $a $1; exit 7"), "in\n"))
	r.ended(t, "failure exit 7")
	if got := r.out(0, 1); got != "in arg\n" {
		t.Errorf("%q", got)
	}
	r = play{}.stages(t, with(script(5, "cat <&4; echo over"), map[int]step.Stdio{4: {Kind: step.StdioIgnore}}))
	r.ended(t, "success  0")
	if got := r.out(0, 1); got != "over\n" {
		t.Errorf("%q", got)
	}
}

// TestCredentials: a stage runs as the user and group that it names.
func TestCredentials(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	id := uint32(65534)
	st := sh("id -u; id -g")
	st.UID, st.GID = &id, &id
	if r := (play{}).stages(t, st); r.out(0, 1) != "65534\n65534\n" {
		t.Errorf("%q, %s", r.out(0, 1), describe(r.End))
	}
}

// TestShellText: an embedded shell whose text is wrong, or whose raw value makes it
// so, fails as an expression does; its variables reach no child.
func TestShellText(t *testing.T) {
	t.Parallel()
	r := play{}.stages(t, builtin("if"))
	if r.Reason != step.ReasonExpression || r.Err == nil || !strings.Contains(r.Err.Error(), "shell text:") {
		t.Error(describe(r.End))
	}
	st := builtin(`printf '%s;' "$v"; sh -c 'printf "%s;" "$v$w"'; false; echo never`)
	st.Vars, st.Env, st.Set = []safety.Var{{Name: "v", Value: "a b"}}, append(st.Env, "w=c"), []string{"errexit"}
	r = play{}.stages(t, st)
	r.ended(t, "failure exit 1")
	if got := r.out(0, 1); got != "a b;c;" {
		t.Errorf("%q", got)
	}
}

// TestDirect: where nobody looks, the child's stdout is the runner's own.
func TestDirect(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/self/fd")
	}
	secrets, err := safety.NewRedactor([]string{"hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	link := sh("readlink /proc/self/fd/1; echo hunter2 >&2")
	for _, tt := range []struct {
		name   string
		spec   step.Spec
		sv     step.Services
		copied bool
		stderr string
	}{
		{"a stage", step.Spec{Stages: []step.Stage{link}}, step.Services{}, false, "hunter2\n"},
		{"one that is kept", step.Spec{Stages: []step.Stage{keeps(link, 1<<20, step.OverflowSpill)}}, step.Services{}, true, "hunter2\n"},
		{"one that is kept and held", step.Spec{Held: true, Stages: []step.Stage{keeps(link, 4, step.OverflowSpill)}}, step.Services{Whole: &sync.Mutex{}}, true, "hunter2\n"},
		{"one with an idleTimeout", step.Spec{IdleTimeout: time.Minute, Stages: []step.Stage{link}}, step.Services{}, true, "hunter2\n"},
		{"one with secrets", step.Spec{Stages: []step.Stage{link}}, step.Services{Redactor: secrets}, true, "***\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var files [2]*os.File
			for i, name := range []string{"out", "err"} {
				f, err := os.Create(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				files[i] = f
			}
			tt.sv.Direct, tt.sv.Stdout, tt.sv.Stderr = true, files[0], files[1]
			r := play{sv: tt.sv}.run(t, &tt.spec)
			r.ended(t, "success  0")
			got := content(t, dir+"/out")
			if copied := strings.HasPrefix(got, "pipe:"); copied != tt.copied || !copied && !strings.HasSuffix(got, "/out\n") {
				t.Errorf("stdout of the child is %q", got)
			}
			if got := content(t, dir+"/err"); got != tt.stderr {
				t.Errorf("stderr is %q, expected %q", got, tt.stderr)
			}
			if r.pieces > 0 {
				t.Error("events told of it")
			}
		})
	}
}

// TestNothingIsLeft counts, where no other test runs, what this program holds
// after steps that end in every way.
func TestNothingIsLeft(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close what nobody refers to
	dir := t.TempDir()
	never, cancel := context.WithCancelCause(t.Context())
	cancel(&step.Stop{})
	own, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	grandchild := sh("sleep 1000 & exit 7")
	grandchild.Drain = time.Millisecond
	for _, tt := range []struct {
		name string
		p    play
		spec step.Spec
		want string
	}{
		{"a pipe", play{}, step.Spec{Stages: []step.Stage{prog("yes"), prog("cat"), prog("head", "-n", "1")}}, "success  0"},
		{"files, a text and a buffer", play{}, step.Spec{Held: true, Stages: []step.Stage{keeps(with(reads(prog("cat"), input(200<<10)), map[int]step.Stdio{2: file(dir + "/x"), 3: file(dir + "/y")}), 9, step.OverflowSpill)}}, "success  0"},
		{"a tee", play{}, step.Spec{Stages: []step.Stage{prog("seq", "9"), tee(chain(prog("wc")), step.Branch{File: dir + "/z"}), prog("cat")}}, "success  0"},
		{"a tee that does not begin", play{}, step.Spec{Stages: []step.Stage{prog("seq", "9"), tee(chain(prog("wc")), step.Branch{File: dir + "/none/z"}), prog("cat")}}, "126"},
		{"a tee whose reader does not start", play{}, step.Spec{Stages: []step.Stage{prog("yes"), tee(chain(prog("cat"))), prog(dir)}}, "126"},
		{"a descriptor that is not for children", play{sv: step.Services{Inherited: []int{}}}, step.Spec{Stages: []step.Stage{with(prog("true"), map[int]step.Stdio{3: {Kind: step.StdioFD, FD: int(own.Fd())}})}}, "126"},
		{"told to end before", play{ctx: never}, step.Spec{Stages: []step.Stage{prog("yes"), tee(chain(prog("cat"))), prog("cat")}}, "cancelled  0"},
		{"the embedded shell", play{}, step.Spec{Stages: []step.Stage{builtin("yes | head -n 1; echo a"), builtin("cat"), prog("cat")}}, "success  0"},
		{"a grandchild", play{}, step.Spec{Stages: []step.Stage{grandchild}}, "failure exit 7"},
		{"a cut buffer", play{}, step.Spec{Stages: []step.Stage{keeps(prog("yes"), 9, step.OverflowKill)}}, "failure maxBuffer 1 signal=SIGTERM"},
		{"a service", play{}, step.Spec{Service: &step.Service{Ready: &step.Ready{Notify: true}}, Stages: []step.Stage{prog("true")}}, "success  0"},
		{"a timeout", play{}, step.Spec{IdleTimeout: time.Millisecond, Stages: []step.Stage{prog("sleep", "1000")}}, "failure idleTimeout 124 signal=SIGTERM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := count()
			r := tt.p.run(t, &tt.spec)
			if got := describe(r.End); got != tt.want && !strings.HasPrefix(got, tt.want+" ") && !strings.HasPrefix(got, "failure spawn "+tt.want) {
				t.Errorf("%s, expected %s", got, tt.want)
			}
			for _, st := range r.Stages {
				st.Stdout.Close()
				st.Stderr.Close()
			}
			if left := before.grown(); left != "" {
				t.Error(left)
			}
		})
	}
}
