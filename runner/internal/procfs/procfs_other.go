//go:build !linux

package procfs

import (
	"os"
	"time"
)

// Stat is what is known of a process.
type Stat struct {
	Comm       string
	State      byte
	Ppid, Pgrp int
	Session    int
	Start      string
	CPU        time.Duration
	RSS        int64
}

// ReadStat knows of no process.
func ReadStat(int) (Stat, bool) { return Stat{}, false }

// BootID returns "".
func BootID() string { return "" }

// Descendants returns none.
func Descendants(int) []int { return nil }

// InSession returns none.
func InSession(int) []int { return nil }

// KeeperArg is the first argument of a process that keeps a job.
const KeeperArg = "__keeper"

// All returns none.
func All() []int { return nil }

// Holders returns nil: it is not known.
func Holders([]*os.File) []string { return nil }
