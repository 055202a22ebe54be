package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// rig is vaultexec, a Vault behind a proxy, and one secret that a token may read.
type rig struct {
	t      *testing.T
	bin    string
	srv    *vaulttest.Server
	proxy  *vaulttest.Proxy
	mount  string
	policy string // to read app
	token  string
	value  string // of API_KEY in app
	dir    string // where the command is started, and where it would leave "started"
	env    []string
}

// newRig makes a corner of the shared server, with a KV version 2 mount.
func newRig(t *testing.T) *rig { return rigOn(t, vaulttest.Dev(t)) }

func rigOn(t *testing.T, srv *vaulttest.Server) *rig {
	t.Helper()
	r := &rig{t: t, bin: vaulttest.Build(t, "."), srv: srv, value: vaulttest.Canary("API_KEY"), dir: t.TempDir()}
	sc := srv.Scope(t)
	r.mount = sc.Mount(2)
	srv.PutKV(t, r.mount, "app", map[string]any{"API_KEY": r.value})
	r.policy = sc.ReadPolicy(r.mount, "app")
	r.token = srv.Token(t, vaulttest.TokenOpts{Policies: []string{r.policy}, NoDefault: true})
	r.proxy = vaulttest.NewProxy(t, srv)
	r.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "GORACE=" + vaulttest.Gorace,
		"VAULT_ADDR=" + r.proxy.Addr, "VAULT_TOKEN=" + r.token, "VAULTEXEC_MOUNT=" + r.mount, "VAULTEXEC_PATH=app",
	}
	return r
}

// set adds variables; the last of a name counts.
func (r *rig) set(vars ...string) { r.env = append(r.env[:len(r.env):len(r.env)], vars...) }

// command is `vaultexec ARGS -- touch started`.
func (r *rig) touch(args ...string) *running {
	return r.start(append(args, "--", "touch", "started")...)
}

// started tells whether that command has run, and forgets it.
func (r *rig) started() bool { return os.Remove(filepath.Join(r.dir, "started")) == nil }

// running is one vaultexec.
type running struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err *output
	done     chan struct{}
	took     time.Duration
}

// output collects what a program writes, and can be looked at while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (r *rig) start(args ...string) *running {
	r.t.Helper()
	return startRun(r.t, r.dir, r.env, r.bin, args...)
}

func startRun(t *testing.T, dir string, env []string, bin string, args ...string) *running {
	t.Helper()
	j := &running{t: t, cmd: exec.Command(bin, args...), out: &output{}, err: &output{}, done: make(chan struct{})}
	j.cmd.Dir, j.cmd.Env, j.cmd.Stdout, j.cmd.Stderr = dir, env, j.out, j.err
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := vaulttest.StartTied(j.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = j.cmd.Wait()
		j.took = time.Since(begin)
		close(j.done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGKILL)
		<-j.done
	})
	return j
}

// finish waits for the end, which must be that code or signal, and that nothing secret was printed.
func (j *running) finish(want string) *running {
	j.t.Helper()
	select {
	case <-j.done:
	case <-time.After(time.Minute):
		_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGKILL)
		j.t.Fatalf("it does not end; standard error:\n%s", vaulttest.Redact(j.err.String()))
	}
	if got := vaulttest.Ending(j.cmd.ProcessState); got != vaulttest.Wanted(want) {
		j.t.Fatalf("it ended with %s, want %s; standard error:\n%s", got, vaulttest.Wanted(want), vaulttest.Redact(j.err.String()))
	}
	for _, text := range []string{j.out.String(), j.err.String()} {
		if clean := vaulttest.Redact(text); clean != text {
			j.t.Errorf("a secret is printed:\n%s", clean)
		}
		if strings.Contains(text, "goroutine ") || strings.Contains(text, "panic:") {
			j.t.Errorf("a stack is printed:\n%s", text)
		}
	}
	return j
}

// says checks standard error against a regular expression.
func (j *running) says(re string) *running {
	j.t.Helper()
	if !regexp.MustCompile("(?m)" + re).MatchString(j.err.String()) {
		j.t.Errorf("standard error does not match %q:\n%s", re, vaulttest.Redact(j.err.String()))
	}
	return j
}

// silent checks that nothing was printed at all.
func (j *running) silent() *running {
	j.t.Helper()
	if j.out.String() != "" || j.err.String() != "" {
		j.t.Errorf("something is printed:\n%s%s", vaulttest.Redact(j.out.String()), vaulttest.Redact(j.err.String()))
	}
	return j
}

