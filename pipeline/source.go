package pipeline

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// origin is where a text stands in a file: it relates offsets in the text,
// which YAML has folded and unescaped, to places in the source. nil is a text
// of a pipeline built in Go.
type origin struct {
	lines [][]byte // of the file
	node  *yaml.Node
	skip  int // bytes of the node's value before the text
}

// at returns the place of the byte at an offset of the text.
func (o *origin) at(off int) Pos {
	if o == nil {
		return Pos{}
	}
	c := &cursor{lines: o.lines, line: o.node.Line - 1}
	c.i = byteOffset(c.whole(), o.node.Column-1)
	c.properties(o.node)
	ok := false
	switch value := o.node.Value; {
	case o.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		ok = c.block(value, off+o.skip)
	case o.node.Style&yaml.DoubleQuotedStyle != 0:
		ok = c.flow(value, off+o.skip, '"')
	case o.node.Style&yaml.SingleQuotedStyle != 0:
		ok = c.flow(value, off+o.skip, '\'')
	default:
		ok = c.flow(value, off+o.skip, 0)
	}
	if !ok {
		return pos(o.node)
	}
	return c.pos()
}

// byteOffset returns the offset of the n-th character of a line.
func byteOffset(line []byte, n int) int {
	i := 0
	for ; n > 0 && i < len(line); n-- {
		_, size := utf8.DecodeRune(line[i:])
		i += size
	}
	return i
}

// cursor is a place in a source, counted in bytes from 0.
type cursor struct {
	lines   [][]byte
	line, i int
}

func (c *cursor) pos() Pos {
	return Pos{c.line + 1, utf8.RuneCount(c.whole()[:c.i]) + 1}
}

// whole returns the line without its end.
func (c *cursor) whole() []byte {
	if c.line >= len(c.lines) {
		return nil
	}
	return bytes.TrimSuffix(c.lines[c.line], []byte("\r"))
}

// rest returns what comes in the line.
func (c *cursor) rest() []byte { return c.whole()[c.i:] }

// properties passes over the anchor and the tag of a node.
func (c *cursor) properties(n *yaml.Node) {
	for c.line < len(c.lines) {
		rest := c.rest()
		switch {
		case len(bytes.TrimLeft(rest, " \t")) == 0 && (n.Anchor != "" || n.Style&yaml.TaggedStyle != 0):
			c.line, c.i = c.line+1, 0
		case rest[0] == ' ' || rest[0] == '\t':
			c.i++
		case n.Anchor != "" && rest[0] == '&', n.Style&yaml.TaggedStyle != 0 && rest[0] == '!':
			if end := bytes.IndexAny(rest, " \t"); end >= 0 {
				c.i += end
			} else {
				c.i += len(rest)
			}
		default:
			return
		}
	}
}

// flow moves the cursor from the beginning of a plain or quoted scalar to the
// source of the byte at an offset of its value. It reports whether source and
// value agree up to there.
func (c *cursor) flow(value string, off int, quote byte) bool {
	if quote != 0 {
		c.i++
	}
	for v := 0; v < off; {
		rest := c.rest()
		switch {
		case c.line >= len(c.lines) || v >= len(value):
			return false
		case len(bytes.TrimLeft(rest, " \t")) == 0: // a break is a blank, or as many breaks as lines are empty
			v += max(1, c.nextText())
		case quote == '"' && len(rest) == 1 && rest[0] == '\\':
			v += c.nextText()
		case quote == '"' && rest[0] == '\\':
			source, size := escape(rest)
			c.i += source
			v += size
		case quote == '\'' && bytes.HasPrefix(rest, []byte("''")):
			c.i += 2
			v++
		case rest[0] != value[v]:
			return false
		default:
			c.i++
			v++
		}
	}
	if quote == '"' && string(c.rest()) == `\` {
		c.nextText()
	}
	return true
}

// nextText moves to the first character of the next line that has one, and
// returns how many empty lines it passed.
func (c *cursor) nextText() (empty int) {
	for c.line++; c.line < len(c.lines); c.line++ {
		line := c.whole()
		if text := bytes.TrimLeft(line, " \t"); len(text) > 0 {
			c.i = len(line) - len(text)
			return empty
		}
		empty++
	}
	c.i = 0
	return empty
}

// escape returns the length of the escape sequence at the beginning of s, and
// that of what it stands for.
func escape(s []byte) (source, size int) {
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	switch {
	case digits > 0 && len(s) >= 2+digits:
		r, _ := strconv.ParseUint(string(s[2:2+digits]), 16, 32)
		return 2 + digits, max(1, utf8.RuneLen(rune(r)))
	case s[1] == 'N' || s[1] == '_':
		return 2, 2
	case s[1] == 'L' || s[1] == 'P':
		return 2, 3
	}
	_, size = utf8.DecodeRune(s[1:])
	return 1 + size, size
}

// block is flow for a literal or folded scalar, whose indicator the cursor is
// at: between two lines of text the value has one blank, or the breaks.
func (c *cursor) block(value string, off int) bool {
	v := len(value) - len(strings.TrimLeft(value, "\n"))
	c.line, c.i = c.line+1+min(v, off), 0
	if off < v {
		return c.line < len(c.lines)
	}
	first, _, _ := strings.Cut(value[v:], "\n")
	indent := blanks(string(c.whole())) - blanks(first)
	for indent >= 0 && c.line < len(c.lines) {
		line := c.whole()
		text := line[min(indent, len(line)):]
		if !strings.HasPrefix(value[v:], string(text)) {
			return false
		}
		if off <= v+len(text) {
			c.i = len(line) - len(text) + off - v
			return true
		}
		if v += len(text); v < len(value) && value[v] == ' ' {
			v++
		} else {
			v = len(value) - len(strings.TrimLeft(value[v:], "\n"))
		}
		if off < v {
			c.i = len(line)
			return true
		}
		for c.line++; len(c.whole()) <= indent && blanks(string(c.whole())) == len(c.whole()) && c.line < len(c.lines); c.line++ {
		}
	}
	return false
}

// blanks returns how many spaces s begins with.
func blanks(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
