package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

func isLogin(q vaulttest.Request) bool {
	return strings.HasPrefix(q.Path, "auth/") && strings.HasSuffix(q.Path, "/login")
}

func isRenewal(q vaulttest.Request) bool { return q.Path == "auth/token/renew-self" }

func (r roleOf) read(ctx context.Context, s *vault.Session) error {
	_, err := s.Client.Read(ctx, vault.Path{Mount: r.kv, Name: "app"}, vault.ReadOptions{})
	return err
}

// A token that was revoked behind our back is replaced by one login, however many notice.
func TestDoLogsInAgain(t *testing.T) {
	r := newRole(t)
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	vaulttest.Secret(s.Client.Token().Reveal())
	r.srv.Must(t, "POST", "auth/token/revoke", map[string]string{"token": s.Client.Token().Reveal()})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Do(t.Context(), func(ctx context.Context) error { return r.read(ctx, s) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := proxy.Count(isLogin); n != 2 {
		t.Errorf("%d logins, want the first and one more", n)
	}
}

// A handed-in token is read again where it came from; when it is still the same, what failed says so itself.
func TestDoHandedIn(t *testing.T) {
	r := newRole(t)
	sc := r.srv.Scope(t)
	policy := sc.ReadPolicy(r.kv, "app")
	good := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}})
	path := file(t, "hvs.stale")
	s := newSession(t, r.srv.Addr, vault.LoginConfig{Method: vault.AuthToken, Token: vault.FileSource("--token-file", path)})
	login(t, s)
	read := func(ctx context.Context) error { return r.read(ctx, s) }
	refused(t, s.Do(t.Context(), read), fault.BadToken, "cannot read "+r.kv+"/app", "the token is not valid")
	rewrite(t, path, good)
	if err := s.Do(t.Context(), read); err != nil {
		t.Fatalf("the new token in the file is not used: %v", err)
	}
	acc := accessor(t, r.srv, vault.NewText(good))
	s.Revoke(t.Context())
	if !alive(t, r.srv, acc) {
		t.Error("a handed-in token was revoked")
	}
}

// A refused login is not repeated at once, a Vault that is away does not count, and another credential does not wait.
func TestReloginAfterRefusal(t *testing.T) {
	answer := vaulttest.Errors(http.StatusServiceUnavailable, "Vault is sealed")
	srv := newScripted(t, func(w http.ResponseWriter, r *http.Request) { answer(nil, w, r, nil) })
	path := file(t, "id-1")
	s := newSession(t, srv.URL, vault.LoginConfig{Method: vault.AuthAppRole, RoleID: text("role"), SecretID: vault.FileSource("--secret-id-file", path)})
	for range 3 {
		refused(t, s.Relogin(t.Context(), vault.Text{}), fault.Away, "sealed")
	}
	answer = vaulttest.Errors(http.StatusBadRequest, "invalid role or secret ID")
	for range 3 {
		err := s.Relogin(t.Context(), vault.Text{})
		refused(t, err, fault.Refused)
		if d := fault.Of(err).RetryAfter; d < 50*time.Second || d > time.Minute {
			t.Errorf("to be tried after %v", d)
		}
	}
	if n := len(srv.requests()); n != 4 {
		t.Errorf("%d logins, want 3 at a sealed Vault and 1 refused", n)
	}
	rewrite(t, path, "id-2")
	answer = vaulttest.Answer(http.StatusOK, `{"auth":{"client_token":"t-1","lease_duration":60,"renewable":true}}`)
	if err := s.Relogin(t.Context(), vault.Text{}); err != nil {
		t.Errorf("another credential has to wait: %v", err)
	}
}

