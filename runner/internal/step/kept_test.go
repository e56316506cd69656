//go:build unix

package step_test

// This file has what the runner keeps of output, holds back and masks.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

func masks(t testing.TB, secrets ...string) *safety.Redactor {
	t.Helper()
	r, err := safety.NewRedactor(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBuffers: what is kept, shown, and said about it, for each policy, as it comes
// and held back.
func TestBuffers(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	big := input(200 << 10)
	for _, tt := range []struct {
		name       string
		text       string
		max        int64
		policy     step.Overflow
		kept, show string
		cut        bool
		end        string
	}{
		{"memory", "123456789", 10, step.OverflowSpill, "123456789", "123456789", false, "success  0"},
		{"memory, full", "123456789", 9, step.OverflowKill, "123456789", "123456789", false, "success  0"},
		{"nothing", "", 9, step.OverflowKill, "", "", false, "success  0"},
		{"spill", "123456789", 4, step.OverflowSpill, "123456789", "123456789", false, "success  0"},
		{"spill, all of it", "123456789", 0, step.OverflowSpill, "123456789", "123456789", false, "success  0"},
		{"spill, much", big, limit, step.OverflowSpill, big, big, false, "success  0"},
		{"truncate", "123456789", 4, step.OverflowTruncate, "1234", "1234", true, "success  0"},
		{"truncate, all of it", "123456789", 0, step.OverflowTruncate, "", "", true, "success  0"},
		{"truncate, much", big, limit, step.OverflowTruncate, big[:limit], big[:limit], true, "success  0"},
		{"bytes, not characters", "ääää", 3, step.OverflowTruncate, "ä\xc3", "ä\xc3", true, "success  0"},
	} {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, held=%t", tt.name, held), func(t *testing.T) {
				t.Parallel()
				spec := &step.Spec{Label: "x", Held: held, Stages: []step.Stage{keeps(reads(sh("cat; echo e >&2"), tt.text), tt.max, tt.policy)}}
				r := play{sv: step.Services{Redactor: masks(t, "no such secret")}}.run(t, spec)
				r.ended(t, tt.end)
				out := r.Stages[0].Stdout
				got, err := out.Bytes(0)
				if err != nil || string(got) != tt.kept || out.Size() != int64(len(tt.kept)) || out.Cut() != tt.cut {
					t.Errorf("kept are %d bytes, %.100q, cut: %t, %v", out.Size(), got, out.Cut(), err)
				}
				if got, err := out.Bytes(5); err != nil || string(got) != tt.kept[:min(5, len(tt.kept))] {
					t.Errorf("the first bytes are %q, %v", got, err)
				}
				if got := r.out(0, 1); got != tt.show {
					t.Errorf("shown are %d bytes, %.100q", len(got), got)
				}
				if got, _ := r.Stages[0].Stderr.Bytes(0); string(got) != "e\n"[:min(2, tt.max)] && tt.policy != step.OverflowSpill {
					t.Errorf("stderr has %q", got)
				}
				out.Close()
				if _, err := out.Bytes(0); !errors.Is(err, os.ErrClosed) {
					t.Errorf("after Close: %v", err)
				}
			})
		}
	}
}

// TestKillOverflow: a cut output is a failure, whoever is faster: the runner, or the
// process that ends well.
func TestKillOverflow(t *testing.T) {
	t.Parallel()
	p := play{}
	spec := &step.Spec{Label: "x", Stages: []step.Stage{keeps(prog("printf", "123456789"), 4, step.OverflowKill)}}
	for i := range 200 {
		r := step.Run(t.Context(), spec, &step.Services{Engine: engine.Local{}}, func(step.Event) {})
		got, _ := r.Stages[0].Stdout.Bytes(0)
		if r.Reason != step.ReasonMaxBuffer || r.ExitCode != 1 || r.Status != step.StatusFailure || string(got) != "1234" || !r.Stages[0].Stdout.Cut() {
			t.Fatalf("run %d: %s, %q", i, describe(r.End), got)
		}
	}
	r := p.stages(t, keeps(prog("yes"), 9, step.OverflowKill))
	r.ended(t, "failure maxBuffer 1 signal=SIGTERM")
	if got := r.out(0, 1); got != "y\ny\ny\ny\ny" {
		t.Errorf("shown is %q", got)
	}
	r = p.stages(t, keeps(sh("yes >&2"), 9, step.OverflowKill), prog("cat"))
	r.ended(t, "failure maxBuffer 1 signal=SIGTERM")
}

// TestSpillFails: a temporary file that cannot be had loses output of the buffer,
// which is said, but neither the step nor what is shown.
func TestSpillFails(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	for _, held := range []bool{false, true} {
		r := play{}.run(t, &step.Spec{Label: "x", Held: held, Stages: []step.Stage{keeps(sh("printf 1234; printf 56789"), 6, step.OverflowSpill)}})
		r.ended(t, "success  0")
		out := r.Stages[0].Stdout
		if got, err := out.Bytes(0); err == nil || string(got) != "123456" || !out.Cut() {
			t.Errorf("held %t: kept is %q, %v, cut: %t", held, got, err, out.Cut())
		}
		if got := r.out(0, 1); got != "123456789" && !held {
			t.Errorf("shown is %q", got)
		}
		if !strings.HasPrefix(r.warned(), "buffered output is incomplete: open ") {
			t.Errorf("the warning is %q", r.warned())
		}
	}
}

