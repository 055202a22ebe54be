package trust

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
)

const (
	mallory = 4242
	friend  = 4343
)

// TestMain opens what TRUST_OPEN names and says how that went, for tests that need a process of their own.
func TestMain(m *testing.M) {
	if paths := os.Getenv("TRUST_OPEN"); paths != "" {
		for path := range strings.SplitSeq(paths, ":") {
			fmt.Println(verdict(Open(path, nil)))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func verdict(f *os.File, err error) string {
	if err != nil {
		return err.Error()
	}
	f.Close()
	return "ok"
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("as root only: makes files of others")
	}
}

// tree makes files and folders in a folder of its own. A name with a slash at its end is a folder, one with -> a link.
type tree struct {
	t    *testing.T
	root string
}

func (tr tree) at(name string) string { return filepath.Join(tr.root, name) }

func (tr tree) check(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) make(name string, mode os.FileMode, owner ...int) tree {
	tr.t.Helper()
	link, target, isLink := strings.Cut(name, " -> ")
	path := tr.at(link)
	uid, gid := 0, 0
	if len(owner) > 0 {
		uid, gid = owner[0], owner[0]
	}
	if len(owner) > 1 {
		gid = owner[1]
	}
	switch {
	case isLink:
		tr.check(os.Symlink(target, path))
	case strings.HasSuffix(name, "/"):
		tr.check(os.Mkdir(path, 0o700))
	default:
		tr.check(os.WriteFile(path, []byte("content"), 0o600))
	}
	if len(owner) > 0 {
		needsRoot(tr.t)
		tr.check(os.Lchown(path, uid, gid))
	}
	if !isLink {
		tr.check(unix.Chmod(path, uint32(mode))) // the sticky bit and setgid as chmod(1) has them
	}
	return tr
}

// Whose files are taken, and whose are not: the rule, a line each.
func TestRule(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(tr tree)
		path  string
		me    int
		allow []int
		want  string // in the error; ROOT stands for the folder
	}{
		{"ours", func(tr tree) { tr.make("d/", 0o755).make("d/f", 0o644) }, "d/f", 0, nil, ""},
		{"everybody may write it", func(tr tree) { tr.make("f", 0o666) }, "f", 0, nil, "the mode is 0666"},
		{"a group may write it", func(tr tree) { tr.make("f", 0o660, 0, friend) }, "f", 0, nil, "the mode is 0660"},
		{"everybody may write it, and read it only", func(tr tree) { tr.make("f", 0o602) }, "f", 0, nil, "the mode is 0602"},
		{"another's", func(tr tree) { tr.make("f", 0o600, mallory) }, "f", 0, nil, "the owner is user 4242"},
		{"another's, and nobody may write it", func(tr tree) { tr.make("f", 0o444, mallory) }, "f", 0, nil, "the owner is user 4242"},
		{"another's, and that is us", func(tr tree) { tr.make("f", 0o600, mallory) }, "f", mallory, nil, ""},
		{"root's", func(tr tree) { tr.make("f", 0o644, 0) }, "f", mallory, nil, ""},
		{"another's, who is allowed", func(tr tree) { tr.make("f", 0o600, mallory) }, "f", 0, []int{friend, mallory}, ""},
		{"everybody may write what is of one who is allowed", func(tr tree) { tr.make("f", 0o666, mallory) }, "f", 0, []int{mallory}, "the mode is 0666"},
		{"anyone", func(tr tree) { tr.make("d/", 0o777, mallory).make("d/f", 0o666, mallory) }, "d/f", 0, []int{Anyone}, ""},

		{"a group of the owner's own", func(tr tree) { tr.make("d/", 0o775, mallory).make("d/f", 0o664, mallory) }, "d/f", mallory, nil, ""},
		{"root's group", func(tr tree) { tr.make("d/", 0o775, 0).make("d/f", 0o664, 0) }, "d/f", mallory, nil, ""},
		{"our file in root's group", func(tr tree) { tr.make("d/", 0o775, mallory, 0).make("d/f", 0o664, mallory, 0) }, "d/f", mallory, nil, ""},
		{"a group of ours that others are in", func(tr tree) { tr.make("f", 0o664, mallory, 100) }, "f", mallory, nil, "the mode is 0664"},

		{"a folder that everybody may write", func(tr tree) { tr.make("d/", 0o777).make("d/f", 0o644) }, "d/f", 0, nil, `"ROOT/d" has mode 0777`},
		{"another's folder", func(tr tree) { tr.make("d/", 0o755, mallory).make("d/f", 0o644) }, "d/f", 0, nil, `"ROOT/d" belongs to user 4242`},
		{"a folder far above", func(tr tree) { tr.make("a/", 0o777).make("a/b/", 0o755).make("a/b/c/", 0o755).make("a/b/c/f", 0o644) }, "a/b/c/f", 0, nil, `"ROOT/a" has mode 0777`},
		{"all of them", func(tr tree) { tr.make("a/", 0o777).make("a/b/", 0o755, mallory).make("a/b/f", 0o646) }, "a/b/f", 0, nil,
			`"ROOT/a" has mode 0777, "ROOT/a/b" belongs to user 4242, the mode is 0646`},
		{"up and down again", func(tr tree) { tr.make("bad/", 0o777).make("f", 0o644) }, "bad/../f", 0, nil, `"ROOT/bad" has mode 0777`},

		{"sticky: ours", func(tr tree) { tr.make("d/", 0o1777).make("d/f", 0o644) }, "d/f", 0, nil, ""},
		{"sticky: another's file", func(tr tree) { tr.make("d/", 0o1777).make("d/f", 0o644, mallory) }, "d/f", 0, nil, "the owner is user 4242"},
		{"sticky: another's folder", func(tr tree) { tr.make("d/", 0o1777).make("d/e/", 0o755, mallory).make("d/e/f", 0o644) }, "d/e/f", 0, nil, `"ROOT/d/e" belongs to user 4242`},
		{"sticky: another's link", func(tr tree) { tr.make("d/", 0o1777).make("f", 0o644).make("d/l -> ../f", 0, mallory) }, "d/l", 0, nil, `the link "ROOT/d/l" belongs to user 4242`},
		{"sticky: our link", func(tr tree) { tr.make("d/", 0o1777).make("f", 0o644).make("d/l -> ../f", 0) }, "d/l", 0, nil, ""},
		{"sticky: another's sticky folder", func(tr tree) { tr.make("d/", 0o1777, mallory).make("d/f", 0o644) }, "d/f", 0, nil, `"ROOT/d" belongs to user 4242`},

		{"a link out of a bad folder", func(tr tree) { tr.make("bad/", 0o777).make("f", 0o644).make("bad/l -> ../f", 0) }, "bad/l", 0, nil, `"ROOT/bad" has mode 0777`},
		{"a link into a bad folder", func(tr tree) { tr.make("bad/", 0o777).make("bad/f", 0o644).make("l -> bad/f", 0) }, "l", 0, nil, `"ROOT/bad" has mode 0777`},
		{"a link through a bad folder", func(tr tree) {
			tr.make("bad/", 0o777).make("f", 0o644).make("bad/m -> ../f", 0).make("l -> ROOT/bad/m", 0)
		}, "l", 0, nil, `"ROOT/bad" has mode 0777`},
		{"a folder by a link", func(tr tree) {
			tr.make("bad/", 0o777).make("bad/e/", 0o755).make("bad/e/f", 0o644).make("l -> bad/e", 0)
		}, "l/f", 0, nil, `"ROOT/bad" has mode 0777`},
		{"another's link in a folder of ours", func(tr tree) { tr.make("f", 0o644).make("l -> f", 0, mallory) }, "l", 0, nil, ""},

		{"a pipe with a name", func(tr tree) { tr.check(unix.Mkfifo(tr.at("p"), 0o622)); tr.check(unix.Chmod(tr.at("p"), 0o622)) }, "p", 0, nil, "the mode is 0622"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := tree{t, t.TempDir()}
			tr.check(unix.Chmod(tr.root, 0o755))
			c.make(tr)
			if link, err := os.Readlink(tr.at(c.path)); err == nil && strings.Contains(link, "ROOT") {
				tr.check(os.Remove(tr.at(c.path)))
				tr.check(os.Symlink(strings.ReplaceAll(link, "ROOT", tr.root), tr.at(c.path)))
			}
			open := func(path string) string {
				checker := New(c.allow)
				if c.me != 0 {
					checker.me = c.me
				}
				f, err := checker.Open(path)
				if err == nil && checker.me == os.Geteuid() {
					if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
						t.Errorf("%q, %v", b, err)
					}
				}
				return strings.ReplaceAll(verdict(f, err), tr.root, "ROOT")
			}
			want := "ok"
			if c.want != "" {
				want = "others may change it: " + c.want
			}
			if got := open(tr.root + "/" + c.path); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			t.Chdir(tr.root)
			if got := open(c.path); got != want {
				t.Errorf("by a relative path: got %s, want %s", got, want)
			}
			if got := open("./" + c.path); got != want {
				t.Errorf("by a relative path with a dot: got %s, want %s", got, want)
			}
		})
	}
}

