package tty

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// stops are the signals by which a terminal stops a process in the background
// that reads it or changes it.
func stops() *unix.Sigset_t {
	set := &unix.Sigset_t{}
	set.Val[0] = 1<<(uint(unix.SIGTTOU)-1) | 1<<(uint(unix.SIGTTIN)-1)
	return set
}

// Unstoppable runs f in a thread that no terminal stops, and neither does it stop
// what f starts: a process in the background may then change the terminal, and
// its reads fail.
func Unstoppable(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.Sigset_t
	if unix.PthreadSigmask(unix.SIG_BLOCK, stops(), &old) == nil {
		defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	}
	f()
}

// Stoppable undoes, for this thread and what it starts, that the program was
// started by [Unstoppable]. The caller has locked the thread.
func Stoppable() { _ = unix.PthreadSigmask(unix.SIG_UNBLOCK, stops(), nil) }

// Stop stops this program by a signal: it returns when the program has been
// continued, or at once if the program catches or ignores the signal. A signal
// to the whole process may take effect only after kill(2) has returned.
func Stop(sig syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
}
