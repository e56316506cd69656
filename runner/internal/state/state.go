// Package state keeps files in the folder for what outlives a run: private to
// the user, each line or file with a checksum, so that a torn one is known.
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

// Private makes a folder that is the user's alone, and checks one that is
// there.
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
	case perm&0o022 != 0: // who knows what is in it
		return fmt.Errorf("others can write to %s (mode %04o); see what is in it, and chmod 700 it", path, perm)
	case perm != 0o700:
		return os.Chmod(path, 0o700)
	}
	return nil
}

// mkdirs makes a folder and those above it, for the user alone whatever the
// umask is.
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

// Sub returns a folder of the state folder, made if need be.
func Sub(folder, name string) (string, error) {
	dir := filepath.Join(folder, name)
	if err := errors.Join(Private(folder), Private(dir)); err != nil {
		return "", err
	}
	return dir, nil
}

// castagnoli is made on first use: it would cost each start of the program.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// Seal returns a value as one line of JSON behind its checksum.
func Seal(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(make([]byte, 0, len(body)+10), "%08x %s\n", crc32.Checksum(body, castagnoli()), body), nil
}

// Torn is what there is to say of something whose checksum does not hold.
const Torn = "is torn or was changed: its checksum does not hold"

// ErrTorn tells that a line is not as Seal made it.
var ErrTorn = errors.New("it " + Torn)

// Unseal reads a line that Seal made into v.
func Unseal(line []byte, v any) error {
	sum, body, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli())) {
		return ErrTorn
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return d.Decode(v)
}

// Replace writes a private file so that a reader sees the old or the new
// one. It is not synced: after a crash of the machine it may be torn, which its
// checksum tells.
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

// ReplaceSynced is Replace that survives a crash of the machine: when it has
// returned, the new file is there. One writer at a time may replace a file.
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

// Lock takes the lock of a file that others may look at for a moment: it waits
// for that long, and no longer.
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

// Held reports whether the lock of a file is taken by somebody who keeps it.
func Held(f *os.File) bool {
	free, err := tryShared(f)
	return err == nil && !free
}

// maxState bounds a file of state that is read, in bytes.
const maxState = 1 << 30

// Read reads a file of the state folder; one that is a link, or no regular
// file, or belongs to somebody else, is an error.
func Read(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxState))
}

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

// Hasher makes digests that tell nothing to who does not have the key, not even
// by trying: what is digested may be a password.
type Hasher struct{ key []byte }

// NewHasher reads the key of a state folder, made on first use.
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
		_, _ = rand.Read(key) // it cannot fail
		tmp := path + "." + hex.EncodeToString(key[:8])
		if err := os.WriteFile(tmp, key, 0o600); err != nil {
			return nil, err
		}
		err = os.Link(tmp, path) // who comes second takes the first one's
		_ = os.Remove(tmp)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s cannot be made", path)
}

// Digest returns the digest of words, each apart from the next.
func (h *Hasher) Digest(words ...string) string {
	s := sha256.New()
	s.Write(h.key)
	for _, w := range words {
		var n [8]byte
		for i := range n {
			n[i] = byte(len(w) >> (8 * i))
		}
		s.Write(n[:])
		io.WriteString(s, w) //nolint:errcheck // it cannot fail
	}
	return hex.EncodeToString(s.Sum(nil)[:16])
}

// DigestOf returns the digest of what a reader gives.
func (h *Hasher) DigestOf(r io.Reader) (string, error) {
	s := sha256.New()
	s.Write(h.key)
	if _, err := io.Copy(s, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(s.Sum(nil)[:16]), nil
}

// Volatile are variables of a session, on which no program's result depends
// but by intent.
var Volatile = []string{
	"_", "SHLVL", "PWD", "OLDPWD", "TERM", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "COLUMNS", "LINES", "WINDOWID",
	"TMUX", "TMUX_PANE", "STY", "GPG_TTY", "SSH_TTY", "SSH_CLIENT", "SSH_CONNECTION", "SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
	"XDG_SESSION_ID", "DBUS_SESSION_BUS_ADDRESS", "INVOCATION_ID", "JOURNAL_STREAM", "PS1", "HISTFILE", "PIPE_STATE_DIR",
}
