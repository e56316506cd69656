# The tasks of a developer; .ci/run is what decides.
.PHONY: build test lint fuzz bench

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/pipe ./cmd/pipe

test:
	go test ./...

lint:
	.ci/lint

fuzz:
	go test -run '^$$' -fuzz FuzzParse -fuzztime 60s ./pipeline
	go test -run '^$$' -fuzz FuzzShellText -fuzztime 120s ./safety

bench: build
	go test -run '^$$' -bench . -benchtime 1x ./cmd/pipe
	go test -run '^$$' -bench Scheduler -benchtime 2x ./runner
	go test -run '^$$' -bench . ./safety
