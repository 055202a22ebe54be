package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// storeRig is a rig whose people log in with a password, beside the Vault CLI.
type storeRig struct {
	*rig
	vault string // the CLI
	auth  string
}

func newStoreRig(t *testing.T) *storeRig {
	t.Helper()
	vault, err := vaulttest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	r := &storeRig{rig: newRig(t), vault: vault}
	r.auth = r.srv.Scope(t).Name("userpass")
	password := vaulttest.Canary("password")
	r.srv.Must(t, "POST", "sys/auth/"+r.auth, map[string]any{"type": "userpass"})
	t.Cleanup(func() { r.srv.Do(t, "DELETE", "sys/auth/"+r.auth, nil) })
	r.srv.Must(t, "POST", "auth/"+r.auth+"/users/ann", map[string]any{"password": password, "token_policies": r.policy, "token_ttl": "1h"})
	file := filepath.Join(r.dir, "password")
	vaulttest.WriteFile(t, file, password+"\n", 0o600)
	r.set("VAULT_TOKEN=", "VAULTEXEC_AUTH_MOUNT="+r.auth, "VAULTEXEC_USERNAME=ann", "VAULTEXEC_PASSWORD_FILE="+file)
	return r
}

// logIn logs ann in.
func (r *storeRig) logIn(args ...string) *running {
	r.t.Helper()
	return r.start(append([]string{"login", "--auth", "userpass"}, args...)...)
}

// run is a run that has nothing but the store.
func (r *storeRig) run(t *testing.T, want string) *running {
	t.Helper()
	env := append(r.env[:len(r.env):len(r.env)], "VAULTEXEC_AUTH_MOUNT=", "VAULTEXEC_USERNAME=", "VAULTEXEC_PASSWORD_FILE=")
	return startRun(t, r.dir, env, r.bin, "--", "touch", "started").finish(want)
}

// cli runs the Vault CLI.
func (r *storeRig) cli(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(r.vault, args...)
	cmd.Env, cmd.Dir = r.env, r.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// lives reports whether Vault knows a token.
func (r *storeRig) lives(t *testing.T, token string) bool {
	t.Helper()
	status, _ := r.srv.Do(t, "POST", "auth/token/lookup", map[string]any{"token": token})
	return status == http.StatusOK
}

// What vaultexec stores the Vault CLI finds, and the other way round; it lives until logout.
func TestStore(t *testing.T) {
	r := newStoreRig(t)
	r.logIn().finish("0")
	token := stored(t, r.dir)
	if !r.lives(t, token) {
		t.Fatal("the stored token is not valid")
	}
	out, err := r.cli(t, "token", "lookup", "-format=json")
	var about struct{ Data struct{ ID, Path string } }
	if err != nil || json.Unmarshal([]byte(out), &about) != nil || about.Data.ID != token {
		t.Errorf("the Vault CLI does not use it: %v %s", err, vaulttest.Redact(out))
	}
	if r.run(t, "0"); !r.started() {
		t.Error("a run does not use it")
	}
	j := r.logIn().finish("0")
	for _, want := range []string{"ok, with userpass at auth/" + r.auth + ", as " + r.auth + "-ann", "expires in 59m", "renewable, policies ", r.policy, "in " + r.dir + "/.vault-token"} {
		if !strings.Contains(j.out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, j.out)
		}
	}
	second := stored(t, r.dir)
	if second == token || !r.lives(t, token) {
		t.Error("a second login has no token of its own, or ends the first: another program may use it")
	}
	if r.logIn("--quiet").finish("0").silent(); stored(t, r.dir) == second {
		t.Error("--quiet stores nothing")
	}
	token = stored(t, r.dir)
	j = r.start("logout").finish("0")
	if !strings.Contains(j.out.String(), "revoked at ") || r.lives(t, token) || vaulttest.Exists(r.dir+"/.vault-token") {
		t.Errorf("after logout the token is there, or valid:\n%s", j.out)
	}
	if out, err := r.cli(t, "token", "lookup"); err == nil {
		t.Errorf("the Vault CLI still has a token: %s", vaulttest.Redact(out))
	}
	if j := r.start("logout").finish("0"); !strings.Contains(j.out.String(), "none is stored") || j.err.String() != "" {
		t.Errorf("a second logout says\n%s%s", j.out, j.err)
	}
	r.run(t, "125").says("hint: .*log in with `vaultexec login`")

	token = r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{r.policy}})
	if out, err := r.cli(t, "login", token); err != nil {
		t.Fatalf("%v %s", err, vaulttest.Redact(out))
	}
	if r.run(t, "0"); !r.started() {
		t.Error("a run does not use the Vault CLI's token")
	}
	if r.start("logout", "--json").finish("0"); r.lives(t, token) || vaulttest.Exists(r.dir+"/.vault-token") {
		t.Error("the Vault CLI's token outlives logout")
	}
}

