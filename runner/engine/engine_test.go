package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-runner/pipe/runner/engine"
)

// plain is an engine, and its process, with the methods that are required and no
// others.
type plain struct {
	start func(ctx context.Context) error
}

func (e plain) Start(ctx context.Context, _ *engine.Cmd) (engine.Process, error) {
	return plainProcess{}, e.start(ctx)
}

type plainProcess struct{}

func (plainProcess) Pid() int                    { return 0 }
func (plainProcess) Wait() engine.Status         { return engine.Status{} }
func (plainProcess) Signal(syscall.Signal) error { return nil }
func (plainProcess) Closed() <-chan struct{}     { return nil }

// full has all the optional ones, and notes their calls.
type full struct {
	plain
	plainProcess
	calls *[]any
}

func (f full) LookPath(name, path, dir string) (string, error) {
	*f.calls = append(*f.calls, []string{name, path, dir})
	return "/found", fs.ErrPermission
}
func (f full) Terminal(*os.File) *engine.Terminal {
	*f.calls = append(*f.calls, "terminal")
	return nil
}
func (f full) String() string     { return "f (pid 6)" }
func (f full) Left() bool         { return true }
func (f full) Holders() []string  { return []string{"x (pid 7)"} }
func (f full) Release(force bool) { *f.calls = append(*f.calls, force) }
func (f full) End(sig syscall.Signal, grace time.Duration) []string {
	*f.calls = append(*f.calls, sig, grace)
	return []string{"y (pid 8)"}
}

type key struct{}

// TestStartContext: the context of a start ends with that of the run, as long as
// the start goes on, and has its values; after that it does not end.
func TestStartContext(t *testing.T) {
	t.Parallel()
	why := errors.New("the reason")
	t.Run("done before", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(why)
		p, err := engine.Start(ctx, plain{func(context.Context) error { t.Error("it was started"); return nil }}, &engine.Cmd{})
		if p != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", p, err)
		}
	})
	t.Run("done meanwhile", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), key{}, "value"))
		_, err := engine.Start(ctx, plain{func(ctx context.Context) error {
			if ctx.Err() != nil || ctx.Value(key{}) != "value" {
				t.Errorf("the context at the start: %v, value %v", ctx.Err(), ctx.Value(key{}))
			}
			cancel(why)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Second):
				t.Error("waited in vain for the engine's context to end")
			}
			return context.Cause(ctx)
		}}, &engine.Cmd{})
		if !errors.Is(err, why) {
			t.Errorf("the engine was told %v", err)
		}
	})
	t.Run("done after", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.Background())
		var seen context.Context
		if _, err := engine.Start(ctx, plain{func(ctx context.Context) error { seen = ctx; return nil }}, &engine.Cmd{}); err != nil {
			t.Fatal(err)
		}
		cancel(why)
		if seen == ctx || seen.Err() != nil {
			t.Errorf("the context of a start that is over ended: %v", seen.Err())
		}
	})
	t.Run("done at the end", func(t *testing.T) {
		for range 1000 {
			ctx, cancel := context.WithCancel(context.Background())
			var seen context.Context
			if _, err := engine.Start(ctx, plain{func(ctx context.Context) error { seen = ctx; cancel(); return nil }}, &engine.Cmd{}); err != nil {
				t.Fatal(err)
			}
			if seen.Err() == nil {
				t.Fatal("the context is yet to end when the start is over")
			}
		}
	})
	t.Run("reported", func(t *testing.T) {
		for _, want := range []error{context.DeadlineExceeded, why} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			if want == why {
				cancel()
				ctx, cancel = context.WithTimeoutCause(context.Background(), time.Millisecond, why)
			}
			_, err := engine.Start(ctx, plain{func(ctx context.Context) error {
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Second):
					t.Error("waited in vain for the engine's context to end")
				}
				return fmt.Errorf("it did not start: %w", ctx.Err())
			}}, &engine.Cmd{})
			cancel()
			if !errors.Is(err, want) {
				t.Errorf("%v, and not %v", err, want)
			}
		}
	})
	t.Run("never done", func(t *testing.T) {
		ctx := context.WithValue(context.Background(), key{}, "value")
		_, err := engine.Start(ctx, plain{func(got context.Context) error {
			if got != ctx {
				t.Error("it is another one")
			}
			return why
		}}, &engine.Cmd{})
		if !errors.Is(err, why) {
			t.Error(err)
		}
	})
}

