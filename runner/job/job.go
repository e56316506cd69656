// Package job keeps jobs: processes that outlive the runner that started them.
//
// A job has a folder of its own, and a keeper: a small process that is its
// parent, owns its log and writes down how it ended. There is no daemon; every
// process finds the jobs of its user by their files alone. That a keeper lives
// is known by the kernel's lock of a file, and a process by its pid, the time
// when it was started and the boot of the machine, so that a number that is used
// again is never taken for it.
package job

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/internal/procfs"
	"github.com/pipe-runner/pipe/runner/internal/state"
)

// Store is the jobs of a state folder. Its methods may be called by several
// goroutines and processes at once. The zero value is not usable.
type Store struct {
	Dir string // the state folder, absolute; see [runner.StateDir]
	// Helper is what is run as a keeper, before the arguments that make it one:
	// a program whose main calls [Keeper] where its first argument is
	// [KeeperArg]. nil: this program.
	Helper []string
	// Keep, if not nil, is told the pid of each keeper before that has anything
	// to keep: (*guard.Guard).Keep, in a program that has entered a guard.
	Keep func(pid int) error
	// LogSize is the size, in bytes, past which a file of a log is put aside, and
	// LogFiles how many of them there are at most; 0: 8 MiB and 5.
	LogSize  int64
	LogFiles int
	// IfRunning says what Start does where the job is there already: "keep" it,
	// "restart" it, or fail ("").
	IfRunning string
}

// KeeperArg is the first argument of a program that is to be a keeper.
const KeeperArg = procfs.KeeperArg

// State says how it is with a job.
type State string

// The states of a job.
const (
	StateStarting   State = "starting"
	StateRunning    State = "running"
	StateRestarting State = "restarting" // it has ended, and is to be started again
	StateStopping   State = "stopping"
	StateExited     State = "exited"     // by itself, with ExitCode
	StateStopped    State = "stopped"    // it was asked to
	StateFailed     State = "failed"     // it could not be started, or ended too often
	StateLost       State = "lost"       // its keeper is gone: how it ended is not known; see Problem
	StateUnreadable State = "unreadable" // see Problem
)

// Live reports whether the job goes on.
func (s State) Live() bool {
	return s == StateStarting || s == StateRunning || s == StateRestarting || s == StateStopping
}

// Process is a process that is known beyond its pid.
type Process struct {
	Pid   int    `json:"pid"`
	Start string `json:"start"` // in ticks since boot
}

// Alive reports whether the process is there, in this boot of the machine.
func (p Process) Alive() bool {
	s, ok := procfs.ReadStat(p.Pid)
	return ok && p.Start != "" && s.Start == p.Start && s.State != 'Z'
}

// Info is what is known of a job.
type Info struct {
	ID       string              `json:"id"`
	Name     string              `json:"name"` // of the step
	File     string              `json:"file,omitempty"`
	Dir      string              `json:"dir"` // where the pipeline was run
	Params   map[string][]string `json:"params,omitempty"`
	Args     []string            `json:"args,omitempty"`
	Secret   bool                `json:"secret,omitempty"` // Params or Args held one, or no text, and are not as they were
	Command  string              `json:"command"`
	State    State               `json:"state"`
	ExitCode int                 `json:"exitCode"` // of the last end, as a shell would report it
	Signal   string              `json:"signal,omitempty"`
	Reason   runner.Reason       `json:"reason,omitempty"`
	Error    string              `json:"error,omitempty"`
	Problem  string              `json:"problem,omitempty"` // why it is lost or unreadable
	Created  time.Time           `json:"created"`
	Started  time.Time           `json:"started,omitzero"` // the last time
	Ended    time.Time           `json:"ended,omitzero"`   // the last time; zero while it runs
	Restarts int                 `json:"restarts"`
	Restart  string              `json:"restart"` // policy
	Pids     []Process           `json:"processes,omitempty"`
	Keeper   Process             `json:"keeper"`
	LogLost  int64               `json:"logLost,omitempty"` // bytes of output that could not be written

	// Nested says that a pipeline that another one runs started it.
	Nested bool `json:"nested,omitempty"`
	// Environ has digests of the variables that the job was started with.
	Environ map[string]string `json:"environ,omitempty"`

	kept bool // its keeper lives
}

// file is what stands in the file of a job.
type file struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
	Info
}

// version is that of the format. A file of another one is not read.
const version = 1

var idForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{8}$`) })

// job returns the folder of a job.
func (s *Store) job(id string) string { return filepath.Join(s.Dir, "jobs", id) }

// NotFoundError tells that no job, or more than one, has a name.
type NotFoundError struct {
	Name string
	Jobs []string // that it could be: id, name and file of each; nil: there is none
}

// Error says which.
func (e *NotFoundError) Error() string {
	if len(e.Jobs) == 0 {
		return fmt.Sprintf("there is no job %q; pipe jobs --all lists them", e.Name)
	}
	return fmt.Sprintf("%q could be any of %s; give an id", e.Name, strings.Join(e.Jobs, ", "))
}

// RunningError tells that a job is there already.
type RunningError struct{ Name, ID string }

// Error says which.
func (e *RunningError) Error() string {
	return fmt.Sprintf("job %s is running already, as %s; pipe stop %s ends it, pipe restart %s starts it anew", e.Name, e.ID, e.ID, e.ID)
}

// List returns all jobs, the latest first.
func (s *Store) List() ([]*Info, error) {
	dir, err := state.Sub(s.Dir, "jobs")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]*Info, 0, len(entries))
	for _, e := range entries {
		if idForm().MatchString(e.Name()) {
			if info := s.read(e.Name()); info != nil {
				out = append(out, info)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Info) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// Find returns the job with an id, a name, or the beginning of either that no
// other one has. Of several of a name it is the one that goes on, if there is
// one, and else the latest. The error may be a [NotFoundError].
func (s *Store) Find(name string) (*Info, error) {
	if info, err := s.Get(name); err == nil { // without a look at all others
		return info, nil
	}
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, match := range []func(*Info) bool{
		func(i *Info) bool { return i.Name == name && i.State.Live() },
		func(i *Info) bool { return i.Name == name },
		func(i *Info) bool {
			return (strings.HasPrefix(i.ID, name) || strings.HasPrefix(i.Name, name)) && i.State.Live()
		},
		func(i *Info) bool { return strings.HasPrefix(i.ID, name) || strings.HasPrefix(i.Name, name) },
	} {
		var found []*Info
		for _, i := range list {
			if name != "" && match(i) {
				found = append(found, i)
			}
		}
		if len(found) == 0 {
			continue
		}
		same := func(i *Info) bool { return i.Name == found[0].Name && i.File == found[0].File && i.Dir == found[0].Dir }
		if len(found) > 1 && (found[1].State.Live() || slices.ContainsFunc(found, func(i *Info) bool { return !same(i) })) {
			e := &NotFoundError{Name: name}
			for _, i := range found {
				e.Jobs = append(e.Jobs, fmt.Sprintf("%s (%s of %s)", i.ID, i.Name, i.File))
			}
			return nil, e
		}
		return found[0], nil
	}
	return nil, &NotFoundError{Name: name}
}

// Get returns the job with an id. The error may be a [NotFoundError].
func (s *Store) Get(id string) (*Info, error) {
	if idForm().MatchString(id) {
		if info := s.read(id); info != nil {
			return info, nil
		}
	}
	return nil, &NotFoundError{Name: id}
}

// load reads the file of a job, without a look at its keeper.
func (s *Store) load(id string) (*file, error) {
	data, err := state.Read(filepath.Join(s.job(id), "job"))
	if err != nil {
		return nil, err
	}
	f := &file{}
	if err := state.Unseal(data, f); err != nil {
		return nil, errors.New("its file is torn or was changed: the checksum does not hold")
	}
	switch {
	case f.Version != version:
		return nil, fmt.Errorf("its file is of format %d, and this program reads %d", f.Version, version)
	case f.ID != id:
		return nil, fmt.Errorf("its file is that of job %.20q", f.ID)
	}
	return f, nil
}

// read returns what is known of a job; nil if it is gone.
func (s *Store) read(id string) *Info {
	held := s.kept(id) // first: what is written before the lock is given up is seen
	f, err := s.load(id)
	if err != nil {
		if _, serr := os.Lstat(s.job(id)); errors.Is(serr, fs.ErrNotExist) {
			return nil
		}
		info := &Info{ID: id, Name: "?", State: StateUnreadable, Problem: err.Error(), kept: held}
		if held {
			info.Keeper = s.findKeeper(id)
			info.Problem += "; its keeper lives"
			return info
		}
		if errors.Is(err, fs.ErrNotExist) {
			info.Problem = "its file is missing: it was killed while it was started"
		}
		return info
	}
	info := &f.Info
	info.kept = held
	if !held && info.State.Live() {
		info.State = StateLost
		switch boot := procfs.BootID(); {
		case f.Boot != boot:
			info.Problem = "the machine was started anew"
			info.Pids, info.Keeper = nil, Process{} // they are others now, if they are
		default:
			info.Problem = "its keeper was killed"
			if left := info.left(); len(left) > 0 {
				info.Problem += fmt.Sprintf("; of its processes %d are still there", len(left))
			}
		}
	}
	return info
}

// kept reports whether the keeper of a job lives.
func (s *Store) kept(id string) bool {
	f, err := state.Open(filepath.Join(s.job(id), "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return state.Held(f)
}

// Remove removes a job that does not go on, with its log.
func (s *Store) Remove(id string) error {
	info, err := s.Get(id)
	if err != nil {
		return err
	}
	if info.State.Live() {
		return fmt.Errorf("job %s is %s; stop it first", id, info.State)
	}
	if left := info.left(); len(left) > 0 {
		return fmt.Errorf("job %s is lost, but its process %d is still there; stop it first", id, left[0])
	}
	lock, err := state.Open(filepath.Join(s.job(id), "lock"))
	switch {
	case err == nil:
		defer lock.Close()
		if free, err := state.TryLock(lock); err != nil || !free {
			return fmt.Errorf("job %s is being started, or its keeper lives; stop it first", id)
		}
	case info.State == StateUnreadable:
		if st, err := os.Lstat(s.job(id)); err == nil && time.Since(st.ModTime()) < time.Minute {
			return fmt.Errorf("job %s is being started", id)
		}
	}
	root, err := os.OpenRoot(filepath.Join(s.Dir, "jobs")) // nothing outside of it is ever removed
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return root.RemoveAll(id)
}

// Prune removes all jobs that do not go on and ended longer ago than age. It
// returns their ids.
func (s *Store) Prune(age time.Duration) ([]string, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var out []string
	var errs error
	for _, i := range list {
		last := i.Ended
		if last.IsZero() {
			last = i.Created
		}
		if i.State.Live() || age > 0 && time.Since(last) < age {
			continue
		}
		if err := s.Remove(i.ID); err != nil { // it is no reason to keep the others
			if i.State != StateUnreadable {
				errs = errors.Join(errs, err)
			}
			continue
		}
		out = append(out, i.ID)
	}
	return out, errs
}

// Kept reports whether the keeper of the job lived when it was looked at.
func (i *Info) Kept() bool { return i.kept }

// left returns the processes of a lost job that are still there: those that it
// began with, and what is in the sessions that they led. The number of a session
// is not used again while it has members.
func (i *Info) left() []int {
	if i.State != StateLost {
		return nil
	}
	var out []int
	for _, p := range i.Pids {
		if s, ok := procfs.ReadStat(p.Pid); ok && s.Start != p.Start {
			continue // the number is another one's
		}
		out = append(out, procfs.InSession(p.Pid)...)
	}
	return out
}

// findKeeper returns the keeper of a job, by the lock that it has open.
func (s *Store) findKeeper(id string) Process {
	lock, err := filepath.EvalSymlinks(filepath.Join(s.job(id), "lock"))
	if err != nil {
		return Process{}
	}
	for _, pid := range procfs.All() {
		if name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", pid)); err == nil && name == lock {
			if st, ok := procfs.ReadStat(pid); ok {
				return Process{pid, st.Start}
			}
		}
	}
	return Process{}
}

// Usage is what the processes of a job use now.
type Usage struct {
	Processes int
	CPU       time.Duration // of those that live
	RSS       int64         // bytes; what they share counts several times
}

// Usage returns what the processes of a job use; zero where it does not go on.
func (i *Info) Usage() Usage {
	var u Usage
	if !i.State.Live() || !i.Keeper.Alive() {
		return u
	}
	for _, pid := range procfs.Descendants(i.Keeper.Pid) {
		if s, ok := procfs.ReadStat(pid); ok && s.State != 'Z' {
			u.Processes++
			u.CPU += s.CPU
			u.RSS += s.RSS
		}
	}
	return u
}

// end returns how the job ended, as the runner sees it.
func (i *Info) end() runner.JobEnd {
	e := runner.JobEnd{Reason: i.Reason, Exit: runner.Status{Code: i.ExitCode}}
	if i.Signal != "" {
		e.Exit.Signal = syscall.Signal(i.ExitCode - 128)
	}
	switch i.State {
	case StateLost, StateUnreadable:
		e.Err, e.Exit.Code = fmt.Errorf("job %s is lost: %s", i.ID, i.Problem), 1
		e.Reason = runner.ReasonExit
	case StateStopped:
		e.Err = fmt.Errorf("job %s was stopped", i.ID)
		if e.Reason == "" {
			e.Reason = runner.ReasonSignal
		}
		if e.Exit.Code == 0 {
			e.Exit.Code = 143
		}
	case StateFailed:
		e.Err, e.Exit.Code = errors.New(i.Error), max(1, i.ExitCode)
		if e.Reason == "" {
			e.Reason = runner.ReasonExit
		}
	}
	return e
}
