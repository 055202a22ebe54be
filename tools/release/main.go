// Command release prepares a release up to the point where a person signs and uploads it: it checks that the checkout can
// be released, sets the version where it stands, commits that, builds the release twice in clones of its own, which must
// give the same bytes, and writes the notes. It prints what is left to do. It tags nothing and pushes nothing.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	changelog   = "CHANGELOG.md"
	versionFile = "internal/cli/version.go"
	unreleased  = "## Unreleased\n"
)

// release is one run.
type release struct {
	version string // 1.2.3
	date    string
	tested  bool
	shared  bool // one build cache for both builds
	dist    []string

	old map[string][]byte // what was in the files before
}

func main() {
	r := &release{}
	flag.StringVar(&r.version, "version", "", "MAJOR.MINOR.PATCH")
	flag.StringVar(&r.date, "date", time.Now().UTC().Format(time.DateOnly), "of the release")
	flag.BoolVar(&r.tested, "tested", false, "make test has passed already")
	flag.BoolVar(&r.shared, "shared-cache", false, "compile only once, which shows less")
	for _, name := range []string{"tags", "nfpm", "platforms"} {
		flag.Func(name, "see tools/dist", func(value string) error {
			r.dist = append(r.dist, "-"+name, value)
			return nil
		})
	}
	flag.Parse()
	if err := r.run(); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func (r *release) run() error {
	if err := r.check(); err != nil {
		return err
	}
	notes, err := r.set()
	if err == nil && !r.tested {
		err = run(".", nil, "make", "test")
	}
	if err == nil && len(r.old) > 0 {
		err = run(".", nil, "git", "commit", "-q", "-m", "release: v"+r.version, changelog, versionFile)
	}
	if err != nil {
		for file, content := range r.old {
			err = errors.Join(err, os.WriteFile(file, content, 0o644))
		}
		return err
	}
	if err := r.build(); err != nil {
		return err
	}
	if err := os.WriteFile("dist/NOTES.md", []byte(notes), 0o644); err != nil {
		return err
	}
	r.next()
	return nil
}

var (
	form        = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$`)
	lastRelease = regexp.MustCompile(`const lastRelease = "v([^"]+)"`)
)

// check finds out whether this checkout can become that release.
func (r *release) check() error {
	r.version = strings.TrimPrefix(r.version, "v")
	if !form.MatchString(r.version) {
		return fmt.Errorf("VERSION is %q: write make release VERSION=MAJOR.MINOR.PATCH (semver.org)", r.version)
	}
	if _, err := time.Parse(time.DateOnly, r.date); err != nil {
		return fmt.Errorf("the date %q is not of the form YYYY-MM-DD", r.date)
	}
	if major, _, _ := strings.Cut(r.version, "."); major > "1" || len(major) > 1 {
		if module, err := output("go", "list", "-m"); err != nil || !strings.HasSuffix(module, "/v"+major) {
			return fmt.Errorf("the module %s cannot have version %s: its path has to end in /v%s (go.dev/ref/mod#major-version-suffixes)",
				module, r.version, major)
		}
	}
	branch, err := output("git", "rev-parse", "--abbrev-ref", "HEAD")
	if err != nil {
		return fmt.Errorf("this is no git checkout: %w", err)
	}
	if branch != "main" {
		return fmt.Errorf("the branch is %s: a release is made of main", branch)
	}
	if changed, err := output("git", "status", "--porcelain"); err != nil || changed != "" {
		return fmt.Errorf("the checkout differs from its commit: commit or take back what git status shows")
	}
	if tag, err := output("git", "tag", "--list", "v"+r.version); err != nil || tag != "" {
		return fmt.Errorf("there is a tag v%s already: choose the next version", r.version)
	}
	return nil
}

