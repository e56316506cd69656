package safety

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"sort"
	"strings"
	"unicode/utf16"
)

const (
	// MinSecret is the length, in bytes, of the shortest secret that can be
	// masked: a shorter one would eat ordinary output.
	MinSecret = 6
	// minEncoded is the length of the shortest secret whose encoded forms are
	// masked too.
	minEncoded = 8
)

// mask replaces a secret.
const mask = "***"

// Redactor masks a set of secrets in all forms that they usually take. A nil
// Redactor masks nothing. Several goroutines may use one at once.
//
// It searches as described by S. Wu and U. Manber, "A fast algorithm for
// multi-pattern searching", 1994, with blocks of two bytes.
type Redactor struct {
	patterns [][]byte
	window   int             // length of the shortest pattern
	longest  int             // of the longest one
	shift    *[1 << 16]uint8 // by the last block of the window
	ends     map[uint16][]int
	starts   [256][]int // patterns by their first byte
}

// NewRedactor returns a redactor for secrets, or nil if there are none. Each
// secret is masked as it is. One of 8 bytes and more is also masked in base64 (at
// each of the three offsets, in both alphabets), URL-encoded, JSON-escaped,
// shell-quoted and in hexadecimal. In a secret of several lines, each line of 6
// bytes and more is a secret too. Empty ones are ignored. If one is shorter than
// [MinSecret], the error is a [*ShortSecretError], which does not hold its value.
func NewRedactor(secrets []string) (*Redactor, error) {
	forms := map[string]bool{}
	for i, s := range secrets {
		if s == "" {
			continue
		}
		if len(s) < MinSecret {
			return nil, &ShortSecretError{Index: i}
		}
		addForms(forms, s)
		for _, line := range strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if len(line) >= MinSecret {
				addForms(forms, line)
			}
		}
	}
	if len(forms) == 0 {
		return nil, nil
	}
	r := &Redactor{ends: map[uint16][]int{}, shift: new([1 << 16]uint8)}
	for f := range forms {
		r.patterns = append(r.patterns, []byte(f))
	}
	sort.Slice(r.patterns, func(i, j int) bool { return bytes.Compare(r.patterns[i], r.patterns[j]) < 0 })
	r.window = len(r.patterns[0])
	for _, p := range r.patterns {
		r.window, r.longest = min(r.window, len(p)), max(r.longest, len(p))
	}
	r.window = min(r.window, 200) // shifts are bytes
	for i := range r.shift {
		r.shift[i] = uint8(r.window - 1)
	}
	for n, p := range r.patterns {
		for k := 1; k < r.window; k++ {
			block := uint16(p[k-1])<<8 | uint16(p[k])
			r.shift[block] = min(r.shift[block], uint8(r.window-1-k))
		}
		end := uint16(p[r.window-2])<<8 | uint16(p[r.window-1])
		r.ends[end] = append(r.ends[end], n)
		r.starts[p[0]] = append(r.starts[p[0]], n)
	}
	return r, nil
}

// ShortSecretError says which secret of a list is too short to be masked.
type ShortSecretError struct{ Index int }

// Error does not hold the secret.
func (e *ShortSecretError) Error() string {
	return fmt.Sprintf("secret #%d is shorter than %d bytes: masking it would eat ordinary output", e.Index+1, MinSecret)
}

func addForms(forms map[string]bool, s string) {
	forms[s] = true
	if len(s) < minEncoded {
		return
	}
	add := func(f string) {
		if len(f) >= MinSecret {
			forms[f] = true
		}
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for off := range 3 {
			// Only the characters that depend on nothing but the secret.
			e := enc.EncodeToString(append(make([]byte, off), s...))
			add(e[[]int{0, 2, 3}[off] : (off+len(s))*8/6])
		}
	}
	add(hex.EncodeToString([]byte(s)))
	add(strings.ToUpper(hex.EncodeToString([]byte(s))))
	for _, u := range []string{url.QueryEscape(s), url.PathEscape(s), percent(s, ""), percent(s, "-_.~"), percent(s, "-_.~/"), percent(s, "-_.~!*'()"), percent(s, "-_.~!*'();/?:@&=+$,#")} {
		add(u)
		add(lowerPercent(u))
	}
	for _, escape := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escape)
		if enc.Encode(s) == nil {
			js := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
			for _, form := range []string{js, asciiJSON(js)} {
				add(form)
				add(strings.ReplaceAll(form, "/", `\/`))
			}
		}
	}
	add(ansiC(s, false))
	add(ansiC(s, true))
	add(strings.ReplaceAll(s, "'", `'\''`))
	add(strings.ReplaceAll(s, "'", `'"'"'`))
	add(backslashed(s, "_-./:=@%+"))
	add(backslashed(s, "_-./:=,@%+"))
	add(backslashed(s, "_-./:=@%+#~"))
	add(strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s))
}

