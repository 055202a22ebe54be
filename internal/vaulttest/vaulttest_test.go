package vaulttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// With this variable set, the test binary is the one that dies with a server running.
const crashVar = "VAULTTEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashVar) != "" {
		crash()
	}
	Main(m)
}

// crash starts a server, tells its pid and panics, as a failing test can.
func crash() {
	s, err := StartDev()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.PID())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // the parent has looked
	panic("on purpose")
}

func TestServerDiesWithACrashingTest(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashVar+"=1", "TMPDIR="+t.TempDir())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the helper says %q", Redact(line))
	}
	if !alive(pid) {
		t.Fatal("the server does not run: the test below would prove nothing")
	}
	_, _ = io.WriteString(in, "\n")
	if err := cmd.Wait(); err == nil {
		t.Fatal("the helper did not crash")
	}
	wait.Until(t, 30*time.Second, "the server to end", func() bool { return !alive(pid) })
}

// alive does not count zombies: who reaps an orphan, and when, is the machine's affair.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestDevIsShared(t *testing.T) {
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	a, b := Dev(t), Dev(t)
	if a != b {
		t.Error("two servers in one test binary")
	}
	if status, out := a.Do(t, "GET", "auth/token/lookup-self", nil); status != 200 {
		t.Errorf("root token: status %d, %v", status, out)
	}
	if strings.Contains(a.Log(), a.RootToken) {
		t.Error("the log shows the root token")
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", a.PID()))
	if err == nil && strings.Contains(string(env), "VAULT_") {
		t.Error("Vault inherited a VAULT_ variable")
	}
}

func TestKV(t *testing.T) {
	s := Dev(t)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			sc := s.Scope(t)
			m := sc.Mount(version)
			if v := s.PutKV(t, m, "a/with space", map[string]any{"K": "v"}); v != version-1 {
				t.Errorf("first version is %d", v)
			}
			if v := s.PutKV(t, m, "a/with space", `{"N": 12345678901234567890}`); v != 2*(version-1) {
				t.Errorf("second version is %d", v)
			}
			path, want := Escape(m+"/a/with space"), "12345678901234567890"
			if version == 2 {
				// Vault itself rounds an integer beyond 2^53 as float64 does.
				path, want = m+"/data/"+Escape("a/with space"), "12345678901234567000"
			}
			out := s.Must(t, "GET", path, nil)
			data, _ := out["data"].(map[string]any)
			if version == 2 {
				data, _ = data["data"].(map[string]any)
			}
			if n, _ := data["N"].(json.Number); n.String() != want {
				t.Errorf("N = %v, want %s", data["N"], want)
			}
			token := s.Token(t, TokenOpts{Policies: []string{sc.ReadPolicy(m, "a/with space")}, NoDefault: true, NumUses: 1})
			if status, _ := s.DoAs(t, token, "GET", path, nil); status != 200 {
				t.Errorf("narrow token: status %d", status)
			}
			if status, _ := s.DoAs(t, token, "GET", path, nil); status != 403 {
				t.Errorf("used-up token: status %d", status)
			}
		})
	}
}

func TestKVVersionOfAForeignMount(t *testing.T) {
	s := Dev(t)
	// Dev mode itself mounts secret/ as version 2.
	if v := s.PutKV(t, "secret", t.Name(), map[string]string{"K": "v"}); v < 1 {
		t.Errorf("version %d", v)
	}
}

func TestTokens(t *testing.T) {
	s := Dev(t)
	batch := s.Token(t, TokenOpts{Type: "batch", TTL: time.Minute})
	if status, out := s.DoAs(t, batch, "GET", "auth/token/lookup-self", nil); status != 200 {
		t.Errorf("batch token: status %d %v", status, out["errors"])
	}
	periodic := s.Token(t, TokenOpts{Period: time.Hour, ExplicitMax: 2 * time.Hour})
	_, out := s.DoAs(t, periodic, "GET", "auth/token/lookup-self", nil)
	if data, _ := out["data"].(map[string]any); fmt.Sprintf("%v %v", data["period"], data["explicit_max_ttl"]) != "3600 7200" {
		t.Errorf("period and maximum: %v %v", data["period"], data["explicit_max_ttl"])
	}
	if bare := s.Token(t, TokenOpts{NoDefault: true, Policies: []string{"none"}}); bare != "" {
		if status, _ := s.DoAs(t, bare, "GET", "auth/token/lookup-self", nil); status != 403 {
			t.Errorf("without the default policy: status %d", status)
		}
	}
}

