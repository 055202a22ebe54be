package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// What vaultexec itself keeps of secrets while the command runs, and who can get at it. SECURITY.md cites these tests.
// They look into vaultexec with --dumpable where they do not need root then.

// TestEnvironmentBlockIsCleaned: /proc/PID/environ of vaultexec, which root may always read, shows no credential from its
// first request on, not even one that was given twice, and everything else as it was. What the command gets of it with
// --keep-token is whole, also by way of the stub that socket activation needs.
func TestEnvironmentBlockIsCleaned(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secrets := []string{r.token, vaulttest.Canary("twice"), vaulttest.Canary("password"), vaulttest.Canary("header")}
	own := append(r.env, "VAULT_TOKEN="+secrets[1], "VAULTEXEC_PASSWORD="+secrets[2], "PLAIN=a=b", `VAULT_HEADERS={"X-A":"`+secrets[3]+`"}`, "VAULT_TOKEN="+secrets[1])
	begin := func(path string, argv ...string) int {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = null.Close() }()
		// os/exec would leave the second of two equal names out.
		p, err := os.StartProcess(path, argv, &os.ProcAttr{Env: own, Files: []*os.File{null, null, null}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Kill(); _, _ = p.Wait() })
		return p.Pid
	}
	environ := func(pid int) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	shown := func(text string) (n int) {
		for _, s := range secrets {
			n += strings.Count(text, s)
		}
		return n
	}
	r.proxy.Set(vaulttest.BlackHole)
	pid := begin(r.bin, r.bin, "--dumpable", "--supervise", "--", "sleep", "1000")
	r.proxy.WaitRequests(t, 1)
	text := environ(pid)
	if shown(text) != 0 {
		t.Errorf("the environment shows %d credentials:\n%q", shown(text), vaulttest.Redact(text))
	}
	for _, kv := range append(r.env, "PLAIN=a=b") {
		if !strings.HasPrefix(kv, "VAULT_TOKEN=") && !strings.Contains(text, kv+"\x00") {
			t.Errorf("the environment has lost %s", strings.Split(kv, "=")[0])
		}
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	control := begin(sleep, sleep, "1000") // execve(2) closes what tells its parent of it before it notes where the block is
	if !wait.For(limit, func() bool { return shown(environ(control)) == 5 }) {
		t.Errorf("control: a program that does nothing about it shows %d, want 5", shown(environ(control)))
	}

	r.proxy.Clear()
	for _, script := range []string{`exec "$0" "$@"`, `export LISTEN_PID=$$; exec "$0" "$@"`} {
		for _, mode := range []string{"--supervise", "--dumpable"} {
			r := *r
			r.set("VAULTEXEC_PASSWORD="+secrets[2], "VAULT_HEADERS={\"X-A\":\""+secrets[3]+"\"}", "WANT="+r.token+"|"+secrets[2]+"|{\"X-A\":\""+secrets[3]+"\"}")
			startRun(t, r.dir, r.env, "/bin/sh", "-c", script, r.bin, mode, "--keep-token", "--",
				"sh", "-c", `test "$VAULT_TOKEN|$VAULTEXEC_PASSWORD|$VAULT_HEADERS" = "$WANT" || exit 9`).finish("0")
		}
	}
}

// scan counts where secrets stand in the readable memory of a process.
func scan(t *testing.T, pid int, secrets []string) map[string]int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	found := map[string]int{}
	looked := 0
	for line := range strings.Lines(string(maps)) {
		span, rest, _ := strings.Cut(line, " ")
		from, to, _ := strings.Cut(span, "-")
		lo, _ := strconv.ParseUint(from, 16, 64)
		hi, _ := strconv.ParseUint(to, 16, 64)
		if !strings.HasPrefix(rest, "r") || hi-lo > 1<<30 { // reserved and never touched
			continue
		}
		b := make([]byte, hi-lo)
		n, _ := mem.ReadAt(b, int64(lo)) // [vvar] cannot be read
		looked += n
		for _, s := range secrets {
			found[s] += bytes.Count(b[:n], []byte(s))
		}
	}
	if looked < 1<<20 {
		t.Fatalf("only %d bytes could be read", looked)
	}
	return found
}

