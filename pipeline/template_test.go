package pipeline

import (
	"errors"
	"strings"
	"testing"
)

// TestNewTemplate: what is wrong with a template or an expression built in Go
// is one clear error of Check, and of an evaluation without a check.
func TestNewTemplate(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"${{ foo", "argument 1: ${{ has no closing }}; write $${{ for the three characters themselves"},
		{"a ${{ }}", "argument 1: ${{ }} is empty; it takes an expression such as params.name"},
		{"${{ foo }}", `unknown name "foo" in ${{ foo }}; there are params, args, env, steps, pipeline, host`},
		{"${{ 'a }} ${{ 1 }}", "argument 1: ${{ has no closing }}; write $${{ for the three characters themselves"},
		{"x\x00${{ 1 }}", `argument 1: NUL byte in "x\x00${{ 1 }}"`},
	} {
		s := SpawnStep("s", "echo", "")
		s.Stages[0].Args[1] = NewTemplate(tt.text)
		err := (&Pipeline{Steps: []*Step{s}}).Check()
		var list Errors
		if !errors.As(err, &list) || len(list) != 1 || list[0].Error() != "pipeline: step s: "+tt.want {
			t.Errorf("%s: got\n  %v\nexpected\n  %s", tt.text, err, tt.want)
		}
	}
	if _, err := NewTemplate("${{ foo").Eval(&Vars{}); err == nil || err.Error() != unclosed {
		t.Errorf("evaluated to %v", err)
	}
	if _, err := NewTemplate("${{ foo").EvalGlob(&Vars{}); err == nil || err.Error() != unclosed {
		t.Errorf("evaluated as a pattern to %v", err)
	}
	for _, tt := range []struct{ text, want string }{
		{"", "the expression is empty"},
		{"  ", "the expression is empty"},
		{"${{ }}", "the expression is empty"},
		{"${{ foo", unclosed},
		{"${{ 1 }} == ${{ 2 }}", "this is one expression: put all of it into one ${{ }}, or leave the braces out"},
		{strings.Repeat("a", maxExpr+1), "the expression is 16385 bytes long, at most 16384 are read; put the value into a parameter or a step"},
	} {
		s := SpawnStep("s", "echo")
		s.If = NewExpr(tt.text)
		err := (&Pipeline{Steps: []*Step{s}}).Check()
		if err == nil || err.Error() != "pipeline: step s: "+tt.want {
			t.Errorf("%.40s: got\n  %v\nexpected\n  %s", tt.text, err, tt.want)
		}
	}
	if got := NewExpr(" ${{ a == '}}' }} ").String(); got != "a == '}}'" {
		t.Errorf("the expression is %s", got)
	}
}

