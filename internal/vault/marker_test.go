package vault_test

import (
	"net/http"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// undated is an answer that passes a proxy which takes the Date header out.
type undated struct{ http.ResponseWriter }

func (u undated) WriteHeader(status int) {
	u.Header()["Date"] = nil
	u.ResponseWriter.WriteHeader(status)
}

// Whether a version is deleted is judged by the server's clock, and by this machine's where a proxy has taken the Date header out.
func TestStatesWithoutDate(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	for range 3 {
		srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A")})
	}
	srv.Must(t, "POST", mount+"/delete/app", map[string]any{"versions": []int{2}})
	srv.Must(t, "POST", mount+"/destroy/app", map[string]any{"versions": []int{1}})
	stripping := vaulttest.NewProxy(t, srv)
	stripping.Set(func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(undated{w}, r)
	})
	p := vault.Path{Mount: mount, Name: "app"}
	for name, addr := range map[string]string{"with a Date": srv.Addr, "without": stripping.Addr} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, vault.Config{Address: addr})
			c.SetToken(vault.NewText(srv.RootToken))
			seal, err := c.Seal(t.Context())
			if err != nil || seal.Date.IsZero() != (name == "without") {
				t.Fatalf("the server's clock: %v, %v", seal.Date, err)
			}
			list, err := c.Versions(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{"current", "deleted", "destroyed"} {
				if list[i].Version != 3-i || list[i].State != want {
					t.Errorf("version %d is %s, want %s", list[i].Version, list[i].State, want)
				}
			}
			srv.Must(t, "POST", mount+"/delete/app", map[string]any{"versions": []int{3}})
			m, err := c.Look(t.Context(), p)
			srv.Must(t, "POST", mount+"/undelete/app", map[string]any{"versions": []int{3}})
			if err != nil || m.Version != 3 || name == "without" && !m.Deleted {
				t.Errorf("deleted: %v, %v", m, err)
			}
			if m, err = c.Look(t.Context(), p); err != nil || m.Deleted {
				t.Errorf("undeleted: %v, %v", m, err)
			}
		})
	}
}
