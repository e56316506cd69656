package runner_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

// BenchmarkScheduler: 100,000 steps, each a fake process.
func BenchmarkScheduler(b *testing.B) {
	const steps = 100_000
	p := parse(b, "mode: async\nsteps:\n"+strings.Repeat("  - spawn: [x]\n", steps))
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := runner.Runner{Engine: &runnertest.Engine{}}
		res, err := r.Run(b.Context(), p)
		if err != nil || res.ExitCode != 0 {
			b.Fatal(err, res)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/steps, "held-B/step")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/steps, "B/step")
		runtime.KeepAlive(res)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/steps/float64(b.N), "µs/step")
}
