package pipeline

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

var (
	yamlLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: (?:line (\d+): )?`) })
	// bareExpr matches an expression without quotes in a list or mapping of one
	// line, and bareStar a word such as *.go.
	bareExpr = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[^"'#]*[\[{,]\s*\$\{\{`) })
	bareStar = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?:^|[\[,:-]\s*)\*[^\s\w]`) })
)

// yamlError reports an error of yaml.v3, which has nothing but a text. In an error
// of its parser, lines count from 0 and are those where a list or mapping begins.
// In an error of its scanner the line is right, but missing if it is the first.
func (p *parser) yamlError(err error) {
	m := yamlLine().FindStringSubmatch(err.Error())
	if m == nil {
		p.add(Pos{}, "%s", err)
		return
	}
	msg := strings.TrimPrefix(err.Error(), m[0])
	line, _ := strconv.Atoi(m[1])
	if m[1] == "" || strings.HasPrefix(msg, "did not find expected") && !strings.Contains(msg, "alphabetic") {
		line++
	}
	line = min(line, len(p.lines)) // the end of a file is in its last line
	at, hint := p.syntaxHint(msg, line)
	if hint == "" {
		hint = msg
	}
	p.add(at, "not valid YAML: %s", hint)
}

// syntaxHint looks for the usual causes of an error from a line on.
func (p *parser) syntaxHint(msg string, from int) (Pos, string) {
	for i := max(from-1, 0); i < len(p.lines); i++ {
		l := p.lines[i]
		indent := len(l) - len(bytes.TrimLeft(l, " "))
		switch {
		case strings.Contains(msg, "tab") || strings.Contains(msg, "cannot start any token"):
			if indent < len(l) && l[indent] == '\t' {
				return Pos{i + 1, indent + 1}, "a tab in the indentation; YAML is indented with spaces"
			}
		case strings.Contains(msg, "expected ','"):
			if loc := bareExpr().FindIndex(l); loc != nil {
				return Pos{i + 1, loc[1] - 2}, "${{ }} in a [list] or {mapping} needs quotes, as in \"${{ params.name }}\""
			}
			if i == from-1 && bytes.ContainsAny(l, "[{") {
				continue // the list may go on in the next lines
			}
		case strings.Contains(msg, "alphabetic or numeric"):
			if loc := bareStar().FindIndex(l); loc != nil {
				return Pos{i + 1, loc[1] - 1}, "a word that begins with * needs quotes, as in \"*.go\""
			}
		case strings.Contains(msg, "'-' indicator") || strings.Contains(msg, "expected key"):
			if at, ok := p.dedent(from - 1); ok {
				return at, "this line is indented less than what it belongs to, and more than what is around that"
			}
			return Pos{Line: from}, ""
		}
	}
	return Pos{Line: from}, ""
}

// dedent finds the first line after start with an indentation that no line
// before it has.
func (p *parser) dedent(start int) (Pos, bool) {
	seen := map[int]bool{0: true}
	for i, l := range p.lines {
		t := bytes.TrimLeft(l, " ")
		if len(bytes.TrimSpace(t)) == 0 || t[0] == '#' {
			continue
		}
		indent := len(l) - len(t)
		if i >= start && !seen[indent] {
			for s := range seen {
				if s > indent {
					return Pos{i + 1, indent + 1}, true
				}
			}
		}
		for s := range seen {
			if s > indent {
				delete(seen, s)
			}
		}
		seen[indent] = true
		for bytes.HasPrefix(t, []byte("- ")) { // the mapping in a list begins behind the dash
			rest := bytes.TrimLeft(t[2:], " ")
			indent += len(t) - len(rest)
			t = rest
			seen[indent] = true
		}
	}
	return Pos{}, false
}
