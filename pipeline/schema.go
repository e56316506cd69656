package pipeline

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// place is where a key may stand: a mapping of a file.
type place uint16

const (
	atFile  place = 1 << iota // top level
	atStep                    // a step that is one program
	atPipe                    // a step that is a pipe
	atStage                   // a stage of a pipe
	atTee                     // a tee
	atRun                     // a step that runs another pipeline
	atParam
	atLock
	atMatrix
	atRestart
	atReady
	atRetry
	atDescriptor // of stdin, stdout, stderr and stdio
	atBranch     // of a tee, that is a file
)

const (
	atSteps   = atStep | atPipe
	atAnyStep = atSteps | atRun
	atProgram = atStep | atStage
	atLevel   = atFile | atSteps | atStage
)

var placeNames = []struct {
	at   place
	name string
}{
	{atFile, "a pipeline"}, {atStep, "a step"}, {atPipe, "a pipe step"}, {atStage, "a stage"}, {atTee, "a tee"}, {atRun, "a step with run"},
	{atParam, "a parameter"}, {atLock, "lock"}, {atMatrix, "matrix"}, {atRestart, "restart"}, {atReady, "ready"}, {atRetry, "retry"},
	{atDescriptor, "a descriptor"}, {atBranch, "a branch of a tee"},
}

// key is one row of the schema. A name may have several rows, for different
// places.
type key struct {
	name string
	at   place
	help string
	read func(*parser, *target, *yaml.Node) // nil: this version does not have it
}

// target is what the keys of one mapping are read into: those fields are set
// that its place needs.
type target struct {
	file    *Pipeline
	step    *Step
	stage   *Stage
	scope   **Scope
	param   *Param
	initial *yaml.Node // default of param, which is read when its type is known
	lock    *Lock
	matrix  *Matrix
	restart *Restart
	ready   *Ready
	retry   *Retry
	stdio   *Stdio
}

// level returns the settings of the mapping, made on first use.
func (t *target) level() *Scope {
	if *t.scope == nil {
		*t.scope = &Scope{}
	}
	return *t.scope
}

// schema is the table of all keys: files are read by it, and suggestions and the
// reference are made from it.
var schema []key

