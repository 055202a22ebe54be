package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// underSystemd is what becomes a systemd that is PID 1: of namespaces and a control group of its own, with the units of one
// folder and no others. It shares files and network with the test.
const underSystemd = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$(tty)" /dev/console
exec env -i container=test "PATH=$PATH" "SYSTEMD_UNIT_PATH=$1" SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console \
	/lib/systemd/systemd --unit=app.target --log-color=no --show-status=no`

// unitLines are the lines of systemd's log about the unit, without secrets.
func unitLines(log string) string {
	var list []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "app.service: ") {
			list = append(list, line)
		}
	}
	return vaulttest.Redact(strings.Join(list, ""))
}

// controlGroup makes a control group of version 2 for the test, or leaves the test out.
func controlGroup(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(root, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir := filepath.Join(root, fmt.Sprintf("vaultexec-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() {
			empty := func() bool { // from the innermost one: a control group is removed when nothing is in it
				var all []string
				_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
					if err == nil && d.IsDir() {
						all = append(all, path)
					}
					return nil
				})
				for _, path := range slices.Backward(all) {
					if os.Remove(path) != nil {
						return false
					}
				}
				return true
			}
			if !wait.For(actual{t}.Limit(), empty) {
				t.Errorf("processes are left in %s", dir)
			}
		})
		return dir
	}
	needs.LeftOut(t, "a control group of version 2 that systemd can have as PID 1; TestUnitThroughRotation has the same sequence")
	return ""
}

// A real systemd, as PID 1, hears READY, RELOADING, READY, STOPPING from the main process of a unit with NotifyAccess=main, and
// makes of it what it shows: the unit is active when the command is ready, reloads, is active again, and has a status.
func TestSystemd(t *testing.T) {
	t.Parallel()
	at := actual{t}
	if os.Getuid() != 0 {
		needs.LeftOut(t, "root for systemd as PID 1; TestUnitThroughRotation has the same sequence")
	}
	needs.Program(t, "systemctl")
	needs.Program(t, "nsenter")
	needsNamespaces(t)
	group, units, port := controlGroup(t), t.TempDir(), freePort(at)
	w := newWatched(t, startFirst("--listen", "127.0.0.1:"+port)...)
	file(t, units, "env", "%s\n", strings.Join(w.env, "\n"))
	file(t, units, "app.target", "[Unit]\nDefaultDependencies=no\nWants=app.service\n")
	file(t, units, "app.service", `[Unit]
DefaultDependencies=no
[Service]
Type=notify
NotifyAccess=main
KillMode=mixed
EnvironmentFile=%s/env
ExecStart=%s
`, units, strings.Join(w.launcher.cmd(probe(t), "serve"), " "))
	file(t, units, "run", underSystemd)
	console := ptytest.Open(t, at.Limit(), []string{"PATH=" + os.Getenv("PATH")},
		"sh", "-c", `echo 0 >"$0/cgroup.procs" && exec "$@"`, group,
		"unshare", "-m", "-p", "-f", "-u", "-i", "-C", "--kill-child", "sh", filepath.Join(units, "run"), units)
	first := func() (pid int) { // systemd, by its number outside
		for _, p := range console.Processes() {
			if p.Name == "unshare" {
				for _, pid := range childrenOf(p.PID) {
					return pid
				}
			}
		}
		return 0
	}
	until(at, "systemd", func() bool {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", first()))
		return string(comm) == "systemd\n"
	})
	t.Cleanup(func() {
		if pid := first(); pid != 0 {
			_ = send(pid, unix.SIGKILL) // and with it all of its namespace
		}
	})
	heard := func(main int) (words []string) { // what systemd has heard from the main process
		for line := range strings.Lines(console.Output()) {
			_, said, ok := strings.Cut(line, "app.service: Got notification message from PID ")
			pid, said, _ := strings.Cut(said, " ")
			switch {
			case ok && pid != strconv.Itoa(main):
				t.Errorf("another process than %d is heard: %s", main, line)
			case ok:
				for word := range strings.FieldsFuncSeq(said, func(r rune) bool { return strings.ContainsRune(" (),\r\n", r) }) {
					if name, _, _ := strings.Cut(word, "="); slices.Contains([]string{"READY", "RELOADING", "STOPPING"}, name) {
						words = append(words, word)
					}
				}
			}
		}
		return words
	}
	ctl := func(args ...string) string {
		cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(first()), "-m", "-p", "systemctl"}, args...)...)
		out, _ := cmd.CombinedOutput()
		return vaulttest.Redact(string(out))
	}
	shows := func(state, generation string) {
		t.Helper()
		var seen string
		if !wait.For(at.Limit(), func() bool {
			seen = ctl("show", "app.service", "-p", "ActiveState,SubState,StatusText,Result")
			return strings.Contains(seen, "ActiveState="+state) && strings.Contains(seen, generation)
		}) {
			t.Fatalf("want %s and %q, have\n%s\n%s", state, generation, seen, unitLines(console.Output()))
		}
	}
	shows("active", " with "+w.mount+"/app-prod 1")
	main, err := strconv.Atoi(strings.TrimSpace(ctl("show", "app.service", "-p", "MainPID", "--value")))
	if err != nil || main <= 1 {
		t.Fatalf("the main process is %d: %v", main, err)
	}
	w.change(t, 2)
	ctl("kill", "--kill-who=main", "--signal=USR1", "app.service")
	shows("active", " with "+w.mount+"/app-prod 2")
	until(at, "the end of the handover", func() bool { return len(heard(main)) == 3 })
	if now := strings.TrimSpace(ctl("show", "app.service", "-p", "MainPID", "--value")); now != strconv.Itoa(main) {
		t.Errorf("the main process is %s, and was %d", now, main)
	}
	ctl("stop", "app.service")
	shows("inactive", "Result=success")
	if err := send(first(), unix.Signal(34+14)); err != nil { // SIGRTMIN+14: systemd ends
		t.Fatal(err)
	}
	console.Ended()
	if got, want := heard(main), []string{"READY=1", "RELOADING=1", "READY=1", "STOPPING=1"}; !slices.Equal(got, want) {
		t.Errorf("systemd has heard %v, want %v", got, want)
	}
	var states []string
	for line := range strings.Lines(console.Output()) {
		if _, change, ok := strings.Cut(line, "app.service: Changed "); ok {
			states = append(states, strings.TrimSpace(change))
		}
	}
	for _, want := range []string{"start -> running", "running -> reload", "reload -> running"} {
		if !slices.Contains(states, want) {
			t.Errorf("the unit was %q, and never %s", states, want)
		}
	}
}
