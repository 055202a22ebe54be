package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
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

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Nothing that Vault, the network or a bad secret does takes a running command down, and the next rotation still arrives.

// logBegan begins the one warning of an outage; "still cannot look at the secrets" is a line for debugging.
const logBegan = logTrouble + ", the command keeps running"

// onlyChild asserts that the command was not touched.
func (w *watched) onlyChild(before started) {
	w.t.Helper()
	if now := w.last(); now.pid != before.pid || !alive(before.pid) {
		w.t.Fatalf("the command was touched: process %d, then %d", before.pid, now.pid)
	}
}

// Whatever stands between vaultexec and Vault does, there is one warning, the command runs on, and a rotation
// made meanwhile arrives when it is over.
func TestOutageInBetween(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]vaulttest.Behaviour{
		"reset":     vaulttest.Reset,
		"truncated": vaulttest.Truncate,
		"blackhole": vaulttest.BlackHole,
		"delayed":   vaulttest.Delay(10 * time.Second),
		"quota":     vaulttest.Errors(429, "request path \"x\": rate limit quota exceeded"),
		"internal":  vaulttest.Errors(500, "internal error"),
		"gateway":   vaulttest.HTML(502),
		"portal":    vaulttest.HTML(200),
		"empty":     vaulttest.Answer(200, ""),
		"redirect":  vaulttest.Redirect(307, "http://127.0.0.1:1"),
		"standby":   vaulttest.Errors(500, "local node not active but active cluster node not found"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, 2)
			w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one") })
			before := w.last()
			w.proxy.Set(trouble)
			w.waitLog(logBegan, 1)
			v := w.fresh("one", "A")
			w.waitLog("still cannot look at the secrets", 2)
			w.onlyChild(before)
			w.proxy.Clear()
			w.waitLog(logOver, 1)
			w.waitA(v)
			w.wantStarts(2)
			w.wantLines(1, logBegan)
			w.wantLines(1, logOver)
			began, over := w.lines(logBegan)[0], w.lines(logOver)[0]
			after, err := time.ParseDuration(over.str("after")) // how old what the command has may be
			if began.str("level") != "WARN" || over.str("level") != "INFO" || err != nil || after <= 0 || !strings.Contains(began.str("msg"), w.mount+"/one: ") {
				t.Errorf("the lines of the outage: %v, %v", began, over)
			}
			w.stop()
		})
	}
}

// waitAfter starts vaultexec and waits for the first child, whose A must be v.
func (w *watched) waitAfter(v string, start func()) {
	w.t.Helper()
	start()
	w.waitA(v)
}

// relay hands connections on to where it was last told.
type relay struct {
	addr  string
	mu    sync.Mutex
	to    string
	conns []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), to: to}
	t.Cleanup(func() { _ = l.Close(); r.point("") })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			far, err := net.Dial("tcp", r.to)
			r.conns = append(r.conns, near)
			r.mu.Unlock()
			if err != nil {
				_ = near.Close()
				continue
			}
			go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
			go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
		}
	}()
	return r
}

