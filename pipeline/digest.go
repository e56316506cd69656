package pipeline

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"reflect"
	"sync"
)

// digest returns a number that changes when a pipeline does: it depends on
// every exported field of the model, on the text of templates and expressions,
// and on the pipelines that are run. It reads nothing that Check writes, so that
// a check of a pipeline may go on beside it.
func digest(p *Pipeline) uint64 {
	d := digester{seen: map[*Pipeline]int{}}
	d.h.SetSeed(digestSeed)
	d.pipeline(reflect.ValueOf(p))
	return d.h.Sum64()
}

var digestSeed = maphash.MakeSeed()

// hidden are the fields of a type, not exported, that say what it is; all
// others that are not exported follow from the rest.
var hidden = map[reflect.Type][]string{
	reflect.TypeFor[Template](): {"src", "tmpl"}, // tmpl is nil for a literal
	reflect.TypeFor[Expr]():     {"src"},
}

var (
	pipelineType = reflect.TypeFor[*Pipeline]()
	digestFields sync.Map // reflect.Type to []int
)

// fieldsOf returns the fields of a struct that the digest depends on.
func fieldsOf(t reflect.Type) []int {
	if f, ok := digestFields.Load(t); ok {
		return f.([]int)
	}
	var out []int
	for f := range t.Fields() {
		if f.IsExported() {
			out = append(out, f.Index[0])
		}
	}
	for _, name := range hidden[t] {
		f, _ := t.FieldByName(name)
		out = append(out, f.Index[0])
	}
	digestFields.Store(t, out)
	return out
}

type digester struct {
	h    maphash.Hash
	seen map[*Pipeline]int
}

func (d *digester) number(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	_, _ = d.h.Write(b[:])
}

func (d *digester) text(s string) {
	d.number(uint64(len(s)))
	_, _ = d.h.WriteString(s)
}

// pipeline writes one that is met again by its number, so that those who run
// the same one cost no more than one.
func (d *digester) pipeline(v reflect.Value) {
	p, _ := v.Interface().(*Pipeline)
	n, again := d.seen[p]
	if again || p == nil {
		d.number(uint64(n))
		return
	}
	d.seen[p] = len(d.seen) + 1
	d.fields(v.Elem())
}

// fields writes the fields of a struct that are set, each behind its number.
func (d *digester) fields(v reflect.Value) {
	for _, i := range fieldsOf(v.Type()) {
		if f := v.Field(i); !f.IsZero() {
			_ = d.h.WriteByte(byte(i + 1))
			d.value(f)
		}
	}
	_ = d.h.WriteByte(0)
}

func (d *digester) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		d.text(v.String())
	case reflect.Struct:
		d.fields(v)
	case reflect.Pointer:
		d.pointer(v)
	case reflect.Slice:
		d.slice(v)
	case reflect.Bool:
		if v.Bool() {
			d.number(1)
		} else {
			d.number(0)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		d.number(uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.number(v.Uint())
	case reflect.Float32, reflect.Float64:
		d.number(math.Float64bits(v.Float()))
	case reflect.Interface:
		if v.IsNil() {
			d.text("")
			return
		}
		d.text(v.Elem().Type().String())
		d.value(v.Elem())
	case reflect.Map:
		d.entries(v)
	}
}

func (d *digester) pointer(v reflect.Value) {
	switch {
	case v.Type() == pipelineType:
		d.pipeline(v)
	case v.IsNil():
		d.number(0)
	default:
		d.number(1)
		d.value(v.Elem())
	}
}

// slice tells nil from a slice without elements, which the language does too.
func (d *digester) slice(v reflect.Value) {
	if v.IsNil() {
		d.number(0)
		return
	}
	d.number(uint64(v.Len() + 1))
	for i := range v.Len() {
		d.value(v.Index(i))
	}
}

// entries adds up what the entries of a map come to, for they have no order.
func (d *digester) entries(v reflect.Value) {
	var sum uint64
	for it := v.MapRange(); it.Next(); {
		e := digester{seen: d.seen}
		e.h.SetSeed(digestSeed)
		e.value(it.Key())
		e.value(it.Value())
		sum += e.h.Sum64()
	}
	d.number(uint64(v.Len()))
	d.number(sum)
}