// set gives the newest section of the changelog the version and the date, and the program the version, and returns the
// text of the section. If they have them, from a run before, it changes nothing.
func (r *release) set() (notes string, err error) {
	log, err := os.ReadFile(changelog)
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(versionFile)
	if err != nil {
		return "", err
	}
	m := lastRelease.FindSubmatch(source)
	if m == nil {
		return "", fmt.Errorf("%s has no lastRelease", versionFile)
	}
	last := string(m[1])
	if last == r.version {
		_, section, ok := strings.Cut(string(log), "\n## "+r.version+" - ")
		if !ok {
			return "", fmt.Errorf("%s has no section %s, which %s has for the last release", changelog, r.version, versionFile)
		}
		_, notes, _ = strings.Cut(section, "\n")
		return body(notes), nil
	}
	if !newer(r.version, last) {
		return "", fmt.Errorf("%s does not come after %s, the last release", r.version, last)
	}
	before, after, ok := strings.Cut(string(log), unreleased)
	if notes = body(after); !ok || notes == "" {
		return "", fmt.Errorf("%s has nothing under %q: there is nothing to release", changelog, strings.TrimSpace(unreleased))
	}
	r.old = map[string][]byte{changelog: log, versionFile: source}
	text := before + unreleased + "\n## " + r.version + " - " + r.date + "\n" + after
	if err := os.WriteFile(changelog, []byte(text), 0o644); err != nil {
		return "", err
	}
	code := lastRelease.ReplaceAll(source, []byte(`const lastRelease = "v`+r.version+`"`))
	return notes, os.WriteFile(versionFile, code, 0o644)
}

// body is a section of the changelog without what follows it.
func body(section string) string {
	text, _, _ := strings.Cut("\n"+section, "\n## ")
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return text + "\n"
}

// newer reports whether a version comes after another one.
func newer(version, last string) bool {
	a, b := form.FindStringSubmatch(version), form.FindStringSubmatch(last)
	for i := 1; i < 4 && a != nil && b != nil; i++ {
		n, _ := strconv.Atoi(a[i])
		if m, _ := strconv.Atoi(b[i]); n != m {
			return n > m
		}
	}
	return false
}

// build makes the release in dist/, out of two clones that have the tag which the checkout does not have yet.
func (r *release) build() error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	var sums [][]byte
	outs := []string{filepath.Join(work, "first", "out"), filepath.Join(work, "another-folder", "second", "out")}
	for _, out := range outs {
		clone := filepath.Join(filepath.Dir(out), "src")
		if err := run(".", nil, "git", "clone", "-q", "--no-hardlinks", "--no-tags", here, clone); err != nil {
			return err
		}
		if err := run(clone, nil, "git", "tag", "--no-sign", "v"+r.version); err != nil {
			return err
		}
		var env []string
		if !r.shared {
			env = []string{"GOCACHE=" + filepath.Join(filepath.Dir(out), "cache")}
		}
		if err := run(clone, env, "go", append([]string{"run", "./tools/dist", "-out", out}, r.dist...)...); err != nil {
			return err
		}
		sum, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if err != nil {
			return err
		}
		sums = append(sums, sum)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("two builds of the same commit differ:\n%s\n%s", sums[0], sums[1])
	}
	if !bytes.Contains(sums[0], []byte("_v"+r.version+"_")) {
		return fmt.Errorf("the release does not have the version v%s:\n%s", r.version, sums[0])
	}
	return place(outs[0])
}

// place puts the release into dist/, and nothing of an earlier one stays there.
func place(from string) error {
	if err := os.MkdirAll("dist", 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob("dist/vaultexec*")
	if err != nil {
		return err
	}
	for _, file := range append(old, "dist/SHA256SUMS", "dist/SHA256SUMS.sig", "dist/NOTES.md") {
		if err := os.RemoveAll(file); err != nil {
			return err
		}
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(from, file.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join("dist", file.Name()), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// next says what is left, which only a person does.
func (r *release) next() {
	fmt.Printf(`
v%[1]s is in dist/, twice built with the same bytes; its notes are dist/NOTES.md. Nothing is tagged and nothing is pushed.
Read the commit and the notes once more, and then:

    git show HEAD
    git tag -s v%[1]s -m v%[1]s
    git push origin main v%[1]s

The workflow "release" makes a draft of the tag. Compare it with this build, sign, and publish (SECURITY.md):

    gh release download v%[1]s --pattern SHA256SUMS --output - | cmp - dist/SHA256SUMS
    ssh-keygen -Y sign -f ~/.ssh/vaultexec-release -n vaultexec-release dist/SHA256SUMS
    gh release upload v%[1]s dist/SHA256SUMS.sig
    gh release edit v%[1]s --notes-file dist/NOTES.md --draft=false

To take it all back before that: git reset --hard HEAD~1
`, r.version)
}

func run(dir string, env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	return strings.TrimSpace(string(out)), err
}
