package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Of 400 orphans, half of which end later, no zombie is left after a second, and the status of the command is not lost.
func TestOrphans(t *testing.T) {
	t.Parallel()
	check := func(t T, argv []string) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatalf("%v", err)
		}
		p := start(t, argv, func(c *exec.Cmd) { c.Stdin = r })
		_ = r.Close()
		defer w.Close()
		p.out.await(1)
		var made time.Time
		// All have ended, that is: none is alive. They are found by their session.
		until(t, "the orphans to end", func() bool {
			for _, m := range ptytest.All() {
				if m.Session == p.pid && m.State != "Z" && (m.Name == "sleep" || m.Name == "true") {
					return false
				}
			}
			return true
		})
		made = time.Now()
		left := 0
		wait.For(min(time.Second, t.Limit()), func() bool {
			left = 0
			for _, m := range ptytest.All() {
				if m.Session == p.pid && m.State == "Z" {
					left++
				}
			}
			return left == 0
		})
		if left > 0 {
			t.Fatalf("%d zombies after %v", left, time.Since(made))
		}
		_, _ = io.WriteString(w, "end\n")
		p.wantEnd("77")
		if s := p.err.String(); s != "" {
			t.Fatalf("it says %q", s)
		}
	}
	t.Run("subreaper", func(t *testing.T) {
		t.Parallel()
		check(actual{t}, supervise(t).cmd(probe(t), "orphans", "200", "77"))
	})
	needsNamespaces(t)
	t.Run("PID 1", func(t *testing.T) {
		t.Parallel()
		check(actual{t}, asPID1(vaultexec(t).cmd(probe(t), "orphans", "200", "77")...))
	})
	mustFail(t, "naive PID 1", func(c T) {
		check(c, asPID1(naive(c).cmd(probe(c), "orphans", "200", "77")...))
	})
}

// In supervise mode orphans become vaultexec's, not only as PID 1; in replace mode the command must not inherit that.
func TestSubreaper(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		p := start(t, v.cmd("sh", "-c", "(setsid sleep 77 &); sleep 78"))
		parent, orphan := 0, 0
		t.Cleanup(func() { kill(orphan) })
		until(t, "an orphan that has a parent again", func() bool {
			for _, m := range ptytest.All() {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.PID))
				if m.Name == "sleep" && m.PID == m.Session && strings.Contains(string(b), p.cmd.Env[1]+"\x00") {
					orphan, parent = m.PID, m.Parent
				}
			}
			return parent == p.pid
		})
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
	mustFail(t, "replace", func(t T) { check(t, vaultexec(t)) })
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
}

// A thousand orphans that end at once while the command ends: its status is not mixed up.
func TestStatusAmongOrphans(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	for name, argv := range map[string][]string{"subreaper": supervise(t), "PID 1": asPID1(vaultexec(t)...)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 3 {
				p := start(actual{t}, append(append([]string{}, argv...), "sh", "-c", "i=0; while [ $i -lt 300 ]; do (true &); i=$((i+1)); done; exit 37"))
				p.wantEnd("37")
			}
		})
	}
}

// Being PID 1 alone chooses supervise mode, --replace the plain exec all the same.
func TestModeAsPID1(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	for _, c := range []struct{ option, want string }{{"", "vaultexec"}, {"--replace", "cat"}, {"--init", "vaultexec"}} {
		var options []string
		if c.option != "" {
			options = []string{c.option}
		}
		p := start(actual{t}, asPID1(vaultexec(t, options...).cmd("cat", "/proc/1/comm")...))
		p.wantEnd("0")
		if got := p.out.all(); len(got) != 1 || got[0] != c.want {
			t.Errorf("with %q process 1 is %v, want %s", c.option, got, c.want)
		}
	}
}

// As PID 1 SIGTERM reaches the command, which the kernel would have kept from it, and kill -9 from outside ends all of it.
func TestStopPID1(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	check := func(t T, argv []string) {
		p := start(t, argv)
		var inner int
		until(t, "sleep to run", func() bool {
			inner = 0
			for _, m := range ptytest.All() {
				if m.Session == p.pid && m.Name == "sleep" {
					inner = m.PID
				}
			}
			return inner != 0
		})
		first := childAny(t, p.pid)
		if err := send(first, unix.SIGTERM); err != nil {
			t.Fatalf("%v", err)
		}
		p.wantEnd("143")
	}
	t.Run("supervise", func(t *testing.T) { check(actual{t}, asPID1(vaultexec(t).cmd("sleep", "77")...)) })
	mustFail(t, "replace", func(t T) { check(t, asPID1(vaultexec(t, "--replace").cmd("sleep", "77")...)) })
}

