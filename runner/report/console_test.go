package report_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/report"
)

// screen is a console, and what it wrote.
type screen struct {
	report.Console
	out, err bytes.Buffer
}

func newScreen() *screen {
	s := &screen{}
	s.Out, s.Err = &s.out, &s.err
	return s
}

// shows checks what was written since it was last asked.
func (s *screen) shows(t *testing.T, out, err string) {
	t.Helper()
	if got := s.out.String(); got != out {
		t.Errorf("stdout has\n%s\nexpected\n%s", got, out)
	}
	if got := s.err.String(); got != err {
		t.Errorf("stderr has\n%s\nexpected\n%s", got, err)
	}
	s.out.Reset()
	s.err.Reset()
}

// data gives it output of a step, in a buffer that is used again at once.
func (s *screen) data(label string, stream runner.Stream, text string) {
	b := []byte(text)
	s.Event(runner.Event{Type: runner.EventData, Label: label, Stream: stream, Data: b})
	for i := range b {
		b[i] = '#'
	}
}

func (s *screen) close(label string, stage int) {
	s.Event(runner.Event{Type: runner.EventClose, Label: label, Stage: stage})
}

// steps is a pipeline of steps with these names, one a line.
func steps(names ...string) *pipeline.Pipeline {
	p := &pipeline.Pipeline{File: "f.yaml"}
	for i, n := range names {
		s := pipeline.SpawnStep(n, "x")
		s.Pos = pipeline.Pos{Line: i + 2, Col: 5}
		p.Steps = append(p.Steps, s)
	}
	return p
}

// results are those of a pipeline all of whose steps ended well, but for those
// that are changed.
func results(p *pipeline.Pipeline, change func(st []runner.StepResult)) *runner.Result {
	res := &runner.Result{}
	for i, s := range p.Steps {
		res.Steps = append(res.Steps, runner.StepResult{Index: i, Label: s.Name, Status: runner.StatusSuccess})
	}
	change(res.Steps)
	return res
}

const (
	stdout = runner.StreamStdout
	stderr = runner.StreamStderr
)

// TestEvents: what each type of event writes, and that it is written to stderr.
func TestEvents(t *testing.T) {
	p := steps("one", "two")
	p.Steps[1].Retry = &pipeline.Retry{Attempts: 3}
	failed := &runner.StepResult{Index: 1, Label: "two", Status: runner.StatusFailure, Reason: runner.ReasonExit, ExitCode: 3}
	for _, c := range []struct {
		e           runner.Event
		want, color string // color: as want, if it is not the same
	}{
		{e: runner.Event{Type: runner.EventStepStart}},
		{e: runner.Event{Type: runner.EventSpawn, Pid: 7}},
		{e: runner.Event{Type: runner.EventExit, Pid: 7}},
		{e: runner.Event{Type: runner.EventClose}},
		{e: runner.Event{Type: runner.EventReady}},
		{e: runner.Event{Type: runner.EventRunEnd, Step: -1}},
		{e: runner.Event{Type: runner.EventStepEnd, Result: failed}},
		{
			runner.Event{Type: runner.EventWarning, Message: "beware"},
			"pipe: warning: two: beware\n", "pipe: \x1b[33mwarning: \x1b[0mtwo: beware\n",
		},
		{
			runner.Event{Type: runner.EventWarning, Step: -1, Message: "of the run"},
			"pipe: warning: of the run\n", "pipe: \x1b[33mwarning: \x1b[0mof the run\n",
		},
		{e: runner.Event{Type: runner.EventRerun, Message: "it failed"}, want: "pipe: two: runs: it failed\n"},
		{
			e:    runner.Event{Type: runner.EventJob, Message: "0123abcd"},
			want: "pipe: two: runs as job 0123abcd; pipe logs -f 0123abcd follows it, pipe stop 0123abcd ends it\n",
		},
		{
			e:    runner.Event{Type: runner.EventRetry, Result: failed, Attempt: 1},
			want: "pipe: two: attempt 1 of 3 failed: exit status 3; trying again\n",
		},
		{
			e:    runner.Event{Type: runner.EventRetry, Result: failed, Attempt: 2, Delay: 1234567 * time.Microsecond},
			want: "pipe: two: attempt 2 of 3 failed: exit status 3; trying again in 1.23s\n",
		},
	} {
		if c.e.Step == 0 {
			c.e.Step = 1
		}
		c.e.Pipeline, c.e.Label = p, "two"
		for _, color := range []bool{false, true} {
			for _, prefix := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/color=%t/prefix=%t", c.e.Type, color, prefix), func(t *testing.T) {
					s := newScreen()
					s.Color, s.Prefix = color, prefix
					s.Event(c.e)
					want := c.want
					if color && c.color != "" {
						want = c.color
					}
					s.shows(t, "", want)
				})
			}
		}
	}
}