func init() { // not a literal: the readers refer to the table again
	schema = []key{
		{"name", atFile | atAnyStep, "what people and expressions call it", (*parser).readName},
		{"description", atFile, "what the pipeline is for", func(p *parser, t *target, n *yaml.Node) { t.file.Description = p.text(n) }},
		{"params", atFile, "values that the caller gives, each a NAME with keys of its own", (*parser).readParams},
		{"secrets", atFile, "names of the runner's variables that are masked, and reach only steps that name them; one that is not set is empty", func(p *parser, t *target, n *yaml.Node) { t.file.Secrets = p.names(n) }},
		{"mode", atFile, "sync (default): one step after another; async: each as soon as all that it needs has ended", (*parser).readMode},
		{"maxParallel", atFile | atAnyStep, "processes at once in async mode (default: one for each CPU), or instances at once of a step that expands (default: 1 in sync mode); 0: no limit", (*parser).readMaxParallel},
		{"timeout", atFile | atAnyStep, "a duration such as 90s, after which the tree is ended; of a step it is for each attempt and each instance", (*parser).readTimeout},
		{"cleanupTimeout", atFile, "how long steps with always() or failure() may take after a failure, a timeout or Ctrl-C; 30s", func(p *parser, t *target, n *yaml.Node) { t.file.CleanupTimeout = p.durationPtr(n) }},
		{"outputs", atFile, "named expressions over the steps", (*parser).readOutputs},
		{"steps", atFile, "the list of steps", (*parser).readSteps},

		{"help", atAnyStep, "what the step does", func(p *parser, t *target, n *yaml.Node) { t.step.Help = p.text(n) }},
		{"needs", atAnyStep, "steps that must have ended well before", (*parser).readNeeds},
		{"sync", atAnyStep, "in async mode: every later step needs this one", func(p *parser, t *target, n *yaml.Node) { t.step.Sync = p.boolean(n) }},
		{"if", atAnyStep, "an expression that decides whether the step runs, when all that it needs has ended; without success(), failure(), always() or cancelled() it runs only if that ended well", func(p *parser, t *target, n *yaml.Node) { t.step.If = p.expression(n) }},
		{"continueOnError", atAnyStep, "a failure of the step fails nothing else", func(p *parser, t *target, n *yaml.Node) { t.step.ContinueOnError = p.boolean(n) }},
		{"idleTimeout", atSteps, "a duration without output, after which the tree is ended", func(p *parser, t *target, n *yaml.Node) { t.step.IdleTimeout = p.duration(n) }},

		{"lock", atFile | atAnyStep, "a name, or {name, wait: duration}: one at a time for the user on this machine; wait: 0 fails at once", (*parser).readLock},
		{"matrix", atAnyStep, "{axis: [values], exclude: [{…}], include: [{…}]}: run once for each combination, which is matrix.AXIS", (*parser).readMatrix},
		{"forEach", atAnyStep, "an expression with a list: run once for each element, which is item", func(p *parser, t *target, n *yaml.Node) { t.step.ForEach = p.expression(n) }},
		{"detached", atSteps, "a session of its own, which the runner never ends: a job, for pipe jobs, logs, wait and stop", func(p *parser, t *target, n *yaml.Node) { t.step.Detached = p.boolean(n) }},
		{"unref", atSteps, "of a detached step: the pipeline does not wait for it", func(p *parser, t *target, n *yaml.Node) { t.step.Unref = p.boolean(n) }},
		{"restart", atSteps, "of a job: never, on-failure, always, or {policy, delay, backoff: fixed or exponential, maxRestarts, window}", (*parser).readRestart},
		{"background", atSteps, "a service: the pipeline goes on when it is ready, and ends it at its end", func(p *parser, t *target, n *yaml.Node) { t.step.Background = p.boolean(n) }},
		{"ready", atSteps, "of a service: one of {tcp: host:port}, {http: url}, {log: regex}, {exec: shell text or [program, …]}, {notify: true}, and timeout (30s)", (*parser).readReady},
		{"sources", atSteps, "globs of the files it reads (** is any folders, !PATTERN takes away): it does not run where their content, its command and what it generates are unchanged", func(p *parser, t *target, n *yaml.Node) { t.step.Sources = p.globs(n) }},
		{"generates", atSteps, "globs of the files it writes: it runs where one is gone or has changed", func(p *parser, t *target, n *yaml.Node) { t.step.Generates = p.globs(n) }},
		{"retry", atAnyStep, "{attempts, delay, backoff: fixed or exponential, maxDelay, on: [codes, signals, timeout]}: run it again after a failure", (*parser).readRetry},

		{"spawn", atProgram, "program and arguments, without a shell; output is shown as it comes, and not kept", (*parser).readSpawn},
		{"exec", atProgram, "shell text; output is kept for expressions, and in async mode shown when the step has ended", (*parser).readExec},
		{"execFile", atProgram, "program and arguments; output is kept for expressions, and in async mode shown when the step has ended", (*parser).readExecFile},
		{"run", atRun, "another pipeline, by its path from this file's folder; it runs in the step's cwd and environment", (*parser).readRun},
		{"with", atRun, "parameters of the pipeline that is run", (*parser).readWith},
		{"pipe", atPipe, "stages joined stdout to stdin", (*parser).readPipe},
		{"tee", atTee, "branches that each get the whole stream", (*parser).readTee},

		{"cwd", atLevel | atRun, "working directory, relative to the outer level's, which for the file is the caller's", func(p *parser, t *target, n *yaml.Node) { t.level().Cwd = p.template(n) }},
		{"env", atLevel | atRun, "variables; replaces the inherited environment", (*parser).readEnv},
		{"envFile", atLevel | atRun, "files of NAME=VALUE lines", (*parser).readEnvFile},
		{"extendEnv", atLevel | atRun, "true, or names and globs: the runner's variables to inherit", (*parser).readExtendEnv},
		{"unset", atLevel | atRun, "variables to remove", func(p *parser, t *target, n *yaml.Node) { t.level().Unset = p.names(n) }},
		{"shell", atLevel, "of exec: builtin (default: the embedded shell, the same everywhere), true (/bin/sh), or a shell's path or name", (*parser).readShell},
		{"set", atLevel, "shell options of exec, in place of the default [errexit, pipefail]; so [errexit, pipefail, nounset] adds one", (*parser).readSet},
		{"uid", atSteps | atStage, "numeric user id", func(p *parser, t *target, n *yaml.Node) { t.level().UID = p.id(n) }},
		{"gid", atSteps | atStage, "numeric group id", func(p *parser, t *target, n *yaml.Node) { t.level().GID = p.id(n) }},
		{"killSignal", atSteps | atStage, "signal that ends the tree; SIGTERM", func(p *parser, t *target, n *yaml.Node) { t.level().KillSignal = p.signal(n) }},
		{"killAfter", atSteps | atStage, "time from killSignal to SIGKILL; 5s", func(p *parser, t *target, n *yaml.Node) { t.level().KillAfter = p.durationPtr(n) }},
		{"drain", atSteps | atStage, "how long a grandchild may hold a stream open after its last byte; 1s", func(p *parser, t *target, n *yaml.Node) { t.level().Drain = p.durationPtr(n) }},
		{"sigpipe", atSteps | atStage, "ok or fail: what an upstream SIGPIPE counts as", (*parser).readSigpipe},

		{"stdio", atProgram, "inherit, pipe, ignore, or a list by descriptor", (*parser).readStdio},
		{"stdin", atProgram | atPipe, "ignore (default), inherit, {file: path} or {fd: N}", func(p *parser, t *target, n *yaml.Node) { t.stage.Stdin = p.stdio(n, 0) }},
		{"stdout", atProgram | atPipe, "pipe (default: through the runner), inherit, ignore, {file: path, append: true} or {fd: N}", func(p *parser, t *target, n *yaml.Node) { t.stage.Stdout = p.stdio(n, 1) }},
		{"stderr", atProgram | atPipe, "pipe (default), inherit, ignore, stdout, {file: path, append: true} or {fd: N}", func(p *parser, t *target, n *yaml.Node) { t.stage.Stderr = p.stdio(n, 2) }},
		{"input", atProgram | atPipe, "text given on stdin", func(p *parser, t *target, n *yaml.Node) { t.stage.Input = p.template(n) }},
		{"argv0", atProgram, "what the program sees as its own name", func(p *parser, t *target, n *yaml.Node) { t.stage.Argv0 = p.template(n) }},
		{"successCodes", atProgram, "exit codes that count as success; [0]", (*parser).readSuccessCodes},
		{"maxBuffer", atProgram, "bytes of buffered output held in memory; 1MiB", (*parser).readMaxBuffer},
		{"onOverflow", atProgram, "spill, kill or truncate", (*parser).readOnOverflow},

		{"type", atParam, "string (default), int, number, bool, path or list", func(p *parser, t *target, n *yaml.Node) { t.param.Type = oneOf[ParamType](p, n, paramTypes) }},
		{"default", atParam, "the value where none is given; without it, one must be given", func(p *parser, t *target, n *yaml.Node) { t.initial = n }},
		{"enum", atParam, "the values that are allowed", func(p *parser, t *target, n *yaml.Node) { t.param.Enum = p.names(n) }},
		{"pattern", atParam, "a regular expression (RE2) that the whole value matches", func(p *parser, t *target, n *yaml.Node) { t.param.Pattern = p.text(n) }},
		{"help", atParam, "what the parameter is for", func(p *parser, t *target, n *yaml.Node) { t.param.Help = p.text(n) }},

		{"name", atLock, "what is locked: letters, digits, _, - and .", func(p *parser, t *target, n *yaml.Node) { t.lock.Name = p.template(n) }},
		{"wait", atLock, "how long to wait for it; 0 fails at once (default: as long as it takes)", func(p *parser, t *target, n *yaml.Node) { t.lock.Wait = p.durationPtr(n) }},

		{"exclude", atMatrix, "combinations to leave out", func(p *parser, t *target, n *yaml.Node) { t.matrix.Exclude = p.combinations(n) }},
		{"include", atMatrix, "combinations to add, or values to add to those that agree", func(p *parser, t *target, n *yaml.Node) { t.matrix.Include = p.combinations(n) }},

		{"policy", atRestart, "never, on-failure (default in a mapping) or always", (*parser).readPolicy},
		{"delay", atRestart, "time before the first restart; 1s", func(p *parser, t *target, n *yaml.Node) { t.restart.Delay = p.durationPtr(n) }},
		{"backoff", atRestart, "exponential (default: the delay doubles, up to a minute) or fixed", func(p *parser, t *target, n *yaml.Node) { t.restart.Fixed = !p.exponential(n) }},
		{"maxRestarts", atRestart, "restarts within window, after which the job has failed; 10; 0: no limit", (*parser).readMaxRestarts},
		{"window", atRestart, "the time that maxRestarts counts in; 10m; 0: since the start", func(p *parser, t *target, n *yaml.Node) { t.restart.Window = p.durationPtr(n) }},

		{"tcp", atReady, "host:port that accepts a connection", func(p *parser, t *target, n *yaml.Node) { t.ready.TCP = p.template(n) }},
		{"http", atReady, "http://… that answers with a status below 400", func(p *parser, t *target, n *yaml.Node) { t.ready.HTTP = p.template(n) }},
		{"log", atReady, "a regular expression (RE2) that a line of output matches", (*parser).readLog},
		{"exec", atReady, "shell text, or [program, …], that exits with 0", (*parser).readProbe},
		{"notify", atReady, "true: the service sends READY=1, as sd_notify(3)", func(p *parser, t *target, n *yaml.Node) { t.ready.Notify = p.boolean(n) }},
		{"timeout", atReady, "how long it may take; 30s", func(p *parser, t *target, n *yaml.Node) { t.ready.Timeout = p.durationPtr(n) }},
		{"message", atReady, "", nil},

		{"attempts", atRetry, "how often it is run, the first time included", func(p *parser, t *target, n *yaml.Node) { t.retry.Attempts = int(p.integer(n, 1, MaxAttempts)) }},
		{"delay", atRetry, "time before the second attempt; none", func(p *parser, t *target, n *yaml.Node) { t.retry.Delay = p.duration(n) }},
		{"backoff", atRetry, "fixed (default) or exponential: the delay doubles, with jitter", func(p *parser, t *target, n *yaml.Node) { t.retry.Exponential = p.exponential(n) }},
		{"maxDelay", atRetry, "no delay is longer; 5m", func(p *parser, t *target, n *yaml.Node) { t.retry.MaxDelay = p.duration(n) }},
		{"on", atRetry, "the failures that are tried again: exit codes, signals, timeout (default: all)", (*parser).readRetryOn},

		{"file", atDescriptor | atBranch, "a path, relative to the step's cwd", (*parser).readFile},
		{"append", atDescriptor | atBranch, "true: add to the end of the file", func(p *parser, t *target, n *yaml.Node) { t.stdio.Append = p.boolean(n) }},
		{"fd", atDescriptor, "a descriptor of the runner", func(p *parser, t *target, n *yaml.Node) {
			t.stdio.Kind, t.stdio.FD = StdioFD, int(p.integer(n, 0, 1<<20))
		}},

		{"fork", atProgram, "", nil},
		{"on", atProgram, "", nil},
		{"send", atProgram, "", nil},
		{"cluster", atSteps, "", nil},
	}
	byName = make(map[string][]*key, len(schema))
	for i := range schema {
		byName[schema[i].name] = append(byName[schema[i].name], &schema[i])
	}
}

