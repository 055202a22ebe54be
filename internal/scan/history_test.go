package scan

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
)

func history(t *testing.T, o Options, dir string) *Result {
	t.Helper()
	s := New(o)
	if err := s.History(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return s.Result()
}

// Whatever was committed once is found, wherever it is kept: another branch, a message, a tag, a stash, what no commit
// has, in packs and loose, in a bare clone.
func TestHistory(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			git(t, dir, "init", "-q", "-b", "main", "--object-format="+format)
			write(t, dir, "a", "nothing")
			git(t, dir, "add", "-A")
			git(t, dir, "commit", "-q", "-m", "subject\n\nthe password is "+hidden)
			git(t, dir, "checkout", "-q", "-b", "other")
			write(t, dir, "b", "x\n"+hidden+"\n")
			write(t, dir, "large", strings.Repeat("0123456789\n", 1<<19)+hidden)
			git(t, dir, "add", "-A")
			git(t, dir, "commit", "-q", "-m", "other")
			git(t, dir, "tag", "-a", "-m", hidden, "v1")
			git(t, dir, "mv", "b", "c")
			git(t, dir, "commit", "-q", "-m", "renamed")
			git(t, dir, "gc", "-q")
			git(t, dir, "checkout", "-q", "main")
			write(t, dir, "a", "stashed "+hidden)
			git(t, dir, "stash", "-q")
			write(t, dir, "staged", "staged "+hidden)
			git(t, dir, "add", "staged")
			o := secretOf(hidden)
			r := history(t, o, dir)
			list := []string{"(commit message):7", "(in no commit):1", "(tag):6", "a:1", "b:2", "large:524289"}
			want(t, r, list...)
			for _, f := range r.Findings {
				if hasCommit := f.Commit != ""; hasCommit == (f.File == "(tag)" || f.File == "(in no commit)") || len(f.Object) < 40 {
					t.Errorf("%+v", f)
				}
			}
			want(t, scanTree(t, o, dir, false), "staged:1")

			bare := filepath.Join(t.TempDir(), "bare.git")
			git(t, dir, "clone", "-q", "--mirror", "file://"+dir, bare)
			want(t, history(t, o, bare), without(list, []string{"(in no commit):1"})...)
			if err := New(o).Tree(t.Context(), bare, false); !fault.Is(err, fault.Usage) {
				t.Errorf("the files of a bare repository: %v", err)
			}
			if err := New(o).Staged(t.Context(), bare); !fault.Is(err, fault.Usage) {
				t.Errorf("the index of a bare repository: %v", err)
			}
			shallow := filepath.Join(t.TempDir(), "shallow")
			git(t, dir, "clone", "-q", "--depth", "1", "--branch", "other", "file://"+dir, shallow)
			r = history(t, o, shallow)
			if got := places(r); !slices.Equal(got, []string{"c:2", "large:524289"}) || len(r.Unread) != 1 {
				t.Errorf("shallow: %q, unread %+v", got, r.Unread)
			}
			git(t, dir, "config", "uploadpack.allowFilter", "true")
			partial := filepath.Join(t.TempDir(), "partial")
			git(t, dir, "clone", "-q", "--bare", "--filter=blob:none", "file://"+dir, partial)
			r = history(t, o, partial)
			if got := places(r); !slices.Equal(got, []string{"(commit message):7", "(tag):6"}) || len(r.Unread) != 1 {
				t.Errorf("partial: %q, unread %+v", got, r.Unread)
			}
		})
	}
	dir := t.TempDir()
	if err := New(secretOf(hidden)).History(t.Context(), dir); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
	git(t, dir, "init", "-q")
	want(t, history(t, secretOf(hidden), dir))
	write(t, dir, "a", "x")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "x")
	head := git(t, dir, "rev-parse", "HEAD")
	file := filepath.Join(dir, ".git", "objects", head[:2], head[2:])
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(secretOf(hidden))
	if err := s.History(t.Context(), dir); !fault.Is(err, fault.Usage) && len(s.Result().Unread) == 0 {
		t.Errorf("a broken repository: %v", err)
	}
}

// What is staged counts, and not what lies in the work tree.
func TestStaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := secretOf(hidden)
	staged := func(list ...string) {
		t.Helper()
		s := New(o)
		if err := s.Staged(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		r := s.Result()
		want(t, r, list...)
		for _, f := range r.Findings {
			if f.Commit != "" || f.Object != "" {
				t.Errorf("%+v", f)
			}
		}
	}
	git(t, dir, "init", "-q")
	staged()
	write(t, dir, "first", "a\n"+hidden)
	git(t, dir, "add", "first")
	staged("first:2")
	git(t, dir, "commit", "-q", "-m", "x")
	staged()
	write(t, dir, "dir/second\nline", hidden)
	write(t, dir, "third", "nothing")
	write(t, dir, "intent", hidden)
	git(t, dir, "add", "dir", "third")
	git(t, dir, "add", "-N", "intent")
	git(t, dir, "rm", "-q", "first")
	write(t, dir, "dir/second\nline", "nothing now")
	write(t, dir, "third", hidden)
	staged("dir/second\nline:1")
	dir += "/dir"
	staged("second\nline:1")
	dir = filepath.Dir(dir)
	// git commit FILE has an index of its own, which the hook is told.
	git(t, dir, "reset", "-q", "--hard")
	write(t, dir, "other", hidden)
	git(t, dir, "add", "other")
	index := filepath.Join(dir, ".git", "another")
	text, err := os.ReadFile(filepath.Join(dir, ".git", "index"))
	if err != nil {
		t.Fatal(err)
	}
	git(t, dir, "reset", "-q", "--hard")
	if err := os.WriteFile(index, text, 0o600); err != nil {
		t.Fatal(err)
	}
	staged()
	o.Environ = append(slices.Clone(o.Environ), "GIT_INDEX_FILE="+index)
	staged("other:1")
}
