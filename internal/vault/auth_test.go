package vault_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// roleOf is an AppRole with one secret and a policy that allows to read it.
type roleOf struct {
	srv                     *vaulttest.Server
	kv                      string
	mount, role, id, secret string
}

func newRole(t *testing.T) roleOf {
	t.Helper()
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	kv := sc.Mount(2)
	srv.PutKV(t, kv, "app", map[string]any{"KEY": vaulttest.Canary("key")})
	r := roleOf{srv: srv, kv: kv}
	r.mount, r.role, r.id, r.secret = sc.AppRole(sc.ReadPolicy(kv, "app"))
	return r
}

func (r roleOf) conf() vault.LoginConfig {
	return vault.LoginConfig{Method: vault.AuthAppRole, Mount: r.mount, RoleID: text(r.id), SecretID: text(r.secret)}
}

func (r roleOf) at() string { return "auth/" + r.mount + "/role/" + r.role }

// wrapped returns a wrapping token for a write to path.
func wrapped(t *testing.T, srv *vaulttest.Server, path, body, ttl string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", srv.Addr+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", srv.RootToken)
	req.Header.Set("X-Vault-Wrap-TTL", ttl)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		WrapInfo struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	if json.NewDecoder(resp.Body).Decode(&out) != nil || out.WrapInfo.Token == "" {
		t.Fatalf("POST %s gave no wrapping token: %s", path, resp.Status)
	}
	vaulttest.Secret(out.WrapInfo.Token)
	return out.WrapInfo.Token
}

func canRead(t *testing.T, s *vault.Session, mount, name string) {
	t.Helper()
	if _, err := s.Client.Read(t.Context(), vault.Path{Mount: mount, Name: name}, vault.ReadOptions{}); err != nil {
		t.Fatalf("the login's token cannot read: %v", err)
	}
}

// Role id and secret id; each wrong input gives the right kind and a word on what to do.
func TestAppRole(t *testing.T) {
	r := newRole(t)
	s := newSession(t, r.srv.Addr, r.conf())
	login(t, s)
	canRead(t, s, r.kv, "app")
	info, err := s.Info(t.Context())
	if err != nil || !info.Own || !info.Known || info.Type != "service" || info.Life < time.Hour || len(info.Policies) == 0 {
		t.Errorf("got %+v, %v", info, err)
	}
	wrong := r.conf()
	wrong.SecretID = text("11111111-2222-3333-4444-555555555555")
	refused(t, newSession(t, r.srv.Addr, wrong).Login(t.Context()), fault.Refused, "approle at auth/"+r.mount, "invalid role id or secret id", "new one issued")
	wrong = r.conf()
	wrong.Mount = "nowhere"
	refused(t, newSession(t, r.srv.Addr, wrong).Login(t.Context()), fault.Refused, "auth/nowhere", "no such auth mount", "--auth-mount")
}

// A role that asks for no secret id.
func TestAppRoleWithoutSecretID(t *testing.T) {
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.1/32"})
	conf := r.conf()
	conf.SecretID = nil
	login(t, newSession(t, r.srv.Addr, conf))
}

// The secret id is good for one login only.
func TestAppRoleSecretIDUsedUp(t *testing.T) {
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"secret_id_num_uses": 1})
	out := r.srv.Must(t, "POST", r.at()+"/secret-id", nil)
	conf := r.conf()
	path := file(t, out["data"].(map[string]any)["secret_id"].(string)+"\n")
	conf.SecretID = vault.FileSource("--secret-id-file", path)
	s := newSession(t, r.srv.Addr, conf)
	login(t, s)
	refused(t, s.Relogin(t.Context(), s.Client.Token()), fault.Refused, "used-up secret id")
	// The file is read at every login, and another secret id is tried at once.
	out = r.srv.Must(t, "POST", r.at()+"/secret-id", nil)
	rewrite(t, path, out["data"].(map[string]any)["secret_id"].(string))
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
		t.Fatalf("a new secret id is not tried: %v", err)
	}
}

