package runner_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/pipe-runner/pipe/runner"
)

// TestAliases: go doc shows no fields of a type of an internal package, so the
// comment of its alias lists all of them, and its methods.
func TestAliases(t *testing.T) {
	t.Parallel()
	docs := map[string]string{}
	for _, name := range []string{"aliases.go", "jobs.go"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE && len(g.Specs) == 1 {
				docs[g.Specs[0].(*ast.TypeSpec).Name.Name] = g.Doc.Text()
			}
		}
	}
	for name, v := range map[string]any{
		"PastRun": &runner.PastRun{}, "PastStep": &runner.PastStep{}, "LockError": &runner.LockError{}, "Watched": &runner.Watched{}, "JobSpec": &runner.JobSpec{},
	} {
		typ := reflect.TypeOf(v)
		var members []string
		for i := range typ.Elem().NumField() {
			if f := typ.Elem().Field(i); f.IsExported() {
				members = append(members, f.Name)
			}
		}
		for i := range typ.NumMethod() {
			if m := typ.Method(i).Name; m != "Error" {
				members = append(members, m)
			}
		}
		for _, m := range members {
			if !regexp.MustCompile(`(?m)^\t([A-Za-z]+, )*` + m + `\b`).MatchString(docs[name]) {
				t.Errorf("the comment of %s does not tell of %s", name, m)
			}
		}
	}
}
