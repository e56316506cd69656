package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	// MaxFile is how many bytes a pipeline file may have.
	MaxFile = 64 << 20
	// maxAliases bounds the nodes that aliases stand for, so that a file of a
	// few hundred bytes cannot become millions of steps.
	maxAliases = 10000
	maxDepth   = 200
)

// Parse reads a pipeline from src, which is YAML in UTF-8. name is the path of
// the file: errors show it, and other files are looked for in its folder. It may
// also be "-", or any other word, for text that is not from a file.
//
// Parse also reads the pipeline files that steps run. The error is of type
// [Errors] and has everything that is wrong, in any of the files; the pipeline is
// nil then.
func Parse(name string, src []byte) (*Pipeline, error) {
	var chain []string
	if abs, err := filepath.Abs(name); err == nil {
		chain = []string{abs}
	}
	return parse(name, src, chain)
}

// parse is Parse for the last file of chain, in which each file is run by the one
// before it.
func parse(name string, src []byte, chain []string) (*Pipeline, error) {
	p := &parser{report: report{file: name}, chain: chain}
	pl := p.file(name, src)
	if pl == nil {
		return nil, p.err()
	}
	c := newChecker(pl, p.report)
	if len(c.errs) > 0 && slices.ContainsFunc(c.errs, func(e *Error) bool { return e.File != name }) {
		return nil, c.err() // without the file that is run, this one cannot be checked
	}
	if err := c.run(); err != nil {
		return nil, err
	}
	return pl, nil
}

type parser struct {
	report
	aliases int
	chain   []string
}

func (p *parser) file(name string, src []byte) *Pipeline {
	if len(src) > MaxFile {
		p.add(Pos{}, "the file has %d bytes; at most %d are read", len(src), MaxFile)
		return nil
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	p.lines = bytes.Split(src, []byte("\n"))
	if !p.characters(src) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			p.add(Pos{}, "the file is empty; a pipeline has steps, such as\n  steps:\n    - spawn: [echo, hello]")
		} else {
			p.yamlError(err)
		}
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		p.add(Pos{second.Line, second.Column}, "the file has a second document; a pipeline is one document, so remove the --- and what follows")
	case !errors.Is(err, io.EOF):
		p.yamlError(err)
		return nil
	}
	pl := &Pipeline{File: name, lines: p.lines}
	if name != "" && name != "-" {
		pl.Dir = filepath.Dir(name)
	}
	root := p.resolve(doc.Content[0], 0)
	if root == nil {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		p.add(pos(root), "a pipeline is a mapping with the key steps, not %s", kindOf(root))
		return nil
	}
	p.mapping(root, atFile, &target{file: pl, scope: &pl.Scope}, func(k, _ *yaml.Node) {
		if !strings.HasPrefix(k.Value, "x-") {
			p.add(pos(k), "%s", unknownKey(k.Value, atFile))
		}
	})
	return pl
}

// characters reports a NUL byte, or the first byte that is not UTF-8.
func (p *parser) characters(src []byte) bool {
	if i := bytes.IndexByte(src, 0); i >= 0 {
		p.add(p.at(src, i), "NUL byte in the file")
		return false
	}
	if utf8.Valid(src) {
		return true
	}
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			p.add(p.at(src, i), "the file is not UTF-8: byte 0x%02x", src[i])
			return false
		}
		i += n
	}
	return true
}

// at returns the place of a byte offset.
func (p *parser) at(src []byte, off int) Pos {
	line := bytes.Count(src[:off], []byte("\n"))
	start := bytes.LastIndexByte(src[:off], '\n') + 1
	return Pos{line + 1, utf8.RuneCount(src[start:off]) + 1}
}

func pos(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	if len(n.Value) > 40 {
		return "text"
	}
	return strconv.Quote(n.Value)
}

var coreTags = map[string]bool{"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!null": true, "!!seq": true, "!!map": true, "!!timestamp": true, "!!merge": true, "!!binary": false}

// resolve follows an alias, counts what aliases stand for and refuses tags. It
// returns nil where an error was reported.
func (p *parser) resolve(n *yaml.Node, depth int) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		if p.contains(n.Alias, n.Alias, map[*yaml.Node]bool{}) {
			p.add(pos(n), "the anchor %q contains itself", n.Value)
			return nil
		}
		p.aliases += count(n.Alias, maxAliases)
		if p.aliases > maxAliases {
			p.add(pos(n), "aliases stand for more than %d nodes; write the values out", maxAliases)
			p.aliases = -1 << 40 // said once
			return nil
		}
		n = n.Alias
	}
	if n.Style&yaml.TaggedStyle != 0 && !coreTags[n.Tag] {
		hint := ""
		if strings.ContainsRune(n.Tag, '(') { // if: !always()
			hint = "; text that begins with ! needs quotes"
		}
		p.add(pos(n), "custom tag %s; a pipeline has YAML's core types only%s", n.Tag, hint)
		return nil
	}
	return n
}

