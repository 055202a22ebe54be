package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// holdings is what a process has open, and its memory.
type holdings struct {
	kinds     map[string]int // of descriptors: memfd, pipe, anon_inode, file
	listening int            // sockets
	sockets   int            // other ones
	rss       int            // kB
}

func holdingsOf(t T, pid int) holdings {
	t.Helper()
	h := holdings{kinds: map[string]int{}}
	listening := map[string]bool{}
	for file, column := range map[string]int{"tcp": 9, "tcp6": 9, "unix": 6} {
		b, err := os.ReadFile("/proc/net/" + file)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > column && (f[3] == "0A" || file == "unix" && f[3] == "00010000") {
				listening["socket:["+f[column]+"]"] = true
			}
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, fd := range fds {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		kind, _, _ := strings.Cut(strings.TrimPrefix(link, "/"), ":")
		switch {
		case err != nil: // closed just now
		case listening[link]:
			h.listening++
		case kind == "socket":
			h.sockets++
		default:
			h.kinds[kind]++
		}
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			h.rss, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return h
}

// Two hundred restarts as quickly as they come, under load on a TCP and on a unix socket: no request is lost, there are never
// more commands than the order has, and nothing is left of any: no process, descriptor, memory file, socket file or memory.
func TestHandoverLeavesNothing(t *testing.T) {
	for order, commands := range map[string]int{"start-first": 2, "stop-first": 1} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			leavesNothing(t, order, commands)
		})
	}
}

func leavesNothing(t *testing.T, order string, commands int) {
	n := 200
	if testing.Short() || vaulttest.Race {
		n = 50
	}
	at := actual{t}
	dir, port := t.TempDir(), freePort(at)
	path := filepath.Join(dir, "s")
	w := newWatched(t, "--restart-order", order, "--listen", "127.0.0.1:"+port, "--listen", "unix:"+path, "--interval", "100ms",
		"--dumpable", "--env", "COPY=app-prod#GENERATION", "--file", "COPY")
	p := start(at, w.launcher.cmd(probe(t), "serve"), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	get(at, p, port)
	tcp, local := newLoad(at, "tcp", "127.0.0.1:"+port, clients{fresh: 2, kept: 1, std: 1}), newLoad(at, "unix", path, clients{fresh: 1})

	most := 0 // children at any time
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				most = max(most, len(childrenOf(p.pid)))
			}
		}
	}()
	var before holdings
	for i := range n {
		w.change(t, i+2)
		w.refresh(t, p.pid)
		for _, l := range []*load{tcp, local} {
			until(at, fmt.Sprintf("generation %d\n%v\n%s%s", i+2, l, p.out, p.err), func() bool { return l.last.Load() == int64(i+2) })
		}
		if i == n/4 {
			alone(at, p)
			before = holdingsOf(at, p.pid)
		}
	}
	alone(at, p)
	close(stop)
	<-stopped
	tcp.more(at, 5)
	tcp.end()
	local.end()
	t.Logf("%sTCP: %v\nunix: %v", p.err, tcp, local)
	tcp.wantNothingLost(t, n)
	if local.lost() != 0 { // on one shared socket both commands may answer until the old one ends
		t.Errorf("unix: %v", local)
	}
	if most != commands+1 {
		t.Errorf("%d children at the most, want %d and the guard", most, commands)
	}
	after := holdingsOf(at, p.pid)
	t.Logf("%+v before, %+v after", before, after)
	for kind, n := range after.kinds {
		if n > before.kinds[kind] {
			t.Errorf("%d descriptors of the kind %s, and %d before", n, kind, before.kinds[kind])
		}
	}
	if after.listening != 2 || after.sockets > before.sockets+2 { // Vault's are closed and opened as it pleases
		t.Errorf("%d listening sockets and %d others, want 2 and %d", after.listening, after.sockets, before.sockets)
	}
	if !vaulttest.Race && after.rss > before.rss*5/4+2048 {
		t.Errorf("VmRSS %d kB, and %d before", after.rss, before.rss)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("files beside the socket: %v", files)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("0")
	p.nothingLeft()
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("files at the end: %v", files)
	}
}