// TestData: output is written as it comes, to the stream that it was written to.
// Messages begin on a line of their own.
func TestData(t *testing.T) {
	s := newScreen()
	s.data("a", stdout, "one\ntw")
	s.data("b", stderr, "warn\x00\xff")
	s.data("a", stdout, "o\n")
	s.shows(t, "one\ntwo\n", "warn\x00\xff")
	s.Event(runner.Event{Type: runner.EventWarning, Step: -1, Message: "w"})
	s.shows(t, "", "pipe: warning: w\n")
	s.data("a", stdout, "no newline")
	s.Event(runner.Event{Type: runner.EventWarning, Step: -1, Message: "w"})
	s.Event(runner.Event{Type: runner.EventWarning, Step: -1, Message: "w"})
	s.shows(t, "no newline", "\npipe: warning: w\npipe: warning: w\n")
	s.data("a", stderr, "no newline")
	s.data("a", stderr, "")
	s.Summary(steps(), &runner.Result{})
	s.shows(t, "", "no newline\n")
	s.close("a", 0)
	s.shows(t, "", "")
}

// TestPrefix: each line begins with the name of its step and is written when it
// is whole, or when its stage is closed; those of several streams, stages and
// steps are not mixed.
func TestPrefix(t *testing.T) {
	s := newScreen()
	s.Prefix = true
	stage := func(stage int, text string) {
		s.Event(runner.Event{Type: runner.EventData, Label: "a", Stage: stage, Stream: stdout, Data: []byte(text)})
	}
	s.data("a", stdout, "one\ntw")
	s.shows(t, "a | one\n", "")
	s.data("a", stderr, "err")
	s.data("b", stdout, "other\n\nb")
	stage(1, "stage ")
	s.shows(t, "b | other\nb | \n", "")
	s.data("a", stdout, "o")
	s.shows(t, "", "")
	s.data("a", stdout, "\nthree\nfo")
	s.shows(t, "a | two\na | three\n", "")
	stage(1, "one\nlast")
	s.shows(t, "a | stage one\n", "")
	s.data("a", stderr, "or\n")
	s.shows(t, "", "a | error\n")
	s.data("a", stderr, "unfinished")
	s.close("a", 0)
	s.shows(t, "a | fo\n", "a | unfinished\n")
	s.close("a", 0)
	s.shows(t, "", "")
	s.close("a", 1)
	s.close("b", 0)
	s.shows(t, "a | last\nb | b\n", "")
	s.Event(runner.Event{Type: runner.EventWarning, Step: -1, Message: "w"})
	s.shows(t, "", "pipe: warning: w\n")
}

// TestPrefixAnyhow: however lines are split over writes, the same is written.
func TestPrefixAnyhow(t *testing.T) {
	const text = "first\n\nthird é\r\nlast"
	for size := 1; size <= len(text); size++ {
		s := newScreen()
		s.Prefix = true
		for b := text; b != ""; b = b[min(size, len(b)):] {
			s.data("a", stdout, b[:min(size, len(b))])
		}
		s.close("a", 0)
		s.shows(t, "a | first\na | \na | third é\r\na | last\n", "")
	}
}

