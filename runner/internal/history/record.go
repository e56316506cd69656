package history

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
	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/osfile"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// part is one thing that a step depends on.
type part struct {
	Name string `json:"n"` // for messages: "variable X", "argument 1"
	Sum  string `json:"s"` // the digest of its value
}

// record describes one execution of a step.
type record struct {
	Label    string        `json:"label"`
	Status   string        `json:"status"`
	Reason   step.Reason   `json:"reason,omitempty"`
	ExitCode int           `json:"exitCode"`
	Signal   string        `json:"signal,omitempty"`
	Command  string        `json:"command,omitempty"`
	Error    string        `json:"error,omitempty"`
	Attempts int           `json:"attempts,omitempty"` // the number of attempts before the last one
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration"` // ns
	Reused   string        `json:"reused,omitempty"`
	Job      string        `json:"job,omitempty"`

	Run      string      `json:"run,omitempty"` // the id of the run in which the step ran
	Parts    []part      `json:"parts,omitempty"`
	Inherits bool        `json:"inherits,omitempty"` // the step inherits the whole environment
	Own      []string    `json:"own,omitempty"`      // the variables that the step sets itself
	Sources  []fileState `json:"sources,omitempty"`
	Made     []fileState `json:"made,omitempty"` // the files that match generates

	// What expressions read of the step.
	Stages []stageRecord `json:"stages,omitempty"`
	Stdout []byte        `json:"stdout,omitempty"`
	Stderr []byte        `json:"stderr,omitempty"`
	Lost   string        `json:"lost,omitempty"` // why Stdout and Stderr were not stored
}

type stageRecord struct {
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
}

// Memory gives a run access to the journals of runs, and the records of steps with
// sources, in a state folder. A run and its nested pipelines share one Memory. The zero
// value is not usable; see Open and Volatile. Begin and End must not be called
// concurrently with other methods; the others may be called concurrently.
type Memory struct {
	folder   string
	steps    string // the folder of the records of steps with sources; "": none are kept
	hash     *state.Hasher
	environ  map[string]string // digests of the variables that steps inherit, by name
	previous *PastRun          // the run that is resumed; nil: none
	journal  *journal          // nil: the run is not recorded

	files   sync.Map // by fileID, the fileState of a file read in this run
	systems sync.Map // by device, a bool: see truthful
	warned  sync.Once
}

// View is the Memory as the steps of one pipeline see it. Its fields must not be
// changed once it is used; its methods may be called concurrently.
type View struct {
	*Memory
	Root     *safety.Dir      // sources are opened inside of it; nil: not confined
	Redactor *safety.Redactor // masks secrets
	File     string           // the file of the pipeline
	Name     string           // the name of the pipeline
	Dir      string           // the caller's working directory
	Prefix   string           // begins the labels in a nested pipeline, as "outer/"
	Readers  map[string]bool  // the names of the steps whose results expressions read
	Declared []string         // variables that the outer steps of a nested pipeline set
	Force    bool             // run each step, whatever is recorded
}

// Open opens a state folder, and creates it if it does not exist. public is the
// environment that steps inherit, as a list of NAME=VALUE; previous is the run that is
// resumed, or nil.
func Open(folder string, public []string, previous *PastRun) (*Memory, error) {
	h, err := state.NewHasher(folder)
	if err != nil {
		return nil, err
	}
	m := &Memory{folder: folder, hash: h, previous: previous, environ: environDigests(h, public)}
	m.steps, err = state.Sub(folder, "steps")
	return m, err
}

// Volatile returns a Memory that stores nothing. It is good for View.Watch.
func Volatile() *Memory { return &Memory{hash: &state.Hasher{}} }

// About describes a step to Try, besides its Spec.
type About struct {
	Name     string // the name of the step; "": none
	CleansUp bool   // the step runs after failures, with always() or failure()
	After    string // in a resumed run, a step before this one that ran again; "": none
	Again    bool   // this is not the first attempt, so the step runs
}

