package runner_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/runnertest"
)

// randomPipeline returns a pipeline of up to 20 steps that need earlier ones,
// some of which fail, expand, are tried again, or run after a failure only.
func randomPipeline(rng *rand.Rand) string {
	var b strings.Builder
	b.WriteString("mode: async\nsteps:\n")
	n := 1 + rng.IntN(20)
	for i := range n {
		var keys []string
		var needs []string
		for j := range i {
			if rng.IntN(4) == 0 {
				needs = append(needs, fmt.Sprintf("s%d", j))
			}
		}
		if needs != nil {
			keys = append(keys, "needs: ["+strings.Join(needs, ", ")+"]")
		}
		if rng.IntN(5) == 0 {
			keys = append(keys, "if: "+[]string{"always()", "failure()", "success()", "cancelled()", "1 > 2"}[rng.IntN(5)])
		}
		if rng.IntN(6) == 0 {
			keys = append(keys, "continueOnError: true")
		}
		if rng.IntN(8) == 0 {
			keys = append(keys, "sync: true")
		}
		if rng.IntN(6) == 0 {
			keys = append(keys, fmt.Sprintf("retry: {attempts: %d, delay: %dms}", 1+rng.IntN(3), rng.IntN(50)))
		}
		exit := 0
		if rng.IntN(4) == 0 {
			exit = 1 + rng.IntN(9)
		}
		args := fmt.Sprintf("\"true\", exit=%d", exit)
		if rng.IntN(6) == 0 {
			keys = append(keys, fmt.Sprintf("forEach: '1..%d'", 1+rng.IntN(4)))
			args = fmt.Sprintf("\"true\", 'exit=${{ item == 2 ? %d : 0 }}'", exit)
		}
		fmt.Fprintf(&b, "  - {name: s%d, spawn: [%s], %s}\n", i, args, strings.Join(append(keys, "help: x"), ", "))
	}
	return b.String()
}

// TestAnyGraph: every step ends in exactly one final state, each is told once,
// and with keep-going the states are the same in any interleaving.
func TestAnyGraph(t *testing.T) {
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 1))
		src := randomPipeline(rng)
		p := parse(t, src)
		want := ""
		for try := range 4 {
			keepGoing := try < 3
			synctest.Test(t, func(t *testing.T) {
				durations := rand.New(rand.NewPCG(seed, uint64(try)+2))
				var mu sync.Mutex // of durations
				ends := map[string]int{}
				events := make(chan string, 10000)
				limit := 1 + try*3
				r := runner.Runner{
					KeepGoing: keepGoing, MaxParallel: &limit,
					Engine: &runnertest.Engine{Behave: func(c *runner.Cmd) runnertest.Behaviour {
						mu.Lock()
						defer mu.Unlock()
						b := prog(c)
						b.For = time.Duration(durations.IntN(100)) * time.Millisecond
						return b
					}},
					Sink: func(e runner.Event) {
						if e.Type == runner.EventStepEnd {
							events <- e.Label
						}
					},
				}
				res, err := r.Run(t.Context(), p)
				if res == nil {
					t.Fatal(err)
				}
				close(events)
				for label := range events {
					ends[label]++
				}
				for i := range res.Steps {
					st := &res.Steps[i]
					switch st.Status {
					case runner.StatusSuccess, runner.StatusFailure, runner.StatusSkipped, runner.StatusCancelled:
					default:
						t.Errorf("seed %d: %s is %s at the end\n%s", seed, st.Label, st.Status, src)
					}
					if ends[st.Label] != 1 {
						t.Errorf("seed %d: the end of %s was told %d times\n%s", seed, st.Label, ends[st.Label], src)
					}
					if st.Status == runner.StatusCancelled && keepGoing {
						t.Errorf("seed %d: %s was cancelled although the run keeps going\n%s", seed, st.Label, src)
					}
				}
				if !keepGoing {
					return
				}
				if got := statuses(res); want == "" {
					want = got
				} else if got != want {
					t.Errorf("seed %d:\n%s\nand in another interleaving\n%s\n%s", seed, want, got, src)
				}
			})
		}
	}
}