// awaitStderr waits until standard error matches.
func (j *running) awaitStderr(re string) {
	j.t.Helper()
	compiled := regexp.MustCompile("(?m)" + re)
	wait.Until(j.t, 30*time.Second, "standard error to match "+re, func() bool { return compiled.MatchString(j.err.String()) })
}

func (j *running) signal(s syscall.Signal) {
	j.t.Helper()
	if err := j.cmd.Process.Signal(s); err != nil {
		j.t.Fatalf("cannot send a signal: %v", err)
	}
}

// vaultError is the body of an answer of Vault's.
func vaultError(status int, texts ...string) vaulttest.Behaviour {
	return vaulttest.Errors(status, texts...)
}

// eof closes the connection in an orderly way, without an answer.
func eof(_ *vaulttest.Proxy, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

const (
	policyForm = "1 error occurred:\n\t* permission denied\n\n"
	wrapped    = `{"request_id":"r","lease_id":"","lease_duration":0,"data":null,"wrap_info":{"token":"hvs.x","ttl":60,"creation_path":"x"}}`
)

// TestAnswers goes through the answers that Vault gives, and those of whatever stands in front of it. vaultexec waits for what
// may pass by itself and then goes on; everything else ends at once, although there is all the time in the world.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		does  vaulttest.Behaviour
		code  string // 120 and so on
		retry bool
		says  string // on standard error
		args  []string
	}{
		{name: "reset", does: vaulttest.Reset, code: "120", retry: true, says: `the connection was cut`},
		{name: "eof", does: eof, code: "120", retry: true, says: `the connection was cut`},
		{name: "truncated", does: vaulttest.Truncate, code: "120", retry: true, says: `the connection was cut`},
		{name: "timeout", does: vaulttest.BlackHole, code: "120", retry: true, says: `no answer in time`, args: []string{"--timeout", "200ms"}},
		{name: "html 200", does: vaulttest.HTML(200), code: "120", retry: true, says: `the answer is not Vault's \(HTTP 200, http://127`},
		{name: "html 404", does: vaulttest.HTML(404), code: "120", retry: true, says: `the answer is not Vault's \(HTTP 404`},
		{name: "html 403", does: vaulttest.HTML(403), code: "120", retry: true, says: `the answer is not Vault's \(HTTP 403`},
		{name: "html 503", does: vaulttest.HTML(503), code: "120", retry: true, says: `the answer is not Vault's \(HTTP 503`},
		{name: "html 502", does: vaulttest.HTML(502), code: "120", retry: true, says: `HTTP 502`},
		{name: "empty 200", does: vaulttest.Answer(200, ""), code: "120", retry: true, says: `the answer is not Vault's`},
		{name: "other JSON 404", does: vaulttest.Answer(404, `{"message":"no Route matched with those values"}`), code: "120", retry: true, says: `the answer is not Vault's \(HTTP 404`},
		{name: "other JSON 403", does: vaulttest.Answer(403, `{"error":{"code":403}}`), code: "120", retry: true, says: `the answer is not Vault's \(HTTP 403`},
		{name: "other JSON 200", does: vaulttest.Answer(200, `{"status":"ok"}`), code: "120", retry: true, says: `the answer is not Vault's`},
		{name: "JSON list", does: vaulttest.Answer(200, `[1]`), code: "120", retry: true, says: `the answer is not Vault's`},
		{name: "JSON of other types", does: vaulttest.Answer(200, `{"data":"x","lease_duration":"y"}`), code: "120", retry: true, says: `the answer is not Vault's`},
		{name: "redirect elsewhere", does: vaulttest.Redirect(307, "http://127.0.0.9:8200"), code: "120", retry: true, says: `a standby redirects to http://127.0.0.9:8200 \(not followed\)`},
		{name: "redirect 301", does: vaulttest.Redirect(301, "https://vault.example"), code: "120", retry: true, says: `redirects to https://vault.example`},
		{name: "redirect 302", does: vaulttest.Redirect(302, "http://vault.example"), code: "120", retry: true, says: `redirects to http://vault.example`},
		{name: "redirect to nowhere", does: vaulttest.Answer(307, ""), code: "120", retry: true, says: `a redirect to nowhere`},
		{name: "redirect to itself", does: vaulttest.Redirect(307, ""), code: "120", retry: true, says: `is about to take the lead, and redirects to itself`},
		{name: "wrapped", does: vaulttest.Answer(200, wrapped), code: "121", says: `a wrapping token in place of the answer`},
		{name: "warming up", does: vaultError(400, "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."), code: "120", retry: true, says: `the KV engine is being upgraded`},
		{name: "warming up on a secondary", does: vaultError(400, "Waiting for the primary to upgrade from non-versioned to versioned data."), code: "120", retry: true, says: `the KV engine is being upgraded`},
		{name: "directory away", does: vaultError(400, `LDAP Result Code 200 "Network Error": dial tcp`), code: "120", retry: true, says: `cannot reach the directory`},
		{name: "bad request", does: vaultError(400, "something is wrong"), code: "125", says: `something is wrong`},
		{name: "no such role", does: vaultError(400, "unknown role: app"), code: "122", says: `unknown role: app$`},
		{name: "http to https", does: vaulttest.Answer(400, "Client sent an HTTP request to an HTTPS server.\n", "Content-Type", "text/plain"), code: "120", says: `the server speaks TLS, and the address says http`},
		{name: "403 policy", does: vaultError(403, policyForm), code: "121", says: `permission denied$`},
		{name: "403 bare", does: vaultError(403, "permission denied"), code: "121", says: `the token is not valid$`},
		{name: "403 invalid token", does: vaultError(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"), code: "121", says: `the token is not valid$`},
		{name: "403 preflight", does: vaultError(403, "preflight capability check returned 403, please ensure client's policies grant access to path \"x/\""), code: "121", says: `reaches the mount, or it does not exist$`},
		{name: "404 nothing", does: vaultError(404), code: "122", says: `no such secret$`},
		{name: "404 no mount", does: vaultError(404, `no handler for route "x/data/app". route entry not found.`), code: "122", says: `no such mount$`},
		{name: "404 namespace", does: vaultError(404, "namespace not found"), code: "122", says: `no such namespace$`},
		{name: "404 unsupported", does: vaultError(404, "1 error occurred:\n\t* unsupported path\n\n"), code: "122", says: `not a path of this engine$`},
		{name: "405", does: vaultError(405, "1 error occurred:\n\t* unsupported operation\n\n"), code: "122", says: `does not support this operation`},
		{name: "412 header", does: vaultError(412, `missing "X-Vault-Request" header`), code: "125", says: `lacks a header`},
		{name: "412", does: vaultError(412, "required index state not present"), code: "120", retry: true, says: `has not caught up`},
		{name: "413", does: vaultError(413, "request too large"), code: "123", says: `too large`},
		{name: "429 quota", does: vaultError(429, "request path \"x\": rate limit quota exceeded"), code: "120", retry: true, says: `a rate limit quota of Vault is exceeded`},
		{name: "429", does: vaulttest.HTML(429), code: "120", retry: true, says: `too many requests`},
		{name: "429 Retry-After", does: vaulttest.Answer(429, `{"errors":["rate limit quota exceeded"]}`, "Retry-After", "1"), code: "120", retry: true, says: `a rate limit quota`},
		{name: "500", does: vaultError(500, "internal error"), code: "120", retry: true, says: `internal error$`},
		{name: "500 empty", does: vaultError(500), code: "120", retry: true, says: `HTTP 500$`},
		{name: "500 no leader", does: vaultError(500, "local node not active but active cluster node not found"), code: "120", retry: true, says: `the cluster has no leader yet`},
		{name: "502", does: vaultError(502, "bad gateway"), code: "120", retry: true, says: `bad gateway`},
		{name: "504", does: vaultError(504, "gateway timeout"), code: "120", retry: true, says: `gateway timeout`},
		{name: "503 sealed", does: vaultError(503, "Vault is sealed"), code: "120", retry: true, says: `Vault is sealed`},
		{name: "token of another namespace", does: vaultError(500, "error performing token check: failed to look up namespace from the token: no namespace"), code: "121", says: `the token is of another namespace or cluster$`},
		{name: "damaged token", does: vaultError(500, "illegal base64 data at input byte 4"), code: "121", says: `the token is damaged`},
		{name: "DR secondary", does: vaultError(400, "path disabled in replication DR secondary mode"), code: "120", retry: true, says: `disaster recovery secondary`},
		{name: "401", does: vaultError(401, "unauthorized"), code: "121", says: `something wants credentials that are not Vault's`},
		{name: "408", does: vaultError(408, "timeout"), code: "120", retry: true, says: `took too long`},
		{name: "472", does: vaultError(472), code: "120", retry: true, says: `disaster recovery secondary`},
		{name: "473", does: vaultError(473), code: "120", retry: true, says: `performance standby`},
		{name: "500 string too long", does: vaultError(500, "JSON string value exceeds allowed length"), code: "123", says: `too long`},
		{name: "500 too many keys", does: vaultError(500, "JSON object exceeds allowed number of entries"), code: "123", says: `too many keys`},
		{name: "500 secret too large", does: vaultError(500, "put failed due to value being too large; got 1 bytes, max: 0 bytes"), code: "123", says: `too large for Vault's storage`},
		{name: "500 malformed", does: vaultError(500, "malformed JSON"), code: "123", says: `cannot read the request`},
		{name: "500 duplicate", does: vaultError(500, "duplicate key"), code: "123", says: `a key is given twice`},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.proxy.Set(c.does)
			// One attempt, or an end at once although waiting would be allowed.
			args := append([]string{"--wait", "10m"}, c.args...)
			if c.retry {
				args[1] = "0"
			}
			j := r.touch(args...).finish(c.code).says(c.says).says(`^vaultexec: cannot read ` + r.mount + `/app: `)
			if r.started() {
				t.Error("the command was started")
			}
			if j.out.String() != "" {
				t.Errorf("standard output: %q", j.out.String())
			}
			if strings.Contains(j.err.String(), "waiting for") {
				t.Errorf("it has waited:\n%s", j.err.String())
			}
			// The secret, the mount, and at most two more for the hint.
			if n := len(r.proxy.Requests()); n > 4 {
				t.Errorf("%d requests", n)
			}
			if !c.retry {
				return
			}
			r.proxy.Set(vaulttest.First(2, c.does, vaulttest.Pass))
			args[1] = "1m"
			j = r.touch(args...).finish("0").says(`^vaultexec: warning: waiting for Vault: .*` + strings.TrimSuffix(c.says, "$"))
			if n := strings.Count(j.err.String(), "\n"); n != 1 {
				t.Errorf("%d lines on standard error, want one:\n%s", n, j.err.String())
			}
			if !r.started() {
				t.Error("the command was not started")
			}
		})
	}
}

