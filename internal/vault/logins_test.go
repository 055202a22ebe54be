package vault_test

import (
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// A real Vault that cannot fetch the keys of a JWT's issuer says that the login is refused. It is waited for, and the login works as
// soon as the keys can be fetched; a JWT that is really refused is still refused then.
func TestJWTIssuerAway(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Name("jwks")
	key, _ := newRSA(t)
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	keys, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kty": "RSA", "alg": "RS256", "use": "sig",
		"n": number(key.N), "e": number(big.NewInt(int64(key.E)))}}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := func(l net.Listener) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) }))
		if l != nil {
			s.Listener.Close()
			s.Listener = l
		}
		s.Start()
		return s
	}
	first := issuer(nil)
	addr := first.Listener.Addr().String()
	srv.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "jwt"})
	srv.Must(t, "POST", "auth/"+mount+"/config", map[string]any{"jwks_url": first.URL, "default_role": "app"})
	srv.Must(t, "POST", "auth/"+mount+"/role/app", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "default"})
	first.Close()
	jwt := func(audience string) string {
		return signJWT(t, key, map[string]any{"sub": "app", "aud": audience, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	}
	s := newSession(t, srv.Addr, vault.LoginConfig{Method: vault.AuthJWT, Mount: mount, JWT: text(jwt("vault"))})
	refused(t, s.Login(t.Context()), fault.Away, "Vault cannot check the login now")
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the issuer's port was taken meanwhile: %v", err)
	}
	defer issuer(l).Close()
	login(t, s)
	other := newSession(t, srv.Addr, vault.LoginConfig{Method: vault.AuthJWT, Mount: mount, JWT: text(jwt("somebody"))})
	refused(t, other.Login(t.Context()), fault.Refused, "audience")
}

// What Vault's and OpenBao's auth methods say, word by word as their sources have it, and whether waiting can help.
func TestLoginAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		text   string
		want   fault.Kind
	}{
		{400, "error validating token: error verifying token signature: fetching keys oidc: get keys failed Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused", fault.Away},
		{400, "error validating token: failed to verify id token signature: fetching keys oidc: get keys failed: 503 Service Unavailable", fault.Away},
		{500, "error fetching keys: lookup issuer.example: no such host", fault.Away},
		{400, "error configuring token validator: keyset configuration error: Get \"https://issuer.example/.well-known/openid-configuration\": context deadline exceeded", fault.Away},
		{400, `LDAP Result Code 200 "Network Error": dial tcp 10.0.0.1:636: i/o timeout`, fault.Away},
		{400, `ldap operation failed: LDAP Result Code 52 "Unavailable": `, fault.Away},
		{500, "failed to contact the metadata service: read tcp: connection reset by peer", fault.Away},
		{500, "internal error", fault.Away},
		{503, "Vault is sealed", fault.Away},
		{400, "error validating token: invalid audience (aud) claim: audience claim does not match any bound audience", fault.Refused},
		{400, "error validating token: no known key successfully validated the token signature", fault.Refused},
		{400, "role \"x\" could not be found", fault.Refused},
		{400, "invalid role or secret ID", fault.Refused},
		{400, "ldap operation failed: failed to bind as user", fault.Refused},
		{400, "invalid username or password", fault.Refused},
		{400, "source address \"10.0.0.1\" unauthorized by CIDR restrictions on the secret ID", fault.Refused},
		{400, "failed to match all constraints for this login certificate", fault.Refused},
		{403, "permission denied", fault.Refused},
		{500, "failed to verify client's certificate: x509: certificate has expired", fault.Refused},
	} {
		answer, _ := json.Marshal(map[string][]string{"errors": {c.text}})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write(answer)
		}))
		err := newSession(t, server.URL, vault.LoginConfig{Method: vault.AuthJWT, JWT: text("a-jwt")}).Login(t.Context())
		server.Close()
		if f := fault.Of(err); err == nil || f.Kind != c.want {
			t.Errorf("%d %q is %v, want %v", c.status, c.text, f.Kind, c.want)
		}
	}
}

// A credential file that is not there yet, or not filled yet, is waited for where somebody waits at all. One that holds what is no
// credential is not.
func TestCredentialFileComesLater(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{"default"}})
	for name, before := range map[string]func(path string) error{
		"missing":         func(string) error { return nil },
		"its folder, too": func(path string) error { return os.Remove(filepath.Dir(path)) },
		"empty":           func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a line":          func(path string) error { return os.WriteFile(path, []byte("\n"), 0o600) },
	} {
		dir := filepath.Join(t.TempDir(), "dir")
		path := filepath.Join(dir, "token")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := before(path); err != nil {
			t.Fatal(err)
		}
		s := newSession(t, srv.Addr, vault.LoginConfig{Method: vault.AuthToken, Token: vault.FileSource("--token-file", path)})
		noticed := 0
		p := vault.Patience{Wait: time.Minute, Files: true, Notice: func(f *fault.Error) {
			noticed++
			if !f.Passing {
				t.Errorf("%s: %v", name, f)
			}
			_ = os.MkdirAll(dir, 0o700)
			if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
				t.Error(err)
			}
		}}
		if err := p.Do(t.Context(), s.Login); err != nil || noticed != 1 {
			t.Errorf("%s: %v, noticed %d times", name, err, noticed)
		}
	}
	s := newSession(t, srv.Addr, vault.LoginConfig{Method: vault.AuthToken, Token: vault.FileSource("--token-file", file(t, "two words"))})
	if err := (vault.Patience{Wait: time.Minute, Files: true}).Do(t.Context(), s.Login); !fault.Is(err, fault.Usage) {
		t.Errorf("two words: %v", err)
	}
	missing := newSession(t, srv.Addr, vault.LoginConfig{Method: vault.AuthToken, Token: vault.FileSource("--token-file", "/nowhere/token")})
	if err := (vault.Patience{Wait: time.Minute}).Do(t.Context(), missing.Login); !fault.Is(err, fault.Usage) {
		t.Errorf("where nobody waits for files: %v", err)
	}
}
