// Package pipeline is the language of pipe. It reads a pipeline from YAML, or
// lets a Go program build the same one:
//
//	p, err := pipeline.Parse("build.yaml", src)
//
//	p := &pipeline.Pipeline{Steps: []*pipeline.Step{
//		pipeline.ExecFileStep("list", "ls", "-l"),
//		pipeline.ExecStep("count", `echo "${{ steps.list.stdout }}" | wc -l`),
//	}}
//	err := p.Check()
//
// [Parse] and [Pipeline.Check] report every static error at once, as [Errors],
// by the same rules; an error of a file has its line and column. Package runner
// runs the result. This package starts no process and no goroutine, and does not
// read the clock.
package pipeline

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/safety"
)

// Pos is a place in a pipeline file. The zero value is that of things that were
// built in Go.
type Pos struct {
	Line int // 1 is the first line
	Col  int // in characters; 1 is the first one
}

// IsValid reports whether p is a place in a file.
func (p Pos) IsValid() bool { return p.Line > 0 }

// Mode says how the steps of a pipeline follow one another.
type Mode uint8

const (
	ModeSync  Mode = iota // one step after another, in file order
	ModeAsync             // a step starts as soon as all that it needs has ended
)

// String returns the mode as it is written in a file.
func (m Mode) String() string {
	if m == ModeAsync {
		return "async"
	}
	return "sync"
}

// Pipeline is a set of steps. The zero value has none, which [Pipeline.Check]
// refuses. Several goroutines may check and run one at once, as long as nobody
// changes it meanwhile. A Step, Stage or Expr belongs to one Pipeline only.
type Pipeline struct {
	File        string // path as given; "" for a pipeline built in Go
	Dir         string // folder of File; "" for a pipeline built in Go
	Name        string
	Description string
	Params      []*Param
	// Secrets are names of variables of the runner. A step gets one only if its
	// env or extendEnv names it. The runner masks their values in all that
	// passes through it.
	Secrets []string
	Mode    Mode
	// MaxParallel bounds the processes that run at once in async mode.
	// nil: as many as the machine has CPUs; 0: no limit.
	MaxParallel *int
	// Timeout ends the whole run. 0: none.
	Timeout time.Duration
	// CleanupTimeout bounds what runs after a failure, a timeout or an
	// interrupt. nil: 30 s; 0: no limit.
	CleanupTimeout *time.Duration
	Lock           *Lock // held during the whole run; nil: none
	Outputs        []*Output
	Scope          *Scope // the level below every step; nil: nothing set
	Steps          []*Step

	checking sync.Mutex     // held by Check, which fills in the next three
	checked  uint64         // digest of what was checked
	index    map[string]int // step name to place in Steps
	graph    *Graph         // nil: not checked yet, or not valid
	lines    [][]byte       // the source, for carets; nil without a file
}

// Param is one declared parameter.
type Param struct {
	Pos     Pos
	Name    string
	Type    ParamType
	Default any // a value of the type of Type, or nil: it must be given
	Enum    []string
	Pattern string // regular expression (RE2) that the whole value must match; "": any
	Help    string

	match func(string) bool
}

// ParamType is the type of a parameter.
type ParamType uint8

// The types of parameters and the Go types of their values.
const (
	ParamString ParamType = iota // string
	ParamInt                     // int
	ParamNumber                  // float64
	ParamBool                    // bool
	ParamPath                    // string
	ParamList                    // []string
)

var paramTypes = []string{"string", "int", "number", "bool", "path", "list"}

// String returns the type as it is written in a file.
func (t ParamType) String() string { return paramTypes[t] }

// Output is a named expression over the steps, evaluated when the run ended.
type Output struct {
	Pos  Pos
	Name string
	Expr *Expr
}

// Scope has the settings that each level (pipeline, step, stage) may have. A
// field that is not set is taken from the level outside. The zero value sets
// nothing.
type Scope struct {
	Cwd Template // relative to the outer level's; the zero Template: not set
	// Env are the variables of this level. Env that is not nil, even if empty,
	// replaces the inherited environment; see ExtendEnv.
	Env       []EnvVar
	EnvFile   []Template // files of NAME=VALUE lines, relative to the step's cwd
	ExtendEnv *ExtendEnv // nil: not set at this level
	Unset     []string   // variables that are removed
	Shell     string     // ShellBuiltin, or a path or name of a shell; "": not set
	Set       []string   // shell options; nil: not set

	ShellPos, SetPos Pos

	UID, GID   *uint32
	KillSignal syscall.Signal // 0: not set (SIGTERM)
	KillAfter  *time.Duration // nil: not set (5 s); 0: never
	Drain      *time.Duration // nil: not set (1 s); 0: none
	SigpipeErr *bool          // sigpipe: fail; nil: not set (ok)
}

