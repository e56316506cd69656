package job

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline/signame"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/internal/state"
	"github.com/pipe-runner/pipe/runner/internal/step"
)

// Unit returns the text of a systemd unit file that does what a job does. If spec is
// a single program without shell, input, secrets or timeouts, systemd runs the program
// itself, with the environment of spec without the variables of a login session.
// Otherwise systemd runs the job's step with "pipe run --foreground"; pipe is the path
// of that program. The error says that the program of spec was not found.
func Unit(info *Info, spec *runner.JobSpec, pipe string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\n\n[Service]\nType=exec\n", unitText(info.Name+", a job of "+info.File))
	st := spec.Stages[0]
	words := append([]string{}, st.Args...)
	plain := len(spec.Stages) == 1 && !st.UsesShell() && st.Input == "" && len(spec.Job.Hidden) == 0 && spec.Timeout == 0 && spec.IdleTimeout == 0 && len(st.Stdio) == 3
	dir := spec.Job.Dir
	if plain {
		path, err := runner.Local{}.LookPath(st.Program, st.Path, st.Dir)
		if err != nil {
			return "", err
		}
		if words[0], dir = path, st.Dir; st.Args[0] != st.Program {
			fmt.Fprintf(&b, "# argv[0] was %s\n", shellescape.Quote(st.Args[0]))
		}
		for _, kv := range st.Env {
			if name, _, _ := strings.Cut(kv, "="); !slices.Contains(state.Volatile, name) {
				fmt.Fprintf(&b, "Environment=%s\n", unitWord(kv))
			}
		}
		for fd, key := range []string{"", "StandardOutput", "StandardError"} {
			switch io := st.Stdio[fd]; {
			case fd == 0 && io.Kind == step.StdioFile:
				fmt.Fprintf(&b, "StandardInput=file:%s\n", unitText(io.Path))
			case fd == 0:
			case io.Kind == step.StdioIgnore:
				fmt.Fprintf(&b, "%s=null\n", key)
			case io.Kind == step.StdioFile && io.Append:
				fmt.Fprintf(&b, "%s=append:%s\n", key, unitText(io.Path))
			case io.Kind == step.StdioFile:
				fmt.Fprintf(&b, "%s=truncate:%s\n", key, unitText(io.Path))
			}
		}
	} else {
		fmt.Fprintf(&b, "# Put the variables that the pipeline reads, also secrets, in this file, as\n# NAME=VALUE lines, and let nobody else read it.\nEnvironmentFile=-%%h/.config/pipe/%s.env\nEnvironment=%s\n", unitText(info.Name), unitWord("PATH="+os.Getenv("PATH")))
		words = []string{pipe, "run", "--foreground", "--output", "plain"}
		for name, values := range info.Params {
			for _, v := range values {
				words = append(words, "-p", name+"="+v)
			}
		}
		words = append(words, info.File, info.Name)
		if info.Args != nil {
			words = append(append(words, "--"), info.Args...)
		}
	}
	fmt.Fprintf(&b, "WorkingDirectory=%s\nExecStart=", unitText(dir))
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strings.ReplaceAll(unitWord(w), "$", "$$")) // only ExecStart expands variables
	}
	fmt.Fprintf(&b, "\nKillMode=control-group\nKillSignal=%s\n", signame.Name(st.KillSignal))
	if grace := spec.Grace(); grace > 0 {
		fmt.Fprintf(&b, "TimeoutStopSec=%s\n", seconds(grace))
	} else {
		b.WriteString("TimeoutStopSec=infinity\n")
	}
	if len(st.SuccessCodes) > 0 {
		fmt.Fprintf(&b, "SuccessExitStatus=%s\n", strings.Trim(fmt.Sprint(st.SuccessCodes), "[]"))
	}
	if plain && st.UID != nil {
		fmt.Fprintf(&b, "User=%d\n", *st.UID)
	}
	if plain && st.GID != nil {
		fmt.Fprintf(&b, "Group=%d\n", *st.GID)
	}
	r := spec.Job.Restart
	if r.Policy == step.RestartNever {
		b.WriteString("Restart=no\n")
	} else { // systemd has the same names for the policies
		fmt.Fprintf(&b, "Restart=%s\n", r.Policy)
	}
	if r.Policy != step.RestartNever {
		fmt.Fprintf(&b, "RestartSec=%s\n", seconds(r.Delay))
		if !r.Fixed {
			b.WriteString("# systemd 254 and later:\nRestartSteps=6\nRestartMaxDelaySec=60\n")
		}
	}
	b.WriteString("\n[Install]\nWantedBy=default.target\n")
	text := b.String()
	if r.Policy != step.RestartNever && r.Most > 0 {
		limit := fmt.Sprintf("StartLimitBurst=%d\nStartLimitIntervalSec=%s\n", r.Most+1, seconds(r.Window))
		text = strings.Replace(text, "\n[Service]", limit+"\n[Service]", 1)
	}
	return text, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// unitText escapes a value for a unit file, where "%" begins a specifier and a value
// is one line.
func unitText(s string) string { return strings.ReplaceAll(oneWord(s), "%", "%%") }

// unitWord quotes a word as systemd.service(5) requires.
func unitWord(s string) string {
	return `"` + unitText(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)) + `"`
}

// oneWord escapes control characters, so that a value stays on one line.
func oneWord(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			fmt.Fprintf(&b, `\x%02x`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