// TestMemoryIsCleared: a supervising vaultexec that has nothing more to do with Vault has no value, no token and no other
// credential in its memory a few seconds after the start. With --watch it has to compare and to roll back, and keeps them:
// that is the negative control, too.
func TestMemoryIsCleared(t *testing.T) {
	t.Parallel()
	long := vaulttest.Canary("long") + strings.Repeat("0123456789abcdef", 1200) // larger than the classes that MemStats knows
	for _, c := range []struct {
		name  string
		setup func(r *rig) (args, secrets []string)
	}{
		{"token", func(r *rig) (args, secrets []string) { return nil, []string{r.token} }},
		{"keep-token", func(r *rig) (args, secrets []string) { return []string{"--keep-token"}, []string{r.token} }},
		{"approle", func(r *rig) (args, secrets []string) {
			mount, _, roleID, secretID := r.srv.Scope(t).AppRole(r.policy)
			r.set("VAULT_TOKEN=", "VAULTEXEC_ROLE_ID="+roleID, "VAULTEXEC_SECRET_ID="+secretID)
			return []string{"--auth-mount", mount}, []string{secretID}
		}},
		{"fallback is written", func(r *rig) (args, secrets []string) {
			f := fallbackIn(r)
			return nil, []string{r.token, f.keyText()}
		}},
		{"fallback is used", func(r *rig) (args, secrets []string) {
			f := fallbackIn(r)
			r.start("--file", "FILE", "--", "true").finish("0")
			r.proxy.Set(vaulttest.Reset)
			return nil, []string{r.token, f.keyText()}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.t = t
			r.bin = vaulttest.BuildStatic(t, ".")
			multi := vaulttest.Canary("one") + "\n" + vaulttest.Canary(`"two"`)
			r.srv.PutKV(t, r.mount, "app", map[string]any{"API_KEY": r.value, "LONG": long, "MULTI": multi, "FILE": vaulttest.Canary("FILE")})
			args, secrets := c.setup(r)
			secrets = append(secrets, r.value, long[:40], strings.Split(multi, "\n")[0])
			run := func(more ...string) func() int {
				ready := filepath.Join(r.dir, fmt.Sprint("ready", len(more)))
				j := r.start(append(append(append([]string{"--dumpable", "--file", "FILE"}, args...), more...), "--", "sh", "-c", `: >"$0"; exec sleep 1000`, ready)...)
				wait.Until(t, limit, "the command", func() bool { _, err := os.Stat(ready); return err == nil })
				return func() (n int) {
					for _, k := range scan(t, j.cmd.Process.Pid, secrets) {
						n += k
					}
					return n
				}
			}
			for _, options := range [][]string{{"--supervise"}, {"--status", "unix:" + filepath.Join(r.dir, "status")}} {
				count := run(options...)
				left := -1
				if !wait.For(limit, func() bool { left = count(); return left == 0 }) {
					t.Errorf("%v: %d copies of secrets are left in memory", options, left)
				}
			}
			if n := run("--watch", "--interval", "1h")(); n == 0 {
				t.Error("control: the scan sees nothing where the values are kept")
			}
		})
	}
}

// copyProgram copies a program, in a process of its own: what another test forks just now would hold the file open for
// writing, and execve(2) refuses that (ETXTBSY).
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cannot copy %s: %s", from, out)
	}
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}

// asNobody returns the credential of another user for root, and the own one for everybody else, with a copy of vaultexec that
// this user may start.
func asNobody(t *testing.T, bin string) (*syscall.Credential, string) {
	t.Helper()
	var cred *syscall.Credential
	if os.Getuid() == 0 { // who may read everything anyway
		cred = &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}
	}
	dir, err := os.MkdirTemp("", "vaultexec-nobody-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyProgram(t, bin, filepath.Join(dir, "vaultexec"))
	return cred, filepath.Join(dir, "vaultexec")
}

