package job

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// Start starts a job and returns when its processes run; see [runner.Jobs]. Of the
// jobs with the same pipeline file, folder and name only one runs at a time. If it is
// already running, s.IfRunning decides; by default Start fails with a
// [RunningError]. All errors are of type [runner.StartError]; they wrap their cause.
// When ctx is done before the job runs, Start ends the job.
func (s *Store) Start(ctx context.Context, spec *runner.JobSpec) (runner.Job, error) {
	h, err := s.start(ctx, spec)
	var se *runner.StartError
	switch {
	case err == nil:
		return h, nil
	case errors.As(err, &se):
		return nil, err
	}
	return nil, &runner.StartError{Path: spec.Label, Msg: err.Error(), Err: err}
}

func (s *Store) start(ctx context.Context, spec *runner.JobSpec) (*handle, error) {
	if s.Dir == "" {
		return nil, runner.ErrNoState
	}
	names, err := state.Sub(s.Dir, "names")
	if err != nil {
		return nil, err
	}
	if _, err := state.Sub(s.Dir, "jobs"); err != nil {
		return nil, err
	}
	h, err := state.NewHasher(s.Dir)
	if err != nil {
		return nil, err
	}
	key := h.Digest(spec.Job.File, spec.Job.Dir, spec.Label)
	name, err := state.OpenFile(filepath.Join(names, key), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	defer name.Close()
	for {
		held, err := state.TryLock(name)
		if err != nil {
			return nil, err
		}
		if held {
			break
		}
		if err := poll(ctx); err != nil {
			return nil, err
		}
	}
	before := make([]byte, 8)
	if n, _ := name.ReadAt(before, 0); n == len(before) && idForm().Match(before) {
		if info := s.read(string(before)); info != nil && (info.State.Live() || info.kept || len(info.left()) > 0) {
			switch s.IfRunning {
			case "keep":
				return &handle{s, info.ID, true}, nil
			case "restart":
				if _, err := s.Stop(ctx, info.ID, 0, nil); err != nil {
					return nil, err
				}
			default:
				return nil, &RunningError{spec.Label, info.ID}
			}
		}
	}
	id, err := s.folder()
	if err != nil {
		return nil, err
	}
	if _, err = name.WriteAt([]byte(id), 0); err == nil {
		err = s.keeper(ctx, id, spec, h)
	}
	if err != nil {
		_ = os.RemoveAll(s.job(id)) // nothing was started
		return nil, err
	}
	return &handle{s, id, false}, nil
}

// folder chooses the id of a new job, creates the folder of the job, and returns the
// id.
func (s *Store) folder() (string, error) {
	for range 100 {
		b := make([]byte, 4)
		_, _ = rand.Read(b) // never returns an error
		id := hex.EncodeToString(b)
		err := os.Mkdir(s.job(id), 0o700)
		if err == nil {
			err = os.Chmod(s.job(id), 0o700) // the umask may have removed bits
		}
		if !errors.Is(err, os.ErrExist) {
			return id, err
		}
	}
	return "", errors.New("no job id is free; remove old jobs with: pipe prune")
}

// order tells a keeper what to run. The keeper reads it from stdin, as JSON.
type order struct {
	Dir      string // the folder of the job
	File     *file
	Spec     *runner.JobSpec
	LogSize  int64
	LogFiles int
}

// answer is what a keeper writes to stdout, as JSON, when the job runs or could not
// be started.
type answer struct {
	Error string // "": the job runs
	Code  int    // the exit code that belongs to Error
}

// keeper starts the keeper of a job, and returns when the job runs.
func (s *Store) keeper(ctx context.Context, id string, spec *runner.JobSpec, h *state.Hasher) error {
	f := newFile(id, spec, h)
	lock, err := state.OpenFile(filepath.Join(s.job(id), "lock"), os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer lock.Close() // the keeper inherits the descriptor, and with it the lock
	if err := state.Lock(lock); err != nil {
		return err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer inR.Close()
	defer inW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer outR.Close()
	defer outW.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	argv := s.Helper
	path := ""
	if argv == nil {
		argv, path = []string{"pipe"}, "/proc/self/exe"
	} else if path, err = safety.LookPath(argv[0], os.Getenv("PATH"), "/"); err != nil {
		return err
	}
	argv = append(append([]string{}, argv...), KeeperArg, spec.Label)
	proc, err := os.StartProcess(path, argv, &os.ProcAttr{
		Dir:   "/", // so that no file system is kept busy
		Env:   []string{"GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0"},
		Files: []*os.File{inR, outW, null, lock},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("cannot start a keeper: %w", err)
	}
	_ = inR.Close()
	_ = outW.Close()
	go func() { _, _ = proc.Wait() }()
	if s.Keep != nil {
		if err := s.Keep(proc.Pid); err != nil {
			return err
		}
	}
	st, _ := procfs.ReadStat(proc.Pid)
	f.Keeper = Process{proc.Pid, st.Start}
	if err := f.save(s.job(id)); err != nil {
		return err // the keeper exits when it reads EOF instead of an order
	}
	size, files := s.LogSize, s.LogFiles
	if size <= 0 {
		size = 8 << 20
	}
	if files <= 0 {
		files = 5
	}
	o := order{s.job(id), f, spec, size, files}
	armour(reflect.ValueOf(&o.Spec).Elem())
	if err := json.NewEncoder(inW).Encode(o); err != nil {
		return fmt.Errorf("cannot write to the keeper (pid %d): %w", proc.Pid, err)
	}
	_ = inW.Close()
	// A caller that gives up before the job runs wants no grace.
	stop := context.AfterFunc(ctx, func() {
		if data, err := state.Seal(request{Grace: new(time.Duration)}); err == nil {
			_ = state.Replace(filepath.Join(s.job(id), "request"), data)
		}
		_ = signalProcess(f.Keeper, syscall.SIGTERM)
	})
	var a answer
	err = json.NewDecoder(outR).Decode(&a)
	if !stop() { // the caller removes the folder, so wait until the keeper has ended
		for p := f.Keeper; p.Alive(); {
			_ = awaitExit(context.Background(), p)
		}
		return context.Cause(ctx)
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it was killed")
		}
		return fmt.Errorf("the keeper (pid %d) does not answer: %w", proc.Pid, err)
	}
	if a.Error != "" {
		return &runner.StartError{Path: spec.Label, Code: a.Code, Msg: a.Error}
	}
	return nil
}

// armour encodes the strings in v that are not valid UTF-8, which JSON would alter,
// in base64. A leading NUL marks an encoded string: package pipeline rejects text
// that contains a NUL. disarm decodes the strings.
func armour(v reflect.Value) {
	eachString(v, func(s string) string {
		if utf8.ValidString(s) {
			return s
		}
		return "\x00" + base64.StdEncoding.EncodeToString([]byte(s))
	})
}

func disarm(v reflect.Value) {
	eachString(v, func(s string) string {
		if text, ok := strings.CutPrefix(s, "\x00"); ok {
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				return string(b)
			}
		}
		return s
	})
}

// eachString replaces each string in v, except the keys of maps, by what f returns.
// It copies pointers' targets, slices and maps, so that values shared with v do not
// change.
func eachString(v reflect.Value, f func(string) string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			c := reflect.New(v.Type().Elem())
			c.Elem().Set(v.Elem())
			eachString(c.Elem(), f)
			v.Set(c)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				eachString(v.Field(i), f)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			eachString(v.Index(i), f)
		}
	case reflect.Slice:
		if !v.IsNil() {
			c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(c, v)
			for i := range c.Len() {
				eachString(c.Index(i), f)
			}
			v.Set(c)
		}
	case reflect.Map:
		if !v.IsNil() {
			c := reflect.MakeMap(v.Type())
			for _, k := range v.MapKeys() {
				e := reflect.New(v.Type().Elem()).Elem()
				e.Set(v.MapIndex(k))
				eachString(e, f)
				c.SetMapIndex(k, e)
			}
			v.Set(c)
		}
	case reflect.String:
		v.SetString(f(v.String()))
	}
}

