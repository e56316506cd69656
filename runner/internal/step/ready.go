package step

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
)

// awaitReady finds out when the service can be used, and tells so; a service that
// does not become ready is ended. The function that it returns ends the waiting.
func (ex *execution) awaitReady() func() {
	if ex.spec.Service.Ready == nil {
		ex.sink(Event{Type: EventReady})
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ex.ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		if err := ex.becomeReady(ctx); err != nil {
			ex.end(&Stop{Reason: ReasonReady, Err: err})
		}
	}()
	return func() { cancel(); <-over }
}

// becomeReady waits until the service is ready. It returns nil, too, when ctx is
// cancelled.
func (ex *execution) becomeReady(ctx context.Context) error {
	how := ex.spec.Service.Ready
	if how.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, how.Timeout, fmt.Errorf("not ready after %s", how.Timeout))
		defer cancel()
	}
	err := ex.probe(ctx, how)
	switch cause := context.Cause(ctx); {
	case err == nil:
		close(ex.ready)
	case cause == nil:
		return err
	case !errors.Is(cause, context.Canceled):
		return fmt.Errorf("%w: %w", cause, err)
	}
	return nil
}

// probe returns nil when the service is ready. When ctx is done it returns what
// came of the last attempt, and at once an error that no waiting mends.
func (ex *execution) probe(ctx context.Context, how *Ready) error {
	var attempt func(context.Context) error
	switch {
	case how.Notify:
		return ex.notify.await(ctx)
	case how.Log != "":
		select {
		case <-ex.line.seen:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("no line of its output matches %s", how.Log)
		}
	case how.TCP != "":
		attempt = func(ctx context.Context) error { return dial(ctx, how.TCP) }
	case how.HTTP != "":
		u, err := url.Parse(how.HTTP)
		if err != nil || u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("ready: http: %q is not a URL such as http://localhost:8080/health", how.HTTP)
		}
		attempt = func(ctx context.Context) error { return get(ctx, u) }
	default:
		attempt = func(ctx context.Context) error { return ex.check(ctx, how.Exec) }
	}
	var last error
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, 250*time.Millisecond) {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if last != nil && ctx.Err() != nil { // it was not given its time
			return last
		}
		last = err
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
func (ex *execution) check(ctx context.Context, st *Stage) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // another attempt may do better
	defer cancel()
	running, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { kill(&Stop{Grace: new(time.Duration)}) })()
	res := Run(running, &Spec{Label: ex.spec.Label, Stages: []Stage{*st}}, ex.sv, func(Event) {})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s has not ended", st.Command)
	case res.Err != nil:
		return res.Err
	case res.Status != StatusSuccess:
		return fmt.Errorf("%s ended with exit status %d", st.Command, res.ExitCode)
	}
	return nil
}

// notifySocket is where a service says READY=1, as sd_notify(3) has it.
type notifySocket struct {
	conn *net.UnixConn
	dir  string
	path string
}

// listenNotify opens a socket that all stages may write to.
func listenNotify(spec *Spec) (*notifySocket, error) {
	dir, err := os.MkdirTemp("", "pipe-notify-")
	if err != nil {
		return nil, err
	}
	n := &notifySocket{dir: dir, path: filepath.Join(dir, "socket")}
	if n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"}); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("no socket for notify: %w", err)
	}
	spec.Each(func(st *Stage) {
		if st.UID == nil {
			return
		}
		gid := -1
		if st.GID != nil {
			gid = int(*st.GID)
		}
		_ = errors.Join(os.Chown(dir, int(*st.UID), gid), os.Chown(n.path, int(*st.UID), gid)) // if it may not, the timeout says so
	})
	return n, nil
}

// env adds the name of the socket to an environment.
func (n *notifySocket) env(env []string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") })
	return append(out, "NOTIFY_SOCKET="+n.path)
}

func (n *notifySocket) close() {
	_ = n.conn.Close()
	_ = os.RemoveAll(n.dir)
}

// await waits for READY=1. What comes later is read and dropped, or the service
// would block.
func (n *notifySocket) await(ctx context.Context) error {
	ready := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for once := false; ; {
			k, err := n.conn.Read(buf)
			if err != nil {
				return
			}
			if !once && slices.Contains(strings.Split(string(buf[:k]), "\n"), "READY=1") {
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