var byName map[string][]*key

// actionKeys are the keys that say what a step or stage runs.
var actionKeys = append(slices.Clone(actionNames), "pipe", "run")

// keyAt returns the row of a key that may stand at a place, or nil.
func keyAt(name string, at place) *key {
	for _, k := range byName[name] {
		if k.at&at != 0 {
			return k
		}
	}
	return nil
}

// keysAt returns the names of the keys that may stand at a place.
func keysAt(at place) []string {
	var out []string
	for _, k := range schema {
		if k.at&at != 0 && k.read != nil {
			out = append(out, k.name)
		}
	}
	return out
}

// planned reports whether a later version may have a key.
func planned(name string) bool {
	return slices.ContainsFunc(byName[name], func(k *key) bool { return k.read == nil })
}

// placesOf returns the names of the places where a key may stand.
func placesOf(name string) []string {
	var out []string
	for _, pn := range placeNames {
		if k := keyAt(name, pn.at); k != nil && k.read != nil {
			out = append(out, pn.name)
		}
	}
	return out
}

// unknownKey says what is wrong with a key that may not stand where it does.
func unknownKey(name string, at place) string {
	here := ""
	for _, pn := range placeNames {
		if pn.at&at != 0 {
			here = pn.name
		}
	}
	where := placesOf(name)
	if keyAt(name, at) != nil || len(where) == 0 && planned(name) {
		return "\"" + name + "\" is not supported by this version of pipe"
	}
	if len(where) > 0 {
		return "\"" + name + "\" has no place in " + here + "; it belongs to " + alternatives(where)
	}
	if slices.Contains([]string{"cmd", "cmds", "command", "commands", "script", "sh", "args", "program"}, name) {
		return "unknown key \"" + name + "\" in " + here + "; a program and its arguments are spawn: [prog, arg, …], shell text is exec: text"
	}
	return "unknown key \"" + name + "\" in " + here + didYouMean(name, keysAt(at), "; it has "+strings.Join(keysAt(at), ", "))
}
