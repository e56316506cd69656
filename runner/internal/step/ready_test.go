//go:build unix

package step_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// server accepts connections on this machine, of which answer gets one after the
// other with its number, until the test ends.
func server(t testing.TB, answer func(n int, c net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skipf("needs a TCP port on 127.0.0.1: %v", err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer(n, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-over })
	return l.Addr().String()
}

// says answers each request with a text.
func says(texts ...string) func(int, net.Conn) {
	return func(n int, c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, texts[min(n, len(texts))-1])
	}
}

// deadAddr is an address that refuses connections: somebody has it, and does not
// listen.
func deadAddr(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Skipf("needs a TCP port on 127.0.0.1: %v", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in4, _ := sa.(*syscall.SockaddrInet4)
	return fmt.Sprintf("127.0.0.1:%d", in4.Port)
}

// TestReady: a service is ready when its probe says so, and is ended as soon as it
// is told to; or it is ended because it never was, and the last attempt says why.
func TestReady(t *testing.T) {
	t.Parallel()
	here := filepath.Join(t.TempDir(), "here")
	waits := sh("echo starting; echo 'listening on 80'; exec sleep 1000")
	notifies := func(what string) step.Stage {
		st := with(prog(os.Args[0]), map[int]step.Stdio{0: {Kind: step.StdioInherit}})
		st.Env = append(st.Env, "STEP_TEST_SAY="+what, "NOTIFY_SOCKET=/not/this/one")
		return st
	}
	probe := func(st step.Stage) *step.Ready { return &step.Ready{Exec: &st} }
	http := func(texts ...string) *step.Ready {
		return &step.Ready{HTTP: "http://" + server(t, says(texts...)) + "/health?x=1"}
	}
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	never := 400 * time.Millisecond
	tests := []struct {
		name  string
		stage step.Stage
		how   *step.Ready
		limit time.Duration // 0: it becomes ready
		want  string        // what the failure has, after "not ready after …: " where there is a limit
	}{
		{"at once", waits, nil, 0, ""},
		{"tcp", waits, &step.Ready{TCP: server(t, func(int, net.Conn) {})}, 0, ""},
		{"tcp, refused", waits, &step.Ready{TCP: deadAddr(t)}, never, "connection refused"},
		{"tcp, no address", waits, &step.Ready{TCP: "nonsense"}, never, "missing port"},
		{"http", waits, http(ok), 0, ""},
		{"http 1.0 without words", waits, http("HTTP/1.0 204\r\n\r\n"), 0, ""},
		{"http, a redirection", waits, http("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), 0, ""},
		{"http, after interim answers", waits, http("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nLink: </y>\r\n\r\n" + ok), 0, ""},
		{"http, in the end", waits, http("", "garbage\r\n", "HTTP/1.1 503 Busy\r\n\r\n", ok), 0, ""},
		{"http, an error", waits, http("HTTP/1.1 404 Not Found\r\n\r\n"), never, "answers HTTP/1.1 404 Not Found"},
		{"http, garbage", waits, http("SSH-2.0-OpenSSH\r\n"), never, "does not speak HTTP"},
		{"http, nearly", waits, http("HTTP/1.1 2000 OK\r\n"), never, "does not speak HTTP"},
		{"http, a line without end", waits, http(strings.Repeat("x", 70<<10)), never, "gives no answer: bufio: buffer full"},
		{"http, nothing", waits, http(""), never, "gives no answer: EOF"},
		{"http, an interim answer only", waits, http("HTTP/1.1 100 Continue\r\n\r\n"), never, "gives no answer: EOF"},
		{"http, half of an interim answer", waits, http("HTTP/1.1 100 Continue\r\nLink: "), never, "gives no answer: EOF"},
		{"http, refused", waits, &step.Ready{HTTP: "http://" + deadAddr(t)}, never, "connection refused"},
		{"http, without a port", waits, &step.Ready{HTTP: "http://192.0.2.1"}, never, "192.0.2.1:80: "},
		{"http, hanging", waits, &step.Ready{HTTP: "http://" + server(t, func(_ int, c net.Conn) { _, _ = io.Copy(io.Discard, c) })}, never, "i/o timeout"},
		{"http, no URL", waits, &step.Ready{HTTP: "https://localhost"}, 0, `ready: http: "https://localhost" is not a URL such as`},
		{"log", waits, &step.Ready{Log: `^listening on \d+$`}, 0, ""},
		{"log, on stderr, with a carriage return", sh(`printf 'listen' >&2; printf 'ing\r\n' >&2; exec sleep 1000`), &step.Ready{Log: `^listening$`}, 0, ""},
		{"log, not in two lines", waits, &step.Ready{Log: `starting.*listening`}, never, "no line of its output matches starting.*listening"},
		{"log, not without a newline", sh("printf listening; exec sleep 1000"), &step.Ready{Log: "listening"}, never, "no line of its output matches"},
		{"log, the beginning of a long line", sh("head -c 200000 /dev/zero | tr '\\0' x; echo y; echo listening; exec sleep 1000"), &step.Ready{Log: "^listening$"}, 0, ""},
		{"log, not the end of a long line", sh("head -c 200000 /dev/zero | tr '\\0' x; echo y; exec sleep 1000"), &step.Ready{Log: "xy$"}, never, "no line of its output matches"},
		{"exec", sh("sleep 0.02; : >$1; exec sleep 1000", here), probe(prog("test", "-e", here)), 0, ""},
		{"exec, embedded shell", waits, probe(builtin("true")), 0, ""},
		{"exec, failing", waits, probe(sh("exit 3")), never, "exit 3 ended with exit status 3"},
		{"exec, missing", waits, probe(prog("no-such-program")), never, "no-such-program"},
		{"exec, hanging", waits, probe(prog("sleep", "1000")), never, "sleep 1000 has not ended"},
		{"notify", notifies("READY=1"), &step.Ready{Notify: true}, 0, ""},
		{"notify, among others", notifies("STATUS=starting,X=1\nREADY=1\nSTATUS=up,READY=1,STOPPING=1"), &step.Ready{Notify: true}, 0, ""},
		{"notify, something else", notifies("READY=0,STATUS=READY=1"), &step.Ready{Notify: true}, never, "it has not said READY=1 to $NOTIFY_SOCKET"},
	}
	var runs []*record // most of the time they wait, so they do that together
	for _, tt := range tests {
		in, _ := pipe(t)
		if tt.how != nil {
			tt.how.Timeout = tt.limit
		}
		ctx, stop := context.WithCancelCause(t.Context())
		p := play{ctx: ctx, sv: step.Services{Stdin: in}, on: func(e step.Event) {
			if e.Type == step.EventReady {
				stop(&step.Stop{})
			}
		}}
		runs = append(runs, p.begin(t, &step.Spec{Label: "x", Service: &step.Service{Ready: tt.how}, Stages: []step.Stage{tt.stage}}))
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := runs[i]
			arrives(t, "the end of the service", r.over)
			if tt.limit == 0 && tt.want == "" {
				r.ended(t, "cancelled signal 143 signal=SIGTERM")
				if !r.saw(step.EventReady) {
					t.Error("it did not become ready")
				}
				return
			}
			if r.saw(step.EventReady) || r.Reason != step.ReasonReady || r.Signal != "SIGTERM" || r.ExitCode != step.CodeFailure || r.Err == nil {
				t.Fatal(describe(r.End))
			}
			msg := r.Err.Error()
			if tt.limit > 0 {
				prefix := "not ready after " + tt.limit.String() + ": "
				if !strings.HasPrefix(msg, prefix) {
					t.Errorf("it is said: %s", msg)
				}
				msg = strings.TrimPrefix(msg, prefix)
			}
			slow := strings.HasSuffix(msg, "i/o timeout") || strings.HasSuffix(msg, "has not ended") // the limit came in the middle of an attempt
			if !strings.Contains(msg, tt.want) && !slow {
				t.Errorf("it is said: %s", msg)
			}
		})
	}
}

// TestNotReadyYet: a service that ends before it is ready has its own end, and one
// that is told to end is not called unready.
func TestNotReadyYet(t *testing.T) {
	t.Parallel()
	for _, how := range []*step.Ready{{TCP: deadAddr(t)}, {Log: "never"}, {Notify: true}, {HTTP: "http://" + deadAddr(t)}, {Exec: func() *step.Stage { st := prog("sleep", "1000"); return &st }()}} {
		how.Timeout = time.Hour
		r := play{}.run(t, &step.Spec{Label: "x", Service: &step.Service{Ready: how}, Stages: []step.Stage{sh("exit 3")}})
		r.ended(t, "failure exit 3")
		ctx, stop := context.WithCancelCause(t.Context())
		told := play{ctx: ctx, on: func(e step.Event) {
			if e.Type == step.EventSpawn {
				stop(&step.Stop{})
			}
		}}.run(t, &step.Spec{Label: "x", Service: &step.Service{Ready: how}, Stages: []step.Stage{prog("sleep", "1000")}})
		told.ended(t, "cancelled signal 143 signal=SIGTERM")
		if r.saw(step.EventReady) || told.saw(step.EventReady) {
			t.Errorf("%+v: it is said to be ready", how)
		}
	}
}

// TestReadyCannotBegin: what is wrong with the probe is said before anything starts.
func TestReadyCannotBegin(t *testing.T) {
	r := play{}.run(t, &step.Spec{Service: &step.Service{Ready: &step.Ready{Log: "("}}, Stages: []step.Stage{prog("true")}})
	r.ended(t, "failure expression 1 err=ready: log is not a regular expression: missing closing ): `(`")
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	r = play{}.run(t, &step.Spec{Service: &step.Service{Ready: &step.Ready{Notify: true}}, Stages: []step.Stage{prog("true")}})
	if r.Status != step.StatusFailure || r.saw(step.EventSpawn) {
		t.Error(describe(r.End))
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	r = play{}.run(t, &step.Spec{Service: &step.Service{Ready: &step.Ready{Notify: true}}, Stages: []step.Stage{prog("true")}})
	if left, _ := os.ReadDir(long); r.Err == nil || !strings.Contains(r.Err.Error(), "no socket for notify") || len(left) > 0 {
		t.Error(describe(r.End), left)
	}
}

// TestNotifyOfAnotherUser: a service that runs as somebody else can write to the
// socket, and no third one can.
func TestNotifyOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	id := uint32(65534)
	st := sh(`stat -c '%u:%g' "$NOTIFY_SOCKET" "${NOTIFY_SOCKET%/*}"; stat -c %a "${NOTIFY_SOCKET%/*}"`)
	st.UID, st.GID = &id, &id
	if err := os.Chmod(os.TempDir(), 0o711); err != nil {
		t.Fatal(err)
	}
	r := play{}.run(t, &step.Spec{Service: &step.Service{Ready: &step.Ready{Notify: true}}, Stages: []step.Stage{st}})
	if got := r.out(0, 1); got != "65534:65534\n65534:65534\n700\n" {
		t.Errorf("%q, %q", got, r.out(0, 2))
	}
}

// counting is an engine that counts.
type counting struct {
	engine.Local
	n atomic.Int32
}

func (c *counting) Start(ctx context.Context, cmd *engine.Cmd) (engine.Process, error) {
	c.n.Add(1)
	return c.Local.Start(ctx, cmd)
}

// TestProbeOnTheEngine: probes go through the engine of the step, and again and
// again until one succeeds.
func TestProbeOnTheEngine(t *testing.T) {
	t.Parallel()
	e := &counting{}
	dir := t.TempDir()
	ctx, stop := context.WithCancelCause(t.Context())
	third := sh("echo >>$1/n; test $(wc -l <$1/n) -ge 3", dir)
	play{ctx: ctx, sv: step.Services{Engine: e}, on: func(ev step.Event) {
		if ev.Type == step.EventReady {
			stop(&step.Stop{})
		}
	}}.run(t, &step.Spec{Service: &step.Service{Ready: &step.Ready{Exec: &third}}, Stages: []step.Stage{prog("sleep", "1000")}}).
		ended(t, "cancelled signal 143 signal=SIGTERM")
	if n := e.n.Load(); n != 4 {
		t.Errorf("%d starts", n)
	}
}
