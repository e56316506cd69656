//go:build !linux

package guard

import (
	"syscall"
	"time"
)

// Guard tracks the processes of this program. On this system it does nothing.
type Guard struct{}

// Enter returns a guard that does nothing.
func Enter() (*Guard, error) { return &Guard{}, nil }

// Fork calls start without a parent-death signal.
func (g *Guard) Fork(start func(syscall.Signal) (int, error)) (int, error) { return start(0) }

// Keep does nothing.
func (g *Guard) Keep(int) error { return nil }

// Adopt returns a guard that does nothing.
func Adopt() *Guard { return &Guard{} }

// Job returns 0: there is no first process.
func (g *Guard) Job() int { return 0 }

// HandOnStops does nothing.
func (g *Guard) HandOnStops() (undo func()) { return func() {} }

// Inherited returns nil.
func (g *Guard) Inherited() []int { return nil }

// Reaped does nothing.
func (g *Guard) Reaped(int) {}

// EndOrphans does nothing.
func (g *Guard) EndOrphans(time.Duration) []string { return nil }

// EndOrphansUntil does nothing.
func (g *Guard) EndOrphansUntil(time.Duration, <-chan struct{}) []string { return nil }
