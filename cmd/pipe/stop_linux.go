package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/pipe-runner/pipe/runner/guard"
)

// handOnStops suspends and continues the steps together with this program
// (SIGTSTP, SIGCONT). Timeouts keep counting while the program is suspended. The
// returned function ends this.
func handOnStops(g *guard.Guard) func() {
	if g == nil {
		return func() {}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTSTP, syscall.SIGCONT)
	go func() {
		for s := range signals {
			sig, _ := s.(syscall.Signal)
			g.Suspend(sig)
		}
	}()
	return func() { signal.Stop(signals); close(signals) }
}
