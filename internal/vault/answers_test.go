package vault_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// TestWordsOfAnEcho: an answer that quotes the request, as of a careless proxy or plugin, shows nothing that was sent: no
// token, password, secret id, key share or value, as it is or as JSON. What is no secret stays, so that the text helps.
func TestWordsOfAnEcho(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusInternalServerError} {
		echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			var plain struct{ Password, Data string }
			_ = json.Unmarshal(body, &plain)
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {"cannot take " + string(body), plain.Password, r.Header.Get("X-Vault-Token")}})
		}))
		defer echo.Close()
		token, secret := vaulttest.Canary("token"), vaulttest.Canary(`"quoted"`+"\n"+`<two> lines`)
		conf := func(m vault.Method) vault.LoginConfig {
			return vault.LoginConfig{Method: m, Username: "ada", Role: "the-role", RoleID: text("role-id-1"), SecretID: text(vaulttest.Canary("secret-id")), JWT: text(vaulttest.Canary("jwt")),
				Password: func(context.Context) (vault.Text, error) { return vault.CheckPassword("x", secret) }}
		}
		ctx := context.Background()
		failures := map[string]error{}
		for _, m := range []vault.Method{vault.AuthAppRole, vault.AuthJWT, vault.AuthKubernetes, vault.AuthUserpass, vault.AuthLDAP, vault.AuthCert} {
			failures[string(m)] = newSession(t, echo.URL, conf(m)).Login(ctx)
		}
		c := newClient(t, vault.Config{Address: echo.URL})
		c.SetToken(vault.NewText(token))
		_, failures["unseal"] = c.Unseal(ctx, vault.NewText(vaulttest.Canary("share")))
		_, failures["lookup"] = c.LookupToken(ctx)
		path, err := vault.ParsePath("/kv/app", "secret")
		if err != nil {
			t.Fatal(err)
		}
		_, failures["read"] = c.Read(ctx, path, vault.ReadOptions{KVVersion: 2})
		for _, kv := range []int{1, 2} {
			out := vault.Edit{Path: path, Set: map[string]vault.Value{}, Create: true, Check: func(vault.State) error { return nil }}
			for _, key := range []string{"name", "role", "paths", "lease_id", "KEY"} { // a key of this name is no name
				out.Set[key] = vault.NewText(vaulttest.Canary(key)).Value()
			}
			engine := vault.Engine{Mount: "kv", Type: "kv", KV: kv}
			mute := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet { // nothing is there
					w.WriteHeader(http.StatusNotFound)
					_, _ = io.WriteString(w, `{"errors":[]}`)
					return
				}
				echo.Config.Handler.ServeHTTP(w, r)
			}))
			defer mute.Close()
			writer := newClient(t, vault.Config{Address: mute.URL})
			_, failures["write "+strconv.Itoa(kv)] = writer.Apply(ctx, out, engine)
		}
		for name, err := range failures {
			f := fault.Of(err)
			if err == nil || !strings.Contains(f.Error(), "cannot take") && name != "read" && name != "lookup" {
				t.Errorf("%d %s: %v", status, name, vaulttest.Redact(f.Error()))
			}
			if all := f.Error() + f.Hint; vaulttest.Redact(all) != all {
				t.Errorf("%d %s shows what was sent: %s", status, name, vaulttest.Redact(all))
			}
			if (name == "jwt" || name == "kubernetes") && !strings.Contains(f.Error(), "the-role") {
				t.Errorf("%d %s does not show the role: %s", status, name, f.Error())
			}
		}
	}
}
