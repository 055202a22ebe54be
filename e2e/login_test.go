package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/cloudtest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Every variable that carries a credential is taken out of the command's environment.
func TestCredentialVariablesAreStripped(t *testing.T) {
	r := newRig(t)
	for _, owner := range []string{"VAULTEXEC_", "VAULT_", "BAO_"} {
		for _, name := range []string{"SECRET_ID", "WRAPPED_SECRET_ID", "WRAPPED_TOKEN", "JWT", "PASSWORD", "ROLE_ID", "GITHUB_TOKEN"} {
			if owner == "VAULTEXEC_" || name != "WRAPPED_SECRET_ID" && name != "GITHUB_TOKEN" {
				r.set(owner + name + "=" + vaulttest.Canary(name))
			}
		}
	}
	j := r.start("--auth", "token", "--", "env").finish2(t)
	if s := j.out.String(); strings.Contains(strings.ReplaceAll(s, r.value, ""), "canary-") {
		t.Errorf("a credential reaches the command:\n%s", vaulttest.Redact(s))
	}
}

// finish2 is finish with 0 for a command that prints its environment, which holds the secrets by design.
func (j *running) finish2(t *testing.T) *running {
	t.Helper()
	wait.Until(t, time.Minute, "the command's end", func() bool {
		select {
		case <-j.done:
			return true
		default:
			return false
		}
	})
	if got := vaulttest.Ending(j.cmd.ProcessState); got != "0" {
		t.Fatalf("it ended with %s:\n%s", got, vaulttest.Redact(j.err.String()))
	}
	return j
}

// approleRig is a rig whose vaultexec logs in with an AppRole.
type approleRig struct {
	*rig
	auth, role, roleID, secretID string
}

func newAppRoleRig(t *testing.T) *approleRig {
	t.Helper()
	r := &approleRig{rig: newRig(t)}
	sc := r.srv.Scope(t)
	r.auth, r.role, r.roleID, r.secretID = sc.AppRole(sc.ReadPolicy(r.mount, "app"))
	vaulttest.Secret(r.roleID)
	file := filepath.Join(r.dir, "secret-id")
	vaulttest.WriteFile(t, file, r.secretID, 0o600)
	r.set("VAULT_TOKEN=", "VAULTEXEC_ROLE_ID="+r.roleID, "VAULTEXEC_SECRET_ID_FILE="+file, "VAULTEXEC_AUTH_MOUNT="+r.auth)
	return r
}

// left counts the living tokens that logins at this rig's mount gave.
func (r *approleRig) left() int {
	r.t.Helper()
	return tokensOf(r.t, r.srv, "auth/"+r.auth+"/login")
}

// tokensOf counts the living tokens that were made by path.
func tokensOf(t *testing.T, srv *vaulttest.Server, path string) int {
	t.Helper()
	out := srv.Must(t, "LIST", "auth/token/accessors", nil)
	keys, _ := out["data"].(map[string]any)["keys"].([]any)
	n := 0
	for _, k := range keys {
		status, info := srv.Do(t, "POST", "auth/token/lookup-accessor", map[string]any{"accessor": k})
		if status != http.StatusOK {
			continue // it has ended meanwhile
		}
		if data, _ := info["data"].(map[string]any); data["path"] == path {
			n++
		}
	}
	return n
}

