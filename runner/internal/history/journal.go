// Package history keeps what runs leave to later ones: a journal of each run,
// records of steps with sources, and locks.
//
// A journal is a file that grows by a line for each step that starts or ends, so
// that whatever ends the run, what is in it is true.
package history

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// journalVersion is that of the format. A journal of another one is not read.
const journalVersion = 1

// journalLine is one line of a journal: one of the four.
type journalLine struct {
	Run   *journalHeader `json:"run,omitempty"`
	Begin string         `json:"begin,omitempty"` // the label of a step that starts
	Step  *record        `json:"step,omitempty"`
	End   *journalEnd    `json:"end,omitempty"`
}

type journalHeader struct {
	Version int                 `json:"version"`
	ID      string              `json:"id"`
	File    string              `json:"file"` // as given
	Name    string              `json:"name,omitempty"`
	Dir     string              `json:"dir"` // the caller's
	Params  map[string][]string `json:"params,omitempty"`
	Args    []string            `json:"args,omitempty"`
	Steps   []string            `json:"steps,omitempty"` // those that were named
	// What held a secret, and is not as it was.
	SecretParams []string          `json:"secretParams,omitempty"`
	SecretArgs   bool              `json:"secretArgs,omitempty"`
	Pid          int               `json:"pid"`
	Start        time.Time         `json:"start"`
	Environ      map[string]string `json:"environ,omitempty"` // digests
	Root         string            `json:"root,omitempty"`
}

type journalEnd struct {
	ExitCode int       `json:"exitCode"`
	Cause    string    `json:"cause,omitempty"` // the step that failed first
	Error    string    `json:"error,omitempty"`
	End      time.Time `json:"end"`
}

// journal is one that is being written.
type journal struct {
	id  string
	mu  sync.Mutex
	f   *os.File // locked as long as the run goes on
	err error    // the first one; nothing is written after it
	buf []byte   // that is not written yet
}

// append adds one line, which flush writes: what the loop does in one turn goes
// down in one write.
func (j *journal) append(l *journalLine) error {
	line, err := state.Seal(l)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
	}
	if j.err != nil {
		j.buf = nil
		return j.err
	}
	j.buf = append(j.buf, line...)
	return nil
}

// flush writes what was appended, in one write. An error is told once more by
// each call after it.
func (j *journal) flush() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil && len(j.buf) > 0 {
		_, j.err = j.f.Write(j.buf)
		j.buf = j.buf[:0]
	}
	return j.err
}

// Header is what a journal begins with.
type Header struct {
	ID     string
	File   string // as given
	Name   string
	Dir    string // the caller's
	Root   string
	Params map[string][]string
	Args   []string
	Steps  []string // those that were named
}

// Begin starts the journal of a run. After an error the run is not recorded.
func (m *Memory) Begin(h Header, redactor *safety.Redactor) error {
	dir, err := state.Sub(m.folder, "runs")
	if err != nil {
		return err
	}
	f, err := state.OpenFile(filepath.Join(dir, h.ID), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND)
	if err != nil {
		return err
	}
	if err := state.Lock(f); err != nil {
		_ = f.Close()
		return errors.Join(err, os.Remove(f.Name()))
	}
	j := &journal{id: h.ID, f: f}
	first := &journalHeader{
		Version: journalVersion, ID: h.ID, File: h.File, Name: h.Name, Dir: h.Dir, Params: map[string][]string{}, Steps: h.Steps,
		Pid: os.Getpid(), Start: time.Now(), Environ: m.environ, Root: h.Root,
	}
	clean := func(words []string) (out []string, secret bool) {
		out = make([]string, len(words))
		for i, w := range words {
			out[i] = redactor.String(w)
			secret = secret || out[i] != w || !utf8.ValidString(w) // neither can be stored as it is
		}
		return out, secret
	}
	for name, words := range h.Params {
		var secret bool
		if first.Params[name], secret = clean(words); secret {
			first.SecretParams = append(first.SecretParams, name)
		}
	}
	if h.Args != nil {
		first.Args, first.SecretArgs = clean(h.Args)
	}
	_ = j.append(&journalLine{Run: first}) // flush tells an error
	if err := j.flush(); err != nil {
		_ = f.Close()
		return err
	}
	m.journal = j
	return nil
}

// Flush writes down what has happened since it was called last, in one write.
func (m *Memory) Flush() error { return m.journal.flush() }

// FirstFailure reports, once for the run, that it has not been called before: for
// a warning that each turn of the run would repeat.
func (m *Memory) FirstFailure() (first bool) {
	m.warned.Do(func() { first = true })
	return first
}

