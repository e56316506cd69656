// Package signame translates between signals and their names:
//
//	signame.Name(syscall.SIGTERM) // "SIGTERM"
//	signame.Parse("TERM")         // syscall.SIGTERM
//	signame.Parse("SIGRTMIN+3")   // signal 37, on Linux
//
// It knows the names that the system has, and on Linux those of the real-time
// signals as bash lists them. Its functions may be called from several
// goroutines at once.
package signame

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// max is the highest number that Parse accepts.
const max = 64

// unnamed comes before the number of a signal without a name.
const unnamed = "signal "

// aliases are other names of a signal.
var aliases = map[string]string{"SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO", "SIGCLD": "SIGCHLD"}

// UnknownError is the error of [Parse] for a text that names no signal.
type UnknownError struct{ Text string }

// Error returns a sentence that quotes the text.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown signal %q; expected a name such as SIGTERM or SIGINT", e.Text)
}

// Name returns the name of a signal, such as SIGTERM or SIGRTMIN+3. For a
// signal that has no name it returns "signal" and the number, and for 0, which
// is no signal, "".
func Name(s syscall.Signal) string {
	if s == 0 {
		return ""
	}
	if name := systemName(s); name != "" {
		return name
	}
	if name := realtimeName(int(s)); name != "" {
		return name
	}
	return unnamed + strconv.Itoa(int(s))
}

// ExitCode returns the exit code by which shells, and pipe, tell that a signal
// ended a process: 128 and the number of the signal.
func ExitCode(s syscall.Signal) int { return 128 + int(s) }

// Parse returns the signal of a name (with or without SIG, in any case), of a
// number from 1 to 64, or of anything that [Name] returns but "". The error is
// an [*UnknownError].
func Parse(s string) (syscall.Signal, error) {
	digits := strings.TrimPrefix(s, unnamed)
	if n, err := strconv.ParseUint(digits, 10, 8); err == nil && strconv.FormatUint(n, 10) == digits {
		if n >= 1 && n <= max {
			return syscall.Signal(n), nil
		}
		return 0, &UnknownError{s}
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if other, ok := aliases[name]; ok {
		name = other
	}
	if sig := systemNumber(name); sig != 0 {
		return sig, nil
	}
	if n := realtimeNumber(name); n != 0 {
		return syscall.Signal(n), nil
	}
	return 0, &UnknownError{s}
}
