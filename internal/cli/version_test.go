package cli

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestVersion(t *testing.T) {
	for stamp, want := range map[string]string{
		"v0.1.0":                                   "v0.1.0",
		"v0.1.1-0.20261130120000-0123456789ab":     "v0.1.1-0.20261130120000-0123456789ab",
		"v0.0.0-20261130120000-0123456789ab":       "v0.0.0-20261130120000-0123456789ab+after." + lastRelease,
		"v0.0.0-20261130120000-0123456789ab+dirty": "v0.0.0-20261130120000-0123456789ab+dirty.after." + lastRelease,
		"(devel)": lastRelease + "+unknown",
		"":        lastRelease + "+unknown",
	} {
		if got := versionOf(stamp); got != want {
			t.Errorf("%q: %q, want %q", stamp, got, want)
		}
	}
}

// The release is written down twice: here for builds that know no tag, in the changelog for people.
func TestVersionIsTheChangelogs(t *testing.T) {
	b, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(b), -1)
	if len(sections) < 2 || sections[0][1] != "Unreleased" {
		t.Fatalf("the changelog does not begin with a section Unreleased and a release: %q", sections)
	}
	release := regexp.MustCompile(`^(\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$`).FindStringSubmatch(sections[1][1])
	if release == nil {
		t.Fatalf("%q is not of the form VERSION - DATE", sections[1][1])
	}
	if "v"+release[1] != lastRelease {
		t.Errorf("the newest release of the changelog is %s, and lastRelease is %s", release[1], lastRelease)
	}
}

// The program that a test builds has no tag, and mostly no commit. It tells the release all the same, in one word.
func TestVersionOfTheBuild(t *testing.T) {
	out, err := exec.Command(vaulttest.Build(t, "."), "--version").Output()
	if err != nil || !regexp.MustCompile(`^vaultexec v\d+\.\d+\.\d+\S*\n$`).Match(out) {
		t.Errorf("--version: %v %q", err, out)
	}
}