// Trial is the decision whether a step has to run; see Try.
type Trial struct {
	// Reused says why the step does not have to run: "up to date" or "run ID". If it
	// is "", the step must run.
	Reused string
	// Why says why a step must run although it has run before; "": it has not, or
	// nothing is known.
	Why string
	// RanSince reports that another run than the resumed one brought the step up to
	// date.
	RanSince bool

	about  About
	spec   *step.Spec
	last   *record      // the record of a step with sources; nil: none
	finger *fingerprint // nil: unknown
	taken  *record      // the earlier execution that is reused; nil: none
}

// fingerprint describes what an execution of a step depends on.
type fingerprint struct {
	parts    []part
	inherits bool     // see record
	own      []string // see record
	sources  []fileState
	dir      string   // the working directory of the first stage
	missing  []string // the patterns of sources that match no file
	unknown  string   // why two executions cannot be compared; "": they can
}

// environDigests returns the digests of the values of environment variables, by name,
// without volatile ones.
func environDigests(h *state.Hasher, environ []string) map[string]string {
	out := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && !slices.Contains(state.Volatile, name) {
			out[name] = h.Digest(value)
		}
	}
	return out
}

// depends returns the fingerprint of a step. last, if not nil, saves reading files that
// have not changed.
func (v *View) depends(spec *step.Spec, last *record) (*fingerprint, error) {
	f := &fingerprint{}
	add := func(name string, words ...string) { f.parts = append(f.parts, part{name, v.hash.Digest(words...)}) }
	own := map[string]bool{}
	many, i := spec.Processes() > 1, 0
	spec.Each(func(st *step.Stage) {
		i++
		prefix := ""
		if many {
			prefix = fmt.Sprintf("of stage %d, ", i)
		}
		commandParts(st, prefix, add)
		v.environmentParts(f, st, prefix, own)
	})
	teeFiles(spec.Stages, func(n int, path string) { add(fmt.Sprintf("file %d of a tee", n), path) })
	add("how its stages are joined, or its exit codes or buffers are taken,", shape(spec.Stages))
	if err := v.stdin(spec, f); err != nil {
		return nil, err
	}
	f.own = slices.Sorted(maps.Keys(own))
	f.dir = spec.Stages[0].Dir
	var known []fileState
	if last != nil {
		known = last.Sources
	}
	var err error
	f.sources, f.missing, err = v.match(spec.Sources, f.dir, known)
	if err == nil && len(spec.Generates) > 0 && len(f.sources) > 0 { // the step's own results are not its sources
		f.sources, err = without(f.sources, f.dir, spec.Generates)
	}
	return f, err
}

// teeFiles calls f for each branch of a tee that is a file; n counts from 1.
func teeFiles(stages []step.Stage, f func(n int, path string)) {
	n := 0
	var walk func([]step.Stage)
	walk = func(stages []step.Stage) {
		for i := range stages {
			for _, b := range stages[i].Tee {
				if b.File != "" {
					n++
					f(n, b.File)
				}
				walk(b.Chain)
			}
		}
	}
	walk(stages)
}

// shape returns a text that differs if the same commands are run in another way: with
// other branches, success codes or buffers.
func shape(stages []step.Stage) string {
	var b strings.Builder
	for i := range stages {
		st := &stages[i]
		var keep step.Keep
		if st.Keep != nil {
			keep = *st.Keep
		}
		fmt.Fprintf(&b, "%t %v %v %t(", st.Keep != nil, keep, st.SuccessCodes, st.SigpipeFails)
		for _, br := range st.Tee {
			if br.File != "" {
				fmt.Fprintf(&b, "file %t;", br.Append)
				continue
			}
			b.WriteString(shape(br.Chain) + ";")
		}
		b.WriteString(")")
	}
	return b.String()
}

