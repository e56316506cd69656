// Package history stores what later runs need to know of earlier ones: a journal of
// each run, records of steps with sources, and locks.
//
// A journal is a file to which a run appends a line when a step starts or ends. If the
// run is killed, the journal is complete up to that moment.
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

// journalVersion is the version of the format. Journals of other versions are not
// read.
const journalVersion = 1

// journalLine is one line of a journal. Exactly one field is set.
type journalLine struct {
	Run   *journalHeader `json:"run,omitempty"`   // the first line
	Begin string         `json:"begin,omitempty"` // a step starts: its label
	Step  *record        `json:"step,omitempty"`  // a step has ended
	End   *journalEnd    `json:"end,omitempty"`   // the last line, unless the run was killed
}

type journalHeader struct {
	Version int                 `json:"version"`
	ID      string              `json:"id"`
	File    string              `json:"file"` // as given
	Name    string              `json:"name,omitempty"`
	Dir     string              `json:"dir"` // the caller's working directory
	Params  map[string][]string `json:"params,omitempty"`
	Args    []string            `json:"args,omitempty"`
	Steps   []string            `json:"steps,omitempty"` // the steps that were named
	// SecretParams and SecretArgs name the parameters, and say whether the
	// arguments, held a secret or invalid UTF-8, and are altered here.
	SecretParams []string          `json:"secretParams,omitempty"`
	SecretArgs   bool              `json:"secretArgs,omitempty"`
	Pid          int               `json:"pid"`
	Start        time.Time         `json:"start"`
	Environ      map[string]string `json:"environ,omitempty"` // digests of the values, by name
	Root         string            `json:"root,omitempty"`
}

type journalEnd struct {
	ExitCode int       `json:"exitCode"`
	Cause    string    `json:"cause,omitempty"` // the step that failed first
	Error    string    `json:"error,omitempty"`
	End      time.Time `json:"end"`
}

// journal is the journal of a run that is going on.
type journal struct {
	id  string
	mu  sync.Mutex
	f   *os.File // locked until the run ends
	err error    // the first error; nothing is written after it
	buf []byte   // lines that have not been written yet
}

// append adds a line to the buffer, which flush writes.
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

// flush writes the buffer in one write. After an error it returns the same error each
// time. A nil journal writes nothing.
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

// Header describes a run at the beginning of its journal.
type Header struct {
	ID     string // as runs have it; see PastRun
	File   string // as given
	Name   string // the name of the pipeline
	Dir    string // the caller's working directory
	Root   string // "": not confined
	Params map[string][]string
	Args   []string
	Steps  []string // the steps that were named; nil: all
}

// Begin starts the journal of a run. It masks secrets in parameters and arguments. If
// Begin returns an error, the run is not recorded, and the other methods of m do
// nothing with the journal. Begin must be called at most once, before the first step.
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
			secret = secret || out[i] != w || !utf8.ValidString(w) // JSON would alter invalid UTF-8
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
	_ = j.append(&journalLine{Run: first}) // flush returns the error
	if err := j.flush(); err != nil {
		_ = f.Close()
		return err
	}
	m.journal = j
	return nil
}

// Flush writes what Started and Ended have added to the journal, in one write. The
// error is that of any of them.
func (m *Memory) Flush() error { return m.journal.flush() }

// FirstFailure returns true the first time it is called, and false after that. It
// guards a warning that would otherwise be repeated during the run.
func (m *Memory) FirstFailure() (first bool) {
	m.warned.Do(func() { first = true })
	return first
}

// maxInterrupt bounds the text of what ended a run, in bytes: the last line of a
// journal is to be short.
const maxInterrupt = 4 << 10

// End writes the end of the run to the journal and closes it: the exit code, the label
// of the step that failed first, and what interrupted the run. It also removes old
// journals.
func (m *Memory) End(exitCode int, cause, interrupt string) error {
	j := m.journal
	if j == nil {
		return nil
	}
	defer pruneOld(m.folder)
	defer j.f.Close()
	if len(interrupt) > maxInterrupt {
		interrupt = strings.ToValidUTF8(interrupt[:maxInterrupt], "") + " …"
	}
	_ = j.append(&journalLine{End: &journalEnd{ExitCode: exitCode, Cause: cause, Error: interrupt, End: time.Now()}})
	return j.flush()
}