// TestSecretWithoutKeys: data.data null or {} is a secret, not an absence.
func TestSecretWithoutKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, data := range []string{"null", "{}"} {
		r.proxy.Set(vaulttest.Answer(200, `{"request_id":"r","lease_id":"","lease_duration":0,"data":{"data":`+data+`,"metadata":{"version":3,"created_time":"2026-01-02T03:04:05Z","destroyed":false,"deletion_time":""}}}`))
		r.touch().finish("0").silent()
		if !r.started() {
			t.Errorf("data %s: the command was not started", data)
		}
	}
}

// TestRedirectKeepsToken: the token goes to the address that was given and nowhere else.
func TestRedirectKeepsToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := vaulttest.NewProxy(t, r.srv)
	for _, status := range []int{301, 302, 303, 307, 308} {
		r.proxy.Set(vaulttest.Redirect(status, other.Addr))
		r.touch("--wait", "0").finish("120").says(`\(not followed\)\nvaultexec: hint: give the address of a load balancer or of the active node, not http://127`)
	}
	if n := len(other.Requests()); n != 0 || other.Conns() != 0 {
		t.Errorf("%d requests over %d connections went to where the redirect points", n, other.Conns())
	}
	if r.started() {
		t.Error("the command was started")
	}
	// an ingress that wants TLS
	r.proxy.Set(vaulttest.Redirect(308, "https://127.0.0.1:8200"))
	r.touch("--wait", "0").finish("120").says(`^vaultexec: hint: write the address as https://127.0.0.1:8200$`)
}

