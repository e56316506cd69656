package runner

// This file holds what is remembered of a step that ended: what it depended on,
// so that one that would do the same again need not run.

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/safety"
)

// part is one of the things that a step depends on, by its digest.
type part struct {
	Name string `json:"n"`
	Sum  string `json:"s"`
}

// record is what is remembered of one execution.
type record struct {
	Label    string        `json:"label"`
	Status   string        `json:"status"`
	Reason   Reason        `json:"reason,omitempty"`
	ExitCode int           `json:"exitCode"`
	Signal   string        `json:"signal,omitempty"`
	Command  string        `json:"command,omitempty"`
	Error    string        `json:"error,omitempty"`
	Attempts int           `json:"attempts,omitempty"` // those before the last one
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration"` // ns
	Reused   string        `json:"reused,omitempty"`
	Job      string        `json:"job,omitempty"`

	Run      string      `json:"run,omitempty"` // id of the run in which it ran
	Parts    []part      `json:"parts,omitempty"`
	Inherits bool        `json:"inherits,omitempty"` // the whole environment
	Own      []string    `json:"own,omitempty"`      // variables that it sets itself, where it inherits
	Sources  []fileState `json:"sources,omitempty"`
	Made     []fileState `json:"made,omitempty"`

	// What expressions read of it.
	Stages []stageRecord `json:"stages,omitempty"`
	Stdout []byte        `json:"stdout,omitempty"`
	Stderr []byte        `json:"stderr,omitempty"`
	Lost   string        `json:"lost,omitempty"` // why its output is not here
}

type stageRecord struct {
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
}

// memory is what a run remembers of others, and leaves to others.
type memory struct {
	state    string
	steps    string // folder of the records of steps with sources
	hash     *state.Hasher
	environ  map[string]string // digests of what steps inherit
	journal  *journal
	previous *PastRun
	prefix   string // of the labels of a nested pipeline
	ranFirst string // the step that ran before everything of a nested pipeline
	readers  map[string]bool
	files    sync.Map // fileID to digest: of files that were read in this run
	systems  sync.Map // device to bool: whether the times of files tell there
	warned   sync.Once
}

// fingerprint is what an execution depends on.
type fingerprint struct {
	parts    []part
	inherits bool
	own      []string
	sources  []fileState
	dir      string
	missing  []string // patterns of sources that match nothing
	unknown  string   // why it cannot be known to be the same; "": it can
}

// environDigests returns the digests of the variables that steps inherit.
func environDigests(h *state.Hasher, environ []string) map[string]string {
	out := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && !slices.Contains(state.Volatile, name) {
			out[name] = h.Digest(value)
		}
	}
	return out
}

// depends collects what the step depends on. Its stages are bound.
func (ex *execution) depends() (*fingerprint, error) {
	h := ex.r.memory.hash
	f := &fingerprint{}
	add := func(name string, words ...string) { f.parts = append(f.parts, part{name, h.Digest(words...)}) }
	own := map[string]bool{}
	for i, b := range ex.bounds {
		prefix := ""
		if len(ex.bounds) > 1 {
			prefix = fmt.Sprintf("of stage %d, ", i+1)
		}
		b.commandParts(prefix, add)
		ex.dependsOn(f, b, prefix, own)
	}
	for i, path := range ex.teeFiles {
		add(fmt.Sprintf("file %d of a tee", i+1), path)
	}
	add("how its stages are joined, or its exit codes or buffers are taken,", shape(ex.step.Stages))
	if err := ex.reads(f); err != nil {
		return nil, err
	}
	f.own = slices.Sorted(maps.Keys(own))
	f.dir = ex.bounds[0].dir
	var err error
	f.sources, f.missing, err = ex.match(ex.step.Sources, f.dir, ex.previousFiles())
	if err == nil && len(ex.step.Generates) > 0 && len(f.sources) > 0 { // what it writes itself is not what it reads
		f.sources, err = ex.without(f.sources, f.dir, ex.step.Generates)
	}
	return f, err
}