// A proof that is another one each time, as a signature is, waits like a credential that is the same, as long as it is made with the
// same.
func TestReloginWithAnotherProof(t *testing.T) {
	answer := vaulttest.Errors(http.StatusBadRequest, "not you")
	srv := newScripted(t, func(w http.ResponseWriter, r *http.Request) { answer(nil, w, r, nil) })
	by, n := "key-1", 0
	s := newSession(t, srv.URL, vault.LoginConfig{Method: vault.AuthAWS, Role: "app", Proof: func(context.Context) (map[string]vault.Text, error) {
		n++
		return map[string]vault.Text{"signature": vault.NewText(fmt.Sprint("signature-", n)), vault.ProvenBy: vault.NewText(by)}, nil
	}})
	for range 3 {
		refused(t, s.Relogin(t.Context(), vault.Text{}), fault.Refused)
	}
	if n := len(srv.requests()); n != 1 {
		t.Errorf("%d logins with one key, want 1", n)
	}
	by = "key-2"
	answer = func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		var body map[string]string
		if json.NewDecoder(r.Body).Decode(&body) != nil || len(body) != 2 || body["signature"] != "signature-4" || body["role"] != "app" {
			t.Errorf("Vault is sent %v", body)
		}
		_, _ = io.WriteString(w, `{"auth":{"client_token":"t-1","lease_duration":60,"renewable":true}}`)
	}
	if err := s.Relogin(t.Context(), vault.Text{}); err != nil {
		t.Errorf("another key has to wait: %v", err)
	}
}

// The uses of a token are counted; no read fails because they ran out, and none is lost.
func TestUseLimitedToken(t *testing.T) {
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_num_uses": 5})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	reads := 0
	for range 6 {
		err := s.Do(t.Context(), func(ctx context.Context) error {
			for range 2 {
				reads++
				if err := r.read(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if reads != 12 {
		t.Errorf("%d reads: some were refused and repeated", reads)
	}
	if n := proxy.Count(isLogin); n != 3 {
		t.Errorf("%d logins, want 3: 4 reads and a revocation each", n)
	}

	r.srv.Must(t, "POST", r.at(), map[string]any{"token_num_uses": 1})
	s = newSession(t, r.srv.Addr, r.conf())
	login(t, s)
	err := s.Do(t.Context(), func(ctx context.Context) error {
		_ = r.read(ctx, s)
		return r.read(ctx, s)
	})
	refused(t, err, fault.BadToken, "good for 1 requests", "token_num_uses")
}

// messages is a log that can be read while it is written.
type messages struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buf.Write(p)
}

func (m *messages) count(words string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Count(m.buf.String(), words)
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return vaulttest.Redact(m.buf.String())
}

// keep runs Keep until the test ends, and returns its log and a function that ends it before.
func keep(t *testing.T, s *vault.Session) (*messages, func()) {
	t.Helper()
	log := &messages{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Keep(ctx, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return log, stop
}

// A token of 3 s that lives 6 s at most is renewed, replaced when that does not extend it, and nothing of ours is
// left at the end.
func TestKeepOverLongestLife(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "3s", "token_max_ttl": "6s"})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	accessors := map[string]bool{accessor(t, r.srv, s.Client.Token()): true}
	_, stop := keep(t, s)
	wait.Until(t, time.Minute, "two further logins", func() bool {
		token := s.Client.Token()
		// No Do: Keep alone has to see to it that there is a valid token at any time. Of one that was just replaced the
		// read may fail.
		if err := r.read(t.Context(), s); err != nil && s.Client.Token().Equal(token) {
			t.Fatalf("at a time without a valid token: %v", err)
		}
		if status, out := r.srv.Do(t, "POST", "auth/token/lookup", map[string]string{"token": token.Reveal()}); status == http.StatusOK {
			accessors[out["data"].(map[string]any)["accessor"].(string)] = true
		}
		return proxy.Count(isLogin) >= 3
	})
	stop()
	s.Revoke(t.Context())
	if n := proxy.Count(isRenewal); n < 2 {
		t.Errorf("%d renewals", n)
	}
	if len(accessors) < 2 {
		t.Errorf("saw %d tokens", len(accessors))
	}
	for a := range accessors {
		if alive(t, r.srv, a) {
			t.Error("a token of ours lives on")
		}
	}
}

// A role whose token_ttl is lowered gives renewals of less life, and goes on giving them: no login is needed.
func TestKeepLoweredTTL(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "3s", "token_max_ttl": "1h"})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "2s"})
	_, stop := keep(t, s)
	wait.Until(t, time.Minute, "three renewals, or another login", func() bool {
		return proxy.Count(isRenewal) >= 3 || proxy.Count(isLogin) >= 2
	})
	stop()
	if n := proxy.Count(isLogin); n != 1 {
		t.Errorf("%d logins for a token whose renewals go on", n)
	}
}

