package pipeline_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pipe-runner/pipe/pipeline"
)

func TestOK(t *testing.T) {
	files, _ := filepath.Glob("../testdata/ok/*.yaml")
	more, _ := filepath.Glob("../testdata/examples/*.yaml")
	if len(files) == 0 || len(more) == 0 {
		t.Fatal("no files")
	}
	for _, f := range append(files, more...) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pipeline.Parse(filepath.Base(f), src); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

var want = regexp.MustCompile(`(?m)# want (\d+(?::\d+)?): (.*)$`)

// TestErr expects for each "# want LINE:COL: TEXT" an error at that place that
// has the text in it, and no other errors.
func TestErr(t *testing.T) {
	files, _ := filepath.Glob("../testdata/err/*.yaml")
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			_, err = pipeline.Parse("f", src)
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.Split(err.Error(), "\nf:")
			wants := want.FindAllSubmatch(src, -1)
			for i, g := range got {
				g = strings.TrimPrefix(g, "f:")
				if i >= len(wants) {
					t.Errorf("more errors than expected: %s", g)
					continue
				}
				place, text := string(wants[i][1])+": ", string(wants[i][2])
				if !strings.HasPrefix(g, place) || !strings.Contains(g, text) {
					t.Errorf("error %d is\n  %s\nexpected\n  %s%s", i, g, place, text)
				}
			}
			if len(got) < len(wants) {
				t.Errorf("%d errors, expected %d:\n%v", len(got), len(wants), err)
			}
		})
	}
}

// FuzzParse: any text gives a pipeline or errors, never a crash, and every
// error of a file has a place or is about the file as a whole.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"ok", "err", "examples"} {
		files, _ := filepath.Glob("../testdata/" + dir + "/*.yaml")
		for _, name := range files {
			src, _ := os.ReadFile(name)
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := pipeline.Parse("f.yaml", src)
		if (p == nil) == (err == nil) {
			t.Fatalf("pipeline %v and error %v", p, err)
		}
	})
}
