package pipeline

// SpawnStep returns a step that starts a program without a shell and streams
// its output. Each word is one argument, taken literally.
func SpawnStep(name, program string, args ...string) *Step {
	return PipeStep(name, SpawnStage(program, args...))
}

// ExecStep returns a step that runs shell text in the embedded shell and keeps
// its output. A ${{ expression }} in the text is a value, not text.
func ExecStep(name, text string) *Step { return PipeStep(name, ExecStage(text)) }

// ExecFileStep is [SpawnStep] for a program whose output is kept, so that
// expressions can read it.
func ExecFileStep(name, program string, args ...string) *Step {
	return PipeStep(name, ExecFileStage(program, args...))
}

// PipeStep returns a step whose stages run at once, joined stdout to stdin.
func PipeStep(name string, stages ...*Stage) *Step { return &Step{Name: name, Stages: stages} }

// RunStep returns a step that runs another pipeline. Parameters are given to it
// by setting Run.With.
func RunStep(name string, p *Pipeline) *Step {
	return &Step{Name: name, Run: &Include{Pipeline: p}}
}

// SpawnStage returns a stage that starts a program without a shell. Each word
// is one argument, taken literally; see [NewTemplate] for one with expressions.
func SpawnStage(program string, args ...string) *Stage {
	return programStage(ActionSpawn, program, args)
}

// ExecFileStage is [SpawnStage] for a program whose output is kept.
func ExecFileStage(program string, args ...string) *Stage {
	return programStage(ActionExecFile, program, args)
}

func programStage(a Action, program string, args []string) *Stage {
	s := &Stage{Action: a, Args: make([]Template, 0, len(args)+1)}
	s.Args = append(s.Args, Literal(program))
	for _, a := range args {
		s.Args = append(s.Args, Literal(a))
	}
	return s
}

// ExecStage returns a stage that runs shell text; see [ExecStep].
func ExecStage(text string) *Stage { return &Stage{Action: ActionExec, Text: text} }

// TeeStage returns a stage that sends the stream of the stage before it to each
// branch, and on to the next stage. See [ChainBranch] and [FileBranch].
func TeeStage(branches ...Branch) *Stage { return &Stage{Action: ActionTee, Tee: branches} }

// ChainBranch returns a branch of a tee that is one stage, or several that are
// joined stdout to stdin.
func ChainBranch(stages ...*Stage) Branch { return Branch{Chain: stages} }

// FileBranch returns a branch of a tee that is a file. The path is taken
// literally, relative to the working directory of the step.
func FileBranch(path string) Branch {
	return Branch{File: &Stdio{Kind: StdioFile, File: Literal(path)}}
}
