package launcher

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/notify"
	"github.com/agenticverz/vaultexec/internal/wait"
)

const (
	warmLimit = 60 * time.Second // generous: the machine may be busy
	warmGate  = "VAULTEXEC_TEST_WARM_GATE"
)

// warmServer is this test's program as a Go server: it waits at the gate and serves descriptor 3.
func warmServer(gate string) {
	_, _ = os.ReadFile(gate)
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
}

const warmPython = `
import os, select, socket, sys
def gate():
    with open(os.environ["GATE"]) as f:
        f.read()
def serve(status):
    s = socket.socket(fileno=3)
    gate()
    while True:
        select.select([s], [], [])
        c, _ = s.accept()
        try:
            c.recv(4096)
            c.sendall(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError: # a probe that only connects
            pass
        c.close()
if __name__ == "__main__":
    serve(sys.argv[1].encode())

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                gate()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
`

// warmCommand is a command of a group of its own with a socket as descriptor 3, which waits at its gate.
type warmCommand struct {
	t         *testing.T
	pid       int
	gate, log string
}

func runWarm(t *testing.T, s *listen.Socket, argv ...string) *warmCommand {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"app.py": warmPython, "slow.py": "import app\napp.gate()\nwsgi = app.wsgi\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &warmCommand{t: t, gate: filepath.Join(dir, "gate"), log: filepath.Join(dir, "log")}
	if err := unix.Mkfifo(c.gate, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GATE="+c.gate, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{f}, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = unix.Kill(-c.pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	return c
}

// open waits until the command is at the gate, does something, and opens the gate.
func (c *warmCommand) open(meanwhile func()) {
	c.t.Helper()
	var fd int
	if !wait.For(warmLimit, func() (ok bool) {
		var err error
		fd, err = unix.Open(c.gate, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err == nil
	}) {
		c.t.Fatalf("the command never came to its gate\n%s", c.said())
	}
	defer unix.Close(fd)
	meanwhile()
}

func (c *warmCommand) said() string {
	b, _ := os.ReadFile(c.log)
	return string(b)
}

// warmBind binds an address and listens on it.
func warmBind(t *testing.T, spec listen.Spec) *listen.Group {
	t.Helper()
	if spec.Path == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		spec.Host, spec.Port = "127.0.0.1", uint16(l.Addr().(*net.TCPAddr).Port)
		l.Close()
	}
	sockets, err := listen.Bind(context.Background(), []listen.Spec{spec})
	if err != nil {
		t.Fatal(err)
	}
	g := listen.NewGroup(sockets[0])
	t.Cleanup(g.Close)
	if err := g.Listen(); err != nil {
		t.Fatal(err)
	}
	return g
}

// warmPair is an address that one command serves, and a second command at its gate.
func warmPair(t *testing.T, spec listen.Spec, argv ...string) (*listen.Group, *listen.Socket, *warmCommand) {
	t.Helper()
	g := warmBind(t, spec)
	old := runWarm(t, g.Current(), needs.Program(t, "python3"), "app.py", "200")
	old.open(func() {})
	w := newWarming(warmup{want: Ready{By: ReadyHTTP, Path: "/", Timeout: warmLimit}, pid: old.pid, first: true,
		sockets: []warmSocket{{g.Current(), g}}})
	if err := <-w.ready(); err != nil {
		t.Fatalf("the old command: %v\n%s", err, old.said())
	}
	w.end()
	s, err := g.Add()
	if err != nil {
		t.Fatal(err)
	}
	if (g.Shared() != "") != (spec.Path != "") {
		t.Fatalf("shared: %q", g.Shared())
	}
	return g, s, runWarm(t, s, argv...)
}

// asked waits until a probe of the first address was in vain, while the command is not ready.
func (w *warming) asked(t *testing.T) {
	t.Helper()
	wait.Until(t, warmLimit, "a probe in vain", func() bool {
		select {
		case err := <-w.ready():
			t.Fatalf("ready, or not to be known, too early: %v", err)
		default:
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.is.sockets[0].last != ""
	})
}

// A command beside one that serves is ready when it serves itself, and not before: the answers of the old one are not
// taken for its own.
func TestWarmingServers(t *testing.T) {
	t.Parallel()
	gunicorn := []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", "gunicorn", "slow:wsgi"}
	for name, argv := range map[string][]string{
		"select":   {"python3", "app.py", "200"},
		"uvicorn":  {"uvicorn", "--fd", "3", "app:asgi"},
		"gunicorn": gunicorn,
		"node": {"node", "-e", `require("fs").readFileSync(process.env.GATE); ` +
			`require("http").createServer((q, a) => a.end("ok")).listen({fd: 3})`},
		"go": {"sh", "-c", warmGate + `=$GATE exec "$@"`, "sh", "SELF"},
	} {
		for _, way := range []string{"auto", "http:/", "tcp"} {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				if name != "go" {
					needs.Program(t, map[bool]string{true: "gunicorn", false: argv[0]}[name == "gunicorn"])
				}
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				g, s, cmd := warmPair(t, listen.Spec{}, strings.Split(strings.ReplaceAll(strings.Join(argv, "\x00"), "SELF", self), "\x00")...)
				r, err := ParseReady(way)
				if err != nil {
					t.Fatal(err)
				}
				r.Timeout = warmLimit
				w := newWarming(warmup{want: r, pid: cmd.pid, sockets: []warmSocket{{s, g}}})
				defer w.end()
				cmd.open(func() { w.asked(t) })
				if err := <-w.ready(); err != nil {
					t.Errorf("%v\n%s", err, cmd.said())
				}
			})
		}
	}
}

