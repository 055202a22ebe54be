package process

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Real programs, each with the signals that its operators use. Nothing of them may be left when vaultexec has ended.

// programs runs a check in both modes.
func programs(t *testing.T, check func(T, launcher)) {
	t.Helper()
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
	t.Run("replace", func(t *testing.T) { t.Parallel(); check(actual{t}, vaultexec(t)) })
}

// freePort returns a port that was free a moment ago. What listens there is asked who it is.
func freePort(t T) string {
	t.Helper()
	port := 0
	ok := wait.For(t.Limit(), func() bool {
		// Below the range from which the kernel takes the ports of outgoing connections (ip_local_port_range): another test's
		// could sit on it when it is to be bound again. internal/vaulttest begins at 18000.
		port = 10000 + rand.IntN(8000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		return l.Close() == nil
	})
	if !ok {
		t.Fatalf("no free port")
	}
	return strconv.Itoa(port)
}

// get asks until it is answered, and returns the process ID that the service tells.
func get(t T, p *proc, port string) int {
	t.Helper()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	pid := 0
	ok := wait.For(t.Limit(), func() bool {
		answer, err := client.Get("http://127.0.0.1:" + port + "/")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		line, _ := bufio.NewReader(answer.Body).ReadString('\n')
		pid, _ = strconv.Atoi(strings.TrimSpace(line))
		return answer.StatusCode == http.StatusOK
	})
	if !ok {
		t.Fatalf("no answer on port %s\n%s%s", port, p.out, p.err)
	}
	return pid
}

// nothingLeft checks that no process of the session is left.
func (p *proc) nothingLeft() {
	p.t.Helper()
	until(p.t, "all processes to be gone", func() bool { return len(p.session()) == 0 })
}

// session returns the live processes of the session but its leader.
func (p *proc) session() []ptytest.Process {
	return slices.DeleteFunc(ptytest.All(), func(m ptytest.Process) bool {
		return m.Session != p.pid || m.PID == p.pid || m.State == "Z"
	})
}

// workers waits until the process named by main has n children, none of which is in not, and returns them.
func (p *proc) workers(main, n int, not []int) []int {
	p.t.Helper()
	var pids []int
	ok := wait.For(p.t.Limit(), func() bool {
		pids = nil
		for _, m := range ptytest.All() {
			if m.Parent == main && m.State != "Z" {
				pids = append(pids, m.PID)
			}
		}
		return len(pids) == n && !slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(not, pid) })
	})
	if !ok {
		p.t.Fatalf("workers %v, want %d other than %v\n%s%s", pids, n, not, p.out, p.err)
	}
	return pids
}

// program returns the process of the command itself: the child in supervise mode, vaultexec's own in replace mode.
func (p *proc) program(v launcher) int {
	p.t.Helper()
	if slices.Contains(v, "--supervise") {
		return childOf(p.t, p.pid)
	}
	return p.pid
}

func in(dir string) func(*exec.Cmd) { return func(c *exec.Cmd) { c.Dir = dir } }