// End ends the journal of a run: with its exit code, the label of the step that
// failed first, and what ended the run besides. Old journals are removed.
func (m *Memory) End(exitCode int, cause, interrupt string) error {
	j := m.journal
	if j == nil {
		return nil
	}
	defer pruneOld(m.folder)
	defer j.f.Close()
	_ = j.append(&journalLine{End: &journalEnd{ExitCode: exitCode, Cause: cause, Error: interrupt, End: time.Now()}})
	return j.flush()
}

// PastRun is a run as its journal tells it.
type PastRun struct {
	ID      string
	File    string // as it was given
	Name    string
	Dir     string // the caller's
	Params  map[string][]string
	Args    []string
	Steps   []string // that were named; nil: all
	Pid     int
	Start   time.Time
	End     time.Time // zero where Status is not RunEnded
	Status  RunStatus
	Cause   string // the step that failed first
	Error   string // what ended it besides: a signal, its timeout
	Root    string // see [Runner]; "": none
	Problem string // what is wrong with the journal, or with using it; "" nothing
	// ExitCode is that of the run, where it has ended.
	ExitCode int
	Results  []PastStep // of [OpenRun], in the order in which they ended

	header  *journalHeader
	records map[string]*record
	begun   []string
}

// PastStep is a step of a [PastRun].
type PastStep struct {
	Label    string
	Status   string
	Reason   step.Reason
	ExitCode int
	Signal   string
	Command  string
	Error    string
	Attempts int // before the last one
	Start    time.Time
	Duration time.Duration
	Reused   string // as in [StepResult]
}

// RunStatus says what became of a run.
type RunStatus string

// statusKilled is that of a step that was running when its run was killed.
const statusKilled = "killed"

// The states of a run.
const (
	RunRunning    RunStatus = "running"
	RunEnded      RunStatus = "ended"
	RunKilled     RunStatus = "killed"     // or the machine was
	RunUnreadable RunStatus = "unreadable" // see PastRun.Problem
)