// Where both have one socket, connections prove nothing. What the processes wait for does.
func TestWarmingShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g, s, cmd := warmPair(t, listen.Spec{Path: filepath.Join(dir, "s")}, needs.Program(t, "python3"), "app.py", "200")
	for _, by := range []ReadyBy{ReadyHTTP, ReadyTCP} {
		w := newWarming(warmup{want: Ready{By: by, Path: "/", Timeout: warmLimit}, pid: cmd.pid, sockets: []warmSocket{{s, g}}})
		if err := <-w.ready(); err == nil || !strings.Contains(fault.Of(err).Hint, "--ready-address") {
			t.Errorf("%v", err)
		}
		w.end()
	}
	w := newWarming(warmup{want: Ready{Timeout: warmLimit}, pid: cmd.pid, sockets: []warmSocket{{s, g}}, told: true})
	defer w.end()
	w.heard(notify.Message{Ready: true}) // as gunicorn's master does
	cmd.open(func() {
		if wait.For(time.Second, func() bool { return len(w.out) > 0 }) {
			t.Fatalf("too early: %v", <-w.ready())
		}
	})
	if err := <-w.ready(); err != nil {
		t.Errorf("%v\n%s", err, cmd.said())
	}
}

// An answer that says that the command is not ready is none, for a path that somebody named.
func TestWarmingStatus(t *testing.T) {
	t.Parallel()
	for status, limit := range map[string]time.Duration{"503": 3 * time.Second, "404": 3 * time.Second, "204": warmLimit} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			g, s, cmd := warmPair(t, listen.Spec{}, needs.Program(t, "python3"), "app.py", status)
			cmd.open(func() {})
			// limit is long enough for the answer: the program starts before.
			w := newWarming(warmup{want: Ready{By: ReadyHTTP, Path: "/up", Timeout: limit}, pid: cmd.pid, sockets: []warmSocket{{s, g}}})
			defer w.end()
			err := <-w.ready()
			if status == "204" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), "GET /up at "+s.String()+": status "+status) {
				t.Errorf("%v\n%s", err, cmd.said())
			}
		})
	}
}