// stdin adds to f the content of the file that is the step's stdin. The content of a
// stdin that the caller passes on is unknown before it is read.
func (v *View) stdin(spec *step.Spec, f *fingerprint) error {
	switch in := spec.Stages[0].Stdio[0]; in.Kind {
	case step.StdioInherit, step.StdioFD:
		f.unknown = "its stdin is the caller's"
	case step.StdioFile:
		st, err := v.fileState(in.Path, fileState{})
		if errors.Is(err, errNotRegular) {
			f.unknown = "its stdin is not a regular file"
			return nil
		}
		if err == nil {
			f.parts = append(f.parts, part{"the content of stdin", st.Sum})
		}
		// If the file does not exist, the step fails when it opens the file.
	}
	return nil
}

// environmentParts adds to f the working directory of a stage and the variables that
// the pipeline sets, and adds the names of the variables to own.
func (v *View) environmentParts(f *fingerprint, st *step.Stage, prefix string, own map[string]bool) {
	h := v.hash
	f.parts = append(f.parts,
		part{prefix + "cwd", h.Digest(st.Dir)},
		part{prefix + "extendEnv", h.Digest(strconv.FormatBool(st.Inherits))},
		part{prefix + "unset", h.Digest(st.Unset...)})
	f.inherits = f.inherits || st.Inherits
	for _, kv := range st.Env {
		name, value, _ := strings.Cut(kv, "=")
		if !st.Inherits || slices.Contains(st.Declared, name) || slices.Contains(v.Declared, name) {
			f.parts = append(f.parts, part{prefix + "variable " + name, h.Digest(value)})
			own[name] = true
		}
	}
}

// commandParts adds the command, descriptors and user of a stage.
func commandParts(st *step.Stage, prefix string, add func(string, ...string)) {
	if st.UsesShell() {
		add(prefix+"the shell text", st.Written)
		words := []string{st.Text}
		if st.Text == "" { // an external shell gets the text as an argument
			words = st.Args
		}
		for _, v := range st.Vars {
			words = append(words, v.Name, v.Value)
		}
		add(prefix+"a value in the shell text", words...)
		add(prefix+"the shell", append([]string{st.Shell}, st.Set...)...)
	} else {
		add(prefix+"the program", st.Program)
		for i, a := range st.Args {
			add(prefix+"argument "+strconv.Itoa(i), a)
		}
	}
	for i, io := range st.Stdio {
		add(prefix+"descriptor "+strconv.Itoa(i), string(io.Kind), io.Path, strconv.FormatBool(io.Append), strconv.Itoa(io.FD))
		if io.Kind == step.StdioInput {
			add(prefix+"input", st.Input)
		}
	}
	for _, id := range []struct {
		name string
		id   *uint32
	}{{"uid", st.UID}, {"gid", st.GID}} {
		if id.id != nil {
			add(prefix+id.name, strconv.FormatUint(uint64(*id.id), 10))
		}
	}
}

// changes says what differs, such as "argument 1 changed"; "" if nothing does.
func changes(before, now []part, old, files []fileState) string {
	return few(append(differences(before, now), fileChanges(old, files)...))
}

// differences returns a phrase for each part that changed, is new or is gone.
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

// few joins words, up to three of them.
func few(words []string) string {
	if len(words) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:3], ", "), len(words)-3)
	}
	return strings.Join(words, ", ")
}

// recordPath returns the path of the record of a step with sources.
func (v *View) recordPath(label string) string {
	file := v.File
	if file != "" {
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
	}
	return filepath.Join(v.steps, v.hash.Digest(file, v.Name, v.Dir, v.Prefix+label))
}

// remembers reports whether a record is kept of a step: it has sources or generates,
// and is no service, job or nested pipeline.
func remembers(s *step.Spec) bool {
	return s.Service == nil && s.Job == nil && s.Nested == nil && (s.Sources != nil || s.Generates != nil)
}