// A wrapped secret id is used once, is kept while its file is unchanged, and is refused when somebody else was faster.
func TestWrappedSecretID(t *testing.T) {
	r := newRole(t)
	w := wrapped(t, r.srv, r.at()+"/secret-id", "{}", "5m")
	path := file(t, w)
	conf := r.conf()
	conf.SecretID, conf.WrappedSecretID = nil, vault.FileSource("--wrapped-secret-id-file", path)

	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, conf)
	login(t, s)
	canRead(t, s, r.kv, "app")
	for range 2 {
		if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
			t.Fatalf("the unwrapped secret id is not kept: %v", err)
		}
	}
	if n := proxy.Count(func(q vaulttest.Request) bool { return q.Path == "sys/wrapping/unwrap" }); n != 1 {
		t.Errorf("unwrapped %d times", n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
		t.Errorf("a file that was tidied up ends the session: %v", err)
	}
	rewrite(t, path, wrapped(t, r.srv, r.at()+"/secret-id", "{}", "5m"))
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
		t.Errorf("a new wrapping token is not used: %v", err)
	}

	t.Run("used twice", func(t *testing.T) {
		conf := conf
		conf.WrappedSecretID = text(w)
		refused(t, newSession(t, r.srv.Addr, conf).Login(t.Context()), fault.Refused, "used already or has expired", "intercepted", "revoke")
	})
	t.Run("expired", func(t *testing.T) {
		conf := conf
		w := wrapped(t, r.srv, r.at()+"/secret-id", "{}", "1s")
		wait.Until(t, 30*time.Second, "the wrapping token to expire", func() bool {
			status, _ := r.srv.Do(t, "POST", "sys/wrapping/lookup", map[string]string{"token": w})
			return status == http.StatusBadRequest
		})
		conf.WrappedSecretID = text(w)
		refused(t, newSession(t, r.srv.Addr, conf).Login(t.Context()), fault.Refused, "used already or has expired", "intercepted")
	})
	t.Run("wrapped again by a thief", func(t *testing.T) {
		conf := conf
		out := r.srv.Must(t, "POST", r.at()+"/secret-id", nil)
		stolen, _ := json.Marshal(map[string]any{"secret_id": out["data"].(map[string]any)["secret_id"]})
		w := wrapped(t, r.srv, "sys/wrapping/wrap", string(stolen), "5m")
		conf.WrappedSecretID = text(w)
		refused(t, newSession(t, r.srv.Addr, conf).Login(t.Context()), fault.Refused, "sys/wrapping/wrap", "wrapped it again", "intercepted")
		if status, _ := r.srv.Do(t, "POST", "sys/wrapping/lookup", map[string]string{"token": w}); status != http.StatusOK {
			t.Error("the evidence was used up")
		}
	})
	t.Run("of another role", func(t *testing.T) {
		conf := conf
		conf.Role = "payments"
		conf.WrappedSecretID = text(wrapped(t, r.srv, r.at()+"/secret-id", "{}", "5m"))
		refused(t, newSession(t, r.srv.Addr, conf).Login(t.Context()), fault.Refused, "/role/payments/secret-id", "--role")
	})
	t.Run("of its role", func(t *testing.T) {
		conf := conf
		conf.Role = r.role
		conf.WrappedSecretID = text(wrapped(t, r.srv, r.at()+"/custom-secret-id", `{"secret_id":"`+vaulttest.Canary("id")+`"}`, "5m"))
		login(t, newSession(t, r.srv.Addr, conf))
	})
	t.Run("answer lost", func(t *testing.T) {
		proxy := vaulttest.NewProxy(t, r.srv)
		proxy.On(vaulttest.Under("sys/wrapping/unwrap"), vaulttest.First(1, vaulttest.Truncate, vaulttest.Pass))
		conf := conf
		conf.WrappedSecretID = text(wrapped(t, r.srv, r.at()+"/secret-id", "{}", "5m"))
		s := newSession(t, proxy.Addr, conf)
		refused(t, s.Login(t.Context()), fault.Away, "whether the login was counted is not known")
		err := s.Login(t.Context())
		refused(t, err, fault.Refused, "the answer to an earlier try was lost")
		if strings.Contains(fault.Of(err).Hint, "somebody else") {
			t.Error("a theft alarm for a lost answer")
		}
	})
}

