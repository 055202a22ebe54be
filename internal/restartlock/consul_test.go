package restartlock

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func openConsulWith(t *testing.T, name string, vars ...string) Engine {
	t.Helper()
	return opened(t, "consul:"+name, enginetest.Getenv(vars), "")
}

func TestConsulDenies(t *testing.T) {
	t.Parallel()
	c := enginetest.SharedConsul(t)
	name := c.Name()
	keys, sessions := "add to its policy: "+enginetest.KeyRule(name), "add to its policy: "+enginetest.SessionRule
	for what, w := range map[string]struct {
		rules string
		hint  string
	}{
		"nothing":      {`node_prefix "" { policy = "read" }`, keys},
		"keys read":    {strings.Replace(enginetest.KeyRule(name), "write", "read", 1) + enginetest.SessionRule, keys},
		"keys alone":   {enginetest.KeyRule(name), sessions},
		"session read": {enginetest.KeyRule(name) + "\n" + strings.Replace(enginetest.SessionRule, "write", "read", 1), sessions},
		"other keys":   {enginetest.Policy("other"), keys},
		"all":          {enginetest.Policy(name), ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := openConsulWith(t, name, c.Env(c.Token(t, w.rules))...)
			err := e.Check(inTime(t), 1)
			if w.hint == "" {
				must(t, "Check", err)
				return
			}
			if f := fault.Of(err); err == nil || f.Kind != fault.Denied || f.Hint != w.hint || !strings.Contains(f.Error(), "consul:"+name) {
				t.Errorf("%v (%s)", err, f.Hint)
			}
			noSecret(t, err)
		})
	}
	t.Run("no token", func(t *testing.T) {
		t.Parallel()
		err := openConsulWith(t, name, "CONSUL_HTTP_ADDR="+c.Addr).Check(inTime(t), 0)
		if f := fault.Of(err); err == nil || f.Kind != fault.Denied || !strings.Contains(f.Hint, "CONSUL_HTTP_TOKEN") || !strings.Contains(f.Hint, enginetest.KeyRule(name)) {
			t.Errorf("%v (%s)", err, f.Hint)
		}
	})
	t.Run("an enterprise's namespace", func(t *testing.T) {
		t.Parallel()
		token := c.Token(t, enginetest.Policy(name))
		for _, v := range []string{"CONSUL_NAMESPACE=team", "CONSUL_PARTITION=team"} {
			err := openConsulWith(t, name, append(c.Env(token), v)...).Check(inTime(t), 0)
			if f := fault.Of(err); err == nil || f.Kind != fault.Usage || !strings.Contains(f.Hint, "CONSUL_NAMESPACE") {
				t.Errorf("%s: %v (%s)", v, err, f.Hint)
			}
		}
	})
}

// A token that is replaced in its file counts from the next request on.
func TestConsulTokenFile(t *testing.T) {
	t.Parallel()
	c := enginetest.SharedConsul(t)
	name, ctx := c.Name(), inTime(t)
	first, second := c.Token(t, enginetest.Policy(name)), c.Token(t, enginetest.Policy(name))
	path := file(t, first+"\n")
	e := openConsulWith(t, name, "CONSUL_HTTP_ADDR="+c.Addr, "CONSUL_HTTP_TOKEN_FILE="+path)
	take(t, e, 0, true)
	c.Revoke(t, first)
	_, err := e.Look(ctx, 0)
	if f := fault.Of(err); err == nil || f.Kind != fault.BadToken || f.Hint == "" {
		t.Errorf("with a token that is revoked: %v", err)
	}
	noSecret(t, err)
	vaulttest.WriteFile(t, path, second, 0o600)
	must(t, "Renew with another token", e.Renew(ctx, 0))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := e.Renew(ctx, 0); !fault.Is(err, fault.Usage) || !fault.Of(err).Passing {
		t.Errorf("without the file: %v", err)
	}
	vaulttest.WriteFile(t, path, second, 0o600)
	must(t, "Release", e.Release(ctx, 0))
}

