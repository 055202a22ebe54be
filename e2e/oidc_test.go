package e2e

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// A person logs in at a provider, and later runs use the token. The page runs nothing and is kept nowhere.
func TestOIDCLogin(t *testing.T) {
	r := newOIDCRig(t)
	r.set("VAULTEXEC_GITHUB_TOKEN=" + vaulttest.Canary("github"))
	j, address := r.waiting(t, "--json")
	if shownAddress := shown(t, j.err.String); shownAddress != address {
		t.Errorf("the browser gets another address than is shown: %s, %s", address, shownAddress)
	}
	status, page, last := r.person(t, address, r.ann())
	if status != http.StatusOK || !strings.Contains(page, "You are logged in") {
		t.Fatalf("HTTP %d\n%s", status, page)
	}
	for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'", "Referrer-Policy": "no-referrer",
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := last.Header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if strings.Contains(page, "script") || strings.Contains(page, "src=") || strings.Contains(page, "href=") ||
		strings.Contains(page, last.Request.URL.Query().Get("code")) {
		t.Errorf("the page runs, loads or repeats something:\n%s", page)
	}
	j.finish("0")
	m := report(t, j)
	if m["method"] != "oidc" || m["mount"] != r.auth || m["expires"] == nil || !strings.HasPrefix(m["name"].(string), r.auth) {
		t.Errorf("it says %v", m)
	}
	token := stored(t, r.dir)
	if text := j.out.String() + j.err.String(); strings.Contains(text, token) {
		t.Error("the token is printed")
	}
	if n := r.tokens(t); n != 1 {
		t.Errorf("%d tokens live, want the one that is stored", n)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "opener-env"))
	if err != nil || vaulttest.Redact(string(b)) != string(b) {
		t.Errorf("the browser gets credentials: %v", err)
	}
	r.set("VAULTEXEC_AUTH_MOUNT=", "VAULTEXEC_ROLE=", "VAULTEXEC_GITHUB_TOKEN=")
	if r.touch().finish("0"); !r.started() {
		t.Error("a run does not use it")
	}
	// The code in the browser's history is used up.
	code := last.Request.URL.Query()
	status, answer := r.srv.Do(t, "GET", "auth/"+r.auth+"/oidc/callback?"+url.Values{"state": code["state"], "code": code["code"]}.Encode(), nil)
	if status != http.StatusBadRequest {
		t.Errorf("Vault takes the code a second time: %d %v", status, answer)
	}
}

// A run whose login needs a person: at a terminal there is one, elsewhere the run says how to have one.
func TestOIDCNeedsATerminal(t *testing.T) {
	r := newOIDCRig(t)
	r.touch("--auth", "oidc").finish("125").says("hint: .*`vaultexec login --auth oidc`")
	if r.started() || vaulttest.Exists(r.opened) {
		t.Error("something was started")
	}
}

// What the provider refuses ends the login, in its words, as far as these are for a terminal.
func TestOIDCRefusedByProvider(t *testing.T) {
	r := newOIDCRig(t)
	j, address := r.waiting(t)
	status, page, _ := r.person(t, address, url.Values{"no": {"1"}})
	if status != http.StatusOK || !strings.Contains(page, "You are not logged in") || strings.Contains(page, "access_denied") {
		t.Errorf("HTTP %d\n%s", status, page)
	}
	j.finish("121").says(`^vaultexec: cannot log in with oidc at auth/` + r.auth + `: the provider refused it: access_denied: the user said no\\x1b\[31m <b>$`)
	if vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) {
		t.Error("a token is stored")
	}
}

// Whatever else comes to the port changes nothing: the wait goes on, and ends with the one right answer.
func TestOIDCAnswersOfOthers(t *testing.T) {
	r := newOIDCRig(t)
	j, address := r.waiting(t)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	state := u.Query().Get("state")
	if state == "" || !strings.Contains(address, "code_challenge=") {
		t.Fatalf("no state or no PKCE in %s", address)
	}
	right := "/oidc/callback?code=x&state=" + state
	for name, c := range map[string]struct {
		path   string
		change func(*http.Request)
		status int
	}{
		"wrong state":           {"/oidc/callback?code=x&state=st_wrong", nil, 400},
		"no state":              {"/oidc/callback?code=x", nil, 400},
		"part of the state":     {"/oidc/callback?code=x&state=" + state[:len(state)-1], nil, 400},
		"two states":            {right + "&state=st_wrong", nil, 400},
		"two codes":             {right + "&code=y", nil, 400},
		"no code":               {"/oidc/callback?state=" + state, nil, 400},
		"error of others":       {"/oidc/callback?error=access_denied&state=st_wrong", nil, 400},
		"error without state":   {"/oidc/callback?error=access_denied", nil, 400},
		"another name":          {right, func(q *http.Request) { q.Host = "evil.example:" + r.port }, 400},
		"another name, no port": {right, func(q *http.Request) { q.Host = "localhost" }, 400},
		"another port":          {right, func(q *http.Request) { q.Host = "localhost:80" }, 400},
		"HEAD":                  {right, func(q *http.Request) { q.Method = "HEAD" }, 405},
		"OPTIONS":               {right, func(q *http.Request) { q.Method = "OPTIONS" }, 405},
		"another path":          {"/", nil, 404},
		"a path below":          {"/oidc/callback/?code=x&state=" + state, nil, 404},
		"long":                  {right + "&x=" + strings.Repeat("x", 100<<10), nil, 431},
	} {
		status, page, header := r.get(t, c.path, c.change)
		if status != c.status || strings.Contains(page, "st_wrong") {
			t.Errorf("%s: HTTP %d, want %d\n%s", name, status, c.status, page)
		}
		if c.status != 431 && header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: no Content-Security-Policy", name)
		}
		select {
		case <-j.done:
			t.Fatalf("%s: it has ended:\n%s", name, j.err)
		default:
		}
	}
	if status, page, _ := r.person(t, address, r.ann()); status != http.StatusOK {
		t.Fatalf("HTTP %d\n%s", status, page)
	}
	j.finish("0").says(`refused why="it belongs to another login"`).says(`refused why="it came under another name than localhost"`)
	if n := strings.Count(j.err.String(), "it belongs to another login"); n != 1 { // a page that asks without an end does not fill the terminal
		t.Errorf("%d lines of one reason", n)
	}
}

