package runner

// This file holds services: steps with background, which others lean on, and
// how it is known that they can.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pipe-runner/pipe/pipeline"
)

// errServiceEnded tells that a service ended while others leaned on it.
var errServiceEnded = errors.New("the service ended while the pipeline still leaned on it")

// errServiceUnready tells that a service ended too early.
var errServiceUnready = errors.New("the service ended before anything could lean on it")

// serviceReady lets others go on, once a service can be used. Its processes
// count no more: they are there for as long as the run is.
func (r *run) serviceReady(ex *execution) {
	if !r.running[ex] || ex.leaving {
		return // it has ended meanwhile, or is to
	}
	r.free(ex)
	r.services = append(r.services, ex)
	r.emitFor(ex.u, Event{Type: EventReady})
	r.end(ex.u.step, false, false)
}

// ended makes a failure of the end of a service that nobody asked for, also of
// one with exit code 0.
func ended(res *StepResult, err error) {
	how := fmt.Sprintf("exit status %d", res.ExitCode)
	if res.Signal != "" {
		how = res.Signal
	}
	res.Status, res.Err = StatusFailure, fmt.Errorf("%w (%s)", err, how)
	if res.Reason == "" {
		res.Reason = ReasonExit
	}
	if res.ExitCode == 0 {
		res.ExitCode = 1
	}
}

// serviceOver takes in the end of a service; it reports whether it had been
// ready, so that others have gone on already.
func (r *run) serviceOver(ex *execution, res *StepResult) bool {
	i := slices.Index(r.services, ex)
	if i < 0 {
		if ex.step.Background && res.Status == StatusSuccess {
			ended(res, errServiceUnready)
		}
		return false
	}
	r.services = slices.Delete(r.services, i, i+1)
	asked := res.Status == StatusCancelled || r.left == 0 // then nothing leans on it any more
	s := r.p.Steps[ex.u.step]
	if asked { // it did what it was there for
		res.Status, res.Reason, res.CancelledBy = StatusSuccess, "", ""
	} else {
		ended(res, errServiceEnded)
	}
	r.remember(ex, res)
	r.emitFor(ex.u, Event{Type: EventStepEnd, Result: res})
	if asked || s.ContinueOnError {
		return true
	}
	if r.cause == nil {
		r.cause = res
	}
	for _, u := range r.users[ex.u.step] { // those that have not started yet
		if slices.Contains(r.graph.Needs[u], int32(ex.u.step)) {
			r.nodes[u].badNeed = true
		}
	}
	seen := map[int32]bool{}
	for todo := slices.Clone(r.users[ex.u.step]); len(todo) > 0; { // also behind those that have ended
		u := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[u] {
			seen[u], r.nodes[u].failedUp = true, true
			todo = append(todo, r.users[u]...)
		}
	}
	if !r.keepGoing {
		r.halt(stopRequest{})
	}
	return true
}

// stopServices ends the services when nothing else is left, the last one first,
// and each before the next.
func (r *run) stopServices() {
	if r.left > 0 || len(r.services) == 0 {
		return
	}
	if last := r.services[len(r.services)-1]; !last.leaving {
		last.leaving = true
		last.requestStop(stopRequest{})
	}
}

// isService reports whether the execution is a service that is ready.
func (r *run) isService(ex *execution) bool { return slices.Contains(r.services, ex) }

// awaitReady finds out when the service can be used, and tells the loop.
func (ex *execution) awaitReady(ctx context.Context) {
	how := ex.step.Ready
	if how == nil {
		ex.r.began <- ex
		return
	}
	if limit := how.Limit(); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("not ready after %s", limit))
		defer cancel()
	}
	err := ex.probe(ctx, how)
	if err == nil {
		ex.r.began <- ex
		return
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		ex.unready <- fmt.Errorf("%w: %w", cause, err)
	} else if cause == nil {
		ex.unready <- err
	}
}

// probe returns nil when the service is ready; else, when ctx is done, what
// came of the last attempt, or at once an error that no waiting mends.
func (ex *execution) probe(ctx context.Context, how *pipeline.Ready) error {
	vars := ex.vars
	if err := ex.r.enter(ex.r.p.Levels(ex.step, ex.step.Stages[0]), &vars); err != nil {
		return err
	}
	var attempt func(context.Context) error
	switch {
	case how.Notify:
		return ex.awaitNotify(ctx)
	case how.Log != "":
		select {
		case <-ex.lineSeen:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("no line of its output matches %s", how.Log)
		}
	case !how.TCP.IsZero():
		addr, err := how.TCP.Eval(&vars)
		if err != nil {
			return fmt.Errorf("ready: tcp: %w", err)
		}
		attempt = func(ctx context.Context) error { return dial(ctx, addr) }
	case !how.HTTP.IsZero():
		text, err := how.HTTP.Eval(&vars)
		if err != nil {
			return fmt.Errorf("ready: http: %w", err)
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("ready: http: %q is not a URL such as http://localhost:8080/health", text)
		}
		attempt = func(ctx context.Context) error { return get(ctx, u) }
	default:
		st := *how.Exec
		if st.Scope == nil {
			st.Scope = ex.step.Stages[0].Scope
		}
		st.Stdout, st.Stderr = pipeline.Stdio{Kind: pipeline.StdioIgnore}, pipeline.Stdio{Kind: pipeline.StdioIgnore}
		b, err := ex.bind(&st)
		if err != nil {
			return fmt.Errorf("ready: exec: %w", err)
		}
		attempt = func(ctx context.Context) error { return ex.check(ctx, &st, b) }
	}
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, 250*time.Millisecond) {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
		}
	}
}

