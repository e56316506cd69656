//go:build linux

package job_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/job"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == job.KeeperArg {
		os.Exit(job.Keeper())
	}
	os.Exit(m.Run())
}

func newStore(t *testing.T) *job.Store {
	t.Helper()
	s := &job.Store{Dir: filepath.Join(t.TempDir(), "state"), LogSize: 4096, LogFiles: 3}
	t.Cleanup(func() {
		list, err := s.List()
		if err != nil {
			t.Error(err)
		}
		for _, i := range list {
			if _, err := s.Stop(context.Background(), i.ID, 0, new(time.Duration)); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

func detached(name string, words ...string) *pipeline.Pipeline {
	s := pipeline.SpawnStep(name, words[0], words[1:]...)
	s.Detached, s.Unref = true, true
	return &pipeline.Pipeline{Steps: []*pipeline.Step{s}}
}

// TestHost: a program that embeds the runner starts a job by a helper that it
// names, finds it, waits for it and reads its log, whose lines and pieces are
// whole over the change of its files.
func TestHost(t *testing.T) {
	s := newStore(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.Helper = []string{exe}
	long := strings.Repeat("x", 40000)
	p := detached("seq", "sh", "-c", "seq 1 3000; echo "+long+"; printf end")
	res, err := (&runner.Runner{Jobs: s, Dir: t.TempDir()}).Run(context.Background(), p)
	if err != nil || res.ExitCode != 0 || res.Steps[0].Job == "" {
		t.Fatalf("%+v, %v", res, err)
	}
	id := res.Steps[0].Job
	info, err := s.Wait(context.Background(), id)
	if err != nil || info.State != job.StateExited || info.ExitCode != 0 || info.Started.IsZero() || info.Ended.Before(info.Started) {
		t.Fatalf("%+v, %v", info, err)
	}
	var text strings.Builder
	err = s.Logs(context.Background(), id, false, func(l job.LogLine) error {
		text.Write(l.Text)
		if !l.Partial {
			text.WriteByte('\n')
		}
		return nil
	})
	if err != nil || !strings.HasSuffix(text.String(), long+"\nend") {
		t.Errorf("%v: the log ends with %.100q", err, text.String()[max(0, text.Len()-100):])
	}
	if found, err := s.Find("seq"); err != nil || found.ID != id {
		t.Errorf("%v, %v", found, err)
	}
	if err := s.Remove(id); err != nil {
		t.Error(err)
	}
	var none *job.NotFoundError
	if _, err := s.Get(id); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", ".", "..", "../x", "/", "jobs", "0000000g", "000000000", "\x00"} {
		if _, err := s.Get(bad); !errors.As(err, &none) {
			t.Errorf("Get(%q): %v", bad, err)
		}
		if err := s.Remove(bad); !errors.As(err, &none) {
			t.Errorf("Remove(%q): %v", bad, err)
		}
	}
}

// awaitFile waits, not for ever, for a file with something in it.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	changes, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = changes.Close() }()
	if err := changes.Add(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	limit := time.After(30 * time.Second)
	for {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return
		}
		select {
		case <-changes.Events:
		case err := <-changes.Errors:
			t.Fatal(err)
		case <-limit:
			t.Fatalf("waited in vain for %s", path)
		}
	}
}

// TestStop: whoever asks, and however often, the job ends once; SIGKILL comes
// after the grace that was given.
func TestStop(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	p := detached("deaf", "sh", "-c", `trap "" TERM INT; echo x >ready; while :; do sleep 0.01; done`)
	start := func() string {
		_ = os.Remove(filepath.Join(dir, "ready"))
		res, err := (&runner.Runner{Jobs: s, Dir: dir}).Run(context.Background(), p)
		if err != nil || res.ExitCode != 0 {
			t.Fatalf("%+v, %v", res, err)
		}
		awaitFile(t, filepath.Join(dir, "ready"))
		return res.Steps[0].Job
	}
	id := start()
	grace := 100 * time.Millisecond
	done := make(chan error, 10)
	for range cap(done) {
		go func() {
			info, err := s.Stop(context.Background(), id, 0, &grace)
			if err == nil && (info.State != job.StateStopped || info.Signal != "SIGKILL") {
				err = errors.New(string(info.State) + " " + info.Signal)
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	id = start()
	cancel()
	if _, err := s.Wait(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a context that is done: %v", err)
	}
	if _, err := s.Stop(context.Background(), id, 0, new(time.Duration)); err != nil {
		t.Error(err)
	}
}
