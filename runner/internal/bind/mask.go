package bind

import "github.com/pipe-runner/pipe/safety"

// MaskValue takes the secrets from a value of an expression.
func MaskValue(r *safety.Redactor, v any) any {
	if r == nil {
		return v
	}
	switch v := v.(type) {
	case string:
		return r.String(v)
	case []string:
		out := make([]string, len(v))
		for i, s := range v {
			out[i] = r.String(s)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = MaskValue(r, x)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[r.String(k)] = MaskValue(r, x)
		}
		return out
	}
	return v
}

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
