# The tasks of a developer; .ci/run is what decides.
.PHONY: build test lint fuzz bench bench-before trials

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/pipe ./cmd/pipe

test:
	go test ./...

lint:
	.ci/lint

# What takes long, or does not hold each time yet.
trials:
	PIPE_TRIALS=1 go test -race -count=20 -run 'TestJobControl|TestNoTerminal|TestTostop|TestForegroundPipe|TestInterruptedOwner|TestTurns' ./cmd/pipe

fuzz:
	go test -run '^$$' -fuzz FuzzParse -fuzztime 60s ./pipeline
	go test -run '^$$' -fuzz FuzzShellText -fuzztime 120s ./safety

bench: build
	go test -run '^$$' -bench . -benchtime 1x ./cmd/pipe
	go test -run '^$$' -bench Scheduler -benchtime 2x ./runner
	go test -run '^$$' -bench . ./safety

# The same beside an earlier commit, in one run: make bench-before BEFORE=HEAD~1
BEFORE ?= HEAD~1
bench-before: build
	rm -rf bin/before && git worktree prune && git worktree add -f --detach bin/before $(BEFORE)
	cd bin/before && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../pipe-before ./cmd/pipe
	git worktree remove --force bin/before
	go test -run '^$$' -bench 'OneStep|500Steps|2000Steps|ForEach|4GiB' -benchtime 1x ./cmd/pipe; s=$$?; rm -f bin/pipe-before; exit $$s
