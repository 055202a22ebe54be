package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// What is installed has mode 0711 and belongs to root, so that the kernel protects it from execve(2) on.

// unreadable is a vaultexec that its user may start and not read, and that user.
func unreadable(t *testing.T) (*syscall.Credential, string) {
	t.Helper()
	if os.Getuid() != 0 {
		needs.Missing(t, "root, to whom an installed vaultexec belongs")
	}
	cred, bin := asNobody(t, vaulttest.BuildStatic(t, "."))
	if err := os.Chmod(bin, 0o711); err != nil {
		t.Fatal(err)
	}
	cat := exec.Command("cat", bin)
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if cat.Run() == nil {
		t.Fatal("its user can read it")
	}
	return cred, bin
}

// TestUnreadableWorks: nothing in vaultexec reads its own program, also where it starts itself again: as the guard of the command,
// as the stub of socket activation, as the parent of a terminal. A vaultexec starts another one, too.
func TestUnreadableWorks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cred, bin := unreadable(t)
	version, err := exec.Command(bin, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	r.set("WANT="+r.value, "VERSION="+strings.TrimSpace(string(version)))
	has := `test "$API_KEY" = "$WANT"`
	for _, c := range []struct{ name, script string }{
		{"replace", `exec "$0" -- sh -c '` + has + `'`},
		{"supervise", `exec "$0" --supervise -- sh -c '` + has + `'`},
		{"stub", `export LISTEN_PID=$$; exec "$0" --supervise -- sh -c '` + has + ` && test "$LISTEN_PID" = $$'`},
		{"mask", `test "$("$0" --mask -- sh -c 'echo "<$API_KEY>"')" = "<***>"`},
		{"inner", `exec "$0" --keep-token -- "$0" --supervise -- sh -c '` + has + `'`},
		{"closed", `exec "$0" --supervise -- sh -c '! test -O /proc/$PPID/fd'`},
		{"dumpable", `exec "$0" --supervise --dumpable -- sh -c 'test -O /proc/$PPID/fd'`},
		{"version", `test "$("$0" --version)" = "$VERSION"`},
	} {
		cmd := exec.Command("/bin/sh", "-c", c.script, bin)
		cmd.Env, cmd.Dir = r.env, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", c.name, err, vaulttest.Redact(string(out)))
		}
	}
	setpriv := needs.Program(t, "setpriv")
	p := ptytest.Open(t, limit, r.env, setpriv, "--reuid", fmt.Sprint(cred.Uid), "--regid", fmt.Sprint(cred.Gid), "--clear-groups",
		bin, "--mask", "--", "sh", "-c", `test -t 1 && id -u && echo "<$API_KEY>" && read line && `+has+` && exit 7`)
	p.Expect(fmt.Sprint(cred.Uid))
	p.Expect(`<\*\*\*>`)
	p.Type("\r")
	if state := p.Ended(); state.ExitCode() != 7 {
		t.Errorf("on a terminal: %v\n%s", state, vaulttest.Redact(p.Output()))
	}
}

// TestUnreadableFromTheStart: before the first instruction of a vaultexec that its user cannot read, that user cannot look into it,
// and a crash leaves no core file. With a program that can be read both are possible: that is the control.
func TestUnreadableFromTheStart(t *testing.T) {
	t.Parallel()
	cred, bin := unreadable(t)
	allowed, err := os.ReadFile("/proc/sys/fs/suid_dumpable")
	if err != nil || strings.TrimSpace(string(allowed)) == "1" {
		needs.Missing(t, "a kernel that protects such programs (fs.suid_dumpable=0 or 2)")
	}
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	limits := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limits); err != nil || limits.Max == 0 {
		needs.Missing(t, "a limit that allows core files (ulimit -Hc)")
	}
	toFile := !bytes.HasPrefix(pattern, []byte("|")) && strings.TrimSpace(string(allowed)) == "0"
	if !toFile {
		t.Log("core files go elsewhere on this machine: only what can be looked at is tried")
	}
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	try := func(mode os.FileMode) (can []string, core bool) {
		if err := os.Chmod(bin, mode); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(filepath.Dir(bin), mode.String())
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		// Traced, it stops where execve(2) is done and nothing of it has run. The shell before it raises the limit.
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", `ulimit -S -c $(ulimit -H -c); exec "$0" --version`, bin}, &syscall.ProcAttr{Dir: dir, Env: []string{"VAULT_TOKEN=" + vaulttest.Canary("at the start")},
			Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Sys: &syscall.SysProcAttr{Credential: cred, Ptrace: true}})
		if err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		end := func() {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
				t.Fatal(err)
			}
		}
		next := func(deliver unix.Signal) {
			if err := unix.PtraceCont(pid, int(deliver)); err != nil {
				t.Fatal(err)
			}
			if end(); !status.Stopped() && deliver != unix.SIGABRT {
				t.Fatalf("ended before its start: %#x", status)
			}
		}
		end() // where the shell is at its start
		if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_EXITKILL); err != nil {
			t.Fatal(err)
		}
		for next(0); status.TrapCause() != unix.PTRACE_EVENT_EXEC; next(status.StopSignal()) {
		}
		for name, argv := range map[string][]string{
			"environ": {"grep", "-q", "VAULT_TOKEN", fmt.Sprintf("/proc/%d/environ", pid)},
			"fd":      {"ls", fmt.Sprintf("/proc/%d/fd", pid)},
			"maps":    {"grep", "-q", "stack", fmt.Sprintf("/proc/%d/maps", pid)},
			"mem":     {"dd", fmt.Sprintf("if=/proc/%d/mem", pid), "of=/dev/null", "count=0"},
		} {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
			if cmd.Run() == nil {
				can = append(can, name)
			}
		}
		if err := unix.Kill(pid, unix.SIGABRT); err != nil {
			t.Fatal(err)
		}
		if next(0); status.StopSignal() != unix.SIGABRT {
			t.Fatalf("SIGABRT is not what came first: %#x", status)
		}
		if next(unix.SIGABRT); !status.Signaled() || status.Signal() != unix.SIGABRT {
			t.Fatalf("not ended by SIGABRT: %#x", status)
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(can)
		return can, status.CoreDump() || len(left) > 0
	}
	if can, core := try(0o711); len(can) > 0 || core {
		t.Errorf("mode 0711: its user gets at %q, a core is left: %t", can, core)
	}
	if can, core := try(0o755); len(can) != 4 || toFile && !core {
		t.Errorf("control, mode 0755: its user gets at %q, a core is left: %t", can, core)
	}
}

// TestUndumpableEarly: where the kernel does not do it, for root, vaultexec makes itself undumpable before the packages of others are
// initialized.
func TestUndumpableEarly(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(vaulttest.BuildStatic(t, "."), "--version")
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	var trace strings.Builder
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	place := map[string]int{}
	for line := range strings.SplitSeq(trace.String(), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "init" {
			place[f[1]] = len(place) + 1
		}
	}
	const own, most = module + "/internal/nodump", 25 // 14th of 115 when this was written
	if at := place[own]; at == 0 || at > most || len(place) < 2*most {
		t.Errorf("%s is number %s of %d packages, which should be among the first %d", own, strconv.Itoa(at), len(place), most)
	}
}

const module = "github.com/agenticverz/vaultexec"
