package pipeline

import (
	"fmt"
	"strings"
	"testing"
)

// steps returns a file of n steps of the usual kinds.
func steps(n int) []byte {
	var b strings.Builder
	b.WriteString("mode: async\nparams: {dir: {type: path, default: .}}\nextendEnv: [PATH, HOME]\nsteps:\n")
	for i := range n {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "  - {name: s%d, execFile: [ls, -l, \"${{ params.dir }}\"], env: {A: b}}\n", i)
		case 1:
			fmt.Fprintf(&b, "  - name: s%d\n    needs: [s%d]\n    exec: |\n      for f in \"${{ steps.s%d.stdout }}\"; do echo \"$f\"; done\n", i, i-1, i-1)
		case 2:
			fmt.Fprintf(&b, "  - name: s%d\n    needs: [s%d]\n    timeout: 5s\n    pipe:\n      - spawn: [cat, file]\n      - spawn: [wc, -l]\n", i, i-1)
		default:
			fmt.Fprintf(&b, "  - {name: s%d, needs: [s%d], if: success(), spawn: [echo, \"${{ steps.s%d.exitCode }}\"], stdout: {file: out}}\n", i, i-1, i-1)
		}
	}
	return []byte(b.String())
}

// BenchmarkParse reads and checks a file; ns/step is what one step costs.
func BenchmarkParse(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			src := steps(n)
			for b.Loop() {
				if _, err := Parse("f.yaml", src); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/step")
		})
	}
}

// BenchmarkCheck checks a pipeline in which something was changed, and
// BenchmarkCheckAgain one in which nothing was.
func BenchmarkCheck(b *testing.B) {
	names := []string{"a", "b"}
	benchmarkCheck(b, func(p *Pipeline) { p.Name, names[0], names[1] = names[0], names[1], names[0] })
}

func BenchmarkCheckAgain(b *testing.B) { benchmarkCheck(b, func(*Pipeline) {}) }

func benchmarkCheck(b *testing.B, change func(*Pipeline)) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, err := Parse("f.yaml", steps(n))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				change(p)
				if err := p.Check(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/step")
		})
	}
}