// Nothing of ours is left behind: neither after a good start, nor after a failure, nor after a signal, nor by check.
func TestNoTokenIsLeft(t *testing.T) {
	t.Run("started", func(t *testing.T) {
		r := newAppRoleRig(t)
		r.touch().finish("0").silent()
		if !r.started() || r.left() != 0 {
			t.Errorf("%d tokens left", r.left())
		}
		if n := r.proxy.Count(func(q vaulttest.Request) bool { return strings.HasPrefix(q.Path, "auth/token/") }); n != 1 {
			t.Errorf("%d requests about the token, want the revocation alone", n)
		}
	})
	t.Run("secret missing", func(t *testing.T) {
		r := newAppRoleRig(t)
		r.touch("--path", "missing").finish("121")
		if r.started() || r.left() != 0 {
			t.Errorf("%d tokens left", r.left())
		}
	})
	t.Run("collision", func(t *testing.T) {
		r := newAppRoleRig(t)
		r.srv.PutKV(t, r.mount, "app", map[string]any{"not a name": "1"})
		r.touch().finish("123")
		if r.left() != 0 {
			t.Errorf("%d tokens left", r.left())
		}
	})
	t.Run("check", func(t *testing.T) {
		r := newAppRoleRig(t)
		r.start("check").finish("0")
		r.start("check", "--path", "missing").finish("121")
		r.start("--dry-run").finish("0")
		if r.left() != 0 {
			t.Errorf("%d tokens left", r.left())
		}
	})
	t.Run("signal while reading", func(t *testing.T) {
		r := newAppRoleRig(t)
		r.proxy.On(vaulttest.Under(r.mount), vaulttest.BlackHole)
		j := r.touch()
		r.proxy.WaitRequests(t, 2) // login, read
		sent := time.Now()
		j.signal(15)
		j.finish("TERM")
		took := time.Since(sent)
		if r.started() || r.left() != 0 {
			t.Errorf("%d tokens left after %v", r.left(), took)
		}
	})
	t.Run("signal while Vault does not answer any more", func(t *testing.T) {
		fastest := time.Hour
		for range 3 {
			r := newAppRoleRig(t)
			r.proxy.On(vaulttest.Under(r.mount), vaulttest.BlackHole)
			r.proxy.On(vaulttest.Under("auth/token/revoke-self"), vaulttest.BlackHole)
			j := r.touch()
			r.proxy.WaitRequests(t, 2)
			sent := time.Now()
			j.signal(15)
			j.finish("TERM")
			fastest = min(fastest, time.Since(sent))
		}
		if fastest > 250*time.Millisecond { // 200 and the reaping of it
			t.Errorf("the fastest of three took %v", fastest)
		}
	})
	t.Run("a handed-in token", func(t *testing.T) {
		r := newRig(t)
		r.touch().finish("0")
		r.start("check").finish("0")
		if n := r.proxy.Count(func(q vaulttest.Request) bool { return strings.Contains(q.Path, "revoke") }); n != 0 {
			t.Errorf("%d revocations of a token that was handed in", n)
		}
	})
}

// With a lease the token stays, or the lease would end with it; check and --dry-run never make one.
func TestLeaseKeepsItsToken(t *testing.T) {
	r := newAppRoleRig(t)
	lease := vaulttest.Answer(200, `{"lease_id":"database/creds/app/1","lease_duration":60,"renewable":true,"data":{"username":"u","password":"p"}}`)
	r.proxy.On(vaulttest.Under("sys/internal/ui/mounts/database"), vaulttest.Answer(200, `{"data":{"path":"database/","type":"database"}}`))
	r.proxy.On(vaulttest.Under("database/creds/"), lease)
	r.set("VAULTEXEC_PATH=app,/database/creds/app")
	r.start("check").finish("121").says("database/creds/app: permission denied") // the capabilities say so
	sc := r.srv.Scope(t)
	r.srv.Must(t, "POST", "auth/"+r.auth+"/role/"+r.role, map[string]any{"token_policies": []string{
		sc.ReadPolicy(r.mount, "app"), sc.Policy(`path "database/creds/app" { capabilities = ["read"] }`),
	}})
	for _, args := range [][]string{{"check"}, {"--dry-run"}} {
		j := r.start(args...).finish("0")
		if !regexp.MustCompile(`(?m)^leased +database/creds/app: database, not read`).MatchString(j.out.String()) {
			t.Errorf("%v does not say what is leased:\n%s", args, j.out)
		}
	}
	made := func(q vaulttest.Request) bool { return strings.HasPrefix(q.Path, "database/creds/") }
	if n := r.proxy.Count(made); n != 0 {
		t.Errorf("%d leases made by looking", n)
	}
	r.touch("--replace").finish("0")
	if n := r.proxy.Count(made); n != 1 || r.left() != 1 {
		t.Errorf("%d leases and %d tokens, want one each", n, r.left())
	}
}