// What is wrong without anybody's malice is said as the kernel says it.
func TestNaturalErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"": fs.ErrNotExist, "missing": fs.ErrNotExist, "no/such": fs.ErrNotExist, "f/x": unix.ENOTDIR, "f/": unix.ENOTDIR, "loop": unix.ELOOP} {
		if path != "" {
			path = dir + "/" + path
		}
		if _, err := Open(path, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
}

// An access control list lets others in under the bits of a group that is the owner's own.
func TestAccessControlList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := verdict(Open(path, nil)); got != "ok" {
		t.Fatal(got)
	}
	list := binary.LittleEndian.AppendUint32(nil, 2) // u::rw-,u:4242:rw-,g::---,m::rw-,o::--- (linux/posix_acl_xattr.h)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 6, mallory}, {4, 0, ^uint32(0)}, {0x10, 6, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		list = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(list, e.tag), e.perm)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	if err := unix.Setxattr(path, "system.posix_acl_access", list, 0); err != nil {
		needs.Missing(t, "a file system with access control lists: "+err.Error())
	}
	if got := verdict(Open(path, nil)); got != "others may change it: the mode is 0660" {
		t.Error(got)
	}
}

// What was handed over open is not looked at: whoever started vaultexec has opened it.
func TestDescriptors(t *testing.T) {
	needsRoot(t)
	tr := tree{t, t.TempDir()}
	tr.make("f", 0o666, mallory)
	f, err := os.Open(tr.at("f"))
	tr.check(err)
	defer f.Close()
	r, w, err := os.Pipe()
	tr.check(err)
	defer r.Close()
	defer w.Close()
	tr.check(r.Chown(mallory, mallory)) // as under sudo
	for _, fd := range []uintptr{f.Fd(), r.Fd()} {
		for _, dir := range []string{"/dev/fd", "/proc/self/fd", "/proc/thread-self/fd", fmt.Sprintf("/proc/%d/fd", os.Getpid())} {
			if got := verdict(Open(fmt.Sprint(dir, "/", fd), nil)); got != "ok" {
				t.Errorf("%s: %s", dir, got)
			}
		}
	}
	if got := verdict(Open("/dev/stdin", nil)); strings.HasPrefix(got, "others") {
		t.Error(got)
	}
	if got := verdict(Open("/dev/null", nil)); got != "ok" {
		t.Error(got)
	}
	// The way to it counts.
	tr.make("bad/", 0o777)
	tr.check(os.Symlink(fmt.Sprint("/dev/fd/", f.Fd()), tr.at("bad/l")))
	if got := verdict(Open(tr.at("bad/l"), nil)); !strings.Contains(got, "mode 0777") {
		t.Error(got)
	}
	// What another process has open is that process's affair.
	cmd := exec.Command("sleep", "1000")
	cmd.Stdin = f
	tr.check(cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if got := verdict(Open(fmt.Sprintf("/proc/%d/fd/0", cmd.Process.Pid), nil)); got == "ok" {
		t.Error("another process's descriptor was taken")
	}
}

// Between the look and the opening somebody whom we trust may put a new file in place, as Kubernetes does. What is opened then is
// looked at, too.
func TestReplacedMeanwhile(t *testing.T) {
	needsRoot(t)
	tr := tree{t, t.TempDir()}
	tr.make("f", 0o644).make("good", 0o644).make("bad", 0o666)
	swap := func(from string) (string, int) {
		c, opened := New(nil), 0
		return verdict(c.open(tr.at("f"), func() (*os.File, error) {
			if opened++; opened == 1 {
				tr.check(os.Rename(tr.at(from), tr.at("f")))
			}
			return os.Open(tr.at("f"))
		})), opened
	}
	if got, opened := swap("good"); got != "ok" || opened != 2 {
		t.Errorf("%s, opened %d times", got, opened)
	}
	if got, _ := swap("bad"); got != "others may change it: the mode is 0666" {
		t.Error(got)
	}
	tr.make("g", 0o644)
	if got := verdict(New(nil).open(tr.at("g"), func() (*os.File, error) {
		tr.make("next", 0o644)
		tr.check(os.Rename(tr.at("next"), tr.at("g")))
		return os.Open(tr.at("g"))
	})); !strings.Contains(got, "again and again") {
		t.Error(got)
	}
}

// inMounts runs f in a mount namespace of its own. The thread ends with it.
func inMounts(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		needs.Missing(t, "a mount namespace: "+err.Error())
	}
}

