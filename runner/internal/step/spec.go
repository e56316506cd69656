// Package step runs one step whose values are known.
//
// A [Spec] is the step as plain data: binding makes it, and a run, a keeper of a
// job, a probe, explain, a dry run and a fingerprint read the same one. [Run]
// joins the streams of its stages, starts them on an engine, waits for their
// end or brings it about, and returns how the step ended, which [Judge] decides.
package step

import (
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/safety"
)

// Spec is a step with all its values: plain data, which JSON can carry, all that
// is needed to run the step and nothing of the language. Its values may hold
// secrets. It is not changed once it has been made, and may then be used by
// several goroutines at once.
type Spec struct {
	Label  string  // of the step, or of the instance of one that expands
	Stages []Stage `json:",omitempty"` // at least one, but where Nested is set
	Nested *Nested `json:",omitempty"` // the step runs another pipeline; nil: it does not

	Timeout     time.Duration `json:",omitempty"` // 0: none
	IdleTimeout time.Duration `json:",omitempty"` // since the last byte of output; 0: none
	// Held says that other steps may run beside this one: buffered output is
	// delivered whole, when the step has ended, and not as it comes.
	Held    bool     `json:",omitempty"`
	Service *Service `json:",omitempty"` // others lean on the step; nil: none do
	Job     *Job     `json:",omitempty"` // the step outlives the runner; nil: it does not

	// Sources and Generates are the patterns of the files that the step reads
	// and writes; nil: none.
	Sources, Generates []Glob `json:",omitempty"`
}

// Stage is one process of a step, a text for the embedded shell, or a tee.
type Stage struct {
	Tee []Branch `json:",omitempty"` // the stage is a tee; nil: it is none

	// Shell is [BuiltinShell], or the shell that Program is; "": the stage is a
	// program without a shell.
	Shell string `json:",omitempty"`
	// Text is what the embedded shell runs or, with Script, what is handed to
	// the shell in a file on the descriptor after those of Stdio.
	Text   string       `json:",omitempty"`
	Vars   []safety.Var `json:",omitempty"` // that Text of the embedded shell reads, and no child gets
	Script bool         `json:",omitempty"`
	Set    []string     `json:",omitempty"` // options of the embedded shell
	// Written is the shell text as it stands in the file.
	Written string `json:",omitempty"`

	Program string   `json:",omitempty"` // its name or path
	Args    []string `json:",omitempty"` // with the program's own name first
	Path    string   `json:",omitempty"` // PATH in which programs are looked up
	Dir     string   // absolute
	Env     []string // exactly these
	Stdio   []Stdio  // by descriptor, at least three
	Input   string   `json:",omitempty"` // of a stdin of kind StdioInput

	UID, GID     *uint32        `json:",omitempty"` // nil: the runner's
	KillSignal   syscall.Signal // what the step is ended with
	KillAfter    time.Duration  // from KillSignal to SIGKILL; 0: never
	Drain        time.Duration  // how long a stranger may hold a stream open after the end
	SigpipeFails bool           `json:",omitempty"` // SIGPIPE of a stage whose reader had enough is a failure
	SuccessCodes []int          `json:",omitempty"` // exit codes that count as success; nil: 0
	Keep         *Keep          `json:",omitempty"` // output is kept; nil: it is not

	Command string // for people: quoted for a shell, secrets masked

	// Where the variables of Env come from.
	Inherits bool                       `json:",omitempty"` // all of the runner's are below
	Declared []string                   `json:",omitempty"` // names that the file sets
	Unset    []string                   `json:",omitempty"` // names that the file removes
	Origins  map[string][]safety.Origin `json:",omitempty"` // by name; nil unless asked for
}

// BuiltinShell is the Shell of a text that the embedded shell runs.
const BuiltinShell = "builtin"

// Branch is where a tee sends its stream besides the next stage: to a chain of
// stages, or to a file.
type Branch struct {
	Chain  []Stage `json:",omitempty"`
	File   string  `json:",omitempty"` // absolute; "": Chain
	Append bool    `json:",omitempty"`
}

// Keep says how output is buffered.
type Keep struct {
	Max      int64    // bytes in memory
	Overflow Overflow // what happens past Max
}

// Overflow says what happens to buffered output that exceeds its limit.
type Overflow string

// What may happen.
const (
	OverflowSpill    Overflow = "spill"    // it goes on in a private file
	OverflowKill     Overflow = "kill"     // the step is ended, what was read is kept
	OverflowTruncate Overflow = "truncate" // the head is kept, the rest is dropped
)

// Stdio is one descriptor of a stage.
type Stdio struct {
	Kind   StdioKind
	Path   string `json:",omitempty"` // of a file, absolute
	Append bool   `json:",omitempty"`
	FD     int    `json:",omitempty"` // the runner's descriptor
}

// StdioKind says what a descriptor is.
type StdioKind string

// The kinds of descriptors. A stdin that reads the stage before, and a stdout
// that the stage behind reads, have the kind of the default.
const (
	StdioClosed  StdioKind = ""        // not open
	StdioPipe    StdioKind = "pipe"    // through the runner
	StdioInherit StdioKind = "inherit" // the runner's own
	StdioIgnore  StdioKind = "ignore"  // the null device
	StdioFile    StdioKind = "file"
	StdioFD      StdioKind = "fd"     // the runner's descriptor FD
	StdioStdout  StdioKind = "stdout" // of stderr: where stdout goes
	StdioInput   StdioKind = "input"  // of stdin: the text Input
)

