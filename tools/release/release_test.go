package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// checkout is a repository of one commit, with what git tracks in the working tree, on a branch main.
type checkout struct {
	t        *testing.T
	dir, git string
	env      []string
	tool     string
}

func newCheckout(t *testing.T) *checkout {
	t.Helper()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	c := &checkout{t: t, dir: filepath.Join(base, "src"), git: needs.Program(t, "git"), tool: vaulttest.BuildStatic(t, "tools/release")}
	who := "me"
	c.env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME="+who, "GIT_AUTHOR_EMAIL=a@example", "GIT_COMMITTER_NAME="+who, "GIT_COMMITTER_EMAIL=a@example", "TMPDIR="+base)
	list := exec.Command(c.git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for _, file := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join(root, file))
		if os.IsNotExist(err) { // deleted, and not yet committed
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(c.dir, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		vaulttest.WriteFile(t, to, string(b), info.Mode().Perm())
	}
	c.must("init", "-q", "-b", "main")
	c.must("add", "-A")
	c.must("commit", "-q", "-m", "all")
	return c
}

func (c *checkout) must(args ...string) string {
	c.t.Helper()
	cmd := exec.Command(c.git, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (c *checkout) release(args ...string) (string, error) {
	cmd := exec.Command(c.tool, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *checkout) read(file string) string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// TestRelease makes one, for one platform and without packages, as far as it goes.
func TestRelease(t *testing.T) {
	t.Parallel()
	c := newCheckout(t)
	const entry = "- This is what is new.\n"
	log := strings.Replace(c.read(changelog), unreleased, unreleased+"\n### Added\n\n"+entry, 1)
	vaulttest.WriteFile(t, filepath.Join(c.dir, changelog), log, 0o644)
	c.must("commit", "-q", "-a", "-m", "entry")
	args := []string{"-version", "v0.98.7", "-date", "2030-01-02", "-tested", "-shared-cache", "-tags", "urfave_cli_no_docs,nethttpomithttp2", "-platforms", "linux/amd64"}
	out, err := c.release(args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if log := c.read(changelog); !strings.Contains(log, "\n## Unreleased\n\n## 0.98.7 - 2030-01-02\n\n### Added\n\n"+entry) {
		t.Errorf("the changelog begins with\n%.300s", log)
	}
	if !strings.Contains(c.read(versionFile), `const lastRelease = "v0.98.7"`) {
		t.Error("lastRelease is another")
	}
	if subject := c.must("log", "-1", "--format=%s"); subject != "release: v0.98.7" {
		t.Errorf("the last commit is %q", subject)
	}
	if changed := c.must("status", "--porcelain"); changed != "" {
		t.Errorf("not committed: %s", changed)
	}
	if tags := c.must("tag"); tags != "" {
		t.Errorf("tagged: %s", tags)
	}
	notes := c.read("dist/NOTES.md")
	if !strings.HasPrefix(notes, "### Added\n\n"+entry) || strings.Contains(notes, "\n## ") || strings.Contains(notes, "The first release.") {
		t.Errorf("the notes are\n%s", notes)
	}
	sums := c.read("dist/SHA256SUMS")
	if !regexp.MustCompile(`(?m)^[0-9a-f]{64}  vaultexec_v0\.98\.7_linux_amd64\.tar\.gz$`).MatchString(sums) {
		t.Errorf("%s", sums)
	}
	check := exec.Command(needs.Program(t, "sha256sum"), "-c", "--quiet", "SHA256SUMS")
	check.Dir = filepath.Join(c.dir, "dist")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v %s", err, out)
	}
	for _, want := range []string{"git tag -s v0.98.7", "git push origin main v0.98.7", "ssh-keygen -Y sign", "gh release upload v0.98.7"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	// The clones are gone, and a second run has nothing left to set.
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(c.dir), "release-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	head := c.must("rev-parse", "HEAD")
	if out, err := c.release(args...); err != nil || c.must("rev-parse", "HEAD") != head || c.read("dist/SHA256SUMS") != sums || c.read("dist/NOTES.md") != notes {
		t.Errorf("again: %v\n%s", err, out)
	}
}

// What cannot be released is said in one line, and nothing is changed.
func TestReleaseRefuses(t *testing.T) {
	t.Parallel()
	c := newCheckout(t)
	log := c.read(changelog)
	begin, rest, _ := strings.Cut(log, unreleased)
	_, rest, _ = strings.Cut(rest, "\n## ")
	empty := begin + unreleased + "\n## " + rest
	set := func(text string) func() {
		return func() {
			vaulttest.WriteFile(t, filepath.Join(c.dir, changelog), text, 0o644)
			c.must("commit", "-q", "--allow-empty", "-a", "-m", "changelog")
		}
	}
	vaulttest.WriteFile(t, filepath.Join(c.dir, changelog), begin+unreleased+"\n- New.\n\n## "+rest, 0o644)
	c.must("commit", "-q", "--allow-empty", "-a", "-m", "entry")
	for _, tc := range []struct {
		name, version, want string
		before              func()
		more                []string
	}{
		{name: "none", version: "", want: `VERSION is ""`},
		{name: "form", version: "1.2", want: "MAJOR.MINOR.PATCH"},
		{name: "zeros", version: "1.02.3", want: "MAJOR.MINOR.PATCH"},
		{name: "major", version: "2.0.0", want: "its path has to end in /v2"},
		{name: "date", version: "0.98.7", want: "YYYY-MM-DD", more: []string{"-date", "today"}},
		{name: "older", version: "0.0.9", want: "does not come after"},
		{name: "tagged", version: "0.98.6", want: "there is a tag v0.98.6", before: func() { c.must("tag", "v0.98.6") }},
		{name: "tests", version: "0.98.7", want: "make test: exit status", more: []string{"-tested=false"}, before: func() {
			vaulttest.WriteFile(t, filepath.Join(c.dir, "Makefile"), "test:\n\t@grep -q '^## 0.98.7 - ' CHANGELOG.md && exit 1\n", 0o644)
			c.must("commit", "-q", "-a", "-m", "a test that fails, when the version is set")
		}},
		{name: "branch", version: "0.98.7", want: "a release is made of main", before: func() { c.must("switch", "-q", "-c", "other") }},
		{name: "dirty", version: "0.98.7", want: "commit or take back", before: func() {
			c.must("switch", "-q", "main")
			vaulttest.WriteFile(t, filepath.Join(c.dir, "new"), "x", 0o644)
		}},
		{name: "nothing new", version: "0.98.7", want: "there is nothing to release", before: func() {
			if err := os.Remove(filepath.Join(c.dir, "new")); err != nil {
				t.Fatal(err)
			}
			set(empty)()
		}},
	} {
		if tc.before != nil {
			tc.before()
		}
		head, status := c.must("rev-parse", "HEAD"), c.must("status", "--porcelain")
		out, err := c.release(append([]string{"-version", tc.version, "-tested", "-shared-cache", "-platforms", "linux/amd64"}, tc.more...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if last := lines[len(lines)-1]; err == nil || !strings.HasPrefix(last, "release: ") || !strings.Contains(last, tc.want) || len(lines) > 1 && tc.name != "tests" {
			t.Errorf("%s: %v\n%s", tc.name, err, out)
		}
		if c.must("rev-parse", "HEAD") != head || c.must("status", "--porcelain") != status || vaulttest.Exists(filepath.Join(c.dir, "dist")) {
			t.Errorf("%s: something was changed", tc.name)
		}
	}
}

func TestNewer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		version, last string
		want          bool
	}{
		{"0.2.0", "0.1.0", true}, {"0.10.0", "0.9.9", true}, {"1.0.0", "0.99.0", true}, {"0.1.1", "0.1.0", true},
		{"0.1.0", "0.1.0", false}, {"0.0.9", "0.1.0", false}, {"0.9.9", "0.10.0", false},
	} {
		if got := newer(tc.version, tc.last); got != tc.want {
			t.Errorf("%s after %s: %t", tc.version, tc.last, got)
		}
	}
}
