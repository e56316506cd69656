package signame

import (
	"strconv"
	"strings"
)

// The real-time signals that the C library leaves to programs: it keeps 32 and
// 33 for itself.
const (
	rtMin = 34
	rtMax = 64
)

// realtimeName names the lower half from SIGRTMIN and the upper half from
// SIGRTMAX, as kill -l of bash does.
func realtimeName(n int) string {
	switch {
	case n < rtMin || n > rtMax:
		return ""
	case n == rtMin:
		return "SIGRTMIN"
	case n == rtMax:
		return "SIGRTMAX"
	case n <= (rtMin+rtMax)/2:
		return "SIGRTMIN+" + strconv.Itoa(n-rtMin)
	}
	return "SIGRTMAX-" + strconv.Itoa(rtMax-n)
}

// realtimeNumber returns 0 for what is not the name of a real-time signal.
func realtimeNumber(name string) int {
	from, sign, rest := rtMin, "+", ""
	rest, ok := strings.CutPrefix(name, "SIGRTMIN")
	if !ok {
		from, sign = rtMax, "-"
		if rest, ok = strings.CutPrefix(name, "SIGRTMAX"); !ok {
			return 0
		}
	}
	if rest == "" {
		return from
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(rest, sign), 10, 8)
	if err != nil || !strings.HasPrefix(rest, sign) || n > rtMax-rtMin {
		return 0
	}
	if sign == "-" {
		return from - int(n)
	}
	return from + int(n)
}
