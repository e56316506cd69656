package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/pipe-runner/pipe/runner/guard"
)

// handOnStops makes the steps stop and go on with this program. The program
// itself goes on counting: a timeout does not wait for who is suspended.
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
