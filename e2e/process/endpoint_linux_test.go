package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/statusserver"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The tests of --status that need no Vault, or look at processes, sockets and memory.

// page asks a run with --status at a unix socket or a TCP address.
type page struct {
	t       *testing.T
	network string
	address string
	client  *http.Client
}

func pageOf(t *testing.T, network, address string) *page {
	return &page{t: t, network: network, address: address, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}}
}

// get returns a status, 0 for none, and a text.
func (g *page) get(path string) (int, string) {
	resp, err := g.client.Get("http://localhost" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || vaulttest.Redact(string(b)) != string(b) {
		g.t.Errorf("%s: %v %s", path, err, vaulttest.Redact(string(b)))
	}
	return resp.StatusCode, string(b)
}

// until waits for an answer.
func (g *page) until(path string, code int, text string) {
	g.t.Helper()
	var got int
	var last string
	until(actual{g.t}, fmt.Sprintf("%d %q of %s", code, text, path), func() bool {
		got, last = g.get(path)
		return got == code && strings.Contains(last, text)
	})
}

func (g *page) snapshot() (s statusserver.Snapshot) {
	if code, text := g.get("/status"); code != 200 || json.Unmarshal([]byte(text), &s) != nil {
		g.t.Fatalf("%d %s", code, text)
	}
	return s
}

// Neither the command nor a hook has the socket. A stale file is replaced, the file is its owner's, and gone at the end.
func TestStatusIsForNobodyElse(t *testing.T) {
	t.Parallel()
	at := actual{t}
	dir := t.TempDir()
	hook, seen := filepath.Join(dir, "hook"), filepath.Join(dir, "seen")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nls -l /proc/self/fd >>"+seen+"-hook\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for kind, held := range map[string][]string{"none": nil, "control": {"--listen", "127.0.0.1:" + freePort(at)}} {
		path := filepath.Join(dir, kind)
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()
		w := newWatched(t, append(held, "--status", "unix:"+path, "--on-change-hook", hook)...)
		out := seen + "-" + kind
		p := start(at, w.launcher.cmd("/bin/sh", "-c", "ls -l /proc/self/fd >>"+out+"; echo $GENERATION >>"+out+"; exec sleep 100000"),
			func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
		g := pageOf(t, "unix", path)
		g.until("/readyz", 200, "ok")
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600|os.ModeSocket {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		w.change(t, 2)
		w.refresh(t, p.pid)
		g.until("/metrics", 200, "vaultexec_command_restarts_total{reason=\"change\"} 1\n")
		until(at, "the second command", func() bool { b, _ := os.ReadFile(out); return strings.Contains(string(b), "\n2\n") })
		b, _ := os.ReadFile(out)
		if has := strings.Contains(string(b), "socket:"); has != (held != nil) {
			t.Errorf("%s: the command has\n%s", kind, b)
		}
		if b, err := os.ReadFile(seen + "-hook"); err != nil || strings.Contains(string(b), "socket:") {
			t.Errorf("the hook has\n%s%v", b, err)
		}
		second := start(at, supervise(t, "--status", "unix:"+path).cmd("true"))
		second.wantEnd("125")
		second.wantSays("cannot listen on unix:" + path + ": the address is in use")
		p.signal(unix.SIGTERM)
		p.wantEnd("signal TERM")
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left behind")
		}
	}
}

// However a run ends, the file goes; and while the command takes its time, it is not ready, and vaultexec lives.
func TestStatusAtTheEnd(t *testing.T) {
	t.Parallel()
	at := actual{t}
	path := filepath.Join(t.TempDir(), "s")
	g := pageOf(t, "unix", path)
	for script, want := range map[string]string{"exit 7": "7", "kill -KILL $$": "signal KILL", "exec /nonexistent": "127"} {
		p := start(at, supervise(t, "--status", "unix:"+path).cmd("/bin/sh", "-c", script))
		p.wantEnd(want)
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: the socket is left behind", script)
		}
	}
	p := start(at, supervise(t, "--status", "unix:"+path).cmd("/bin/sh", "-c", `trap 'echo told' TERM; echo begun; while :; do sleep 0.1; done`))
	p.out.await(1)
	g.until("/readyz", 200, "ok")
	p.signal(unix.SIGTERM)
	p.out.await(2)
	g.until("/readyz", 503, "the command is ending")
	g.until("/livez", 200, "ok")
	if s := g.snapshot(); s.Phase != statusserver.Ending || s.Command.Ready || s.Command.PID == 0 {
		t.Errorf("%+v", s)
	}
	kill(g.snapshot().Command.PID)
	p.wantEnd("signal KILL")
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is left behind")
	}
}