// Nested is a step that runs another pipeline.
type Nested struct {
	File string   // of the pipeline, absolute; "": it has none
	Path string   // as written
	With []Param  `json:",omitempty"` // in the order of the file
	Dir  string   // the caller's, absolute
	Env  []string // what the pipeline takes for the runner's environment
	// Where the variables of Env come from, as in [Stage].
	Inherits bool                       `json:",omitempty"`
	Declared []string                   `json:",omitempty"`
	Unset    []string                   `json:",omitempty"`
	Origins  map[string][]safety.Origin `json:",omitempty"`
}

// Param is a parameter that is given to a pipeline.
type Param struct {
	Name   string
	Values []string // several for a list
}

// Service is a step that others lean on.
type Service struct {
	Ready *Ready // how it is known that it can be used; nil: it can as soon as it has started
}

// Ready says how it is known that a service can be used. One of the probes is
// set.
type Ready struct {
	TCP     string        `json:",omitempty"` // host:port that accepts a connection
	HTTP    string        `json:",omitempty"` // http://… that answers with a status below 400
	Log     string        `json:",omitempty"` // regular expression (RE2) that matches a line of output
	Exec    *Stage        `json:",omitempty"` // ends with exit code 0
	Notify  bool          `json:",omitempty"` // the service says READY=1, as sd_notify(3)
	Timeout time.Duration // 0: no limit
}

// Job is what a step that outlives the runner needs besides.
type Job struct {
	Unref  bool                // the pipeline does not wait for it
	File   string              // of the pipeline, absolute; "": it has none
	Dir    string              // the caller's
	Params map[string][]string // of the pipeline
	Args   []string
	Nested bool     // a pipeline that another one runs has the step
	Hidden []string // secrets, which become *** in its log
	Restart
}

// Restart says when a job that ended is started again.
type Restart struct {
	Policy RestartPolicy
	Delay  time.Duration // before the first restart
	Fixed  bool          // the delay does not grow; else it doubles, up to a minute, and is jittered
	Most   int           // restarts in Window; 0: no limit
	Window time.Duration // 0: since the start
}

// RestartPolicy says after which ends a job is started again.
type RestartPolicy string

// The policies.
const (
	RestartNever     RestartPolicy = "never"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartAlways    RestartPolicy = "always"
)

// Glob is a pattern of files, relative to the folder of the first stage unless
// it is absolute. One that is Not takes files away from those before it.
type Glob struct {
	Pattern string
	Not     bool `json:",omitempty"`
}

// Each calls f for each stage that is no tee, in the order of the file: those in
// branches of a tee stand where the tee does.
func (s *Spec) Each(f func(*Stage)) { each(s.Stages, f) }

func each(stages []Stage, f func(*Stage)) {
	for i := range stages {
		st := &stages[i]
		if st.Tee == nil {
			f(st)
		}
		for j := range st.Tee {
			each(st.Tee[j].Chain, f)
		}
	}
}

// Files calls f for each file that a descriptor or a branch of a tee is, and
// says whether it is read rather than written.
func (s *Spec) Files(f func(path string, reads bool)) { files(s.Stages, f) }

func files(stages []Stage, f func(path string, reads bool)) {
	for i := range stages {
		for fd, io := range stages[i].Stdio {
			if io.Kind == StdioFile {
				f(io.Path, fd == 0)
			}
		}
		for _, b := range stages[i].Tee {
			if b.File != "" {
				f(b.File, false)
			}
			files(b.Chain, f)
		}
	}
}

// Processes returns how many processes, or texts of the embedded shell, the step
// has.
func (s *Spec) Processes() int {
	n := 0
	s.Each(func(*Stage) { n++ })
	return n
}

// Grace returns the time from the killSignal to SIGKILL: the longest of the
// stages; 0 is never.
func (s *Spec) Grace() time.Duration {
	var longest time.Duration
	never := false
	s.Each(func(st *Stage) {
		never = never || st.KillAfter == 0
		longest = max(longest, st.KillAfter)
	})
	if never {
		return 0
	}
	return longest
}

// Command returns what the step runs, for people.
func (s *Spec) Command() string {
	if s.Nested != nil {
		return "pipe run " + s.Nested.Path
	}
	return s.line(false)
}

// line joins the commands of the stages, with those in branches or without.
func (s *Spec) line(branches bool) string {
	out := ""
	var add func(stages []Stage)
	add = func(stages []Stage) {
		for i := range stages {
			st := &stages[i]
			if st.Tee != nil {
				for j := range st.Tee {
					if branches {
						add(st.Tee[j].Chain)
					}
				}
				continue
			}
			if out != "" {
				out += " | "
			}
			out += st.Command
		}
	}
	add(s.Stages)
	return out
}

// UsesShell reports whether the stage is shell text.
func (s *Stage) UsesShell() bool { return s.Shell != "" }

// succeeded reports whether an exit code counts as success.
func (s *Stage) succeeded(code int) bool {
	if s.SuccessCodes == nil {
		return code == 0
	}
	for _, c := range s.SuccessCodes {
		if c == code {
			return true
		}
	}
	return false
}