// loadRecord returns the record of a step with sources, or nil if there is none or it
// cannot be read.
func (v *View) loadRecord(spec *step.Spec) *record {
	if !remembers(spec) || v.steps == "" {
		return nil
	}
	data, err := state.Read(v.recordPath(spec.Label))
	rec := &record{}
	if err != nil || state.Unseal(data, rec) != nil {
		return nil // the step then runs
	}
	return rec
}

// Try decides whether a step has to run, or whether the result of an earlier execution
// can be reused because nothing that the step depends on has changed. A step that runs
// a nested pipeline always has to run; its steps are tried one by one. The error says
// that the sources cannot be read.
func (v *View) Try(spec *step.Spec, about About) (*Trial, error) {
	t := &Trial{about: about, spec: spec}
	if spec.Nested != nil {
		return t, nil
	}
	t.last = v.loadRecord(spec)
	var err error
	if t.finger, err = v.depends(spec, t.last); err != nil || about.Again {
		return t, err
	}
	if remembers(spec) {
		return t, v.upToDate(t)
	}
	if v.previous == nil {
		return t, nil
	}
	rec := v.previous.records[v.Prefix+spec.Label]
	if t.Why = v.resumes(t, rec); t.Why == "" {
		t.taken, t.Reused = rec, "run "+v.previous.ID
	}
	return t, nil
}

// upToDate completes the trial of a step with sources or generates.
func (v *View) upToDate(t *Trial) error {
	if v.steps == "" {
		return nil
	}
	why, made, err := v.stale(t)
	if err != nil {
		return err
	}
	if v.Force {
		why = "--force"
	}
	if why != "" {
		if t.last != nil {
			t.Why = why
			_ = removeFile(v.recordPath(t.spec.Label)) // until the step ends well, its results are in doubt
		}
		return nil
	}
	if p := v.previous; p != nil { // another run may have run the step since
		was := p.records[v.Prefix+t.spec.Label]
		t.RanSince = was == nil || was.Run != t.last.Run
	}
	if sureNow(t.last.Sources, t.finger.sources) || sureNow(t.last.Made, made) {
		rec := *t.last
		rec.Sources, rec.Made = t.finger.sources, made
		_ = v.store(t.spec.Label, &rec) // only to save reading the files; an error does not matter
	}
	t.taken, t.Reused = t.last, "up to date"
	return nil
}

// Stale returns why a step with sources would run, or else the id of the run that
// brought it up to date. Both are "" for a step without sources. It changes nothing.
func (v *View) Stale(spec *step.Spec, name string) (why, run string, err error) {
	if !remembers(spec) {
		return "", "", nil
	}
	t := &Trial{about: About{Name: name}, spec: spec, last: v.loadRecord(spec)}
	if t.finger, err = v.depends(spec, t.last); err != nil {
		return "", "", err
	}
	if why, _, err = v.stale(t); err != nil || why != "" {
		return why, "", err
	}
	return "", t.last.Run, nil
}

// stale returns why a step with sources must run, or "". made holds the files that the
// step generates, as far as they had to be examined.
func (v *View) stale(t *Trial) (why string, made []fileState, err error) {
	rec, f := t.last, t.finger
	if rec == nil {
		return "no earlier success is recorded", nil, nil
	}
	if f.unknown != "" {
		return f.unknown, nil, nil
	}
	if why = changes(rec.Parts, f.parts, rec.Sources, f.sources); why != "" {
		return why, nil, nil
	}
	if made, _, err = v.match(t.spec.Generates, f.dir, rec.Made); err != nil {
		return "", nil, err
	}
	if words := fileChanges(rec.Made, made); len(words) > 0 {
		return few(words), made, nil
	}
	return v.unread(t, rec), made, nil
}

// unread returns why rec lacks output that expressions read, or "".
func (v *View) unread(t *Trial, rec *record) string {
	if rec.Lost != "" && v.Readers[t.about.Name] {
		return rec.Lost
	}
	return ""
}