// An address beyond this machine draws one warning.
func TestStatusWarns(t *testing.T) {
	t.Parallel()
	at := actual{t}
	for address, warns := range map[string]bool{":": true, "0.0.0.0:": true, "[::]:": true, "127.0.0.1:": false, "localhost:": false, "[::1]:": false, "127.1.2.3:": false} {
		for _, allow := range []bool{false, true} {
			options := []string{"--status", address + freePort(at)}
			if allow {
				options = append(options, "--allow-http")
			}
			p := start(at, supervise(t, options...).cmd("true"))
			p.wantEnd("0")
			if n := strings.Count(p.err.String(), "over the network can read"); n != 0 != (warns && !allow) || n > 1 {
				t.Errorf("%s, %v: %s", address, allow, p.err)
			}
		}
	}
}

// While Vault is waited for, vaultexec lives and nothing is ready.
func TestStatusBeforeVault(t *testing.T) {
	t.Parallel()
	at := actual{t}
	path := filepath.Join(t.TempDir(), "s")
	p := start(at, vaultexec(t, "--path", "app", "--status", "unix:"+path, "--wait", "forever", "--address", "http://127.0.0.1:1", "--allow-http").cmd("sleep", "100000"),
		func(c *exec.Cmd) { c.Env = append(c.Env, "VAULT_TOKEN=none") })
	g := pageOf(t, "unix", path)
	g.until("/livez", 200, "ok")
	g.until("/readyz", 503, "waiting for Vault: connection refused (http://127.0.0.1:1)")
	if s := g.snapshot(); s.Phase != statusserver.Starting || s.Command.PID != 0 || s.Command.Name != "sleep" {
		t.Errorf("%+v", s)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is left behind")
	}
}