// newFile returns the description of a job that has not started yet. It masks
// secrets in parameters and arguments, and records that it did.
func newFile(id string, spec *runner.JobSpec, h *state.Hasher) *file {
	redactor, _ := safety.NewRedactor(spec.Job.Hidden)
	f := &file{Version: version, Boot: procfs.BootID()}
	f.Info = Info{
		ID: id, Name: spec.Label, File: spec.Job.File, Dir: spec.Job.Dir, Params: map[string][]string{}, Command: spec.Command(),
		State: StateStarting, Created: time.Now(), Nested: spec.Job.Nested, Restart: string(spec.Job.Restart.Policy), Environ: environ(spec, h),
	}
	clean := func(words []string) []string {
		out := make([]string, len(words))
		for i, w := range words {
			out[i] = redactor.String(w)
			f.Secret = f.Secret || out[i] != w || !utf8.ValidString(w)
		}
		return out
	}
	for name, words := range spec.Job.Params {
		f.Params[name] = clean(words)
	}
	if spec.Job.Args != nil {
		f.Args = clean(spec.Job.Args)
	}
	clean([]string{spec.Job.Dir, spec.Job.File})
	return f
}

// environ returns the digests of the values of a job's environment variables, by
// name.
func environ(spec *runner.JobSpec, h *state.Hasher) map[string]string {
	out := map[string]string{}
	spec.Each(func(st *step.Stage) {
		for _, kv := range st.Env {
			if name, value, ok := strings.Cut(kv, "="); ok {
				out[name] = h.Digest(value)
			}
		}
	})
	return out
}

// EnvironChanges compares the environment that a job was started with to that of
// spec. It returns "-NAME" for each variable that spec does not have, then "+NAME"
// for each that is new and "~NAME" for each that has another value, sorted in each
// group. Variables of a login session, such as SSH_TTY, are not compared. An error
// means that the state folder cannot be read.
func (s *Store) EnvironChanges(info *Info, spec *runner.JobSpec) ([]string, error) {
	h, err := state.NewHasher(s.Dir)
	if err != nil {
		return nil, err
	}
	now := environ(spec, h)
	var gone, other, fresh []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		switch old, ok := info.Environ[name]; {
		case slices.Contains(state.Volatile, name):
		case !ok:
			fresh = append(fresh, "+"+name)
		case old != now[name]:
			other = append(other, "~"+name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(info.Environ)) {
		if _, ok := now[name]; !ok && !slices.Contains(state.Volatile, name) {
			gone = append(gone, "-"+name)
		}
	}
	return slices.Concat(gone, other, fresh), nil
}

// save writes the file of a job durably: it survives a crash of the machine.
func (f *file) save(dir string) error {
	data, err := state.Seal(f)
	if err != nil {
		return err
	}
	return state.ReplaceSynced(filepath.Join(dir, "job"), data)
}