// TestRetryAfter: a server that asks for a pause gets it.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Set(vaulttest.First(1, vaulttest.Answer(429, `{"errors":["rate limit quota exceeded"]}`, "Retry-After", "2"), vaulttest.Pass))
	r.touch().finish("0")
	seen := r.proxy.Requests()
	if len(seen) != 2 || seen[1].At.Sub(seen[0].At) < 2*time.Second {
		t.Errorf("%d requests, %v apart; want 2, two seconds apart", len(seen), seen[len(seen)-1].At.Sub(seen[0].At))
	}
	if !r.started() {
		t.Error("the command was not started")
	}
}

// TestHintIsNoWait: what a hint is asked for takes two requests and one second together, also where Vault does not answer them;
// without that limit it would be --timeout.
func TestHintIsNoWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set("VAULT_TOKEN=" + r.srv.RootToken)
	r.proxy.On(vaulttest.Under(r.mount+"/metadata"), vaulttest.BlackHole)
	r.proxy.On(vaulttest.Under("sys/"), vaulttest.BlackHole)
	j := r.touch("--timeout", "50s", "--kv-version", "2", "--path", "ap").finish("122").says(`/ap: no such secret$`)
	if j.took > 10*time.Second {
		t.Errorf("it took %v", j.took)
	}
	r.set("VAULTEXEC_MOUNT=", "VAULT_TOKEN="+r.token) // nobody named a mount: the hint would name those that there are
	r.proxy.Clear()
	r.proxy.On(func(q *http.Request) bool { return q.URL.Path == "/v1/sys/internal/ui/mounts" }, vaulttest.BlackHole)
	j = r.touch("--timeout", "50s").finish("121")
	if j.took > 10*time.Second {
		t.Errorf("it took %v", j.took)
	}
	if n := len(r.proxy.Requests()); n > 7 {
		t.Errorf("%d requests", n)
	}
	if r.started() {
		t.Error("the command was started")
	}
}

