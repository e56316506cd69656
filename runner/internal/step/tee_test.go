//go:build unix

package step_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pipe-runner/pipe/runner/internal/step"
)

// TestTee has each case twice: as the system duplicates the stream, and as this
// program copies it, which a branch that appends to a file brings about.
func TestTee(t *testing.T) {
	t.Parallel()
	needs(t, "yes")
	big := input(256 << 10)
	to := func(st step.Stage, path string) step.Stage { return with(st, map[int]step.Stdio{1: file(path)}) }
	for _, tt := range []struct {
		name    string
		stages  func(dir, fifo string) []step.Stage
		release bool   // the first output opens the FIFO
		want    string // stdout of the last stage that shows any, spaces off
		end     string
		files   map[string]string
		endless bool // nothing can be said about the file that is appended to
	}{
		{name: "two branches, a file and the next stage", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{
				reads(prog("cat"), big),
				tee(chain(to(prog("cat"), dir+"/a")), chain(prog("cat"), to(prog("cat"), dir+"/b")), step.Branch{File: dir + "/c"}),
				prog("cat"),
			}
		}, want: big, end: "success  0", files: map[string]string{"a": big, "b": big, "c": big, "app": "old " + big}},
		{name: "nothing comes", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{prog("true"), tee(chain(to(prog("cat"), dir+"/a")), step.Branch{File: dir + "/c"}), prog("wc", "-c")}
		}, want: "0\n", end: "success  0", files: map[string]string{"a": "", "c": "", "app": "old "}},
		{name: "it is the last stage", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{reads(prog("cat"), big), tee(chain(prog("wc", "-c")))}
		}, want: "262144\n", end: "success  0", files: map[string]string{"app": "old " + big}},
		{name: "a file only", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{reads(prog("cat"), big), tee(step.Branch{File: dir + "/c"})}
		}, end: "success  0", files: map[string]string{"c": big, "app": "old " + big}},
		{name: "a tee in a branch of a tee", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{
				reads(prog("cat"), big),
				tee(chain(prog("cat"), tee(chain(to(prog("cat"), dir+"/a")), step.Branch{File: dir + "/c"}), to(prog("cat"), dir+"/b"))),
				prog("wc", "-c"),
			}
		}, want: "262144\n", end: "success  0", files: map[string]string{"a": big, "b": big, "c": big, "app": "old " + big}},
		{name: "a branch stops reading", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{reads(prog("cat"), big), tee(chain(to(prog("head", "-c", "3"), dir+"/a"))), prog("wc", "-c")}
		}, want: "262144\n", end: "success  0", files: map[string]string{"a": "0\n1", "app": "old " + big}},
		{name: "the next stage stops reading", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{reads(prog("cat"), big), tee(chain(to(prog("cat"), dir+"/a"))), prog("head", "-c", "3")}
		}, want: "0\n1", end: "success  0", files: map[string]string{"a": big, "app": "old " + big}},
		{name: "all stop reading", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{prog("yes"), tee(chain(to(prog("head", "-n", "1"), dir+"/a")), chain(prog("true"))), prog("head", "-n", "2")}
		}, want: "y\ny\n", end: "success  0", files: map[string]string{"a": "y\n"}, endless: true},
		{name: "a slow branch", stages: func(dir, fifo string) []step.Stage {
			return []step.Stage{reads(prog("cat"), big), tee(chain(to(sh("read x <$1; cat", fifo), dir+"/a"))), sh("head -c 2; exec wc -c")}
		}, release: true, end: "success  0", want: "0\n262142\n", files: map[string]string{"a": big, "app": "old " + big}},
		{name: "a branch fails", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{reads(prog("cat"), big), tee(chain(prog("cat"), sh("cat >/dev/null; exit 3"))), prog("wc", "-c")}
		}, want: "262144\n", end: "failure exit 3", files: map[string]string{"app": "old " + big}},
		{name: "a stage behind it fails later than a branch", stages: func(dir, _ string) []step.Stage {
			return []step.Stage{prog("true"), tee(chain(sh("exit 3"))), sh("exit 4")}
		}, end: "failure exit 4"},
	} {
		for _, copied := range []bool{false, true} {
			if tt.endless && copied {
				continue // a file never has enough
			}
			name := tt.name
			if copied {
				name += ", copied"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				path, f := fifo(t)
				stages := tt.stages(dir, path)
				if copied {
					if err := os.WriteFile(dir+"/app", []byte("old "), 0o600); err != nil {
						t.Fatal(err)
					}
					stages[1].Tee = append([]step.Branch{{File: dir + "/app", Append: true}}, stages[1].Tee...)
				}
				var once sync.Once
				r := play{on: func(e step.Event) {
					if e.Type == step.EventData && tt.release {
						once.Do(func() { _, _ = f.WriteString("\n") })
					}
				}}.stages(t, stages...)
				r.ended(t, tt.end)
				last := len(r.Stages) - 1
				if got := strings.ReplaceAll(r.out(last, 1), " ", ""); got != tt.want {
					t.Errorf("%d bytes, %.100q, expected %.100q", len(got), got, tt.want)
				}
				for name, want := range tt.files {
					if name == "app" && !copied {
						continue
					}
					if got := content(t, filepath.Join(dir, name)); got != want {
						t.Errorf("%s has %d bytes, expected %d", name, len(got), len(want))
					}
				}
				if r.warned() != "" {
					t.Errorf("the warning is %q", r.warned())
				}
			})
		}
	}
}

// TestTeeResults: the stages of branches stand where the tee does, and are said to
// be in one; one that has enough upstream of all is told so by SIGPIPE.
func TestTeeResults(t *testing.T) {
	t.Parallel()
	r := play{}.stages(t, prog("yes"), tee(chain(prog("true"), prog("cat"))), prog("head", "-n", "1"))
	var got []string
	for _, st := range r.Stages {
		name := st.Command
		if st.Branch {
			name = "(" + name + ")"
		}
		got = append(got, name)
	}
	if s := strings.Join(got, " "); s != "yes (true) (cat) head -n 1" || r.Command != "head -n 1" {
		t.Errorf("%s; %s", s, r.Command)
	}
	if sig := r.Stages[0].Exit.Signal; sig != syscall.SIGPIPE {
		t.Errorf("yes ended by %s", r.Stages[0].Exit)
	}
}

// TestTeeFull: a disk that is full loses the rest of that file only, and makes a
// failure of the step.
func TestTeeFull(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	dir := t.TempDir()
	big := input(256 << 10)
	r := play{}.stages(t, reads(prog("cat"), big), tee(step.Branch{File: "/dev/full"}, step.Branch{File: dir + "/a"}), prog("wc", "-c"))
	full(t, r, "/dev/full", "failure")
	if got := strings.TrimSpace(r.out(1, 1)); got != "262144" || content(t, dir+"/a") != big {
		t.Errorf("the others got %q", got)
	}
	r = play{}.stages(t, prog("seq", "9"), tee(step.Branch{File: "/dev/full"}), sh("cat >/dev/null; exit 3"))
	r.ended(t, "failure exit 3")
}

// full looks for what is said about a file on a full disk.
func full(t testing.TB, r *record, path, status string) {
	t.Helper()
	if r.Status.String() != status || r.Reason != step.ReasonExit || r.ExitCode != 1 || r.Err == nil {
		t.Fatal(describe(r.End), r.warned())
	}
	for _, msg := range []string{r.Err.Error(), r.warned()} {
		if !strings.HasPrefix(msg, "tee: "+path+" is incomplete: ") || !strings.HasSuffix(msg, "no space left on device") {
			t.Errorf("it is said: %s", msg)
		}
	}
}