// shape tells apart the ways in which the same commands are run.
func shape(stages []*pipeline.Stage) string {
	var b strings.Builder
	for _, st := range stages {
		fmt.Fprintf(&b, "%t %d %v %d(", st.Buffered(), st.BufferLimit(), st.SuccessCodes, st.OnOverflow)
		for _, br := range st.Tee {
			if br.File != nil {
				fmt.Fprintf(&b, "file %t;", br.File.Append)
				continue
			}
			b.WriteString(shape(br.Chain) + ";")
		}
		b.WriteString(")")
	}
	return b.String()
}

// reads adds what comes in by stdin: the content of a file. What the caller gives
// is not known before it is read.
func (ex *execution) reads(f *fingerprint) error {
	b := ex.bounds[0]
	switch b.stage.Stdin.Kind {
	case pipeline.StdioInherit, pipeline.StdioFD:
		f.unknown = "its stdin is the caller's"
	case pipeline.StdioFile:
		st, err := ex.fileState(b.files[0], fileState{})
		if errors.Is(err, errNotRegular) {
			f.unknown = "its stdin is no regular file"
			return nil
		}
		if err == nil {
			f.parts = append(f.parts, part{"the content of stdin", st.Sum})
		}
		// One that is missing is said when it is opened.
	}
	return nil
}

// dependsOn adds the working directory and the variables that the file sets.
func (ex *execution) dependsOn(f *fingerprint, b *bound, prefix string, own map[string]bool) {
	h := ex.r.memory.hash
	f.parts = append(f.parts, part{prefix + "cwd", h.Digest(b.dir)})
	f.parts = append(f.parts, part{prefix + "extendEnv", h.Digest(strconv.FormatBool(b.inherits))}, part{prefix + "unset", h.Digest(b.unset...)})
	f.inherits = f.inherits || b.inherits
	for _, kv := range b.env {
		name, value, _ := strings.Cut(kv, "=")
		if !b.inherits || slices.Contains(b.declared, name) || slices.Contains(ex.r.declared, name) {
			f.parts = append(f.parts, part{prefix + "variable " + name, h.Digest(value)})
			own[name] = true
		}
	}
}

// commandParts adds what a stage runs.
func (b *bound) commandParts(prefix string, add func(string, ...string)) {
	st := b.stage
	if st.UsesShell() {
		add(prefix+"the shell text", st.Text)
		words := []string{b.text}
		for _, v := range b.vars {
			words = append(words, v.Name, v.Value)
		}
		add(prefix+"a value in the shell text", words...)
		add(prefix+"the shell", append([]string{b.opts.Shell}, b.opts.Set...)...)
	} else {
		add(prefix+"the program", b.program)
		for i, a := range b.args {
			add(prefix+"argument "+strconv.Itoa(i), a)
		}
	}
	if !st.Input.IsZero() {
		add(prefix+"input", b.input)
	}
	for i, io := range append([]pipeline.Stdio{st.Stdin, st.Stdout, st.Stderr}, st.Extra...) {
		if io.Kind == pipeline.StdioDefault {
			continue
		}
		add(prefix+"descriptor "+strconv.Itoa(i), strconv.Itoa(int(io.Kind)), b.file(i), strconv.FormatBool(io.Append), strconv.Itoa(io.FD))
	}
	for name, id := range map[string]*uint32{"uid": b.opts.UID, "gid": b.opts.GID} {
		if id != nil {
			add(prefix+name, strconv.FormatUint(uint64(*id), 10))
		}
	}
}

// changes says what differs, in a few words; "" if nothing does.
func changes(before, now []part, old, files []fileState) string {
	return few(append(differences(before, now), fileChanges(old, files)...))
}

// differences says of each name what became of it.
func differences(before, now []part) []string {
	var changed, added, gone []string
	seen := make(map[string]string, len(before))
	for _, p := range before {
		seen[p.Name] = p.Sum
	}
	for _, p := range now {
		sum, ok := seen[p.Name]
		switch delete(seen, p.Name); {
		case !ok:
			added = append(added, p.Name+" is new")
		case sum != p.Sum:
			changed = append(changed, p.Name+" changed")
		}
	}
	for _, p := range before {
		if _, ok := seen[p.Name]; ok {
			gone = append(gone, p.Name+" is gone")
		}
	}
	return slices.Concat(changed, added, gone)
}

