package vault_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A proof is another one each time, as a JWT that ends later. Whether it is tried again after a refusal goes by who proves it: the same
// account waits, and another one is tried at once.
func TestProofIsKnownByWhoProvesIt(t *testing.T) {
	t.Parallel()
	srv := newScripted(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 1<<10)
		n, _ := r.Body.Read(b)
		if s := string(b[:n]); strings.Contains(s, `"":`) || !strings.Contains(s, `"role":"app"`) || !strings.Contains(s, `"jwt":"proof`) {
			t.Errorf("sent %s", s)
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"errors":["service account is not authorized for role"]}`))
	})
	logins, who := 0, "ann"
	s := newSession(t, srv.URL, vault.LoginConfig{Method: vault.AuthGCP, Role: "app", Proof: func(context.Context) (map[string]vault.Text, error) {
		logins++
		return map[string]vault.Text{"jwt": vault.NewText(fmt.Sprint("proof-", logins)), vault.ProvenBy: vault.NewText(who)}, nil
	}})
	refused(t, s.Login(t.Context()), fault.Refused, "gcp at auth/gcp", "not authorized for role", "vault list auth/gcp/roles")
	refused(t, s.Login(t.Context()), fault.Refused, "the next try is at")
	who = "bob"
	refused(t, s.Login(t.Context()), fault.Refused, "gcp at auth/gcp")
	if n := len(srv.requests()); n != 2 || logins != 3 {
		t.Errorf("%d requests in %d logins", n, logins)
	}
}
