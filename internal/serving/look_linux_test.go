package serving

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// limit is generous: the machine may be busy.
const limit = 60 * time.Second

// The Go server of TestServers is this test's own program.
func TestMain(m *testing.M) {
	if gate := os.Getenv("VAULTEXEC_TEST_GATE"); gate != "" {
		goServer(gate)
		return
	}
	os.Exit(m.Run())
}

// goServer waits at the gate and then serves descriptor 3.
func goServer(gate string) {
	_, _ = os.ReadFile(gate)
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b := make([]byte, 4096)
		_, _ = c.Read(b)
		_, _ = fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		c.Close()
	}
}

const python = `
import os, select, socket, sys
def gate():
    with open(os.environ["GATE"]) as f:
        f.read()
def serve(wait):
    s = socket.socket(fileno=3)
    gate()
    while True:
        wait(s)
        c, _ = s.accept()
        try:
            c.recv(4096)
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError: # a probe that only connects
            pass
        c.close()
def poll(s):
    p = select.poll()
    p.register(0, select.POLLIN)
    p.unregister(0)
    p.register(s, select.POLLIN)
    p.poll()
how = {"accept": lambda s: None, "poll": poll, "select": lambda s: select.select([s], [], [])}
if __name__ == "__main__":
    serve(how[sys.argv[1]])

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

const nodeServer = `require("fs").readFileSync(process.env.GATE); require("http").createServer((q, a) => a.end("ok")).listen({fd: 3})`

// command is a command of a group of its own with the socket as descriptor 3.
type command struct {
	t    *testing.T
	cmd  *exec.Cmd
	gate string
	log  string
}

func run(t *testing.T, s *listen.Socket, dir string, env []string, argv ...string) *command {
	t.Helper()
	c := &command{t: t, gate: filepath.Join(dir, "gate"), log: filepath.Join(dir, "log")}
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
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Dir, c.cmd.Env = dir, append(append(os.Environ(), "GATE="+c.gate, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), env...)
	c.cmd.ExtraFiles, c.cmd.Stdout, c.cmd.Stderr = []*os.File{f}, log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
		_ = c.cmd.Wait()
	})
	return c
}

// open waits until the command is at the gate, does something, and opens the gate.
func (c *command) open(meanwhile func()) {
	c.t.Helper()
	var fd int
	wait.Until(c.t, limit, "the command at its gate", func() bool {
		var err error
		fd, err = unix.Open(c.gate, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err == nil
	})
	meanwhile()
	unix.Close(fd)
}

func (c *command) said() string {
	b, _ := os.ReadFile(c.log)
	return string(b)
}

// A server is seen to serve when it does, and not before: neither while it starts and has the socket, nor when it has
// called listen(2) and has no worker yet.
func TestServers(t *testing.T) {
	program := func(name string, args ...string) func(*testing.T, string) []string {
		return func(t *testing.T, _ string) []string { return append([]string{needs.Program(t, name)}, args...) }
	}
	debianPython := func(args ...string) func(*testing.T, string) []string {
		return program("python3", append([]string{"app.py"}, args...)...)
	}
	gunicorn := func(args ...string) func(*testing.T, string) []string {
		// A worker that loads its application is at the gate.
		return func(t *testing.T, dir string) []string {
			text := "import app\napp.gate()\nwsgi = app.wsgi\n"
			if err := os.WriteFile(filepath.Join(dir, "slow.py"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			// LISTEN_PID has to be its own.
			return append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", needs.Program(t, "gunicorn"), "slow:wsgi"}, args...)
		}
	}
	for _, c := range []struct {
		name string
		argv func(*testing.T, string) []string
		how  How
	}{
		{"accept", debianPython("accept"), Accept},
		{"poll", debianPython("poll"), Poll},
		{"select", debianPython("select"), Select},
		{"uvicorn", program("uvicorn", "--fd", "3", "app:asgi"), Epoll},
		{"gunicorn sync", gunicorn(), Select},
		{"gunicorn gthread", gunicorn("--threads", "2"), Epoll},
		{"node", program("node", "-e", nodeServer), Epoll},
		{"go", func(*testing.T, string) []string {
			return []string{"sh", "-c", `VAULTEXEC_TEST_GATE=$GATE exec "$@"`, "sh", "/proc/self/exe"}
		}, Epoll},
		{"nginx", func(t *testing.T, dir string) []string {
			conf := `daemon off; worker_processes 2; error_log stderr; pid %[1]s/pid; events {}
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
 server { listen PORT; location / { return 200 "ok"; } } }