// few joins words, but not more than three.
func few(words []string) string {
	if len(words) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:3], ", "), len(words)-3)
	}
	return strings.Join(words, ", ")
}

// recordPath returns where the record of a step with sources is.
func (ex *execution) recordPath() string {
	m := ex.r.memory
	file := ex.r.p.File
	if file != "" {
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
	}
	return filepath.Join(m.steps, m.hash.Digest(file, ex.r.p.Name, ex.r.dir, m.prefix+ex.u.label))
}

// remembers reports whether the step has sources or generates.
func remembers(s *pipeline.Step) bool {
	return !s.Background && !s.Detached && (s.Sources != nil || s.Generates != nil)
}

// loadRecord returns the record of a step with sources, or nil.
func (ex *execution) loadRecord() *record {
	if !remembers(ex.step) || ex.r.memory.steps == "" {
		return nil
	}
	data, err := state.Read(ex.recordPath())
	rec := &record{}
	if err != nil || state.Unseal(data, rec) != nil {
		return nil // as if there had been none: it runs
	}
	return rec
}

func (ex *execution) previousFiles() []fileState {
	if ex.last == nil {
		return nil
	}
	return ex.last.Sources
}

// reuse takes over what an earlier execution came to, if this one would come to
// the same. Otherwise it says why not, where there is something to say.
func (ex *execution) reuse() (bool, error) {
	if ex.step.Run != nil { // its steps are decided on by themselves
		return false, nil
	}
	m := ex.r.memory
	ex.last = ex.loadRecord()
	f, err := ex.depends()
	if err != nil {
		return false, err
	}
	ex.finger = f
	if ex.u.res.Attempts != nil { // it has been decided on
		return false, nil
	}
	if remembers(ex.step) {
		return ex.upToDate(f)
	}
	if m.previous == nil {
		return false, nil
	}
	rec := m.previous.records[m.prefix+ex.u.label]
	why := ex.resumes(rec, f)
	if why != "" {
		ex.emit(Event{Type: EventRerun, Message: ex.r.redactor.String(why)})
		return false, nil
	}
	ex.take(rec, "run "+m.previous.ID)
	return true, nil
}

// upToDate decides on a step with sources or generates.
func (ex *execution) upToDate(f *fingerprint) (bool, error) {
	if ex.r.memory.steps == "" {
		return false, nil
	}
	why, made, err := ex.stale(ex.last, f)
	if err != nil {
		return false, err
	}
	if ex.r.force {
		why = "--force"
	}
	if why == "" {
		if p := ex.r.memory.previous; p != nil { // another run may have done it since
			was := p.records[ex.r.memory.prefix+ex.u.label]
			ex.ranSince = was == nil || was.Run != ex.last.Run
		}
		if sureNow(ex.last.Sources, f.sources) || sureNow(ex.last.Made, made) {
			rec := *ex.last
			rec.Sources, rec.Made = f.sources, made
			ex.store(&rec)
		}
		ex.take(ex.last, "up to date")
		return true, nil
	}
	if ex.last != nil {
		ex.emit(Event{Type: EventRerun, Message: ex.r.redactor.String(why)})
		_ = removeFile(ex.recordPath()) // what it did is no longer all there is
	}
	return false, nil
}

// stale says why a step with sources runs, or "". It returns what the step
// generates.
func (ex *execution) stale(rec *record, f *fingerprint) (why string, made []fileState, err error) {
	if rec == nil {
		return "it has not ended well before, as far as is known", nil, nil
	}
	if f.unknown != "" {
		return f.unknown, nil, nil
	}
	if why = changes(rec.Parts, f.parts, rec.Sources, f.sources); why != "" {
		return why, nil, nil
	}
	if made, _, err = ex.match(ex.step.Generates, f.dir, rec.Made); err != nil {
		return "", nil, err
	}
	if words := fileChanges(rec.Made, made); len(words) > 0 {
		return few(words), made, nil
	}
	return ex.unread(rec), made, nil
}

