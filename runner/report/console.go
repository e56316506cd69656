// Package report prints the events and the result of a run.
//
//	console := &report.Console{}
//	r := runner.Runner{Sink: console.Event}
//	res, err := r.Run(ctx, p)
//	console.Summary(p, res)
//
// A report does not influence the run.
package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
)

// Console writes the stdout of the steps to Out, and their stderr and the messages of
// the runner to Err. The zero value is ready to use. The methods may be called
// concurrently; the exported fields must not be changed after the first call.
type Console struct {
	Out, Err io.Writer // nil: os.Stdout and os.Stderr
	Prefix   bool      // begin each line of output with the label of its step
	Color    bool      // color the messages with escape sequences
	// Fail, if not nil, is called once, with the error of the first failed write to
	// Out. Nothing is written to Out after it.
	Fail func(error)

	mu     sync.Mutex
	tails  map[string]*tail          // the last output of each step, by label
	lines  map[lineKey]*bytes.Buffer // unfinished lines, with Prefix
	failed bool                      // a write to Out has failed
	midway bool                      // the last output did not end with a newline
}

type lineKey struct {
	label  string
	stage  int
	stream runner.Stream
}

// Event handles one event of a run. Use it as the Sink of a [runner.Runner].
func (c *Console) Event(e runner.Event) {
	switch e.Type {
	case runner.EventData:
		c.data(e)
	case runner.EventWarning:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.say("warning: ", "33", e, e.Message)
	case runner.EventRerun:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.say("", "33", e, "runs: "+e.Message)
	case runner.EventJob:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.say("", "", e, fmt.Sprintf("runs as job %s; pipe logs -f %s follows it, pipe stop %s ends it", e.Message, e.Message, e.Message))
	case runner.EventRetry:
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.tails, e.Label)
		next := ""
		if e.Delay > 0 {
			next = " in " + e.Delay.Round(10*time.Millisecond).String()
		}
		c.say("", "33", e, fmt.Sprintf("attempt %d of %d failed: %s; trying again%s", e.Attempt, e.Pipeline.Steps[e.Step].Retry.Attempts, describe(e.Pipeline, e.Result), next))
	case runner.EventClose:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flush(e)
	case runner.EventStepEnd:
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.Result.Status != runner.StatusFailure && e.Result.Status != runner.StatusCancelled {
			delete(c.tails, e.Label)
		}
	}
}

func (c *Console) out() io.Writer {
	if c.Out == nil {
		return os.Stdout
	}
	return c.Out
}

func (c *Console) err() io.Writer {
	if c.Err == nil {
		return os.Stderr
	}
	return c.Err
}

// say writes a message with the label of the event's step. The caller holds c.mu.
func (c *Console) say(what, color string, e runner.Event, msg string) {
	where := ""
	if e.Step >= 0 {
		where = e.Label + ": "
	}
	c.newline()
	fmt.Fprintf(c.err(), "pipe: %s%s%s\n", c.paint(color, what), where, msg)
}

// newline ends an unfinished line of output, so that a message begins a new line.
func (c *Console) newline() {
	if c.midway {
		fmt.Fprintln(c.err())
		c.midway = false
	}
}

func (c *Console) paint(color, s string) string {
	if !c.Color || s == "" {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

func (c *Console) data(e runner.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tails == nil {
		c.tails = map[string]*tail{}
		c.lines = map[lineKey]*bytes.Buffer{}
	}
	t := c.tails[e.Label]
	if t == nil {
		t = &tail{}
		c.tails[e.Label] = t
	}
	t.add(e.Stream, e.Data)
	if !c.Prefix {
		c.write(e.Stream, e.Data)
		return
	}
	key := lineKey{e.Label, e.Stage, e.Stream}
	buf := c.lines[key]
	if buf == nil {
		buf = &bytes.Buffer{}
		c.lines[key] = buf
	}
	c.prefixed(e, buf)
}

// maxLine is the length in bytes at which an unfinished line is written anyway.
const maxLine = 64 << 10

// prefixed adds the data of e to buf, and writes the finished lines in buf, each with
// its prefix.
func (c *Console) prefixed(e runner.Event, buf *bytes.Buffer) {
	buf.Write(e.Data)
	var out bytes.Buffer
	name := e.Label + " | "
	for {
		i := bytes.IndexByte(buf.Bytes(), '\n')
		if i < 0 {
			if buf.Len() < maxLine {
				break
			}
			i = buf.Len() - 1
		}
		out.WriteString(name)
		line := buf.Next(i + 1)
		out.Write(line)
		if line[len(line)-1] != '\n' {
			out.WriteByte('\n')
		}
	}
	c.write(e.Stream, out.Bytes())
}

// flush writes the unfinished last lines of a stage.
func (c *Console) flush(e runner.Event) {
	for _, s := range []runner.Stream{runner.StreamStdout, runner.StreamStderr} {
		key := lineKey{e.Label, e.Stage, s}
		if buf := c.lines[key]; buf != nil && buf.Len() > 0 {
			c.write(s, []byte(e.Label+" | "+buf.String()+"\n"))
		}
		delete(c.lines, key)
	}
}

func (c *Console) write(s runner.Stream, b []byte) {
	w := c.out()
	if s == runner.StreamStderr {
		w = c.err()
	}
	if len(b) == 0 || s == runner.StreamStdout && c.failed {
		return
	}
	c.midway = b[len(b)-1] != '\n'
	if _, err := w.Write(b); err != nil && s == runner.StreamStdout {
		c.failed = true
		if c.Fail != nil {
			c.Fail(err)
		}
	}
}

// tailLines and tailBytes bound how much of a step's last output Summary shows if the
// step fails.
const (
	tailLines = 10
	tailBytes = 4 << 10
)

// tail holds the end of a step's stdout and stderr. A change of the stream begins a
// new line.
type tail struct {
	b    []byte
	last runner.Stream
}

func (t *tail) add(s runner.Stream, b []byte) {
	if t.last != s && len(t.b) > 0 && t.b[len(t.b)-1] != '\n' {
		t.b = append(t.b, '\n')
	}
	t.last = s
	if len(b) >= tailBytes {
		t.b = append(t.b[:0], b[len(b)-tailBytes:]...)
		return
	}
	t.b = append(t.b, b...)
	if len(t.b) > 4*tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
}

// escapes matches the control sequences of terminals.
var escapes = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\^_])")
})