// TestPrefixLong: of a line that does not end no more than 64 KiB are held back.
func TestPrefixLong(t *testing.T) {
	s := newScreen()
	s.Prefix = true
	half := strings.Repeat("x", 32<<10)
	s.data("a", stdout, half)
	s.shows(t, "", "")
	s.data("a", stdout, half)
	s.shows(t, "a | "+half+half+"\n", "")
	s.data("a", stdout, "rest\n")
	s.shows(t, "a | rest\n", "")
}

// failing is a writer that has an error after some bytes.
type failing struct {
	left   int
	err    error
	writes int
}

func (f *failing) Write(b []byte) (int, error) {
	f.writes++
	if f.left -= len(b); f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}

// TestFail: that stdout cannot be written to is told once, and it is not tried
// again; stderr goes on.
func TestFail(t *testing.T) {
	full := errors.New("full")
	for _, prefix := range []bool{false, true} {
		s := newScreen()
		w := &failing{left: 20, err: full}
		s.Out, s.Prefix = w, prefix
		var told []error
		s.Console.Fail = func(err error) { told = append(told, err) }
		s.data("a", stdout, "fits\n")
		if len(told) != 0 {
			t.Fatalf("before it failed: %v", told)
		}
		s.data("a", stdout, "this does not fit any more\n")
		s.data("a", stdout, "no more\nunfinished")
		s.data("b", stdout, "no more\n")
		s.data("a", stderr, "still here\n")
		s.close("a", 0)
		if len(told) != 1 || told[0] != full {
			t.Errorf("told of %v", told)
		}
		if w.writes != 2 {
			t.Errorf("%d writes", w.writes)
		}
		if got := s.err.String(); strings.TrimPrefix(got, "a | ") != "still here\n" {
			t.Errorf("stderr has %q", got)
		}
	}
	s := newScreen() // nobody wants to know
	s.Out, s.Err = &failing{err: full}, &failing{err: full}
	s.data("a", stdout, "x\n")
	s.data("a", stderr, "x\n")
	s = newScreen()
	s.Err = &failing{err: full}
	s.Console.Fail = func(err error) { t.Errorf("told of %v on stderr", err) }
	s.data("a", stderr, "x\n")
}

// failure is the block of a step that failed with exit status 1 after this
// output.
func failure(t *testing.T, s *screen) []string {
	t.Helper()
	p := steps("a")
	res := results(p, func(st []runner.StepResult) {
		st[0].Status, st[0].Reason, st[0].ExitCode = runner.StatusFailure, runner.ReasonExit, 1
	})
	res.Cause = &res.Steps[0]
	s.err.Reset()
	s.Summary(p, res)
	block := strings.Split(strings.Trim(s.err.String(), "\n"), "\n") // before it, an end for a line that has none
	if block[0] != "pipe: f.yaml:2:5: step a failed: exit status 1" {
		t.Errorf("the block begins with %q", block[0])
	}
	if len(block) == 1 {
		return nil
	}
	if block[1] != "  last output:" {
		t.Errorf("the second line is %q", block[1])
	}
	var out []string
	for _, l := range block[2:] {
		rest, ok := strings.CutPrefix(l, "    ")
		if !ok {
			t.Errorf("%q is not indented", l)
		}
		out = append(out, rest)
	}
	return out
}