// unread says why the record has not what expressions read of the step, or "".
func (ex *execution) unread(rec *record) string {
	if rec.Lost != "" && ex.r.memory.readers[ex.step.Name] {
		return rec.Lost
	}
	return ""
}

// resumes says why a step of a resumed run is run again, or "".
func (ex *execution) resumes(rec *record, f *fingerprint) string {
	m := ex.r.memory
	switch {
	case rec == nil:
		return "it had not run"
	case rec.Status == "killed":
		return "it was running when the run was killed"
	case rec.Status == StatusFailure.String() && rec.Signal != "":
		return "it failed by " + rec.Signal
	case rec.Status == StatusFailure.String() && rec.Reason == ReasonExit:
		return fmt.Sprintf("it failed with exit code %d", rec.ExitCode)
	case rec.Status == StatusFailure.String():
		return fmt.Sprintf("it failed (%s)", rec.Reason)
	case rec.Status != StatusSuccess.String():
		return "it was " + rec.Status
	case f.unknown != "":
		return f.unknown
	case ex.r.force:
		return "--force"
	case ex.step.Background:
		return "it is a service"
	case ex.step.Detached:
		return "it is a job, which goes on if it is there"
	case ex.step.If.RunsAfterFailure():
		return "it cleans up, in every run"
	}
	if why := changes(rec.Parts, f.parts, nil, nil); why != "" {
		return why
	}
	if f.inherits {
		var names []string
		now := m.environ
		for name, sum := range m.previous.header.Environ {
			if now[name] != sum && !slices.Contains(f.own, name) {
				names = append(names, name)
			}
		}
		for name := range now {
			if _, ok := m.previous.header.Environ[name]; !ok && !slices.Contains(f.own, name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			slices.Sort(names)
			return "the environment changed: " + few(names)
		}
	}
	if ex.after != "" {
		return "it comes after " + ex.after + ", which ran again"
	}
	return ex.unread(rec)
}

// take makes an earlier end that of this execution.
func (ex *execution) take(rec *record, reused string) {
	res := &ex.result
	res.Reused, res.ExitCode, res.Command, res.Job = reused, rec.ExitCode, rec.Command, rec.Job
	for _, st := range rec.Stages {
		sig, _ := pipeline.ParseSignal(st.Signal)
		res.Stages = append(res.Stages, StageResult{Exit: Status{Code: st.Code, Signal: sig}})
	}
	if n := len(res.Stages); n > 0 && ex.step.Run == nil {
		last := &res.Stages[n-1]
		last.stdout, last.stderr = recalled(rec.Stdout), recalled(rec.Stderr)
	}
	ex.taken = rec
}

func recalled(b []byte) *buffer { return &buffer{mem: b, size: int64(len(b))} }

// started writes down that a unit starts, so that it is known of one that was
// running when the runner was killed.
func (r *run) started(u *unit) {
	if m := r.memory; m != nil && m.journal != nil && u.res.Attempts == nil {
		_ = m.journal.append(&journalLine{Begin: m.prefix + u.label}) // an error is told with the end
	}
}

// ran reports whether anything was run anew.
func (ex *execution) ran(res *StepResult) bool {
	if res.Sub == nil {
		return res.Reused == "" && !ex.kept || ex.ranSince
	}
	return res.Sub.anew
}

// remember writes down how the execution ended, where somebody will ask. It is
// called by the goroutine of loop, with the result as it came out.
func (r *run) remember(ex *execution, res *StepResult) {
	m := r.memory
	if m == nil {
		return
	}
	rec := r.newRecord(ex, res)
	if m.journal != nil {
		_ = m.journal.append(&journalLine{Step: rec}) // an error is told by flush
	}
}

// newRecord returns the record of an execution.
func (r *run) newRecord(ex *execution, res *StepResult) *record {
	m := r.memory
	rec := &record{
		Label: m.prefix + res.Label, Status: res.Status.String(), Reason: res.Reason, ExitCode: res.ExitCode, Signal: res.Signal,
		Command: res.Command, Attempts: len(res.Attempts), Start: res.Start.Round(0), Duration: res.Duration(), Reused: res.Reused, Job: res.Job,
	}
	if m.journal != nil {
		rec.Run = m.journal.id
	}
	if res.Err != nil {
		rec.Error = res.Err.Error()
	}
	if ex == nil || res.Status != StatusSuccess {
		return rec
	}
	if f := ex.finger; f != nil {
		rec.Parts, rec.Inherits, rec.Own = f.parts, f.inherits, f.own
	}
	for i := range res.Stages {
		st := &res.Stages[i]
		rec.Stages = append(rec.Stages, stageRecord{st.Exit.Code, pipeline.SignalName(st.Exit.Signal)})
	}
	if ex.taken != nil {
		t := ex.taken
		rec.Run, rec.Stdout, rec.Stderr, rec.Lost = t.Run, t.Stdout, t.Stderr, t.Lost
	} else if m.readers[ex.step.Name] {
		rec.keep(res, r.redactor)
	} else {
		rec.Lost = "its output was not kept, and is now read"
	}
	return rec
}

// keep stores what expressions may read of a result.
func (rec *record) keep(res *StepResult, redactor *safety.Redactor) {
	clean := func(from *buffer) []byte {
		b, err := from.bytes(pipeline.MaxStepOutput + 1)
		switch {
		case err != nil:
			rec.Lost = "its output could not be kept: " + err.Error()
		case len(b) > pipeline.MaxStepOutput:
			rec.Lost = "its output was too large to be kept"
		case redactor.String(string(b)) != string(b), redactor != nil && from != nil && from.cut: // half a secret may be at the end
			rec.Lost = "a secret is in its output, which is not stored"
		default:
			return b
		}
		return nil
	}
	if n := len(res.Stages); n > 0 {
		last := &res.Stages[n-1]
		rec.Stdout, rec.Stderr = clean(last.stdout), clean(last.stderr)
	}
	if rec.Lost != "" {
		rec.Stdout, rec.Stderr = nil, nil
	}
}

// keepSources stores the record of a step with sources that ended well.
func (ex *execution) keepSources() {
	m := ex.r.memory
	if m == nil || m.steps == "" || ex.finger == nil || ex.taken != nil || ex.stopped || !remembers(ex.step) || ex.result.Status != StatusSuccess {
		return
	}
	if len(ex.finger.missing) > 0 {
		ex.warn(fmt.Sprintf("sources: %s, so the step will run again each time", few(hints(ex.finger.missing, ex.finger.dir, "matches no file"))))
		return
	}
	if ex.finger.unknown != "" {
		return // it is never the same
	}
	made, missing, err := ex.match(ex.step.Generates, ex.finger.dir, nil)
	if err != nil {
		ex.warn("generates: " + err.Error())
		return
	}
	if len(missing) > 0 {
		ex.warn(fmt.Sprintf("generates: %s, so the step will run again each time", few(hints(missing, ex.finger.dir, "was not written"))))
		return
	}
	res := ex.result
	res.Label, res.Start, res.End = ex.u.label, ex.u.res.Start, time.Now()
	rec := ex.r.newRecord(ex, &res)
	rec.Made, rec.Sources = made, ex.finger.sources
	for _, f := range slices.Concat(rec.Made, rec.Sources) {
		if ex.r.redactor.String(f.Path) != f.Path {
			ex.warn("a secret is in the name of a file, which is not stored, so the step will run again each time")
			return
		}
	}
	rec.Command = ex.r.redactor.String(rec.Command)
	ex.store(rec)
}

// hints says of patterns what is wrong with them.
func hints(patterns []string, dir, what string) []string {
	out := make([]string, len(patterns))
	for i, p := range patterns {
		full := p
		if !filepath.IsAbs(p) {
			full = filepath.Join(dir, p)
		}
		if out[i] = p + " " + what; isDir(full) {
			out[i] = fmt.Sprintf("%s is a folder (%s/** is what is in it)", p, strings.TrimSuffix(p, "/"))
		}
	}
	return out
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (ex *execution) store(rec *record) {
	data, err := state.Seal(rec)
	if err == nil {
		err = state.Replace(ex.recordPath(), data)
	}
	if err != nil {
		ex.r.memory.warned.Do(func() { ex.warn(fmt.Sprintf("cannot remember that the step is up to date: %v", cause(err))) })
	}
}