// checked returns a template after it was compiled.
func checked(t *testing.T, text string) Template {
	t.Helper()
	s := SpawnStep("s", "echo", "")
	s.Stages[0].Args[1] = NewTemplate(text)
	p := &Pipeline{Params: []*Param{{Name: "a"}, {Name: "l", Type: ParamList}, {Name: "n", Type: ParamNumber}}, Steps: []*Step{s}}
	if err := p.Check(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s.Stages[0].Args[1]
}

func TestEval(t *testing.T) {
	v := &Vars{Params: map[string]any{"a": "v*", "l": []string{"x", "y[1]"}, "n": 1e21, "null": nil, "nul": "a\x00"}}
	for _, tt := range []struct{ text, eval, args, glob string }{
		{"plain", "plain", "plain", "plain"},
		{"*.go", "*.go", "*.go", "*.go"},
		{"$${{ x }}", "${{ x }}", "${{ x }}", "${{ x }}"},
		{"$${{ ${{ params.a }} $${{", "${{ v* ${{", "${{ v* ${{", `${{ v\* ${{`},
		{"*/${{ params.a }}", "*/v*", "*/v*", `*/v\*`},
		{"${{ raw(params.a) }}", "v*", "v*", "v*"},
		{"${{ params.l }}", `["x","y[1]"]`, "x|y[1]", `x|y\[1]`},
		{"-${{ params.l }}", `-["x","y[1]"]`, `-["x","y[1]"]`, `-\["x","y\[1]"]`},
		{"${{ 1..3 }}", "[1,2,3]", "1|2|3", "1|2|3"},
		{"${{ {'a': 1} }}", `{"a":1}`, `{"a":1}`, `\{"a":1\}`},
		{"${{ params.n }}", "1e+21", "1e+21", "1e+21"},
		{"${{ 3.0 }}${{ true }}${{ 7 }}", "3true7", "3true7", "3true7"},
		{"${{ lines('a\\r\\nb\\n') }}", `["a","b"]`, "a|b", "a|b"},
		{"${{ lines('') }}", "[]", "", ""},
		{"${{ quote(\"it's\") }}", `'it'"'"'s'`, `'it'"'"'s'`, `'it'"'"'s'`},
		{"${{ toJSON(params.l) }}", "[\n  \"x\",\n  \"y[1]\"\n]", "[\n  \"x\",\n  \"y[1]\"\n]", "\\[\n  \"x\",\n  \"y\\[1]\"\n]"},
	} {
		tm := checked(t, tt.text)
		eval, err := tm.Eval(v)
		if err != nil || eval != tt.eval {
			t.Errorf("%s is %q, %v; expected %q", tt.text, eval, err, tt.eval)
		}
		args, err := tm.EvalArgs(v)
		if got := strings.Join(args, "|"); err != nil || got != tt.args {
			t.Errorf("%s is the arguments %q, %v; expected %q", tt.text, got, err, tt.args)
		}
		glob, err := tm.EvalGlob(v)
		if got := strings.Join(glob, "|"); err != nil || got != tt.glob {
			t.Errorf("%s is the patterns %q, %v; expected %q", tt.text, got, err, tt.glob)
		}
		if tm.String() != tt.text || tm.IsZero() {
			t.Errorf("%s is shown as %s", tt.text, tm)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"${{ params['null'] }}", "null"},
		{"${{ params['nul'] }}", "NUL byte"},
		{"x${{ params['nul'] }}", "NUL byte"},
		{"${{ quote(params['nul']) }}", "NUL byte"},
		{"${{ 1 / params.a }}", "${{ 1 / params.a }}: "},
		{"${{ glob('[') }}", "not a pattern"},
	} {
		tm := checked(t, strings.NewReplacer("['null']", "['a']", "['nul']", "['a']").Replace(tt.text))
		w := &Vars{Params: map[string]any{"a": v.Params["a"]}}
		switch {
		case strings.Contains(tt.text, "'null'"):
			w.Params["a"] = nil
		case strings.Contains(tt.text, "'nul'"):
			w.Params["a"] = "a\x00"
		}
		_, err1 := tm.Eval(w)
		_, err2 := tm.EvalArgs(w)
		_, err3 := tm.EvalGlob(w)
		for _, err := range []error{err1, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v; expected %q", tt.text, err, tt.want)
			}
		}
	}
}

func TestGlobFunction(t *testing.T) {
	tm := checked(t, "${{ glob('*_test.go') }}")
	got, err := tm.EvalArgs(&Vars{Dir: ".", Visible: func(path string) bool { return strings.Contains(path, "template") }})
	if err != nil || len(got) != 1 || got[0] != "template_test.go" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := tm.EvalArgs(&Vars{Dir: "testdata/none"}); err != nil || len(got) != 0 {
		t.Errorf("%q %v", got, err)
	}
}