// A wrapped token is unwrapped once and what was inside is used, and it is ours to revoke.
func TestWrappedToken(t *testing.T) {
	r := newRole(t)
	w := wrapped(t, r.srv, "auth/token/create", `{"policies":["default"]}`, "5m")
	s := newSession(t, r.srv.Addr, vault.LoginConfig{Method: vault.AuthToken, WrappedToken: text(w)})
	login(t, s)
	acc := accessor(t, r.srv, s.Client.Token())
	if s.Client.Token().Reveal() == w {
		t.Error("the wrapping token itself is used")
	}
	s.Revoke(t.Context())
	if alive(t, r.srv, acc) {
		t.Error("the unwrapped token lives on")
	}
	refused(t, newSession(t, r.srv.Addr, vault.LoginConfig{Method: vault.AuthToken, WrappedToken: text(w)}).Login(t.Context()), fault.Refused, "wrapped token", "intercepted")
	w = wrapped(t, r.srv, "sys/wrapping/wrap", `{"token":"x"}`, "5m")
	refused(t, newSession(t, r.srv.Addr, vault.LoginConfig{Method: vault.AuthToken, WrappedToken: text(w)}).Login(t.Context()), fault.Refused, "wrapped it again")
}

func userpass(t *testing.T, srv *vaulttest.Server, password string) (mount string) {
	t.Helper()
	mount = srv.Scope(t).Name("userpass")
	srv.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "userpass"})
	srv.Must(t, "POST", "auth/"+mount+"/users/ann", map[string]any{"password": password, "token_policies": "default"})
	return mount
}

func TestUserpass(t *testing.T) {
	srv := vaulttest.Dev(t)
	password := vaulttest.Canary("pass word ü")
	mount := userpass(t, srv, password)
	conf := vault.LoginConfig{Method: vault.AuthUserpass, Mount: mount, Username: "ann", Password: vault.PasswordFileSource("--password-file", file(t, password+"\r\n"))}
	login(t, newSession(t, srv.Addr, conf))

	conf.Password = text("wrong")
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused, "--username", "the password")
}

// Five wrong passwords lock the right one out, and that is said.
func TestAccountLocked(t *testing.T) {
	srv := vaulttest.Dev(t)
	password := vaulttest.Canary("password")
	mount := userpass(t, srv, password)
	conf := vault.LoginConfig{Method: vault.AuthUserpass, Mount: mount, Username: "ann", Password: text("wrong")}
	for range 5 {
		refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused)
	}
	conf.Password = text(password)
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused, "locked", "unlock/ann")
}

// A login that demands a second factor is answered with 200 and no token.
func TestMFADemanded(t *testing.T) {
	srv := vaulttest.Dev(t)
	password := vaulttest.Canary("password")
	mount := userpass(t, srv, password)
	out := srv.Must(t, "POST", "identity/mfa/method/totp", map[string]any{"issuer": "test", "period": 30})
	method := out["data"].(map[string]any)["method_id"].(string)
	auths := srv.Must(t, "GET", "sys/auth", nil)
	acc := auths[mount+"/"].(map[string]any)["accessor"].(string)
	srv.Must(t, "POST", "identity/mfa/login-enforcement/"+mount, map[string]any{"mfa_method_ids": []string{method}, "auth_method_accessors": []string{acc}})
	t.Cleanup(func() { srv.Do(t, "DELETE", "identity/mfa/login-enforcement/"+mount, nil) })
	conf := vault.LoginConfig{Method: vault.AuthUserpass, Mount: mount, Username: "ann", Password: text(password)}
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused, "MFA", "vault login")
}

