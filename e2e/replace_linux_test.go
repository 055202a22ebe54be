package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// look prints everything about a process that it inherits. The status is that of a child, which has it from the shell: dash
// blocks its own signals for a moment whenever it forks.
const look = `
cat /proc/self/status /proc/$$/limits
echo "pid $$"
echo "parent $PPID"
echo "umask $(umask) nice $(nice) dir $(pwd -P)"
cat /proc/$$/oom_score_adj /proc/$$/timerslack_ns /proc/$$/coredump_filter
tr '\0' '\n' </proc/$$/cmdline
for f in /proc/$$/fd/*; do echo "fd ${f##*/} $(readlink $f) $(sed -n 's/^flags:\t*//p' /proc/$$/fdinfo/${f##*/} 2>/dev/null)"; done
echo "stdin: $(cat)"
`

// volatile are the lines of /proc/PID/status that differ between any two processes; SigQ counts for the whole user.
var volatile = regexp.MustCompile(`(?m)^(State|SigQ|Pid|PPid|Tgid|NSpid|NStgid|NSpgid|NSsid|Ngid|Vm\w+|Rss\w+|HugetlbPages|nonvoluntary_ctxt_switches|voluntary_ctxt_switches|Cpus_allowed\w*|Mems_allowed\w*):.*\n|^pid .*\n`)

// same takes out what differs between any two runs, the shell's own pipe included.
func same(text string) string {
	return regexp.MustCompile(`pipe:\[\d+\]`).ReplaceAllString(volatile.ReplaceAllString(text, ""), "pipe")
}