// --ready counts without systemd, too, and for longer than --ready-timeout.
func TestStatusWaitsForReady(t *testing.T) {
	t.Parallel()
	at := actual{t}
	dir := t.TempDir()
	program := filepath.Join(dir, "ready")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntest -e "+dir+"/is\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := start(at, supervise(t, "--status", "unix:"+dir+"/s", "--ready", "exec:"+program, "--ready-timeout", "1500ms").cmd("sleep", "100000"))
	g := pageOf(t, "unix", dir+"/s")
	g.until("/readyz", 503, "the command is not ready yet")
	p.err.await(1)
	p.wantSays("the command does not count as ready: the command is not ready after ")
	g.until("/readyz", 503, "the command is not ready yet")
	if err := os.WriteFile(dir+"/is", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.until("/readyz", 200, "ok")
	if n := len(p.err.all()); n > 2 {
		t.Errorf("it says so again and again:\n%s", p.err)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// In handovers the command that serves counts: /readyz never fails, and each is counted.
func TestStatusOfHandovers(t *testing.T) {
	t.Parallel()
	at := actual{t}
	dir := t.TempDir()
	path, ready, is := filepath.Join(dir, "s"), filepath.Join(dir, "ready"), filepath.Join(dir, "is")
	if err := os.WriteFile(ready, []byte("#!/bin/sh\ntest -e "+is+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	may := func() { file(t, dir, "is", "") }
	may()
	w := newWatched(t, startFirst("--ready", "exec:"+ready, "--status", "unix:"+path)...)
	p := start(at, w.launcher.cmd("sleep", "100000"), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	g := pageOf(t, "unix", path)
	g.until("/readyz", 200, "ok")
	stop := make(chan struct{})
	var probes sync.WaitGroup
	probes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if code, text := g.get("/readyz"); code != 200 {
				t.Errorf("in a handover: %d %s", code, text)
				return
			}
		}
	})
	for i := 1; i <= 2; i++ {
		before := g.snapshot().Command.PID
		if err := os.Remove(is); err != nil {
			t.Fatal(err)
		}
		w.change(t, i+1)
		w.refresh(t, p.pid)
		until(at, "a new command beside the old one", func() bool { return g.snapshot().Next != nil })
		if s := g.snapshot(); s.Next != nil && (s.Command.PID != before || s.Change == nil || s.Change.State != "handover" || s.Next.PID == before) {
			t.Errorf("%+v, next %+v, change %+v", s.Command, s.Next, s.Change)
		}
		may()
		g.until("/metrics", 200, fmt.Sprintf("vaultexec_handover_seconds_count %d\n", i))
		g.until("/metrics", 200, fmt.Sprintf("vaultexec_command_restarts_total{reason=\"change\"} %d\n", i))
		g.until("/metrics", 200, fmt.Sprintf("vaultexec_secret_version{path=\"%s/app-prod\"} %d\n", w.mount, i+1))
		until(at, "one command alone", func() bool { s := g.snapshot(); return s.Change == nil && s.Command.PID != before })
	}
	close(stop)
	probes.Wait()
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// A new command that is not ready in time is given up, and nobody says that it is being started while it takes its time to end.
func TestStatusOfAHandoverGivenUp(t *testing.T) {
	t.Parallel()
	at := actual{t}
	dir := t.TempDir()
	path, check, ok := filepath.Join(dir, "s"), filepath.Join(dir, "check"), filepath.Join(dir, "ok")
	if err := errors.Join(os.WriteFile(check, []byte("#!/bin/sh\nexec test -e "+ok+"\n"), 0o700), os.WriteFile(ok, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w := newWatched(t, startFirst("--ready", "exec:"+check, "--ready-timeout", "2s", "--status", "unix:"+path)...)
	p := start(at, w.launcher.cmd("/bin/sh", "-c", `[ $GENERATION = 1 ] || trap "" TERM; while :; do sleep 0.1; done`),
		func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	g := pageOf(t, "unix", path)
	g.until("/readyz", 200, "ok")
	if err := os.Remove(ok); err != nil {
		t.Fatal(err)
	}
	w.change(t, 2)
	w.refresh(t, p.pid)
	until(at, "a new command beside the old one", func() bool { return g.snapshot().Next != nil })
	next := g.snapshot().Next
	until(at, "the end of its time", func() bool { return g.snapshot().Command.Rollbacks == 1 })
	if s := g.snapshot(); s.Next != nil || s.Change == nil || s.Change.State != "handover" || !strings.HasPrefix(s.Change.Text, "the new command is given up") || !s.Command.Ready {
		t.Errorf("%+v, next %+v, change %+v", s.Command, s.Next, s.Change)
	}
	if next != nil {
		kill(next.PID)
	}
	until(at, "one command alone", func() bool { return g.snapshot().Change == nil })
	if s := g.snapshot(); s.Command.Restarts != 0 || s.Command.LastExit == nil || s.Command.LastExit.Status != "killed by SIGKILL" {
		t.Errorf("%+v", s.Command)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// Where descriptors are few, connections that nobody uses leave enough of them: the command is restarted at once.
func TestStatusLeavesDescriptors(t *testing.T) {
	t.Parallel()
	at := actual{t}
	port := freePort(at)
	w := newWatched(t, "--status", "127.0.0.1:"+port)
	p := start(at, w.launcher.cmd("sleep", "100000"), func(c *exec.Cmd) {
		c.Env = append(c.Env, w.env...)
		c.Args = append([]string{"prlimit", "--nofile=40", c.Path}, c.Args[1:]...)
		c.Path = needs.Program(t, "prlimit")
	})
	g := pageOf(t, "tcp", "127.0.0.1:"+port)
	g.until("/readyz", 200, "ok")
	for range 60 {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	w.change(t, 2)
	w.refresh(t, p.pid)
	started := func() bool { s := g.snapshot(); return s.Command.Restarts == 1 && s.Command.PID != 0 }
	until(at, "the next command", started)
	s := g.snapshot()
	if took := s.Command.Started.Sub(s.Command.LastExit.At.Time); took > 3*time.Second {
		t.Errorf("the next command was started %v after the end of the first", took)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// Thousands of connections that read slowly, stay half open or send a megabyte of headers cost vaultexec little memory, and
// the command nothing. A signal arrives meanwhile, and so does a probe.
func TestStatusStorm(t *testing.T) {
	t.Parallel()
	at := actual{t}
	n := 3000
	if soak {
		n = 10000
	}
	port := freePort(at)
	p := start(at, supervise(t, "--status", "127.0.0.1:"+port).cmd("/bin/sh", "-c", `trap 'echo signalled' USR1; echo begun; while :; do sleep 0.05; done`))
	p.out.await(1)
	g := pageOf(t, "tcp", "127.0.0.1:"+port)
	g.until("/readyz", 200, "ok")
	pid := g.snapshot().Command.PID
	if !vaulttest.Race { // a second after its start a parent gives back what that took (TestCost)
		since := time.Now()
		until(at, "a parent that waits", func() bool {
			if statusField(t, p.pid, "VmRSS") > 10<<10 {
				since = time.Now()
			}
			return time.Since(since) > 2*time.Second
		})
	}
	var sent atomic.Int64
	var all sync.WaitGroup
	long := "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"
	for worker := range 100 {
		all.Go(func() {
			var kept []net.Conn
			defer func() {
				for _, c := range kept {
					c.Close()
				}
			}()
			for i := worker; i < n; i += 100 {
				c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 30*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				switch i / 100 % 4 {
				case 0: // half open
					_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: loc")
				case 1: // reads nothing of what it asks for
					_, _ = io.WriteString(c, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 50))
				case 2:
					_, _ = io.WriteString(c, long)
				case 3:
					_, _ = io.WriteString(c, "GET /status HTTP/1.0\r\n\r\n")
				}
				sent.Add(1)
				if kept = append(kept, c); len(kept) > 5 {
					kept[0].Close()
					kept = kept[1:]
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	most, anon, probed := 0, 0, 0
	for busy := true; busy; {
		select {
		case <-over:
			busy = false
		default:
		}
		if rss := statusField(t, p.pid, "VmRSS"); rss > most {
			most, anon = rss, statusField(t, p.pid, "RssAnon")
		}
		if code, _ := g.get("/livez"); code == 200 {
			probed++
		}
		if sent.Load() > int64(n/2) && len(p.out.all()) == 1 {
			p.signal(unix.SIGUSR1)
			p.out.await(2)
		}
	}
	if sent.Load() != int64(n) || probed == 0 {
		t.Errorf("%d of %d sent, %d probes were answered", sent.Load(), n, probed)
	}
	t.Logf("VmRSS %d kB at most, %d kB of it anonymous, %d probes", most, anon, probed)
	if most > 20<<10 && !vaulttest.Race {
		t.Errorf("VmRSS %d kB, at most 20 MB", most)
	}
	g.until("/livez", 200, "ok")
	g.until("/readyz", 200, "ok")
	if s := g.snapshot(); s.Command.PID != pid || s.Command.Restarts != 0 || len(p.out.all()) != 2 {
		t.Errorf("%+v\n%s", s, p.out)
	}
	if left, err := os.ReadDir("/proc/" + strconv.Itoa(p.pid) + "/fd"); err != nil || len(left) > 64+40 {
		t.Errorf("%d descriptors, %v", len(left), err)
	}
	kill(pid)
	p.wantEnd("signal KILL")
}

// On a terminal vaultexec ps --follow draws the screen anew each second, until Ctrl-C.
func TestPSFollowsOnTerminal(t *testing.T) {
	t.Parallel()
	at := actual{t}
	path := filepath.Join(t.TempDir(), "s")
	p := start(at, supervise(t, "--status", "unix:"+path).cmd("sleep", "100000"))
	pageOf(t, "unix", path).until("/readyz", 200, "ok")
	term := ptytest.Open(t, at.Limit(), environ(at), vaulttest.Build(t, "."), "ps", "--follow", "unix:"+path)
	until(at, "three screens", func() bool { return strings.Count(term.Output(), "\x1b[H\x1b[2Jsleep, pid ") >= 3 })
	term.Type("\x03")
	if state := term.Ended(); ending(state) != "signal INT" {
		t.Errorf("it ended with %s\n%s", ending(state), term.Output())
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}
