//go:build linux

package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/waittest"
)

// message is what goes over the connection. After Start the agent answers
// Started or Failed. It takes the data of one message at a time, and says when.
type message struct {
	Start   *program       `json:",omitempty"`
	Started bool           `json:",omitempty"`
	Failed  string         `json:",omitempty"`
	Code    int            `json:",omitempty"`
	FD      int            `json:",omitempty"`
	Data    []byte         `json:",omitempty"`
	Ready   bool           `json:",omitempty"`
	End     bool           `json:",omitempty"` // of stdin
	Signal  syscall.Signal `json:",omitempty"`
	Exit    *engine.Status `json:",omitempty"`
}

type program struct {
	Path, Dir string
	Args, Env []string
}

// remote is an engine that starts each process through an agent, out of reach as
// on another machine. It has no more than the methods that are required.
type remote struct{ agent func() *exec.Cmd }

// remoteProcess is a process that an agent started.
type remoteProcess struct {
	mu      sync.Mutex // of out
	out     *json.Encoder
	streams [3]any
	ready   chan bool // the agent takes data
	exit    chan engine.Status
	closed  chan struct{}
}

// Start connects to an agent and asks it to start the process.
func (r remote) Start(ctx context.Context, c *engine.Cmd) (engine.Process, error) {
	if len(c.Extra) > 0 || c.UID != nil || c.GID != nil || c.Terminal != nil {
		return nil, errors.New("remote: there are three streams, and neither users nor terminals")
	}
	link := r.agent()
	to, err1 := link.StdinPipe()
	from, err2 := link.StdoutPipe()
	if err := errors.Join(err1, err2, link.Start()); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = to.Close() })()
	p := &remoteProcess{out: json.NewEncoder(to), ready: make(chan bool, 1), exit: make(chan engine.Status, 1), closed: make(chan struct{})}
	in := json.NewDecoder(from)
	var first message
	err := errors.Join(p.tell(message{Start: &program{c.Path, c.Dir, c.Args, c.Env}}), in.Decode(&first))
	if err == nil && !first.Started {
		err = &engine.StartError{Path: c.Path, Code: first.Code, Msg: first.Failed}
	}
	if err != nil {
		_, _ = to.Close(), link.Wait()
		return nil, err
	}
	for i, stream := range []any{c.Stdin, c.Stdout, c.Stderr} {
		if f, ok := stream.(*os.File); ok { // the caller closes its own
			fd, _ := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			_ = unix.SetNonblock(fd, true) // so that Close ends a Read
			stream = os.NewFile(uintptr(fd), f.Name())
		}
		p.streams[i] = stream
	}
	go p.feed()
	go func() {
		p.exit <- p.receive(in)
		for _, stream := range p.streams {
			if f, ok := stream.(*os.File); ok {
				_ = f.Close()
			}
		}
		close(p.ready)
		close(p.closed)
		_, _ = to.Close(), link.Wait()
	}()
	return p, nil
}

// tell sends a message.
func (p *remoteProcess) tell(m message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Encode(m)
}

// feed sends what the process is to read.
func (p *remoteProcess) feed() {
	b := make([]byte, 32<<10)
	for r, ok := p.streams[0].(io.Reader); ok; <-p.ready {
		n, err := r.Read(b)
		if err != nil || p.tell(message{Data: b[:n]}) != nil {
			break
		}
	}
	_ = p.tell(message{End: true})
}

// receive takes what the process wrote, and at last how it ended.
func (p *remoteProcess) receive(in *json.Decoder) engine.Status {
	for {
		var m message
		if err := in.Decode(&m); err != nil {
			return engine.Status{Code: 1, Err: fmt.Errorf("remote: the connection was lost: %w", err)}
		}
		switch w, ok := p.streams[m.FD].(io.Writer); {
		case m.Exit != nil:
			return *m.Exit
		case m.Ready:
			p.ready <- true
		case ok:
			if _, err := w.Write(m.Data); err != nil {
				_ = p.Signal(syscall.SIGPIPE)
			}
		}
	}
}

func (p *remoteProcess) Pid() int                        { return 0 }
func (p *remoteProcess) Wait() engine.Status             { return <-p.exit }
func (p *remoteProcess) Closed() <-chan struct{}         { return p.closed }
func (p *remoteProcess) Signal(sig syscall.Signal) error { return p.tell(message{Signal: sig}) }

