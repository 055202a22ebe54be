package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// installing runs a vaultexec as a user, with the folders that it finds, and returns what it says.
func installing(cred *syscall.Credential, bin string, args ...string) (string, error) {
	cmd := exec.Command(bin, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Env, cmd.Dir = []string{}, "/"
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestInstallAsAnyUser: a user without a name, a home, or any right but one folder installs a copy that other users can run and
// cannot read. What cannot be read by its user cannot be installed either, and says so.
func TestInstallAsAnyUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		needs.Missing(t, "root, who may be several users")
	}
	_, bin := asNobody(t, vaulttest.BuildStatic(t, "."))
	if err := os.Chmod(bin, 0o755); err != nil { // as in the image
		t.Fatal(err)
	}
	volume := filepath.Join(filepath.Dir(bin), "volume")
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(volume, 0o777); err != nil { // as an emptyDir
		t.Fatal(err)
	}
	some := &syscall.Credential{Uid: 1000690000, Gid: 0, NoSetGroups: true}
	other := &syscall.Credential{Uid: 4711, Gid: 4711, NoSetGroups: true}
	if out, err := installing(some, bin, "install", volume); err != nil || !strings.HasPrefix(out, volume+"/vaultexec v") {
		t.Fatalf("%v %s", err, out)
	}
	file := filepath.Join(volume, "vaultexec")
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o711 || info.Sys().(*syscall.Stat_t).Uid != some.Uid {
		t.Errorf("%v %v", info, err)
	}
	if out, err := installing(other, file, "--version"); err != nil || !strings.HasPrefix(out, "vaultexec v") {
		t.Errorf("another user cannot run it: %v %s", err, out)
	}
	for _, c := range []struct {
		cred  *syscall.Credential
		reads bool
	}{{some, true}, {other, false}} {
		if _, err := installing(c.cred, "/bin/cat", file); (err == nil) != c.reads {
			t.Errorf("user %d: reading it ends with %v", c.cred.Uid, err)
		}
	}
	// The copy is as unreadable as the one that make install makes.
	out, err := installing(other, file, "install", volume+"/again")
	if err == nil || !strings.Contains(out, "cannot read vaultexec's own program: permission denied\nvaultexec: hint: with mode 0711 only its owner and root can") {
		t.Errorf("%v %s", err, out)
	}
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err = installing(other, bin, "install", volume)
	if err == nil || !strings.Contains(out, "permission denied\nvaultexec: hint: user 4711 has to be able to write the folder") {
		t.Errorf("%v %s", err, out)
	}
	if left, err := filepath.Glob(volume + "/.*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestInstallInterrupted: a signal ends it, and what is not finished is gone. The disk is slow here: strace holds the
// fsync back.
func TestInstallInterrupted(t *testing.T) {
	t.Parallel()
	strace := needs.Program(t, "strace")
	dir := t.TempDir()
	cmd := exec.Command(strace, "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=5s", vaulttest.BuildStatic(t, "."), "install", dir)
	if err := vaulttest.StartTied(cmd); err != nil {
		t.Fatal(err)
	}
	part := func() []string {
		files, _ := filepath.Glob(dir + "/.vaultexec-*")
		return files
	}
	var size int64
	wait.Until(t, time.Minute, "all of the copy to be there", func() bool {
		for _, f := range part() {
			info, err := os.Stat(f)
			size = 0
			if err == nil && info.Mode() == 0o711 { // the mode comes last
				size = info.Size()
			}
		}
		return size > 0
	})
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.Fields(string(children))[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // strace ends as its program does, when it lets go of it
	if got := vaulttest.Ending(cmd.ProcessState); got != "signal TERM" {
		t.Errorf("it ended with %s", got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestInstallPlaces: where a file system says no, the one that was there stays, and nothing is left behind.
func TestInstallPlaces(t *testing.T) {
	t.Parallel()
	unshare := needs.Program(t, "unshare")
	args := []string{"--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	if out, err := exec.Command(unshare, append(args, "true")...).CombinedOutput(); err != nil {
		needs.Missing(t, "mount namespaces, which are not to be had here: "+string(out))
	}
	bin := vaulttest.BuildStatic(t, ".")
	for name, c := range map[string]struct{ mount, options, want string }{
		"noexec":    {"tmpfs", "noexec", "no program can be executed there\nvaultexec: hint: mount it without noexec"},
		"full":      {"tmpfs", "size=1m", "no space left on device\nvaultexec: hint: make room there"},
		"read-only": {"tmpfs", "ro", "read-only file system\nvaultexec: hint: name a folder on a volume that can be written"},
		// What stands in for /proc is empty: the program is found by its name.
		"no proc": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script := `mount -t tmpfs -o "$3" tmpfs "$2" && "$1" install "$2"; code=$?; ls -A "$2" >&2; exit $code`
			if c.mount == "" {
				script = `mount -t tmpfs tmpfs /proc && PATH="${1%/*}" && ${1##*/} install "$2"`
			}
			cmd := exec.Command(unshare, append(args, "/bin/sh", "-c", script, "sh", bin, dir, c.options)...)
			out, err := cmd.CombinedOutput()
			if c.want == "" {
				if _, serr := os.Stat(dir + "/vaultexec"); err != nil || serr != nil {
					t.Errorf("%v, %v: %s", err, serr, out)
				}
				return
			}
			said, left, _ := strings.Cut(string(out), c.want)
			_, left, _ = strings.Cut(left, "\n")
			if cmd.ProcessState.ExitCode() != 125 || said != `vaultexec: cannot install "`+dir+`/vaultexec": ` || left != "" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
