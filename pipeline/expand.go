package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxInstances is how many instances one step may have.
const MaxInstances = 100_000

// Matrix are the combinations of the values of axes.
type Matrix struct {
	Pos     Pos
	Axes    []Axis
	Exclude []map[string]any // combinations left out: those that have all these values
	// Include has further combinations. An entry that has the same values as
	// some combinations, in all axes that it names, adds its other values to them
	// instead.
	Include []map[string]any
}

// Axis is one list of values with a name.
type Axis struct {
	Name   string
	Values []any
}

// Instance is one of the things that a step with a matrix or forEach runs for.
type Instance struct {
	Label  string         // for people, in brackets behind the step's name
	Matrix map[string]any // nil without a matrix
	Item   any            // nil without forEach
}

// Expands reports whether the step runs once for each of several things.
func (s *Step) Expands() bool { return s.Matrix != nil || s.ForEach != nil }

// Instances returns what a step that expands runs for, in order. It is an error
// if there are more than [MaxInstances], or if the value of forEach is no list.
func (s *Step) Instances(v *Vars) ([]Instance, error) {
	if s.Matrix != nil {
		return s.Matrix.instances()
	}
	val, err := s.ForEach.Eval(v)
	if err != nil {
		return nil, fmt.Errorf("forEach: %w", err)
	}
	items, ok := listOf(val)
	if !ok {
		return nil, fmt.Errorf("forEach: ${{ %s }} is %T and not a list; lines(…) makes one of text", s.ForEach.src, val)
	}
	if len(items) > MaxInstances {
		return nil, fmt.Errorf("forEach has %d elements; a step runs for at most %d", len(items), MaxInstances)
	}
	out := make([]Instance, len(items))
	seen := make(map[string]bool, len(items))
	for i, it := range items {
		label := itemLabel(it)
		if label == "" || seen[label] { // the index tells it from the others
			label = strings.TrimPrefix(label+" #"+strconv.Itoa(i), " ")
		}
		seen[label] = true
		out[i] = Instance{Label: label, Item: it}
	}
	return out, nil
}

// itemLabel returns the text of an element, or "" if people could not read it.
func itemLabel(it any) string {
	switch it.(type) {
	case string, bool, int, int64, float64:
		text, _ := Text(it)
		return printable(text)
	}
	return ""
}

// printable makes a label of text: one line, and no more than 60 bytes.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// size returns how many combinations the axes have, at most MaxInstances+1.
func (m *Matrix) size() int {
	n := 1
	for _, a := range m.Axes {
		if n *= len(a.Values); n > MaxInstances {
			return MaxInstances + 1
		}
	}
	if len(m.Axes) == 0 {
		n = 0
	}
	return n
}

func (m *Matrix) instances() ([]Instance, error) {
	if m.size()+len(m.Include) > MaxInstances {
		return nil, fmt.Errorf("the matrix has more than %d combinations", MaxInstances)
	}
	var combos []map[string]any
	if len(m.Axes) > 0 {
		combos = []map[string]any{{}}
	}
	for _, a := range m.Axes {
		next := make([]map[string]any, 0, len(combos)*len(a.Values))
		for _, c := range combos {
			for _, v := range a.Values {
				n := make(map[string]any, len(m.Axes))
				for k, x := range c {
					n[k] = x
				}
				n[a.Name] = v
				next = append(next, n)
			}
		}
		combos = next
	}
	combos = slices.DeleteFunc(combos, func(c map[string]any) bool {
		return slices.ContainsFunc(m.Exclude, func(e map[string]any) bool { return agrees(c, e, nil) })
	})
	own := len(combos) // what include adds to
	for _, inc := range m.Include {
		added := false
		for _, c := range combos[:own] {
			if m.names(inc) && agrees(c, inc, m.axis) {
				added = true
				for k, v := range inc {
					c[k] = v
				}
			}
		}
		if !added {
			combos = append(combos, inc)
		}
	}
	out := make([]Instance, len(combos))
	for i, c := range combos {
		for _, name := range m.Keys() { // every name is there, if only as null
			if _, ok := c[name]; !ok {
				c[name] = nil
			}
		}
		out[i] = Instance{Label: m.label(c), Matrix: c}
	}
	return out, nil
}

// agrees reports whether a combination has all values of part. If only is not
// nil, it compares just the names that only accepts.
func agrees(c, part map[string]any, only func(string) bool) bool {
	for k, v := range part {
		if (only == nil || only(k)) && c[k] != v {
			return false
		}
	}
	return true
}

func (m *Matrix) axis(name string) bool {
	return slices.ContainsFunc(m.Axes, func(a Axis) bool { return a.Name == name })
}

// names reports whether an entry names an axis at all.
func (m *Matrix) names(inc map[string]any) bool {
	for k := range inc {
		if m.axis(k) {
			return true
		}
	}
	return false
}

// Keys returns the names that matrix.NAME may read: axes first, then what
// include adds.
func (m *Matrix) Keys() []string {
	var out, more []string
	for _, a := range m.Axes {
		out = append(out, a.Name)
	}
	for _, inc := range m.Include {
		for k := range inc {
			if !m.axis(k) && !slices.Contains(more, k) {
				more = append(more, k)
			}
		}
	}
	slices.Sort(more)
	return append(out, more...)
}

// label names a combination by its values.
func (m *Matrix) label(c map[string]any) string {
	var words []string
	for _, k := range m.Keys() {
		if v := c[k]; v != nil {
			text, _ := Text(v)
			words = append(words, text)
		}
	}
	return printable(strings.Join(words, ","))
}
