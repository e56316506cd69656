//go:build linux

package history

import (
	"os"
	"path/filepath"
	"testing"
)

// TestShortCut: a file that is known for sure is not read again, one that was
// written in any way is, and so is one that is not known for sure.
func TestShortCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v := &View{Memory: Volatile()}
	look := func(before fileState) fileState {
		t.Helper()
		st, err := v.fileState(path, before)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	write("one")
	first := look(fileState{})
	if first.Sure {
		t.Error("a file that was written just now is known for sure")
	}
	known := fileState{Sum: "from before", ID: first.ID, Sure: true}
	if got := look(known); got.Sum != known.Sum {
		t.Error("a file that is known for sure is read again")
	}
	known.Sure = false
	if got := look(known); got.Sum != first.Sum {
		t.Error("a file that is not known for sure is not read")
	}
	// The same size, and the modification time of before: but its ctime tells.
	known.Sure = true
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for id := first.ID; id.Ctime == first.ID.Ctime; { // until the clock has gone on
		write("two")
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		now, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		id = identify(now)
	}
	if got := look(known); got.Sum == known.Sum || got.Sum == first.Sum {
		t.Errorf("a file that was written is taken for %q", got.Sum)
	}
}
