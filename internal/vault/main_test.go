package vault_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The client refuses to be made while these are set; the developer's own must not reach a test either.
func TestMain(m *testing.M) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") {
			_ = os.Unsetenv(name)
		}
	}
	vaulttest.Main(m)
}

func newClient(t *testing.T, cfg vault.Config) *vault.Client {
	t.Helper()
	c, err := vault.New(cfg)
	if err != nil {
		t.Fatalf("cannot make a client: %v", err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func newSession(t *testing.T, addr string, conf vault.LoginConfig) *vault.Session {
	t.Helper()
	return vault.NewSession(newClient(t, vault.Config{Address: addr}), conf)
}

func text(s string) vault.Source { return vault.TextSource("a test's credential", s) }

// file writes a credential and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credential")
	rewrite(t, path, content)
	return path
}

func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func login(t *testing.T, s *vault.Session) {
	t.Helper()
	if err := s.Login(t.Context()); err != nil {
		t.Fatalf("cannot log in: %v; hint: %s", err, fault.Of(err).Hint)
	}
}

// refused wants a failure of a kind whose text and hint hold all the words.
func refused(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("got %v, want a failure of kind %v", err, kind)
	}
	f := fault.Of(err)
	all := f.Error() + " | " + f.Hint
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("the failure does not say %q: %s", w, all)
		}
	}
	if got := vaulttest.Redact(all); got != all {
		t.Errorf("a secret in the text: %s", got)
	}
}

// accessor finds the accessor of the session's token.
func accessor(t *testing.T, srv *vaulttest.Server, token vault.Text) string {
	t.Helper()
	vaulttest.Secret(token.Reveal())
	_, out := srv.Do(t, "POST", "auth/token/lookup", map[string]string{"token": token.Reveal()})
	data, _ := out["data"].(map[string]any)
	a, _ := data["accessor"].(string)
	if a == "" {
		t.Fatal("the token has no accessor")
	}
	return a
}

// alive asks Vault itself whether a token lives.
func alive(t *testing.T, srv *vaulttest.Server, accessor string) bool {
	t.Helper()
	status, _ := srv.Do(t, "POST", "auth/token/lookup-accessor", map[string]string{"accessor": accessor})
	return status == http.StatusOK
}

// scripted is a server whose answers a test writes, for timings and failures that a real Vault cannot be brought to.
type scripted struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newScripted(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *scripted {
	t.Helper()
	s := &scripted{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/"))
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *scripted) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.seen...)
}
