package signame

import (
	"errors"
	"syscall"
	"testing"
)

func sig(n int) syscall.Signal { return syscall.Signal(n) }

func TestName(t *testing.T) {
	if got := Name(0); got != "" {
		t.Errorf("0 is %q", got)
	}
	if got := Name(syscall.SIGTERM); got != "SIGTERM" {
		t.Errorf("SIGTERM is %q", got)
	}
	seen := map[string]int{}
	for n := 1; n <= max; n++ {
		name := Name(sig(n))
		if name == "" || seen[name] != 0 {
			t.Errorf("signal %d is %q, as is %d", n, name, seen[name])
		}
		seen[name] = n
		if got, err := Parse(name); err != nil || got != sig(n) {
			t.Errorf("Parse(%q) = %d, %v; expected %d", name, got, err, n)
		}
	}
}

func TestParse(t *testing.T) {
	for _, text := range []string{"SIGTERM", "TERM", "term", "sigterm", "15"} {
		if got, err := Parse(text); err != nil || got != syscall.SIGTERM {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for alias, name := range aliases {
		want, err := Parse(name)
		if err != nil {
			continue // the system does not have it
		}
		if got, err := Parse(alias); err != nil || got != want {
			t.Errorf("%s: %d, %v; expected %d", alias, got, err, want)
		}
	}
	for _, text := range []string{"", "SIG", "0", "65", "999", "-1", "+9", "09", "SIGFOO", "signal", "signal 65", "TERM ", "SIGSIGTERM"} {
		got, err := Parse(text)
		var unknown *UnknownError
		if !errors.As(err, &unknown) || unknown.Text != text || got != 0 {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