// With a token helper nothing is in a file of vaultexec's making, and the helper gets no credential but the token.
func TestStoreWithHelper(t *testing.T) {
	r := newStoreRig(t)
	helper := filepath.Join(r.dir, "helper")
	vaulttest.WriteFile(t, helper, "#!/bin/sh\nenv >>"+r.dir+"/helper-env; echo \"$@\" >>"+r.dir+"/helper-args\ncase $1 in\nget) cat "+r.dir+"/kept 2>/dev/null;;\nstore) umask 077; cat >"+
		r.dir+"/kept;;\nerase) rm -f "+r.dir+"/kept;;\nesac\nexit 0\n", 0o700)
	vaulttest.WriteFile(t, filepath.Join(r.dir, ".vault"), fmt.Sprintf("token_helper = %q\n", helper), 0o600)
	r.set("VAULTEXEC_JWT=" + vaulttest.Canary("jwt"))
	if j := r.logIn().finish("0"); !strings.Contains(j.out.String(), "with the token helper "+helper) {
		t.Errorf("it says\n%s", j.out)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "kept"))
	if err != nil || !r.lives(t, string(b)) || vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) {
		t.Fatalf("the helper has no valid token, or a file has it: %v", err)
	}
	vaulttest.Secret(string(b))
	vaultEnv, vaultArgs := r.dir+"/helper-env", r.dir+"/helper-args"
	ours := r.env
	r.set("VAULTEXEC_JWT=") // the Vault CLI hands on what it has
	if out, err := r.cli(t, "token", "lookup"); err != nil {
		t.Errorf("the Vault CLI does not use it: %v %s", err, vaulttest.Redact(out))
	}
	r.env = ours
	if j := r.start("logout").finish("0"); r.lives(t, string(b)) || vaulttest.Exists(filepath.Join(r.dir, "kept")) {
		t.Errorf("after logout the token is there, or valid:\n%s", j.out)
	}
	for _, name := range []string{vaultEnv, vaultArgs} {
		b, err := os.ReadFile(name)
		if text := string(b); err != nil || vaulttest.Redact(text) != text {
			t.Errorf("%s has a credential: %v", name, err)
		}
	}
}

// What logout does with tokens that it cannot, or should not, end.
func TestLogout(t *testing.T) {
	r := newStoreRig(t)
	file := filepath.Join(r.dir, ".vault-token")
	put := func(t *testing.T, token string) {
		t.Helper()
		vaulttest.Secret(token)
		vaulttest.WriteFile(t, file, token, 0o600)
	}
	logout := func(t *testing.T, code, says string) *running {
		t.Helper()
		j := r.start("logout").finish(code)
		if !strings.Contains(j.out.String(), says) {
			t.Errorf("it says\n%s%s", j.out, j.err)
		}
		return j
	}
	t.Run("ended", func(t *testing.T) {
		token := r.srv.Token(t, vaulttest.TokenOpts{})
		r.srv.Must(t, "POST", "auth/token/revoke", map[string]any{"token": token})
		put(t, token)
		logout(t, "0", "was no longer valid at "+r.proxy.Addr)
		if vaulttest.Exists(file) {
			t.Error("it is still there")
		}
	})
	t.Run("root", func(t *testing.T) {
		token := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{"root"}})
		put(t, token)
		logout(t, "0", "`vault token revoke` ends it")
		if !r.lives(t, token) || vaulttest.Exists(file) {
			t.Error("it is revoked, or still there")
		}
		r.srv.Must(t, "POST", "auth/token/revoke", map[string]any{"token": token})
	})
	t.Run("batch", func(t *testing.T) {
		answer := r.srv.Must(t, "POST", "auth/token/create", map[string]any{"type": "batch", "policies": []string{r.policy}, "ttl": "1m"})
		put(t, answer["auth"].(map[string]any)["client_token"].(string))
		logout(t, "0", "until it expires")
		if vaulttest.Exists(file) {
			t.Error("it is still there")
		}
	})
	t.Run("no policy", func(t *testing.T) {
		token := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{r.policy}, NoDefault: true})
		put(t, token)
		logout(t, "0", "`vault token revoke` ends it")
		if !r.lives(t, token) || vaulttest.Exists(file) {
			t.Error("it is revoked, or still there")
		}
	})
	t.Run("away", func(t *testing.T) {
		token := r.srv.Token(t, vaulttest.TokenOpts{})
		put(t, token)
		r.proxy.Set(vaulttest.Errors(503, "Vault is sealed"))
		defer r.proxy.Clear()
		j := r.start("logout", "--wait", "0").finish("120").says("hint: .*still stored")
		if j.out.String() != "" || stored(t, r.dir) != token {
			t.Errorf("it says %s, or the token is gone", j.out)
		}
	})
	t.Run("VAULT_TOKEN", func(t *testing.T) {
		token, handed := r.srv.Token(t, vaulttest.TokenOpts{}), r.srv.Token(t, vaulttest.TokenOpts{})
		put(t, token)
		env := append(r.env[:len(r.env):len(r.env)], "VAULT_TOKEN="+handed)
		startRun(t, r.dir, env, r.bin, "logout").finish("0").says("VAULT_TOKEN is set, and left alone")
		if r.lives(t, token) || !r.lives(t, handed) {
			t.Error("the stored token lives, or the other one does not")
		}
		startRun(t, r.dir, env, r.bin, "login", "--auth", "userpass").finish("0").says("VAULT_TOKEN is set, and wins over the token that is stored now")
		if stored(t, r.dir) == handed {
			t.Error("the token of VAULT_TOKEN is stored")
		}
	})
	// Another one is stored while the first is being revoked.
	t.Run("another meanwhile", func(t *testing.T) {
		token, other := r.srv.Token(t, vaulttest.TokenOpts{}), r.srv.Token(t, vaulttest.TokenOpts{})
		put(t, token)
		r.proxy.On(vaulttest.Under("auth/token/revoke-self"), func(p *vaulttest.Proxy, w http.ResponseWriter, q *http.Request, next http.Handler) {
			_ = os.Remove(file)
			_ = os.WriteFile(file, []byte(other), 0o600)
			next.ServeHTTP(w, q)
		})
		defer r.proxy.Clear()
		r.start("logout").finish("0")
		if r.lives(t, token) || stored(t, r.dir) != other {
			t.Error("the token lives, or another one is removed")
		}
	})
}

