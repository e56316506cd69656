package runner

// This file holds the folder for what outlives a run, and how files are kept in
// it: each line or file with a checksum, so that a torn one is known.

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
)

// StateDir returns the folder where runs keep what outlives them: PIPE_STATE_DIR,
// or pipe in XDG_STATE_HOME, or in .local/state of the home folder. environ is
// a list of NAME=value.
func StateDir(environ []string) (string, error) {
	env := map[string]string{}
	for _, kv := range environ {
		for _, name := range []string{"PIPE_STATE_DIR", "XDG_STATE_HOME", "HOME"} {
			if len(kv) > len(name) && kv[:len(name)+1] == name+"=" {
				env[name] = kv[len(name)+1:]
			}
		}
	}
	switch {
	case filepath.IsAbs(env["PIPE_STATE_DIR"]):
		return env["PIPE_STATE_DIR"], nil
	case env["PIPE_STATE_DIR"] != "":
		return "", fmt.Errorf("PIPE_STATE_DIR is %q, and not an absolute path", env["PIPE_STATE_DIR"])
	case filepath.IsAbs(env["XDG_STATE_HOME"]):
		return filepath.Join(env["XDG_STATE_HOME"], "pipe"), nil
	case filepath.IsAbs(env["HOME"]):
		return filepath.Join(env["HOME"], ".local", "state", "pipe"), nil
	}
	return "", ErrNoState
}

// ErrNoState tells that nothing names a folder for state.
var ErrNoState = errors.New("there is no folder for state: none of PIPE_STATE_DIR, XDG_STATE_HOME and HOME is set to an absolute path")

// privateDir makes a folder that is the user's alone, and checks one that is
// there.
func privateDir(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		info, err = os.Lstat(path)
	}
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case info.Mode().Perm()&0o077 != 0 && isUnix:
		return fmt.Errorf("%s can be used by others (mode %04o); chmod 700 it", path, info.Mode().Perm())
	}
	return owned(path, info)
}

// stateSub returns a folder of the state folder, made if need be.
func stateSub(state, name string) (string, error) {
	dir := filepath.Join(state, name)
	if err := errors.Join(privateDir(state), privateDir(dir)); err != nil {
		return "", err
	}
	return dir, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal returns a value as one line of JSON behind its checksum.
func seal(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(make([]byte, 0, len(body)+10), "%08x %s\n", crc32.Checksum(body, castagnoli), body), nil
}

var errTorn = errors.New("it is torn or was changed: its checksum does not hold")

// unseal reads a line that seal made into v.
func unseal(line []byte, v any) error {
	sum, body, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) {
		return errTorn
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return d.Decode(v)
}

// replaceFile writes a private file so that a reader sees the old or the new
// one. It is not synced: after a crash of the machine it may be torn, which its
// checksum tells.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// maxState bounds a file of state that is read, in bytes.
const maxState = 1 << 30

// readState reads a file of the state folder; one that is a link, or no regular
// file, or belongs to somebody else, is an error.
func readState(path string) ([]byte, error) {
	f, err := openState(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxState))
}

func openState(path string) (*os.File, error) {
	f, err := openPrivate(path, os.O_RDONLY)
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

// hasher makes digests that tell nothing to who does not have the key, not even
// by trying: what is digested may be a password.
type hasher struct{ key []byte }

// newHasher reads the key of a state folder, made on first use.
func newHasher(state string) (*hasher, error) {
	if err := privateDir(state); err != nil {
		return nil, err
	}
	path := filepath.Join(state, "key")
	for range 3 {
		key, err := readState(path)
		switch {
		case err == nil && len(key) == sha256.Size:
			return &hasher{key}, nil
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

// digest returns the digest of words, each apart from the next.
func (h *hasher) digest(words ...string) string {
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

// digestOf returns the digest of what a reader gives.
func (h *hasher) digestOf(r io.Reader) (string, error) {
	s := sha256.New()
	s.Write(h.key)
	if _, err := io.Copy(s, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(s.Sum(nil)[:16]), nil
}
