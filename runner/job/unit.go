package job

// This file holds what systemd is told to do instead of a keeper.

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alessio/shellescape"

	"github.com/pipe-runner/pipe/pipeline"
	"github.com/pipe-runner/pipe/runner"
	"github.com/pipe-runner/pipe/runner/internal/state"
)

// Unit returns a unit file for systemd that does what a job does. A plain program
// runs under systemd itself, with the environment of spec but for the variables of
// a session; anything else as pipe, the path of the command, runs it in the
// foreground. The error is that of looking the program up.
func Unit(info *Info, spec *runner.JobSpec, pipe string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\n\n[Service]\nType=exec\n", unitText(info.Name+", a job of "+info.File))
	st := spec.Stages[0]
	words := append([]string{}, st.Args...)
	plain := len(spec.Stages) == 1 && !st.Shell && st.Input == "" && len(spec.Hidden) == 0 && spec.Timeout == 0 && spec.IdleTimeout == 0 && len(st.Stdio) == 3
	dir := spec.Dir
	if plain {
		path, err := runner.Local{}.LookPath(st.Program, st.Path, st.Dir)
		if err != nil {
			return "", err
		}
		if words[0], dir = path, st.Dir; st.Args[0] != st.Program {
			fmt.Fprintf(&b, "# its own name was %s\n", shellescape.Quote(st.Args[0]))
		}
		for _, kv := range st.Env {
			if name, _, _ := strings.Cut(kv, "="); !slices.Contains(state.Volatile, name) {
				fmt.Fprintf(&b, "Environment=%s\n", unitWord(kv))
			}
		}
		for fd, key := range []string{"", "StandardOutput", "StandardError"} {
			switch {
			case fd == 0 && st.Stdio[fd] == pipeline.StdioFile:
				fmt.Fprintf(&b, "StandardInput=file:%s\n", unitText(st.Files[fd]))
			case fd == 0:
			case st.Stdio[fd] == pipeline.StdioIgnore:
				fmt.Fprintf(&b, "%s=null\n", key)
			case st.Stdio[fd] == pipeline.StdioFile && st.Append[fd]:
				fmt.Fprintf(&b, "%s=append:%s\n", key, unitText(st.Files[fd]))
			case st.Stdio[fd] == pipeline.StdioFile:
				fmt.Fprintf(&b, "%s=truncate:%s\n", key, unitText(st.Files[fd]))
			}
		}
	} else {
		fmt.Fprintf(&b, "# What the pipeline reads of the environment, secrets too, is to be in this file,\n# as NAME=VALUE lines; only you should be able to read it.\nEnvironmentFile=-%%h/.config/pipe/%s.env\nEnvironment=%s\n", unitText(info.Name), unitWord("PATH="+os.Getenv("PATH")))
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
		b.WriteString(strings.ReplaceAll(unitWord(w), "$", "$$")) // ExecStart alone expands variables
	}
	opts := st.Options
	fmt.Fprintf(&b, "\nKillMode=control-group\nKillSignal=%s\n", pipeline.SignalName(spec.KillSignal))
	if spec.KillAfter > 0 {
		fmt.Fprintf(&b, "TimeoutStopSec=%s\n", seconds(spec.KillAfter))
	} else {
		b.WriteString("TimeoutStopSec=infinity\n")
	}
	if len(st.Codes) > 0 {
		fmt.Fprintf(&b, "SuccessExitStatus=%s\n", strings.Trim(fmt.Sprint(st.Codes), "[]"))
	}
	if plain && opts.UID != nil {
		fmt.Fprintf(&b, "User=%d\n", *opts.UID)
	}
	if plain && opts.GID != nil {
		fmt.Fprintf(&b, "Group=%d\n", *opts.GID)
	}
	r := spec.Restart
	switch r.Policy {
	case pipeline.RestartNever:
		b.WriteString("Restart=no\n")
	case pipeline.RestartOnFailure:
		b.WriteString("Restart=on-failure\n")
	case pipeline.RestartAlways:
		b.WriteString("Restart=always\n")
	}
	if r.Policy != pipeline.RestartNever {
		fmt.Fprintf(&b, "RestartSec=%s\n", seconds(r.FirstDelay()))
		if !r.Fixed {
			b.WriteString("# systemd 254 and later:\nRestartSteps=6\nRestartMaxDelaySec=60\n")
		}
	}
	b.WriteString("\n[Install]\nWantedBy=default.target\n")
	text := b.String()
	if r.Policy != pipeline.RestartNever && r.RestartLimit() > 0 {
		limit := fmt.Sprintf("StartLimitBurst=%d\nStartLimitIntervalSec=%s\n", r.RestartLimit()+1, seconds(r.Span()))
		text = strings.Replace(text, "\n[Service]", limit+"\n[Service]", 1)
	}
	return text, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// unitText makes a value safe where systemd takes a line: its specifiers are
// doubled.
func unitText(s string) string { return strings.ReplaceAll(oneWord(s), "%", "%%") }

// unitWord quotes a word as systemd.service(5) unquotes it.
func unitWord(s string) string {
	return `"` + unitText(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)) + `"`
}

// oneWord keeps control characters from ending a line.
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
