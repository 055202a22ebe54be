package e2e

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// oidcRig is a rig whose Vault lets people in by OpenID Connect. The provider is Vault's own (identity/oidc/provider), and
// Vault logs in at itself. The test's Vault has no user interface, in whose place the page of provider stands: it asks for
// a name and a password, and has Vault make the code.
type oidcRig struct {
	*rig
	auth, user, password string
	front                *httptest.Server
	port                 string // where the browser comes back to
	opened               string // where BROWSER puts the addresses that it is to open
	mode                 sync.Map
}

func newOIDCRig(t *testing.T) *oidcRig {
	t.Helper()
	r := &oidcRig{rig: newRig(t), user: "ann", password: vaulttest.Canary("password")}
	sc := r.srv.Scope(t)
	people, provider, client := sc.Name("people"), sc.Name("provider"), sc.Name("client")
	r.auth, r.port = sc.Name("oidc"), freePort(t)
	must := func(method, path string, body any) map[string]any {
		t.Helper()
		data, _ := r.srv.Must(t, method, path, body)["data"].(map[string]any)
		return data
	}
	must("POST", "sys/auth/"+people, map[string]any{"type": "userpass"})
	must("POST", "auth/"+people+"/users/"+r.user, map[string]any{"password": r.password})
	vaultURL, err := url.Parse(r.srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(vaultURL)
	r.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasPrefix(req.URL.Path, "/ui/") {
			proxy.ServeHTTP(w, req)
			return
		}
		r.login(t, w, req, people, provider)
	}))
	t.Cleanup(r.front.Close)
	callback := "http://localhost:" + r.port + "/oidc/callback"
	must("POST", "identity/oidc/client/"+client, map[string]any{"redirect_uris": callback, "assignments": "allow_all", "key": "default"})
	must("POST", "identity/oidc/provider/"+provider, map[string]any{"issuer": r.front.URL, "allowed_client_ids": "*"})
	ids := must("GET", "identity/oidc/client/"+client, nil)
	secret, _ := ids["client_secret"].(string)
	vaulttest.Secret(secret)
	must("POST", "sys/auth/"+r.auth, map[string]any{"type": "oidc"})
	must("POST", "auth/"+r.auth+"/config", map[string]any{"oidc_discovery_url": r.front.URL + "/v1/identity/oidc/provider/" + provider,
		"oidc_client_id": ids["client_id"], "oidc_client_secret": secret})
	must("POST", "auth/"+r.auth+"/role/dev", map[string]any{"role_type": "oidc", "user_claim": "sub", "allowed_redirect_uris": callback,
		"token_policies": r.policy})
	t.Cleanup(func() {
		for _, path := range []string{"sys/auth/" + r.auth, "sys/auth/" + people, "identity/oidc/provider/" + provider, "identity/oidc/client/" + client} {
			r.srv.Do(t, "DELETE", path, nil)
		}
	})
	r.opened = filepath.Join(r.dir, "opened")
	opener := filepath.Join(r.dir, "opener")
	vaulttest.WriteFile(t, opener, "#!/bin/sh\nenv >"+r.dir+"/opener-env\nprintf '%s\\n' \"$1\" >>"+r.opened+"\n", 0o700)
	r.set("VAULT_TOKEN=", "VAULTEXEC_AUTH_MOUNT="+r.auth, "VAULTEXEC_ROLE=dev", "VAULTEXEC_OIDC_PORT="+r.port, "BROWSER="+opener)
	return r
}

