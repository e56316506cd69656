// Package job starts and controls jobs: processes that outlive the runner that
// started them.
//
// Each job has a folder and a keeper. The keeper is a small process that is the
// parent of the job's processes, writes the log and records how the job ended. There
// is no daemon: a program finds the jobs of a user by their files alone. A keeper
// holds a lock (flock) on a file for as long as it lives. A process is identified by
// its pid, its start time and the boot of the machine, so that a reused pid is never
// mistaken for the process.
//
// Jobs can be started on Linux only.
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

// Store gives access to the jobs in a state folder. Dir must be set. The methods of
// a Store, and several Stores in several processes, may be used concurrently; the
// fields must not be changed meanwhile.
type Store struct {
	// Dir is the state folder, as an absolute path; see [runner.StateDir].
	Dir string
	// Helper is the command that runs a keeper: a program, and arguments that
	// precede [KeeperArg]. The program must call [Keeper] when it is run with
	// KeeperArg. If Helper is nil, the keeper is this program.
	Helper []string
	// Keep, if not nil, is called with the pid of each new keeper before the
	// keeper starts the job. A program that has entered a guard sets it to
	// (*guard.Guard).Keep.
	Keep func(pid int) error
	// LogSize is the size in bytes beyond which a log file is rotated; 0 means
	// 8 MiB. LogFiles is the maximum number of files of a log; 0 means 5.
	LogSize  int64
	LogFiles int
	// IfRunning says what Start does if the job is already running: "keep" leaves
	// it running, "restart" stops it first. With any other value Start fails.
	IfRunning string
}

// KeeperArg is the argument that tells a program to call [Keeper].
const KeeperArg = procfs.KeeperArg

// State is the state of a job.
type State string

// The states of a job.
const (
	StateStarting   State = "starting"
	StateRunning    State = "running"
	StateRestarting State = "restarting" // it has ended and will be started again
	StateStopping   State = "stopping"
	StateExited     State = "exited"     // it ended by itself; see Info.ExitCode
	StateStopped    State = "stopped"    // Stop ended it
	StateFailed     State = "failed"     // it could not be started, or ended too often
	StateLost       State = "lost"       // its keeper is gone, and how it ended is unknown; see Info.Problem
	StateUnreadable State = "unreadable" // its file cannot be read; see Info.Problem
)

// Live reports whether the job is starting, running, restarting or stopping.
func (s State) Live() bool {
	return s == StateStarting || s == StateRunning || s == StateRestarting || s == StateStopping
}

// Process identifies a process in this boot of the machine, even if its pid is
// reused. The zero value identifies none.
type Process struct {
	Pid   int    `json:"pid"`
	Start string `json:"start"` // start time, in clock ticks since boot
}

// Alive reports whether the process exists and is not a zombie.
func (p Process) Alive() bool {
	s, ok := procfs.ReadStat(p.Pid)
	return ok && p.Start != "" && s.Start == p.Start && s.State != 'Z'
}

// Info describes a job at the time when it was read. It is not updated.
type Info struct {
	ID      string              `json:"id"`
	Name    string              `json:"name"`           // the name of the step
	File    string              `json:"file,omitempty"` // the pipeline file
	Dir     string              `json:"dir"`            // the folder where the pipeline was run
	Params  map[string][]string `json:"params,omitempty"`
	Args    []string            `json:"args,omitempty"`
	Secret  bool                `json:"secret,omitempty"` // Params or Args held a secret or invalid UTF-8, and are altered
	Command string              `json:"command"`
	State   State               `json:"state"`
	// ExitCode, Signal, Reason and Error say how the job ended the last time, as
	// in a runner.Result. ExitCode is 128+N if signal N ended the job.
	ExitCode int           `json:"exitCode"`
	Signal   string        `json:"signal,omitempty"`
	Reason   runner.Reason `json:"reason,omitempty"`
	Error    string        `json:"error,omitempty"`
	Problem  string        `json:"problem,omitempty"` // why the job is lost or unreadable
	Created  time.Time     `json:"created"`
	Started  time.Time     `json:"started,omitzero"` // the last start
	Ended    time.Time     `json:"ended,omitzero"`   // the last end; zero while the job runs
	Restarts int           `json:"restarts"`
	Restart  string        `json:"restart"`             // the restart policy
	Pids     []Process     `json:"processes,omitempty"` // the processes that the step started directly
	Keeper   Process       `json:"keeper"`
	LogLost  int64         `json:"logLost,omitempty"` // bytes of output that could not be written to the log

	// Nested reports that a pipeline that another one runs started the job.
	Nested bool `json:"nested,omitempty"`
	// Environ holds a keyed digest of the value of each environment variable that
	// the job was started with, by name.
	Environ map[string]string `json:"environ,omitempty"`

	kept bool // the keeper was alive
}

// file is the content of the file "job" in the folder of a job.
type file struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"` // the boot id of the machine
	Info
}

// version is the version of the format of file. Other versions are not read.
const version = 1

var idForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{8}$`) })

// job returns the folder of a job.
func (s *Store) job(id string) string { return filepath.Join(s.Dir, "jobs", id) }

// NotFoundError reports that a name or id matches no job, or more than one.
type NotFoundError struct {
	Name string
	Jobs []string // the id, name and file of each job that matches; nil if none does
}

// Error returns the message, with the jobs that match.
func (e *NotFoundError) Error() string {
	if len(e.Jobs) == 0 {
		return fmt.Sprintf("there is no job %q; pipe jobs --all lists them", e.Name)
	}
	return fmt.Sprintf("job %q is ambiguous; it could be %s; give an id", e.Name, strings.Join(e.Jobs, ", "))
}

// RunningError reports that Start did not start a job because it is already running.
type RunningError struct{ Name, ID string }

// Error returns the message, with the commands that stop and restart the job.
func (e *RunningError) Error() string {
	return fmt.Sprintf("job %s is running already, as %s; pipe stop %s ends it, pipe restart %s starts it anew, and pipe run --if-running keep leaves it as it is", e.Name, e.ID, e.ID, e.ID)
}

// List returns all jobs, the latest first. A job that cannot be read is listed as
// StateUnreadable; it is not an error.
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

// Find returns the job with an id or a name, or with an unambiguous prefix of
// either. If several jobs of the same step have the name, Find returns the live one
// or else the latest. The error may be a [NotFoundError].
func (s *Store) Find(name string) (*Info, error) {
	if info, err := s.Get(name); err == nil { // saves reading all other jobs
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

// Get returns the job with an id. The error is a [NotFoundError].
func (s *Store) Get(id string) (*Info, error) {
	if idForm().MatchString(id) {
		if info := s.read(id); info != nil {
			return info, nil
		}
	}
	return nil, &NotFoundError{Name: id}
}

// load reads the file of a job.
func (s *Store) load(id string) (*file, error) {
	data, err := state.Read(filepath.Join(s.job(id), "job"))
	if err != nil {
		return nil, err
	}
	f := &file{}
	if err := state.Unseal(data, f); err != nil {
		return nil, errors.New("its file is torn or was changed: the checksum does not match")
	}
	switch {
	case f.Version != version:
		return nil, fmt.Errorf("its file is of format %d, and this program reads %d", f.Version, version)
	case f.ID != id:
		return nil, fmt.Errorf("its file belongs to job %.20q", f.ID)
	}
	return f, nil
}

// read returns the description of a job, or nil if the job does not exist. It never
// fails: a job whose file cannot be read is StateUnreadable.
func (s *Store) read(id string) *Info {
	held := s.kept(id) // first, so that the file has all that a keeper wrote before it ended
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
			info.Problem = "its file is missing: the start of the job was interrupted"
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
			info.Pids, info.Keeper = nil, Process{} // in this boot the pids are those of other processes
		default:
			info.Problem = "its keeper was killed"
			if left := info.left(); len(left) > 0 {
				info.Problem += fmt.Sprintf("; %d of its processes still run", len(left))
			}
		}
	}
	return info
}

// kept reports whether the keeper of a job is alive.
func (s *Store) kept(id string) bool {
	f, err := state.Open(filepath.Join(s.job(id), "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return state.Held(f)
}

// Remove removes a job with its log. It returns an error if the job is live, its
// keeper is alive or any of its processes is left.
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
	root, err := os.OpenRoot(filepath.Join(s.Dir, "jobs")) // so that nothing outside of the folder can be removed
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return root.RemoveAll(id)
}

// Prune removes all jobs that are not live and ended longer ago than age, with their
// logs. It returns their ids, and the errors for the jobs that it could not remove.
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
		if err := s.Remove(i.ID); err != nil { // go on with the others
			if i.State != StateUnreadable {
				errs = errors.Join(errs, err)
			}
			continue
		}
		out = append(out, i.ID)
	}
	return out, errs
}

// Kept reports whether the keeper of the job was alive when the job was read.
func (i *Info) Kept() bool { return i.kept }

// left returns the pids of the remaining processes of a lost job. These are the
// processes in the sessions that the job's first processes lead or led: the kernel
// does not reuse a session id while the session has members.
func (i *Info) left() []int {
	if i.State != StateLost {
		return nil
	}
	var out []int
	for _, p := range i.Pids {
		if s, ok := procfs.ReadStat(p.Pid); ok && s.Start != p.Start {
			continue // the pid was reused
		}
		out = append(out, procfs.InSession(p.Pid)...)
	}
	return out
}

// findKeeper searches for the keeper of a job whose file cannot be read: the process
// that has the lock open as descriptor 3. It returns the zero Process if there is
// none.
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

// Usage is the resource usage of the processes of a job.
type Usage struct {
	Processes int           // number of processes
	CPU       time.Duration // user and system time of the processes that exist
	RSS       int64         // resident memory in bytes; shared pages count once per process
}

// Usage measures the resource usage of a job now. It returns the zero Usage if the
// job is not live.
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

// end converts the end of the job to what [runner.Job] reports.
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