// ShellBuiltin is the Shell of a step that the embedded interpreter runs.
const ShellBuiltin = "builtin"

// EnvVar is one variable of a level.
type EnvVar struct {
	Pos   Pos
	Name  string
	Value Template
}

// ExtendEnv says which of the runner's variables lie below the levels.
type ExtendEnv struct {
	All   bool
	Names []string // names and globs, where All is false
}

// Step is one unit of scheduling: a program, shell text, or a pipe of them.
type Step struct {
	Pos    Pos
	Name   string // "": shown as its place and program
	Help   string
	Stages []*Stage // one, or several that are joined stdout to stdin; none with Run
	Run    *Include // another pipeline; nil: none
	Scope  *Scope   // of a pipe: the level between pipeline and stages; else nil

	Needs           []Ref
	Sync            bool // in async mode: every later step needs this one
	If              *Expr
	ContinueOnError bool
	Timeout         time.Duration // 0: none
	IdleTimeout     time.Duration // since the last byte of output; 0: none
	Lock            *Lock         // held by each execution; nil: none
	Retry           *Retry        // nil: one attempt
	Matrix          *Matrix       // nil: none; the step runs for each combination
	ForEach         *Expr         // nil: none; the step runs for each element of a list
	Detached        bool          // its own session; the runner never ends it
	Unref           bool          // of a detached step: the pipeline does not wait for it
	Restart         *Restart      // of a detached step; nil: never
	Background      bool          // a service: others go on when it is ready, and it ends with the pipeline
	Ready           *Ready        // of a service; nil: as soon as it has started
	// Sources and Generates are globs, relative to the step's cwd, of the files
	// that it reads and writes; nil: none. A step that has either does not run
	// again if it ended well before and nothing about it has changed since.
	Sources, Generates []Glob
	// MaxParallel bounds the instances of a step that expands that run at once.
	// 0: no limit; nil: 1 in sync mode, no limit of its own in async mode.
	MaxParallel *int
}

// Glob is a pattern of files, with *, ?, [a-z], {a,b}, and ** for any number of
// folders.
type Glob struct {
	Pos     Pos
	Pattern Template // the values in it stand for themselves
	Not     bool     // written as !PATTERN: the patterns before it do not mean these files
}

// Lock is a name that only one run, or step, of the user on this machine holds at
// a time.
type Lock struct {
	Name Template       // letters, digits, _, - and .
	Wait *time.Duration // nil: as long as it takes; 0: not at all
}

// Retry says how often, and when, a step that failed is run again.
type Retry struct {
	Attempts    int           // the first one counts; at least 1
	Delay       time.Duration // before the second attempt; 0: none
	Exponential bool          // the delay doubles each time, and is jittered
	MaxDelay    time.Duration // no delay is longer; 0: 5 min
	// On has the failures that are tried again; nil: every one.
	On *RetryOn
}

// RetryOn names failures.
type RetryOn struct {
	Codes   []int // exit codes
	Signals []syscall.Signal
	Timeout bool // timeout and idleTimeout
}

// MaxAttempts is how many attempts a step may have.
const MaxAttempts = 1000

// DelayAfter returns the time between attempt n, counted from 1, and the next
// one, without jitter.
func (r *Retry) DelayAfter(n int) time.Duration {
	limit := r.MaxDelay
	if limit == 0 {
		limit = 5 * time.Minute
	}
	d := r.Delay
	for ; r.Exponential && n > 1 && d < limit; n-- {
		d *= 2
	}
	return min(d, max(limit, 0))
}

// Ref is the name of a step somewhere in a file.
type Ref struct {
	Pos  Pos
	Name string
}

// Action says how a stage starts its program.
type Action uint8

const (
	ActionSpawn    Action = iota // no shell, output streams
	ActionExec                   // shell text, output is buffered
	ActionExecFile               // no shell, output is buffered
	ActionTee                    // no program: the stream goes to each branch and on
)

var actionNames = []string{"spawn", "exec", "execFile", "tee"}

// String returns the action's key in a file.
func (a Action) String() string { return actionNames[a] }

