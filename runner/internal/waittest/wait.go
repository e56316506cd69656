// Package waittest is how tests wait: for an event, for no longer than it takes at
// most, and with a word for what did not come.
package waittest

import (
	"testing"
	"time"
)

// Patience is the longest wait for an event that is to come.
const Patience = 20 * time.Second

// For waits until c is closed, or receives.
func For(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(Patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

// Until waits for what has no event.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