// resumes returns why a step of a resumed run must run again, or "". rec is the step's
// record in that run, or nil.
func (v *View) resumes(t *Trial, rec *record) string {
	f := t.finger
	switch {
	case rec == nil:
		return "it had not run"
	case rec.Status == statusKilled:
		return "it was running when the run was killed"
	case rec.Status == step.StatusFailure.String() && rec.Signal != "":
		return "it failed by " + rec.Signal
	case rec.Status == step.StatusFailure.String() && rec.Reason == step.ReasonExit:
		return fmt.Sprintf("it failed with exit code %d", rec.ExitCode)
	case rec.Status == step.StatusFailure.String():
		return fmt.Sprintf("it failed (%s)", rec.Reason)
	case rec.Status != step.StatusSuccess.String():
		return "it was " + rec.Status
	case f.unknown != "":
		return f.unknown
	case v.Force:
		return "--force"
	case t.spec.Service != nil:
		return "it is a service"
	case t.spec.Job != nil:
		return "it is a job, which goes on if it is running"
	case t.about.CleansUp:
		return "it cleans up, in every run"
	}
	if why := changes(rec.Parts, f.parts, nil, nil); why != "" {
		return why
	}
	if names := v.environChanges(f); len(names) > 0 {
		return "the environment changed: " + few(names)
	}
	if t.about.After != "" {
		return "it comes after " + t.about.After + ", which ran again"
	}
	return v.unread(t, rec)
}

