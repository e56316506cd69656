package pipeline

import (
	"strings"
)

// Graph is the order of the steps of a checked pipeline. The first len(Steps)
// nodes are the steps. Those after them are barriers: they run nothing, and end
// when all that they need has ended.
type Graph struct {
	// Needs lists, for each node, the nodes whose success it needs.
	Needs [][]int32
	// After has, for each step in sync mode, the step before it, or -1. It
	// says when the step may start, and not whether.
	After []int32
}

// Graph returns the order of the steps. The pipeline must have been checked.
func (p *Pipeline) Graph() *Graph { return p.graph }

// graph resolves names, adds the edges of sync steps, and refuses cycles.
func (c *checker) graph() *Graph {
	n := len(c.p.Steps)
	g := &Graph{Needs: make([][]int32, n, n+1), After: make([]int32, n)}
	barrier := int32(-1)
	for i, s := range c.p.Steps {
		g.After[i] = -1
		if c.p.Mode == ModeSync && i > 0 {
			g.After[i] = int32(i - 1)
		}
		for _, ref := range s.Needs {
			j, ok := c.p.index[ref.Name]
			switch {
			case !ok:
				c.add(ref.Pos, "unknown step %q in needs%s", ref.Name, didYouMean(ref.Name, c.stepNames(), ""))
				continue
			case c.p.Mode == ModeSync && j > i:
				c.add(ref.Pos, "step %q comes later in the file; in mode: sync a step can need earlier ones only", ref.Name)
				continue
			}
			g.Needs[i] = append(g.Needs[i], int32(j))
		}
		if c.p.Mode == ModeAsync {
			if barrier >= 0 {
				g.Needs[i] = append(g.Needs[i], barrier)
			}
			if s.Sync {
				needs := []int32{int32(i)}
				if barrier >= 0 {
					needs = append(needs, barrier)
				}
				g.Needs = append(g.Needs, needs)
				barrier = int32(len(g.Needs) - 1)
			}
		}
	}
	if cycle := g.cycle(); cycle != nil {
		c.cycle(cycle, n)
		return nil
	}
	c.reads(g)
	return g
}

// cycle returns the nodes of a cycle, each needing the one after it, or nil.
func (g *Graph) cycle() []int32 {
	const unseen, open, done = 0, 1, 2
	state := make([]uint8, len(g.Needs))
	next := make([]int32, len(g.Needs)) // the edge of an open node to follow
	var path []int32
	for start := range g.Needs {
		if state[start] != unseen {
			continue
		}
		path = append(path[:0], int32(start))
		state[start] = open
		for len(path) > 0 {
			i := path[len(path)-1]
			if int(next[i]) == len(g.Needs[i]) {
				state[i] = done
				path = path[:len(path)-1]
				continue
			}
			j := g.Needs[i][next[i]]
			next[i]++
			switch state[j] {
			case unseen:
				state[j] = open
				path = append(path, j)
			case open:
				for k, v := range path {
					if v == j {
						return path[k:]
					}
				}
			}
		}
	}
	return nil
}

func (c *checker) cycle(nodes []int32, steps int) {
	var names []string
	var at Pos
	for _, i := range nodes {
		if int(i) < steps {
			if names == nil {
				at = c.p.Steps[i].Pos
			}
			names = append(names, c.p.Label(int(i)))
		}
	}
	names = append(names, names[0])
	if len(names) > 12 {
		names = append(append(names[:6:6], "…"), names[len(names)-5:]...)
	}
	if len(nodes) == 1 {
		c.add(at, "step %s needs itself", names[0])
		return
	}
	c.add(at, "steps need each other in a cycle: %s", strings.Join(names, " -> "))
}

// reads refuses to read a step that need not have ended by then.
func (c *checker) reads(g *Graph) {
	c.p.eachTemplate(eachExpr(func(_ string, e *Expr) {
		for _, name := range e.steps {
			c.add(e.pos(), "the settings of the pipeline hold for every step, so they cannot read steps.%s", name)
		}
	}))
	for i, s := range c.p.Steps {
		var above map[int32]bool
		s.EachExpr(func(_ string, e *Expr) {
			for _, name := range e.steps {
				at, ok := c.p.index[name]
				j := int32(at)
				switch {
				case !ok: // reported where the expression was compiled
				case int(j) == i:
					c.add(e.pos(), "step %s reads its own result, which is not there before it ends", name)
				case c.p.Mode == ModeSync:
					if int(j) > i {
						c.add(e.pos(), "steps.%s is read before the step runs; it comes later in the file", name)
					}
				default:
					if above == nil {
						above = g.above(int32(i))
					}
					if !above[j] {
						c.add(e.pos(), "steps.%s is read without a path of needs to it; add needs: [%s]", name, name)
					}
				}
			}
		})
	}
}

// above returns the nodes that have ended before node i starts.
func (g *Graph) above(i int32) map[int32]bool {
	seen := map[int32]bool{}
	todo := append([]int32{}, g.Needs[i]...)
	for len(todo) > 0 {
		j := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[j] {
			seen[j] = true
			todo = append(todo, g.Needs[j]...)
		}
	}
	return seen
}

// Select reports, for each node of the graph, whether it must run if just the
// named steps are wanted: they themselves, what they need, and what their
// expressions read. If a name is not that of a step, the error is an [*Error].
func (p *Pipeline) Select(names []string) ([]bool, error) {
	keep := make([]bool, len(p.graph.Needs))
	var todo []int32
	for _, name := range names {
		i, ok := p.index[name]
		if !ok {
			c := &checker{p: p}
			all := c.stepNames()
			hint := "; no step of the file has a name"
			if len(all) > 0 {
				hint = didYouMean(name, all, "; the file has "+strings.Join(all, ", "))
			}
			return nil, &Error{File: p.File, Msg: "no step is named \"" + name + "\"" + hint}
		}
		todo = append(todo, int32(i))
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if keep[i] {
			continue
		}
		keep[i] = true
		todo = append(todo, p.graph.Needs[i]...)
		if int(i) < len(p.Steps) {
			for _, name := range p.Steps[i].Reads() {
				todo = append(todo, int32(p.index[name]))
			}
		}
	}
	return keep, nil
}
