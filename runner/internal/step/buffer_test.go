//go:build unix

package step

import (
	"bytes"
	"os"
	"syscall"
	"testing"
)

// TestPrivateFiles: what is spilled is in a file of mode 0600 that has no name,
// whatever the umask (row 118).
func TestPrivateFiles(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	t.Setenv("TMPDIR", t.TempDir())
	b := &Buffer{max: 4, policy: OverflowSpill}
	if _, err := b.Write([]byte("123456789")); err != nil || b.file == nil {
		t.Fatal(err, "nothing was spilled")
	}
	defer b.Close()
	info, err := b.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	if info.Mode().Perm() != 0o600 || st.Nlink != 0 {
		t.Errorf("mode %s, %d names", info.Mode(), st.Nlink)
	}
	if got, err := b.Bytes(0); err != nil || !bytes.Equal(got, []byte("123456789")) {
		t.Errorf("%q, %v", got, err)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
