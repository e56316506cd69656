//go:build unix

package main

// The benchmarks of make bench run pipe beside bash on the same work. They use
// bin/pipe, which make builds as a release is built.

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/job"
)

func release(b *testing.B) string {
	path, err := filepath.Abs("../../bin/pipe")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		b.Skip("bin/pipe is missing: make build")
	}
	return path
}

func write(b *testing.B, text string) string {
	file := filepath.Join(b.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}

func once(b *testing.B, name string, args ...string) time.Duration {
	start := time.Now()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
	return time.Since(start)
}

// beside runs both by turns and reports medians and their ratio. Where there is a
// bin/pipe-before, it takes its turn too, and is reported as before.
func beside(b *testing.B, runs int, ours, theirs []string) {
	before := slices.Clone(ours)
	before[0] += "-before"
	_, err := os.Stat(before[0])
	compares := err == nil
	var x, y, z []time.Duration
	for range runs {
		x = append(x, once(b, ours[0], ours[1:]...))
		y = append(y, once(b, theirs[0], theirs[1:]...))
		if compares {
			z = append(z, once(b, before[0], before[1:]...))
		}
	}
	ratios := make([]float64, len(z)) // of pairs, which the noise of the machine reaches alike
	for i := range z {
		ratios[i] = float64(x[i]) / float64(z[i])
	}
	p, q := median(x), median(y)
	b.ReportMetric(float64(p.Microseconds())/1000, "pipe-ms")
	b.ReportMetric(float64(q.Microseconds())/1000, filepath.Base(theirs[0])+"-ms")
	b.ReportMetric(float64(p)/float64(q), "ratio")
	if compares {
		b.ReportMetric(median(ratios), "to-before")
	}
	b.ReportMetric(0, "ns/op")
}

func median[T cmp.Ordered](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

func BenchmarkOneStep(b *testing.B) {
	f := write(b, `steps: [{spawn: [/bin/true]}]`)
	beside(b, 200, []string{release(b), "run", f}, []string{"bash", "-c", "/bin/true"})
}

func Benchmark500Steps(b *testing.B) {
	f := write(b, "steps:\n"+strings.Repeat("  - spawn: [/bin/true]\n", 500))
	script := write(b, strings.Repeat("/bin/true\n", 500)+":\n")
	beside(b, 7, []string{release(b), "run", f}, []string{"bash", script})
}

func Benchmark4GiB(b *testing.B) {
	f := write(b, `steps: [{pipe: [{spawn: [head, -c, 4G, /dev/zero]}, {spawn: [wc, -c]}]}]`)
	beside(b, 5, []string{release(b), "run", f}, []string{"bash", "-c", "head -c 4G /dev/zero | wc -c"})
}

// Benchmark2000Steps: two at a time, beside make.
func Benchmark2000Steps(b *testing.B) {
	f := write(b, "mode: async\nmaxParallel: 2\nsteps:\n"+strings.Repeat("  - spawn: [/bin/true]\n", 2000))
	var all, rules strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&all, " t%d", i)
		fmt.Fprintf(&rules, "t%d:\n\t@/bin/true\n", i)
	}
	mk := write(b, "all:"+all.String()+"\n"+rules.String())
	if _, err := exec.LookPath("make"); err != nil {
		b.Skip("make is not installed")
	}
	beside(b, 5, []string{release(b), "run", f}, []string{"make", "-s", "-j2", "-f", mk})
}

// BenchmarkForEach: 10,000 elements two at a time, beside xargs.
func BenchmarkForEach(b *testing.B) {
	f := write(b, "mode: async\nmaxParallel: 2\nsteps: [{forEach: '1..10000', spawn: [/bin/true, '${{ item }}']}]")
	if _, err := exec.LookPath("xargs"); err != nil {
		b.Skip("xargs is not installed")
	}
	beside(b, 3, []string{release(b), "run", f}, []string{"sh", "-c", "seq 1 10000 | xargs -n1 -P2 /bin/true"})
}