// contains reports whether an alias to the anchor stands anywhere in n.
func (p *parser) contains(anchor, n *yaml.Node, seen map[*yaml.Node]bool) bool {
	if seen[n] {
		return false
	}
	seen[n] = true
	for _, c := range n.Content {
		if c.Kind == yaml.AliasNode {
			if c.Alias == anchor {
				return true
			}
			c = c.Alias
		}
		if p.contains(anchor, c, seen) {
			return true
		}
	}
	return false
}

// count returns the number of nodes in n, with its aliases written out. It stops
// at some number above limit.
func count(n *yaml.Node, limit int) int {
	total := 1
	for _, c := range n.Content {
		if total > limit {
			break
		}
		if c.Kind == yaml.AliasNode {
			c = c.Alias
		}
		total += count(c, limit-total)
	}
	return total
}

// pairs calls f for each key and value of a mapping, also for merged ones. It
// refuses keys that are not text, and keys that stand there twice.
func (p *parser) pairs(n *yaml.Node, f func(k, v *yaml.Node)) {
	p.pairsIn(n, map[string]*yaml.Node{}, f, 0)
}

func (p *parser) pairsIn(n *yaml.Node, seen map[string]*yaml.Node, f func(k, v *yaml.Node), depth int) {
	if depth > maxDepth {
		p.add(pos(n), "merged mappings are nested more than %d deep", maxDepth)
		return
	}
	own := map[string]*yaml.Node{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k = p.resolve(k, 0); k == nil {
			continue
		}
		if k.Kind != yaml.ScalarNode {
			p.add(pos(k), "a key must be text, not %s", kindOf(k))
			continue
		}
		if prev := own[k.Value]; prev != nil {
			p.add(pos(k), "duplicate key %q; it stands already in line %d", k.Value, prev.Line)
			continue
		}
		own[k.Value] = k
		if k.Tag == "!!merge" {
			merges = append(merges, v)
			continue
		}
		if seen[k.Value] != nil {
			continue // the outer mapping's own key hides a merged one
		}
		seen[k.Value] = k
		if v = p.resolve(v, 0); v != nil {
			f(k, v)
		}
	}
	for _, m := range merges {
		m = p.resolve(m, 0)
		if m == nil {
			continue
		}
		from := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			from = m.Content
		}
		for _, src := range from {
			if src = p.resolve(src, 0); src == nil {
				continue
			}
			if src.Kind != yaml.MappingNode {
				p.add(pos(src), "<< takes a mapping, or a list of them")
				continue
			}
			p.pairsIn(src, seen, f, depth+1)
		}
	}
}

// mapping reads the keys that the schema has for a place. It hands others to
// other, or, if that is nil, reports them.
func (p *parser) mapping(n *yaml.Node, at place, t *target, other func(k, v *yaml.Node)) {
	p.pairs(n, func(k, v *yaml.Node) {
		switch spec := keyAt(k.Value, at); {
		case spec != nil && spec.read != nil:
			spec.read(p, t, v)
		case spec == nil && other != nil:
			other(k, v)
		default:
			p.add(pos(k), "%s", unknownKey(k.Value, at))
		}
	})
}

// items calls f for each element of a list.
func (p *parser) items(n *yaml.Node, what string, f func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		p.add(pos(n), "expected a list of %s, not %s", what, kindOf(n))
		return
	}
	for _, c := range n.Content {
		if c = p.resolve(c, 0); c != nil {
			f(c)
		}
	}
}

// scalar reports whether n is a single value that is not null.
func (p *parser) scalar(n *yaml.Node, what string) bool {
	switch {
	case n.Kind != yaml.ScalarNode:
		p.add(pos(n), "expected %s, not %s", what, kindOf(n))
	case n.Tag == "!!null":
		p.add(pos(n), "expected %s, not an empty value; write \"\" for an empty text", what)
	default:
		return true
	}
	return false
}