// Without the default policy a token cannot be renewed; it is replaced before its end.
func TestKeepWithoutDefaultPolicy(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "3s", "token_no_default_policy": true})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	log, _ := keep(t, s)
	wait.Until(t, time.Minute, "another login", func() bool { return proxy.Count(isLogin) >= 2 })
	if log.count("level=WARN") != 0 {
		t.Errorf("warnings where nothing is wrong: %s", log)
	}
}

// A batch token is neither renewed nor revoked, but replaced.
func TestKeepBatch(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "2s", "token_type": "batch"})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	_, stop := keep(t, s)
	wait.Until(t, time.Minute, "another login", func() bool { return proxy.Count(isLogin) >= 2 })
	stop()
	s.Revoke(t.Context())
	for _, q := range proxy.Requests() {
		if strings.HasPrefix(q.Path, "auth/token/") {
			t.Errorf("%s with a batch token", q.Path)
		}
	}
}

// A handed-in token is looked up once. That it ends is said once, and a new one in the file is taken up.
func TestKeepHandedIn(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	policy := r.srv.Scope(t).ReadPolicy(r.kv, "app")
	token := func(ttl time.Duration) string {
		return r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy, "default"}, TTL: ttl, NotRenew: true})
	}
	path := file(t, token(4*time.Second))
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, vault.LoginConfig{Method: vault.AuthToken, Token: vault.FileSource("--token-file", path)})
	login(t, s)
	log, _ := keep(t, s)
	wait.Until(t, time.Minute, "the announcement", func() bool { return log.count("cannot be renewed further") == 1 })
	old := s.Client.Token()
	rewrite(t, path, token(time.Minute))
	wait.Until(t, time.Minute, "the new token", func() bool { return !s.Client.Token().Equal(old) })
	wait.Until(t, time.Minute, "the second announcement", func() bool { return log.count("cannot be renewed further") == 2 })
	lookups := proxy.Count(func(q vaulttest.Request) bool { return q.Path == "auth/token/lookup-self" })
	if lookups != 2 {
		t.Errorf("%d lookups of two tokens", lookups)
	}
}

// Where nothing can be known or done, nothing is sent: a token that may not look itself up.
func TestKeepHandedInUnknown(t *testing.T) {
	r := newRole(t)
	policy := r.srv.Scope(t).ReadPolicy(r.kv, "app")
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, vault.LoginConfig{Method: vault.AuthToken, Token: text(r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true}))})
	login(t, s)
	log, _ := keep(t, s)
	wait.Until(t, time.Minute, "the lookup to be refused", func() bool { return log.count("cannot find out when the token expires") == 1 })
	if log.count("level=WARN") != 0 {
		t.Errorf("warnings: %s", log)
	}
}

// While Vault is away there is one line at the beginning and one at the end.
func TestKeepAway(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "3s"})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	login(t, s)
	proxy.Set(vaulttest.Errors(http.StatusServiceUnavailable, "Vault is sealed"))
	log, _ := keep(t, s)
	wait.Until(t, time.Minute, "several tries", func() bool { return proxy.Count(isRenewal) >= 3 })
	if log.count("level=WARN") != 1 {
		t.Errorf("warnings: %s", log)
	}
	proxy.Clear()
	wait.Until(t, time.Minute, "the end of trouble", func() bool { return log.count("in order again") == 1 })
	if log.count("level=WARN") != 1 {
		t.Errorf("warnings: %s", log)
	}
	if err := s.Do(t.Context(), func(ctx context.Context) error { return r.read(ctx, s) }); err != nil {
		t.Error(err)
	}
}

