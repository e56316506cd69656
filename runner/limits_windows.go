package runner

const maxLargePipes = 16

func maxProcesses() int { return 0 }
