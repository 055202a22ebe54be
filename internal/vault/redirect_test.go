package vault_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A redirect to the same place is that of a node that is about to take the lead; one to another path of the same host says that
// the path is not written as it should be.
func TestRedirectToItself(t *testing.T) {
	for _, c := range []struct {
		name, location string
		kind           fault.Kind
		words          string
	}{
		{"itself", "/v1/kv/data/app", fault.Away, "about to take the lead"},
		{"itself, with a query", "/v1/kv/data/app?x=1", fault.Away, "about to take the lead"},
		{"a cleaned path", "/v1/kv/data", fault.Usage, "does not accept the path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var srv *httptest.Server
			srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", srv.URL+c.location)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			defer srv.Close()
			s := vault.NewTokenSession(newClient(t, vault.Config{Address: srv.URL}), text("hvs.nobodys"))
			login(t, s)
			_, err := s.Client.Read(t.Context(), vault.Path{Mount: "kv", Name: "app"}, vault.ReadOptions{KVVersion: 2})
			refused(t, err, c.kind, c.words)
		})
	}
}
