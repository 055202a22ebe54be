package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// read is a file's content once it is there.
func read(t T, file string) string {
	t.Helper()
	var b []byte
	until(t, file, func() bool {
		var err error
		b, err = os.ReadFile(file)
		return err == nil
	})
	return string(b)
}

// The command gets the sockets at the numbers that the convention says, after those of systemd, and memory files above.
func TestListenHandsOver(t *testing.T) {
	t.Parallel()
	check := func(t T, activated bool, v launcher) {
		dir := t.TempDir()
		port, other := freePort(t), freePort(t)
		v = append(slices.Clone(v[:len(v)-1]), "--listen", "web-1=:"+port, "--listen", "admin=[::1]:"+other, "--listen", "unix:"+dir+"/s", "--")
		file := filepath.Join(dir, "got")
		argv, first := v.cmd(probe(t), "fds", file), 3
		want := []string{"LISTEN_PID is mine"}
		if activated {
			argv, first = append([]string{probe(t), "activate", dir + "/systemd"}, argv...), 4
			want = append(want, "3: "+dir+"/systemd", "LISTEN_FDS=4", "LISTEN_FDNAMES=unknown:web-1:admin:unknown")
		} else {
			want = append(want, "LISTEN_FDS=3", "LISTEN_FDNAMES=web-1:admin:unknown")
		}
		want = append(want, fmt.Sprintf("VAULTEXEC_FD_WEB_1=%d", first), fmt.Sprintf("VAULTEXEC_FD_ADMIN=%d", first+1),
			fmt.Sprintf("%d: IPv6 %s only 0", first, port), fmt.Sprintf("%d: IPv6 %s only 1", first+1, other), fmt.Sprintf("%d: %s/s", first+2, dir))
		slices.Sort(want)
		p := start(t, argv, func(c *exec.Cmd) {
			c.Env = append(c.Env, "VAULTEXEC_FD_OUTER=9")
			if !activated {
				c.Env = append(c.Env, "LISTEN_FDS=7", "LISTEN_PID=1") // somebody else's
			}
		})
		p.wantEnd("0")
		got := slices.DeleteFunc(strings.Split(strings.TrimSpace(read(t, file)), "\n"), func(line string) bool { return strings.HasPrefix(line, "LISTEN_PIDFDID") })
		if !slices.Equal(got, want) {
			t.Fatalf("the command has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, activated := range []bool{false, true} {
		t.Run(fmt.Sprintf("supervise activated %v", activated), func(t *testing.T) { t.Parallel(); check(actual{t}, activated, supervise(t)) })
		t.Run(fmt.Sprintf("replace activated %v", activated), func(t *testing.T) { t.Parallel(); check(actual{t}, activated, vaultexec(t)) })
	}
}

// traffic is clients that ask without a pause, with a connection for each request.
type traffic struct {
	asked, refused, cut atomic.Int64
	last                atomic.Int64 // generation that answered last
	stop                chan struct{}
	clients             sync.WaitGroup
}

func newTraffic(port string, clients int) *traffic {
	tr := &traffic{stop: make(chan struct{})}
	for range clients {
		tr.clients.Go(func() {
			for {
				select {
				case <-tr.stop:
					return
				default:
					tr.ask("127.0.0.1:" + port)
				}
			}
		})
	}
	return tr
}

// ask makes one request. Nothing is repeated, as net/http would do it.
func (tr *traffic) ask(address string) {
	tr.asked.Add(1)
	c, err := net.Dial("tcp", address)
	if err != nil {
		tr.refused.Add(1)
		time.Sleep(wait.Interval) // a server that starts is to have the machine
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		var b []byte
		if b, err = io.ReadAll(answer.Body); err == nil {
			if answer.StatusCode != http.StatusOK {
				err = errors.New(answer.Status)
			}
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			tr.last.Store(n)
		}
	}
	if err != nil {
		tr.cut.Add(1)
	}
}

func (tr *traffic) end() {
	close(tr.stop)
	tr.clients.Wait()
}

// Rotations under load: with --listen no request is lost. uvicorn 0.17 itself closes a connection now and then that it has
// accepted, one for each client and restart at the most; refused is none there either.
func TestListenLosesNothing(t *testing.T) {
	const clients, rotations = 4, 5
	apps := func(t T) string {
		dir := t.TempDir()
		const text = `import os
N = os.environ["GENERATION"].encode()

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [N]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": N})
`
		if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(text), 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		return dir
	}
	for _, program := range []struct {
		name       string
		held, bare func(t T, port string) []string
		closes     int64 // of what it has accepted, at each restart
	}{
		{"go", func(t T, _ string) []string { return []string{probe(t), "web"} },
			func(t T, port string) []string { return []string{probe(t), "web", "127.0.0.1:" + port} }, 0},
		{"gunicorn", func(t T, _ string) []string { return []string{needs.Program(t.(actual).T, "gunicorn"), "app:wsgi"} },
			func(t T, port string) []string {
				return []string{needs.Program(t.(actual).T, "gunicorn"), "--bind", "127.0.0.1:" + port, "app:wsgi"}
			}, 0},
		{"uvicorn", func(t T, _ string) []string {
			return []string{needs.Program(t.(actual).T, "uvicorn"), "--fd", "3", "--log-level", "warning", "app:asgi"}
		}, func(t T, port string) []string {
			return []string{needs.Program(t.(actual).T, "uvicorn"), "--port", port, "--log-level", "warning", "app:asgi"}
		}, clients},
	} {
		run := func(t *testing.T, argv func(T, string) []string, port string, options ...string) *traffic {
			at := actual{t}
			words := argv(at, port)
			w := newWatched(t, options...)
			p := start(at, w.launcher.cmd(words...), in(apps(at)), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
			get(at, p, port)
			tr := newTraffic(port, clients)
			for i := range rotations {
				w.change(t, i+2)
				w.refresh(t, p.pid)
				until(at, fmt.Sprintf("generation %d\n%s%s", i+2, p.out, p.err), func() bool { return tr.last.Load() == int64(i+2) })
			}
			tr.end()
			p.signal(unix.SIGTERM)
			p.ended()
			t.Logf("%s%d requests, %d refused, %d cut", p.err, tr.asked.Load(), tr.refused.Load(), tr.cut.Load())
			return tr
		}
		t.Run(program.name, func(t *testing.T) {
			t.Parallel()
			port := freePort(actual{t})
			tr := run(t, program.held, port, "--listen", "127.0.0.1:"+port)
			if tr.refused.Load() != 0 || tr.cut.Load() > rotations*program.closes {
				t.Errorf("of %d requests %d were refused and %d cut off", tr.asked.Load(), tr.refused.Load(), tr.cut.Load())
			}
		})
		t.Run(program.name+" control", func(t *testing.T) {
			t.Parallel()
			if tr := run(t, program.bare, freePort(actual{t})); tr.refused.Load() == 0 {
				t.Errorf("of %d requests none was refused without --listen", tr.asked.Load())
			}
		})
	}
}

// While Vault is away nobody finds an open port, and the address is taken already.
func TestListenOpensWithTheCommand(t *testing.T) {
	t.Parallel()
	port := freePort(actual{t})
	silent, err := net.Listen("tcp", "127.0.0.1:0") // a Vault that does not answer
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	asked := make(chan struct{}, 9)
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			asked <- struct{}{}
		}
	}()
	p := start(actual{t}, vaultexec(t, "--supervise", "--listen", "127.0.0.1:"+port, "--path", "x").cmd("true"), func(c *exec.Cmd) {
		c.Env = append(c.Env, "VAULT_ADDR=http://"+silent.Addr().String(), "VAULT_TOKEN=x")
	})
	<-asked
	if c, err := net.Dial("tcp", "127.0.0.1:"+port); !errors.Is(err, unix.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("connected while there is no command: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, _ := strconv.Atoi(port)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}); err != unix.EADDRINUSE {
		t.Errorf("the address can be had by another: %v", err)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// When the run ends, by SIGTERM or by --on-change exit, nobody waits in the queue for a command that accepts nothing more.
func TestListenRefusesAtTheEnd(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, p *proc, port, drain, end string) {
		read(actual{t}, drain) // it has closed its own
		until(actual{t}, "a refusal", func() bool {
			c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second) // a queue that is full does not answer
			if err == nil {
				c.Close()
			}
			return errors.Is(err, unix.ECONNREFUSED)
		})
		if err := os.Remove(drain); err != nil {
			t.Fatal(err)
		}
		p.wantEnd(end)
	}
	t.Run("TERM", func(t *testing.T) {
		t.Parallel()
		port, drain := freePort(actual{t}), filepath.Join(t.TempDir(), "drain")
		p := start(actual{t}, supervise(t, "--listen", "127.0.0.1:"+port).cmd(probe(t), "web"), func(c *exec.Cmd) {
			c.Env = append(c.Env, "GENERATION=1", "DRAIN="+drain)
		})
		get(actual{t}, p, port)
		p.signal(unix.SIGTERM)
		refused(t, p, port, drain, "0")
	})
	t.Run("exit", func(t *testing.T) {
		t.Parallel()
		port, drain := freePort(actual{t}), filepath.Join(t.TempDir(), "drain")
		w := newWatched(t, "--listen", "127.0.0.1:"+port, "--on-change", "exit", "--stop-timeout", "1m")
		p := start(actual{t}, w.launcher.cmd(probe(t), "web"), func(c *exec.Cmd) { c.Env = append(c.Env, append(w.env, "DRAIN="+drain)...) })
		get(actual{t}, p, port)
		w.change(t, 2)
		w.refresh(t, p.pid)
		refused(t, p, port, drain, "124")
	})
}

// Whatever length of the queue a command asks for: while none accepts, all that come have room in it.
func TestListenQueue(t *testing.T) {
	t.Parallel()
	port, drain := freePort(actual{t}), filepath.Join(t.TempDir(), "drain")
	w := newWatched(t, "--listen", "127.0.0.1:"+port, "--stop-timeout", "1m")
	p := start(actual{t}, w.launcher.cmd(probe(t), "web"), func(c *exec.Cmd) {
		c.Env = append(c.Env, append(w.env, "NOQUEUE=1", "DRAIN="+drain)...)
	})
	get(actual{t}, p, port)
	w.change(t, 2)
	w.refresh(t, p.pid)
	read(actual{t}, drain)
	var waiting []net.Conn
	for i := range 30 {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 10*time.Second) // without room it takes a minute
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		waiting = append(waiting, c)
	}
	if err := os.Remove(drain); err != nil {
		t.Fatal(err)
	}
	for i, c := range waiting {
		if err := c.SetReadDeadline(time.Now().Add(actual{t}.Limit())); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(string(b), "\n2\n") {
			t.Errorf("connection %d: %q, %v", i, b, err)
		}
	}
	p.signal(unix.SIGTERM)
	read(actual{t}, drain)
	_ = os.Remove(drain)
	p.wantEnd("0")
}

// No process but the command has the sockets: not the hook, nor the guard.
func TestListenIsForTheCommand(t *testing.T) {
	t.Parallel()
	port := freePort(actual{t})
	dir := t.TempDir()
	hook := filepath.Join(dir, "hook")
	text := fmt.Sprintf("#!/bin/sh\nexec %s fds %s/hook-has\n", probe(t), dir)
	if err := os.WriteFile(hook, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	w := newWatched(t, "--listen", "web=127.0.0.1:"+port, "--on-change-hook", hook)
	p := start(actual{t}, w.launcher.cmd(probe(t), "web"), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	get(actual{t}, p, port)
	w.change(t, 2)
	w.refresh(t, p.pid)
	if got := read(actual{t}, filepath.Join(dir, "hook-has")); got != "\n" {
		t.Errorf("the hook has %q", got)
	}
	until(actual{t}, "the guard", func() bool { return len(childrenOf(p.pid)) == 2 })
	var with []string
	if !wait.For(actual{t}.Limit(), func() bool {
		with = nil
		inode := socketOf(p.pid, port) // of the command that serves; the change that the hook saw may be under way
		for _, pid := range childrenOf(p.pid) {
			if slices.Contains(sockets(pid), inode) {
				with = append(with, name(pid))
			}
		}
		return slices.Equal(with, []string{"probe"})
	}) {
		t.Errorf("the socket is in %v, want the command alone", with)
	}
	get(actual{t}, p, port) // or the command may not catch signals yet
	p.signal(unix.SIGTERM)
	p.wantEnd("0")
}

func name(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}

func childrenOf(pid int) (list []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		n, _ := strconv.Atoi(f)
		list = append(list, n)
	}
	return list
}

// sockets lists the inodes of a process's sockets.
func sockets(pid int) (list []string) {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if link, _ := os.Readlink(fd); strings.HasPrefix(link, "socket:") {
			list = append(list, link)
		}
	}
	return list
}

// socketOf finds the process's socket that listens on a port.
func socketOf(pid int, port string) string {
	n, _ := strconv.Atoi(port)
	b, _ := os.ReadFile("/proc/net/tcp")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
			if link := "socket:[" + f[9] + "]"; slices.Contains(sockets(pid), link) {
				return link
			}
		}
	}
	return ""
}