// maxShown is how much of each line Summary shows, in bytes.
const maxShown = 300

// text returns the last lines, shortened and without escape sequences, control
// characters and invalid UTF-8.
func (t *tail) text() []string {
	b := bytes.TrimRight(t.b, "\n")
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
	}
	if len(b) == 0 {
		return nil
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	for i, l := range lines {
		l = escapes().ReplaceAllString(l, "")
		if len(l) > maxShown {
			l = l[:maxShown] + " …"
		}
		lines[i] = strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f {
				return -1
			}
			return r
		}, strings.ToValidUTF8(l, "?"))
	}
	return lines
}

// Summary writes what went wrong in a run to Err. The step that failed first comes
// last, with its last output, so that it is at the bottom of a terminal. If no step
// failed, Summary names only the steps that did not have to run.
func (c *Console) Summary(p *pipeline.Pipeline, res *runner.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newline()
	c.reused(res)
	for i := range res.Steps {
		list := []runner.StepResult{res.Steps[i]}
		if res.Steps[i].Each != nil {
			list = res.Steps[i].Each
		}
		for k := range list {
			st := &list[k]
			if st.Status != runner.StatusFailure || res.Cause != nil && st.Label == res.Cause.Label {
				continue
			}
			how := "also failed"
			if p.Steps[i].ContinueOnError {
				how = "failed, which continueOnError allows"
			}
			fmt.Fprintf(c.err(), "pipe: %sstep %s %s: %s\n", place(p, i), st.Label, how, describe(p, st))
		}
	}
	var by *runner.Interrupt
	if res.Interrupted != nil && !(errors.As(res.Interrupted, &by) && by.Signal == syscall.SIGPIPE) {
		fmt.Fprintf(c.err(), "pipe: %s\n", c.paint("31;1", res.Interrupted.Error()))
		if res.Cause == nil {
			c.interrupted(p, res, by == nil)
		}
	}
	if res.Cause != nil {
		c.cause(p, res)
	}
}

// reused names the steps that did not run because an earlier run of them succeeded.
func (c *Console) reused(res *runner.Result) {
	var order []string
	labels := map[string][]string{}
	var collect func(prefix string, steps []runner.StepResult)
	collect = func(prefix string, steps []runner.StepResult) {
		for i := range steps {
			st := &steps[i]
			switch {
			case st.Each != nil:
				collect(prefix, st.Each)
			case st.Sub != nil:
				collect(prefix+st.Label+"/", st.Sub.Steps)
			case st.Reused != "":
				if labels[st.Reused] == nil {
					order = append(order, st.Reused)
				}
				labels[st.Reused] = append(labels[st.Reused], prefix+st.Label)
			}
		}
	}
	collect("", res.Steps)
	for _, why := range order {
		what := why
		if id, ok := strings.CutPrefix(why, "run "); ok {
			what = "not run again, they ended well in " + id
		}
		fmt.Fprintf(c.err(), "pipe: %s: %s\n", what, abridged(labels[why]))
	}
}

// place returns the position of a step in its file, as a prefix of a message, or "".
func place(p *pipeline.Pipeline, i int) string {
	if pos := p.Steps[i].Pos; pos.IsValid() {
		return fmt.Sprintf("%s:%d:%d: ", p.File, pos.Line, pos.Col)
	}
	return ""
}

