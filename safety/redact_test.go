package safety_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/pipe-runner/pipe/safety"
)

func redactor(t testing.TB, secrets ...string) *safety.Redactor {
	t.Helper()
	r, err := safety.NewRedactor(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRedactForms(t *testing.T) {
	const secret = `p@ss"w'ord $9/+ü<&>`
	r := redactor(t, secret, "abcdef", "defghi", "line one\nline two is longer\nx")
	js, _ := json.Marshal(secret)
	for name, text := range map[string]string{
		"raw": secret, "url": url.QueryEscape(secret), "path": url.PathEscape(secret), "json": string(js),
		"hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"shell": strings.ReplaceAll(secret, "'", `'\''`), "line": "line two is longer",
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64 1": base64.StdEncoding.EncodeToString([]byte("x" + secret + "yz")),
		"base64 2": base64.URLEncoding.EncodeToString([]byte("xx" + secret + "tail")),
	} {
		got := r.String("before " + text + " after")
		if !strings.Contains(got, "***") || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") {
			t.Errorf("%s: %q", name, got)
		}
		if rest := strings.NewReplacer("before ", "", " after", "", "***", "", `"`, "").Replace(got); len(rest) > 10 {
			t.Errorf("%s: %q is left", name, rest)
		}
	}
	for _, tt := range []struct{ secret, shown string }{
		{"my-pass word=1/x", "my-pass%20word%3D1%2Fx"}, {"ab/cd+ef==", "ab/cd%2Bef%3D%3D"}, {"tab\tquo'te1", "tab%09quo'te1"},
		{"pässwörd-1", `p\u00e4ssw\u00f6rd-1`}, {"my-pass word=1/x", `my-pass word=1\/x`}, {"abc#def,ghi~xyz", `abc#def\,ghi~xyz`},
		{"tab\tquo'te1", `$'tab\tquo\'te1'`}, {"pässwörd-1", `$'p\303\244ssw\303\266rd-1'`},
	} {
		if got := redactor(t, tt.secret).String("<" + tt.shown + ">"); strings.Contains(got, tt.shown[3:]) {
			t.Errorf("%q as %s: %s", tt.secret, tt.shown, got)
		}
	}
	if got := string(redactor(t, "hunter2-secret").Cut([]byte("x hunter2-sec"), 0, true)); got != "x ***" {
		t.Errorf("cut in the middle: %q", got)
	}
	if got := string(redactor(t, "hunter2-secret").Cut([]byte("x hunter2-secret"), 6, false)); got != "x ***" {
		t.Errorf("limited: %q", got)
	}
	if got := r.String("xabcdefghix"); got != "x***x" {
		t.Errorf("overlapping: %q", got)
	}
	if got := r.String("abcdefabcdef"); got != "******" {
		t.Errorf("touching: %q", got)
	}
	if got := r.String("abcde"); got != "abcde" {
		t.Errorf("a beginning alone: %q", got)
	}
}

func TestRedactBounds(t *testing.T) {
	var short *safety.ShortSecretError
	if _, err := safety.NewRedactor([]string{"", "longer one", "12345"}); !errors.As(err, &short) || short.Index != 2 || strings.Contains(err.Error(), "12345") {
		t.Errorf("%v", err)
	}
	if r := redactor(t, "", ""); r != nil || r.String("x") != "x" {
		t.Error("nothing to mask, and yet a redactor")
	}
}

// TestRedactSplit: any cut gives the same output, and nothing is held back that
// could not become a secret.
func TestRedactSplit(t *testing.T) {
	r := redactor(t, "secret-one", "one-more-secret", "aaaaaaab")
	text := []byte("x secret-one-more-secret y aaaaaaaaaaab secret-on one-more secre")
	want := string(r.Bytes(text))
	if want != "x *** y aaaa*** secret-on one-more secre" {
		t.Fatalf("%q", want)
	}
	for i := range len(text) + 1 {
		for j := i; j <= len(text); j++ {
			m := r.Stream()
			var out bytes.Buffer
			out.Write(m.Mask(text[:i]))
			out.Write(m.Mask(text[i:j]))
			out.Write(m.Mask(text[j:]))
			out.Write(m.Flush())
			if out.String() != want {
				t.Fatalf("cut at %d and %d: %q", i, j, out.String())
			}
		}
	}
	m := r.Stream()
	if got := m.Mask([]byte("password: ")); string(got) != "password: " {
		t.Errorf("a prompt is held back: %q", got)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("secret", "another one", []byte("a secret here"), uint8(3))
	f.Fuzz(func(t *testing.T, a, b string, text []byte, cut uint8) {
		r, err := safety.NewRedactor([]string{a, b})
		if err != nil || r == nil {
			return
		}
		whole := append([]byte{}, r.Bytes(text)...)
		m := r.Stream()
		var out []byte
		for rest := text; len(rest) > 0; {
			n := min(int(cut)%7+1, len(rest))
			out = append(out, m.Mask(rest[:n])...)
			rest = rest[n:]
		}
		out = append(out, m.Flush()...)
		if !bytes.Equal(out, whole) {
			t.Fatalf("in pieces %q, whole %q", out, whole)
		}
		for _, s := range []string{a, b} {
			if s != "" && !strings.Contains("***", s) && strings.Count(s, "*") == 0 && bytes.Contains(whole, []byte(s)) {
				t.Fatalf("%q is in %q", s, whole)
			}
		}
	})
}

// BenchmarkRedact: ten secrets over text without any, and with one a kilobyte.
func BenchmarkRedact(b *testing.B) {
	var secrets []string
	for i := range 10 {
		secrets = append(secrets, fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i)}))[:24])
	}
	r := redactor(b, secrets...)
	line := "2026-01-02T03:04:05Z INFO request served in 12ms path=/api/v1/items user=somebody\n"
	clean := []byte(strings.Repeat(line, 64<<10/len(line)))
	dirty := []byte(strings.Repeat(strings.Repeat(line, 12)+secrets[3], 64))
	for name, text := range map[string][]byte{"clean": clean, "dirty": dirty} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			m := r.Stream()
			for b.Loop() {
				m.Mask(text)
			}
		})
	}
}

// TestRedactCut: what a limit cuts off, and what may go on, is not shown.
func TestRedactCut(t *testing.T) {
	r := redactor(t, "hunter2-secret", "abcabcabc")
	for _, tt := range []struct {
		text  string
		limit int64
		cut   bool
		want  string
	}{
		{"x hunter2-sec", 0, false, "x hunter2-sec"},
		{"x hunter2-sec", 0, true, "x ***"},
		{"plain", 3, false, "pla"},
		{"plain", 0, true, "plain"},
		{"hunter2-secret", 1, false, "*"},
		{"abcabcabcabc", 0, true, "***"},
		{"", 5, true, ""},
	} {
		if got := string(r.Cut([]byte(tt.text), tt.limit, tt.cut)); got != tt.want {
			t.Errorf("%q, at most %d: %q, expected %q", tt.text, tt.limit, got, tt.want)
		}
	}
	var none *safety.Redactor
	if got := string(none.Cut([]byte("plain"), 2, true)); got != "pl" || string(none.Bytes([]byte("x"))) != "x" || none.Longest() != 0 {
		t.Errorf("no redactor: %q", got)
	}
	if r.Longest() < len("hunter2-secret") {
		t.Errorf("the longest form has %d bytes", r.Longest())
	}
	if got := redactor(t, "𝔰ecret-text").String(`"\ud835\udd30ecret-text"`); got != `"***"` {
		t.Errorf("in JSON: %s", got)
	}
}