// BenchmarkUnchanged: a run where nothing changed, over 1,000 steps and 10,000
// files, beside make.
func BenchmarkUnchanged(b *testing.B) {
	if _, err := exec.LookPath("make"); err != nil {
		b.Skip("make is not installed")
	}
	dir := b.TempDir()
	var steps, all, rules strings.Builder
	for i := range 1000 {
		if err := os.MkdirAll(filepath.Join(dir, "src", fmt.Sprint(i)), 0o700); err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(&steps, "  - {name: s%d, sources: [src/%d/*], generates: [out/%d], spawn: [cp, src/%d/f0, out/%d]}\n", i, i, i, i, i)
		fmt.Fprintf(&all, " out/%d", i)
		fmt.Fprintf(&rules, "out/%d:", i)
		for k := range 10 {
			name := fmt.Sprintf("src/%d/f%d", i, k)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat(name+"\n", 50)), 0o600); err != nil {
				b.Fatal(err)
			}
			rules.WriteString(" " + name)
		}
		fmt.Fprintf(&rules, "\n\tcp src/%d/f0 out/%d\n", i, i)
	}
	for name, text := range map[string]string{"pipe.yaml": "mode: async\nsteps:\n" + steps.String(), "Makefile": "all:" + all.String() + "\n" + rules.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o700); err != nil {
		b.Fatal(err)
	}
	pipe, make := []string{release(b), "run", "-C", dir}, []string{"make", "-s", "-C", dir}
	once(b, pipe[0], pipe[1:]...)
	b.Run("fresh", func(b *testing.B) { beside(b, 5, pipe, make) }) // all files are read
	b.Run("settled", func(b *testing.B) {
		time.Sleep(time.Minute) // from then on the times of the files tell
		once(b, pipe[0], pipe[1:]...)
		beside(b, 5, pipe, make)
	})
}

// BenchmarkJobs: 500 jobs that run are listed, beside ps.
func BenchmarkJobs(b *testing.B) {
	f := write(b, "mode: async\nsteps: [{name: j, forEach: '1..500', detached: true, unref: true, spawn: [sleep, '1000']}]")
	state := filepath.Join(b.TempDir(), "state")
	b.Setenv("PIPE_STATE_DIR", state)
	b.Cleanup(func() { endJobs(b, state) })
	pipe := release(b)
	once(b, pipe, "run", f)
	beside(b, 7, []string{pipe, "jobs"}, []string{"ps", "axo", "pid,stat,etime,pcpu,rss,cmd"})
}

// BenchmarkJobLog: a job writes 1 GiB; what its keeper holds in memory and on disk
// stays within bounds.
func BenchmarkJobLog(b *testing.B) {
	line := strings.Repeat("0123456789", 7)
	f := write(b, "steps: [{name: big, detached: true, unref: true, spawn: [sh, -c, 'yes "+line+" | head -c 1G']}]")
	state := filepath.Join(b.TempDir(), "state")
	b.Setenv("PIPE_STATE_DIR", state)
	b.Cleanup(func() { endJobs(b, state) })
	pipe := release(b)
	start := time.Now()
	once(b, pipe, "run", f)
	store := &job.Store{Dir: state}
	list, err := store.List()
	if err != nil || len(list) != 1 {
		b.Fatal(list, err)
	}
	resident, peak := 0, 0
	for list[0].State.Live() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", list[0].Keeper.Pid))
		for _, l := range strings.Split(string(text), "\n") {
			var n int
			if k, _ := fmt.Sscanf(l, "VmRSS: %d kB", &n); k == 1 {
				resident = max(resident, n)
			}
			if k, _ := fmt.Sscanf(l, "VmHWM: %d kB", &n); k == 1 {
				peak = max(peak, n)
			}
		}
		time.Sleep(20 * time.Millisecond)
		if list, err = store.List(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(1024/time.Since(start).Seconds(), "MiB/s")
	b.ReportMetric(float64(resident), "keeper-KiB")
	b.ReportMetric(float64(peak), "keeper-peak-KiB")
	files, _ := filepath.Glob(filepath.Join(state, "jobs", "*", "log*"))
	size := int64(0)
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	b.ReportMetric(float64(size>>20), "log-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCheck reports time and memory for a step, which must not grow with
// their number.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var src strings.Builder
			src.WriteString("mode: async\nsteps:\n")
			for i := range n {
				fmt.Fprintf(&src, "  - {name: s%d, needs: [s%d], spawn: [echo, hello]}\n", i, max(0, i-1))
			}
			text := []byte(strings.Replace(src.String(), "needs: [s0]", "needs: []", 1))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pipeline.Parse("f", text); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/step")
		})
	}
}
