package pipeline

import (
	"net"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Ready says when a service can be used. Exactly one of the probes (TCP, HTTP,
// Log, Exec, Notify) is set.
type Ready struct {
	Pos     Pos
	TCP     Template // host:port that accepts a connection
	HTTP    Template // http://… that answers with a status below 400
	Log     string   // regular expression (RE2) that matches a line of output
	Exec    *Stage   // a program or shell text that ends with 0
	Notify  bool     // the service sends READY=1, as sd_notify(3)
	Timeout *time.Duration

	match *regexp.Regexp
}

// Limit returns Timeout or its default, 30 s; 0 is no limit.
func (r *Ready) Limit() time.Duration {
	if r.Timeout == nil {
		return 30 * time.Second
	}
	return *r.Timeout
}

// Matches reports whether Log matches a line of output. The pipeline must have
// been checked.
func (r *Ready) Matches(line []byte) bool { return r.match != nil && r.match.Match(line) }

// RestartPolicy says after which of its ends a job is started again.
type RestartPolicy uint8

const (
	RestartNever RestartPolicy = iota
	RestartOnFailure
	RestartAlways
)

var restartPolicies = []string{"never", "on-failure", "always"}

// String returns the policy as it is written in a file.
func (p RestartPolicy) String() string { return restartPolicies[p] }

// Restart says when a job that ended is started again. A job that ends more than
// MaxRestarts times within Window has failed.
type Restart struct {
	Pos         Pos
	Policy      RestartPolicy
	Delay       *time.Duration // nil: 1 s
	Fixed       bool           // the delay does not grow; else it doubles, up to a minute, and is jittered
	MaxRestarts *int           // in Window; nil: 10; 0: no limit
	Window      *time.Duration // nil: 10 min; 0: since the start
}

// FirstDelay returns Delay or its default.
func (r *Restart) FirstDelay() time.Duration { return or(r.Delay, time.Second) }

// RestartLimit returns MaxRestarts or its default.
func (r *Restart) RestartLimit() int { return or(r.MaxRestarts, 10) }

// Span returns Window or its default.
func (r *Restart) Span() time.Duration { return or(r.Window, 10*time.Minute) }

func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

func (p *parser) readReady(t *target, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.add(pos(n), "ready is a mapping such as {tcp: \"localhost:8080\"}, not %s", kindOf(n))
		return
	}
	r := &Ready{Pos: pos(n)}
	t.step.Ready = r
	before := len(p.errs)
	p.mapping(n, atReady, &target{step: t.step, ready: r}, nil)
	if r.probes() != 1 && len(p.errs) == before { // what is wrong with a key is said, and no more
		p.add(pos(n), "%s", oneProbe)
	}
}

const oneProbe = "ready takes one of tcp, http, log, exec and notify, and a timeout"

// probes returns how many probes are set.
func (r *Ready) probes() (n int) {
	for _, set := range []bool{!r.TCP.IsZero(), !r.HTTP.IsZero(), r.Log != "", r.Exec != nil, r.Notify} {
		if set {
			n++
		}
	}
	return n
}

func (p *parser) readLog(t *target, n *yaml.Node) {
	if t.ready.Log = p.text(n); t.ready.Log == "" {
		p.add(pos(n), "ready: log is a regular expression that a line of output matches")
	}
}

func (p *parser) readProbe(t *target, n *yaml.Node) {
	st := &Stage{Pos: pos(n)}
	t.ready.Exec = st
	sub := &target{step: t.step, stage: st, scope: &st.Scope}
	if n.Kind == yaml.SequenceNode {
		p.readExecFile(sub, n)
	} else {
		p.readExec(sub, n)
	}
}

func (p *parser) readRestart(t *target, n *yaml.Node) {
	r := &Restart{Pos: pos(n)}
	t.step.Restart = r
	sub := &target{restart: r}
	switch n.Kind {
	case yaml.ScalarNode:
		p.readPolicy(sub, n)
	case yaml.MappingNode:
		r.Policy = RestartOnFailure
		p.mapping(n, atRestart, sub, nil)
	default:
		p.add(pos(n), "restart is a policy (never, on-failure, always) or a mapping such as {policy: on-failure, delay: 1s}, not %s", kindOf(n))
	}
}

func (p *parser) readPolicy(t *target, n *yaml.Node) {
	t.restart.Policy = oneOf[RestartPolicy](p, n, restartPolicies)
}

func (p *parser) readMaxRestarts(t *target, n *yaml.Node) {
	limit := int(p.integer(n, 0, 1_000_000))
	t.restart.MaxRestarts = &limit
}

// service checks what jobs and services may have.
func (c *checker) service(s *Step) {
	switch {
	case s.Unref && !s.Detached:
		c.add(s.Pos, "unref is for a step with detached: true, which then is a job that the pipeline does not wait for")
	case s.Restart != nil && s.Background:
		c.add(s.Restart.Pos, "restart is for jobs; a service is started once, and its end stops the pipeline")
	case s.Restart != nil && !s.Detached:
		c.add(s.Restart.Pos, "restart is for jobs: add detached: true; a step that is to be tried again takes retry")
	case s.Ready != nil && !s.Background:
		c.add(s.Ready.Pos, "ready is for services: add background: true")
	case s.Background && s.Detached:
		c.add(s.Pos, "background and detached contradict each other: a service ends with the pipeline, a job outlives it")
	case s.Background && s.Expands():
		c.add(s.Pos, "a service does not expand; write one for each")
	case s.Background && s.Retry != nil:
		c.add(s.Pos, "retry is for steps that end; a service is started once, and its end stops the pipeline")
	case s.Detached && s.Retry != nil:
		c.add(s.Pos, "retry is for steps that end; a job takes restart")
	case (s.Background || s.Detached) && s.Generates != nil:
		c.add(s.Pos, "generates is for steps that end")
	case s.Detached && s.Sources != nil:
		c.add(s.Pos, "sources is for steps that end with the run")
	}
	if s.Detached {
		s.eachStage(c.detached)
	}
	r := s.Ready
	if r == nil {
		return
	}
	r.match = nil
	if r.probes() != 1 && len(c.errs) == 0 {
		c.add(r.Pos, "%s", oneProbe)
	}
	switch {
	case strings.HasPrefix(r.HTTP.src, "https:"):
		c.add(r.Pos, "ready: http is without TLS; for https use exec, as in {exec: [curl, -fsS, …]}")
	case !r.HTTP.IsZero() && !r.HTTP.HasExpr() && !strings.HasPrefix(r.HTTP.src, "http://"):
		c.add(r.Pos, "ready: http is a URL such as http://localhost:8080/health, not %q", r.HTTP.src)
	}
	if _, _, err := net.SplitHostPort(r.TCP.src); !r.TCP.IsZero() && !r.TCP.HasExpr() && err != nil {
		c.add(r.Pos, "ready: tcp is host:port, such as localhost:5432, not %q", r.TCP.src)
	}
	if r.Exec != nil {
		c.stage(s, r.Exec, false)
	}
	if r.Log != "" {
		re, err := regexp.Compile(r.Log)
		if err != nil {
			c.add(r.Pos, "ready: log is not a regular expression: %s", patternError(err))
			return
		}
		r.match = re
		if !c.watched(s) {
			c.add(r.Pos, "ready: log looks at what passes through the runner, and stdout of the step does not; remove what sends it elsewhere")
		}
	}
}

// detached refuses descriptors of a job that the runner takes with it when it
// ends.
func (c *checker) detached(_ string, st *Stage) {
	for _, io := range st.descriptors() {
		if io.Kind == StdioInherit || io.Kind == StdioFD {
			c.add(io.Pos, "a job does not have the runner's descriptors, which end with it; its output goes to its log (the default), to {file: …} or to ignore")
		}
	}
}