// PastRun describes a run, as read from its journal. If Status is RunUnreadable, only
// ID and Problem are certain to be set.
type PastRun struct {
	ID       string
	File     string // the pipeline file, as given
	Name     string // the name of the pipeline
	Dir      string // the caller's working directory
	Params   map[string][]string
	Args     []string
	Steps    []string // the steps that were named; nil: all
	Pid      int      // of the runner
	Start    time.Time
	End      time.Time // zero unless Status is RunEnded
	Status   RunStatus
	Cause    string // the label of the step that failed first; "": none
	Error    string // what interrupted the run: a signal or its timeout; "": nothing
	Root     string // the root of the Runner; "": not confined
	Problem  string // why the journal cannot be read, or not beyond some line; "": nothing
	ExitCode int    // the exit code of the run, if Status is RunEnded
	// Results holds the steps, in the order in which they ended. Only OpenRun sets it.
	Results []PastStep

	header  *journalHeader
	records map[string]*record // by label
	begun   []string           // the labels of the steps that have started
}

// PastStep is a step of a [PastRun]. The fields are those of the step's result.
type PastStep struct {
	Label    string
	Status   string
	Reason   step.Reason
	ExitCode int
	Signal   string
	Command  string
	Error    string
	Attempts int // the number of attempts before the last one
	Start    time.Time
	Duration time.Duration
	Reused   string // why the step did not run, as in Trial.Reused; "": it ran
}

// RunStatus is the status of a recorded run.
type RunStatus string

// statusKilled is the status of a step that was running when its run was killed.
const statusKilled = "killed"

// The statuses of a run.
const (
	RunRunning    RunStatus = "running"
	RunEnded      RunStatus = "ended"
	RunKilled     RunStatus = "killed"     // the runner was killed, or the machine crashed
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

// Runs returns the runs that are recorded in a state folder, without their steps, the
// latest first. A run whose journal cannot be read is RunUnreadable; it is not an
// error.
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

// OpenRun returns the run with an id or an unambiguous prefix of one, with its steps.
// The id "last" stands for the last run that was started in dir, or in any folder if
// dir is "".
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
	return nil, fmt.Errorf("the ids of %d runs begin with %q; give more of the id", len(found), id)
}

// PruneRuns removes the journals of all runs except the latest keep, and except runs
// that are going on. It returns how many it removed, also with an error.
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
		if err != nil && !errors.Is(err, os.ErrNotExist) { // go on with the other journals
			errs = errors.Join(errs, err)
		}
	}
	return count, errs
}

// keptRuns is how many journals are kept when there are too many. To prune seldom,
// pruneOld waits until there are a quarter more.
const keptRuns = 200

func pruneOld(folder string) {
	if ids, err := runIDs(folder); err == nil && len(ids) > keptRuns+keptRuns/4 {
		_, _ = PruneRuns(folder, keptRuns) // after an error, the next run tries again
	}
}

// readRun reads a journal: all of it if whole is true, or its first and last lines. It
// never fails: a journal that cannot be read is RunUnreadable.
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
		if errors.Is(err, io.EOF) { // an unfinished last line was not written completely; ignore it
			p.unended()
			return p
		}
		var l journalLine
		if err != nil || state.Unseal(line, &l) != nil {
			p.Problem = fmt.Sprintf("line %d of the journal is torn or was changed; the rest of the journal is ignored", n)
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

// maxHeader and maxLine bound the length in bytes of the first line of a journal and
// of the others.
const (
	maxHeader = 16 << 20
	maxLine   = 128 << 20
)

// readLine reads a line, including its newline. It returns bufio.ErrTooLong if the
// line is longer than most bytes.
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

// unended adds the steps that have started and not ended, because they are running or
// the run was killed.
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

// readEnd reads the last line of a journal, if that is the end of the run.
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

// Resumable returns an error that says why a run cannot be resumed, or nil. Parameters
// and arguments that held a secret are not stored, so the caller must have them again:
// param reports whether it lacks a parameter, and args whether it lacks the arguments.
func (p *PastRun) Resumable(param func(name string) bool, args bool) error {
	switch {
	case p.Status == RunRunning:
		return fmt.Errorf("run %s is still going on (pid %d)", p.ID, p.Pid)
	case p.Problem != "":
		return fmt.Errorf("run %s: %s", p.ID, p.Problem)
	case p.File == "" || p.File == "stdin":
		return fmt.Errorf("run %s did not read its pipeline from a file, and cannot be resumed", p.ID)
	case p.header.SecretArgs && args:
		return fmt.Errorf("run %s: an argument after -- held a secret or invalid UTF-8, which is not stored; give the arguments again", p.ID)
	}
	for _, name := range p.header.SecretParams {
		if param(name) {
			return fmt.Errorf("run %s: parameter %s held a secret or invalid UTF-8, which is not stored; give it again, as -p %s=…", p.ID, name, name)
		}
	}
	return nil
}
