package runner

import "log/slog"

// LogValue returns the event as a group of attributes, without its output.
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("type", e.Type.String())}
	if e.Step >= 0 {
		attrs = append(attrs, slog.String("step", e.Label))
	}
	switch e.Type {
	case EventSpawn:
		attrs = append(attrs, slog.Int("stage", e.Stage), slog.Int("pid", e.Pid))
	case EventData:
		attrs = append(attrs, slog.Int("stage", e.Stage), slog.String("stream", e.Stream.String()), slog.Int("bytes", len(e.Data)))
	case EventExit:
		attrs = append(attrs, slog.Int("stage", e.Stage), slog.Int("pid", e.Pid), slog.String("exit", e.Exit.String()))
	case EventClose:
		attrs = append(attrs, slog.Int("stage", e.Stage))
	case EventRetry:
		attrs = append(attrs, slog.Int("attempt", e.Attempt), slog.Duration("delay", e.Delay))
	}
	if e.Message != "" {
		attrs = append(attrs, slog.String("message", e.Message))
	}
	if e.Result != nil {
		attrs = append(attrs, slog.Any("result", e.Result))
	}
	return slog.GroupValue(attrs...)
}

// LogValue returns the result as a group of attributes.
func (r *StepResult) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("step", r.Label), slog.String("status", r.Status.String()), slog.Int("exitCode", r.ExitCode), slog.Duration("duration", r.Duration()),
	}
	for _, a := range []struct{ key, text string }{{"reason", string(r.Reason)}, {"signal", r.Signal}, {"command", r.Command}, {"reused", r.Reused}, {"job", r.Job}} {
		if a.text != "" {
			attrs = append(attrs, slog.String(a.key, a.text))
		}
	}
	if r.Err != nil {
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// LogValue returns the exit code, and the step that failed first, if there is one.
func (r *Result) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("exitCode", r.ExitCode), slog.Int("steps", len(r.Steps))}
	if r.Cause != nil {
		attrs = append(attrs, slog.Any("cause", r.Cause))
	}
	if r.Interrupted != nil {
		attrs = append(attrs, slog.String("interrupted", r.Interrupted.Error()))
	}
	return slog.GroupValue(attrs...)
}