// login is the page of the provider.
func (r *oidcRig) login(t *testing.T, w http.ResponseWriter, req *http.Request, people, provider string) {
	q := req.URL.Query()
	back := func(values url.Values) {
		if value, _ := r.mode.Load("form_post"); value != nil {
			fmt.Fprintf(w, "<!DOCTYPE html><form id=back method=post action=%q>", html.EscapeString(q.Get("redirect_uri")))
			for name := range values {
				fmt.Fprintf(w, "<input type=hidden name=%q value=%q>", name, html.EscapeString(values.Get(name)))
			}
			fmt.Fprint(w, `<button id=go>go</button></form>`)
			return
		}
		http.Redirect(w, req, q.Get("redirect_uri")+"?"+values.Encode(), http.StatusFound)
	}
	if req.Method == http.MethodGet {
		fmt.Fprint(w, `<!DOCTYPE html><title>Log in</title><form method=post><input id=user name=user><input id=password name=password type=password><button id=go>Log in</button><button id=no name=no value=1>No</button></form>`)
		return
	}
	if req.FormValue("no") != "" {
		back(url.Values{"error": {"access_denied"}, "error_description": {"the user said no\x1b[31m <b>"}, "state": {q.Get("state")}})
		return
	}
	status, answer := r.srv.Do(t, "POST", "auth/"+people+"/login/"+req.FormValue("user"), map[string]any{"password": req.FormValue("password")})
	auth, _ := answer["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if status != http.StatusOK || token == "" {
		http.Error(w, "wrong password", http.StatusForbidden)
		return
	}
	body := map[string]any{}
	for name := range q {
		body[name] = q.Get(name)
	}
	status, answer = r.srv.DoAs(t, token, "POST", "identity/oidc/provider/"+provider+"/authorize", body)
	code, _ := answer["code"].(string)
	if status != http.StatusOK || code == "" {
		http.Error(w, fmt.Sprintf("no code: %d %v", status, answer), http.StatusInternalServerError)
		return
	}
	back(url.Values{"code": {code}, "state": {q.Get("state")}})
}

// address waits until the browser was given an address, and returns it.
func (r *oidcRig) address(t *testing.T) string {
	t.Helper()
	var text string
	wait.Until(t, time.Minute, "an address for the browser", func() bool {
		b, _ := os.ReadFile(r.opened)
		text = string(b)
		return strings.HasSuffix(text, "\n")
	})
	_ = os.Remove(r.opened)
	return strings.TrimSpace(text)
}

// shown waits until an address is printed, and returns it.
func shown(t *testing.T, text func() string) string {
	t.Helper()
	re := regexp.MustCompile(`(?m)^ +(http\S+)\r?$`)
	wait.Until(t, time.Minute, "an address to be shown", func() bool { return re.MatchString(text()) })
	return re.FindStringSubmatch(text())[1]
}

// person goes to an address without a browser, and does there what one would: fills in the form and follows. It returns
// the last page.
func (r *oidcRig) person(t *testing.T, address string, form url.Values) (status int, page string, last *http.Response) {
	t.Helper()
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, Timeout: time.Minute}
	resp, err := c.PostForm(address, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp
}

// ann is the form that she fills in.
func (r *oidcRig) ann() url.Values { return url.Values{"user": {r.user}, "password": {r.password}} }

// started returns a login that waits for its browser.
func (r *oidcRig) waiting(t *testing.T, args ...string) (j *running, address string) {
	t.Helper()
	j = r.start(append([]string{"login", "--auth", "oidc"}, args...)...)
	return j, r.address(t)
}

// tokens counts the living tokens of this rig's logins.
func (r *oidcRig) tokens(t *testing.T) int {
	t.Helper()
	return tokensOf(t, r.srv, "auth/"+r.auth+"/oidc/callback")
}

// get asks the port of the login for something.
func (r *oidcRig) get(t *testing.T, path string, change func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://localhost:"+r.port+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

// stored is the token in ~/.vault-token, which must be for its owner alone.
func stored(t *testing.T, home string) string {
	t.Helper()
	path := filepath.Join(home, ".vault-token")
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || int(st.Uid) != os.Geteuid() {
		t.Errorf("%s has mode %v and belongs to %d", path, info.Mode(), st.Uid)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.Secret(string(b))
	return string(b)
}

// report is what login --json says.
func report(t *testing.T, j *running) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(j.out.String()), &m); err != nil {
		t.Fatalf("%v in %q", err, vaulttest.Redact(j.out.String()))
	}
	return m
}