// TestRetriesSpread: many paths ask one at a time until Vault is back, so that it is not run down when it comes.
func TestRetriesSpread(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Set(vaulttest.First(10, vaultError(503, "Vault is sealed"), vaulttest.Pass))
	r.touch("--path", "app", "--env", "A=app#API_KEY", "--path", "app@1", "--on-collision", "first").finish("0")
	if n := len(r.proxy.Requests()); n > 13 {
		t.Errorf("%d requests", n)
	}
}

// TestRefused: nothing listens, then Vault comes up.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr := closedPort(t)
	r.set("VAULT_ADDR=http://" + addr)
	r.touch("--wait", "0").finish("120").says(`^vaultexec: cannot read ` + r.mount + `/app: connection refused \(http://` + addr + `\)$`).says(`^vaultexec: hint: check --address or VAULT_ADDR`)
	r.touch("--wait", "300ms").finish("120").says(`connection refused \(http://` + addr + `\), for 300ms$`).says(`warning: waiting for Vault: connection refused .* wait=300ms$`)
	j := r.touch("--wait", "forever")
	j.awaitStderr(`waiting for Vault: connection refused .* wait=forever`)
	serve(t, addr, r.proxy.Addr)
	j.finish("0")
	if !r.started() || strings.Count(j.err.String(), "\n") != 1 {
		t.Errorf("not started, or more than one line:\n%s", j.err.String())
	}
}

// closedPort returns an address at which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve forwards from addr, until the end of the test.
func serve(t *testing.T, addr, to string) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target)}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// TestNoAddress: a host that no resolver is asked for.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set("VAULT_ADDR=http://no..host:8200")
	r.touch("--wait", "0").finish("120").says(`no address found for the host \(http://no\.\.host:8200\)$`)
	r.set("VAULT_ADDR=http://user:pass-word-in-address@127.0.0.1:1")
	j := r.touch("--wait", "0").finish("120").says(`connection refused \(http://127.0.0.1:1\)$`)
	if strings.Contains(j.err.String(), "pass-word") {
		t.Error("the address's password is printed")
	}
	if r.started() {
		t.Error("the command was started")
	}
}

// TestUnixSocket: the address may be a socket.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	target, _ := url.Parse(r.proxy.Addr)
	l, err := net.Listen("unix", filepath.Join(r.dir, "v.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target)}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	r.set("VAULT_ADDR=unix://" + filepath.Join(r.dir, "v.sock"))
	r.touch().finish("0").silent()
	if !r.started() {
		t.Error("the command was not started")
	}
	r.set("VAULT_ADDR=unix://" + filepath.Join(r.dir, "other.sock"))
	r.touch("--wait", "0").finish("120").says(`no such file or directory \(unix://`)
}

// TestSealed: a real Vault that is sealed while vaultexec waits, and unsealed in the end.
func TestSealed(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true})
	srv.Init(t, 3, 2)
	srv.Unseal(t)
	r := rigOn(t, srv)
	r.set("VAULT_ADDR="+srv.Addr, "VAULT_CACERT="+srv.CACert)
	r.touch().finish("0").silent()
	if !r.started() {
		t.Fatal("the command was not started")
	}
	srv.Seal(t)
	r.touch("--wait", "0").finish("120").says(`^vaultexec: cannot read ` + r.mount + `/app: Vault is sealed$`).says("^vaultexec: hint: run `vaultexec unseal`")
	j := r.touch("--wait", "forever")
	k := r.touch("--optional-path", "app", "--wait", "90s") // being sealed is no absence
	j.awaitStderr(`^vaultexec: warning: waiting for Vault: Vault is sealed wait=forever$`)
	k.awaitStderr(`^vaultexec: warning: waiting for Vault: Vault is sealed wait=1m30s$`)
	srv.Unseal(t)
	j.finish("0")
	k.finish("0")
	if !r.started() {
		t.Error("the command was not started")
	}
	// The whole process gone and back, sealed.
	srv.Kill()
	j = r.touch("--wait", "forever")
	j.awaitStderr(`waiting for Vault: connection refused`)
	srv.Restart(t)
	j.awaitStderr(`waiting for Vault: Vault is sealed`)
	srv.Unseal(t)
	j.finish("0")
	if !r.started() {
		t.Error("the command was not started")
	}
}