// interrupted names the steps that were running when the run was interrupted, and the
// steps that did not run. With tails it also writes the last output of the former.
func (c *Console) interrupted(p *pipeline.Pipeline, res *runner.Result, tails bool) {
	var skipped []string
	for i := range res.Steps {
		switch st := &res.Steps[i]; {
		case st.Job != "": // a job keeps running
		case st.Status == runner.StatusCancelled && st.Command != "":
			fmt.Fprintf(c.err(), "  ended: %s%s (%s)\n", place(p, i), st.Label, oneLine(st.Command))
			if tails {
				c.tail(st.Label)
			}
		case st.Status == runner.StatusSkipped && p.Steps[i].If == nil:
			skipped = append(skipped, st.Label)
		}
	}
	c.names("not run", skipped)
}

// cause explains the failure of the step that failed first.
func (c *Console) cause(p *pipeline.Pipeline, res *runner.Result) {
	f := res.Cause
	fmt.Fprintf(c.err(), "pipe: %s%s %s\n", place(p, f.Index), c.paint("31;1", "step "+f.Label+" failed:"), describe(p, f))
	c.sub(p, f, f.Label)
	if f.Command != "" {
		fmt.Fprintf(c.err(), "  command: %s\n", oneLine(f.Command))
	}
	if n := len(f.Attempts); n > 0 {
		fmt.Fprintf(c.err(), "  attempts: %d\n", n+1)
	}
	if d := f.Duration(); d >= 100*time.Millisecond {
		fmt.Fprintf(c.err(), "  ran for: %s\n", d.Round(10*time.Millisecond))
	}
	c.tail(f.Label)
	c.consequences(res)
}

// sub explains the failure in a pipeline that the step f ran; label is the label of f
// with those of the outer steps.
func (c *Console) sub(p *pipeline.Pipeline, f *runner.StepResult, label string) {
	inc := p.Steps[f.Index].Run
	if inc == nil || f.Sub == nil || f.Sub.Cause == nil {
		return
	}
	cause := f.Sub.Cause
	fmt.Fprintf(c.err(), "  %sstep %s failed: %s\n", place(inc.Pipeline, cause.Index), cause.Label, describe(inc.Pipeline, cause))
	if cause.Command != "" {
		fmt.Fprintf(c.err(), "  command: %s\n", oneLine(cause.Command))
	}
	c.tail(label + "/" + cause.Label)
	c.sub(inc.Pipeline, cause, label+"/"+cause.Label)
}

// tail writes the last output of a step.
func (c *Console) tail(label string) {
	t := c.tails[label]
	if t == nil {
		return
	}
	if lines := t.text(); len(lines) > 0 {
		fmt.Fprintf(c.err(), "  last output:\n")
		for _, l := range lines {
			fmt.Fprintf(c.err(), "    %s\n", l)
		}
	}
}

// consequences names the steps that were cancelled or did not run because of the
// failure.
func (c *Console) consequences(res *runner.Result) {
	var cancelled, skipped []string
	for i := range res.Steps {
		switch st := &res.Steps[i]; {
		case st.CancelledBy == "":
		case st.Status == runner.StatusCancelled:
			cancelled = append(cancelled, st.Label)
		case st.Status == runner.StatusSkipped:
			skipped = append(skipped, st.Label)
		}
	}
	c.names("cancelled because of it", cancelled)
	c.names("not run because of it", skipped)
}

// names writes a list of step labels after what, if there are any.
func (c *Console) names(what string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(c.err(), "  %s: %s\n", what, abridged(names))
	}
}

// abridged joins names, up to 12 of them.
func abridged(names []string) string {
	if n := len(names); n > 12 {
		names = append(names[:12:12], fmt.Sprintf("and %d more", n-12))
	}
	return strings.Join(names, ", ")
}

// describe says how a step ended, with the values of the limits that ended it.
func describe(p *pipeline.Pipeline, r *runner.StepResult) string {
	s, what := p.Steps[r.Index], r.String()
	switch r.Reason {
	case runner.ReasonTimeout:
		return strings.Replace(what, "timed out", fmt.Sprintf("timed out after %s", s.Timeout), 1)
	case runner.ReasonIdleTimeout:
		return strings.Replace(what, "for its idleTimeout", fmt.Sprintf("for %s (idleTimeout)", s.IdleTimeout), 1)
	case runner.ReasonExit:
		if r.ExitCode == 0 && r.Err == nil {
			return what + ", which is not among its successCodes"
		}
	}
	return what
}

// oneLine shortens a command to at most 300 bytes of its first line.
func oneLine(s string) string {
	s = strings.TrimSpace(s)
	first, rest, more := strings.Cut(s, "\n")
	if len(first) > 300 {
		return strings.ToValidUTF8(first[:300], "") + " …"
	}
	if more && strings.TrimSpace(rest) != "" {
		return first + " …"
	}
	return first
}