// TestBufferOfNothing: what was not kept is empty, and what is recalled is there.
func TestBufferOfNothing(t *testing.T) {
	t.Parallel()
	var none *step.Buffer
	none.Close()
	if got, err := none.Bytes(9); got != nil || err != nil || none.Size() != 0 || none.Cut() {
		t.Errorf("%q, %v", got, err)
	}
	old := step.Recall([]byte("text"))
	if got, err := old.Bytes(2); string(got) != "te" || err != nil || old.Size() != 4 || old.Cut() {
		t.Errorf("%q, %v", got, err)
	}
}

// TestHeld: what steps that run at once write is delivered when they have ended,
// whole, and not mixed, however many pieces it has.
func TestHeld(t *testing.T) {
	t.Parallel()
	const steps, size = 4, 2500 << 10
	var mu sync.Mutex
	var order []int
	sizes := map[int]int{}
	whole := &sync.Mutex{}
	var all []*record
	for i := range steps {
		st := sh(`head -c $1 /dev/zero | tr '\0' $2`, fmt.Sprint(size), fmt.Sprint(i))
		p := play{sv: step.Services{Whole: whole}}
		p.on = func(e step.Event) {
			if e.Type != step.EventData {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !e.Whole || bytes.Count(e.Data, []byte{byte('0' + i)}) != len(e.Data) {
				t.Errorf("step %d: whole is %t", i, e.Whole)
			}
			order = append(order, i)
			sizes[i] += len(e.Data)
		}
		all = append(all, p.begin(t, &step.Spec{Label: "x", Held: true, Stages: []step.Stage{keeps(st, 1<<20, step.OverflowSpill)}}))
	}
	for _, r := range all {
		arrives(t, "the end of a step", r.over)
		r.ended(t, "success  0")
	}
	changes := 0
	for i := 1; i < len(order); i++ {
		if order[i] != order[i-1] {
			changes++
		}
	}
	if changes != steps-1 || len(order) <= steps {
		t.Errorf("the pieces came in the order %v", order)
	}
	for i := range steps {
		if sizes[i] != size {
			t.Errorf("step %d: %d bytes", i, sizes[i])
		}
	}
}

// TestMasked: a secret is masked that comes in pieces, and one that is cut off.
func TestMasked(t *testing.T) {
	t.Parallel()
	t.Run("in pieces", func(t *testing.T) {
		t.Parallel()
		in, release := pipe(t)
		var once sync.Once
		p := play{sv: step.Services{Stdin: in, Redactor: masks(t, "hunter2secret")}}
		p.on = func(e step.Event) { // the first piece is here
			if e.Type == step.EventData {
				once.Do(func() { _, _ = release.WriteString("\n") })
			}
		}
		r := p.stages(t, with(sh("printf 'abc hunter2'; read x; printf 'secret def hunter2'"), map[int]step.Stdio{0: {Kind: step.StdioInherit}}))
		r.ended(t, "success  0")
		if got := r.out(0, 1); got != "abc *** def hunter2" || r.pieces < 2 {
			t.Errorf("%q in %d pieces", got, r.pieces)
		}
	})
	for _, tt := range []struct {
		name   string
		policy step.Overflow
		held   bool
		status step.Status
	}{
		{"cut by truncate", step.OverflowTruncate, false, step.StatusSuccess},
		{"cut by truncate, held", step.OverflowTruncate, true, step.StatusSuccess},
		{"cut by kill", step.OverflowKill, false, step.StatusFailure},
		{"cut by kill, held", step.OverflowKill, true, step.StatusFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := play{sv: step.Services{Redactor: masks(t, "hunter2secret")}}.run(t, &step.Spec{
				Label: "x", Held: tt.held, Stages: []step.Stage{keeps(sh("printf 'abc hunter2secret'"), 10, tt.policy)},
			})
			if got := r.out(0, 1); !strings.HasPrefix(got, "abc ") || strings.Contains(got, "hunt") || r.Status != tt.status {
				t.Errorf("%q, %s", got, describe(r.End))
			}
		})
	}
	t.Run("in a warning", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "hunter2secret")
		if err := os.Symlink("/dev/full", path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Skip("needs /dev/full")
		}
		r := play{sv: step.Services{Redactor: masks(t, "hunter2secret")}}.stages(t, prog("seq", "9"), tee(step.Branch{File: path}))
		if got := r.warned(); strings.Contains(got, "hunter2") || !strings.Contains(got, "*** is incomplete: ") || !strings.HasSuffix(got, "no space left on device") {
			t.Errorf("the warning is %q", got)
		}
	})
}