// TestLastOutput: the block at the end has the last lines of both streams, ten
// of them at most and cut to a length that can be read, and nothing in it moves
// the cursor or colours the terminal.
func TestLastOutput(t *testing.T) {
	type chunk struct {
		stream runner.Stream
		text   string
	}
	out := func(text string) []chunk { return []chunk{{stdout, text}} }
	long := strings.Repeat("0123456789", 100)
	var many, huge strings.Builder
	for i := range 30 {
		fmt.Fprintln(&many, "line", i)
	}
	for i := range 2000 {
		fmt.Fprintln(&huge, "number", i)
	}
	for name, c := range map[string]struct {
		chunks []chunk
		want   []string
	}{
		"none":            {nil, nil},
		"empty":           {out(""), nil},
		"newlines only":   {out("\n\n\n"), nil},
		"one":             {out("oops\n"), []string{"oops"}},
		"unterminated":    {out("one\ntwo"), []string{"one", "two"}},
		"in pieces":       {[]chunk{{stdout, "o"}, {stdout, "ne\nt"}, {stdout, "wo\n"}}, []string{"one", "two"}},
		"two streams":     {[]chunk{{stdout, "half"}, {stderr, "err\n"}, {stdout, "a line\n"}}, []string{"half", "err", "a line"}},
		"blank inside":    {out("one\n\ntwo\n\n"), []string{"one", "", "two"}},
		"ten lines":       {out(many.String()), strings.Split("line 20,line 21,line 22,line 23,line 24,line 25,line 26,line 27,line 28,line 29", ",")},
		"ten of a lot":    {out(huge.String()), strings.Split("number 1990,number 1991,number 1992,number 1993,number 1994,number 1995,number 1996,number 1997,number 1998,number 1999", ",")},
		"long line":       {out("short\n" + long + "\nend\n"), []string{"short", long[:300] + " …", "end"}},
		"line of 300":     {out(long[:300] + "\n"), []string{long[:300]}},
		"colours":         {out("\x1b[31mred\x1b[0m \x1b[1;38;5;196mbold\x1b[m\n"), []string{"red bold"}},
		"cursor":          {out("\x1b[2J\x1b[H\x1b[?25lclear\x1b[10A\x1b[K\n"), []string{"clear"}},
		"title":           {out("\x1b]0;title\x07a\x1b]2;title\x1b\\b\n"), []string{"ab"}},
		"link":            {out("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n"), []string{"link"}},
		"other escapes":   {out("\x1bMup\x1b7\x1bc\x1b=\n"), []string{"up7c="}},
		"unfinished":      {out("a\x1b[31\nb\x1b"), []string{"a[31", "b"}},
		"controls":        {out("a\rb\bc\x07d\x00e\x7ff\tg\r\n"), []string{"abcdef\tg"}},
		"not utf-8":       {out("caf\xe9 \xff\xfe!\n"), []string{"caf? ?!"}},
		"other letters":   {out("żółw 乌龟 🐢\n"), []string{"żółw 乌龟 🐢"}},
		"after much else": {[]chunk{{stderr, strings.Repeat("y", 1<<16)}, {stdout, "x\n"}}, []string{strings.Repeat("y", 300) + " …", "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScreen()
			for _, k := range c.chunks {
				s.data("a", k.stream, k.text)
			}
			got := failure(t, s)
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
				t.Errorf("%q\nexpected\n%q", got, c.want)
			}
		})
	}
}

// TestLastOutputOfMany: what is kept is the end, however it came, and each step's
// own; a step that ended well, or is tried again, has none.
func TestLastOutputOfMany(t *testing.T) {
	s := newScreen()
	for i := range 20000 {
		s.data("a", stdout, fmt.Sprintf("piece %d\n", i))
		s.data("b", stdout, "of another step\n")
	}
	if got := failure(t, s); len(got) != 10 || got[0] != "piece 19990" || got[9] != "piece 19999" {
		t.Errorf("%q", got)
	}
	for what, e := range map[string]runner.Event{
		"ended well": {Type: runner.EventStepEnd, Label: "a", Result: &runner.StepResult{Status: runner.StatusSuccess}},
		"skipped":    {Type: runner.EventStepEnd, Label: "a", Result: &runner.StepResult{Status: runner.StatusSkipped}},
		"retried": {
			Type: runner.EventRetry, Label: "a", Step: 0, Attempt: 1,
			Pipeline: &pipeline.Pipeline{Steps: []*pipeline.Step{{Retry: &pipeline.Retry{Attempts: 2}}}}, Result: &runner.StepResult{ExitCode: 1},
		},
	} {
		s.data("a", stdout, "earlier\n")
		s.Event(e)
		if got := failure(t, s); got != nil {
			t.Errorf("%s: there is %q", what, got)
		}
	}
	for _, status := range []runner.StepStatus{runner.StatusFailure, runner.StatusCancelled} {
		s.data("a", stdout, "kept\n")
		s.Event(runner.Event{Type: runner.EventStepEnd, Label: "a", Result: &runner.StepResult{Status: status}})
		if got := failure(t, s); len(got) == 0 || got[len(got)-1] != "kept" {
			t.Errorf("%s: there is %q", status, got)
		}
	}
}

