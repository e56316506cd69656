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

// LockError reports that another run holds a lock.
type LockError struct {
	Name   string // the name of the lock
	Holder string // the holder's description of itself; "": unknown
}

// Error returns the message, with the name of the lock and its holder.
func (e *LockError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("lock %s is held by another run", e.Name)
	}
	return fmt.Sprintf("lock %s is held by %s", e.Name, e.Holder)
}

var lockName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`) })

// Lock takes the lock name, which one run of the user on this machine holds at a time.
// environ, a list of NAME=VALUE, names the state folder.
//
// Lock waits for at most wait (nil: without a limit; 0: not at all), or until ctx is
// done. When it begins to wait it calls waits, if not nil, with a message that names
// the holder. who describes this run to other runs that wait.
//
// The caller releases the lock with the function that Lock returns; the kernel releases
// it when the program ends. If the time is up, the error is a [LockError]; if ctx is
// done, it is the cause of the end of ctx. Lock may be called concurrently.
func Lock(ctx context.Context, environ []string, name string, wait *time.Duration, who string, waits func(holder string)) (func(), error) {
	if !lockName().MatchString(name) {
		return nil, fmt.Errorf("lock %.120q: a name has letters, digits, _, - and . (at most 100), and begins with a letter, digit or _", name)
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
	// Poll: a blocking flock could not be cancelled.
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

// readHolder returns the description that the holder of a lock wrote to its file.
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