// pythonApps is a service for each of Python's two interfaces.
func pythonApps(t T) string {
	t.Helper()
	dir := t.TempDir()
	const text = `import os

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d\n" % os.getpid()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                print("shutdown", flush=True)
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d\n" % os.getpid()})
`
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(text), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

func TestUvicorn(t *testing.T) {
	t.Parallel()
	uvicorn := needs.Program(t, "uvicorn")
	ends := map[string]string{}
	check := func(t T, v launcher) {
		port := freePort(t)
		p := start(t, v.cmd(uvicorn, "app:asgi", "--port", port), in(pythonApps(t)))
		get(t, p, port)
		p.signal(unix.SIGTERM)
		end := p.ended()
		if got := p.out.all(); !slices.Contains(got, "shutdown") {
			t.Fatalf("no graceful end: %v\n%s", got, p.err)
		}
		p.nothingLeft()
		ends[v.String()] = end
	}
	for _, v := range []launcher{{"env"}, supervise(t), vaultexec(t)} {
		check(actual{t}, v)
		if ends[v.String()] != ends["env"] { // its versions differ between 0 and the signal
			t.Errorf("ended with %s, without vaultexec %s", ends[v.String()], ends["env"])
		}
	}
}

// HUP replaces the workers, TTIN and TTOU make one more and one less, TERM ends all.
func TestGunicorn(t *testing.T) {
	t.Parallel()
	gunicorn := needs.Program(t, "gunicorn")
	programs(t, func(t T, v launcher) {
		port := freePort(t)
		p := start(t, v.cmd(gunicorn, "--workers", "2", "--bind", "127.0.0.1:"+port, "app:wsgi"), in(pythonApps(t)))
		get(t, p, port)
		main := p.program(v)
		first := p.workers(main, 2, nil)
		p.signal(unix.SIGTTIN)
		p.workers(main, 3, nil)
		p.signal(unix.SIGTTOU)
		p.workers(main, 2, nil)
		p.signal(unix.SIGHUP)
		second := p.workers(main, 2, first)
		// Both have to have answered: gunicorn 20.1 takes its 30 s of grace when SIGTERM meets a worker that is still booting.
		answered := map[int]bool{}
		if !wait.For(t.Limit(), func() bool {
			pid := get(t, p, port)
			if !slices.Contains(second, pid) {
				t.Fatalf("%d answers, want one of %v", pid, second)
			}
			answered[pid] = true
			return len(answered) == len(second)
		}) {
			t.Fatalf("only %v of %v answered", answered, second)
		}
		p.signal(unix.SIGTERM)
		p.wantEnd("0")
		p.nothingLeft()
	})
}

// In the foreground: HUP replaces the workers, QUIT ends them gracefully.
func TestNginx(t *testing.T) {
	t.Parallel()
	nginx := needs.Program(t, "nginx")
	programs(t, func(t T, v launcher) {
		dir, port := t.TempDir(), freePort(t)
		conf := fmt.Sprintf(`daemon off; worker_processes 2; error_log stderr; pid %[1]s/pid;
events {}
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
 server { listen 127.0.0.1:%[2]s; location / { return 200 "$pid\n"; } } }
`, dir, port)
		if os.Getuid() == 0 {
			conf = "user root;\n" + conf
		}
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		p := start(t, v.cmd(nginx, "-p", dir, "-c", file, "-e", "stderr"))
		get(t, p, port)
		main := p.program(v)
		first := p.workers(main, 2, nil)
		p.signal(unix.SIGHUP)
		second := p.workers(main, 2, first)
		if pid := get(t, p, port); !slices.Contains(second, pid) {
			t.Fatalf("%d answers, want one of %v", pid, second)
		}
		p.signal(unix.SIGQUIT)
		p.wantEnd("0")
		p.nothingLeft()
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	redis := needs.Program(t, "redis-server")
	programs(t, func(t T, v launcher) {
		port := freePort(t)
		p := start(t, v.cmd(redis, "--port", port, "--bind", "127.0.0.1", "--save", ""), in(t.TempDir()))
		answer := ""
		until(t, "an answer of redis", func() bool {
			c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
			if err != nil {
				return false
			}
			defer c.Close()
			_, _ = c.Write([]byte("PING\r\n"))
			answer, _ = bufio.NewReader(c).ReadString('\n')
			return answer == "+PONG\r\n"
		})
		p.signal(unix.SIGTERM)
		p.wantEnd("0")
		p.nothingLeft()
		if got := p.out.String(); !strings.Contains(got, "Redis is now ready to exit") {
			t.Fatalf("no graceful end:\n%s", got)
		}
	})
}

// SIGINT is a fast shutdown: sessions are ended. (SIGTERM would wait for them, SIGQUIT would not shut down in order.) With
// --stop-signal that is what SIGTERM means, as in the official image.
func TestPostgres(t *testing.T) {
	t.Parallel()
	postgres, initdb, psql := needs.Program(t, "postgres"), needs.Program(t, "initdb"), needs.Program(t, "psql")
	var as []string // it does not run as root
	dir, err := os.MkdirTemp("", "vaultexec-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Getuid() == 0 {
		const nobody = 65534
		as = []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	argv := append(append([]string{}, as...), initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale", "C")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	for name, c := range map[string]struct {
		options []string
		sig     unix.Signal
	}{"INT": {nil, unix.SIGINT}, "stop signal": {[]string{"--stop-signal", "INT"}, unix.SIGTERM}} {
		t.Run(name, func(t *testing.T) {
			r := actual{t}
			port := freePort(r)
			v := supervise(t, c.options...)
			p := start(r, append(v.cmd(as...), postgres, "-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off"), in(dir))
			ready := wait.For(r.Limit(), func() bool {
				q := exec.Command(psql, "-h", dir, "-p", port, "-U", "postgres", "-Atc", "select 6*7")
				out, err := q.Output()
				return err == nil && string(out) == "42\n"
			})
			if !ready {
				t.Fatalf("no answer\n%s%s", p.out, p.err)
			}
			session := start(r, []string{psql, "-h", dir, "-p", port, "-U", "postgres", "-c", "select pg_sleep(600) as a_session"})
			until(r, "a session", func() bool {
				q := exec.Command(psql, "-h", dir, "-p", port, "-U", "postgres", "-Atc", "select count(*) from pg_stat_activity where query like '%a_session%' and pid <> pg_backend_pid()")
				out, _ := q.Output()
				return string(out) == "1\n"
			})
			p.signal(c.sig)
			p.wantEnd("0")
			p.nothingLeft()
			session.wantEnd("2")
			if got := p.err.String(); !strings.Contains(got, "received fast shutdown request") || !strings.Contains(got, "database system is shut down") {
				t.Fatalf("%s", got)
			}
		})
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	node := needs.Program(t, "node")
	programs(t, func(t T, v launcher) {
		p := start(t, v.cmd(node, "-e", `
for (const s of ["SIGHUP", "SIGUSR2", "SIGWINCH", "SIGINT"]) process.on(s, () => console.log(s));
process.on("SIGTERM", () => { console.log("SIGTERM"); setTimeout(() => process.exit(9), 100); });
require("net").createServer().listen(0, "127.0.0.1", () => console.log("ready"));
`))
		want := []string{"ready"}
		p.out.await(1)
		for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGUSR2, unix.SIGWINCH, unix.SIGINT, unix.SIGTERM} {
			p.signal(sig)
			want = append(want, unix.SignalName(sig))
			if got := p.out.await(len(want)); !slices.Equal(got, want) {
				t.Fatalf("%v, want %v", got, want)
			}
		}
		p.wantEnd("9")
		p.nothingLeft()
	})
}