var runID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]{8}-[0-9]{6}\.[0-9]{3}-[0-9a-f]{6}$`) })

// runIDs returns the ids of all runs, the latest first.
func runIDs(folder string) ([]string, error) {
	dir, err := state.Sub(folder, "runs")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if runID().MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out, nil
}

// Runs returns the runs that are recorded in a state folder, without their
// steps, the latest first.
func Runs(folder string) ([]*PastRun, error) {
	ids, err := runIDs(folder)
	if err != nil {
		return nil, err
	}
	out := make([]*PastRun, len(ids))
	for i, id := range ids {
		out[i] = readRun(folder, id, false)
	}
	return out, nil
}

// OpenRun returns the run with an id, or the beginning of one, or the "last"
// one that was started in dir (anywhere, if dir is "").
func OpenRun(folder, id, dir string) (*PastRun, error) {
	ids, err := runIDs(folder)
	if err != nil {
		return nil, err
	}
	if id == "last" {
		for _, known := range ids {
			if p := readRun(folder, known, false); dir == "" || p.Dir == dir {
				return readRun(folder, known, true), nil
			}
		}
		return nil, fmt.Errorf("no run of %s is recorded; pipe runs lists those of other folders", dir)
	}
	var found []string
	for _, known := range ids {
		if strings.HasPrefix(known, id) && id != "" {
			found = append(found, known)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no run %q is recorded; pipe runs lists them", id)
	case 1:
		return readRun(folder, found[0], true), nil
	}
	return nil, fmt.Errorf("%d runs begin with %q; give more of the id", len(found), id)
}

// PruneRuns removes the journals of all but the latest runs, and of none that
// goes on; it returns how many it removed.
func PruneRuns(folder string, keep int) (int, error) {
	ids, err := runIDs(folder)
	if err != nil {
		return 0, err
	}
	count := 0
	var errs error
	for _, id := range ids[min(max(keep, 0), len(ids)):] {
		path := filepath.Join(folder, "runs", id)
		f, err := state.Open(path)
		if err == nil {
			if held, lerr := state.TryLock(f); lerr == nil && held {
				if err = os.Remove(path); err == nil {
					count++
				}
			}
			_ = f.Close()
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // one that is no journal is no reason to keep the others
			errs = errors.Join(errs, err)
		}
	}
	return count, errs
}

// keptRuns is how many journals are kept without being asked to; the rest goes
// once there are many more.
const keptRuns = 200

func pruneOld(folder string) {
	if ids, err := runIDs(folder); err == nil && len(ids) > keptRuns+keptRuns/4 {
		_, _ = PruneRuns(folder, keptRuns) // it is tried again after the next run
	}
}

// readRun reads a journal: all of it, or its first line and its last.
func readRun(folder, id string, whole bool) *PastRun {
	p := &PastRun{ID: id, Status: RunUnreadable, records: map[string]*record{}}
	f, err := state.Open(filepath.Join(folder, "runs", id))
	if err != nil {
		p.Problem = osfile.Cause(err).Error()
		return p
	}
	defer f.Close()
	held := state.Held(f)
	in := bufio.NewReaderSize(f, 64<<10)
	line, err := readLine(in, maxHeader)
	var first journalLine
	switch {
	case err != nil:
		p.Problem = "the journal ends in its first line"
		return p
	case state.Unseal(line, &first) != nil || first.Run == nil || first.Run.ID != id:
		p.Problem = "the journal's first line " + state.Torn
		return p
	case first.Run.Version != journalVersion:
		p.Problem = fmt.Sprintf("the journal is of format %d, and this program reads %d", first.Run.Version, journalVersion)
		return p
	}
	h := first.Run
	p.header = h
	p.File, p.Name, p.Dir, p.Params, p.Args, p.Steps, p.Pid, p.Start, p.Root = h.File, h.Name, h.Dir, h.Params, h.Args, h.Steps, h.Pid, h.Start, h.Root
	if p.Status = RunKilled; held {
		p.Status = RunRunning
	}
	if !whole {
		p.readEnd(f)
		return p
	}
	for n := 2; ; n++ {
		line, err := readLine(in, maxLine)
		if errors.Is(err, io.EOF) { // what is torn at the end has not happened
			p.unended()
			return p
		}
		var l journalLine
		if err != nil || state.Unseal(line, &l) != nil {
			p.Problem = fmt.Sprintf("line %d of the journal is torn or was changed; nothing is believed from there on", n)
			return p
		}
		switch {
		case l.Begin != "":
			p.begun = append(p.begun, l.Begin)
		case l.Step != nil:
			p.add(l.Step)
		case l.End != nil:
			p.ended(l.End)
		}
	}
}

// A line longer than this is none of a journal, in bytes.
const (
	maxHeader = 16 << 20
	maxLine   = 128 << 20
)

// readLine reads a line with its end; one that is too long is an error.
func readLine(in *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if err == nil || !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > most {
			return nil, bufio.ErrTooLong
		}
	}
}

// unended adds the steps that had started when the run was killed.
func (p *PastRun) unended() {
	if p.Status != RunKilled && p.Status != RunRunning {
		return
	}
	status := statusKilled
	if p.Status == RunRunning {
		status = step.StatusRunning.String()
	}
	for _, label := range p.begun {
		if p.records[label] == nil {
			p.add(&record{Label: label, Status: status})
		}
	}
}

func (p *PastRun) add(rec *record) {
	p.records[rec.Label] = rec
	p.Results = append(p.Results, PastStep{
		rec.Label, rec.Status, rec.Reason, rec.ExitCode, rec.Signal, rec.Command, rec.Error, rec.Attempts, rec.Start, rec.Duration, rec.Reused,
	})
}

func (p *PastRun) ended(e *journalEnd) {
	p.Status, p.ExitCode, p.Cause, p.End, p.Error = RunEnded, e.ExitCode, e.Cause, e.End, e.Error
}

// readEnd reads the last line.
func (p *PastRun) readEnd(f *os.File) {
	const most = 16 << 10
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return
	}
	tail := make([]byte, min(size, most))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return
	}
	line, ok := bytes.CutSuffix(tail, []byte("\n"))
	if !ok {
		return
	}
	var l journalLine
	if state.Unseal(line[bytes.LastIndexByte(line, '\n')+1:], &l) == nil && l.End != nil {
		p.ended(l.End)
	}
}

// Resumable says why a run cannot be resumed, or nil. A parameter that held a
// secret was not stored: it must be given again, and so must args; the
// arguments say which of them are missing.
func (p *PastRun) Resumable(param func(name string) bool, args bool) error {
	switch {
	case p.Status == RunRunning:
		return fmt.Errorf("run %s is still going on (pid %d)", p.ID, p.Pid)
	case p.Problem != "":
		return fmt.Errorf("run %s: %s", p.ID, p.Problem)
	case p.File == "" || p.File == "stdin":
		return fmt.Errorf("run %s was not of a file, and cannot be resumed", p.ID)
	case p.header.SecretArgs && args:
		return fmt.Errorf("run %s: what followed -- held a secret, or bytes that are no text, which are not stored; give it again", p.ID)
	}
	for _, name := range p.header.SecretParams {
		if param(name) {
			return fmt.Errorf("run %s: parameter %s held a secret, or bytes that are no text, which are not stored; give it again, as -p %s=…", p.ID, name, name)
		}
	}
	return nil
}
