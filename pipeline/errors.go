package pipeline

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode/utf8"
)

// Error is one thing that is wrong in a pipeline.
type Error struct {
	File string // "" for a pipeline built in Go
	Pos  Pos
	Msg  string // lower-case: what is wrong, what was expected, what to do
	Line string // the source line at Pos, where it is known
}

// Error returns "file:line:col: message". It leaves out what is not known, and
// writes "pipeline" for the file of a pipeline built in Go.
func (e *Error) Error() string {
	switch {
	case e.File == "" && !e.Pos.IsValid():
		return "pipeline: " + e.Msg
	case !e.Pos.IsValid():
		return e.File + ": " + e.Msg
	case e.Pos.Col <= 0:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Pos.Line, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Pos.Line, e.Pos.Col, e.Msg)
}

// Errors is the error of [Parse] and [Pipeline.Check]: everything that is wrong
// with a pipeline, in order of place. It is never empty.
type Errors []*Error

// Error returns one line for each error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// maxShown is how many errors of one file are worth reading.
const maxShown = 50

// Render writes the errors to w, one line each. With carets, it also writes each
// source line, and a mark below the place.
func (es Errors) Render(w io.Writer, carets bool) {
	for i, e := range es {
		if i == maxShown {
			fmt.Fprintf(w, "… and %d more errors\n", len(es)-i)
			return
		}
		fmt.Fprintln(w, e.Error())
		if !carets || e.Line == "" || e.Pos.Col <= 0 {
			continue
		}
		// Tabs stay tabs in the padding, so that the caret stands below its
		// character whatever the tab width of the terminal.
		var pad strings.Builder
		n := 1
		for _, r := range e.Line {
			if n >= e.Pos.Col {
				break
			}
			if r == '\t' {
				pad.WriteByte('\t')
			} else {
				pad.WriteByte(' ')
			}
			n++
		}
		fmt.Fprintf(w, "    %s\n    %s^\n", e.Line, pad.String())
	}
}

// report collects errors of one file.
type report struct {
	file  string
	lines [][]byte
	errs  Errors
	in    string // the step that is being checked, for errors without a place
}

func (r *report) add(pos Pos, format string, args ...any) {
	e := &Error{File: r.file, Pos: pos, Msg: fmt.Sprintf(format, args...)}
	if r.file == "" && !pos.IsValid() && r.in != "" {
		e.Msg = "step " + r.in + ": " + e.Msg
	}
	if pos.Line > 0 && pos.Line <= len(r.lines) {
		line := r.lines[pos.Line-1]
		if len(line) <= 400 && utf8.Valid(line) {
			e.Line = strings.TrimRight(string(line), "\r\n")
		}
	}
	r.errs = append(r.errs, e)
}

// err returns the collected errors in order of place, or nil.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	order := map[string]int{r.file: 0} // the files that are run follow, in the order in which they were read
	for _, e := range r.errs {
		if _, ok := order[e.File]; !ok {
			order[e.File] = len(order)
		}
	}
	sort.SliceStable(r.errs, func(i, j int) bool {
		if a, b := order[r.errs[i].File], order[r.errs[j].File]; a != b {
			return a < b
		}
		a, b := r.errs[i].Pos, r.errs[j].Pos
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
	return r.errs
}

// nearest returns the known word that is most like the given one, or "" if none
// is alike enough to be what was meant.
func nearest(word string, known []string) string {
	best, bestDist := "", 1+len(word)/3
	for _, k := range known {
		if strings.EqualFold(word, k) {
			return k
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(k), bestDist); d <= bestDist && (best == "" || d < bestDist) {
			best, bestDist = k, d
		}
	}
	return best
}

// editDistance is the optimal string alignment distance: insertions,
// deletions, replacements and swaps of neighbours cost one each. It stops
// counting past limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// didYouMean returns the last clause of an error about an unknown word: it offers
// the known word that is most like it, or, if none is, returns otherwise.
func didYouMean(word string, known []string, otherwise string) string {
	if n := nearest(word, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return otherwise
}

// alternatives joins words as in "a, b or c".
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