// TestSameUserCannotLook: a process of the same user cannot read vaultexec's environment, memory or descriptors, nor attach
// to it, in any mode; with --dumpable it can.
func TestSameUserCannotLook(t *testing.T) {
	t.Parallel()
	strace := needs.Program(t, "strace")
	r := newRig(t)
	cred, bin := asNobody(t, vaulttest.BuildStatic(t, "."))
	begin := func(args ...string) int {
		cmd := exec.Command(bin, args...)
		cmd.Env, cmd.Dir = r.env, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Signal(unix.SIGTERM); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	may := func(pid int) map[string]bool {
		can := map[string]bool{}
		for name, argv := range map[string][]string{
			"environ": {"cat", fmt.Sprintf("/proc/%d/environ", pid)},
			"fd":      {"ls", fmt.Sprintf("/proc/%d/fd", pid)},
			"maps":    {"cat", fmt.Sprintf("/proc/%d/maps", pid)},
			"mem":     {"dd", fmt.Sprintf("if=/proc/%d/mem", pid), "of=/dev/null", "count=0"},
		} {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
			can[name] = cmd.Run() == nil
		}
		said := &output{}
		cmd := exec.Command(strace, "-o", "/dev/null", "-p", strconv.Itoa(pid))
		cmd.Stderr = said
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Fatal(err)
		}
		// "attached", or why not
		wait.Until(t, limit, "strace to say how it went", func() bool { return strings.Contains(said.String(), "attach") })
		can["ptrace"] = strings.Contains(said.String(), " attached")
		_ = cmd.Process.Signal(unix.SIGINT)
		_ = cmd.Wait()
		return can
	}
	r.proxy.Set(vaulttest.BlackHole)
	waiting := begin("--", "sleep", "1000")
	r.proxy.WaitRequests(t, 1)
	open := begin("--dumpable", "--", "sleep", "1000")
	r.proxy.WaitRequests(t, 2)
	wait.Until(t, limit, "--dumpable to be in force", func() bool { return may(open)["environ"] })
	control := may(open)
	yama, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	for name, can := range control {
		if limited := name == "ptrace" || name == "mem"; !can && !(limited && len(yama) > 0 && yama[0] != '0') {
			t.Errorf("control: %s is closed with --dumpable, too", name)
		}
	}
	check := func(mode string, pid int) {
		for name, can := range may(pid) {
			if can {
				t.Errorf("%s: its own user gets at %s", mode, name)
			}
		}
	}
	check("before the exec", waiting)
	r.proxy.Clear()
	sup := begin("--supervise", "--", "sleep", "1000")
	wait.Until(t, limit, "the command", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", sup))
		return len(b) > 0
	})
	check("supervise", sup)
}

// TestNoCore: a vaultexec that crashes, from whatever signal and with GOTRACEBACK=crash, leaves no core file although the
// limit allows one, and its stacks show no secret; the limit is not touched. With --dumpable there is a core.
func TestNoCore(t *testing.T) {
	t.Parallel()
	limits := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limits); err != nil || limits.Max == 0 {
		needs.Missing(t, "a limit that allows core files (ulimit -Hc)")
	}
	r := newRig(t)
	r.bin = vaulttest.BuildStatic(t, ".")
	r.set("GOTRACEBACK=crash")
	crash := func(sig syscall.Signal, args ...string) syscall.WaitStatus {
		r := *r
		r.dir = t.TempDir()
		r.proxy.Forget()
		r.proxy.Set(vaulttest.BlackHole)
		j := startRun(t, r.dir, r.env, "/bin/sh", append(append([]string{"-c", `ulimit -S -c $(ulimit -H -c); exec "$@"`, "sh", r.bin}, args...), "--", "sh", "-c", "ulimit -c")...)
		r.proxy.WaitRequests(t, 1)
		j.signal(sig)
		wait.Until(t, limit, "the end", func() bool {
			select {
			case <-j.done:
				return true
			default:
				return false
			}
		})
		if text := j.err.String(); !strings.Contains(text, "goroutine ") || vaulttest.Redact(text) != text {
			t.Errorf("%v: no stacks, or a secret in them:\n%s", sig, vaulttest.Redact(text))
		}
		ws := j.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if left, _ := os.ReadDir(r.dir); len(left) > 0 && !ws.CoreDump() {
			t.Errorf("%v: %s is left", sig, left[0].Name())
		}
		return ws
	}
	for _, sig := range []syscall.Signal{unix.SIGABRT, unix.SIGSEGV, unix.SIGBUS} {
		if ws := crash(sig); !ws.Signaled() || ws.CoreDump() {
			t.Errorf("%v: core %v, status %#x", sig, ws.CoreDump(), ws)
		}
	}
	pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
	if ws := crash(unix.SIGABRT, "--dumpable"); !ws.CoreDump() && !bytes.HasPrefix(pattern, []byte("|")) { // a program that takes them may refuse
		t.Error("control: no core with --dumpable either")
	}
	r.proxy.Clear()
	j := startRun(t, r.dir, r.env, "/bin/sh", "-c", `ulimit -S -c $(ulimit -H -c); ulimit -c >want; exec "$@"`, "sh", r.bin, "--", "sh", "-c", "ulimit -c | cmp - want").finish("0")
	j.silent()
}
