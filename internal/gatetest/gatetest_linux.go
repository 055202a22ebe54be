// Package gatetest starts servers for tests that want to see a command before it serves and after: each has a listening
// socket as descriptor 3, and waits at a gate until the test opens it.
package gatetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Limit is generous: the machine may be busy.
const Limit = 60 * time.Second

// variable names the gate to a test's own program.
const variable = "VAULTEXEC_TEST_GATE"

// Main is for TestMain. If the test's own program was started as the server that Go names, it serves and does not return.
func Main() {
	gate := os.Getenv(variable)
	if gate == "" {
		return
	}
	_, _ = os.ReadFile(gate)
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		b := make([]byte, 4096)
		_, _ = c.Read(b)
		_, _ = fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		c.Close()
	}
}

// Go starts the test's own program as a server (Main).
var Go = []string{"sh", "-c", variable + `=$GATE exec "$@"`, "sh", self}

// self is the test's own program, and not the shell's /proc/self/exe.
const self = "/proc/self/exe"

// Gunicorn has one worker, which is at the gate when it loads its application. LISTEN_PID has to be its own.
func Gunicorn(program string, args ...string) []string {
	return append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", program, "slow:wsgi"}, args...)
}

// Node is node's program.
const Node = `require("fs").readFileSync(process.env.GATE); require("http").createServer((q, a) => a.end("ok")).listen({fd: 3})`

// python is app.py: "app.py accept|poll|select [STATUS]" is a server, app:asgi and app:wsgi are applications.
const python = `
import os, select, socket, sys
def gate():
    with open(os.environ["GATE"]) as f:
        f.read()
def serve(wait, status):
    s = socket.socket(fileno=3)
    gate()
    while True:
        wait(s)
        c, _ = s.accept()
        try:
            c.recv(4096)
            c.sendall(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
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
    serve(how[sys.argv[1]], (sys.argv[2:] or ["200"])[0].encode())

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

// Command is a server in a process group of its own.
type Command struct {
	PID  int
	t    *testing.T
	gate string
	log  string
}

// Start starts a server with the socket. It runs in a folder, to which app.py is added unless there is one, and ends with
// the test.
func Start(t *testing.T, s *listen.Socket, dir string, argv ...string) *Command {
	t.Helper()
	for name, text := range map[string]string{"app.py": python, "slow.py": "import app\napp.gate()\nwsgi = app.wsgi\n"} {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Command{t: t, gate: filepath.Join(dir, "gate"), log: filepath.Join(dir, "log")}
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
	argv = slices.Clone(argv)
	for i, w := range argv {
		if w == self {
			if argv[i], err = os.Executable(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GATE="+c.gate, "ADDRESS="+s.String(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{f}, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.PID = cmd.Process.Pid
	t.Cleanup(func() {
		_ = unix.Kill(-c.PID, unix.SIGKILL)
		_ = cmd.Wait()
	})
	return c
}

// Open waits until the server is at the gate, does something, and opens the gate.
func (c *Command) Open(meanwhile func()) {
	c.t.Helper()
	var fd int
	if !wait.For(Limit, func() (ok bool) {
		var err error
		fd, err = unix.Open(c.gate, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err == nil
	}) {
		c.t.Fatalf("the command never came to its gate\n%s", c.Said())
	}
	defer unix.Close(fd)
	meanwhile()
}

// Said is what the server has printed.
func (c *Command) Said() string {
	b, _ := os.ReadFile(c.log)
	return string(b)
}

// FreePort is a port of the loopback that nobody has. It is below the range from which the kernel takes the ports of
// outgoing connections: another test's could sit on it when it is to be bound.
func FreePort(t *testing.T) uint16 {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(8000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil && l.Close() == nil {
			return uint16(port)
		}
	}
	t.Fatal("no free port")
	return 0
}
