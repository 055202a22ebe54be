package process

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// watched is vaultexec that restarts its command at once when it is told that a secret has changed.
type watched struct {
	launcher launcher
	env      []string
	srv      *vaulttest.Server
	mount    string
}

// newWatched makes a secret with the variable GENERATION=1.
func newWatched(t *testing.T, options ...string) *watched {
	t.Helper()
	srv := vaulttest.Dev(t)
	scope := srv.Scope(t)
	w := &watched{srv: srv, mount: scope.Mount(2)}
	w.change(t, 1)
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{scope.ReadPolicy(w.mount, "app-prod")}, NoDefault: true})
	w.env = []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}
	for _, o := range [][2]string{{"--settle", "0"}, {"--min-uptime", "0"}, {"--probation", "0"}, {"--log-level", "warn"}} {
		if !slices.Contains(options, o[0]) {
			options = append(options, o[0], o[1])
		}
	}
	w.launcher = vaultexec(t, append([]string{"--mount", w.mount, "--path", "app-prod", "--watch", "--interval", "1h", "--refresh-signal", "USR1"}, options...)...)
	return w
}

func (w *watched) change(t *testing.T, generation int) {
	t.Helper()
	w.srv.PutKV(t, w.mount, "app-prod", map[string]any{"GENERATION": fmt.Sprint(generation)})
}

// refresh makes vaultexec look.
func (w *watched) refresh(t *testing.T, pid int) {
	t.Helper()
	if err := send(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
}

// The new command is started when nothing of the old one's group is left: a port that it shared with a helper can be bound
// again, a hundred times.
func TestPortIsFreeAfterRestart(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	log := newLines(actual{t})
	p := start(actual{t}, w.launcher.cmd(probe(t), "listen", "127.0.0.1:"+freePort(actual{t}), log.path()), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	n := 100
	if testing.Short() || vaulttest.Race {
		n = 25
	}
	for i := 1; i <= n; i++ {
		if got := log.await(i); got[len(got)-1] != "bound" {
			t.Fatalf("start %d: %s", i, got[len(got)-1])
		}
		w.change(t, i+1)
		w.refresh(t, p.pid)
	}
	log.await(n + 1)
	p.signal(unix.SIGTERM)
	p.wantEnd("0")
	p.nothingLeft()
	if strings.Contains(log.String(), "in use") || p.err.String() != "" {
		t.Errorf("%s%s", log, p.err)
	}
}

// A SIGTERM at any moment of a restart, at 200 of them, ends the command and vaultexec, and starts no other.
func TestTermAtAnyMomentOfRestart(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	n := 200
	if testing.Short() || vaulttest.Race {
		n = 60
	}
	whole := 0 // looks into the folder that a whole restart takes
	outcomes := map[string]int{}
	for i := range n + 1 {
		dir := t.TempDir()
		p := start(actual{t}, w.launcher.cmd("sh", "-c", `trap 'exit 0' TERM; : >"$1/$$"; while :; do sleep 0.01; done`, "sh", dir), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
		started := func() int {
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			return len(files)
		}
		until(actual{t}, "the command", func() bool { return started() == 1 })
		w.change(t, 1000+i)
		w.refresh(t, p.pid)
		// A moment that depends on what happens, not on the clock: after so many looks into the folder.
		most := 1 << 20
		if i > 0 {
			most = rand.IntN(whole*5/4 + 1)
		}
		for k := 0; k < most && (started() < 2 || i > 0); k++ {
			if i == 0 {
				whole = k
			}
		}
		p.signal(unix.SIGTERM)
		end := p.ended()
		if end != "0" && end != "signal TERM" { // between two children it is vaultexec that the signal ends
			t.Fatalf("ended with %s\n%s", end, p.err)
		}
		begun := started()
		p.nothingLeft()
		if started() != begun {
			t.Fatalf("another was started after the end")
		}
		outcomes[fmt.Sprintf("%d started, %s", begun, end)]++
		switch { // the machine is not always as busy as it was the first time: a third of the signals comes after the restart
		case i == 0:
		case begun == 1:
			whole += whole/20 + 1
		default:
			whole -= whole / 10
		}
	}
	t.Logf("%v", outcomes)
	if outcomes["1 started, 0"] < n/10 || outcomes["2 started, 0"]+outcomes["2 started, signal TERM"] < n/20 {
		t.Errorf("the moments do not cover a restart: %v", outcomes)
	}
}