// github, okta and radius are not in the tests' Vault. What is sent for them, and how long is waited.
func TestPeopleMethods(t *testing.T) {
	r := newStoreRig(t)
	github, password := vaulttest.Canary("github"), vaulttest.Canary("pass word")
	vaulttest.WriteFile(t, filepath.Join(r.dir, "password"), password, 0o600)
	r.set("VAULTEXEC_GITHUB_TOKEN="+github, "VAULTEXEC_AUTH_MOUNT=", "VAULTEXEC_TIMEOUT=1s")
	asked := make(chan string, 10) // nonces of okta
	answer := func(want map[string]string, wait func()) vaulttest.Behaviour {
		return func(_ *vaulttest.Proxy, w http.ResponseWriter, q *http.Request, _ http.Handler) {
			var got map[string]string
			if err := json.NewDecoder(q.Body).Decode(&got); err != nil || q.Header.Get("X-Vault-Token") != "" {
				t.Errorf("%s: %v, or a token is sent", q.URL.Path, err)
			}
			if nonce := got["nonce"]; nonce != "" {
				asked <- nonce
				delete(got, "nonce")
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: another body than is wanted", q.URL.Path)
			}
			if wait != nil {
				wait()
			}
			fmt.Fprintf(w, `{"auth":{"client_token":%q,"policies":["x"],"lease_duration":60,"renewable":true,"token_type":"service"}}`, r.srv.Token(t, vaulttest.TokenOpts{}))
		}
	}
	late := func() { <-time.After(1500 * time.Millisecond) } // later than an attempt may take otherwise
	r.proxy.On(vaulttest.Under("auth/github/login"), answer(map[string]string{"token": github}, nil))
	r.proxy.On(vaulttest.Under("auth/radius/login/ann"), answer(map[string]string{"password": password}, late))
	shown := make(chan struct{})
	r.proxy.On(vaulttest.Under("auth/okta/login/ann"), answer(map[string]string{"password": password}, func() { <-shown }))
	r.proxy.On(vaulttest.Under("auth/okta/verify/"), func(_ *vaulttest.Proxy, w http.ResponseWriter, q *http.Request, _ http.Handler) {
		if nonce := <-asked; !strings.HasSuffix(q.URL.Path, "/"+nonce) {
			t.Errorf("another nonce than that of the login: %s", q.URL.Path)
		}
		fmt.Fprint(w, `{"data":{"correct_answer":68}}`)
	})
	r.start("login", "--auth", "github").finish("0")
	r.start("login", "--auth", "radius").finish("0")
	j := r.start("login", "--auth", "okta")
	j.awaitStderr("choose this number in Okta Verify number=68")
	close(shown)
	j.finish("0")
	if r.touch("--auth", "github", "--auth-mount", "github").finish("121"); r.started() { // the token may not read
		t.Error("it has started")
	}
}
