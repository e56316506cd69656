// Package signame has the names of signals.
package signame

import (
	"syscall"

	"github.com/pipe-runner/pipe/pipeline"
)

// Name returns the name of a signal, as SIGTERM.
func Name(s syscall.Signal) string { return pipeline.SignalName(s) }

// Parse returns the signal of that name (SIGTERM or TERM) or number.
func Parse(s string) (syscall.Signal, error) { return pipeline.ParseSignal(s) }