// TestLittleKept: of very much output little is kept, in pieces of any size.
func TestLittleKept(t *testing.T) {
	for _, size := range []int{1 << 10, 64 << 10} {
		s := newScreen()
		s.Out = io.Discard
		b := bytes.Repeat([]byte("x"), size)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range (64 << 20) / size {
			s.Event(runner.Event{Type: runner.EventData, Label: "a", Stream: stdout, Data: b})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 8<<20 {
			t.Errorf("of 64 MiB in pieces of %d bytes %d are kept", size, more)
		}
		runtime.KeepAlive(s)
	}
}

// TestSummary: what is said at the end of a run.
func TestSummary(t *testing.T) {
	second := time.Unix(1, 0)
	fails := func(st *runner.StepResult, code int) {
		st.Status, st.Reason, st.ExitCode = runner.StatusFailure, runner.ReasonExit, code
	}
	for name, c := range map[string]struct {
		steps    []string
		change   func(p *pipeline.Pipeline, res *runner.Result)
		printed  map[string]string // by label
		want     string
		colorful string // what stands in it where there is colour
	}{
		"all well": {steps: []string{"a", "b"}, change: func(*pipeline.Pipeline, *runner.Result) {}},
		"cause": {
			steps: []string{"a", "b", "c", "d", "e"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				st := res.Steps
				fails(&st[1], 3)
				st[1].Command, st[1].Start, st[1].End = "make it", second, second.Add(1234*time.Millisecond)
				st[1].Attempts = make([]runner.StepResult, 2)
				res.Cause = &st[1]
				st[2].Status, st[2].CancelledBy = runner.StatusCancelled, "b"
				st[3].Status, st[3].CancelledBy = runner.StatusSkipped, "b"
				st[4].Status = runner.StatusSkipped // its own condition
			},
			printed: map[string]string{"b": "oops\n", "c": "not of interest\n"},
			want: `pipe: f.yaml:3:5: step b failed: exit status 3
  command: make it
  attempts: 3
  ran for: 1.23s
  last output:
    oops
  cancelled because of it: c
  not run because of it: d
`,
			colorful: "pipe: f.yaml:3:5: \x1b[31;1mstep b failed:\x1b[0m exit status 3\n",
		},
		"short": { // how long it took is not worth a line
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				fails(&res.Steps[0], 1)
				res.Steps[0].Start, res.Steps[0].End = second, second.Add(99*time.Millisecond)
				res.Cause = &res.Steps[0]
				p.Steps[0].Pos = pipeline.Pos{} // built in Go
			},
			want: "pipe: step a failed: exit status 1\n",
		},
		"others failed": {
			steps: []string{"a", "b", "c"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				for i := range res.Steps {
					fails(&res.Steps[i], i+1)
				}
				p.Steps[2].ContinueOnError = true
				res.Cause = &res.Steps[0]
			},
			want: `pipe: f.yaml:3:5: step b also failed: exit status 2
pipe: f.yaml:4:5: step c failed, which continueOnError allows: exit status 3
pipe: f.yaml:2:5: step a failed: exit status 1
`,
		},
		"allowed": {
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				p.Steps[0].ContinueOnError = true
				fails(&res.Steps[0], 9)
			},
			want: "pipe: f.yaml:2:5: step a failed, which continueOnError allows: exit status 9\n",
		},
		"instances": {
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				each := make([]runner.StepResult, 3)
				for i := range each {
					each[i].Label, each[i].Status = fmt.Sprintf("a (%d)", i), runner.StatusSuccess
				}
				fails(&each[1], 1)
				fails(&each[2], 2)
				res.Steps[0].Each, res.Steps[0].Status = each, runner.StatusFailure
				res.Cause = &each[1]
			},
			printed: map[string]string{"a (1)": "one\n", "a (2)": "two\n"},
			want: `pipe: f.yaml:2:5: step a (2) also failed: exit status 2
pipe: f.yaml:2:5: step a (1) failed: exit status 1
  last output:
    one
`,
		},
		"nested": {
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				inner, innermost := steps("x", "y"), steps("deep")
				inner.File, innermost.File = "inner.yaml", "innermost.yaml"
				p.Steps[0].Run = &pipeline.Include{Pipeline: inner}
				inner.Steps[1].Run = &pipeline.Include{Pipeline: innermost}
				deep := results(innermost, func(st []runner.StepResult) {
					fails(&st[0], 5)
					st[0].Command = "false"
				})
				deep.Cause = &deep.Steps[0]
				sub := results(inner, func(st []runner.StepResult) {
					fails(&st[1], 5)
					st[1].Sub = deep
				})
				sub.Cause = &sub.Steps[1]
				fails(&res.Steps[0], 5)
				res.Steps[0].Sub = sub
				res.Cause = &res.Steps[0]
			},
			printed: map[string]string{"a/y/deep": "at the bottom\n"},
			want: `pipe: f.yaml:2:5: step a failed: exit status 5
  inner.yaml:3:5: step y failed: exit status 5
  innermost.yaml:2:5: step deep failed: exit status 5
  command: false
  last output:
    at the bottom
`,
		},
		"interrupted": {
			steps: []string{"a", "b", "c", "d", "e"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				res.Interrupted = fmt.Errorf("wrapped: %w", &runner.Interrupt{Signal: syscall.SIGINT})
				st := res.Steps
				st[0].Status, st[0].Command = runner.StatusCancelled, "sleep 100\nand more"
				st[1].Status, st[1].Command, st[1].Job = runner.StatusCancelled, "job", "0123abcd"
				st[2].Status = runner.StatusSkipped
				st[3].Status = runner.StatusSkipped
				p.Steps[3].If = &pipeline.Expr{}
				st[4].Status = runner.StatusCancelled // it had not begun
			},
			printed: map[string]string{"a": "who sent it knows\n"},
			want: `pipe: wrapped: interrupted by SIGINT
  ended: f.yaml:2:5: a (sleep 100 …)
  not run: c
`,
			colorful: "pipe: \x1b[31;1mwrapped: interrupted by SIGINT\x1b[0m\n",
		},
		"timed out": { // nobody asked for that: what was it doing?
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				res.Interrupted = context.DeadlineExceeded
				res.Steps[0].Status, res.Steps[0].Command = runner.StatusCancelled, "sleep 100"
			},
			printed: map[string]string{"a": "working\n"},
			want: `pipe: context deadline exceeded
  ended: f.yaml:2:5: a (sleep 100)
  last output:
    working
`,
		},
		"failed and interrupted": {
			steps: []string{"a", "b"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				res.Interrupted = &runner.Interrupt{Signal: syscall.SIGTERM}
				fails(&res.Steps[0], 1)
				res.Cause = &res.Steps[0]
				res.Steps[1].Status, res.Steps[1].Command = runner.StatusCancelled, "sleep 100"
			},
			want: "pipe: interrupted by SIGTERM\npipe: f.yaml:2:5: step a failed: exit status 1\n",
		},
		"nobody reads": { // as yes | head: that is no failure
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				res.Interrupted = &runner.Interrupt{Signal: syscall.SIGPIPE}
				res.Steps[0].Status, res.Steps[0].Command = runner.StatusCancelled, "yes"
			},
		},
		"reused": {
			steps: []string{"a", "b", "c", "d", "e"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				st := res.Steps
				st[0].Reused, st[1].Reused, st[2].Reused = "up to date", "run 17", "up to date"
				st[3].Each = []runner.StepResult{{Label: "d (0)", Reused: "run 17"}, {Label: "d (1)"}}
				st[4].Sub = &runner.Result{Steps: []runner.StepResult{{Label: "x", Reused: "up to date"}}}
			},
			want: `pipe: up to date: a, c, e/x
pipe: not run again, they ended well in 17: b, d (0)
`,
		},
		"very many": {
			steps: strings.Split("s0,s1,s2,s3,s4,s5,s6,s7,s8,s9,s10,s11,s12,s13,s14", ","),
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				fails(&res.Steps[0], 1)
				res.Cause = &res.Steps[0]
				for i := 1; i < len(res.Steps); i++ {
					res.Steps[i].Status, res.Steps[i].CancelledBy = runner.StatusSkipped, "s0"
				}
			},
			want: `pipe: f.yaml:2:5: step s0 failed: exit status 1
  not run because of it: s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, and 2 more
`,
		},
		"long command": {
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				fails(&res.Steps[0], 1)
				res.Steps[0].Command = " \nx" + strings.Repeat("é", 299) + "\nmore"
				res.Cause = &res.Steps[0]
			},
			want: "pipe: f.yaml:2:5: step a failed: exit status 1\n  command: x" + strings.Repeat("é", 149) + " …\n",
		},
		"command with a newline at its end": {
			steps: []string{"a"},
			change: func(p *pipeline.Pipeline, res *runner.Result) {
				fails(&res.Steps[0], 1)
				res.Steps[0].Command = "false\n \n"
				res.Cause = &res.Steps[0]
			},
			want: "pipe: f.yaml:2:5: step a failed: exit status 1\n  command: false\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, color := range []bool{false, true} {
				p := steps(c.steps...)
				res := results(p, func([]runner.StepResult) {})
				c.change(p, res)
				s := newScreen()
				s.Color = color
				for label, text := range c.printed {
					s.data(label, stdout, text)
				}
				s.out.Reset()
				s.Summary(p, res)
				got := s.err.String()
				if !utf8.ValidString(got) {
					t.Errorf("%q is not UTF-8", got)
				}
				if color && c.colorful != "" {
					if !strings.Contains(got, c.colorful) {
						t.Errorf("%q is not in %q", c.colorful, got)
					}
					continue
				}
				if !color && got != c.want {
					t.Errorf("it says\n%s\nexpected\n%s", got, c.want)
				}
			}
		})
	}
}