func TestAppRole(t *testing.T) {
	s := Dev(t)
	mount, _, roleID, secretID := s.Scope(t).AppRole("default")
	status, out := s.DoAs(t, "", "POST", "auth/"+mount+"/login", map[string]string{"role_id": roleID, "secret_id": secretID})
	if status != 200 {
		t.Errorf("login: status %d %v", status, out["errors"])
	}
}

func TestScopesAtOnce(t *testing.T) {
	s := Dev(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			sc := s.Scope(t)
			s.PutKV(t, sc.Mount(2), "x", map[string]string{"K": "v"})
		})
	}
	wg.Wait()
}

func TestRaft(t *testing.T) {
	t.Parallel()
	s := Raft(t, RaftOpts{TLS: true})
	s.Init(t, 5, 3)
	s.Unseal(t)
	s.MountKV(t, "team/kv", 2)
	s.PutKV(t, "team/kv", "app", map[string]any{"K": Canary("raft")})

	s.Kill()
	s.Restart(t)
	if _, out := s.SealStatus(t); out["sealed"] != true {
		t.Error("not sealed after a restart")
	}
	s.Unseal(t)
	if v := s.PutKV(t, "team/kv", "app", map[string]any{"K": "w"}); v != 2 {
		t.Errorf("version %d after the restart: the data is gone", v)
	}
	s.Seal(t)
	if status, _ := s.Do(t, "GET", "team/kv/data/app", nil); status != 503 {
		t.Errorf("sealed: status %d", status)
	}
	s.Unseal(t)

	pool, err := trust(s.CACert)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient(pool).Get(s.Addr + "/v1/sys/health")
	if err != nil {
		t.Fatalf("with the CA: %v", err)
	}
	_ = resp.Body.Close()
	if _, err := newClient(nil).Get(s.Addr + "/v1/sys/health"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("without the CA: %v", err)
	}
	s.Stop()
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("Stop leaves files: %v", err)
	}
}