// What containers and systemd are given passes without an option.
func TestContainers(t *testing.T) {
	needsRoot(t)
	inMounts(t, func() {
		tr := tree{t, t.TempDir()}
		tr.check(unix.Chmod(tr.root, 0o755))
		mount := func(source, target, kind string, flags uintptr, data string) {
			if err := unix.Mount(source, tr.at(target), kind, flags, data); err != nil {
				t.Errorf("mount %s: %v", target, err)
			}
		}
		readOnly := func(target string) {
			mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		bind := func(source, target string) { mount(tr.at(source), target, "", unix.MS_BIND, "") }
		is := func(path string, me int, want string) {
			t.Helper()
			c := New(nil)
			c.me = me
			if got := strings.ReplaceAll(verdict(c.Open(tr.at(path))), tr.root, "ROOT"); got != want && got != "others may change it: "+want {
				t.Errorf("%s: got %s, want %s", path, got, want)
			}
		}
		const app, group = 1000, 2000

		// A projected volume of Kubernetes with an fsGroup: a tmpfs, a folder with the time in its name, links.
		for _, v := range []struct {
			dir  string
			mode os.FileMode
		}{{"sticky", 0o3777}, {"open", 0o2777}} {
			tr.make(v.dir+"/", 0o755)
			mount("tmpfs", v.dir, "tmpfs", 0, "mode=0755")
			tr.make(v.dir+"/..2026_01_01_00_00_00.1/", 0o2755, 0, group).make(v.dir+"/..2026_01_01_00_00_00.1/token", 0o640, 0, group).
				make(v.dir+"/..data -> ..2026_01_01_00_00_00.1", 0).make(v.dir+"/token -> ..data/token", 0)
			tr.check(os.Chown(tr.at(v.dir), 0, group))
			tr.check(unix.Chmod(tr.at(v.dir), uint32(v.mode)))
		}
		is("sticky/token", app, "ok")
		is("open/token", app, `"ROOT/open" has mode 2777`) // as it never is: a container has it read-only
		readOnly("sticky")
		readOnly("open")
		is("sticky/token", app, "ok")
		is("open/token", app, "ok")

		// compose's secrets: a file of the host's user, mounted read-only over one of root's
		tr.make("host/", 0o755, app).make("host/token", 0o600, app).make("run/", 0o755).make("run/token", 0o644)
		bind("host/token", "run/token")
		is("run/token", 0, "the owner is user 1000")
		readOnly("run/token")
		is("run/token", 0, "ok")

		// docker run -v ./conf:/conf:ro: a folder of the host's user
		tr.make("conf/", 0o755, app).make("conf/a.yaml", 0o644, app).make("conf/b.yaml", 0o644, mallory).make("conf/c.yaml", 0o666, app).make("in/", 0o755)
		bind("conf", "in")
		is("in/a.yaml", 0, `"ROOT/in" belongs to user 1000, the owner is user 1000`)
		readOnly("in")
		is("in/a.yaml", 0, "ok")
		is("in/b.yaml", 0, "the owner is user 4242")
		is("in/c.yaml", 0, "the mode is 0666")

		// systemd's credentials: a file system for the unit alone
		tr.make("cred/", 0o755)
		mount("ramfs", "cred", "ramfs", 0, "mode=0755")
		tr.make("cred/secret-id", 0o440)
		tr.check(unix.Chmod(tr.at("cred"), 0o500))
		readOnly("cred")
		is("cred/secret-id", app, "ok")

		// ProtectSystem=strict mounts everything read-only for one unit: no reason to trust what everybody else may write
		tr.make("all/", 0o755).make("all/open/", 0o777).make("all/open/f", 0o644).make("all/g", 0o644, mallory)
		bind("all", "all")
		readOnly("all")
		is("all/open/f", 0, `"ROOT/all/open" has mode 0777`)
		is("all/g", 0, "the owner is user 4242")
	})
}

// In a user namespace that has numbers for some users only, all others look like 65534: the machine's root, whose folders are on
// the way to everything, and anybody else. A file of theirs is nobody's whom we know.
func TestUserNamespace(t *testing.T) {
	needsRoot(t)
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		needs.Missing(t, "user namespaces")
	}
	tr := tree{t, t.TempDir()}
	for dir := tr.root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		tr.check(unix.Chmod(dir, 0o755))
	}
	tr.make("ours", 0o600, friend).make("roots", 0o644).make("others", 0o644, mallory).make("bad/", 0o777).make("bad/f", 0o644, friend)
	exe, err := os.Executable()
	tr.check(err)
	copied := tr.at("test")
	b, err := os.ReadFile(exe)
	tr.check(err)
	tr.check(os.WriteFile(copied, b, 0o755))
	cmd := exec.Command(copied)
	cmd.Env = []string{"TRUST_OPEN=" + strings.Join([]string{tr.at("ours"), tr.at("roots"), tr.at("others"), tr.at("bad/f")}, ":")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Credential: &syscall.Credential{NoSetGroups: true},
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: friend, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: friend, Size: 1}}}
	out, err := cmd.Output()
	if errors.Is(err, fs.ErrPermission) {
		needs.Missing(t, "user namespaces: "+err.Error())
	}
	want := "ok\nothers may change it: the owner is user 65534\nothers may change it: the owner is user 65534\nothers may change it: \"ROOT/bad\" has mode 0777\n"
	if got := strings.ReplaceAll(string(out), tr.root, "ROOT"); err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

// A path is looked at once per name in it, and no user database is asked.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f, err := Open(path, nil)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