// agent is the other machine: it starts one process, and passes on what that
// reads and writes.
func agent(from io.Reader, to io.Writer) {
	var mu sync.Mutex
	out := json.NewEncoder(to)
	tell := func(m message) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(m)
	}
	in := json.NewDecoder(from)
	var m message
	if err := in.Decode(&m); err != nil || m.Start == nil {
		return
	}
	data, stdin := make(chan []byte, 1), (*io.PipeWriter)(nil)
	c := &engine.Cmd{
		Path: m.Start.Path, Dir: m.Start.Dir, Args: m.Start.Args, Env: m.Start.Env, Stdout: &teller{1, tell}, Stderr: &teller{2, tell},
	}
	c.Stdin, stdin = io.Pipe()
	search := ""
	for _, kv := range c.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	code := engine.CodeNotFound
	var p engine.Process
	mu.Lock() // what it prints is told after it has been started
	path, err := engine.LookPath(engine.Local{}, c.Path, search, c.Dir)
	if err == nil {
		c.Path = path
		p, err = engine.Local{}.Start(context.Background(), c)
		var se *engine.StartError
		if errors.As(err, &se) {
			code = se.ExitCode()
		}
	}
	if err != nil {
		_ = out.Encode(message{Failed: err.Error(), Code: code})
		return
	}
	_ = out.Encode(message{Started: true})
	mu.Unlock()
	go func() {
		for b := range data {
			_, _ = stdin.Write(b)
			tell(message{Ready: true})
		}
		_ = stdin.Close()
	}()
	go func() {
		for {
			var m message
			if err := in.Decode(&m); err != nil { // nobody wants it any more
				_ = p.Signal(syscall.SIGKILL)
				return
			}
			switch {
			case m.Signal != 0:
				_ = p.Signal(m.Signal)
			case m.End:
				close(data)
			default:
				data <- m.Data
			}
		}
	}()
	st := p.Wait()
	engine.End(p, syscall.SIGTERM, time.Second)
	<-p.Closed()
	tell(message{Exit: &st})
}

// teller sends what is written to it.
type teller struct {
	fd   int
	tell func(message)
}

func (w *teller) Write(b []byte) (int, error) {
	w.tell(message{FD: w.fd, Data: b})
	return len(b), nil
}

// runRemote runs a pipeline on the engine. With a cause it ends the run for it
// once the steps have written to the FIFO $READY.
func runRemote(t *testing.T, yaml string, cause error) (res *runner.Result, out string, err error) {
	t.Helper()
	p, err := pipeline.Parse("f.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fifo := filepath.Join(dir, "ready")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	connect := func() *exec.Cmd {
		return &exec.Cmd{Path: "/proc/self/exe", Env: []string{agentEnv + "=1"}, Stderr: os.Stderr}
	}
	var printed bytes.Buffer
	r := runner.Runner{
		Engine: remote{connect}, Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH"), "READY=" + fifo}, Stdout: &printed, Stderr: &printed,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err = r.Run(ctx, p)
	}()
	if cause != nil {
		waittest.Until(t, "the steps to be ready", func() bool { n, _ := f.Read(make([]byte, 1)); return n == 1 })
		cancel(cause)
	}
	waittest.For(t, "the end of the run", done)
	if res != nil {
		t.Cleanup(res.Close)
	}
	waittest.Until(t, "the end of all processes", func() bool { n, err := f.Read(make([]byte, 10)); return n == 0 && err == io.EOF })
	return res, printed.String(), err
}

// TestRemote: an engine that has no pids, groups, descriptors or PATH of this
// machine runs pipelines as the local one does: pipes, environments, time-outs,
// an end from outside, and a connection that is lost.
func TestRemote(t *testing.T) {
	t.Parallel()
	stays := `[sh, -c, 'exec 3>$READY; sleep 1000 & echo >&3; wait']`
	for name, tt := range map[string]struct {
		yaml   string
		cause  error // of the end from outside
		out    string
		code   int
		failed string // in the text of the error
	}{
		"pipe":         {yaml: `{pipe: [{spawn: [seq, "1", "20000"]}, {spawn: [grep, 7]}, {spawn: [wc, -l]}]}`, out: "6878\n"},
		"early end":    {yaml: `{pipe: [{spawn: ["yes"]}, {spawn: [head, "-1"]}]}`, out: "y\n"},
		"environment":  {yaml: `{execFile: [/usr/bin/env], env: {A: "1 "}, extendEnv: false}`, out: "A=1 \n"},
		"exit code":    {yaml: `{spawn: [sh, -c, "echo no >&2; exit 3"]}`, out: "no\n", code: 3, failed: "exit status 3"},
		"signal":       {yaml: `{spawn: [sh, -c, "kill -9 $$"]}`, code: 137, failed: "SIGKILL"},
		"not found":    {yaml: `{spawn: [no-such-prog]}`, code: 127, failed: "not found in PATH"},
		"shell text":   {yaml: `{exec: "x=$(echo a | tr a b); echo $x; no-such-prog 2>/dev/null || echo $?"}`, out: "b\n127\n"},
		"input":        {yaml: `{spawn: [cat], input: "a\nb"}`, out: "a\nb"},
		"timeout":      {yaml: `{spawn: ` + stays + `, timeout: 300ms}`, code: 124, failed: "timed out"},
		"cancelled":    {yaml: `{spawn: ` + stays + `}`, cause: &runner.Interrupt{Signal: syscall.SIGINT}, code: 130, failed: "interrupted by SIGINT"},
		"link is lost": {yaml: `{spawn: [sh, -c, 'read x; kill -9 $PPID'], input: "x"}`, code: 1, failed: "the connection was lost"},
		"unsupported":  {yaml: `{spawn: ["true"], uid: 1}`, code: 126, failed: "neither users nor terminals"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, out, err := runRemote(t, "env: {}\nextendEnv: [PATH, READY]\nsteps:\n  - "+tt.yaml, tt.cause)
			if res == nil || out != tt.out || (err == nil) != (tt.failed == "") || err != nil && !strings.Contains(err.Error(), tt.failed) {
				t.Fatalf("%v, printed %q", err, out)
			}
			if res.ExitCode != tt.code {
				t.Errorf("exit code %d, want %d", res.ExitCode, tt.code)
			}
		})
	}
}
