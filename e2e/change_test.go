package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Somebody else writes between the look and the write of a rollback. What it would have replaced has changed: nobody has seen
// that, and nothing is written. What stays anyway may change.
func TestRollbackThatIsOvertaken(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	for _, capabilities := range []string{`"read", "patch"`, `"read", "update"`} {
		policy := sc.Policy(fmt.Sprintf(`path "+/data/*" { capabilities = [%s] }`, capabilities))
		token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
		for _, c := range []struct {
			name    string
			args    []string
			theirs  func(data map[string]string) // nil to delete
			written bool
		}{
			{"the same key", nil, func(d map[string]string) { d["A"] = vaulttest.Canary("theirs") }, false},
			{"a new key", nil, func(d map[string]string) { d["NEW"] = vaulttest.Canary("theirs") }, false},
			{"a key that goes", nil, func(d map[string]string) { delete(d, "B") }, false},
			{"a deletion", nil, nil, strings.Contains(capabilities, "update")}, // check-and-set knows versions, not deletions
			{"the same values", nil, func(map[string]string) {}, true},
			{"another key", []string{"--key", "A"}, func(d map[string]string) { d["B"] = vaulttest.Canary("theirs") }, true},
			{"the key itself", []string{"--key", "A"}, func(d map[string]string) { d["A"] = vaulttest.Canary("theirs") }, false},
		} {
			t.Run(capabilities+" "+c.name, func(t *testing.T) {
				mount := sc.Mount(2)
				first := map[string]string{"A": vaulttest.Canary("A"), "B": vaulttest.Canary("B")}
				srv.PutKV(t, mount, "app", first)
				srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("bad"), "B": first["B"]})
				var meanwhile map[string]string
				proxy := vaulttest.NewProxy(t, srv)
				interfere := func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
					_, meanwhile = secretAt(t, srv, mount, "app")
					if c.theirs == nil {
						srv.Must(t, "DELETE", mount+"/data/app", nil)
					} else {
						c.theirs(meanwhile)
						srv.PutKV(t, mount, "app", meanwhile)
					}
					next.ServeHTTP(w, r)
				}
				writes := func(r *http.Request) bool {
					return r.Method == "POST" || r.Method == "PATCH" && strings.Contains(capabilities, "patch")
				}
				proxy.On(writes, vaulttest.First(1, interfere, vaulttest.Pass))
				e := invocation{args: append([]string{"rollback", "--mount", mount, "app"}, c.args...),
					env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + token}}.run(t)
				if meanwhile == nil {
					t.Fatal("nobody interfered")
				}
				switch {
				case !c.written:
					e.check(t, c.name, 123, "cannot roll back", "somebody else changed it at the same moment", "nothing was written")
				case c.theirs == nil:
					e.check(t, c.name, 0, "version 2 → 3, from version 1, verified")
					meanwhile["A"] = first["A"]
				default:
					e.check(t, c.name, 0, "version 3 → 4, from version 1, verified")
					meanwhile["A"] = first["A"]
				}
				if c.theirs == nil && !c.written {
					e = invocation{args: []string{"get", "--mount", mount, "app"}, env: []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}}.run(t)
					e.check(t, "what was deleted", 122, "version 2 was deleted")
				} else if _, data := secretAt(t, srv, mount, "app"); fmt.Sprint(data) != fmt.Sprint(meanwhile) {
					t.Error("what is there is not what was meant")
				}
			})
		}
	}
}

// A secret that is deleted between the look and the PATCH: the failure says so, and not that there never was one.
func TestDeletedUnderARotation(t *testing.T) {
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A")})
	proxy := vaulttest.NewProxy(t, srv)
	proxy.On(func(r *http.Request) bool { return r.Method == "PATCH" }, vaulttest.First(1,
		func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
			srv.Must(t, "DELETE", mount+"/data/app", nil)
			next.ServeHTTP(w, r)
		}, vaulttest.Pass))
	e := invocation{args: []string{"rotate", "--mount", mount, "app", "A"}, env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + srv.RootToken}}.run(t)
	e.check(t, "deleted meanwhile", 122, "the latest version is 1 (deleted)")
}