// point cuts all connections; the next ones go elsewhere.
func (r *relay) point(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// A server that shows a certificate of another authority for a while, as after a botched renewal: TLS trouble is tried again
// beside a command, though not before it.
func TestOutageOfTheCertificate(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	ca := vaulttest.NewCA(t, "the one")
	host := func(p *vaulttest.Proxy) string { return strings.TrimPrefix(p.Addr, "https://") }
	good := host(vaulttest.NewTLSProxy(t, w.srv, ca.Server(t, vaulttest.CertOpts{})))
	bad := host(vaulttest.NewTLSProxy(t, w.srv, vaulttest.NewCA(t, "another").Server(t, vaulttest.CertOpts{})))
	r := newRelay(t, good)
	w.proxy = &vaulttest.Proxy{Addr: "https://" + r.addr}
	w.env = append(w.env, "VAULT_CACERT="+ca.File)
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one") })
	before := w.last()
	r.point(bad)
	w.waitLog(logBegan, 1)
	v := w.fresh("one", "A")
	w.waitLog("still cannot look at the secrets", 2)
	w.waitLog("signed by an unknown authority", 1)
	w.onlyChild(before)
	r.point(good)
	w.waitA(v)
	w.waitLog(logOver, 1)
	w.wantStarts(2)
	w.wantLines(1, logBegan)
	w.stop()
}

// While Vault is away it is asked less often, not more.
func TestOutageCost(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one") })
	w.looks(3, 1)
	w.proxy.Set(vaulttest.Errors(500, "internal error"))
	w.waitLog(logBegan, 1)
	w.proxy.Forget()
	began := time.Now()
	w.waitLog("still cannot look at the secrets", 5)
	// Five looks took 0.2 + 0.4 + 0.8 + 1.6 + 1.6 s, less 10 %; without the pauses growing they would take one.
	if n, most := len(w.proxy.Requests()), int(time.Since(began)/(200*time.Millisecond)); n > most {
		t.Errorf("%d requests in %v, more than without trouble", n, time.Since(began))
	}
	w.stop()
}

// Vault itself: killed with SIGKILL and started again on its data, sealed and unsealed.
func TestOutageOfVault(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{})
	srv.Init(t, 3, 2)
	srv.Unseal(t)
	w := watchOn(t, srv, 2)
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one") })

	before := w.last()
	srv.Kill()
	w.waitLog(logBegan, 1)
	w.waitLog("still cannot look at the secrets", 2)
	w.onlyChild(before)
	srv.Restart(t) // sealed
	w.waitLog("Vault is sealed", 1)
	w.onlyChild(before)
	srv.Unseal(t)
	v := w.fresh("one", "A")
	w.waitA(v)
	w.waitLog(logOver, 1)

	before = w.last()
	srv.Seal(t)
	w.waitLog(logBegan, 2)
	w.waitLog("still cannot look at the secrets", 4)
	w.onlyChild(before)
	srv.Unseal(t)
	w.waitA(w.fresh("one", "A"))
	w.waitLog(logOver, 2)
	w.wantStarts(3)
	w.stop()
}

