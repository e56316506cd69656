//go:build unix

package bind_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pipe-runner/pipe/runner/internal/bind"
)

// TestFIFO: a FIFO is no file of variables, and is not waited for.
func TestFIFO(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skipf("no FIFO can be made: %v", err)
	}
	_, err := bound(t, parse(t, "steps: [{spawn: [x], envFile: "+path+"}]"), values(), bind.Look{})
	if err == nil || !strings.HasSuffix(err.Error(), "is not a regular file") {
		t.Errorf("%v", err)
	}
}
