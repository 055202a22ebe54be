package process

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rotations are how many there are of one server: three, or twenty with VAULTEXEC_TEST_SOAK=1.
func rotations() int {
	if soak {
		return 20
	}
	return 3
}

// rotate lets vaultexec run a server under load through rotations, and returns what the clients have seen.
func rotate(t *testing.T, server webServer, held bool, n clients, rotations int, options ...string) *load {
	at := actual{t}
	dir, port := t.TempDir(), freePort(at)
	if server.write != nil {
		server.write(t, dir, port)
	}
	if held {
		options = append(options, "--listen", "127.0.0.1:"+port)
	}
	w := newWatched(t, append(options, server.options...)...)
	p := start(at, w.launcher.cmd(server.argv(t, dir, port, held)...), in(dir), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	get(at, p, port)
	l := newLoad(at, "tcp", "127.0.0.1:"+port, n)
	for i := range rotations {
		l.more(at, 5)
		w.change(t, i+2)
		w.refresh(t, p.pid)
		until(at, fmt.Sprintf("generation %d\n%v\n%s%s", i+2, l, p.out, p.err), func() bool { return l.last.Load() == int64(i+2) })
	}
	alone(at, p)
	l.more(at, 5)
	l.end()
	p.signal(unix.SIGTERM)
	p.ended()
	t.Logf("%s%v", p.err, l)
	return l
}

// alone waits until one command is left, beside the guard.
func alone(t T, p *proc) {
	t.Helper()
	until(t, "one command alone", func() bool { return len(childrenOf(p.pid)) == 2 })
}

// Rotations under load, with the new command started first or the old one stopped first: no request is lost, of whatever
// server.
func TestHandoverLosesNothing(t *testing.T) {
	kinds := clients{fresh: 4, kept: 2, std: 2}
	for _, server := range webServers {
		kinds := kinds
		if server.abrupt {
			kinds.kept = 0
		}
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			l := rotate(t, server, true, kinds, rotations(), startFirst()...)
			l.wantNothingLost(t, rotations())
		})
		t.Run(server.name+" stop-first", func(t *testing.T) {
			t.Parallel()
			l := rotate(t, server, true, kinds, rotations())
			l.wantNothingLost(t, rotations())
		})
		t.Run(server.name+" control", func(t *testing.T) {
			t.Parallel()
			for range 5 { // a server that starts fast enough may be lucky once
				if l := rotate(t, server, false, kinds, 1); l.fresh.failed.Load() > 0 {
					return
				}
			}
			t.Error("no request has failed without --listen")
		})
	}
}

// The socket of a unit of systemd is shared by both commands, and is enough for --ready auto: the new one is ready when it
// waits for connections there.
func TestHandoverActivated(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			at := actual{t}
			address := filepath.Join(t.TempDir(), "s")
			if network == "tcp" {
				address = "127.0.0.1:" + freePort(at)
			}
			w := newWatched(t, startFirst("--ready-timeout", "20s")...)
			p := start(at, append([]string{probe(t), "activate", address}, w.launcher.cmd(probe(t), "serve")...),
				func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
			until(at, "the socket", func() bool {
				c, err := net.Dial(network, address)
				return err == nil && c.Close() == nil
			})
			l := newLoad(at, network, address, clients{fresh: 4})
			for generation := 2; generation < 5; generation++ {
				l.more(at, 5)
				w.change(t, generation)
				w.refresh(t, p.pid)
				until(at, fmt.Sprintf("generation %d\n%s", generation, p.err), func() bool { return l.last.Load() == int64(generation) })
				alone(at, p)
			}
			l.end()
			if l.lost() != 0 {
				t.Errorf("%v, want none lost\n%s", l, p.err)
			}
			p.signal(unix.SIGTERM)
			p.wantEnd("0")
		})
	}
}

// What waits in the queue of a command that takes nothing from it is there for the next one, in its order.
func TestQueueOfACommandThatHangs(t *testing.T) {
	t.Parallel()
	at := actual{t}
	port := freePort(at)
	w := newWatched(t, "--listen", "127.0.0.1:"+port)
	put := func(generation int, mode string) {
		w.srv.PutKV(t, w.mount, "app-prod", map[string]any{"GENERATION": fmt.Sprint(generation), "MODE": mode})
	}
	put(1, "hang")
	p := start(at, w.launcher.cmd(probe(t), "serve"), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	var waiting []net.Conn
	until(at, "the socket", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			waiting = append(waiting, c)
		}
		return err == nil
	})
	for range 2 {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	l := newLoad(at, "tcp", "127.0.0.1:"+port, clients{})
	for _, c := range waiting {
		defer c.Close()
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	put(2, "")
	w.refresh(t, p.pid)
	for _, c := range waiting {
		_ = c.SetDeadline(time.Now().Add(at.Limit()))
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			err = l.answered(answer, 2)
		}
		if err != nil {
			t.Errorf("one that waited for the command that hangs: %v\n%s", err, p.err)
		}
	}
	if l.last.Load() != 2 {
		t.Errorf("generation %d has answered", l.last.Load())
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("0")
}