// A token that is revoked, and another one where it came from; a policy that is taken away and given back.
func TestOutageOfTheToken(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	file := filepath.Join(w.dir, "token")
	if err := os.WriteFile(file, []byte(w.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--token-file", file, "--path", "one") })

	before := w.last()
	w.srv.Must(t, "POST", "auth/token/revoke", map[string]string{"token": w.token})
	w.waitLog(logBegan, 1)
	v := w.fresh("one", "A")
	w.waitLog("still cannot look at the secrets", 2)
	w.onlyChild(before)
	next := w.srv.Token(t, vaulttest.TokenOpts{Policies: []string{w.policy}, NoDefault: true})
	if err := os.WriteFile(file+".new", []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	w.waitA(v)

	before = w.last()
	w.srv.Policy(t, w.policy, "# nothing any more")
	w.waitLog(logBegan, 2)
	w.waitLog("still cannot look at the secrets", 4)
	v = w.fresh("one", "A")
	w.onlyChild(before)
	w.srv.Policy(t, w.policy, w.rules(true))
	w.waitA(v)
	w.wantStarts(3)
	// The metadata is looked at again, and not the data for ever.
	w.looks(2, 1)
	w.proxy.Forget()
	w.looks(3, 1)
	if n := w.proxy.Count(func(r vaulttest.Request) bool { return !strings.Contains(r.Path, "/metadata/") }); n > 0 {
		t.Errorf("%d looks at something else than the metadata", n)
	}
	w.stop()
}

// A token helper that hangs when it is asked again keeps vaultexec neither from ending with its command nor from anything
// else.
func TestHangingTokenHelper(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	helper := filepath.Join(w.dir, "helper")
	script := fmt.Sprintf("#!/bin/sh\n[ ! -e %[1]s/hang ] || { echo $$ >%[1]s/hangs; exec sleep 100000 2>/dev/null; }\ncat %[1]s/token\n", w.dir)
	for name, text := range map[string]string{helper: script, filepath.Join(w.dir, "token"): w.token, filepath.Join(w.dir, ".vault"): fmt.Sprintf("token_helper = %q\n", helper)} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	token := w.token
	w.token = ""
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one") })
	if err := os.WriteFile(filepath.Join(w.dir, "hang"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.srv.Must(t, "POST", "auth/token/revoke", map[string]string{"token": token})
	pid := 0
	w.until("the helper", func() bool {
		text, _ := os.ReadFile(filepath.Join(w.dir, "hangs"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0 && strings.HasSuffix(string(text), "\n")
	})
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	w.stop()
	if !alive(pid) {
		t.Error("the helper did not hang: nothing was proven")
	}
}

// A value that makes the command fail at once leaves the service running on the old one, and is not tried again; a good
// one afterwards is taken.
func TestRollback(t *testing.T) {
	t.Parallel()
	for _, kv := range []int{1, 2} {
		t.Run(fmt.Sprint("kv", kv), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, kv)
			w.put("one", "A=fine", "B=1")
			w.start(append([]string{"--path", "one"}, failing...)...)
			w.waitA("fine")
			w.put("one", "A=broken", "B=1")
			w.waitStarts(3)
			if s := w.starts(); s[1].a != "broken" || s[2].a != "fine" {
				t.Fatalf("started with %q, then %q", s[1].a, s[2].a)
			}
			w.put("one", "A=broken", "B=1") // another version, the same values: on KV 1 nothing has changed
			w.looks(5, 1)
			w.put("one", "A=good", "B=1")
			w.waitA("good")
			if kv == 1 {
				w.wantStarts(4)
			}
			w.wantLines(len(w.starts())/2-1, "starting it with the last good ones")
			w.stop()
		})
	}
}

// failing is a command that notes its start and fails when A is broken.
var failing = shell(strings.Replace(noter, "exec sleep", `[ "$A" != broken ] || exit 3; exec sleep`, 1))

// --no-rollback ends with the command.
func TestNoRollback(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.put("one", "A=fine")
	w.start(append([]string{"--path", "one", "--no-rollback"}, failing...)...)
	w.waitA("fine")
	w.put("one", "A=broken")
	w.finish("3")
	w.wantStarts(2)
}

// A secret that cannot become an environment leaves the command on what it has, and the log says why, once.
func TestUnusableChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		data map[string]any
		why  string
	}{
		"name":      {map[string]any{"A": "x", "a-b": "1"}, "is not a variable name"},
		"dangerous": {map[string]any{"A": "x", "LD_PRELOAD": "/tmp/x.so"}, "changes which code runs"},
		"null":      {map[string]any{"A": nil}, "the value is null"},
		"nul":       {map[string]any{"A": "x\x00y"}, "NUL byte"},
		"too long":  {map[string]any{"A": strings.Repeat("x", 200_000)}, "a variable may have"},
		"collision": {map[string]any{"A": "x", "C": "y"}, "both"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, 2)
			w.put("two", "C=1")
			w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one", "--path", "two") })
			before := w.last()
			w.srv.PutKV(t, w.mount, "one", c.data)
			w.waitLog(logUnused, 1)
			w.looks(4, 2)
			w.onlyChild(before)
			if list := w.lines(logUnused); len(list) != 1 || !strings.Contains(list[0].str("msg"), c.why) {
				t.Errorf("%d lines, not one with %q", len(list), c.why)
			}
			w.waitA(w.fresh("one", "A"))
			w.waitLog(logUsable, 1)
			w.wantStarts(2)
			w.stop()
		})
	}
}

// Ten rotations of three paths at random moments. The last environment is Vault's last state, there are ten
// restarts at most, and never two within --min-uptime.
func TestTenRotations(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	for _, k := range []string{"A", "B", "C"} {
		w.put(strings.ToLower(k), k+"=0")
	}
	const uptime = time.Second
	w.start(append([]string{"--path", "a", "--path", "b", "--path", "c", "--min-uptime", uptime.String()},
		shell(`date +%s%N >>"$RECORD.times"; `+noter)...)...)
	w.waitStarts(1)
	for i := range 10 {
		for _, k := range []string{"A", "B", "C"} {
			w.put(strings.ToLower(k), fmt.Sprintf("%s=%d", k, i+1))
		}
		w.looks(1+rand.IntN(4), 3) // a moment that depends on what vaultexec does, not on a clock
	}
	w.until("Vault's last state", func() bool { s := w.last(); return s.a == "10" && s.b == "10" && s.c == "10" })
	if n := len(w.starts()); n > 11 {
		t.Errorf("%d restarts", n-1)
	}
	text, _ := os.ReadFile(w.record() + ".times")
	var last int64
	for line := range strings.FieldsSeq(string(text)) {
		at, _ := strconv.ParseInt(line, 10, 64)
		// The note is written a moment after the start: the allowance is for the shell, not for vaultexec.
		if last != 0 && time.Duration(at-last) < uptime-200*time.Millisecond {
			t.Errorf("two starts within %v", time.Duration(at-last))
		}
		last = at
	}
	w.stop()
}

// --on-change-hook is told names and no values, its failure postpones the change, and its output goes to standard error.
func TestHook(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	hook := filepath.Join(w.dir, "hook")
	script := "#!/bin/sh\necho hook says hello\nenv >\"$RECORD.env\"\ntr '\\0' '\\n' </proc/$$/cmdline >\"$RECORD.argv\"\n"
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "VAULT_ROLE_ID=x", "A=inherited")
	old := w.fresh("one", "A")
	w.waitAfter(old, func() { w.start("--path", "one", "--on-change-hook", hook) })
	v := w.fresh("one", "A")
	w.waitA(v)
	env, err := os.ReadFile(w.record() + ".env")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(env), "\n")
	for _, want := range []string{"VAULTEXEC_CHANGED_NAMES=A", "VAULTEXEC_CHANGED_PATHS=" + w.mount + "/one"} {
		if !slices.Contains(lines, want) {
			t.Errorf("the hook was not told %s", want)
		}
	}
	argv, _ := os.ReadFile(w.record() + ".argv")
	for _, text := range []string{string(env), string(argv)} {
		if strings.Contains(text, v) || strings.Contains(text, old) || strings.Contains(text, w.token) || strings.Contains(text, "VAULT_TOKEN") ||
			strings.Contains(text, "VAULT_ROLE_ID") || strings.Contains(text, "\nA=") {
			t.Error("the hook has a secret or a credential")
		}
	}
	if !strings.Contains(w.stderr(), "hook says hello") {
		t.Error("the hook's output is lost")
	}

	before := w.last()
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nexit 4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.fresh("one", "A")
	w.waitLog("the hook failed, the change is postponed", 1)
	w.onlyChild(before)
	w.stop()
}