// What is revoked, and what is not.
func TestRevoke(t *testing.T) {
	r := newRole(t)
	t.Run("own", func(t *testing.T) {
		s := newSession(t, r.srv.Addr, r.conf())
		login(t, s)
		acc := accessor(t, r.srv, s.Client.Token())
		s.Revoke(t.Context())
		if alive(t, r.srv, acc) {
			t.Error("it lives on")
		}
		if err := s.Relogin(t.Context(), vault.Text{}); err == nil {
			t.Error("a login after the end of the session")
		}
	})
	t.Run("the old one after a login", func(t *testing.T) {
		s := newSession(t, r.srv.Addr, r.conf())
		login(t, s)
		acc := accessor(t, r.srv, s.Client.Token())
		if err := s.Relogin(t.Context(), s.Client.Token()); err != nil {
			t.Fatal(err)
		}
		if alive(t, r.srv, acc) {
			t.Error("the old token lives on")
		}
	})
	t.Run("through an Agent", func(t *testing.T) {
		conf := r.conf()
		conf.ThroughAgent = true
		s := newSession(t, r.srv.Addr, conf)
		login(t, s)
		acc := accessor(t, r.srv, s.Client.Token())
		s.Revoke(t.Context())
		if !alive(t, r.srv, acc) {
			t.Error("a revocation went through an Agent, whose own token it may hit")
		}
	})
	t.Run("a Vault that does not answer", func(t *testing.T) {
		proxy := vaulttest.NewProxy(t, r.srv)
		s := newSession(t, proxy.Addr, r.conf())
		login(t, s)
		proxy.Set(vaulttest.BlackHole)
		start := time.Now()
		s.Revoke(t.Context())
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
	})
	t.Run("a login under way", func(t *testing.T) {
		proxy := vaulttest.NewProxy(t, r.srv)
		come, gone := make(chan struct{}), make(chan struct{})
		proxy.On(vaulttest.Under("auth/"+r.mount), func(p *vaulttest.Proxy, w http.ResponseWriter, q *http.Request, next http.Handler) {
			close(come)
			<-gone
			next.ServeHTTP(w, q)
		})
		s := newSession(t, proxy.Addr, r.conf())
		failed := make(chan error, 1)
		go func() { failed <- s.Login(t.Context()) }()
		<-come
		revoked := make(chan struct{})
		go func() {
			s.Revoke(t.Context())
			close(revoked)
		}()
		close(gone)
		<-revoked
		<-failed
		logins, revocations := proxy.Count(isLogin), proxy.Count(func(q vaulttest.Request) bool { return q.Path == "auth/token/revoke-self" })
		if logins != 1 || revocations != 1 {
			t.Errorf("%d logins and %d revocations", logins, revocations)
		}
	})
}

// A lease ends with the token that made it, and a command still works with it: the token is left to end by itself.
func TestLeasedTokenIsNotRevokedByALogin(t *testing.T) {
	n := 0
	srv := newScripted(t, func(w http.ResponseWriter, r *http.Request) {
		switch path := strings.TrimPrefix(r.URL.Path, "/v1/"); {
		case strings.HasSuffix(path, "/login"):
			n++
			fmt.Fprintf(w, `{"auth":{"client_token":"t-%d","lease_duration":600,"renewable":true,"token_type":"service"}}`, n)
		case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
			fmt.Fprint(w, `{"data":{"path":"database/","type":"database"}}`)
		case strings.HasPrefix(path, "database/creds/"):
			fmt.Fprint(w, `{"lease_id":"database/creds/app/1","lease_duration":60,"renewable":true,"data":{"username":"u"}}`)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s := newSession(t, srv.URL, vault.LoginConfig{Method: vault.AuthAppRole, RoleID: text("role")})
	login(t, s)
	if _, err := s.Client.Read(t.Context(), vault.Path{Name: "database/creds/app"}, vault.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	revocations := func() (n int) {
		for _, r := range srv.requests() {
			if strings.HasSuffix(r, "revoke-self") {
				n++
			}
		}
		return n
	}
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil || revocations() != 0 {
		t.Errorf("%v, %d revocations of a token that a lease hangs on", err, revocations())
	}
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil || revocations() != 1 {
		t.Errorf("%v, %d revocations, want that of the token without a lease", err, revocations())
	}
}
