package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
)

// gitRun runs git for a test, without the configuration of whoever runs it.
func gitRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(needs.Program(t, "git"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %s", strings.Join(args, " "), out)
	}
	return strings.TrimSpace(string(out))
}

// repository is a new one with .env tracked, and other beside it not.
func repository(t *testing.T, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	gitRun(t, dir, append([]string{"init", "-q"}, options...)...)
	for _, name := range []string{".env", "other"} {
		plant(t, filepath.Join(dir, name), "A=1\n")
	}
	gitRun(t, dir, "add", ".env")
	return dir
}

func plant(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// Whether git tracks a file is known in every kind of work tree.
func TestGitTracks(t *testing.T) {
	t.Parallel()
	plain := repository(t)
	commit := repository(t)
	gitRun(t, commit, "commit", "-qm", "a")
	linked := filepath.Join(t.TempDir(), "linked")
	gitRun(t, commit, "worktree", "add", "-q", linked)
	plant(t, filepath.Join(linked, "other"), "A=1\n")
	super := t.TempDir()
	gitRun(t, super, "init", "-q")
	gitRun(t, super, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", commit, "sub")
	plant(t, filepath.Join(super, "sub", "other"), "A=1\n")
	below := repository(t)
	plant(t, filepath.Join(below, "conf", "prod", ".env"), "A=1\n")
	plant(t, filepath.Join(below, "conf", "prod", "other"), "A=1\n")
	gitRun(t, below, "add", "conf/prod/.env")
	fourth := repository(t)
	gitRun(t, fourth, "update-index", "--index-version", "4")
	gitRun(t, fourth, "add", "other")
	gitRun(t, fourth, "rm", "-q", "--cached", "other")
	later := repository(t)
	gitRun(t, later, "add", "-N", "other") // an entry with extended flags, which the index of version 3 has
	plant(t, filepath.Join(later, "other2"), "A=1\n")
	long := repository(t, "--object-format=sha256")
	for i := range 20 { // names of every length modulo eight
		plant(t, filepath.Join(long, "a", strings.Repeat("n", i+1)), "x")
		plant(t, filepath.Join(fourth, "a", strings.Repeat("n", i+1)), "x")
		plant(t, filepath.Join(plain, "a", strings.Repeat("n", i+1)), "x")
	}
	for _, dir := range []string{long, fourth, plain} {
		gitRun(t, dir, "add", "a")
		for i := range 20 {
			if !gitTracks(filepath.Join(dir, "a", strings.Repeat("n", i+1))) {
				t.Errorf("a name of %d bytes is not found", i+1)
			}
		}
	}
	if !gitTracks(filepath.Join(later, "other")) || gitTracks(filepath.Join(later, "other2")) {
		t.Error("index version 3")
	}
	link := t.TempDir()
	if err := os.Symlink(filepath.Join(plain, ".env"), filepath.Join(link, ".env")); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"plain": plain, "linked work tree": linked, "submodule": filepath.Join(super, "sub"),
		"below": filepath.Join(below, "conf", "prod"), "index version 4": fourth, "SHA-256": long} {
		if !gitTracks(filepath.Join(dir, ".env")) {
			t.Errorf("%s: .env is tracked", name)
		}
		if gitTracks(filepath.Join(dir, "other")) {
			t.Errorf("%s: other is not tracked", name)
		}
	}
	if !gitTracks(filepath.Join(link, ".env")) {
		t.Error("a link to a tracked file: its content is in the repository")
	}
	if gitTracks(filepath.Join(t.TempDir(), ".env")) {
		t.Error("there is no repository")
	}
}

// A folder that somebody else has made runs nothing: each of these has git run a program of its choosing, or hang.
func TestImportRunsNothingOfAFolder(t *testing.T) {
	t.Parallel()
	ran := filepath.Join(t.TempDir(), "ran")
	script := filepath.Join(t.TempDir(), "script")
	plant(t, script, fmt.Sprintf("#!/bin/sh\necho ran >>'%s'\n", ran))
	hostile := map[string]func(dir string){
		"a promisor remote of ext::, and a sparse index with a tree that is missing": func(dir string) {
			plant(t, filepath.Join(dir, "sub", "x"), "x")
			gitRun(t, dir, "add", ".")
			gitRun(t, dir, "commit", "-qm", "a")
			tree := gitRun(t, dir, "rev-parse", "HEAD:sub")
			gitRun(t, dir, "sparse-checkout", "set", "--cone", "--sparse-index", "none")
			if err := os.Remove(filepath.Join(dir, ".git", "objects", tree[:2], tree[2:])); err != nil {
				t.Fatal(err)
			}
			for _, kv := range [][2]string{{"core.repositoryformatversion", "1"}, {"extensions.partialClone", "evil"}, {"remote.evil.promisor", "true"},
				{"remote.evil.url", "ext::" + script}, {"protocol.ext.allow", "always"}} {
				gitRun(t, dir, "config", kv[0], kv[1])
			}
		},
		"fsmonitor": func(dir string) { gitRun(t, dir, "config", "core.fsmonitor", script) },
		"pager and hook": func(dir string) {
			gitRun(t, dir, "config", "core.pager", script)
			gitRun(t, dir, "config", "core.hooksPath", filepath.Dir(script))
		},
		"an index that is a FIFO": func(dir string) {
			index := filepath.Join(dir, ".git", "index")
			if err := os.Remove(index); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(index, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a .git that is a FIFO": func(dir string) {
			if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(filepath.Join(dir, ".git"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a .git file that leads to a device": func(dir string) {
			if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
				t.Fatal(err)
			}
			plant(t, filepath.Join(dir, ".git"), "gitdir: /dev\n")
		},
	}
	for name, spoil := range hostile {
		dir := repository(t)
		spoil(dir)
		_ = gitTracks(filepath.Join(dir, ".env")) // it may say either; it must come back, and run nothing
		if _, err := os.Stat(ran); err == nil {
			t.Errorf("%s: it ran a program", name)
			os.Remove(ran)
		}
	}
	// The control: git, asked the same with as little of its environment, does run something of one of them.
	const promisor = "a promisor remote of ext::, and a sparse index with a tree that is missing"
	dir := repository(t)
	hostile[promisor](dir)
	cmd := exec.Command("git", "-c", "core.fsmonitor=false", "ls-files", "--error-unmatch", "--", ".env")
	cmd.Dir = dir
	_ = cmd.Run()
	if _, err := os.Stat(ran); err != nil {
		t.Error("git runs nothing here: the test shows nothing")
	}
}

// An index of somebody else's making cannot end vaultexec.
func FuzzGitIndex(f *testing.F) {
	f.Add([]byte("DIRC\x00\x00\x00\x02\x00\x00\x00\x01"))
	f.Add([]byte("DIRC\x00\x00\x00\x04\xff\xff\xff\xff" + strings.Repeat("\x00", 100)))
	f.Add([]byte("DIRC\x00\x00\x00\x02\x00\x00\x00\x00TREE\xff\xff\xff\xffx"))
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, ".git"), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, ".git", "index"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		gitTracks(filepath.Join(dir, ".env"))
	})
}