// A file that cannot be put in its place leaves the change as it was: it is tried again, and the signal comes when it is there.
func TestSignalWaitsForTheFile(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	dir, err := os.MkdirTemp("/dev/shm", "vaultexec-test-")
	if err != nil {
		t.Skip("no /dev/shm")
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "a")
	first := w.fresh("one", "A")
	script := `trap 'printf "start %s|%s||\n" $$ "$(cat "$A_FILE")" >>"$RECORD"' HUP
printf 'start %s|%s||\n' $$ "$(cat "$A_FILE")" >>"$RECORD"; while :; do sleep 0.02; done`
	w.waitAfter(first, func() {
		w.start(append([]string{"--path", "one", "--file", "A=" + file, "--on-change", "signal:HUP"}, shell(script)...)...)
	})
	// The file of somebody else's that is no file, in its place.
	if err := os.Rename(file, file+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	v := w.fresh("one", "A")
	w.waitLog("the change is postponed", 1)
	w.wantStarts(1)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.waitA(v)
	if w.last().pid != w.starts()[0].pid {
		t.Error("restarted in place of being signalled")
	}
	w.stop()
}

// A SIGTERM while the hook runs ends the hook and the command, and starts nothing.
func TestTermDuringTheHook(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	hook := filepath.Join(w.dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho $$ >\"$RECORD.hook\"\nexec sleep 100000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one", "--on-change-hook", hook) })
	w.fresh("one", "A")
	pid := 0
	w.until("the hook", func() bool {
		text, _ := os.ReadFile(w.record() + ".hook")
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0 && strings.HasSuffix(string(text), "\n")
	})
	w.stop()
	w.wantStarts(1)
	wait.Until(t, limit, "the end of the hook", func() bool { return !alive(pid) })
}

// A stopped command is restarted, too: SIGTERM alone would wait until somebody resumes it.
func TestRestartOfAStoppedCommand(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one") })
	if err := syscall.Kill(w.last().pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.waitA(w.fresh("one", "A"))
	w.wantStarts(2)
	w.stop()
}

// A program that is gone at the time of the restart leaves the old one running; when it is back the change is acted on.
func TestProgramGone(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	prog := filepath.Join(w.dir, "prog")
	if err := os.WriteFile(prog, []byte("#!/bin/sh\n"+noter), 0o755); err != nil {
		t.Fatal(err)
	}
	w.waitAfter(w.fresh("one", "A"), func() { w.start("--path", "one", "--", prog) })
	before := w.last()
	if err := os.Rename(prog, prog+".away"); err != nil {
		t.Fatal(err)
	}
	w.fresh("one", "A")
	w.waitLog("the command could not be started again, the change is postponed", 1)
	w.onlyChild(before)
	w.stop()
	w.wantStarts(1)
}

// Three raft nodes behind a balancer; the leader is killed while a rotation is under way. Nothing is restarted on stale data,
// and the rotation arrives.
func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	c := vaulttest.Cluster(t, 3)
	w := watchOn(t, c.Leader(t), 2)
	w.proxy = &vaulttest.Proxy{Addr: balance(t, c.All)}
	first := w.fresh("one", "A")
	w.waitAfter(first, func() { w.start("--path", "one") })
	v := w.fresh("one", "A")
	c.KillLeader(t)
	w.srv = c.Leader(t)
	w.waitA(v)
	v2 := w.fresh("one", "A")
	w.waitA(v2)
	for i, s := range w.starts() {
		if want := []string{first, v, v2}; i > 2 || s.a != want[i] {
			t.Errorf("start %d has a stale or unknown value", i+1)
		}
	}
	w.stop()
}