// TestOptional: what an engine or a process does not have counts as nothing to
// be done; what it has is called with what was given.
func TestOptional(t *testing.T) {
	t.Parallel()
	p := plainProcess{}
	if engine.Left(p) || engine.Holders(p) != nil || engine.End(p, syscall.SIGTERM, time.Hour) != nil {
		t.Error("a process without the methods has something left")
	}
	engine.Release(p, true)
	if got, err := engine.LookPath(plain{}, "name", "/bin", "/"); got != "name" || err != nil {
		t.Errorf("an engine that finds no programs made %q, %v of a name", got, err)
	}
	if got := engine.Name(p); got != "" {
		t.Errorf("it is called %q", got)
	}
	if engine.OwnTerminal(plain{}, os.Stdin) != nil {
		t.Error("an engine without terminals has one")
	}
	var calls []any
	f := full{calls: &calls}
	for name, x := range map[string]struct {
		engine.Engine
		engine.Process
	}{
		"itself":        {f, f},
		"wrapped":       {wrapper{f}, wrapperProcess{f}},
		"wrapped twice": {wrapper{wrapper{f}}, wrapperProcess{wrapperProcess{f}}},
	} {
		t.Run(name, func(t *testing.T) {
			calls = nil
			e, p := x.Engine, x.Process
			if engine.Name(p) != "f (pid 6)" || !engine.Left(p) || !reflect.DeepEqual(engine.Holders(p), []string{"x (pid 7)"}) ||
				!reflect.DeepEqual(engine.End(p, syscall.SIGINT, time.Minute), []string{"y (pid 8)"}) {
				t.Error("the methods of a process were not called")
			}
			engine.Release(p, true)
			engine.Release(p, false)
			if got, err := engine.LookPath(e, "name", "/bin", "/dir"); got != "/found" || !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%q, %v", got, err)
			}
			engine.OwnTerminal(e, os.Stdin)
			if want := []any{syscall.SIGINT, time.Minute, true, false, []string{"name", "/bin", "/dir"}, "terminal"}; !reflect.DeepEqual(calls, want) {
				t.Errorf("calls %v, want %v", calls, want)
			}
		})
	}
	if engine.Left(wrapperProcess{p}) || engine.Left(wrapperProcess{}) || engine.OwnTerminal(wrapper{}, os.Stdin) != nil {
		t.Error("a wrapper of nothing has something")
	}
}

// wrapper and wrapperProcess add nothing.
type wrapper struct{ engine.Engine }

func (w wrapper) Unwrap() engine.Engine { return w.Engine }

type wrapperProcess struct{ engine.Process }

func (w wrapperProcess) Unwrap() engine.Process { return w.Process }

// TestStatusText: P1, a signal is never taken for an exit code.
func TestStatusText(t *testing.T) {
	t.Parallel()
	core := engine.Killed(syscall.SIGQUIT)
	core.CoreDumped = true
	for _, tt := range []struct {
		st   engine.Status
		text string
		ok   bool
		code int
	}{
		{engine.Status{}, "exit status 0", true, 0},
		{engine.Status{Code: 3}, "exit status 3", false, 3},
		{engine.Status{Err: errors.New("lost")}, "exit status 0", false, 0},
		{engine.Killed(syscall.SIGKILL), "SIGKILL", false, 137},
		{core, "SIGQUIT (core dumped)", false, 131},
	} {
		if tt.st.String() != tt.text || tt.st.OK() != tt.ok || tt.st.Code != tt.code {
			t.Errorf("%+v: %q, ok %v", tt.st, tt.st, tt.st.OK())
		}
	}
}

// TestStartErrorCode: a start that failed has an exit code of its own class.
func TestStartErrorCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  engine.StartError
		code int
	}{
		{engine.StartError{Msg: "m", Err: fs.ErrNotExist}, engine.CodeCannotStart},
		{engine.StartError{Msg: "m", Err: fs.ErrNotExist, Code: engine.CodeNotFound}, 127},
	} {
		if got := tt.err.ExitCode(); got != tt.code || tt.err.Error() != "m" || !errors.Is(&tt.err, fs.ErrNotExist) {
			t.Errorf("%+v: %d, %q", tt.err, got, tt.err.Error())
		}
	}
}