// childAny returns the one child of pid.
func childAny(t T, pid int) int {
	t.Helper()
	for _, m := range ptytest.All() {
		if m.Parent == pid {
			return m.PID
		}
	}
	t.Fatalf("%d has no child", pid)
	return 0
}

// vaultexec ends with the command even if somebody in another session keeps its output open.
func TestOutputKeptOpen(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		begun := time.Now()
		cmd := exec.Command(v[0], v.cmd("sh", "-c", "setsid sleep 5 & exit 3")[1:]...)
		cmd.Env = environ(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer r.Close()
		cmd.Stdout, cmd.Stderr = w, w
		_ = cmd.Run()
		_ = w.Close()
		if got := ending(cmd.ProcessState); got != "3" {
			t.Fatalf("ended with %s", got)
		}
		if d := time.Since(begun); d > 4*time.Second {
			t.Fatalf("ended after %v", d)
		}
	}
	check(actual{t}, supervise(t))
}

// Costs of the waiting parent, of the release's build. Memory, and no wake-up of its own; without a Vault and with one
// that is looked at, in the clear, over TLS with a CA of one's own, and with all the CAs of the system.
func TestCost(t *testing.T) {
	t.Parallel()
	release := vaulttest.BuildStatic(t, ".")
	const mib = 1 << 10 // of what the kernel tells in KiB
	measure := func(t *testing.T, v launcher, rssMax, anonMax int, env ...string) int {
		p := start(actual{t}, v.cmd("sleep", "77"), func(c *exec.Cmd) { c.Env = append(c.Env, env...) })
		childOf(actual{t}, p.pid)
		rss, anon := 0, 0
		fits := func() bool {
			rss, anon = statusField(t, p.pid, "VmRSS"), statusField(t, p.pid, "RssAnon")
			return rss <= rssMax && anon <= anonMax
		}
		// The collector gives its memory back in the background, and a second after the start what is free is cleared once
		// (launcher/forget.go): it has to stay small, not to be so at once.
		since := time.Now()
		stays := func() bool {
			if !fits() {
				since = time.Now()
			}
			return time.Since(since) > 3*time.Second
		}
		if !wait.For(20*time.Second, stays) {
			t.Errorf("%d KiB resident, %d KiB of it anonymous; at most %d and %d promised\n%s", rss, anon, rssMax, anonMax, p.err)
		}
		t.Logf("resident %d KiB, anonymous %d KiB, %d threads", rss, anon, statusField(t, p.pid, "Threads"))
		return p.pid
	}
	t.Run("no Vault", func(t *testing.T) {
		t.Parallel()
		pid := measure(t, launcher{release, "--supervise", "--"}, 12*mib, 4*mib)
		// Context switches of all threads. The Go runtime has one burst a minute of its own; two windows cannot both have it.
		quiet := func() int {
			before := switches(t, pid)
			end := time.NewTimer(3 * time.Second)
			<-end.C
			return switches(t, pid) - before
		}
		n := quiet()
		if n > 0 {
			n = min(n, quiet())
		}
		if n > 0 {
			t.Errorf("%d context switches in three idle seconds", n)
		}
	})
	t.Run("Vault", func(t *testing.T) {
		t.Parallel()
		srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true})
		srv.Init(t, 1, 1)
		srv.Unseal(t)
		scope := srv.Scope(t)
		mount := scope.Mount(2)
		srv.PutKV(t, mount, "app-prod", map[string]any{"KEY": vaulttest.Canary("KEY")})
		token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{scope.ReadPolicy(mount, "app-prod")}, NoDefault: true})
		proxy := vaulttest.NewProxy(t, srv)
		ca, err := os.ReadFile(srv.CACert)
		if err != nil {
			t.Fatal(err)
		}
		system, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
		if err != nil {
			needs.Missing(t, "the system's CA certificates")
		}
		bundle := filepath.Join(t.TempDir(), "bundle.pem")
		if err := os.WriteFile(bundle, append(system, ca...), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			rss, anon int
			env       []string
		}{
			"http":       {12 * mib, 4 * mib, []string{"VAULT_ADDR=" + proxy.Addr}},
			"own CA":     {12 * mib, 4 * mib, []string{"VAULT_ADDR=" + srv.Addr, "VAULT_CACERT=" + srv.CACert}},
			"system CAs": {14 * mib, 5 * mib, []string{"VAULT_ADDR=" + srv.Addr, "SSL_CERT_FILE=" + bundle}},
		} {
			for _, options := range [][]string{{"--supervise"}, {"--watch", "--interval", "500ms"}} {
				t.Run(name+" "+options[0], func(t *testing.T) {
					t.Parallel()
					v := append(launcher{release, "--mount", mount, "--path", "app-prod"}, options...)
					measure(t, append(v, "--"), c.rss, c.anon, append(c.env, "VAULT_TOKEN="+token)...)
				})
			}
		}
	})
}