// TestDescribe: how an end is put in words, alone and with the limits that the
// pipeline sets.
func TestDescribe(t *testing.T) {
	oops := errors.New("program \"x\" not found in PATH")
	dumped := make([]runner.StageResult, 2)
	dumped[1].Exit.Signal, dumped[1].Exit.CoreDumped = syscall.SIGABRT, true
	for _, c := range []struct {
		r          runner.StepResult
		want, more string // more: with the limits; "": as want
	}{
		{runner.StepResult{Reason: runner.ReasonExit, ExitCode: 3}, "exit status 3", ""},
		{runner.StepResult{Reason: runner.ReasonExit}, "exit status 0", "exit status 0, which is not among its successCodes"},
		{runner.StepResult{Reason: runner.ReasonExit, Err: oops}, oops.Error(), ""},
		{runner.StepResult{Reason: runner.ReasonSignal, Signal: "SIGKILL"}, "killed by SIGKILL", ""},
		{runner.StepResult{Reason: runner.ReasonSignal, Signal: "SIGABRT", Stages: dumped}, "killed by SIGABRT (core dumped)", ""},
		{runner.StepResult{Reason: runner.ReasonTimeout}, "timed out", "timed out after 1.5s"},
		{runner.StepResult{Reason: runner.ReasonTimeout, Signal: "SIGTERM"}, "timed out, ended by SIGTERM", "timed out after 1.5s, ended by SIGTERM"},
		{runner.StepResult{Reason: runner.ReasonIdleTimeout}, "gave no output for its idleTimeout", "gave no output for 250ms (idleTimeout)"},
		{
			runner.StepResult{Reason: runner.ReasonIdleTimeout, Signal: "SIGKILL"},
			"gave no output for its idleTimeout, ended by SIGKILL", "gave no output for 250ms (idleTimeout), ended by SIGKILL",
		},
		{runner.StepResult{Reason: runner.ReasonMaxBuffer}, "its output is larger than maxBuffer (onOverflow: kill)", ""},
		{runner.StepResult{Reason: runner.ReasonSpawn, ExitCode: 127, Err: oops}, oops.Error(), ""},
		{runner.StepResult{Reason: runner.ReasonSpawn, ExitCode: 126}, "exit status 126", ""},
		{runner.StepResult{Reason: runner.ReasonExpression, Err: oops}, oops.Error(), ""},
		{runner.StepResult{Reason: runner.ReasonReady, Err: oops, ExitCode: 1}, oops.Error(), ""},
		{runner.StepResult{Reason: runner.ReasonReady, ExitCode: 4}, "exit status 4", ""},
	} {
		if got := c.r.String(); got != c.want {
			t.Errorf("%+v: %q, expected %q", c.r, got, c.want)
		}
		if c.more == "" {
			c.more = c.want
		}
		p := steps("a")
		p.Steps[0].Timeout, p.Steps[0].IdleTimeout = 1500*time.Millisecond, 250*time.Millisecond
		c.r.Label = "a"
		s := newScreen()
		s.Summary(p, &runner.Result{Cause: &c.r})
		if got := s.err.String(); got != "pipe: f.yaml:2:5: step a failed: "+c.more+"\n" {
			t.Errorf("%+v: %q, expected %q", c.r, got, c.more)
		}
	}
}

