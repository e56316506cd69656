//go:build linux

package shell

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestPosixTest: up to four operands are read as POSIX says, so that no value is
// taken for an operator. Each row that is decided is what the system's test says.
func TestPosixTest(t *testing.T) {
	t.Parallel()
	system, err := exec.LookPath("test")
	if err != nil {
		t.Log("there is no test(1) to compare with")
	}
	const yes, no, fails, left = 0, 1, 2, -1
	for _, tt := range []struct {
		args string // by words; '' is an empty one
		want int
	}{
		{"", no},
		{"''", no}, {"a", yes}, {"-n", yes}, {"!", yes}, {"(", yes}, {"0", yes},
		{"! ''", yes}, {"! a", no}, {"! !", no}, {"-n ''", no}, {"-n a", yes}, {"-n -n", yes}, {"-z ''", yes}, {"-z -z", no}, {"-f (", left}, {"( )", left},
		{"a = a", yes}, {"a == a", yes}, {"a = b", no}, {"a != b", yes}, {"a != a", no}, {"'' = ''", yes},
		{"( = (", yes}, {"( = )", no}, {"-n = -n", yes}, {"! = !", yes}, {"! = a", no}, {"-z != ''", yes}, {"-f = -f", yes},
		{"1 -eq 1", yes}, {"1 -eq 2", no}, {"1 -ne 2", yes}, {"1 -ne 1", no}, {"1 -lt 2", yes}, {"2 -lt 1", no}, {"1 -le 1", yes},
		{"2 -le 1", no}, {"2 -gt 1", yes}, {"1 -gt 2", no}, {"1 -ge 1", yes}, {"1 -ge 2", no}, {"-3 -lt -2", yes}, {"+3 -eq 3", yes}, {"007 -eq 7", yes},
		{"99999999999999999999 -gt 99999999999999999998", yes},
		{"a -eq 1", fails}, {"1 -eq ''", fails}, {"1_0 -eq 10", fails}, {"0x1 -eq 1", fails}, {"1.5 -lt 2", fails},
		{"! -n a", no}, {"! -n ''", yes}, {"! -z ''", no}, {"! ! a", yes}, {"! ! ''", no}, {"( a )", yes}, {"( '' )", no}, {"( ! )", yes}, {"a -nt b", left}, {"a -o b", left}, {"x y z", left},
		{"! a = a", no}, {"! a = b", yes}, {"! 1 -eq 2", yes}, {"! ( a )", no}, {"! ( '' )", yes}, {"( -n a )", yes}, {"( ! '' )", yes}, {"( -z a )", no}, {"( ! a )", no}, {"a b c d", left},
		{"! x -eq 1", fails}, {"a = a -a b", left}, {"! -f nope", left},
	} {
		args := strings.Fields(tt.args)
		for i, a := range args {
			if a == "''" {
				args[i] = ""
			}
		}
		for _, call := range [][]string{append([]string{"test"}, args...), append(append([]string{"["}, args...), "]")} {
			result, decided, err := classicTest(call)
			got := left
			switch {
			case err != nil:
				got = fails
			case decided && result:
				got = yes
			case decided:
				got = no
			}
			if got != tt.want {
				t.Errorf("%q: %d, want %d (%v)", call, got, tt.want, err)
			}
		}
		if err == nil && tt.want != left {
			c := exec.Command(system, args...)
			_ = c.Run()
			if got := c.ProcessState.ExitCode(); got != tt.want {
				t.Errorf("%s %q: %d, want %d", system, args, got, tt.want)
			}
		}
	}
	for _, call := range [][]string{{"["}, {"[", "a"}, {"[", "]", "a"}} {
		if _, decided, err := classicTest(call); decided || err != nil {
			t.Errorf("%q has no end and is decided", call)
		}
	}
}

// TestPosixTestAll: for all triples of words that matter, what is decided is what
// bash decides.
func TestPosixTestAll(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	words := []string{"", "a", "(", ")", "!", "-n", "-z", "=", "!=", "-eq", "-gt", "1", "]", "-a", "-f"}
	var calls [][]string
	for _, a := range words {
		calls = append(calls, []string{a})
		for _, b := range words {
			calls = append(calls, []string{a, b})
			for _, c := range words {
				calls = append(calls, []string{a, b, c})
			}
		}
	}
	var text strings.Builder
	for _, c := range calls {
		fmt.Fprintf(&text, "test '%s'; echo $?\n", strings.Join(c, "' '"))
	}
	c := exec.Command(bash)
	c.Stdin = strings.NewReader(text.String())
	out, err := c.Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	codes := strings.Fields(string(out))
	if len(codes) != len(calls) {
		t.Fatalf("%d answers to %d calls", len(codes), len(calls))
	}
	compared := 0
	for i, c := range calls {
		result, decided, err := posixTest(c)
		if !decided {
			continue
		}
		compared++
		got := "1"
		if err != nil {
			got = "2"
		} else if result {
			got = "0"
		}
		if got != codes[i] {
			t.Errorf("test %q: %s, and bash says %s", c, got, codes[i])
		}
	}
	if compared < len(calls)/4 {
		t.Errorf("only %d of %d were decided", compared, len(calls))
	}
}