// statusField reads a number from /proc/PID/status.
func statusField(t *testing.T, pid int, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, pid)
	return 0
}

func switches(t *testing.T, pid int) int {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if name, rest, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "ctxt_switches") {
				k, _ := strconv.Atoi(strings.TrimSpace(rest))
				n += k
			}
		}
	}
	return n
}

// Orphans are reaped while Vault is waited for, and the end of a token helper is told all the same.
func TestOrphansBeforeTheCommand(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	check := func(t T, option string) {
		v := vaultexec(t, option, "--address", "http://127.0.0.1:1", "--path", "x", "--wait", "forever").cmd("true")
		// The children of the shell that becomes vaultexec are vaultexec's then.
		p := start(t, asPID1(append([]string{"sh", "-c", `for i in 1 2 3; do sleep 0.1 & done; exec "$@"`, "sh"}, v...)...), func(c *exec.Cmd) {
			c.Env = append(c.Env, "VAULT_TOKEN=x")
		})
		until(t, "vaultexec to wait", func() bool { return strings.Contains(p.err.String(), "waiting for Vault") })
		until(t, "no process but vaultexec and unshare", func() bool {
			n := 0
			for _, m := range ptytest.All() {
				if m.Session == p.pid {
					n++
				}
			}
			return n == 2
		})
	}
	for _, option := range []string{"--supervise", "--replace"} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			check(actual{t}, option)
		})
	}
	t.Run("token helper", func(t *testing.T) {
		t.Parallel()
		home := t.TempDir()
		helper := filepath.Join(home, "helper")
		// It writes what looks like a token, and fails.
		for file, text := range map[string]string{helper: "#!/bin/sh\necho not.a.token\nexit 3\n", filepath.Join(home, ".vault"): fmt.Sprintf("token_helper = %q\n", helper)} {
			if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			v := vaultexec(t, "--address", "http://127.0.0.1:1", "--path", "x", "--wait", "0").cmd("true")
			p := start(actual{t}, asPID1(v...), func(c *exec.Cmd) { c.Env = append(c.Env, "HOME="+home) })
			p.wantEnd("125")
			p.wantSays("it ended with exit status 3")
		}
	})
}

// As PID 1 everything that is left when the command has ended is told to end and has time for it, in every session; the kernel
// would kill it.
func TestEverythingEndsWithPID1(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	const left = `trap 'sleep 0.2; echo cleaned; exit' TERM; echo ready >>"$0"; while :; do sleep 0.02; done`
	check := func(t T, v launcher) {
		log := newLines(t)
		p := start(t, asPID1(v.cmd("sh", "-c", `setsid sh -c "$1" "$0" & until [ -s "$0" ]; do sleep 0.02; done; exit 3`, log.path(), left)...))
		p.wantEnd("3")
		if got := p.out.String(); got != "cleaned\n" {
			t.Fatalf("what was left says %q", got)
		}
	}
	t.Run("PID 1", func(t *testing.T) { t.Parallel(); check(actual{t}, vaultexec(t)) })
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
	t.Run("what does not end is named", func(t *testing.T) {
		t.Parallel()
		log := newLines(actual{t})
		p := start(actual{t}, asPID1(vaultexec(t).cmd("sh", "-c", `setsid "$1" signals "$0" & until [ -s "$0" ]; do sleep 0.02; done; exit 3`, log.path(), probe(t))...))
		p.wantEnd("3")
		p.wantSays("did not stop in time, it gets SIGKILL", "probe (")
	})
}

// What a stopped command leaves in another session lives on with its secrets, and is named with the port that it holds: once, and
// only when another command follows.
func TestSurvivorsAreNamed(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	log, held := newLines(actual{t}), newLines(actual{t})
	port := freePort(actual{t})
	p := start(actual{t}, w.launcher.cmd("sh", "-c", `[ "$GENERATION" != 1 ] || { setsid "$1" listen "127.0.0.1:$3" "$2" & }; echo $GENERATION >>"$0"; exec sleep 77`,
		log.path(), probe(t), held.path(), port), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	t.Cleanup(func() {
		for _, m := range ptytest.All() {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.PID))
			if m.Name == "probe" && strings.Contains(string(b), p.cmd.Env[1]+"\x00") {
				kill(m.PID)
			}
		}
	})
	held.await(1)
	for i := 2; i <= 3; i++ {
		w.change(t, i)
		w.refresh(t, p.pid)
		log.await(i)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
	p.wantSays("lives on in another session", "process=probe", "listens="+port)
	if n := strings.Count(p.err.String(), "listens="); n != 2 { // the probe and its helper
		t.Errorf("%d processes are named, want 2:\n%s", n, p.err)
	}
}
