package step_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/pipe-runner/pipe/runner/engine"
	"github.com/pipe-runner/pipe/runner/internal/step"
	"github.com/pipe-runner/pipe/safety"
)

// TestMaskedError: the text of an error is masked, what it is stays.
func TestMaskedError(t *testing.T) {
	t.Parallel()
	r, err := safety.NewRedactor([]string{"token-12345"})
	if err != nil {
		t.Fatal(err)
	}
	cause := &engine.StartError{Msg: "no token-12345 here", Code: 127, Err: io.ErrUnexpectedEOF}
	got := step.Masked(r, fmt.Errorf("a: %w", cause))
	var se *engine.StartError
	if got.Error() != "a: no *** here" || !errors.Is(got, io.ErrUnexpectedEOF) || !errors.As(got, &se) || se.ExitCode() != 127 {
		t.Errorf("%v", got)
	}
	if plain := errors.New("plain"); step.Masked(r, plain) != plain || step.Masked(nil, cause) != error(cause) || step.Masked(r, nil) != nil {
		t.Error("an error without a secret is another one")
	}
}
