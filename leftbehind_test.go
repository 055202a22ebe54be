package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// What is written beside the code by whoever follows deploy/ is neither in a commit nor in a Docker build context: a real
// bootstrap and a backup run in a checkout, told to write where it hurts most, and git and Docker's own matcher are asked
// about every file that they leave.
func TestNothingOfDeployGetsIntoGitOrImages(t *testing.T) {
	t.Parallel()
	git := needs.Program(t, "git")
	vaultBinary, err := vaulttest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	srv := production(t)
	tree, home, bin := checkout(t, git), t.TempDir(), t.TempDir()
	if err := os.Symlink(vaultBinary, filepath.Join(bin, "vault")); err != nil {
		t.Fatal(err)
	}
	password, chosen := filepath.Join(home, "password"), vaulttest.Canary("operator")
	if err := os.WriteFile(password, []byte(chosen), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(dir string, env []string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append([]string{"PATH=" + bin + ":" + filepath.Dir(vaulttest.Build(t, ".")) + ":" + os.Getenv("PATH"), "HOME=" + home, "GORACE=" + vaulttest.Gorace,
			"VAULT_ADDR=" + srv.Addr, "VAULT_CACERT=" + srv.CACert, "AUDIT_FILE=" + filepath.Join(t.TempDir(), "audit.log"),
			"OPERATOR=ada", "OPERATOR_PASSWORD_FILE=" + password}, env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, vaulttest.Redact(string(out)))
		}
	}
	before := filesBelow(t, tree)
	run(filepath.Join(tree, "deploy"), nil, "./bootstrap")
	if left := filesBelow(t, tree); !slices.Equal(left, before) {
		t.Errorf("bootstrap writes into the checkout unasked: %d files more", len(left)-len(before))
	}
	// Told where, it writes there: a backup beside the scripts, the keys of a second Vault into the root.
	out, err := srv.TryMust("POST", "auth/userpass/login/ada", map[string]string{"password": chosen})
	if err != nil {
		t.Fatal(err)
	}
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	vaulttest.Secret(token)
	run(filepath.Join(tree, "deploy"), []string{"VAULT_TOKEN=" + token}, "./backup", ".")
	srv = production(t)
	run(tree, []string{"KEYS_FILE=vault-keys.json", "CREDENTIALS=credentials"}, "deploy/bootstrap")
	for _, name := range []string{".env", "deploy/.env.production", "deploy/secret-id", "internal/tls/key.pem", "app.key", ".vault-token"} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	for _, f := range filesBelow(t, tree) {
		if !slices.Contains(before, f) {
			left = append(left, f)
		}
	}
	if len(left) < 6+1+1+4 { // planted, backup, keys, credentials
		t.Fatalf("only %v were left: the test does not see what it looks for", left)
	}
	ignored := dockerIgnores(t, tree)
	for _, f := range left {
		if !ignored(f) {
			t.Errorf("%s is in the Docker build context", f)
		}
		if err := exec.Command(git, "-C", tree, "check-ignore", "-q", f).Run(); err != nil {
			t.Errorf("git add would take %s", f)
		}
	}
}

// The allow list of .dockerignore has everything that the build needs.
func TestDockerContextIsComplete(t *testing.T) {
	t.Parallel()
	ignored := dockerIgnores(t, ".")
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	const format = `{{$d := .Dir}}{{if not .Standard}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}`
	out, err := exec.Command("go", "list", "-deps", "-f", format, ".", "./tools/demo/app").Output()
	if err != nil {
		t.Fatal(err)
	}
	needed := []string{"go.mod", "go.sum"}
	for _, f := range strings.Fields(string(out)) {
		if rel, err := filepath.Rel(root, f); err == nil && filepath.IsLocal(rel) {
			needed = append(needed, rel)
		}
	}
	if len(needed) < 20 {
		t.Fatalf("only %v", needed)
	}
	for _, f := range needed {
		if ignored(f) {
			t.Errorf("the build needs %s, which .dockerignore leaves out", f)
		}
	}
}

// checkout is a repository with the files that this one has, committed.
func checkout(t *testing.T, git string) string {
	t.Helper()
	tree := t.TempDir()
	// What git would commit: in a clone all of it is tracked, in a working tree some may be new.
	list, err := exec.Command(git, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		needs.Missing(t, "a git checkout: else nobody knows which files are the project's")
	}
	for _, name := range strings.Split(strings.TrimRight(string(list), "\x00"), "\x00") {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(git, "-C", tree, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	return tree
}

// filesBelow lists the files of a tree but those of git itself.
func filesBelow(t *testing.T, tree string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			return fs.SkipDir
		case !d.IsDir():
			rel, err := filepath.Rel(tree, path)
			files = append(files, rel)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// dockerIgnores is Docker's own reading of a tree's .dockerignore.
func dockerIgnores(t *testing.T, tree string) func(string) bool {
	t.Helper()
	f, err := os.Open(filepath.Join(tree, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return func(path string) bool {
		ignored, err := m.MatchesOrParentMatches(path)
		if err != nil {
			t.Fatal(err)
		}
		return ignored
	}
}