// asciiJSON writes what is not ASCII as \uXXXX.
func asciiJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// ansiC returns the inside of $'…' as shells show it. octal also escapes the
// bytes that are not ASCII.
func ansiC(s string, octal bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if k := strings.IndexByte("\a\b\t\n\v\f\r\x1b\\'", c); k >= 0 {
			b.WriteByte('\\')
			b.WriteByte("abtnvfrE\\'"[k])
		} else if c < ' ' || c == 0x7f || octal && c >= 0x80 {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// percent encodes every byte but letters, digits and those in safe.
func percent(s, safe string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(safe, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// lowerPercent makes the digits of each %XX lower-case.
func lowerPercent(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// backslashed returns a word as printf %q and xtrace show it without quotes.
// plain are the signs that need no backslash.
func backslashed(s, plain string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c < 0x80 && !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(plain, c) >= 0) {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// String returns s with all secrets masked.
func (r *Redactor) String(s string) string {
	if r == nil || len(s) < r.window {
		return s
	}
	return string(r.Bytes([]byte(s)))
}

// Bytes returns b with all secrets masked; b itself where there are none.
func (r *Redactor) Bytes(b []byte) []byte {
	if r == nil {
		return b
	}
	m := Masker{r: r}
	out := m.Mask(b)
	return append(out[:len(out):len(out)], m.Flush()...)
}

// Stream returns a Masker for one stream.
func (r *Redactor) Stream() *Masker { return &Masker{r: r} }

// Masker masks the secrets in one stream, in whatever pieces the stream comes.
// A Masker is not safe for concurrent use.
type Masker struct {
	r    *Redactor
	held []byte
	out  []byte
}

// Mask takes the next bytes of the stream and returns those that can be shown. It
// holds back an end that may be the beginning of a secret. The result is valid
// until the next call.
func (m *Masker) Mask(b []byte) []byte {
	if m.r == nil {
		return b
	}
	if len(m.held) > 0 {
		m.held = append(m.held, b...)
		b = m.held
	}
	found := m.r.find(b)
	keep := m.r.unfinished(b)
	// A secret that overlaps what is held back may become a longer one, and is
	// held back too.
	for len(found) > 0 && found[len(found)-1][1] > keep {
		keep = found[len(found)-1][0]
		found = found[:len(found)-1]
	}
	shown := b[:keep]
	if len(found) > 0 {
		m.out = m.out[:0]
		at := 0
		for _, f := range found {
			m.out = append(append(m.out, b[at:f[0]]...), mask...)
			at = f[1]
		}
		m.out = append(m.out, b[at:keep]...)
		shown = m.out
	} else if len(m.held) > 0 {
		m.out = append(m.out[:0], shown...)
		shown = m.out
	}
	m.held = append(m.held[:0:cap(m.held)], b[keep:]...)
	return shown
}

// Flush returns, at the end of the stream, what was held back. The beginning of a
// secret that did not go on is shown.
func (m *Masker) Flush() []byte {
	if m.r == nil || len(m.held) == 0 {
		return nil
	}
	b := m.held
	m.held = nil
	out := make([]byte, 0, len(b))
	at := 0
	for _, f := range m.r.find(b) {
		out = append(append(out, b[at:f[0]]...), mask...)
		at = f[1]
	}
	return append(out, b[at:]...)
}

// End is Flush for a stream that may have been cut. If it was, what may be the
// beginning of a secret is masked.
func (m *Masker) End(cut bool) []byte {
	if !cut || m.r == nil || len(m.held) == 0 {
		return m.Flush()
	}
	found, keep := m.r.find(m.held), m.r.unfinished(m.held)
	if keep == len(m.held) || len(found) > 0 && found[len(found)-1][1] > keep {
		return m.Flush()
	}
	m.held = m.held[:keep]
	return append(m.Flush(), mask...)
}

// Cut returns b masked, and no more than limit bytes of that; 0 is no limit. cut
// says that b is the beginning of something longer.
func (r *Redactor) Cut(b []byte, limit int64, cut bool) []byte {
	if r == nil {
		if limit > 0 {
			b = b[:min(int64(len(b)), limit)]
		}
		return b
	}
	m := Masker{r: r}
	out := append([]byte{}, m.Mask(b)...)
	out = append(out, m.End(cut)...)
	if limit > 0 {
		out = out[:min(int64(len(out)), limit)]
	}
	return out
}

// Longest returns the length of the longest form of a secret, in bytes.
func (r *Redactor) Longest() int {
	if r == nil {
		return 0
	}
	return r.longest
}

// find returns the places of all secrets in b, in order. Secrets that overlap
// are one place.
func (r *Redactor) find(b []byte) [][2]int {
	var found [][2]int
	shift := r.shift
	for i := r.window - 1; i < len(b); {
		block := uint16(b[i-1])<<8 | uint16(b[i])
		if s := shift[block]; s > 0 {
			i += int(s)
			continue
		}
		start := i - r.window + 1
		end := 0
		for _, n := range r.ends[block] {
			if p := r.patterns[n]; len(p) <= len(b)-start && len(p) > end && bytes.Equal(b[start:start+len(p)], p) {
				end = len(p)
			}
		}
		if end > 0 {
			if n := len(found); n > 0 && found[n-1][1] > start {
				found[n-1][1] = max(found[n-1][1], start+end)
			} else {
				found = append(found, [2]int{start, start + end})
			}
		}
		i++
	}
	return found
}

// unfinished returns the offset of the longest end of b that is the beginning of
// a secret, or len(b).
func (r *Redactor) unfinished(b []byte) int {
	for k := max(0, len(b)-r.longest+1); k < len(b); k++ {
		for _, n := range r.starts[b[k]] {
			if p := r.patterns[n]; len(p) > len(b)-k && bytes.HasPrefix(p, b[k:]) {
				return k
			}
		}
	}
	return len(b)
}