// TestStandby: three nodes; the leader dies, and the standby that is asked goes through its failover.
func TestStandby(t *testing.T) {
	t.Parallel()
	nodes := vaulttest.Cluster(t, 3)
	leader := nodes.Leader(t)
	r := rigOn(t, leader)
	standby := nodes.Standby(t)
	r.set("VAULT_ADDR=" + standby.Addr)
	if j := r.touch().finish("0"); !vaulttest.OpenBao(t) { // whose standby may still be making the new mount
		j.silent()
	}
	leader.Kill()
	r.touch("--wait", "90s").finish("0")
	if !r.started() {
		t.Error("the command was not started")
	}
	// Without a quorum nobody answers, and nothing is followed, denied or missing.
	for _, n := range nodes.All {
		if n != leader && n != standby {
			n.Kill()
		}
	}
	wait.Until(t, time.Minute, "the last node to give up the lead", func() bool {
		status, _ := standby.DoAs(t, "", "GET", "sys/health", nil)
		return status != http.StatusOK
	})
	if vaulttest.OpenBao(t) { // its standbys answer reads
		r.touch("--wait", "2s").finish("0")
		return
	}
	r.touch("--wait", "2s").finish("120")
	if r.started() {
		t.Error("the command was started")
	}
}

// TestTLS is the matrix of certificates: none of these waits, and each hint names the option.
func TestTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, foreign := vaulttest.NewCA(t, "the CA"), vaulttest.NewCA(t, "another CA")
	good := vaulttest.NewTLSProxy(t, r.srv, ca.Server(t, vaulttest.CertOpts{}))
	expired := vaulttest.NewTLSProxy(t, r.srv, ca.Server(t, vaulttest.CertOpts{Expired: true}))
	misnamed := vaulttest.NewTLSProxy(t, r.srv, ca.Server(t, vaulttest.CertOpts{DNS: []string{"vault.internal"}, IPs: []net.IP{}}))
	capath := t.TempDir()
	pem, err := os.ReadFile(ca.File)
	if err == nil {
		err = os.WriteFile(filepath.Join(capath, "ca.pem"), pem, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	https := func(addr string) string { return "https://" + strings.TrimPrefix(addr, "http://") }
	plain := func(addr string) string { return "http://" + strings.TrimPrefix(addr, "https://") }
	for _, c := range []struct {
		name, addr string
		env        []string
		args       []string
		code, says string
	}{
		{name: "unknown-authority", addr: good.Addr, code: "120", says: `signed by an unknown authority \(https://127.*\nvaultexec: hint: name its CA with --ca-cert`},
		{name: "foreign-authority", addr: good.Addr, args: []string{"--ca-cert", foreign.File}, code: "120", says: `signed by an unknown authority`},
		{name: "wrong-name", addr: misnamed.Addr, args: []string{"--ca-cert", ca.File}, code: "120", says: `is for another name .*\nvaultexec: hint: .*--tls-server-name`},
		{name: "expired", addr: expired.Addr, args: []string{"--ca-cert", ca.File}, code: "120", says: `has expired or is not yet valid`},
		{name: "https-to-http", addr: https(r.proxy.Addr), code: "120", says: `does not speak TLS \(https://127.*\nvaultexec: hint: write the address as http://`},
		{name: "http-to-https", addr: plain(good.Addr), code: "120", says: `the server speaks TLS, and the address says http\nvaultexec: hint: write the address as https://`},
		{name: "no-such-ca", addr: good.Addr, args: []string{"--ca-cert", "nothing.pem"}, code: "125", says: `cannot read --ca-cert "nothing.pem": no such file`},
		{name: "not-a-ca", addr: good.Addr, args: []string{"--ca-cert", "/dev/null"}, code: "125", says: `"/dev/null" is empty`},
		{name: "half-a-client-certificate", addr: good.Addr, args: []string{"--client-cert", ca.File}, code: "125", says: `a client certificate needs its key`},
		{name: "ca-cert", addr: good.Addr, args: []string{"--ca-cert", ca.File}, code: "0"},
		{name: "VAULT_CACERT", addr: good.Addr, env: []string{"VAULT_CACERT=" + ca.File}, code: "0"},
		{name: "BAO_CACERT-wins", addr: good.Addr, env: []string{"VAULT_CACERT=" + foreign.File, "BAO_CACERT=" + ca.File}, code: "0"},
		{name: "VAULT_CACERT_BYTES", addr: good.Addr, env: []string{"VAULT_CACERT_BYTES=" + string(pem)}, code: "0"},
		{name: "ca-path", addr: good.Addr, args: []string{"--ca-path", capath}, code: "0"},
		{name: "ca-path-beats-VAULT_CACERT", addr: good.Addr, env: []string{"VAULT_CACERT=" + foreign.File}, args: []string{"--ca-path", capath}, code: "0"},
		{name: "server-name", addr: misnamed.Addr, args: []string{"--ca-cert", ca.File, "--tls-server-name", "vault.internal"}, code: "0"},
		{name: "skip-verify", addr: expired.Addr, args: []string{"--tls-skip-verify"}, code: "0"},
		{name: "VAULT_SKIP_VERIFY", addr: misnamed.Addr, env: []string{"VAULT_SKIP_VERIFY=1"}, code: "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.set("VAULT_ADDR=" + c.addr)
			r.set(c.env...)
			j := r.touch(append([]string{"--wait", "10m"}, c.args...)...).finish(c.code)
			if c.code == "0" {
				j.silent()
			} else {
				j.says(c.says)
			}
			if r.started() != (c.code == "0") {
				t.Error("the command was started, or was not")
			}
		})
	}
	if r.proxy.Count(func(vaulttest.Request) bool { return true }) != 0 {
		t.Error("a request was sent in the clear after TLS had failed")
	}
}

