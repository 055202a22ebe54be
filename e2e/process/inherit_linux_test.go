package process

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// report prints all that a process inherits, as far as it is promised to pass on unchanged, in lines to compare.
const report = `
echo "argv $(tr '\0' ' ' </proc/$$/cmdline | cut -c 1-20)"
echo "folder $(pwd -P)"
echo "umask $(umask)"
echo "nice $(nice)"
ulimit -S -a
ulimit -H -a
cat /proc/$$/oom_score_adj
grep -E '^(SigIgn|Cap...|NoNewPrivs|Groups):' /proc/$$/status
tr '\0' '\n' </proc/$$/environ
for fd in /proc/$$/fd/*; do echo "descriptor ${fd##*/} $(readlink "$fd") $(grep ^flags /proc/$$/fdinfo/${fd##*/})"; done
`

// setup makes an unusual state and becomes what its arguments say.
const setup = `
umask 027
ulimit -S -n 777
ulimit -S -c 0
ulimit -S -s 4096
mkdir -p gone/away && cd gone/away && rmdir "$PWD"
trap '' HUP INT TSTP TTIN TTOU
exec 3<"$FILE" 9>>"$FILE.9" 7<&- </dev/null
if [ -n "$BASH_VERSION" ]; then exec 200<"$FILE" 4<"$FILE"; fi
exec "$@"
`

var pipeName = regexp.MustCompile(`pipe:\[\d+\]`)

// All that a process inherits passes on unchanged, in both modes: the report is that of a run without vaultexec.
func TestInherited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	run := func(t T, v launcher) []string {
		argv := append([]string{"nice", "-n", "5", "bash", "-c", setup, "bash"}, v.cmd("sh", "-c", report)...)
		out, err := os.Create(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer out.Close()
		p := start(t, argv, func(c *exec.Cmd) {
			c.Dir = home
			c.Stdout, c.Stderr = out, out
			c.Env = append(environ(t)[:1], "HOME="+home, "FILE="+file, "BASH_FUNC_x%%=() {  echo x\n}", "LATIN=\xe4\xff", "EMPTY=", "NAME-WITH.ODD=1",
				"VAULT_ADDR=http://127.0.0.1:1", "LISTEN_PID=1", "GOGC=50", "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0")
		})
		p.wantEnd("0")
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatalf("%v", err)
		}
		return strings.Split(pipeName.ReplaceAllString(string(b), "pipe"), "\n") // the report itself makes pipes
	}
	plain := run(actual{t}, launcher{"nice", "-n", "0"})
	for _, want := range []string{"umask 0027", "descriptor 200 " + file, "EMPTY=", "LATIN=\xe4\xff"} {
		if !strings.Contains(strings.Join(plain, "\n"), "\n"+want) {
			t.Fatalf("the plain report lacks %q:\n%s", want, strings.Join(plain, "\n"))
		}
	}
	check := func(t T, v launcher) {
		got := run(t, v)
		for i := range max(len(plain), len(got)) {
			if i >= len(plain) || i >= len(got) || plain[i] != got[i] {
				t.Fatalf("line %d differs:\n%s\n--- without a launcher:\n%s", i+1, strings.Join(got, "\n"), strings.Join(plain, "\n"))
			}
		}
	}
	// One after the other: they share the file's descriptors and the folder.
	t.Run("supervise", func(t *testing.T) { check(actual{t}, supervise(t)) })
	t.Run("replace", func(t *testing.T) { check(actual{t}, vaultexec(t)) })
	t.Run("control naive", func(t *testing.T) {
		c := &control{T: t}
		done := make(chan struct{})
		go func() { defer close(done); check(c, naive(c)) }()
		if <-done; c.failed == "" {
			t.Error("the check passes without what it checks")
		}
	})
}

// Standard descriptors are the caller's own, not copies through a pipe, and no other is added.
func TestStandardDescriptors(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		p := start(t, v.cmd("sleep", "77"))
		child := childOf(t, p.pid)
		for fd := range 3 {
			var mine, theirs unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", p.pid, fd), &mine) != nil || unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", child, fd), &theirs) != nil || mine.Ino != theirs.Ino || mine.Dev != theirs.Dev {
				t.Fatalf("descriptor %d is another file", fd)
			}
		}
		plain := start(t, []string{"sleep", "77"}) // whoever runs this test may have left it more than three
		open := func(pid int) string {
			list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			return fmt.Sprint(list)
		}
		until(t, "sleep", func() bool {
			return slices.ContainsFunc(ptytest.All(), func(m ptytest.Process) bool { return m.PID == plain.pid && m.Name == "sleep" })
		})
		// While it starts it opens libraries.
		if !wait.For(5*time.Second, func() bool { return open(child) == open(plain.pid) }) {
			t.Fatalf("the command has descriptors %s, without vaultexec %s", open(child), open(plain.pid))
		}
		p.signal(unix.SIGTERM)
		p.wantEnd("signal TERM")
	}
	check(actual{t}, supervise(t))
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
}

// Socket activation: LISTEN_PID and WATCHDOG_PID name the command, and the socket is its descriptor 3.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		socket := filepath.Join(t.TempDir(), "s")
		p := start(t, append([]string{probe(t), "activate", socket}, v.cmd(probe(t), "activated")...))
		var c net.Conn
		until(t, "the service", func() bool {
			var err error
			c, err = net.Dial("unix", socket)
			return err == nil
		})
		defer c.Close()
		p.wantEnd("0")
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "served\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
	t.Run("replace", func(t *testing.T) { t.Parallel(); check(actual{t}, vaultexec(t)) })
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
	t.Run("foreground", func(t *testing.T) { // a start that fails in the stub is told as any other
		t.Parallel()
		p := start(actual{t}, append([]string{probe(t), "activate", filepath.Join(t.TempDir(), "s")}, supervise(t).cmd("/no/such/program")...))
		p.wantEnd("127")
	})
}

// The stub is seen by nobody: signals reach the command, and its name is its own.
func TestActivatedSignals(t *testing.T) {
	t.Parallel()
	log := newLines(actual{t})
	p := start(actual{t}, append([]string{probe(t), "activate", filepath.Join(t.TempDir(), "s")}, supervise(t).cmd(probe(t), "signals", log.path())...))
	child := log.number("ready")
	for _, m := range ptytest.All() {
		if m.PID == child && (m.Name != "probe" || m.Parent != p.pid) {
			t.Errorf("%+v", m)
		}
	}
	sendAll(actual{t}, p.pid, log, forwardable())
	p.wantEnd("42")
}
