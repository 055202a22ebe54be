package process

import (
	"fmt"
	"os/exec"
	"testing"

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

// Rotations under load, with the new command started first: no request is lost, of whatever server.
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
		t.Run(server.name+" control", func(t *testing.T) {
			t.Parallel()
			if l := rotate(t, server, false, kinds, 1); l.fresh.failed.Load() == 0 {
				t.Errorf("%v, want some that failed without --listen", l)
			}
		})
	}
}
