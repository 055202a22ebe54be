package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// identity/oidc/token/ROLE as a source: a signed token, another one at every read.

// oidcRole makes a role whose tokens live for ttl, and an AppRole that may read them and everything in the mount. It returns
// the role's path and a token that an AppRole login gave, which belongs to an entity.
func oidcRole(t *testing.T, w *watched, ttl string) (path string) {
	t.Helper()
	role := w.scope.Name("oidc")
	w.srv.Must(t, "POST", "identity/oidc/role/"+role, map[string]any{"key": "default", "ttl": ttl})
	t.Cleanup(func() { w.srv.Do(t, "DELETE", "identity/oidc/role/"+role, nil) })
	path = "identity/oidc/token/" + role
	policy := w.scope.Policy(fmt.Sprintf("%s\npath %q { capabilities = [\"read\"] }", w.rules(true), path))
	mount, _, roleID, secretID := w.scope.AppRole(policy)
	out := w.srv.Must(t, "POST", "auth/"+mount+"/login", map[string]string{"role_id": roleID, "secret_id": secretID})
	auth, _ := out["auth"].(map[string]any)
	w.token, _ = auth["client_token"].(string)
	return path
}

// hideTokens keeps the tokens that the commands were given, as B, out of what a failure prints.
func (w *watched) hideTokens() {
	w.t.Cleanup(func() {
		for _, s := range w.starts() {
			vaulttest.Secret(s.b)
		}
	})
}

// claims are what an unverified JWT says.
func claims(t *testing.T, jwt string) (c struct {
	Subject    string `json:"sub"`
	Issued     int64  `json:"iat"`
	Expiration int64  `json:"exp"`
}) {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(jwt), ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIdentityToken(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	path := oidcRole(t, w, "1h")
	r := &rig{t: t, bin: w.bin, srv: w.srv, proxy: w.proxy, dir: w.dir, env: []string{"PATH=/usr/bin:/bin", "HOME=" + w.dir, "VAULT_ADDR=" + w.proxy.Addr, "VAULT_TOKEN=" + w.token}}
	reads := func() int { return w.proxy.Count(func(q vaulttest.Request) bool { return q.Path == path }) }

	env := "ID_TOKEN=/" + path + "#token"
	j := r.start("--env", env, "--", "printenv", "ID_TOKEN").finish2(t)
	if c := claims(t, j.out.String()); c.Subject == "" || c.Expiration-c.Issued != 3600 {
		t.Errorf("the token says %+v", c)
	}
	if reads() != 1 {
		t.Errorf("%d reads, want 1", reads())
	}
	// Replace mode: nothing about it needs a parent. Also with all keys, and by the mount's name.
	j = r.start("--mount", "identity", "--path", strings.TrimPrefix(path, "identity/"), "--", "sh", "-c", `test -n "$token" && echo "$ttl $PPID"`).finish2(t)
	if got := strings.Fields(j.out.String()); len(got) != 2 || got[0] != "3600" {
		t.Errorf("it prints %q", got)
	}

	// check makes none, and judges by the policy.
	made := reads()
	j = r.start("check", "--env", env).finish2(t)
	if !strings.Contains(j.out.String(), "leased    "+path+": identity, not read, because reading creates a token") {
		t.Errorf("check says:\n%s", j.out)
	}
	j = r.start("get", "/"+path)
	j.finish("125")
	if reads() != made {
		t.Errorf("check or get made %d tokens", reads()-made)
	}

	// Refused: by a policy, with the rule; for a token of no entity; what else lies in that mount.
	r.set("VAULT_TOKEN=" + w.srv.Token(t, vaulttest.TokenOpts{Policies: []string{w.policy}}))
	j = r.start("--env", env, "--", "true").finish("121")
	if !strings.Contains(j.err.String(), fmt.Sprintf("path %q { capabilities = [\"read\"] }", path)) {
		t.Errorf("it says:\n%s", j.err)
	}
	r.set("VAULT_TOKEN=" + w.srv.RootToken)
	j = r.start("--env", env, "--", "true").finish("121")
	if !strings.Contains(j.err.String(), "belongs to no entity") {
		t.Errorf("it says:\n%s", j.err)
	}
	r.start("--path", "/identity/entity/id", "--", "true").finish("125")
	r.start("--path", "/identity/oidc/config", "--", "true").finish("125")
	r.start("--path", "/"+path+"@2", "--", "true").finish("125")
}

// Under --watch a token that differs at every read restarts nothing; it is kept over a restart for another reason, and read
// anew before its end.
func TestWatchIdentityToken(t *testing.T) {
	t.Parallel()
	t.Run("long", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, 2)
		path := oidcRole(t, w, "1h")
		first, second := w.fresh("app", "A"), vaulttest.Canary("A")
		w.start("--path", "app", "--env", "B=/"+path+"#token")
		w.hideTokens()
		w.waitA(first)
		w.looks(4, 1)
		w.put("app", "A="+second)
		w.waitA(second)
		w.stop()
		w.wantStarts(2)
		if s := w.starts(); len(s) == 2 && (s[0].b == "" || s[0].b != s[1].b) {
			t.Error("the token was not kept over the restart")
		}
		if n := w.proxy.Count(func(q vaulttest.Request) bool { return q.Path == path }); n != 1 {
			t.Errorf("%d reads of it, want 1", n)
		}
	})
	t.Run("short", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, 2)
		path := oidcRole(t, w, "3s")
		w.start("--env", "B=/"+path+"#token")
		w.hideTokens()
		w.waitStarts(1)
		began := claims(t, w.last().b)
		w.waitStarts(2)
		if now := claims(t, w.last().b); now.Issued <= began.Issued {
			t.Errorf("%+v was replaced by %+v", began, now)
		}
		w.stop()
	})
}