func TestConsulConnections(t *testing.T) {
	t.Parallel()
	c := enginetest.SharedConsul(t)
	name, ctx := c.Name(), inTime(t)
	token := "CONSUL_HTTP_TOKEN=" + c.Token(t, enginetest.Policy(name))
	folder := t.TempDir()
	vaulttest.WriteFile(t, filepath.Join(folder, "a.pem"), string(c.CA.PEM), 0o600)
	vaulttest.WriteFile(t, filepath.Join(folder, "b.pem"), testCA(t), 0o600)
	for what, vars := range map[string][]string{
		"plain":      {"CONSUL_HTTP_ADDR=http://" + c.Addr},
		"socket":     {"CONSUL_HTTP_ADDR=unix://" + c.Socket, "CONSUL_HTTP_SSL=false"},
		"TLS":        {"CONSUL_HTTP_ADDR=https://" + c.TLSAddr, "CONSUL_CACERT=" + c.CA.File},
		"a folder":   {"CONSUL_HTTP_ADDR=" + c.TLSAddr, "CONSUL_HTTP_SSL=true", "CONSUL_CAPATH=" + folder},
		"unverified": {"CONSUL_HTTP_ADDR=https://" + c.TLSAddr, "CONSUL_HTTP_SSL_VERIFY=false"},
		"a name":     {"CONSUL_HTTP_ADDR=https://" + c.TLSAddr, "CONSUL_CACERT=" + c.CA.File, "CONSUL_TLS_SERVER_NAME=localhost"},
	} {
		if err := openConsulWith(t, name, append(vars, token)...).Check(ctx, 0); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, w := range map[string]struct {
		vars []string
		why  string
	}{
		"another CA":    {[]string{"CONSUL_HTTP_ADDR=https://" + c.TLSAddr, "CONSUL_CACERT=" + filepath.Join(folder, "b.pem")}, "is not trusted"},
		"another name":  {[]string{"CONSUL_HTTP_ADDR=https://" + c.TLSAddr, "CONSUL_CACERT=" + c.CA.File, "CONSUL_TLS_SERVER_NAME=other.example"}, "is for another name"},
		"TLS to no TLS": {[]string{"CONSUL_HTTP_ADDR=https://" + c.Addr}, "does not speak TLS"},
		"no TLS to TLS": {[]string{"CONSUL_HTTP_ADDR=http://" + c.TLSAddr}, "HTTP 400"},
	} {
		err := openConsulWith(t, name, append(w.vars, token)...).Check(ctx, 0)
		if f := fault.Of(err); err == nil || f.Kind != fault.Address || !strings.Contains(f.Why, w.why) {
			t.Errorf("%s: %v", what, err)
		}
		noSecret(t, err)
	}
}

// Sessions are there only while a place is held, and say whose they are.
func TestConsulSessions(t *testing.T) {
	t.Parallel()
	c := enginetest.SharedConsul(t)
	name, ctx := c.Name(), inTime(t)
	env := c.Env(c.Token(t, enginetest.Policy(name)))
	a, b := openConsulWith(t, name, env...), openConsulWith(t, name, env...)
	mine := func() int {
		n := 0
		for _, s := range c.Sessions(t) {
			if s == "vaultexec restart lock "+name {
				n++
			}
		}
		return n
	}
	must(t, "Check", a.Check(ctx, 0))
	if _, err := a.Look(ctx, 0); err != nil || mine() != 0 {
		t.Errorf("%v, %d sessions", err, mine())
	}
	if _, err := b.Look(ctx, 0); err != nil {
		t.Fatal(err)
	}
	take(t, a, 0, true)
	take(t, b, 0, false)
	if mine() != 1 {
		t.Errorf("%d sessions", mine())
	}
	p, err := c.Key(name + "/0")
	must(t, "the key", err)
	var h holding
	if json.Unmarshal(p.Value, &h) != nil || h.Holder != a.(*consul).identity || time.Since(h.Since).Abs() > patience {
		t.Errorf("the value is %s", p.Value)
	}
	must(t, "Check", a.Check(ctx, 1))
	must(t, "Renew", a.Renew(ctx, 0))
	must(t, "Release", a.Release(ctx, 0))
	if mine() != 0 {
		t.Errorf("%d sessions", mine())
	}
	// The answer to a request to take is lost: the place is free for this process, and the next request takes it.
	take(t, a, 0, true)
	a.(*consul).held = false
	if v, err := b.Look(ctx, 0); err != nil || v.Free {
		t.Errorf("%+v, %v", v, err)
	}
	take(t, a, 0, true)
	must(t, "Release", a.Release(ctx, 0))
	// The session has ended, and nobody has noticed yet.
	take(t, a, 0, true)
	c.Destroy(t, "vaultexec restart lock "+name)
	must(t, "Release of what is lost", a.Release(ctx, 0))
}

// Namespace and partition go with each request, and the token never into a URL.
func TestConsulRequests(t *testing.T) {
	t.Parallel()
	var urls []string
	tokens := map[string]bool{}
	e := playedConsul(t, func(w http.ResponseWriter, r *http.Request) { // one at a time
		urls = append(urls, r.Method+" "+r.URL.String())
		tokens[r.Header.Get("X-Consul-Token")] = true
		w.Header().Set("X-Consul-Index", "1")
		switch {
		case r.URL.Path == "/v1/session/create":
			_, _ = w.Write([]byte(`{"ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e"}`))
		case r.Method == "GET":
			http.Error(w, "", 404)
		default:
			_, _ = w.Write([]byte("true"))
		}
	})
	e.namespace, e.partition = "team", "part"
	ctx := inTime(t)
	take(t, e, 3, true)
	must(t, "Release", e.Release(ctx, 3))
	const scope, id = "ns=team&partition=part", "adf4238a-882b-9ddc-4a9d-5b6758e4159e"
	want := []string{"GET /v1/kv/api/3?" + scope, "PUT /v1/session/create?" + scope, "PUT /v1/kv/api/3?acquire=" + id + "&" + scope,
		"PUT /v1/kv/api/3?" + scope + "&release=" + id, "PUT /v1/session/destroy/" + id + "?" + scope}
	if !slices.Equal(urls, want) {
		t.Errorf("%q", urls)
	}
	if len(tokens) != 1 || !tokens["a-token"] {
		t.Errorf("tokens: %v", tokens)
	}
}

// What is no Consul is not believed, whatever it says.
func TestNotConsul(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		kind   fault.Kind
	}{
		"a page":     {200, "<html>a-marker", fault.Address},
		"an object":  {200, `{"a-marker":1}`, fault.Address},
		"a redirect": {301, "a-marker", fault.Address},
		"404":        {404, "a-marker", fault.Address},
		"500":        {500, "a-marker", fault.Away},
		"429":        {429, "a-marker", fault.Away},
		"401":        {401, "a-marker", fault.BadToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := playedConsul(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			})
			for method, call := range methods(e) {
				err := call(inTime(t))
				if method == "Renew" || method == "Release" {
					continue // it has no session
				}
				if f := fault.Of(err); err == nil || f.Kind != c.kind || strings.Contains(f.Error()+f.Hint, "a-marker") {
					t.Errorf("%s: %v (%s)", method, err, f.Hint)
				}
			}
		})
	}
}
