//go:build unix

package main

// Tests wait for events, for no longer than those take at most, and name what
// did not come.

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// longest is how long a test waits for anything.
const longest = 30 * time.Second

// awaitChange waits until something holds that comes with a change in a folder.
func awaitChange(dir, what string, holds func() bool) error {
	changes, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = changes.Close() }()
	if err := changes.Add(dir); err != nil {
		return err
	}
	limit := time.After(longest)
	for !holds() {
		select {
		case <-changes.Events:
		case err := <-changes.Errors:
			return err
		case <-limit:
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

// awaitFile waits for a file with something in it.
func awaitFile(path string) error {
	return awaitChange(filepath.Dir(path), path, func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() > 0
	})
}

// ready is awaitFile for a test.
func ready(t *testing.T, path string) {
	t.Helper()
	if err := awaitFile(path); err != nil {
		t.Fatal(err)
	}
}
