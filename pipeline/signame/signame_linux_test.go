package signame

import "testing"

// TestRealtime has the names that kill -l of bash prints, and the two numbers
// that the C library keeps.
func TestRealtime(t *testing.T) {
	for _, tt := range []struct {
		n    int
		name string
	}{
		{32, "signal 32"}, {33, "signal 33"}, {34, "SIGRTMIN"}, {35, "SIGRTMIN+1"}, {49, "SIGRTMIN+15"},
		{50, "SIGRTMAX-14"}, {63, "SIGRTMAX-1"}, {64, "SIGRTMAX"}, {65, "signal 65"},
	} {
		if got := Name(sig(tt.n)); got != tt.name {
			t.Errorf("%d is %q, expected %q", tt.n, got, tt.name)
		}
	}
	for text, n := range map[string]int{"SIGRTMIN+30": 64, "rtmin+3": 37, "SIGRTMAX-30": 34, "RTMAX-1": 63, "SIGRTMIN+0": 34} {
		if got, err := Parse(text); err != nil || int(got) != n {
			t.Errorf("%s is %d, %v; expected %d", text, got, err, n)
		}
	}
	for _, text := range []string{"SIGRTMIN+31", "SIGRTMAX-31", "SIGRTMIN-1", "SIGRTMAX+1", "SIGRTMIN3", "SIGRTMIN+", "SIGRTMIN++1"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%s is %d", text, got)
		}
	}
}
