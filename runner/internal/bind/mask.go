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
