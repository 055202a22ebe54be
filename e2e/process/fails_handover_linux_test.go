package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// startsIn reads the file that "probe serve" notes its starts in: generation, process, mode.
func startsIn(file string) (list [][3]string) {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		f := append(strings.Fields(line), "")
		list = append(list, [3]string(f[:3]))
	}
	return list
}

// generations are those of the starts, in their order.
func generations(file string) (list []string) {
	for _, s := range startsIn(file) {
		list = append(list, s[0])
	}
	return list
}

// A new command that ends at once, never listens, or ends with a failure soon after it has taken over, before the old one is
// gone or afterwards: no request is lost, one line says why, the same is not tried again, and what comes later arrives.
func TestHandoverFails(t *testing.T) {
	for _, c := range []struct {
		name, mode, says string
		closings         int // of a kept connection
		starts           []string
	}{
		{"exit", "exit", "exit code 3", 1, []string{"1", "2", "3"}},
		{"hang", "hang", "--ready-timeout", 1, []string{"1", "2", "3"}},
		{"die", "die", "exit code 3", 3, []string{"1", "2", "1", "3"}},
		{"die later", "die", "exit code 3", 3, []string{"1", "2", "1", "3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at := actual{t}
			port, starts, die := freePort(at), filepath.Join(t.TempDir(), "starts"), filepath.Join(t.TempDir(), "die")
			w := newWatched(t, startFirst("--listen", "127.0.0.1:"+port, "--ready-timeout", "3s", "--probation", "1m")...)
			proxy := vaulttest.NewProxy(t, w.srv)
			put := func(generation int, mode string) {
				w.srv.PutKV(t, w.mount, "app-prod", map[string]any{"GENERATION": fmt.Sprint(generation), "MODE": mode})
			}
			put(1, "")
			p := start(at, w.launcher.cmd(probe(t), "serve"), func(c *exec.Cmd) {
				c.Env = append(append(c.Env, w.env...), "VAULT_ADDR="+proxy.Addr, "STARTS="+starts, "DIE="+die)
			})
			get(at, p, port)
			old := startsIn(starts)[0][1]
			l := newLoad(at, "tcp", "127.0.0.1:"+port, clients{fresh: 4, kept: 2, std: 2})
			l.more(at, 5)
			if c.name == "die" {
				file(t, filepath.Dir(die), "die", "at once")
			}
			put(2, c.mode)
			w.refresh(t, p.pid)
			until(at, "a start of the new one", func() bool { return slices.Contains(generations(starts), "2") })
			if c.name == "die later" {
				until(at, "an answer of the new one", func() bool { return l.last.Load() == 2 })
				alone(at, p)
				file(t, filepath.Dir(die), "die", "now")
			}
			if !wait.For(at.Limit(), func() bool { return strings.Contains(p.err.String(), c.says) }) {
				t.Errorf("no line says %q", c.says)
			}
			alone(at, p)
			l.more(at, 5)
			for range 3 { // looks
				n := len(proxy.Requests())
				w.refresh(t, p.pid)
				proxy.WaitRequests(t, n+1)
			}
			if _, n := l.answers(2); (n > 0) != (c.mode == "die") {
				t.Errorf("the new one has answered %d times", n)
			}
			if c.mode != "die" {
				if pids, _ := l.answers(1); fmt.Sprint(pids) != "["+old+"]" {
					t.Errorf("%v have answered, want %s alone", pids, old)
				}
			}
			if lines := p.err.all(); len(lines) != 1 {
				t.Errorf("%d lines, want one that says why", len(lines))
			}
			put(3, "")
			w.refresh(t, p.pid)
			until(at, fmt.Sprintf("the later version\n%v\n%s", l, p.err), func() bool { return l.last.Load() == 3 })
			alone(at, p)
			l.more(at, 5)
			l.end()
			t.Logf("%s%v\n%v", p.err, l, startsIn(starts))
			got := generations(starts)
			if !slices.Equal(got, c.starts) {
				t.Errorf("started were %v, want %v", got, c.starts)
			}
			if n := len(slices.DeleteFunc(got, func(g string) bool { return g != "2" })); n != 1 {
				t.Errorf("the bad one was started %d times", n)
			}
			if l.lost() != 0 || l.kept.closed.Load() > int64(l.n.kept*c.closings) {
				t.Errorf("%v, want 0 failed, %d closed at the most", l, l.n.kept*c.closings)
			}
			p.signal(unix.SIGTERM)
			p.wantEnd("0")
			p.nothingLeft()
		})
	}
}