// A lease makes vaultexec stay: from then on the signals that would have ended it are the command's.
func TestLeaseMakesItStay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.On(vaulttest.Under("sys/internal/ui/mounts/database"), vaulttest.Answer(200, `{"data":{"path":"database/","type":"database"}}`))
	r.proxy.On(vaulttest.Under("database/creds/"), vaulttest.Answer(200, `{"lease_id":"database/creds/app/1","lease_duration":60,"renewable":true,"data":{"username":"u","password":"p"}}`))
	r.set("VAULTEXEC_PATH=/database/creds/app")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		j := r.start("--", "sh", "-c", `sleep 1000 & trap 'kill $!; exit 41' TERM INT HUP QUIT; echo ready >&2; wait`)
		j.awaitStderr("ready")
		j.signal(sig)
		j.finish("41")
	}
}

// recorder stands in front of Vault and keeps every byte of every request.
type requestRecorder struct {
	*httptest.Server
	mu       sync.Mutex
	requests []recorded
}

type recorded struct {
	path string
	raw  string // without the token header, and without the body where that is a login's
}

func newRequestRecorder(t *testing.T, to string) *requestRecorder {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	login := regexp.MustCompile(`^/v1/(auth/[^/]+/login(/[^/]+)?|sys/wrapping/lookup)$`)
	r := &requestRecorder{}
	next := httputil.NewSingleHostReverseProxy(target)
	next.ModifyResponse = func(resp *http.Response) error {
		b, err := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(bytes.NewReader(b))
		var answer map[string]any
		if json.Unmarshal(b, &answer) == nil {
			vaulttest.Secret(vaulttest.Credentials(answer)...)
		}
		return err
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		kept := req.Clone(context.Background())
		kept.Header.Del("X-Vault-Token")
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		kept.Body = http.NoBody
		if !login.MatchString(req.URL.Path) {
			kept.Body = io.NopCloser(bytes.NewReader(body))
		}
		raw, _ := httputil.DumpRequest(kept, true)
		r.mu.Lock()
		r.requests = append(r.requests, recorded{req.Method + " " + req.URL.Path, string(raw)})
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

// Over all methods, with success and with failure: no credential stands anywhere in what vaultexec writes, nor in any
// request but the body of a login and the token header; and none reaches the command.
func TestNoCredentialIsShown(t *testing.T) {
	r := newRig(t)
	rec := newRequestRecorder(t, r.srv.Addr)
	sc := r.srv.Scope(t)
	policy := sc.ReadPolicy(r.mount, "app")
	dir := t.TempDir()
	files := 0
	file := func(text string) string {
		files++
		path := filepath.Join(dir, fmt.Sprint("credential-", files))
		vaulttest.WriteFile(t, path, text, 0o600)
		vaulttest.Secret(text)
		return path
	}
	approle, role, roleID, secretID := sc.AppRole(policy)
	vaulttest.Secret(roleID)
	at := "auth/" + approle + "/role/" + role + "/secret-id"
	password := vaulttest.Canary("pass word")
	userpass := sc.Name("userpass")
	r.srv.Must(t, "POST", "sys/auth/"+userpass, map[string]any{"type": "userpass"})
	r.srv.Must(t, "POST", "auth/"+userpass+"/users/ann", map[string]any{"password": password, "token_policies": policy})
	certs := sc.Name("cert")
	r.srv.Must(t, "POST", "sys/auth/"+certs, map[string]any{"type": "cert"})
	jwtMount, jwt := jwtMethod(t, r.srv, sc, policy)
	const bad = "bad-0123456789"
	// An Agent that adds its token.
	target, err := url.Parse(rec.URL)
	if err != nil {
		t.Fatal(err)
	}
	agent := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Header.Set("X-Vault-Token", r.token)
	}})
	t.Cleanup(agent.Close)
	cert := vaulttest.NewCA(t, "clients").Client(t, vaulttest.CertOpts{Name: "app"})
	key, err := os.ReadFile(cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.Secret(string(key))

	app := cloudtest.NewApp(t, cloudtest.NewTenant(t))
	account := cloudtest.NewKey(t, "account")
	vaulttest.Secret(account.PEM(t, false))

	for _, c := range []struct {
		name string
		args []string
		env  []string
		fail bool
	}{
		{"gcp", []string{"--auth", "gcp", "--auth-mount", jwtMount, "--role", "app", "--gcp-credentials-file", file(cloudtest.ServiceAccount(t, "app@shop", account.PEM(t, false), "account", ""))}, nil, true}, // refused there; accepted: TestGCP
		{"azure", []string{"--auth", "azure", "--auth-mount", jwtMount, "--role", "app"}, []string{"IDENTITY_ENDPOINT=" + app.URL + "/msi/token", "IDENTITY_HEADER=" + app.Header}, true},                       // TestAzure
		{"token", []string{"--token-file", file(r.token)}, nil, false},
		{"token variable", nil, []string{"VAULT_TOKEN=" + r.token}, false},
		{"bad token", []string{"--token-file", file(bad + "token")}, nil, true},
		{"approle", []string{"--auth-mount", approle, "--role-id", roleID, "--secret-id-file", file(secretID)}, nil, false},
		{"approle variables", []string{"--auth-mount", approle}, []string{"VAULT_ROLE_ID=" + roleID, "VAULT_SECRET_ID=" + secretID}, false},
		{"approle bad", []string{"--auth-mount", approle, "--role-id", roleID, "--secret-id-file", file(bad + "secret-id")}, nil, true},
		{"approle wrapped", []string{"--auth-mount", approle, "--role", role, "--role-id", roleID, "--wrapped-secret-id-file", file(wrappingToken(t, r.srv, at, "{}"))}, nil, false},
		{"approle wrapped bad", []string{"--auth-mount", approle, "--role-id", roleID, "--wrapped-secret-id-file", file("hvs." + bad + "wrapping")}, nil, true},
		{"approle wrapped by a thief", []string{"--auth-mount", approle, "--role-id", roleID, "--wrapped-secret-id-file", file(wrappingToken(t, r.srv, "sys/wrapping/wrap", `{"x":"y"}`))}, nil, true},
		{"wrapped token", []string{"--wrapped-token-file", file(wrappingToken(t, r.srv, "auth/token/create", `{"policies":["`+policy+`"]}`))}, nil, false},
		{"jwt", []string{"--auth-mount", jwtMount, "--role", "app", "--jwt-file", file(jwt)}, nil, false},
		{"jwt bad", []string{"--auth-mount", jwtMount, "--role", "app", "--jwt-file", file(jwt + "x")}, nil, true},
		{"jwt variable", []string{"--auth-mount", jwtMount, "--role", "app"}, []string{"VAULTEXEC_JWT=" + jwt}, false},
		{"kubernetes", []string{"--auth", "kubernetes", "--auth-mount", jwtMount, "--role", "app", "--jwt-file", file(jwt)}, nil, false}, // the same request
		{"userpass", []string{"--auth", "userpass", "--auth-mount", userpass, "--username", "ann", "--password-file", file(password)}, nil, false},
		{"userpass bad", []string{"--auth", "userpass", "--auth-mount", userpass, "--username", "ann", "--password-file", file(bad + "password")}, nil, true},
		{"ldap", []string{"--auth", "ldap", "--auth-mount", userpass, "--username", "ann"}, []string{"VAULTEXEC_PASSWORD=" + password}, false}, // the same request
		{"agent", nil, []string{"VAULT_AGENT_ADDR=" + agent.URL}, false},
		{"cert", []string{"--auth", "cert", "--auth-mount", certs, "--client-cert", cert.CertFile, "--client-key", cert.KeyFile}, nil, true}, // without TLS
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			// Go's own debugging output and everything that vaultexec has to say.
			r.set(append([]string{"VAULT_TOKEN=", "VAULT_ADDR=" + rec.URL, "GODEBUG=http2debug=2", "VAULTEXEC_LOG_LEVEL=debug"}, c.env...)...)
			for _, what := range [][]string{{"--", "sh", "-c", `env | grep -v "^API_KEY="; exit 0`}, {"check"}} {
				if strings.Contains(c.name, "wrapped") && what[0] == "check" && !c.fail {
					continue // used up
				}
				args := append(c.args[:len(c.args):len(c.args)], what...)
				if what[0] == "check" {
					args = append([]string{"check"}, c.args...)
				}
				want := "0"
				if c.fail {
					want = "121"
				}
				r.start(args...).finish(want) // which looks for secrets in what is printed
			}
		})
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(rec.requests) < 40 {
		t.Errorf("only %d requests were looked at", len(rec.requests))
	}
	for _, q := range rec.requests {
		if clean := vaulttest.Redact(q.raw); clean != q.raw {
			t.Errorf("a credential in %s:\n%s", vaulttest.Redact(q.path), clean)
		}
	}
}