func dial(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// get asks for a URL once. It is done by hand because net/http would cost each
// start of the program a quarter more.
func get(ctx context.Context, u *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "80")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: pipe\r\nAccept: */*\r\nConnection: close\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return err
	}
	for in := bufio.NewReaderSize(c, 64<<10); ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("%s gives no answer: %w", u, err)
		}
		answer := strings.TrimSpace(string(line))
		m := statusLine().FindStringSubmatch(answer)
		switch {
		case m == nil:
			return fmt.Errorf("%s does not speak HTTP", u)
		case m[1] == "2" || m[1] == "3":
			return nil
		case m[1] != "1":
			return fmt.Errorf("%s answers %s", u, answer)
		}
		for len(bytes.TrimSpace(line)) > 0 { // an interim answer; the next one follows its header
			if line, err = in.ReadSlice('\n'); err != nil {
				return fmt.Errorf("%s gives no answer: %w", u, err)
			}
		}
	}
}

var statusLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^HTTP/1\.[01] ([1-9])[0-9]{2}( |$)`) })

// check runs the program of a probe once.
func (ex *execution) check(ctx context.Context, st *pipeline.Stage, b *bound) error {
	probe := &execution{
		r: ex.r, u: ex.u, step: &pipeline.Step{Stages: []*pipeline.Stage{st}}, quiet: true,
		vars: ex.vars, stopReq: make(chan stopRequest, 4), bounds: []*bound{b},
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // another attempt may do better
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		probe.execute()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		probe.requestStop(stopRequest{force: true})
		<-done
		return fmt.Errorf("%s has not ended", b.command)
	}
	switch res := &probe.result; {
	case res.Err != nil:
		return res.Err
	case res.Status != StatusSuccess:
		return fmt.Errorf("%s ended with exit status %d", b.command, res.ExitCode)
	}
	return nil
}

// listenNotify makes the socket that a service says READY=1 on, and names it in
// its environment, as sd_notify(3) has it.
func (ex *execution) listenNotify() error {
	dir, err := os.MkdirTemp("", "pipe-notify-")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "socket")
	ex.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		_ = os.RemoveAll(dir)
		return fmt.Errorf("no socket for notify: %w", err)
	}
	ex.notifyDir = dir
	for _, b := range ex.bounds {
		b.env = append(slices.DeleteFunc(slices.Clone(b.env), func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") }), "NOTIFY_SOCKET="+path)
		if b.opts.UID != nil {
			gid := -1
			if b.opts.GID != nil {
				gid = int(*b.opts.GID)
			}
			_ = errors.Join(os.Chown(dir, int(*b.opts.UID), gid), os.Chown(path, int(*b.opts.UID), gid)) // if it may not, the timeout says so
		}
	}
	return nil
}

func (ex *execution) closeNotify() {
	if ex.notify != nil {
		_ = ex.notify.Close()
		_ = os.RemoveAll(ex.notifyDir)
	}
}

// awaitNotify waits for READY=1. What comes later is read and dropped, or the
// service would block.
func (ex *execution) awaitNotify(ctx context.Context) error {
	ready := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for once := false; ; {
			n, err := ex.notify.Read(buf)
			if err != nil {
				return
			}
			if !once && slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
				once = true
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return errors.New("it has not said READY=1 to $NOTIFY_SOCKET")
	}
}

// maxProbeLine is how much of a line without end is looked at, in bytes.
const maxProbeLine = 64 << 10

// look looks for the line that says that the service is ready.
func (s *stream) look(b []byte) {
	if s.found {
		return
	}
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		s.line = append(s.line, line[:min(len(line), maxProbeLine-len(s.line))]...)
		if b = rest; !whole {
			return
		}
		if s.ex.step.Ready.Matches(bytes.TrimSuffix(s.line, []byte("\r"))) {
			s.found = true
			s.ex.sawLine.Do(func() { close(s.ex.lineSeen) })
			return
		}
		s.line = s.line[:0]
	}
}