// forkExec starts a program with exactly these descriptors, arguments and variables, byte for byte; package os/exec would
// tidy them up. It returns the process ID and its end.
func forkExec(t *testing.T, path, dir string, argv, env []string, files []uintptr) (pid int, end func() syscall.WaitStatus) {
	t.Helper()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{Dir: dir, Env: env, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return pid, func() syscall.WaitStatus {
		var ws syscall.WaitStatus
		for {
			_, err := syscall.Wait4(pid, &ws, 0, nil)
			if err == nil {
				return ws
			}
			if err != syscall.EINTR {
				t.Fatalf("cannot wait: %v", err)
			}
		}
	}
}

// files makes a table of descriptors: 0 is from, 1 and 2 are out, and the numbers named are open files of their own.
func descriptors(t *testing.T, from, out *os.File, numbers ...int) []uintptr {
	t.Helper()
	table := make([]uintptr, 3, 256)
	table[0], table[1], table[2] = from.Fd(), out.Fd(), out.Fd()
	for _, n := range numbers {
		for len(table) <= n {
			table = append(table, ^uintptr(0))
		}
		f, err := os.Open("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		table[n] = f.Fd()
	}
	return table
}

// TestReplaceInherits: the command is the same process as vaultexec was, and finds everything as it would without it: status,
// limits, descriptors with their numbers and flags, umask, nice value, directory, signals.
func TestReplaceInherits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sub := filepath.Join(r.dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	see := func(how ...string) (string, int) {
		out, err := os.Create(filepath.Join(r.dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		in, err := os.Open(filepath.Join(r.dir, "in"))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		// HUP is ignored, as under nohup: of the ignored signals one that Go keeps.
		argv := append([]string{"sh", "-c", `trap "" HUP; umask 027; ulimit -S -n 345; ulimit -S -s 4096; ulimit -c 0; exec nice -n 3 "$@"`, "sh"}, how...)
		argv = append(argv, "sh", "-c", look)
		pid, end := forkExec(t, "/bin/sh", sub, argv, append(r.env, "PWD="+sub), descriptors(t, in, out, 3, 9, 200))
		if ws := end(); ws.ExitStatus() != 0 {
			t.Fatalf("it ended with %v", ws)
		}
		text, err := os.ReadFile(filepath.Join(r.dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text), pid
	}
	vaulttest.WriteFile(t, filepath.Join(r.dir, "in"), "what is on standard input", 0o600)
	plain, _ := see()
	through, pid := see(r.bin, "--")
	if !strings.Contains(through, fmt.Sprintf("\npid %d\n", pid)) {
		t.Error("the command has another process ID than vaultexec had")
	}
	if !strings.Contains(through, "fd 200 /etc/passwd") || !strings.Contains(through, "umask 0027 nice ") || !strings.Contains(through, "stdin: what is on") {
		t.Fatalf("the comparison is blind:\n%s", through)
	}
	a, b := same(plain), same(through)
	if a != b {
		t.Errorf("without vaultexec:\n%s\nwith it:\n%s", a, b)
	}
}

// TestReplaceArguments: argv byte for byte, argv[0] as typed, and no byte of the environment changed.
func TestReplaceArguments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := os.Symlink("/bin/cat", filepath.Join(r.dir, "reader")); err != nil {
		t.Fatal(err)
	}
	strange := []string{
		"BASH_FUNC_f%%=() { :; }", "LATIN=\xe9\xff", "dup=first", "dup=second", "NOVALUE", "NOVALUE=has one", "a b=c", "=odd", "EMPTY=",
		"API_KEY=inherited", "MULTI=a\nb", "BAO_TOKEN=",
	}
	env := append(slices.Clone(r.env), strange...)
	for _, typed := range []string{"./reader", filepath.Join(r.dir, "reader"), "cat"} {
		for _, what := range []string{"cmdline", "environ"} {
			out, err := os.Create(filepath.Join(r.dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			argv := []string{"vaultexec", "--", typed, "--", "/proc/self/" + what}
			_, end := forkExec(t, r.bin, r.dir, argv, env, descriptors(t, null, out))
			if ws := end(); ws.ExitStatus() != 0 {
				t.Fatalf("it ended with %v", ws)
			}
			_, _ = out.Close(), null.Close()
			b, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
			want := argv[2:]
			if what == "environ" {
				want = nil
				for _, kv := range env {
					if kv != "dup=second" && kv != "API_KEY=inherited" && kv != "BAO_TOKEN=" && !strings.HasPrefix(kv, "VAULT_TOKEN=") {
						want = append(want, kv)
					}
				}
				want = append(want, "API_KEY="+r.value)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s of %s:\n got %s\nwant %s", what, typed, vaulttest.Redact(fmt.Sprintf("%q", got)), vaulttest.Redact(fmt.Sprintf("%q", want)))
			}
		}
	}
	// argument bytes that are no UTF-8, and empty ones
	j := r.start("--", "sh", "-c", `printf '%s|' "$@"`, "sh", "", "\xff\xfe", "a\nb", "--", "$HOME").finish("0")
	if got := j.out.String(); got != "|\xff\xfe|a\nb|--|$HOME|" {
		t.Errorf("the arguments arrive as %q", got)
	}
}

// TestReplaceLeavesNothing: no descriptor of vaultexec's own is left to the command.
func TestReplaceLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	plain := startRun(t, r.dir, r.env, "/bin/ls", "/proc/self/fd").finish("0")
	through := r.start("--", "/bin/ls", "/proc/self/fd").finish("0")
	if a, b := plain.out.String(), through.out.String(); a != b || through.err.String() != "" {
		t.Errorf("descriptors without vaultexec:\n%swith it:\n%s%s", a, b, through.err.String())
	}
}

// TestSIGTERMAroundExec: a SIGTERM at any moment around the exec ends vaultexec or the command, and is never lost
// between the two. The naive order loses one of seven.
func TestSIGTERMAroundExec(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	bin := vaulttest.BuildStatic(t, ".") // with the race detector the start takes ten times as long
	r := newRig(t)
	r.set("VAULT_ADDR=" + r.srv.Addr)
	const pause = "/bin/sleep"
	start := func() *exec.Cmd {
		cmd := exec.Command(bin, "--", pause, "60")
		cmd.Env, cmd.Dir = r.env, r.dir
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Error(err)
			return nil
		}
		return cmd
	}
	comm := func(pid int) string {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return strings.TrimSpace(string(b))
	}
	// How long until the exec, on this machine and under its present load.
	var first []time.Duration
	for range 9 {
		begin := time.Now()
		cmd := start()
		for comm(cmd.Process.Pid) != "sleep" {
			if time.Since(begin) > 30*time.Second {
				t.Fatal("it does not start")
			}
		}
		first = append(first, time.Since(begin))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	slices.Sort(first)
	typical := atomic.Int64{}
	typical.Store(int64(first[len(first)/2]))

	var before, after, lost atomic.Int64
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				cmd := start()
				if cmd == nil {
					return
				}
				// The aim follows the machine: half of the signals before the exec, half after it.
				aim := float64(typical.Load())
				time.Sleep(time.Duration(aim * (0.7 + 0.6*rand.Float64())))
				if comm(cmd.Process.Pid) == "sleep" {
					after.Add(1)
					typical.Store(int64(aim * 0.98))
				} else {
					before.Add(1)
					typical.Store(int64(aim * 1.02))
				}
				if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
					t.Errorf("cannot send the signal: %v", err)
				}
				ended := make(chan string, 1)
				go func() {
					_ = cmd.Wait()
					ended <- vaulttest.Ending(cmd.ProcessState)
				}()
				select {
				case how := <-ended:
					if how != "signal TERM" {
						t.Errorf("it ended with %s", how)
					}
				case <-time.After(20 * time.Second):
					lost.Add(1)
					t.Logf("lost; the process is %s, in state %s", comm(cmd.Process.Pid), procState(cmd.Process.Pid))
					_ = cmd.Process.Kill()
					<-ended
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d before the exec, %d after it; it took %v", before.Load(), after.Load(), time.Duration(typical.Load()))
	if lost.Load() > 0 {
		t.Errorf("%d of %d were lost", lost.Load(), n)
	}
	if min(before.Load(), after.Load()) < int64(n/10) {
		t.Errorf("badly aimed: %d before the exec, %d after it", before.Load(), after.Load())
	}
}

// TestNotDumpable: from its first statement on vaultexec cannot be read by its own user; the command has its own state, and
// --dumpable leaves it open.
func TestNotDumpable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cred, bin := asNobody(t, r.bin)
	uid := os.Getuid()
	if cred != nil {
		uid = int(cred.Uid)
	}
	begin := func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Env, cmd.Dir = r.env, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	owner := func(pid int) int {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", pid), &st); err != nil {
			return -1
		}
		return int(st.Uid)
	}
	readable := func(pid int) bool { // by its own user
		cmd := exec.Command("cat", fmt.Sprintf("/proc/%d/environ", pid))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		out, err := cmd.Output()
		return err == nil && bytes.Contains(out, []byte("VAULT_ADDR="))
	}
	r.proxy.Set(vaulttest.BlackHole)
	cmd := begin("--", "sleep", "60")
	r.proxy.WaitRequests(t, 1)
	if o := owner(cmd.Process.Pid); o != 0 || readable(cmd.Process.Pid) {
		t.Errorf("vaultexec's environment belongs to %d and is readable by its own user: %v", o, readable(cmd.Process.Pid))
	}
	cmd = begin("--dumpable", "--", "sleep", "60")
	r.proxy.WaitRequests(t, 2)
	if o := owner(cmd.Process.Pid); o != uid || !readable(cmd.Process.Pid) {
		t.Errorf("with --dumpable it belongs to %d and is readable: %v", o, readable(cmd.Process.Pid))
	}
	r.proxy.Clear()
	cmd = begin("--", "sleep", "60")
	wait.Until(t, 30*time.Second, "the command to be its own user's", func() bool {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)) // before vaultexec's first statement it is its user's, too
		return string(comm) == "sleep\n" && owner(cmd.Process.Pid) == uid
	})
	if !readable(cmd.Process.Pid) {
		t.Error("the command is not readable by its own user")
	}
}