func TestBadCertificates(t *testing.T) {
	t.Parallel()
	ca := NewCA(t, "one")
	for name, tc := range map[string]struct {
		cert *KeyPair
		want string
	}{
		"wrong name": {ca.Server(t, CertOpts{DNS: []string{"vault.example"}}), "127.0.0.1"},
		"expired":    {ca.Server(t, CertOpts{Expired: true}), "expired"},
		"other CA":   {NewCA(t, "two").Server(t, CertOpts{}), "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Raft(t, RaftOpts{Cert: tc.cert, CA: ca})
			conf, err := trust(ca.File)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := newClient(conf).Get(s.Addr + "/v1/sys/health")
			if err == nil {
				_ = resp.Body.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			s.Init(t, 1, 1) // our own requests still work
			s.Unseal(t)
		})
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := Cluster(t, 3)
	first := c.Leader(t)
	first.MountKV(t, "kv", 2)
	first.PutKV(t, "kv", "app", map[string]string{"K": "v"})
	c.Standby(t)
	if dead := c.KillLeader(t); dead != first {
		t.Error("another leader was killed")
	}
	second := c.Leader(t)
	if second == first {
		t.Fatal("the dead node leads")
	}
	if out := second.Must(t, "GET", "kv/data/app", nil); out["data"] == nil {
		t.Error("the data is gone")
	}
	first.Restart(t)
	c.UnsealNode(t, first)
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().(*net.TCPAddr).Port
	bin, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{bin: bin, dir: t.TempDir(), client: newClient(nil), Addr: "http://" + l.Addr().String(), port: taken,
		args: []string{"server", "-dev", "-dev-no-store-token", "-dev-listen-address=" + l.Addr().String()}}
	if err := s.start(); err != ErrPortTaken {
		t.Errorf("%v, want %v", err, ErrPortTaken)
	}
}

func get(t *testing.T, p *Proxy, path string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest("GET", p.Addr+"/v1/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", "never-noted")
	req.Header.Set("User-Agent", "probe/1")
	client := newClient(nil)
	client.Timeout = time.Second
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestProxy(t *testing.T) {
	s := Dev(t)
	p := NewProxy(t, s)
	resp, whole, err := get(t, p, "sys/seal-status?x=y")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("pass: %v", err)
	}
	reqs := p.Requests()
	if len(reqs) != 1 || reqs[0].Path != "sys/seal-status" || reqs[0].Query != "x=y" || reqs[0].Method != "GET" ||
		!reqs[0].Has("x-vault-token") || reqs[0].UserAgent != "probe/1" || p.Conns() != 1 {
		t.Errorf("noted %+v on %d connections", reqs, p.Conns())
	}
	if strings.Contains(fmt.Sprintf("%+v", reqs), "never-noted") {
		t.Error("the token is noted")
	}
	p.Forget()

	p.Set(Reset)
	if _, _, err := get(t, p, "sys/health"); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("reset: %v", err)
	}
	p.Set(Truncate)
	if _, part, err := get(t, p, "sys/seal-status"); err == nil || part == "" || len(part) >= len(whole) {
		t.Errorf("truncate: %q, %v", part, err)
	}
	p.Set(BlackHole)
	if _, _, err := get(t, p, "sys/health"); err == nil || !strings.Contains(err.Error(), "Timeout") {
		t.Errorf("black hole: %v", err)
	}
	p.Set(Delay(50 * time.Millisecond))
	start := time.Now()
	if _, _, err := get(t, p, "sys/health"); err != nil || time.Since(start) < 50*time.Millisecond {
		t.Errorf("delay: %v after %v", err, time.Since(start))
	}
	p.Set(First(1, Errors(429, "rate limit quota exceeded"), Pass))
	p.On(Under("kv/"), Answer(502, "", "Retry-After", "7"))
	for _, want := range []int{429, 200} {
		if resp, _, err := get(t, p, "sys/health"); err != nil || resp.StatusCode != want {
			t.Errorf("first: %v %v, want %d", resp, err, want)
		}
	}
	if resp, _, err := get(t, p, "kv/x"); err != nil || resp.StatusCode != 502 || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("rule: %v %v", resp, err)
	}
	p.Clear()
	p.Set(Redirect(307, "http://127.0.0.1:1"))
	if resp, _, err := get(t, p, "kv/x?y"); err != nil || resp.Header.Get("Location") != "http://127.0.0.1:1/v1/kv/x?y" {
		t.Errorf("redirect: %v %v", resp, err)
	}
	p.Set(HTML(200))
	if _, body, err := get(t, p, "kv/x"); err != nil || !strings.HasPrefix(body, "<html>") {
		t.Errorf("html: %q %v", body, err)
	}
	if n := p.Count(func(r Request) bool { return strings.HasPrefix(r.Path, "kv/") }); n != 3 {
		t.Errorf("%d requests below kv/", n)
	}
}

func TestProxyOverTLS(t *testing.T) {
	s := Dev(t)
	ca := NewCA(t, "proxy")
	p := NewTLSProxy(t, s, ca.Server(t, CertOpts{}))
	conf, err := trust(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		b    Behaviour
		want string
	}{{Pass, ""}, {Reset, "reset"}} {
		p.Set(tc.b)
		resp, err := newClient(conf).Get(p.Addr + "/v1/sys/health")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v, want %q", err, tc.want)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
	}
}

func TestProxyInFrontOfADeadServer(t *testing.T) {
	s := NewDev(t)
	p := NewProxy(t, s)
	s.Kill()
	if _, _, err := get(t, p, "sys/health"); err == nil {
		t.Error("a dead server answers")
	}
}

func TestRedact(t *testing.T) {
	v := Canary("redact") + "<&>\nsecond line"
	Secret(v)
	js, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{v, string(js), fmt.Sprintf("%q", v), "… second line"} {
		if r := Redact("before " + s + " after"); strings.Contains(r, "canary") || strings.Contains(r, "second") {
			t.Errorf("%q stays", r)
		}
	}
	Secret("1", "true", "dev")
	if s := "1 true dev"; Redact(s) != s {
		t.Error("short words are blackened")
	}
}

func TestSweepKeepsWhatIsInUse(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	old := time.Now().Add(-time.Hour)
	make := func(name string) string {
		dir := filepath.Join(os.TempDir(), scratchPattern+name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	used, dead, young := make("used"), make("dead"), make("young")
	lock, err := lockFile(filepath.Join(used, "lock"), syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	for _, dir := range []string{used, dead} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	for dir, want := range map[string]bool{used: true, dead: false, young: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", filepath.Base(dir), err)
		}
	}
}
