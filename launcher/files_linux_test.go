package launcher

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// TestFilesInMemoryReachTheCommandOnly: what this process starts beside the command, as the Vault CLI's token helper while
// another goroutine logs in again, does not inherit the files in memory; the command does, with what vaultexec was given
// under its number.
func TestFilesInMemoryReachTheCommandOnly(t *testing.T) {
	given, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	env := &environ.Env{Vars: []environ.Variable{{Name: "KEY", Value: vault.NewText("content of the key"), File: &environ.FileSpec{Name: "KEY"}}}}
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
	out := run(childFiles([]uintptr{0, 1, 2}, nil, fds), list+"; cat $KEY_FILE")
	if strings.Count(out, "memfd:KEY") != 1 || strings.Count(out, "/etc/passwd") != 2 || !strings.HasSuffix(out, "content of the key") {
		t.Errorf("the command has inherited:\n%s", out)
	}
}

// TestFileOfAnother: at the end a file is removed only if it is the one that was written, also where the file system gives the
// number of a file that is gone to the next one.
func TestFileOfAnother(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "key")
		f := newFiles(true)
		env := &environ.Env{Vars: []environ.Variable{{Name: "KEY", Value: vault.NewText("one"), File: &environ.FileSpec{Name: "KEY", Path: path}}}}
		if err := f.place(env); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("another"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if f.removeAll(); !exists(path) {
			t.Fatal("the file of another was removed")
		}
		if err := f.place(env); err != nil {
			t.Fatal(err)
		}
		if f.removeAll(); exists(path) {
			t.Fatal("the file stays")
		}
	}
}

// TestFileThatIsStarted: a secret may be a script that the command starts.
func TestFileThatIsStarted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script")
	spec, err := ParseFile("KEY=" + path + ",mode=0500")
	if err != nil {
		t.Fatal(err)
	}
	f := newFiles(true)
	defer f.removeAll()
	env := &environ.Env{Vars: []environ.Variable{{Name: "KEY", Value: vault.NewText("#!/bin/sh\nexit 0\n"), File: &spec}}}
	if err := f.place(env); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(path).Run(); err != nil {
		t.Errorf("it cannot be started: %v", err)
	}
}

