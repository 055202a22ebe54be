package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every option and variable that a file of deploy/ or a page of docs/ names is one that there is.
func TestDeployNamesExist(t *testing.T) {
	known := []string{"VAULTEXEC_SECRET_ID", "VAULTEXEC_WRAPPED_SECRET_ID", "VAULTEXEC_JWT", "VAULTEXEC_PASSWORD", "VAULTEXEC_WRAPPED_TOKEN"}
	var optionsThere []string
	tables := [][]option{options, checkOptions()}
	for _, c := range adminCommands {
		tables = append(tables, c.options())
	}
	for _, table := range tables {
		for _, o := range table {
			known = append(known, o.env...)
			optionsThere = append(optionsThere, "--"+o.name)
		}
	}
	files, _ := filepath.Glob("deploy/*")
	pages, _ := filepath.Glob("docs/operations.md")
	for _, file := range append(files, pages...) {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // policies/
		}
		for _, name := range regexp.MustCompile(`\bVAULTEXEC_[A-Z_]+\b`).FindAllString(string(b), -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s names %s, which there is not", file, name)
			}
		}
		for _, line := range regexp.MustCompile(`vaultexec"?( unseal| rotate| rollback| set| import| get| list| diff| status| check)?( --?[a-z].*)`).FindAllString(string(b), -1) {
			line, _, _ = strings.Cut(line, " -- ")
			for _, name := range regexp.MustCompile(`--[a-z-]+`).FindAllString(line, -1) {
				if !slices.Contains(optionsThere, name) {
					t.Errorf("%s: no option %s in %q", file, name, line)
				}
			}
		}
	}
}