// wrappingToken returns a wrapping token for a write to path.
func wrappingToken(t *testing.T, srv *vaulttest.Server, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", srv.Addr+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", srv.RootToken)
	req.Header.Set("X-Vault-Wrap-TTL", "10m")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if json.NewDecoder(resp.Body).Decode(&out) != nil {
		t.Fatalf("POST %s: %s", path, resp.Status)
	}
	for _, c := range vaulttest.Credentials(out) {
		vaulttest.Secret(c)
		return c
	}
	t.Fatalf("POST %s gave no wrapping token: %s", path, resp.Status)
	return ""
}

// jwtMethod makes a jwt method with one role, and a token for it.
func jwtMethod(t *testing.T, srv *vaulttest.Server, sc *vaulttest.Scope, policy string) (mount, jwt string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	mount = sc.Name("jwt")
	srv.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "jwt"})
	srv.Must(t, "POST", "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}})
	srv.Must(t, "POST", "auth/"+mount+"/role/app", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": policy})
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(map[string]any{"sub": "app", "aud": "vault", "iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return mount, signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// A secret is never asked for where nobody can answer.
func TestNoPromptWithoutTerminal(t *testing.T) {
	r := newRig(t)
	r.set("VAULT_TOKEN=")
	r.touch("--auth", "userpass", "--username", "ann").finish("125").says("a password is missing").says("hint: .*--password-file")
	if n := len(r.proxy.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// The namespace of the login is the option's, that of the paths the Vault CLI's variable. A server with namespaces refuses
// these, which do not exist; what was sent tells all the same.
func TestAuthNamespaceOption(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]string{"team-b": "team-b", "/team/b/": "team/b", "root": "", "/": "", "": "team-a"} {
		r := newAppRoleRig(t)
		r.set("VAULT_NAMESPACE=team-a", "VAULTEXEC_AUTH_NAMESPACE="+option)
		j := r.start("--", "true")
		wait.Until(t, time.Minute, "the end", func() bool {
			select {
			case <-j.done:
				return true
			default:
				return false
			}
		})
		logins := 0
		for _, q := range r.proxy.Requests() {
			wanted := "team-a"
			if strings.HasPrefix(q.Path, "auth/") {
				logins++
				wanted = want
			}
			if q.Namespace != wanted {
				t.Errorf("%q: %s in the namespace %q, want %q", option, q.Path, q.Namespace, wanted)
			}
		}
		if logins == 0 {
			t.Errorf("%q: no login", option)
		}
	}
}

// A role that wants a secret id and was given none: the outer one of two vaultexecs may have taken it away.
func TestSecretIDMissing(t *testing.T) {
	t.Parallel()
	r := newAppRoleRig(t)
	r.set("VAULTEXEC_ROLE_ID=", "VAULTEXEC_SECRET_ID_FILE=", "VAULTEXEC_SECRET_ID="+r.secretID)
	r.start("--role-id", r.roleID, "--", r.bin, "--role-id", r.roleID, "--", "touch", "started").finish("121").
		says("no secret id was given").says("--keep-token")
	if r.started() {
		t.Error("the command was started")
	}
	r.start("--keep-token", "--role-id", r.roleID, "--", r.bin, "--role-id", r.roleID, "--", "true").finish("0")
}
