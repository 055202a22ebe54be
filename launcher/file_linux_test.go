package launcher

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// TestFilesInMemoryReachTheCommandOnly: what this process starts beside the command, as the Vault CLI's token helper while
// another goroutine logs in again, does not inherit the files in memory; the command does, with what vaultexec was given
// under its number (C7).
func TestFilesInMemoryReachTheCommandOnly(t *testing.T) {
	given, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	env := &Env{Vars: []Variable{{Name: "KEY", Value: vault.NewText("content of the key"), File: &FileSpec{Name: "KEY"}}}}
	environ, fds, err := newFiles(false).handOver(env)
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v: %v", fds, err)
	}
	defer closeAll(fds)
	// One number below the file's and one above it, inherited: without the flag.
	low, err := unix.FcntlInt(given.Fd(), unix.F_DUPFD, 3)
	if err != nil {
		t.Fatal(err)
	}
	high, err := unix.FcntlInt(given.Fd(), unix.F_DUPFD, fds[0]+5)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]int{low, high})

	run := func(files []uintptr, script string) string {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		files = slices.Clone(files)
		files[1] = w.Fd()
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Env: environ, Files: files})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(r)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return string(out)
	}
	const list = `for f in /proc/$$/fd/*; do readlink $f; done`
	if out := run([]uintptr{0, 1, 2}, list); strings.Contains(out, "memfd:") || strings.Count(out, "/etc/passwd") != 2 {
		t.Errorf("another program has inherited:\n%s", out)
	}
	out := run(childFiles([]uintptr{0, 1, 2}, fds), list+"; cat $KEY_FILE")
	if strings.Count(out, "memfd:KEY") != 1 || strings.Count(out, "/etc/passwd") != 2 || !strings.HasSuffix(out, "content of the key") {
		t.Errorf("the command has inherited:\n%s", out)
	}
}

// TestFilesFollowNoLink: a link that somebody puts where a file belongs is refused, and one that comes between the look and the
// step is replaced itself. What it points to is never written (C7).
func TestFilesFollowNoLink(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "key"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := func(value string) *Env {
		return &Env{Vars: []Variable{{Name: "KEY", Value: vault.NewText(value), File: &FileSpec{Name: "KEY", Path: path}}}}
	}
	link := func() {
		_ = os.Remove(path)
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
	}
	f := newFiles(true)
	link()
	if err := f.place(env("one")); fault.Of(err).Why != errNotRegular.Error() {
		t.Errorf("a link is not refused: %v", err)
	}
	_ = os.Remove(path)
	if err := f.place(env("one")); err != nil {
		t.Fatal(err)
	}
	next := env("two")
	if err := f.stage(next); err != nil {
		t.Fatal(err)
	}
	link()
	if err := f.place(next); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o400 {
		t.Errorf("the file is %v: %v", info.Mode(), err)
	}
	if b, _ := os.ReadFile(path); string(b) != "two" {
		t.Errorf("it holds %q", b)
	}
	link()
	f.removeAll()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("somebody else's link was removed: %v", err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "untouched" {
		t.Errorf("the file behind the link holds %q", b)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}
