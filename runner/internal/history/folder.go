package history

import (
	"errors"
	"fmt"
	"path/filepath"
)

// StateDir returns the state folder, which holds what outlives a run:
// the first of $PIPE_STATE_DIR, $XDG_STATE_HOME/pipe and $HOME/.local/state/pipe whose
// variable is set to an absolute path. environ is a list of NAME=VALUE. The error is
// ErrNoState if there is none; a PIPE_STATE_DIR that is not absolute is another error.
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
		return "", fmt.Errorf("PIPE_STATE_DIR is %q; expected an absolute path", env["PIPE_STATE_DIR"])
	case filepath.IsAbs(env["XDG_STATE_HOME"]):
		return filepath.Join(env["XDG_STATE_HOME"], "pipe"), nil
	case filepath.IsAbs(env["HOME"]):
		return filepath.Join(env["HOME"], ".local", "state", "pipe"), nil
	}
	return "", ErrNoState
}

// ErrNoState reports that the environment names no state folder.
var ErrNoState = errors.New("there is no folder for state: none of PIPE_STATE_DIR, XDG_STATE_HOME and HOME is set to an absolute path")
