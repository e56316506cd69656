//go:build !linux

package procfs

import (
	"os"
	"time"
)

// Stat describes a process.
type Stat struct {
	Comm       string
	State      byte
	Ppid, Pgrp int
	Session    int
	Start      string
	CPU        time.Duration
	RSS        int64
}

// ReadStat returns false.
func ReadStat(int) (Stat, bool) { return Stat{}, false }

// BootID returns "".
func BootID() string { return "" }

// Descendants returns nil.
func Descendants(int) []int { return nil }

// InSession returns nil.
func InSession(int) []int { return nil }

// KeeperArg is the first argument of the keeper of a job.
const KeeperArg = "__keeper"

// All returns nil.
func All() []int { return nil }

// Holders returns nil.
func Holders([]*os.File) []string { return nil }

// Reads returns 0: it is not known.
func Reads(int) int64 { return 0 }