// --ready-address is asked in place of the sockets.
func TestWarmingAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, err := ParseReadyAddress(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, by := range []ReadyBy{ReadyTCP, ReadyHTTP} {
		w := newWarming(warmup{want: Ready{By: by, Path: "/x", Timeout: warmLimit, Address: address}, pid: os.Getpid()})
		w.asked(t)
		if l, err = net.Listen("tcp", address.String()); err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(a http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/x" {
				a.WriteHeader(http.StatusNotFound)
			}
		})}
		go func() { _ = server.Serve(l) }()
		if err := <-w.ready(); err != nil {
			t.Error(err)
		}
		w.end()
		server.Close()
	}
}

// What needs no address: a time, the command's own word, a program.
func TestWarmingWords(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	w := newWarming(warmup{want: Ready{By: ReadyAfter, After: 300 * time.Millisecond, Timeout: warmLimit}, pid: os.Getpid()})
	if err := <-w.ready(); err != nil || time.Since(begun) < 300*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	w.end()

	for _, r := range []Ready{{By: ReadyNotify}, {}} {
		r.Timeout = 100 * time.Millisecond
		w = newWarming(warmup{want: r, pid: os.Getpid(), told: true})
		w.heard(notify.Message{Status: "warming", Extend: warmLimit}) // it may take longer than it was given
		if wait.For(300*time.Millisecond, func() bool { return len(w.out) > 0 }) {
			t.Fatalf("%v: too early: %v", r, <-w.ready())
		}
		w.heard(notify.Message{Ready: true})
		if err := <-w.ready(); err != nil {
			t.Error(err)
		}
		w.end()
		w = newWarming(warmup{want: r, pid: os.Getpid(), told: true})
		if err := <-w.ready(); err == nil || !strings.Contains(err.Error(), "no READY=1") {
			t.Errorf("%v", err)
		}
		w.end()
	}

	w = newWarming(warmup{want: Ready{By: ReadyExec, Program: "x", Timeout: warmLimit}, pid: os.Getpid()})
	defer w.end()
	<-w.wantsRun()
	w.notRun(unix.ENOENT) // it may come later
	var status unix.WaitStatus
	for i, script := range []string{"exit 3", `test "$VAULTEXEC_PID" = 42`} {
		<-w.wantsRun()
		program := filepath.Join(t.TempDir(), "ready")
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		run, err := forkReady(program, nil, readyEnv(nil, func(string) bool { return false }, 42))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Wait4(run.pid, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
		run.timer.Stop()
		w.exited(status, false)
		if i == 0 {
			w.mu.Lock()
			if w.is.ran || w.is.last != "exit code 3" {
				t.Errorf("%+v", w.is)
			}
			w.mu.Unlock()
		}
	}
	if err := <-w.ready(); err != nil {
		t.Error(err)
	}
}

// Nothing is left of a warming that has ended, at whatever moment.
func TestWarmingEnds(t *testing.T) {
	g := warmBind(t, listen.Spec{})
	s, err := g.Add()
	if err != nil {
		t.Fatal(err)
	}
	count := func() string {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d descriptors, %d goroutines", len(fds), runtime.NumGoroutine())
	}
	once := func(asks bool) {
		for _, by := range []ReadyBy{ReadyAuto, ReadyHTTP, ReadyTCP, ReadyExec, ReadyAfter} {
			w := newWarming(warmup{want: Ready{By: by, Path: "/", After: time.Hour, Timeout: warmLimit}, pid: os.Getpid(),
				sockets: []warmSocket{{s, g}}})
			if asks && w.want.Asks() {
				wait.Until(t, warmLimit, "a connection", func() bool { n, _ := s.Queued(); return n > 0 })
			}
			w.end()
			w.end()
			if len(w.out) != 0 {
				t.Errorf("%d: %v", by, <-w.out)
			}
		}
	}
	once(true) // what the runtime keeps is there from now on
	before := count()
	for range 5 {
		once(true)
		once(false)
	}
	wait.Until(t, warmLimit, before+" again", func() bool { return count() == before })
	var none *warming
	none.end()
	if none.ready() != nil || none.wantsRun() != nil {
		t.Error("a nil one delivers")
	}
}
