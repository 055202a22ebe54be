// Package fleet tries --restart-lock: many vaultexec processes, a real Vault, and real engines that they share a lock in.
package fleet

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

func TestMain(m *testing.M) {
	vaulttest.InRoot()
	vaulttest.Main(m)
}

const (
	limit     = 5 * time.Minute // for whatever must happen
	probation = 2 * time.Second
	// What a member notes comes a moment after what vaultexec counts from.
	slack = time.Second
)

// fleet is a number of vaultexec processes with the same secret.
type fleet struct {
	t      *testing.T
	srv    *vaulttest.Server
	mount  string
	token  string
	dir    string
	lock   lock
	member string // the program
	vx     string
	values []string // that the secret had, but for the first
	list   []*process
}

// lock is a place where a fleet keeps its lock, in a real engine.
type lock interface {
	url() string
	env() []string
	args() []string
	// holders lists who has the places by the engine's own account.
	holders() []string
	engine() engine
}

// engine is a server that a test may stop and kill.
type engine interface {
	Freeze()
	Thaw()
	Kill()
	Restart(t enginetest.TB)
}

// process is one vaultexec.
type process struct {
	id   string
	cmd  *exec.Cmd
	done chan struct{}
	gone atomic.Bool // the test has killed it
	mu   sync.Mutex
	text strings.Builder
}

func newFleet(t *testing.T, l lock) *fleet {
	t.Helper()
	srv := vaulttest.Dev(t)
	scope := srv.Scope(t)
	f := &fleet{t: t, srv: srv, dir: t.TempDir(), lock: l, mount: scope.Mount(2)}
	policy := scope.Policy(fmt.Sprintf("path \"%s/*\" { capabilities = [\"read\"] }", f.mount))
	f.token = srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	f.vx, f.member = vaulttest.BuildStatic(t, "."), vaulttest.BuildStatic(t, "e2e/fleet/member")
	f.put("first")
	return f
}

func (f *fleet) put(value string) {
	f.t.Helper()
	if value != "first" { // a word of the log, too
		f.values = append(f.values, value)
	}
	f.srv.PutKV(f.t, f.mount, "app", map[string]string{"K": value})
}

// start starts n vaultexec processes, and waits until each of them has its command.
func (f *fleet) start(n int, args ...string) {
	f.t.Helper()
	for range n {
		f.launch(nil, args...)
	}
	f.until("all run", func() bool { return f.have("first") == n })
}

func (f *fleet) launch(env []string, args ...string) *process {
	f.t.Helper()
	p := &process{id: strconv.Itoa(len(f.list)), done: make(chan struct{})}
	r, out, err := os.Pipe()
	if err != nil {
		f.t.Fatal(err)
	}
	p.cmd = exec.Command(f.vx, slices.Concat([]string{"--mount", f.mount, "--path", "app", "--watch", "--interval", "1s", "--settle", "200ms", "--min-uptime", "0",
		"--probation", probation.String(), "--log-format", "json", "--log-level", "debug"}, f.lockArgs(), args, []string{"--", f.member})...)
	p.cmd.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "VAULT_ADDR=" + f.srv.Addr, "VAULT_TOKEN=" + f.token,
		"RECORD=" + f.record(), "MEMBER=" + p.id}, f.lockEnv(), env)
	p.cmd.Stderr = out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := vaulttest.StartTied(p.cmd); err != nil {
		f.t.Fatal(err)
	}
	_ = out.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			p.mu.Lock()
			p.text.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
		_ = r.Close()
	}()
	go func() {
		_ = p.cmd.Wait()
		<-read
		close(p.done)
	}()
	f.list = append(f.list, p)
	f.t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		if text := p.said(); vaulttest.Redact(text) != text || slices.ContainsFunc(f.values, func(v string) bool { return strings.Contains(text, v) }) {
			f.t.Errorf("%s shows a secret", p.id)
		} else if f.t.Failed() {
			f.t.Logf("member %s:\n%s", p.id, text)
		}
	})
	return p
}

func (f *fleet) lockArgs() []string {
	if f.lock == nil {
		return nil
	}
	return append([]string{"--restart-lock", f.lock.url()}, f.lock.args()...)
}

func (f *fleet) lockEnv() []string {
	if f.lock == nil {
		return nil
	}
	return f.lock.env()
}

func (f *fleet) record() string { return filepath.Join(f.dir, "record") }

// kill ends it with SIGKILL, and its command with it. What its clients see from now on is no failure.
func (p *process) kill() {
	p.gone.Store(true)
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (f *fleet) until(what string, cond func() bool) {
	f.t.Helper()
	wait.Until(f.t, limit, what, cond)
}

// note is a line of the record.
type note struct {
	id, what, value string
	at              time.Duration
}

func (f *fleet) notes() (list []note) {
	text, _ := os.ReadFile(f.record())
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) == 4 && strings.HasSuffix(line, "\n") {
			at, _ := strconv.ParseInt(w[1], 10, 64)
			list = append(list, note{w[0], w[2], w[3], time.Duration(at)})
		}
	}
	return list
}

// have counts the members that last started with a value, and run.
func (f *fleet) have(value string) (n int) {
	last := map[string]note{}
	for _, e := range f.notes() {
		if e.what == "start" {
			last[e.id] = e
		}
	}
	for _, e := range last {
		if e.value == value {
			n++
		}
	}
	return n
}

// tried counts the starts with a value.
func (f *fleet) tried(value string) (n int) {
	for _, e := range f.notes() {
		if e.what == "start" && e.value == value {
			n++
		}
	}
	return n
}

// order is when the first start with a value was, and when the next one.
type order struct{ by, next time.Duration }

func (f *fleet) first(value string) (o order) {
	for _, e := range f.notes() {
		switch {
		case e.what != "start" || e.value != value:
		case o.by == 0:
			o.by = e.at
		case o.next == 0:
			o.next = e.at
		}
	}
	return o
}

// saying counts the processes that said something.
func (f *fleet) saying(text string) (n int) {
	for _, p := range f.list {
		if strings.Contains(p.said(), text) {
			n++
		}
	}
	return n
}

// most is how many members were restarting at once: from the moment when one is told to stop to the end of the next one's probation.
func (f *fleet) most() int {
	type edge struct {
		at time.Duration
		by int
	}
	var edges []edge
	stopped := map[string]time.Duration{}
	for _, e := range f.notes() {
		switch at, was := stopped[e.id]; {
		case e.what == "stop":
			stopped[e.id] = e.at
		case was:
			edges = append(edges, edge{at, 1}, edge{e.at + probation - slack, -1})
			delete(stopped, e.id)
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return a.by - b.by
	})
	now, most := 0, 0
	for _, e := range edges {
		now += e.by
		most = max(most, now)
	}
	return most
}

// observe asks the engine again and again who has the places, until stop is called, which returns the most that had one at once.
func (f *fleet) observe() (stop func() int) {
	end, most := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				most <- n
				return
			case <-tick.C:
				n = max(n, len(f.lock.holders()))
			}
		}
	}()
	return func() int {
		close(end)
		return <-most
	}
}