// text reads a value that cannot hold expressions, as it is written.
func (p *parser) text(n *yaml.Node) string {
	if !p.scalar(n, "text") {
		return ""
	}
	if strings.ContainsRune(n.Value, 0) {
		p.add(pos(n), "NUL byte in the text")
	}
	return n.Value
}

// template reads a value that may hold expressions.
func (p *parser) template(n *yaml.Node) Template {
	if !p.scalar(n, "text") {
		return Template{}
	}
	return p.templateAt(n.Value, p.origin(n))
}

// templateAt parses the text of a template, and reports what is wrong with it.
func (p *parser) templateAt(text string, from *origin) Template {
	if i := strings.IndexByte(text, 0); i >= 0 {
		p.add(from.at(i), "NUL byte in the text")
		return Template{}
	}
	t := parseTemplate(text, from)
	if t.tmpl != nil && t.tmpl.err != nil {
		p.add(from.at(t.tmpl.err.off), "%s", t.tmpl.err)
		return Template{}
	}
	return t
}

func (p *parser) origin(n *yaml.Node) *origin { return &origin{lines: p.lines, node: n} }

func (p *parser) expression(n *yaml.Node) *Expr {
	if !p.scalar(n, "an expression") {
		return nil
	}
	e := &Expr{src: stripBraces(n.Value), origin: p.origin(n), off: max(0, strings.Index(n.Value, exprOpen))}
	if e.src == "" {
		p.add(e.pos(), "the expression is empty")
		return nil
	}
	return e
}

func (p *parser) boolean(n *yaml.Node) bool {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0 {
		return strings.EqualFold(n.Value, "true")
	}
	p.add(pos(n), "expected true or false, not %s", kindOf(n))
	return false
}

// integer reads a whole number in the range from lo to hi.
func (p *parser) integer(n *yaml.Node, lo, hi int64) int64 {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" {
		v, err := strconv.ParseInt(n.Value, 10, 64)
		switch {
		case err != nil:
			p.add(pos(n), "expected a whole number in decimal digits, not %s", n.Value)
		case v < lo || v > hi:
			p.add(pos(n), "%d is out of range; it goes from %d to %d", v, lo, hi)
		default:
			return v
		}
		return lo
	}
	p.add(pos(n), "expected a whole number, not %s", kindOf(n))
	return lo
}

func (p *parser) duration(n *yaml.Node) time.Duration {
	if !p.scalar(n, "a duration such as 90s") {
		return 0
	}
	d, err := ParseDuration(n.Value)
	if err != nil {
		p.add(pos(n), "%s", err)
	}
	return d
}

func (p *parser) durationPtr(n *yaml.Node) *time.Duration {
	d := p.duration(n)
	return &d
}

// ParseDuration reads a duration as it is written in a file: 0, or as 300ms, 90s,
// 5m and 2h, or several of these in a row. It refuses negative ones.
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit; write %ss for seconds or %sms for milliseconds", s, s, s)
	}
	d, err := time.ParseDuration(s)
	if err != nil || strings.ContainsAny(s, "uµn") {
		return 0, fmt.Errorf("%q is not a duration; expected one such as 300ms, 90s, 5m or 2h", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%s is negative; a duration is 0 (none) or more", s)
	}
	return d, nil
}

var sizeUnits = map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

// parseSize reads a number of bytes such as 64KiB.
func parseSize(s string) (int64, error) {
	i := strings.LastIndexAny(s, "0123456789") + 1
	unit, ok := sizeUnits[strings.TrimSpace(s[i:])]
	n, err := strconv.ParseInt(s[:i], 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size; expected bytes, as 65536, 64KiB or 4MiB", s)
	}
	return n * unit, nil
}

// names reads a list of words; one word stands for a list of one.
func (p *parser) names(n *yaml.Node) []string {
	out := []string{}
	add := func(c *yaml.Node) {
		before := len(p.errs)
		if word := p.text(c); len(p.errs) == before {
			out = append(out, word)
		}
	}
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		add(n)
	} else {
		p.items(n, "names", add)
	}
	return out
}

func (p *parser) id(n *yaml.Node) *uint32 {
	v := uint32(p.integer(n, 0, math.MaxUint32-1))
	return &v
}

func oneOf[T ~uint8](p *parser, n *yaml.Node, words []string) T {
	if n.Kind == yaml.ScalarNode {
		for i, w := range words {
			if n.Value == w {
				return T(i)
			}
		}
	}
	p.add(pos(n), "expected %s, not %s%s", alternatives(words), kindOf(n), didYouMean(n.Value, words, ""))
	return 0
}
