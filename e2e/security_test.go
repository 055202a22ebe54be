package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityCitesTests: every test that SECURITY.md names exists, every promise names one, and the README leads there.
func TestSecurityCitesTests(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	err = filepath.WalkDir(".", func(f string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(f, "_test.go") {
			b, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllSubmatch(b, -1) {
				tests[string(m[1])] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cited := 0
	for line := range strings.Lines(string(text)) {
		names := regexp.MustCompile("`(Test[A-Z]\\w+|[a-z-]+\\.txtar)`").FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| promise |") && len(names) == 0 {
			t.Errorf("a promise without a test: %s", line)
		}
		for _, n := range names {
			cited++
			_, err := os.Stat(filepath.Join("testdata", "scripts", n[1]))
			if !tests[n[1]] && err != nil {
				t.Errorf("there is no test %s", n[1])
			}
		}
	}
	if cited < 20 {
		t.Errorf("only %d tests are cited", cited)
	}
	if readme, _ := os.ReadFile("README.md"); !strings.Contains(string(readme), "](SECURITY.md)") {
		t.Error("the README does not link to SECURITY.md")
	}
}
