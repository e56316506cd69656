//go:build unix

package signame

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func systemName(s syscall.Signal) string      { return unix.SignalName(s) }
func systemNumber(name string) syscall.Signal { return unix.SignalNum(name) }
