package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNames: the tests, files and folders that SECURITY.md names as what
// holds a promise are there.
func TestSecurityNames(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		tests.Write(src)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, promises, _ := strings.Cut(string(text), "## Promises")
	promises, _, _ = strings.Cut(promises, "## Out of scope")
	count := 0
	for _, line := range strings.Split(promises, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		private := ""
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1) {
			name := m[1]
			count++
			switch {
			case strings.HasPrefix(name, "Test"), strings.HasPrefix(name, "Fuzz"):
				end := "("
				if prefix, ok := strings.CutSuffix(name, "…"); ok {
					name, end = prefix, ""
				}
				if !strings.Contains(tests.String(), "\nfunc "+name+end) {
					t.Errorf("there is no test %s", m[1])
				}
			case strings.HasSuffix(name, ".txtar"):
				if _, err := os.Stat(filepath.Join(root, "testdata", "script", name)); err != nil {
					t.Error(err)
				}
			case !strings.ContainsAny(name, "/.") && name != "testdata": // a function of the file that follows
				private = name
			default:
				src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
				if info, serr := os.Stat(filepath.Join(root, filepath.FromSlash(name))); serr != nil || err != nil && !info.IsDir() {
					t.Errorf("there is no %s", name)
				}
				if private != "" && !strings.Contains(string(src), "\nfunc "+private+"(") {
					t.Errorf("%s has no function %s", name, private)
				}
				private = ""
			}
		}
		if private != "" {
			t.Errorf("%s: which file has it?", private)
		}
	}
	if count < 30 {
		t.Errorf("SECURITY.md names only %d", count)
	}
}