// balance is a load balancer that takes the nodes in turn, the next one when a node does not answer.
func balance(t *testing.T, nodes []*vaulttest.Server) string {
	t.Helper()
	var turn atomic.Int64
	var backends []*httputil.ReverseProxy
	for _, n := range nodes {
		u, err := url.Parse(n.Addr)
		if err != nil {
			t.Fatal(err)
		}
		p := httputil.NewSingleHostReverseProxy(u)
		p.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
		backends = append(backends, p)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backends[int(turn.Add(1))%len(backends)].ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// uvicorn under steady load through 20 rotations. How many requests fail is reported, not judged.
func TestUvicornThroughRotations(t *testing.T) {
	uvicorn := needs.Program(t, "uvicorn")
	t.Parallel()
	w := newWatched(t, 2)
	app := "import os\nasync def app(scope, receive, send):\n" +
		"    if scope['type'] != 'http':\n        return\n" +
		"    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n" +
		"    await send({'type': 'http.response.body', 'body': os.environ['N'].encode()})\n"
	if err := os.WriteFile(filepath.Join(w.dir, "rotated.py"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	const rotations, pause = 20, 10 * time.Millisecond // a hundred requests a second, whether they are answered or not
	port := freePort(t)
	w.put("one", "N=0")
	w.launch("--path", "one", "--watch", "--interval", "200ms", "--settle", "100ms", "--min-uptime", "100ms", "--log-format", "json",
		"--", uvicorn, "--app-dir", w.dir, "--port", port, "--log-level", "warning", "rotated:app")
	get := func() string {
		resp, err := http.Get("http://127.0.0.1:" + port)
		if err != nil {
			return ""
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	w.until("uvicorn", func() bool { return get() == "0" })
	var requests, failed atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		var load sync.WaitGroup
		defer load.Wait()
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				load.Go(func() {
					requests.Add(1)
					if get() == "" {
						failed.Add(1)
					}
				})
			}
		}
	}()
	for i := range rotations {
		n := fmt.Sprint(i + 1)
		w.put("one", "N="+n)
		w.until("rotation "+n, func() bool { return get() == n })
	}
	close(stop)
	<-stopped
	t.Logf("%d rotations, %d requests, %d failed: %v without an answer each time", rotations, requests.Load(), failed.Load(),
		(time.Duration(failed.Load()) * pause / rotations).Round(pause))
	w.signal(syscall.SIGTERM)
	<-w.done
}

// freePort is below the range from which the kernel takes the ports of outgoing connections.
func freePort(t *testing.T) string {
	t.Helper()
	port := 0
	wait.Until(t, limit, "a free port", func() bool {
		port = 10000 + rand.IntN(8000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		return err == nil && l.Close() == nil
	})
	return strconv.Itoa(port)
}

// Memory and descriptors stay flat. VAULTEXEC_SOAK=10m runs it for so long at --interval 1s; else a hundred looks do.
func TestSoak(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	interval, looks := "100ms", 100
	if d, err := time.ParseDuration(os.Getenv("VAULTEXEC_SOAK")); err == nil {
		interval, looks = "1s", int(d/time.Second)
	}
	w.bin = vaulttest.BuildStatic(t, ".")
	w.fresh("one", "A")
	w.fresh("two", "B")
	w.launch("--path", "one", "--path", "two", "--watch", "--interval", interval)
	w.waitStarts(1)
	pid := w.cmd.Process.Pid
	w.looks(40, 2) // the heap has its size
	fds, rss := count(pid), resident(t, pid)
	for range looks / 20 {
		w.looks(20, 2)
	}
	if now := count(pid); now > fds+2 {
		t.Errorf("%d descriptors, %d before", now, fds)
	}
	if now := resident(t, pid); now > rss+2048 {
		t.Errorf("%d KiB anonymous memory, %d before", now, rss)
	}
	t.Logf("%d KiB anonymous memory and %d descriptors after %d looks", resident(t, pid), count(pid), looks)
	w.stop()
}

func count(pid int) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list)
}

// resident is RssAnon of a process in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// Two hundred watchers that start at the same time do not look at the same time.
func TestWatchersSpread(t *testing.T) {
	if testing.Short() {
		t.Skip("two hundred processes")
	}
	t.Parallel()
	w := newWatched(t, 2)
	bin := vaulttest.BuildStatic(t, ".")
	w.fresh("one", "A")
	const watchers, interval = 200, 10 * time.Second
	var all []*exec.Cmd
	t.Cleanup(func() {
		for _, c := range all {
			_ = c.Process.Signal(syscall.SIGTERM)
		}
		for _, c := range all {
			_ = c.Wait()
		}
	})
	for range watchers {
		c := exec.Command(bin, "--mount", w.mount, "--path", "one", "--watch", "--interval", interval.String(), "--", "sleep", "100000")
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "VAULT_ADDR=" + w.proxy.Addr, "VAULT_TOKEN=" + w.token}
		if err := vaulttest.StartTied(c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	looks := func() (at []time.Time) {
		for _, r := range w.proxy.Requests() {
			if strings.Contains(r.Path, "/metadata/") {
				at = append(at, r.At)
			}
		}
		return at
	}
	wait.Until(t, 2*time.Minute, "three rounds of looks", func() bool { return len(looks()) >= 3*watchers })
	at := looks()[watchers : 3*watchers] // the first round is that of the start
	var parts [10]int
	for _, a := range at {
		parts[a.UnixNano()%int64(interval)*10/int64(interval)]++
	}
	for i, n := range parts {
		if n < 10 || n > 90 { // about 40; a busy machine moves some
			t.Errorf("%d of %d looks in part %d of the interval: %v", n, len(at), i, parts)
		}
	}
	t.Logf("looks in tenths of the interval: %v", parts)
}

// A login whose tokens live 5 s, and 20 s at most: they are renewed and replaced while the command runs undisturbed, a
// rotation in between arrives, and at the end no token of ours is left. VAULTEXEC_SOAK makes it last as long as it says.
func TestTokensEndWhileWatching(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	auth, role, roleID, secretID := w.scope.AppRole(w.policy)
	w.srv.Must(t, "POST", "auth/"+auth+"/role/"+role, map[string]any{"token_ttl": "5s", "token_max_ttl": "20s"})
	file := filepath.Join(w.dir, "secret-id")
	if err := os.WriteFile(file, []byte(secretID), 0o600); err != nil {
		t.Fatal(err)
	}
	logins := func() int {
		return w.proxy.Count(func(r vaulttest.Request) bool { return r.Path == "auth/"+auth+"/login" })
	}
	want, begin := 3, time.Now()
	soak, _ := time.ParseDuration(os.Getenv("VAULTEXEC_SOAK")) // 0 without one
	want = max(want, int(soak/(20*time.Second)))
	w.waitAfter(w.fresh("one", "A"), func() {
		w.start("--path", "one", "--auth", "approle", "--auth-mount", auth, "--role-id", roleID, "--secret-id-file", file)
	})
	before := w.last()
	wait.Until(t, time.Duration(want)*time.Minute, "further logins", func() bool { return logins() >= want && time.Since(begin) >= soak })
	w.onlyChild(before)
	w.waitA(w.fresh("one", "A"))
	w.wantStarts(2)
	for _, line := range w.lines(logBegan) { // but for a machine that was too busy to answer in time
		if !strings.Contains(fmt.Sprint(line), "no answer in time") {
			t.Errorf("%v", line)
		}
	}
	w.stop()
	// What Vault still knows of that login.
	_, out := w.srv.Do(t, "LIST", "auth/token/accessors", nil)
	data, _ := out["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	for _, k := range keys {
		status, found := w.srv.Do(t, "POST", "auth/token/lookup-accessor", map[string]any{"accessor": k})
		token, _ := found["data"].(map[string]any)
		if status == http.StatusOK && token["path"] == "auth/"+auth+"/login" {
			t.Error("a token of ours is left")
		}
	}
	if len(keys) == 0 {
		t.Error("the look at Vault's tokens is blind")
	}
}