// Of two right answers only the first counts, and whoever gives the second is told.
func TestOIDCTwoAnswers(t *testing.T) {
	r := newOIDCRig(t)
	r.proxy.On(vaulttest.Under("auth/"+r.auth+"/oidc/callback"), vaulttest.BlackHole)
	j, address := r.waiting(t)
	u, _ := url.Parse(address)
	path := "/oidc/callback?code=x&state=" + u.Query().Get("state")
	first := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://localhost:" + r.port + path)
		if err != nil {
			first <- err.Error()
			return
		}
		resp.Body.Close()
		first <- resp.Status
	}()
	r.proxy.WaitRequests(t, 2)
	status, page, _ := r.get(t, path, nil)
	if status != http.StatusConflict || !strings.Contains(page, "Too late") {
		t.Errorf("HTTP %d\n%s", status, page)
	}
	j.signal(syscall.SIGINT)
	j.finish("INT")
	<-first
}

// The port is taken before anything is asked of Vault, both of its addresses, and who has it is said.
func TestOIDCPortInUse(t *testing.T) {
	r := newOIDCRig(t)
	j, _ := r.waiting(t)
	other := r.start("login", "--auth", "oidc").finish("125")
	other.says(`^vaultexec: cannot listen on 127\.0\.0\.1:` + r.port + `: the address is in use by \S+ \(process \d+\)$`).says("hint: .*--oidc-port")
	if n := r.proxy.Count(func(q vaulttest.Request) bool { return strings.HasSuffix(q.Path, "auth_url") }); n != 1 {
		t.Errorf("Vault was asked %d times for an address", n)
	}
	j.signal(syscall.SIGINT)
	j.finish("INT")
	if vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) {
		t.Error("a token is stored")
	}
}

// A role that does not allow the port, and one that there is not.
func TestOIDCRefusedByVault(t *testing.T) {
	r := newOIDCRig(t)
	r.start("login", "--auth", "oidc", "--role", "nobody").finish("121").says(`role "nobody" could not be found`)
	r.srv.Must(t, "POST", "auth/"+r.auth+"/role/elsewhere", map[string]any{"role_type": "oidc", "user_claim": "sub", "allowed_redirect_uris": "http://localhost/elsewhere"})
	r.start("login", "--auth", "oidc", "--role", "elsewhere").finish("121").says("Vault gives no address to log in at").
		says("hint: .*http://localhost:" + r.port + "/oidc/callback")
	r.srv.Must(t, "POST", "auth/"+r.auth+"/role/bound", map[string]any{"role_type": "oidc", "user_claim": "sub", "bound_subject": "somebody else",
		"allowed_redirect_uris": "http://localhost:" + r.port + "/oidc/callback"})
	j, address := r.waiting(t, "--role", "bound")
	if _, page, _ := r.person(t, address, r.ann()); !strings.Contains(page, "You are not logged in") {
		t.Errorf("the browser shows\n%s", page)
	}
	j.finish("121").says("^vaultexec: cannot log in with oidc at auth/" + r.auth)
}

// A provider that has the browser post its answer.
func TestOIDCFormPost(t *testing.T) {
	r := newOIDCRig(t)
	j, address := r.waiting(t)
	r.mode.Store("form_post", true)
	_, page, _ := r.person(t, address, r.ann())
	form := url.Values{}
	for part := range strings.SplitSeq(page, "<input type=hidden name=") {
		name, value, ok := strings.Cut(part, " value=")
		if value, _, _ = strings.Cut(value, ">"); ok {
			form.Set(strings.Trim(name, `"`), strings.Trim(value, `"`))
		}
	}
	status, page, _ := r.person(t, "http://localhost:"+r.port+"/oidc/callback", form)
	if status != http.StatusOK || !strings.Contains(page, "You are logged in") {
		t.Errorf("HTTP %d\n%s", status, page)
	}
	j.finish("0")
	stored(t, r.dir)
}
