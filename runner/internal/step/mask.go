package step

import "github.com/pipe-runner/pipe/safety"

// maskedError is an error whose text held a secret.
type maskedError struct {
	msg string
	err error
}

// Error returns the text with the secret masked.
func (e *maskedError) Error() string { return e.msg }

// Unwrap returns the error itself, for errors.Is and errors.As.
func (e *maskedError) Unwrap() error { return e.err }

// Masked returns an error in whose text no secret shows.
func Masked(r *safety.Redactor, err error) error {
	if r == nil || err == nil {
		return err
	}
	if msg := r.String(err.Error()); msg != err.Error() {
		return &maskedError{msg, err}
	}
	return err
}