// TestPlaces: an error in the second expression of a text is at its place,
// however the text is written.
func TestPlaces(t *testing.T) {
	for name, value := range map[string]string{
		"plain":  "$${{ x }} ${{ params.a }} ¡${{ oops }}",
		"single": "'it''s $${{ ${{ params.a }} ü ${{ oops }}'",
		"double": `"\t\u00e9\x41\"$${{ ${{ params.a }}\
		  \  ${{ oops }}"`,
		"double lines":    "\"$${{ a\n\n      ${{ params.a }}  \n      b ${{ oops }}\"",
		"plain lines":     "a $${{ b\n\n\n      ${{ params.a }}\n      ü${{ oops }}",
		"single lines":    "'a''\n      $${{\n\n      ${{ params.a }} ${{ oops }}'",
		"literal":         "|\n\n      $${{ ü\n        ${{ params.a }}\n\n      é ${{ oops }}\n",
		"literal indent":  "|2-\n         $${{ ü\n        ${{ params.a }}\n       ${{ oops }}\n",
		"folded":          ">\n      $${{ ü\n      ${{ params.a }}\n\n        more\n         ${{ params.a }} deep\n\n      back\n      ü ${{ oops }}\n",
		"folded comment":  ">- # a comment\n\n      $${{ ${{ params.a }}\n      ${{ oops }}",
		"anchor":          "&x '$${{ ${{ params.a }} ${{ oops }}'",
		"anchor and tag":  "&x !!str\n      $${{ ${{ params.a }} ${{ oops }}",
		"carriage return": "|\r\n      $${{ x\r\n      ${{ params.a }} ${{ oops }}\r\n",
	} {
		value = strings.ReplaceAll(value, "\t\t", "      ")
		src := "params: {a: {default: x}}\nsteps:\n  - spawn: [cat]\n    input: " + value + "\n"
		before, _, _ := strings.Cut(src, "${{ oops")
		line := strings.Count(before, "\n") + 1
		col := len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1
		_, err := Parse("f.yaml", []byte(src))
		var list Errors
		if !errors.As(err, &list) || len(list) != 1 || list[0].Pos != (Pos{line, col}) {
			t.Errorf("%s: got\n  %v\nexpected it at %d:%d of\n%s", name, err, line, col, src)
		}
	}
}

// TestShellPlaces: so are errors in shell text, whatever comes before them.
func TestShellPlaces(t *testing.T) {
	for name, value := range map[string]string{
		"literal":         "|\n      echo '$${{' \"${{ params.a }}\" ü\n      echo ü <(@)\n",
		"literal raw":     "|\n      echo ${{ raw(params.a) }} é; echo <(@)\n",
		"folded":          ">\n      echo '$${{'\n      \"${{ params.a }}\" é <(@)\n",
		"double":          `"echo \"${{ params.a }}\" \u00e9 <(@)"`,
		"no value":        "echo ü '$${{' <(@)",
		"lines of a hole": "|\n      echo \"${{ params.a\n        + 'x' }}\" <(@)\n",
	} {
		src := "params: {a: {default: x}}\nsteps:\n  - exec: " + value + "\n"
		before, _, _ := strings.Cut(src, "<(@")
		line := strings.Count(before, "\n") + 1
		col := len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1
		_, err := Parse("f.yaml", []byte(src))
		var list Errors
		if !errors.As(err, &list) || len(list) != 1 || list[0].Pos != (Pos{line, col}) || !strings.Contains(err.Error(), "process substitution") {
			t.Errorf("%s: got\n  %v\nexpected it at %d:%d of\n%s", name, err, line, col, src)
		}
	}
}

func TestWritten(t *testing.T) {
	tm := parseTemplate("a$${{b$${{c${{ 1 }}$${{d", nil)
	unescaped := "a${{b${{c${{ 1 }}${{d"
	for off, want := range map[string]int{"a": 0, "b": 5, "c": 10, "1": 15, "d": 23} {
		i := strings.Index(unescaped, off)
		if got := tm.tmpl.written(i); got != want || tm.src[got] != off[0] {
			t.Errorf("%s at %d is at %d, expected %d", off, i, got, want)
		}
	}
	if got := tm.tmpl.written(strings.Index(unescaped, "${{")); got != 2 {
		t.Errorf("the first braces are at %d", got)
	}
}

// TestGlobPlace: the ! of a pattern counts.
func TestGlobPlace(t *testing.T) {
	_, err := Parse("f", []byte("steps:\n  - {spawn: [a], sources: ['**', '!a${{ x }}']}\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "f:2:37: unknown name") {
		t.Errorf("%v", err)
	}
}

// FuzzPlaces: a place is in the file, whatever the file.
func FuzzPlaces(f *testing.F) {
	f.Add("a: |2\n   x\n\n  ${{ b }}")
	f.Add("a: \"\\x41\\\n ${{ b }}\"")
	f.Add("&a 'x''\n\n ${{'")
	f.Fuzz(func(t *testing.T, text string) {
		src := "steps:\n  - input: " + text
		_, err := Parse("f", []byte(src))
		lines := strings.Split(src, "\n")
		var list Errors
		if errors.As(err, &list) {
			for _, e := range list {
				if e.Pos.Line > len(lines) {
					t.Errorf("%v is behind the end", e)
				}
			}
		}
	})
}