// environChanges returns the names of the inherited variables that have changed since
// the resumed run, sorted. It returns nil if the step does not inherit the environment.
func (v *View) environChanges(f *fingerprint) []string {
	if !f.inherits {
		return nil
	}
	var names []string
	before := v.previous.header.Environ
	for name, sum := range before {
		if v.environ[name] != sum && !slices.Contains(f.own, name) {
			names = append(names, name)
		}
	}
	for name := range v.environ {
		if _, ok := before[name]; !ok && !slices.Contains(f.own, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Taken returns the result of the earlier execution that is reused, with its job, start
// and duration. Reused must not be "".
func (t *Trial) Taken() (res *step.Result, job string, start time.Time, took time.Duration) {
	rec := t.taken
	res = step.Ended(step.Facts{Inner: &step.End{Status: step.StatusSuccess, ExitCode: rec.ExitCode, Command: rec.Command}})
	for _, st := range rec.Stages {
		sig, _ := signame.Parse(st.Signal)
		res.Stages = append(res.Stages, step.StageResult{Exit: engine.Status{Code: st.Code, Signal: sig}})
	}
	if n := len(res.Stages); n > 0 {
		res.Stages[n-1].Stdout, res.Stages[n-1].Stderr = step.Recall(rec.Stdout), step.Recall(rec.Stderr)
	}
	return res, rec.Job, rec.Start, rec.Duration
}

// Entry describes for the journal how a step ended. Secrets must be masked in it, except
// in the output of Stages.
type Entry struct {
	step.End
	Label    string
	Stages   []step.StageResult
	Attempts int // the number of attempts before the last one
	Start    time.Time
	Duration time.Duration
	Reused   string // as Trial.Reused
	Job      string // the id of the job; "": none
}

// Started adds to the journal that a step starts. A later run thereby knows the steps
// that were running when the runner was killed. Flush returns the error, if any.
func (v *View) Started(label string) {
	if v.journal != nil {
		_ = v.journal.append(&journalLine{Begin: v.Prefix + label})
	}
}

// Ended adds to the journal how a step ended. t is nil for a step that was not tried.
// Flush returns the error, if any.
func (v *View) Ended(t *Trial, e *Entry) {
	if v.journal != nil {
		_ = v.journal.append(&journalLine{Step: v.newRecord(t, e)})
	}
}

// newRecord returns the record of a step; t may be nil.
func (v *View) newRecord(t *Trial, e *Entry) *record {
	rec := &record{
		Label: v.Prefix + e.Label, Status: e.Status.String(), Reason: e.Reason, ExitCode: e.ExitCode, Signal: e.Signal,
		Command: e.Command, Attempts: e.Attempts, Start: e.Start.Round(0), Duration: e.Duration, Reused: e.Reused, Job: e.Job,
	}
	if v.journal != nil {
		rec.Run = v.journal.id
	}
	if e.Err != nil {
		rec.Error = e.Err.Error()
	}
	if t == nil || e.Status != step.StatusSuccess {
		return rec
	}
	if f := t.finger; f != nil {
		rec.Parts, rec.Inherits, rec.Own = f.parts, f.inherits, f.own
	}
	for i := range e.Stages {
		st := e.Stages[i].Exit
		rec.Stages = append(rec.Stages, stageRecord{st.Code, signame.Name(st.Signal)})
	}
	switch {
	case t.taken != nil:
		rec.Run, rec.Stdout, rec.Stderr, rec.Lost = t.taken.Run, t.taken.Stdout, t.taken.Stderr, t.taken.Lost
	case v.Readers[t.about.Name]:
		rec.keep(e.Stages, v.Redactor)
	default:
		rec.Lost = "its output was not stored, and an expression now reads it"
	}
	return rec
}

// keep adds to rec the output that expressions may read, or why it cannot be stored.
func (rec *record) keep(stages []step.StageResult, redactor *safety.Redactor) {
	clean := func(from *step.Buffer) []byte {
		b, err := from.Bytes(pipeline.MaxStepOutput + 1)
		switch {
		case err != nil:
			rec.Lost = "its output could not be stored: " + err.Error()
		case len(b) > pipeline.MaxStepOutput:
			rec.Lost = "its output was too large to be stored"
		case redactor.String(string(b)) != string(b), redactor != nil && from.Cut(): // the cut end may be half a secret
			rec.Lost = "a secret is in its output, which is not stored"
		default:
			return b
		}
		return nil
	}
	if n := len(stages); n > 0 {
		rec.Stdout, rec.Stderr = clean(stages[n-1].Stdout), clean(stages[n-1].Stderr)
	}
	if rec.Lost != "" {
		rec.Stdout, rec.Stderr = nil, nil
	}
}

// Keep stores the record of a step with sources that succeeded; for other steps it does
// nothing. It returns a warning if the step will not be up to date the next time, or "".
func (v *View) Keep(t *Trial, e *Entry) string {
	if v.steps == "" || t.finger == nil || t.taken != nil || !remembers(t.spec) || e.Status != step.StatusSuccess {
		return ""
	}
	f := t.finger
	const each = ", so the step will run again each time"
	if len(f.missing) > 0 {
		return "sources: " + few(hints(f.missing, f.dir, "matches no file")) + each
	}
	if f.unknown != "" {
		return "" // the next run could not compare the step
	}
	made, missing, err := v.match(t.spec.Generates, f.dir, nil)
	if err != nil {
		return "generates: " + err.Error()
	}
	if len(missing) > 0 {
		return "generates: " + few(hints(missing, f.dir, "was not written")) + each
	}
	rec := v.newRecord(t, e)
	rec.Made, rec.Sources = made, f.sources
	for _, file := range slices.Concat(rec.Made, rec.Sources) {
		if v.Redactor.String(file.Path) != file.Path {
			return "a secret is in the name of a file, which is not stored" + each
		}
	}
	rec.Command = v.Redactor.String(rec.Command)
	if err := v.store(e.Label, rec); err != nil {
		warning := ""
		v.warned.Do(func() {
			warning = fmt.Sprintf("cannot remember that the step is up to date: %v", osfile.Cause(err))
		})
		return warning
	}
	return ""
}

// hints returns a phrase for each pattern: the pattern and what, or that it is a folder.
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

func (v *View) store(label string, rec *record) error {
	data, err := state.Seal(rec)
	if err == nil {
		err = state.Replace(v.recordPath(label), data)
	}
	return err
}