// signJWT makes an RS256 token.
func signJWT(t *testing.T, key *rsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	token := signed + "." + base64.RawURLEncoding.EncodeToString(sig)
	vaulttest.Secret(token)
	return token
}

func newRSA(t *testing.T) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// The JWT is rotated under us and read again at every login.
func TestJWT(t *testing.T) {
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Name("jwt")
	key, public := newRSA(t)
	srv.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "jwt"})
	srv.Must(t, "POST", "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": []string{public}, "default_role": "app"})
	srv.Must(t, "POST", "auth/"+mount+"/role/app", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "default"})
	claims := func(aud string, exp time.Duration) map[string]any {
		return map[string]any{"sub": "app", "aud": aud, "exp": time.Now().Add(exp).Unix(), "iat": time.Now().Add(-time.Hour).Unix()}
	}
	path := file(t, signJWT(t, key, claims("vault", time.Minute)))
	conf := vault.LoginConfig{Method: vault.AuthJWT, Mount: mount, JWT: vault.FileSource("--jwt-file", path)}
	s := newSession(t, srv.Addr, conf) // with the mount's default role
	login(t, s)
	rewrite(t, path, signJWT(t, key, claims("vault", -30*time.Minute)))
	refused(t, s.Relogin(t.Context(), s.Client.Token()), fault.Refused, "expired")
	rewrite(t, path, signJWT(t, key, claims("somebody", time.Minute)))
	refused(t, s.Relogin(t.Context(), s.Client.Token()), fault.Refused, "audience")
	rewrite(t, path, signJWT(t, key, claims("vault", time.Minute)))
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
		t.Fatalf("the rotated JWT is not used: %v", err)
	}
	conf.Role = "nobody"
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused, "--role")
}

// tokenReview is the one endpoint of Kubernetes that Vault's plugin needs.
func tokenReview(t *testing.T, known map[string]string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Spec struct {
				Token     string   `json:"token"`
				Audiences []string `json:"audiences"`
			} `json:"spec"`
		}
		if r.Method != http.MethodPost || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&in) != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		status := map[string]any{"authenticated": false}
		if name, ok := known[in.Spec.Token]; ok {
			status = map[string]any{"authenticated": true, "audiences": in.Spec.Audiences, "user": map[string]any{"username": name, "uid": "uid-1"}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
	}))
	t.Cleanup(s.Close)
	return s
}

func TestKubernetes(t *testing.T) {
	srv := vaulttest.NewDevWithPlugin(t, "kubernetes")
	key, _ := newRSA(t)
	jwt := func(name string) string {
		return signJWT(t, key, map[string]any{
			"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:shop:" + name, "aud": []string{"vault"}, "exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Add(-time.Minute).Unix(),
			"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": name, "uid": "uid-1"}},
		})
	}
	good, other, unknown := jwt("app"), jwt("other"), jwt("app")+"x"
	review := tokenReview(t, map[string]string{good: "system:serviceaccount:shop:app", other: "system:serviceaccount:shop:other"})
	srv.Must(t, "POST", "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	srv.Must(t, "POST", "auth/kubernetes/config", map[string]any{"kubernetes_host": review.URL, "disable_local_ca_jwt": true})
	srv.Must(t, "POST", "auth/kubernetes/role/app", map[string]any{
		"bound_service_account_names": "app", "bound_service_account_namespaces": "shop", "audience": "vault", "token_policies": "default",
	})
	path := file(t, good)
	conf := vault.LoginConfig{Method: vault.AuthKubernetes, Role: "app", JWT: vault.FileSource("--jwt-file", path)}
	s := newSession(t, srv.Addr, conf)
	login(t, s)
	rewrite(t, path, other)
	refused(t, s.Relogin(t.Context(), s.Client.Token()), fault.Refused, "kubernetes at auth/kubernetes", "service account", "TokenReview")
	vaulttest.Secret(unknown)
	rewrite(t, path, unknown)
	refused(t, s.Relogin(t.Context(), s.Client.Token()), fault.Refused, "TokenReview")
	rewrite(t, path, good)
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
		t.Fatalf("the rotated token is not used: %v", err)
	}
	conf.Role = "nobody"
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused, "--role")
	review.Close()
	conf.Role = "app"
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Refused, "TokenReview")
}