// Stage is one process of a step, or a tee. It has Args, or Text, or, as a tee,
// Tee.
type Stage struct {
	Pos    Pos
	Action Action
	Args   []Template // program and arguments; nil where Text is used
	Text   string     // shell text of Exec, and of Spawn with a shell; it may hold ${{ }}
	Tee    []Branch

	Scope *Scope // nil: nothing set

	Argv0        Template
	Stdin        Stdio
	Stdout       Stdio
	Stderr       Stdio
	Extra        []Stdio  // descriptors 3, 4, …
	Input        Template // given on stdin; the zero Template: none
	SuccessCodes []int    // nil: 0 only
	MaxBuffer    *int64   // bytes; nil: 1 MiB
	OnOverflow   Overflow

	script Template          // Text as a template; filled by Check
	origin *origin           // of Text
	shell  *safety.ShellText // Text parsed; filled by Check
}

// Branch is one of the readers of a tee besides the next stage: a chain of
// stages, or a file.
type Branch struct {
	Pos   Pos
	Chain []*Stage
	File  *Stdio
}

// Overflow says what happens to buffered output past MaxBuffer.
type Overflow uint8

const (
	OverflowSpill    Overflow = iota // goes on in a private temporary file
	OverflowKill                     // the child is ended, what was read is kept
	OverflowTruncate                 // the head is kept, the rest is read and dropped
)

var overflowNames = []string{"spill", "kill", "truncate"}

// String returns the policy as it is written in a file.
func (o Overflow) String() string { return overflowNames[o] }

// StdioKind says what a descriptor of a child is.
type StdioKind uint8

const (
	StdioDefault StdioKind = iota // stdin: ignore; stdout and stderr: pipe; beyond: not open
	StdioPipe                     // through the runner
	StdioInherit                  // the runner's own
	StdioIgnore                   // the null device
	StdioFile                     // a file
	StdioFD                       // the runner's descriptor FD
	StdioStdout                   // for stderr: where stdout goes
)

// Stdio is one descriptor of a child. The zero value is the default.
type Stdio struct {
	Pos    Pos
	Kind   StdioKind
	File   Template
	Append bool
	FD     int
}

// IsPipe reports whether the step joins several stages.
func (s *Step) IsPipe() bool { return len(s.Stages) > 1 }

// Buffered reports whether the output of the stage is kept for expressions.
func (s *Stage) Buffered() bool { return s.Action == ActionExec || s.Action == ActionExecFile }

// UsesShell reports whether the stage is shell text.
func (s *Stage) UsesShell() bool { return s.Action != ActionTee && s.Args == nil }

// descriptors returns what the descriptors of the stage are, from 0.
func (s *Stage) descriptors() []Stdio {
	return append([]Stdio{s.Stdin, s.Stdout, s.Stderr}, s.Extra...)
}

// Success reports whether the exit code counts as success.
func (s *Stage) Success(code int) bool {
	if s.SuccessCodes == nil {
		return code == 0
	}
	return slices.Contains(s.SuccessCodes, code)
}

// Step returns the step of that name and its place in Steps, or nil and -1.
func (p *Pipeline) Step(name string) (*Step, int) {
	if i, ok := p.index[name]; ok {
		return p.Steps[i], i
	}
	return nil, -1
}

// Files returns the paths of the file and of all that it runs.
func (p *Pipeline) Files() []string {
	out := []string{p.File}
	for _, s := range p.Steps {
		if s.Run != nil {
			out = append(out, s.Run.Pipeline.Files()...)
		}
	}
	return out
}

// Label returns the name of Steps[i] for people. A step without a name is called
// by its number, counted from 1, and its program, as in "#3 find".
func (p *Pipeline) Label(i int) string {
	s := p.Steps[i]
	if s.Name != "" {
		return s.Name
	}
	return fmt.Sprintf("#%d %s", i+1, s.program())
}

// program names what the step runs, in one word.
func (s *Step) program() string {
	if s.Run != nil {
		return "run"
	}
	if len(s.Stages) == 0 {
		return "?"
	}
	st := s.Stages[0]
	if len(st.Args) > 0 {
		return base(st.Args[0].String())
	}
	return st.Action.String()
}

func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' && i+1 < len(path) {
			return path[i+1:]
		}
	}
	return path
}

// Parallelism returns the bound on processes at once for a machine with
// that many CPUs; 0 is no limit.
func (p *Pipeline) Parallelism(cpus int) int {
	if p.MaxParallel == nil {
		return cpus
	}
	return *p.MaxParallel
}

// CleanupLimit returns CleanupTimeout or its default; 0 is no limit.
func (p *Pipeline) CleanupLimit() time.Duration {
	if p.CleanupTimeout == nil {
		return 30 * time.Second
	}
	return *p.CleanupTimeout
}

// BufferLimit returns MaxBuffer in bytes, or its default.
func (s *Stage) BufferLimit() int64 {
	if s.MaxBuffer == nil {
		return 1 << 20
	}
	return *s.MaxBuffer
}
