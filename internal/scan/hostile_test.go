package scan

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const hidden = "Xk9qLm2pWz7Rt4"

// hostileRepo is a repository that has a program run wherever git runs one: each writes the file marker.
func hostileRepo(t *testing.T) (dir, marker string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "repo")
	marker = filepath.Join(t.TempDir(), "marker")
	write(t, dir, "file", "x\n"+hidden+"\n")
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "x")
	write(t, dir, "second", hidden)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "y")
	write(t, dir, ".gitattributes", "* filter=evil diff=evil merge=evil text eol=crlf working-tree-encoding=UTF-16\n")
	program := filepath.Join(dir, ".git", "evil")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$0 $*\" >>'"+marker+"'\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []string{"pre-commit", "post-index-change", "reference-transaction", "fsmonitor-watchman", "post-checkout", "pre-auto-gc", "query-watchman"} {
		text, _ := os.ReadFile(program)
		if err := os.WriteFile(filepath.Join(dir, ".git", "hooks", hook), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The objects of a commit are missing, and promised by a remote.
	write(t, dir, "later", "y")
	config := `
[core]
	repositoryformatversion = 1
	fsmonitor = ` + program + `
	hooksPath = ` + filepath.Join(dir, ".git", "hooks") + `
	pager = ` + program + `
	editor = ` + program + `
	sshCommand = ` + program + `
	askPass = ` + program + `
	gitProxy = ` + program + `
	alternateRefsCommand = ` + program + `
	attributesFile = ` + filepath.Join(dir, ".gitattributes") + `
	worktree = /etc
[extensions]
	partialClone = evil
[remote "evil"]
	url = ext::` + program + ` %S
	promisor = true
	partialclonefilter = blob:none
	uploadpack = ` + program + `
[protocol]
	allow = always
[protocol "ext"]
	allow = always
[filter "evil"]
	clean = ` + program + `
	smudge = ` + program + `
	process = ` + program + `
	required = true
[diff]
	external = ` + program + `
[diff "evil"]
	textconv = ` + program + `
	command = ` + program + `
[merge "evil"]
	driver = ` + program + `
[log]
	showSignature = true
[gpg]
	program = ` + program + `
[credential]
	helper = ` + program + `
[pager]
	log = ` + program + `
	cat-file = ` + program + `
	ls-files = ` + program + `
[alias]
	ls-files = !` + program + `
	cat-file = !` + program + `
	rev-list = !` + program + `
	diff-tree = !` + program + `
[submodule]
	recurse = true
[uploadpack]
	packObjectsHook = ` + program + `
`
	f, err := os.OpenFile(filepath.Join(dir, ".git", "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(config)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, marker
}

// Whatever a repository names as a program, none is run.
func TestHostileRepository(t *testing.T) {
	t.Parallel()
	dir, marker := hostileRepo(t)
	o := secretOf(hidden)
	o.Environ = append(os.Environ(), "GIT_EXTERNAL_DIFF=false", "VAULT_TOKEN=x", "GIT_DIR=/nonexistent")
	o.Environ = slices.DeleteFunc(o.Environ, func(kv string) bool { return strings.HasPrefix(kv, "GIT_DIR=") })
	want(t, scanTree(t, o, dir, true), "file:2", "second:1")
	s := New(o)
	if err := s.History(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if got := places(s.Result()); !slices.Equal(got, []string{"file:2", "second:1"}) {
		t.Errorf("history: %q", got)
	}
	s = New(o)
	if err := s.Staged(t.Context(), dir); err != nil {
		t.Error(err)
	}
	// What is missing is not fetched.
	blob := git(t, dir, "-c", "core.fsmonitor=", "rev-parse", "HEAD:file")
	if err := os.Remove(filepath.Join(dir, ".git", "objects", blob[:2], blob[2:])); err != nil {
		t.Fatal(err)
	}
	tree := git(t, dir, "-c", "core.fsmonitor=", "rev-parse", "HEAD~1^{tree}")
	if err := os.Remove(filepath.Join(dir, ".git", "objects", tree[:2], tree[2:])); err != nil {
		t.Fatal(err)
	}
	s = New(o)
	herr := s.History(t.Context(), dir)
	if r := s.Result(); herr == nil && len(r.Findings) == 0 {
		t.Error("nothing is found in what is left of the history")
	}
	_ = New(o).Staged(t.Context(), dir)
	if said, err := os.ReadFile(marker); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the repository had programs run: %s %v", said, err)
	}

	// A repository whose monitor does run, or this test would say nothing.
	cmd, _ := (&repo{dir: filepath.Join(dir, ".git"), top: dir, at: dir, environ: os.Environ()}).command(t.Context(), "ls-files", "--others")
	cmd.Args = []string{cmd.Args[0], "ls-files", "--others"}
	_ = cmd.Run()
	if _, err := os.Stat(marker); err != nil {
		t.Fatal("the control has run no program either")
	}
}

// Names in an index lead nowhere else, and git gets no secret.
func TestHostileIndex(t *testing.T) {
	t.Parallel()
	for name, local := range map[string]bool{"a/b": true, "a": true, "..": false, "../a": false, "a/../../b": false, "/etc/passwd": false,
		".git/config": false, "a/.GIT/x": false, "a//b": false, "./a": false, "": false, "a/..b": true} {
		if isLocal(name) != local {
			t.Errorf("%q", name)
		}
	}
	r := &repo{dir: "/d", environ: []string{"VAULT_TOKEN=t", "PATH=/bin", "DB_PASSWORD=p", "GIT_SSH_COMMAND=x", "HOME=/h", "GIT_CONFIG_COUNT=1"}}
	cmd, _ := r.command(t.Context(), "x")
	for _, kv := range cmd.Env {
		if !slices.Contains(gitEnviron, kv) && !slices.Contains([]string{"PATH=/bin", "HOME=/h", "GIT_DIR=/d"}, kv) {
			t.Errorf("git gets %s", kv)
		}
	}

	// A folder of the tree turns into a link while names of it are on their way.
	dir, outside := t.TempDir(), t.TempDir()
	write(t, outside, "secret", hidden)
	write(t, dir, "a/secret", "x")
	git(t, dir, "init", "-q")
	git(t, dir, "add", "-A")
	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	want(t, scanTree(t, secretOf(hidden), dir, true))
}

// What git says beside its list is not lost: it leaves out a folder that it cannot open, and ends well.
func TestGitWarns(t *testing.T) { // not parallel: it sets PATH
	dir, bin := t.TempDir(), t.TempDir()
	git(t, dir, "init", "-q")
	write(t, dir, "a", "x")
	write(t, bin, "git", "#!/bin/sh\necho \"warning: could not open directory 'b/': Permission denied\" >&2\necho \"warning: unable to access '/root/x': no\" >&2\nprintf 'a\\0'\n")
	if err := os.Chmod(filepath.Join(bin, "git"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	r := scanTree(t, secretOf(hidden), dir, false)
	if len(r.Unread) != 1 || r.Unread[0] != (Unread{".", "git says: could not open directory 'b/': Permission denied"}) || r.Files != 1 {
		t.Errorf("%+v", r)
	}
}