// TestCert logs in with certificates over TLS, to a server whose own certificate a private CA has signed.
func TestCert(t *testing.T) {
	srv := tlsServer(t, nil)
	clients := vaulttest.NewCA(t, "clients")
	srv.Must(t, "POST", "sys/auth/cert", map[string]any{"type": "cert"})
	srv.Must(t, "POST", "auth/cert/certs/app", map[string]any{"certificate": string(clients.PEM), "allowed_common_names": "app", "token_policies": "default"})
	try := func(t *testing.T, pair *vaulttest.KeyPair, role string) error {
		t.Helper()
		cfg := vault.Config{Address: srv.Addr, CACert: srv.CACert}
		if pair != nil {
			cfg.ClientCert, cfg.ClientKey = pair.CertFile, pair.KeyFile
		}
		s := vault.NewSession(newClient(t, cfg), vault.LoginConfig{Method: vault.AuthCert, Role: role})
		return s.Login(t.Context())
	}
	good := clients.Client(t, vaulttest.CertOpts{Name: "app"})
	for _, role := range []string{"", "app"} {
		if err := try(t, good, role); err != nil {
			t.Errorf("role %q: %v", role, err)
		}
	}
	refused(t, try(t, good, "nobody"), fault.Refused, "--client-cert")
	refused(t, try(t, nil, ""), fault.Refused, "--client-cert and --client-key")
	refused(t, try(t, clients.Client(t, vaulttest.CertOpts{Name: "other"}), ""), fault.Refused, "--client-cert")
	refused(t, try(t, vaulttest.NewCA(t, "strangers").Client(t, vaulttest.CertOpts{Name: "app"}), ""), fault.Refused, "--client-cert")
	refused(t, try(t, clients.Client(t, vaulttest.CertOpts{Name: "app", Expired: true}), ""), fault.Refused, "expired")

	dev := vaulttest.Dev(t)
	mount := dev.Scope(t).Name("cert")
	dev.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "cert"})
	dev.Must(t, "POST", "auth/"+mount+"/certs/app", map[string]any{"certificate": string(clients.PEM)})
	s := vault.NewSession(newClient(t, vault.Config{Address: dev.Addr, ClientCert: good.CertFile, ClientKey: good.KeyFile}), vault.LoginConfig{Method: vault.AuthCert, Mount: mount})
	refused(t, s.Login(t.Context()), fault.Refused, "only be shown over TLS", "https://")
}

// tlsServer starts an unsealed server that speaks TLS.
func tlsServer(t *testing.T, cert *vaulttest.KeyPair) *vaulttest.Server {
	t.Helper()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true, Cert: cert})
	srv.Init(t, 1, 1)
	srv.Unseal(t)
	return srv
}