// TestClientCertificate: a server that insists on one.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := vaulttest.NewCA(t, "the CA")
	addr := insisting(t, ca, r.proxy.Addr)
	client := ca.Client(t, vaulttest.CertOpts{Name: "app"})
	r.set("VAULT_ADDR="+addr, "VAULT_CACERT="+ca.File)
	r.touch("--wait", "10m").finish("120").says(`the server wants a client certificate .*\nvaultexec: hint: .*--client-cert and --client-key`)
	if r.started() {
		t.Error("the command was started")
	}
	r.touch("--client-cert", client.CertFile, "--client-key", client.KeyFile).finish("0").silent()
	if !r.started() {
		t.Error("the command was not started")
	}
}

// TestSignalsBeforeTheCommand: in every phase in which there is no command yet, TERM, INT, HUP and QUIT end vaultexec by
// that signal within 200 ms, start nothing, and print no stack.
func TestSignalsBeforeTheCommand(t *testing.T) {
	t.Parallel()
	signals := []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}
	asked := func(n int) func(*rig, *running) { return func(r *rig, j *running) { r.proxy.WaitRequests(j.t, n) } }
	for _, c := range []struct {
		name  string
		setup func(*rig) []string
		await func(*rig, *running)
	}{
		{"connecting", func(r *rig) []string { r.set("VAULT_ADDR=http://" + deafPort(r.t)); return nil }, func(_ *rig, j *running) { awaitConnected(j) }},
		{"handshake", func(r *rig) []string { r.set("VAULT_ADDR=https://" + deafPort(r.t)); return nil }, func(_ *rig, j *running) { awaitConnected(j) }},
		{"reading", func(r *rig) []string { r.proxy.Set(vaulttest.BlackHole); return nil }, asked(1)},
		{"asking for the mount", func(r *rig) []string {
			r.proxy.On(vaulttest.Under(r.mount), vaultError(403, policyForm))
			r.proxy.On(vaulttest.Under("sys/"), vaulttest.BlackHole)
			return nil
		}, asked(2)},
		{"backing off", func(r *rig) []string { r.proxy.Set(vaultError(503, "Vault is sealed")); return nil }, func(_ *rig, j *running) { j.awaitStderr("waiting for Vault") }},
		{"a long Retry-After", func(r *rig) []string {
			r.proxy.Set(vaulttest.Answer(429, `{"errors":["rate limit quota exceeded"]}`, "Retry-After", "3000"))
			return []string{"--wait", "forever"}
		}, func(_ *rig, j *running) { j.awaitStderr("waiting for Vault") }},
		{"token helper", func(r *rig) []string {
			helper := filepath.Join(r.dir, "helper")
			vaulttest.WriteFile(r.t, helper, "#!/bin/sh\necho asked >&2\nexec sleep 1000 2>/dev/null\n", 0o755)
			vaulttest.WriteFile(r.t, filepath.Join(r.dir, ".vault"), `token_helper = "`+helper+`"`, 0o600)
			r.set("VAULT_TOKEN=")
			return nil
		}, func(_ *rig, j *running) { j.awaitStderr("asked") }},
		{"dry run", func(r *rig) []string { r.proxy.Set(vaulttest.BlackHole); return []string{"--dry-run"} }, asked(1)},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			fastest := time.Hour
			for _, sig := range signals {
				r := newRig(t)
				j := r.touch(c.setup(r)...)
				c.await(r, j)
				sent := time.Now()
				j.signal(sig)
				j.finish(strings.TrimPrefix(unix.SignalName(sig), "SIG"))
				fastest = min(fastest, time.Since(sent))
				if r.started() {
					t.Errorf("%s: the command was started", unix.SignalName(sig))
				}
			}
			// One slow run among four may be the machine's; all four are not.
			if fastest > 200*time.Millisecond {
				t.Errorf("the fastest of %d took %v", len(signals), fastest)
			}
		})
	}
}