// TestFilesFollowNoLink: a link that somebody puts where a file belongs is refused, and one that comes between the look and the
// step is replaced itself. What it points to is never written.
func TestFilesFollowNoLink(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "key"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := func(value string) *environ.Env {
		return &environ.Env{Vars: []environ.Variable{{Name: "KEY", Value: vault.NewText(value), File: &environ.FileSpec{Name: "KEY", Path: path}}}}
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

// dieAt is the variable that makes this test's program kill itself: named|unnamed, the place of the files, and how many moments
// it lives.
const dieAt = "VAULTEXEC_TEST_DIE_AT"

// changer changes two files until it kills itself.
func changer(how string) {
	way, rest, _ := strings.Cut(how, " ")
	left, dir, _ := strings.Cut(rest, " ")
	moments, _ := strconv.Atoi(left)
	way, set := strings.CutPrefix(way, "set-")
	testOnlyNamed = way == "named"
	testOnlyAt = func(string) {
		if moments--; moments == 0 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	f := newFiles(true)
	for n := 0; ; n++ {
		files := twoFiles(dir, fmt.Sprintf("value %d", n))
		if set {
			files = twoInSet(dir, fmt.Sprintf("value %d", n))
		}
		if err := f.place(files); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

func twoFiles(dir, value string) *environ.Env {
	env := &environ.Env{}
	for _, name := range []string{"A", "B"} {
		env.Vars = append(env.Vars, environ.Variable{Name: name, Value: vault.NewText(value + " of " + name), File: &environ.FileSpec{Name: name, Path: filepath.Join(dir, name)}})
	}
	return env
}

// TestKilledDuringAChange: whatever the moment in which SIGKILL comes, both files are whole, and the next start leaves nothing
// beside them. Where a file needs no name before it is complete, nothing is left but in the moment of a rename.
func TestKilledDuringAChange(t *testing.T) {
	for _, way := range []string{"unnamed", "named"} {
		for _, dir := range []string{t.TempDir(), shm(t)} { // a disk, perhaps, and memory
			lefts := 0
			for moment := 1; moment <= 12; moment++ { // three changes: two files staged, then two named
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", dieAt, way, moment, dir))
				out, err := cmd.CombinedOutput()
				if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != unix.SIGKILL {
					t.Fatalf("%s, moment %d: %v: %s", way, moment, err, out)
				}
				left := besides(t, dir)
				lefts += len(left)
				renaming := (moment-1)%4 >= 2 // killed at "named"
				if way == "unnamed" && (!renaming && len(left) > 0 || len(left) > 1) {
					t.Errorf("moment %d: left behind: %v", moment, left)
				}
				for _, name := range []string{"A", "B"} {
					b, err := os.ReadFile(filepath.Join(dir, name))
					if err == nil && (!strings.HasPrefix(string(b), "value ") && !strings.HasPrefix(string(b), "next ") || !strings.HasSuffix(string(b), " of "+name)) || err != nil && moment > 4 {
						t.Errorf("%s, moment %d: %s holds %q: %v", way, moment, name, b, err)
					}
				}
				// The next start.
				testOnlyNamed = way == "named"
				f := newFiles(true)
				if err := f.place(twoFiles(dir, "next")); err != nil {
					t.Fatal(err)
				}
				testOnlyNamed = false
				if left := besides(t, dir); len(left) > 0 {
					t.Errorf("%s, moment %d: the next start leaves %v", way, moment, left)
				}
				if b, _ := os.ReadFile(filepath.Join(dir, "A")); string(b) != "next of A" {
					t.Errorf("A holds %q", b)
				}
				if moment%2 == 0 { // a run that ends removes its files
					f.removeAll()
				}
			}
			if lefts == 0 {
				t.Errorf("%s: no kill has left anything: the sweep was not tried", way)
			}
		}
	}
}

// besides lists what lies beside the two files.
func besides(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "A" && e.Name() != "B" {
			names = append(names, e.Name())
		}
	}
	return names
}

func shm(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "vaultexec-test-")
	if err != nil {
		needs.Missing(t, "/dev/shm")
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestSweepTakesOnlyWhatIsLeft: not what a living vaultexec is at work with, nor what has another kind of name, is no file, or is
// somebody else's.
func TestSweepTakesOnlyWhatIsLeft(t *testing.T) {
	for _, named := range []bool{true, false} {
		dir := t.TempDir()
		put := func(name string) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte("x"), 0o400); err != nil {
				t.Fatal(err)
			}
			return path
		}
		const random = "0123456789ab"
		gone := put(".A.vaultexec-" + random)
		stays := []string{put(".A.vaultexec-0123456789a"), put(".A.vaultexec-0123456789abc"), put(".A.vaultexec-0123456789aB"), put(".A.vaultexec-notes.txt"),
			put(".C.vaultexec-" + random), put("A.vaultexec-" + random), put(".A.vaultexec-" + random + "~")}
		link, folder := filepath.Join(dir, ".A.vaultexec-aaaaaaaaaaaa"), filepath.Join(dir, ".A.vaultexec-bbbbbbbbbbbb")
		if err := os.Symlink(put("target"), link); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		fifo := filepath.Join(dir, ".A.vaultexec-cccccccccccc")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		stays = append(stays, link, folder, fifo, filepath.Join(dir, "target"))
		if os.Geteuid() == 0 {
			others := put(".A.vaultexec-dddddddddddd")
			if err := os.Chown(others, 4242, 4242); err != nil {
				t.Fatal(err)
			}
			stays = append(stays, others)
		}
		testOnlyNamed = named
		living, next := newFiles(true), newFiles(true)
		if err := living.stage(twoFiles(dir, "living")); err != nil {
			t.Fatal(err)
		}
		if err := next.place(twoFiles(dir, "next")); err != nil {
			t.Fatal(err)
		}
		testOnlyNamed = false
		if _, err := os.Lstat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", gone, err)
		}
		for _, path := range stays {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if err := living.place(living.stagedFor); err != nil {
			t.Errorf("named %v: what a living run had staged is gone: %v", named, err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "A")); string(b) != "living of A" {
			t.Errorf("A holds %q", b)
		}
	}
}

// A file that was given to another user has no name that this user may give it, where it lacks CAP_FOWNER; then it is made anew,
// with a name from the start.
func TestLinkRefused(t *testing.T) {
	dir := t.TempDir()
	f := newFiles(true)
	env := twoFiles(dir, "content")
	if err := f.stage(env); err != nil {
		t.Fatal(err)
	}
	for i := range f.staged { // no call takes a file that was opened for reading, and is a folder
		if f.staged[i].temp != "" {
			needs.Missing(t, "a file system with O_TMPFILE")
		}
		f.staged[i].file.Close()
		file, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		f.staged[i].file = file
	}
	if err := f.place(env); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "B")); string(b) != "content of B" || len(besides(t, dir)) > 0 {
		t.Errorf("B holds %q, beside it %v", b, besides(t, dir))
	}
}

// TestFolderOfOthers: nothing is written into a folder that others may change, nor by way of one; and what they put in the place
// of a folder after the look is not written to.
func TestFolderOfOthers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"good", "bad", "victim"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(filepath.Join(dir, "bad"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../good", filepath.Join(dir, "bad", "link")); err != nil {
		t.Fatal(err)
	}
	empty := func(name string) {
		t.Helper()
		if left := besides(t, filepath.Join(dir, name)); len(left) > 0 && name != "bad" || len(left) > 1 {
			t.Errorf("%s holds %v", name, left)
		}
	}
	for _, sub := range []string{"bad", "bad/link"} {
		env := twoFiles(filepath.Join(dir, sub), "x")
		err := newFiles(true).place(env)
		if e := fault.Of(err); err == nil || !strings.Contains(e.Why, fmt.Sprintf("others may change it: %q has mode 0", filepath.Join(dir, "bad"))) || !strings.Contains(e.Hint, "chmod go-w") {
			t.Errorf("%s: %v", sub, err)
		}
		if err := CheckFilePlaces([]environ.FileSpec{*env.Vars[0].File}, true); err == nil {
			t.Errorf("%s: not found at the start", sub)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "victim"), 4242, 4242); err != nil {
			t.Fatal(err)
		}
		if err := newFiles(true).place(twoFiles(filepath.Join(dir, "victim"), "x")); err == nil {
			t.Error("a file was written into another's folder")
		}
		spec := environ.FileSpec{Name: "A", Path: filepath.Join(dir, "victim", "A"), Given: &environ.Access{Mode: 0o400, UID: 4242, GID: -1}}
		if err := CheckFilePlaces([]environ.FileSpec{spec}, true); err != nil {
			t.Errorf("the folder of the user whom the file is given to: %v", err)
		}
		if err := CheckFilePlaces([]environ.FileSpec{*twoFiles(filepath.Join(dir, "victim"), "x").Vars[0].File}, true, 4242); err != nil {
			t.Errorf("the folder of a user who is allowed: %v", err)
		}
	}
	// The folder becomes another between the staging and the place.
	f := newFiles(true)
	env := twoFiles(filepath.Join(dir, "good"), "x")
	if err := f.stage(env); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "good"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("victim", filepath.Join(dir, "good")); err != nil {
		t.Fatal(err)
	}
	if err := f.place(env); err != nil {
		t.Fatal(err)
	}
	empty("victim")
	if _, err := os.Lstat(filepath.Join(dir, "victim", "A")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it went where the link leads")
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