// Every way in which TLS fails is an Address failure, which is not waited for, and names the remedy.
func TestTLS(t *testing.T) {
	srv := vaulttest.Dev(t)
	ca := vaulttest.NewCA(t, "ours")
	front := func(o vaulttest.CertOpts) string { return vaulttest.NewTLSProxy(t, srv, ca.Server(t, o)).Addr }
	good := front(vaulttest.CertOpts{})
	token := text(srv.RootToken)
	for _, c := range []struct {
		name  string
		cfg   vault.Config
		words []string
	}{
		{"own CA", vault.Config{Address: good, CACert: ca.File}, nil},
		{"own CA as text", vault.Config{Address: good, CACertBytes: string(ca.PEM)}, nil},
		{"no CA", vault.Config{Address: good}, []string{"unknown authority", "--ca-cert"}},
		{"wrong CA", vault.Config{Address: good, CACert: vaulttest.NewCA(t, "theirs").File}, []string{"unknown authority", "--ca-cert"}},
		{"wrong name", vault.Config{Address: front(vaulttest.CertOpts{DNS: []string{"vault.example"}, IPs: []net.IP{}}), CACert: ca.File}, []string{"another name", "--tls-server-name"}},
		{"wrong name, right option", vault.Config{Address: front(vaulttest.CertOpts{DNS: []string{"vault.example"}, IPs: []net.IP{}}), CACert: ca.File, TLSServerName: "vault.example"}, nil},
		{"expired", vault.Config{Address: front(vaulttest.CertOpts{Expired: true}), CACert: ca.File}, []string{"expired", "clock"}},
		{"not verified", vault.Config{Address: good, SkipVerify: true}, nil},
		{"https to http", vault.Config{Address: strings.Replace(srv.Addr, "http:", "https:", 1)}, []string{"does not speak TLS", "http://"}},
		{"http to https", vault.Config{Address: strings.Replace(good, "https:", "http:", 1)}, []string{"speaks TLS", "https://"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := vault.NewSession(newClient(t, c.cfg), vault.LoginConfig{Method: vault.AuthToken, Token: token})
			login(t, s)
			_, err := s.Client.VisibleMounts(t.Context())
			if c.words == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			refused(t, err, fault.Address, c.words...)
		})
	}
	t.Run("client certificate missing", func(t *testing.T) {
		strict := httptest.NewUnstartedServer(http.NotFoundHandler())
		pair := ca.Server(t, vaulttest.CertOpts{})
		cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca.PEM)
		strict.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
		strict.Config.ErrorLog = log.New(io.Discard, "", 0)
		strict.StartTLS()
		defer strict.Close()
		s := vault.NewSession(newClient(t, vault.Config{Address: strict.URL, CACert: ca.File}), vault.LoginConfig{Method: vault.AuthUserpass, Username: "ann", Password: text("x")})
		refused(t, s.Login(t.Context()), fault.Address, "wants a client certificate", "--client-cert and --client-key")
	})
}

// With an Agent in front that has not logged in yet, Vault's bare 403 means waiting.
func TestAgentNotLoggedIn(t *testing.T) {
	agent := newScripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":["permission denied"]}`)
	})
	s := vault.NewSession(newClient(t, vault.Config{Address: agent.URL, Agent: true}), vault.LoginConfig{Method: vault.AuthAgent})
	login(t, s)
	_, err := s.Client.Read(t.Context(), vault.Path{Mount: "kv", Name: "app"}, vault.ReadOptions{})
	refused(t, err, fault.Away, "the Vault Agent has no valid token", "Agent's own log")
	s.Revoke(t.Context())
	for _, r := range agent.requests() {
		if strings.Contains(r, "auth/") {
			t.Errorf("%s was sent through the Agent", r)
		}
	}
}

// The namespace goes with every request, the login among them.
func TestNamespaceEverywhere(t *testing.T) {
	r := newRole(t)
	proxy := vaulttest.NewProxy(t, r.srv)
	conf := r.conf()
	if vaulttest.OpenBao(t) {
		t.Skip("the server does not ignore the namespace; TestAuthNamespace has real ones")
	}
	conf.SecretID, conf.WrappedSecretID = nil, text(wrapped(t, r.srv, r.at()+"/secret-id", "{}", "5m"))
	s := vault.NewSession(newClient(t, vault.Config{Address: proxy.Addr, Namespace: "team-a/"}), conf)
	login(t, s)
	canRead(t, s, r.kv, "app")
	s.Revoke(t.Context())
	for _, q := range proxy.Requests() {
		if strings.Trim(q.Namespace, "/") != "team-a" {
			t.Errorf("%s without the namespace", q.Path)
		}
	}
	if n := len(proxy.Requests()); n != 5 { // lookup, unwrap, login, read, revoke
		t.Errorf("%d requests, want 5", n)
	}
}