// TestIgnoredHangup: under nohup a hangup ends nothing.
func TestIgnoredHangup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Set(vaultError(503, "Vault is sealed"))
	j := startRun(t, r.dir, r.env, "/bin/sh", "-c", `trap "" HUP; exec "$@"`, "sh", r.bin, "--", "sh", "-c", `kill -HUP $$; echo alive`)
	j.awaitStderr("waiting for Vault")
	j.signal(unix.SIGHUP)
	r.proxy.Clear()
	j.finish("0")
	if j.out.String() != "alive\n" {
		t.Errorf("the command says %q", j.out.String())
	}
}

// TestStopWhileWaiting: Ctrl-Z stops a vaultexec that waits, and it goes on afterwards.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Set(vaultError(503, "Vault is sealed"))
	j := r.touch("--wait", "forever")
	j.awaitStderr("waiting for Vault")
	j.signal(unix.SIGTSTP)
	// A group without a shell is orphaned, and the kernel does not stop those by TSTP; SIGSTOP shows that nothing is lost.
	j.signal(unix.SIGSTOP)
	wait.Until(t, 10*time.Second, "it to be stopped", func() bool { return procState(j.cmd.Process.Pid) == "T" })
	r.proxy.Clear()
	j.signal(unix.SIGCONT)
	j.finish("0")
	if !r.started() {
		t.Error("the command was not started")
	}
}

// TestBrokenStderr: nobody reads what vaultexec says; the command starts all the same.
func TestBrokenStderr(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Set(vaulttest.First(2, vaultError(503, "Vault is sealed"), vaulttest.Pass))
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = pr.Close()
	cmd := exec.Command(r.bin, "--", "touch", "started")
	cmd.Dir, cmd.Env, cmd.Stderr = r.dir, r.env, pw
	err = cmd.Run()
	_ = pw.Close()
	if err != nil || !r.started() {
		t.Errorf("the command was not started: %v", err)
	}
}

// procState is the letter of a process's state, "" when it is gone.
func procState(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

// deafPort takes connections and never says a word.
func deafPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// awaitConnected waits until the program has a socket: as a process that may not be looked into by others, so by root only,
// or by its wait channel.
func awaitConnected(j *running) {
	j.t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(j.cmd.Process.Pid), "fd")
	wait.Until(j.t, 30*time.Second, "a connection", func() bool {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrPermission) {
			j.t.Skip("needs root to look into a process that is not dumpable")
		}
		for _, e := range entries {
			if link, _ := os.Readlink(filepath.Join(dir, e.Name())); strings.HasPrefix(link, "socket:") {
				return true
			}
		}
		return false
	})
}

// insisting is a TLS server that wants a client certificate of the CA and forwards.
func insisting(t *testing.T, ca *vaulttest.CA, to string) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	server := ca.Server(t, vaulttest.CertOpts{})
	pair, err := tls.LoadX509KeyPair(server.CertFile, server.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return "https://" + l.Addr().String()
}
