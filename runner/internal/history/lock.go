package history

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/state"
)

// LockError tells that a lock is held by another run.
type LockError struct {
	Name   string
	Holder string // what its holder wrote into it; "": it is not known
}

// Error names the lock and who holds it.
func (e *LockError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("lock %s is held by another run", e.Name)
	}
	return fmt.Sprintf("lock %s is held by %s", e.Name, e.Holder)
}

var lockName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`) })

// Lock takes a lock that one holder has at a time, for the user on this machine.
// It waits as long as wait says (nil: as long as it takes; 0: not at all), and
// until ctx is done; waits is told once for whom. The error is a [LockError], the
// cause of the end of ctx, or what is wrong. What Lock returns gives the lock
// back; the kernel does when this program ends. who is what others are told.
func Lock(ctx context.Context, environ []string, name string, wait *time.Duration, who string, waits func(holder string)) (func(), error) {
	if !lockName().MatchString(name) {
		return nil, fmt.Errorf("lock: a name has letters, digits, _, - and . (at most 100): %.120q has not", name)
	}
	folder, err := StateDir(environ)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	dir, err := state.Sub(folder, "locks")
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	f, err := state.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, osfile.Cause(err))
	}
	var limit <-chan time.Time
	if wait != nil {
		limit = time.After(*wait)
	}
	// The kernel wakes who blocks in flock, but could not be told to give up.
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, 200*time.Millisecond) {
		held, err := state.TryLock(f)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if held {
			break
		}
		holder := readHolder(f)
		if wait != nil && *wait == 0 {
			_ = f.Close()
			return nil, &LockError{name, holder}
		}
		if waits != nil {
			waits((&LockError{name, holder}).Error())
			waits = nil
		}
		select {
		case <-time.After(delay):
		case <-limit:
			_ = f.Close()
			return nil, &LockError{name, holder}
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		}
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(fmt.Sprintf("pid %d (%s), since %s\n", os.Getpid(), who, time.Now().Format(time.RFC3339))), 0)
	return func() { _ = f.Truncate(0); _ = f.Close() }, nil
}

// readHolder returns what the holder of a lock wrote into it, for people.
func readHolder(f *os.File) string {
	b := make([]byte, 300)
	n, _ := f.ReadAt(b, 0)
	for i, c := range b[:n] {
		if c < ' ' || c > '~' {
			return string(b[:i])
		}
	}
	return string(b[:n])
}