// TestAtOnce: events of many steps and streams at once leave every line whole,
// and those of each stream in order. The race detector sees the rest.
func TestAtOnce(t *testing.T) {
	const writers, lines = 16, 200
	s := newScreen()
	s.Prefix = true
	p := steps("w")
	p.Steps[0].Retry = &pipeline.Retry{Attempts: 2}
	var wg sync.WaitGroup
	for w := range writers {
		label, stream := fmt.Sprintf("w%d", w/2), stdout
		if w%2 == 1 {
			stream = stderr
		}
		wg.Go(func() {
			b := make([]byte, 100)
			data := func(text string) {
				s.Event(runner.Event{Type: runner.EventData, Label: label, Stage: w % 2, Stream: stream, Data: b[:copy(b, text)]})
			}
			for i := range lines {
				data(fmt.Sprintf("line %d", i))
				data(" of it\nhalf ")
				data("a line\n")
				if i%50 == 0 {
					s.Event(runner.Event{Type: runner.EventWarning, Step: -1, Message: "w"})
					s.Event(runner.Event{Type: runner.EventRetry, Label: label, Pipeline: p, Attempt: 1, Result: &runner.StepResult{ExitCode: 1}})
				}
			}
			s.close(label, w%2)
			s.Event(runner.Event{Type: runner.EventStepEnd, Label: label, Result: &runner.StepResult{Status: runner.StatusSuccess}})
		})
	}
	wg.Wait()
	s.Summary(p, &runner.Result{})
	for name, b := range map[string]*bytes.Buffer{"stdout": &s.out, "stderr": &s.err} {
		next := map[string]int{}
		for _, l := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
			label, text, ok := strings.Cut(l, " | ")
			if !ok {
				if name == "stderr" && strings.HasPrefix(l, "pipe: ") {
					continue
				}
				t.Fatalf("%s has the line %q", name, l)
			}
			want := fmt.Sprintf("line %d of it", next[label]/2)
			if next[label]%2 == 1 {
				want = "half a line"
			}
			if text != want {
				t.Fatalf("%s has %q where %q was expected", name, l, want)
			}
			next[label]++
		}
		if len(next) != writers/2 {
			t.Errorf("%s has lines of %d steps", name, len(next))
		}
		for label, n := range next {
			if n != 2*lines {
				t.Errorf("%s has %d lines of %s", name, n, label)
			}
		}
	}
}
