// Package state reads and writes the files of the state folder, which holds what
// outlives a run. The files are private to the user. Each line or file has a
// checksum, so that a torn one is detected.
//
// Its functions may be called concurrently, also by several processes.
package state

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Private creates a folder with mode 0700, with its parents. If the folder exists,
// Private checks that it belongs to the user and that no one else can write to it,
// and sets its mode to 0700.
func Private(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := mkdirs(path); err != nil {
			return err
		}
		info, err = os.Lstat(path)
	}
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	}
	if err := owned(path, info); err != nil || !isUnix {
		return err
	}
	switch perm := info.Mode().Perm(); {
	case perm&0o022 != 0: // its content cannot be trusted
		return fmt.Errorf("others can write to %s (mode %04o); see what is in it, and chmod 700 it", path, perm)
	case perm != 0o700:
		return os.Chmod(path, 0o700)
	}
	return nil
}

// mkdirs creates a folder and its parents with mode 0700, whatever the umask.
func mkdirs(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrNotExist) && path != filepath.Dir(path) {
		if err := mkdirs(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Chmod(path, 0o700)
}

// Sub returns the path of a folder in the state folder. It creates both if they do
// not exist; see Private.
func Sub(folder, name string) (string, error) {
	dir := filepath.Join(folder, name)
	err := Private(folder)
	if err == nil {
		err = Private(dir)
	}
	if err != nil {
		return "", err
	}
	return dir, nil
}

// castagnoli is built on first use, because it would slow down each start of the
// program.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// Seal encodes v as one line: a checksum, a space, JSON, and a newline.
func Seal(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(make([]byte, 0, len(body)+10), "%08x %s\n", crc32.Checksum(body, castagnoli()), body), nil
}

// Torn is the predicate of messages about something whose checksum does not match.
const Torn = "is torn or was changed: its checksum does not match"

// ErrTorn reports that the checksum of a line does not match.
var ErrTorn = errors.New("it " + Torn)

// Unseal decodes into v a line that Seal returned. The error is ErrTorn if the
// checksum does not match. A number decoded into an interface is a json.Number.
func Unseal(line []byte, v any) error {
	sum, body, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli())) {
		return ErrTorn
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return d.Decode(v)
}

// Replace replaces the content of a private file atomically: a reader sees either
// the old or the new content. It does not sync: after a crash of the machine the file
// may be torn, which Unseal detects.
func Replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o600), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// ReplaceSynced is like Replace, but durable: when it has returned without an error,
// the new content survives a crash of the machine. Only one writer at a time may
// replace a file.
func ReplaceSynced(path string, data []byte) error {
	tmp := path + ".new"
	f, err := OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Lock takes the exclusive lock of a file. Because Held takes the lock for a moment,
// Lock tries again for two seconds before it returns an error.
func Lock(f *os.File) error {
	for range 400 {
		held, err := TryLock(f)
		if err != nil || held {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s is locked by another process", f.Name())
}

// Held reports whether another open file holds the exclusive lock of a file. It takes
// a shared lock for the test, which f holds until it is closed if Held returns false.
func Held(f *os.File) bool {
	free, err := tryShared(f)
	return err == nil && !free
}

// maxState is how much Read reads of a file at most, in bytes.
const maxState = 1 << 30

// Read returns the content of a file of the state folder; see Open.
func Read(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxState))
}

// Open opens a file of the state folder for reading. It returns an error if the file
// is a symbolic link, is not a regular file or belongs to another user.
func Open(path string) (*os.File, error) {
	f, err := OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		err = owned(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Hasher makes keyed digests. Because a digested value may be a password, a digest
// must not allow anyone without the key to test guesses. The zero Hasher has an empty
// key. A Hasher may be used concurrently.
type Hasher struct{ key []byte }

// NewHasher returns a Hasher with the key of a state folder. It creates the folder
// and the key if they do not exist.
func NewHasher(folder string) (*Hasher, error) {
	if err := Private(folder); err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "key")
	for range 3 {
		key, err := Read(path)
		switch {
		case err == nil && len(key) == sha256.Size:
			return &Hasher{key}, nil
		case err == nil: // torn by a crash of the machine
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
		key = make([]byte, sha256.Size)
		_, _ = rand.Read(key) // never returns an error
		tmp := path + "." + hex.EncodeToString(key[:8])
		if err := os.WriteFile(tmp, key, 0o600); err != nil {
			return nil, err
		}
		err = os.Link(tmp, path) // if another process was first, use its key
		_ = os.Remove(tmp)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s cannot be created", path)
}

// Digest returns the digest of a list of words, in hexadecimal. The lists {"ab"} and
// {"a", "b"} have different digests.
func (h *Hasher) Digest(words ...string) string {
	s := sha256.New()
	s.Write(h.key)
	for _, w := range words {
		var n [8]byte
		for i := range n {
			n[i] = byte(len(w) >> (8 * i))
		}
		s.Write(n[:])
		io.WriteString(s, w) //nolint:errcheck // a hash never returns an error
	}
	return hex.EncodeToString(s.Sum(nil)[:16])
}

// DigestOf returns the digest of what r returns up to EOF, in hexadecimal. The error
// is that of r.
func (h *Hasher) DigestOf(r io.Reader) (string, error) {
	s := sha256.New()
	s.Write(h.key)
	if _, err := io.Copy(s, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(s.Sum(nil)[:16]), nil
}

// Volatile lists the environment variables that belong to a terminal or a login
// session. They differ from call to call, and are left out where environments are
// compared.
var Volatile = []string{
	"_", "SHLVL", "PWD", "OLDPWD", "TERM", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "COLUMNS", "LINES", "WINDOWID",
	"TMUX", "TMUX_PANE", "STY", "GPG_TTY", "SSH_TTY", "SSH_CLIENT", "SSH_CONNECTION", "SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
	"XDG_SESSION_ID", "DBUS_SESSION_BUS_ADDRESS", "INVOCATION_ID", "JOURNAL_STREAM", "PS1", "HISTFILE", "PIPE_STATE_DIR",
}
