package pipeline

import (
	"syscall"

	"github.com/pipe-runner/pipe/pipeline/signame"
)

// ParseSignal returns the signal of that name (SIGTERM or TERM) or number; see
// [signame.Parse].
func ParseSignal(s string) (syscall.Signal, error) { return signame.Parse(s) }

// SignalName returns the name of a signal, such as SIGTERM, and "" for 0; see
// [signame.Name].
func SignalName(s syscall.Signal) string { return signame.Name(s) }