`
			if os.Getuid() == 0 {
				conf = "user root;\n" + conf
			}
			if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, conf, dir), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"sh", "-c", `sed -i "s/PORT/$ADDRESS/" nginx.conf; cat <"$GATE"; NGINX="3;" exec "$@"`, "sh",
				needs.Program(t, "nginx"), "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr"}
		}, Epoll},
		{"haproxy", func(t *testing.T, dir string) []string {
			conf := "defaults\n mode http\n timeout client 9s\n timeout connect 9s\n timeout server 9s\nfrontend web\n bind fd@3\n http-request return status 200\n"
			if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"sh", "-c", `cat <"$GATE"; exec "$@"`, "sh", needs.Program(t, "haproxy"), "-db", "-f", "haproxy.cfg"}
		}, Epoll},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(python), 0o600); err != nil {
				t.Fatal(err)
			}
			s := socket(t)
			id, err := Identify(s.FD())
			if err != nil {
				t.Fatal(err)
			}
			argv := c.argv(t, dir)
			for i, w := range argv {
				if w == "/proc/self/exe" { // of this test, not of the shell
					if argv[i], err = os.Executable(); err != nil {
						t.Fatal(err)
					}
				}
			}
			cmd := run(t, s, dir, []string{"ADDRESS=" + s.String()}, argv...)
			seen := func() Found {
				f, err := Look(cmd.cmd.Process.Pid, id)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			cmd.open(func() {
				for range 50 {
					if f := seen(); f.How != None || f.Hidden != 0 || f.Has == 0 {
						t.Errorf("before it serves: %+v", f)
						return
					}
				}
			})
			var f Found
			if !wait.For(limit, func() bool { f = seen(); return f.How != None }) {
				t.Fatalf("it is not seen: %+v\n%s", f, cmd.said())
			}
			if f.How != c.how {
				t.Errorf("by %q, want %q", f.How, c.how)
			}
			check, done := checkOf(t, s)
			defer done()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := check.Accepted(ctx); err != nil {
				t.Errorf("accepted: %v\n%s", err, cmd.said())
			}
			if status, err := check.HTTP(ctx, "x", "/"); status != 200 || err != nil {
				t.Errorf("%d, %v\n%s", status, err, cmd.said())
			}
		})
	}
}

// socket is a socket that listens, and that nobody serves.
func socket(t *testing.T) *listen.Socket {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	sockets, err := listen.Bind(context.Background(), []listen.Spec{{Host: "127.0.0.1", Port: uint16(port)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sockets[0].Close)
	if err := sockets[0].Listen(); err != nil {
		t.Fatal(err)
	}
	return sockets[0]
}

func checkOf(t *testing.T, s *listen.Socket) (Check, func()) {
	t.Helper()
	p, err := listen.NewProbe(s)
	if err != nil {
		t.Fatal(err)
	}
	return Check{Dial: p.Dial, Queued: s.Queued}, p.Close
}

// A socket that nobody serves is connected to all the same, and neither check takes that for an answer.
func TestNobodyServes(t *testing.T) {
	t.Parallel()
	s := socket(t)
	check, done := checkOf(t, s)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := check.Accepted(ctx); !errors.Is(err, ErrWaits) {
		t.Errorf("%v", err)
	}
	other := socket(t)
	check, done = checkOf(t, other)
	defer done()
	if status, err := check.HTTP(ctx, "x", "/"); err == nil {
		t.Errorf("%d, %v", status, err)
	}
	id, err := Identify(s.FD())
	if err != nil {
		t.Fatal(err)
	}
	f, err := Look(unix.Getpgrp(), id)
	if err != nil || f.How != None || f.Has == 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// A server that takes a connection and does not answer is seen by that.
func TestAccepted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := "import socket, time\ns = socket.socket(fileno=3)\nkept = []\nwhile True: kept.append(s.accept())\n"
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := socket(t)
	cmd := run(t, s, dir, nil, needs.Program(t, "python3"), "app.py")
	check, done := checkOf(t, s)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := check.Accepted(ctx); err != nil {
		t.Errorf("%v\n%s", err, cmd.said())
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if status, err := check.HTTP(short, "x", "/"); err == nil {
		t.Errorf("%d, %v", status, err)
	}
	if strings.Contains(cmd.said(), "Traceback") {
		t.Error(cmd.said())
	}
}

// What is looked at is the user's own: no privilege is needed.
func TestWithoutPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the other tests run without privileges already")
	}
	if _, err := os.Stat("/usr/bin/python3"); err != nil { // another one may be in a home folder
		needs.Missing(t, "/usr/bin/python3, which is not installed")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestServers$/^(accept|poll|select)$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), "TMPDIR=/tmp", "HOME=/", "PATH=/usr/bin:/bin"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "    --- PASS") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}
