package step_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pipe-runner/pipe/runner/internal/step"
)

// TestTeeFullDisk is TestTeeFull where the system duplicates the stream; and a
// buffer on a full disk loses its end only.
func TestTeeFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the privilege to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	big := input(256 << 10)
	for _, branches := range [][]step.Branch{{{File: dir + "/a"}}, {{File: dir + "/a"}, chain(prog("cat"))}, {chain(prog("cat")), {File: dir + "/a"}}} {
		r := play{}.stages(t, reads(prog("cat"), big), tee(branches...), prog("wc", "-c"))
		full(t, r, dir+"/a", "failure")
		last := len(r.Stages) - 1
		if got := strings.TrimSpace(r.out(last, 1)); got != "262144" || len(r.Stages) > 2 && r.out(1, 1) != big {
			t.Errorf("the next stage got %q", got)
		}
		if got := content(t, dir+"/a"); got == "" || !strings.HasPrefix(big, got) {
			t.Errorf("the file has %d bytes, and not the beginning", len(got))
		}
		if err := os.Remove(dir + "/a"); err != nil {
			t.Error(err)
		}
	}
	r := play{}.stages(t, reads(prog("cat"), big), tee(step.Branch{File: dir + "/a"})) // nobody is left to read
	full(t, r, dir+"/a", "failure")
	if err := os.Remove(dir + "/a"); err != nil {
		t.Error(err)
	}

	t.Setenv("TMPDIR", dir)
	r = play{}.stages(t, keeps(reads(prog("cat"), big), 1<<10, step.OverflowSpill))
	r.ended(t, "success  0")
	out := r.Stages[0].Stdout
	got, err := out.Bytes(0)
	if err == nil || len(got) <= 1<<10 || !strings.HasPrefix(big, string(got)) || !out.Cut() || int64(len(got)) != out.Size() {
		t.Errorf("%d bytes of %d, cut: %t, %v", len(got), out.Size(), out.Cut(), err)
	}
	if r.out(0, 1) != big || !strings.Contains(r.warned(), "buffered output is incomplete: write ") {
		t.Errorf("shown are %d bytes, the warning is %q", len(r.out(0, 1)), r.warned())
	}
}

// TestLargePipe: as long as there is a place, a pipe holds more than the system's
// 64 KiB.
func TestLargePipe(t *testing.T) {
	t.Parallel()
	path, release := fifo(t)
	writer := sh("head -c 1000000 /dev/zero; echo over >&2")
	r := play{sv: step.Services{Large: make(chan struct{}, 1)}, on: func(e step.Event) {
		if e.Type == step.EventData && e.FD == 2 {
			_, _ = release.WriteString("\n")
		}
	}}.stages(t, writer, sh("read x <$1; wc -c", path))
	r.ended(t, "success  0")
	if got := strings.TrimSpace(r.out(1, 1)); got != "1000000" {
		t.Error(got)
	}
}
