package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// TestVulncheck: make lint fails for a vulnerability that is found, and says in one line, without failing, that it could not look.
func TestVulncheck(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	const away = `govulncheck: fetching vulnerabilities: Get "https://vuln.go.dev/index/modules.json.gz": dial tcp: lookup vuln.go.dev: no such host`
	for _, c := range []struct {
		name, installs, finds string // what go install, and then govulncheck, do
		fails                 bool
		says                  string // "" for nothing
		lines                 int
	}{
		{"nothing found", "", "echo No vulnerabilities found.", false, "", 0},
		{"found", "", "echo 'Vulnerability #1: GO-2000-0001'; exit 3", true, "Vulnerability #1", 2},
		{"no database", "", "echo '" + away + "' >&2; exit 1", false, "cannot be reached", 1},
		{"no module", "echo 'go: downloading x'; echo 'dial tcp: no such host' >&2; exit 1", "", false, "cannot be had: dial tcp: no such host", 1},
		{"no packages", "", "echo 'govulncheck: loading packages: there are errors' >&2; exit 1", true, "govulncheck failed", 2},
		{"another database", "", `test "$*" = "-db file:///db ./..."`, false, "", 0},
	} {
		dir := t.TempDir()
		vaulttest.WriteFile(t, filepath.Join(dir, "govulncheck"), "#!/bin/sh\n"+c.finds+"\n", 0o755)
		vaulttest.WriteFile(t, filepath.Join(dir, "go.sh"), "#!/bin/sh\ntest \"$1 $2\" = 'install the/tool@v1' || exit 9\n"+c.installs+"\ncp "+dir+"/govulncheck \"$GOBIN\"\n", 0o755)
		copyProgram(t, filepath.Join(dir, "go.sh"), filepath.Join(dir, "go"))
		cmd := exec.Command("/bin/sh", filepath.Join(root, "tools/vulncheck.sh"))
		cmd.Env = append(os.Environ(), "GO="+dir+"/go", "GOVULNCHECK=the/tool@v1", "VULNDB=")
		if c.name == "another database" {
			cmd.Env = append(cmd.Env, "VULNDB=file:///db")
		}
		out, err := cmd.CombinedOutput()
		if (err != nil) != c.fails || !strings.Contains(string(out), c.says) || strings.Count(string(out), "\n") != c.lines {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}
