package vault_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// namespaces makes two namespaces, one in the other. Where the server has none (Vault's community edition, which ignores the
// header) in is empty: then the names are made up, and only what is sent is tested.
func namespaces(t *testing.T, srv *vaulttest.Server) (outer, inner string, in func(ns string) string) {
	t.Helper()
	outer = srv.Scope(t).Name("ns")
	inner = outer + "/sub"
	if status, _ := srv.Do(t, "PUT", "sys/namespaces/"+outer, nil); status/100 != 2 {
		return outer, inner, func(string) string { return "" }
	}
	srv.Must(t, "PUT", outer+"/sys/namespaces/sub", nil)
	return outer, inner, func(ns string) string {
		if ns == "" {
			return ""
		}
		return ns + "/"
	}
}

// A login in one namespace, paths in another: everything about the token is sent to the one, everything else to the other.
func TestAuthNamespace(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	outer, inner, in := namespaces(t, srv)
	for _, c := range []struct{ name, option, auth, paths string }{
		{"the topmost", vault.RootNamespace, "", outer},
		{"another one", outer, outer, inner},
		{"the same", "", outer, outer},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sc := srv.Scope(t)
			kv, method, policy := sc.Name("kv"), sc.Name("approle"), sc.Name("policy")
			below := strings.TrimPrefix(strings.TrimPrefix(in(c.paths), in(c.auth)), "/")
			srv.Must(t, "POST", in(c.paths)+"sys/mounts/"+kv, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
			srv.PutKV(t, in(c.paths)+kv, "app", map[string]any{"KEY": vaulttest.Canary("key")})
			srv.Must(t, "PUT", in(c.auth)+"sys/policies/acl/"+policy, map[string]string{"policy": `path "` + below + kv + `/data/app" { capabilities = ["read"] }`})
			srv.Must(t, "POST", in(c.auth)+"sys/auth/"+method, map[string]string{"type": "approle"})
			at := in(c.auth) + "auth/" + method + "/role/app"
			srv.Must(t, "POST", at, map[string]any{"token_policies": policy, "token_ttl": "2s"})
			data, _ := srv.Must(t, "GET", at+"/role-id", nil)["data"].(map[string]any)
			id, _ := data["role_id"].(string)

			proxy := vaulttest.NewProxy(t, srv)
			conf := vault.LoginConfig{Method: vault.AuthAppRole, Mount: method, RoleID: text(id)}
			conf.WrappedSecretID = text(wrapped(t, srv, at+"/secret-id", "{}", "5m"))
			s := vault.NewSession(newClient(t, vault.Config{Address: proxy.Addr, Namespace: c.paths, AuthNamespace: c.option}), conf)
			login(t, s)
			canRead(t, s, kv, "app")
			log, stop := keep(t, s)
			if !wait.For(20*time.Second, func() bool { return log.count("the token is renewed") > 0 }) {
				t.Errorf("the token is not renewed:\n%s", log)
			}
			stop()
			token := s.Client.Token()
			handedIn := vault.NewTokenSession(newClient(t, vault.Config{Address: proxy.Addr, Namespace: c.paths, AuthNamespace: c.option}), func(context.Context) (vault.Text, error) { return token, nil })
			login(t, handedIn)
			if info, err := handedIn.Info(t.Context()); err != nil || !info.Known {
				t.Errorf("the token cannot be looked up: %+v, %v", info, err)
			}
			s.Revoke(t.Context())
			if err := handedIn.Do(t.Context(), func(ctx context.Context) error {
				_, err := handedIn.Client.Read(ctx, vault.Path{Mount: kv, Name: "app"}, vault.ReadOptions{})
				return err
			}); err == nil {
				t.Error("the token is still good")
			}
			seen := map[string]int{}
			for _, q := range proxy.Requests() {
				want := c.paths
				if strings.HasPrefix(q.Path, "auth/") || strings.HasPrefix(q.Path, "sys/wrapping/") {
					want = c.auth
					seen[q.Path[strings.LastIndexByte(q.Path, '/')+1:]]++
				}
				if got := strings.Trim(q.Namespace, "/"); got != want {
					t.Errorf("%s in the namespace %q, want %q", q.Path, got, want)
				}
			}
			for _, name := range []string{"lookup", "unwrap", "login", "renew-self", "lookup-self", "revoke-self"} {
				if seen[name] == 0 {
					t.Errorf("no %s was sent; there are %v", name, seen)
				}
			}
		})
	}
}

// A namespace that there is not is blamed on the option that named it.
func TestAuthNamespaceMissing(t *testing.T) {
	t.Parallel()
	proxy := vaulttest.NewProxy(t, vaulttest.Dev(t))
	proxy.Set(vaulttest.Errors(404, "namespace not found"))
	for option, want := range map[string]string{"team": "--auth-namespace", "": "--namespace or"} {
		for _, conf := range []vault.LoginConfig{
			{Method: vault.AuthAppRole, RoleID: text("r"), SecretID: text("s")}, {Method: vault.AuthUserpass, Username: "ada", Password: text("p")},
		} {
			s := vault.NewSession(newClient(t, vault.Config{Address: proxy.Addr, Namespace: "x", AuthNamespace: option}), conf)
			if f := fault.Of(s.Login(t.Context())); f.Kind != fault.Refused || f.Why != "no such namespace" || !strings.Contains(f.Hint, want) {
				t.Errorf("%q: %v; %s", option, f, f.Hint)
			}
		}
	}
}