// A unix socket: a stale one is replaced, one that is served is not, the mode counts, and nothing is left at the end.
func TestListenUnix(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd) // left behind by somebody who was killed
	p := start(actual{t}, supervise(t, "--listen", "unix:"+path+",mode=0640").cmd(probe(t), "web"), func(c *exec.Cmd) { c.Env = append(c.Env, "GENERATION=7") })
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	until(actual{t}, "an answer", func() bool {
		answer, err := client.Get("http://x/")
		return err == nil && answer.Body.Close() == nil
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	second := start(actual{t}, supervise(t, "--listen", "unix:"+path).cmd("true"))
	second.wantEnd("125")
	second.wantSays("cannot listen on unix:" + path + ": the address is in use")
	p.signal(unix.SIGTERM)
	p.wantEnd("0")
	if left, err := filepath.Glob(filepath.Dir(path) + "/*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An address in use is found before Vault is asked, and who has it is named. The log says once how a command takes a
// socket that it has not used.
func TestListenSaysWhy(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{l.Addr().String(), fmt.Sprintf(":%d", l.Addr().(*net.TCPAddr).Port)} {
		p := start(actual{t}, vaultexec(t, "--listen", address, "--path", "x", "--address", "http://127.0.0.1:1").cmd("true"))
		p.wantEnd("125")
		p.wantSays("cannot listen on "+address+": the address is in use by "+filepath.Base(self)[:7], fmt.Sprintf("(process %d)", os.Getpid()))
	}
	port := freePort(actual{t})
	p := start(actual{t}, supervise(t, "--listen", ":"+port).cmd(probe(t), "web", "127.0.0.1:"+port))
	p.wantEnd("99")
	p.wantSays("the command never listened on the socket of --listen :"+port+", which is its descriptor 3", "uvicorn --fd 3")
	p = start(actual{t}, supervise(t, "--listen", ":"+port).cmd("sh", "-c", "exit 0"))
	p.wantEnd("0")
	p.wantSays()
}
