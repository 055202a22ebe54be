package serving

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/gatetest"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/wait"
)

const limit = gatetest.Limit

// The Go server of TestServers is this test's own program.
func TestMain(m *testing.M) {
	gatetest.Main()
	os.Exit(m.Run())
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
		return func(t *testing.T, _ string) []string { return gatetest.Gunicorn(needs.Program(t, "gunicorn"), args...) }
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
		{"node", program("node", "-e", gatetest.Node), Epoll},
		{"go", func(*testing.T, string) []string { return gatetest.Go }, Epoll},
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
			s := socket(t)
			id, err := Identify(s.FD())
			if err != nil {
				t.Fatal(err)
			}
			cmd := gatetest.Start(t, s, dir, c.argv(t, dir)...)
			seen := func() Found {
				f, err := Look(cmd.PID, id)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			cmd.Open(func() {
				for range 50 {
					if f := seen(); f.How != None || f.Hidden != 0 || f.Has == 0 {
						t.Errorf("before it serves: %+v", f)
						return
					}
				}
			})
			var f Found
			if !wait.For(limit, func() bool { f = seen(); return f.How != None }) {
				t.Fatalf("it is not seen: %+v\n%s", f, cmd.Said())
			}
			if f.How != c.how {
				t.Errorf("by %q, want %q", f.How, c.how)
			}
			check, done := checkOf(t, s)
			defer done()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := check.Accepted(ctx); err != nil {
				t.Errorf("accepted: %v\n%s", err, cmd.Said())
			}
			if status, err := check.HTTP(ctx, "x", "/"); status != 200 || err != nil {
				t.Errorf("%d, %v\n%s", status, err, cmd.Said())
			}
		})
	}
}

// socket is a socket that listens, and that nobody serves.
func socket(t *testing.T) *listen.Socket {
	t.Helper()
	var sockets []*listen.Socket
	var err error
	for range 10 { // another test may have taken the port meanwhile
		if sockets, err = listen.Bind(context.Background(), []listen.Spec{{Host: "127.0.0.1", Port: gatetest.FreePort(t)}}); err == nil {
			break
		}
	}
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
	cmd := gatetest.Start(t, s, dir, needs.Program(t, "python3"), "app.py")
	check, done := checkOf(t, s)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := check.Accepted(ctx); err != nil {
		t.Errorf("%v\n%s", err, cmd.Said())
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if status, err := check.HTTP(short, "x", "/"); err == nil {
		t.Errorf("%d, %v", status, err)
	}
	if strings.Contains(cmd.Said(), "Traceback") {
		t.Error(cmd.Said())
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
