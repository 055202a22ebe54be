package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// TestNothingSecretIsPrinted: over success and every kind of failure, at the highest log level, in both formats and with
// every GODEBUG that makes Go talk, neither a value nor a token nor a body is printed in any shape. finish
// checks each run by itself.
func TestNothingSecretIsPrinted(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true}) // HTTP/2, which http2debug is about
	srv.Init(t, 1, 1)
	srv.Unseal(t)
	r := rigOn(t, srv)
	sc := srv.Scope(t)
	tricky := map[string]any{
		"PLAIN": vaulttest.Canary("plain"), "QUOTED": `"` + vaulttest.Canary("quoted") + `" <&> \`, "MULTI": vaulttest.Canary("a") + "\n" + vaulttest.Canary("b"),
		"OBJECT":  map[string]any{"inner": vaulttest.Canary("inner"), "list": []any{vaulttest.Canary("list")}},
		"UNICODE": vaulttest.Canary("ключ"), "NUMBER": 8203948203948203,
	}
	srv.PutKV(t, r.mount, "tricky", tricky)
	srv.PutKV(t, r.mount, "invalid", map[string]any{"bad-name": vaulttest.Canary("bad"), "LD_PRELOAD": vaulttest.Canary("ld"), "NUL": vaulttest.Canary("nul") + "\x00", "NULL": nil,
		"LONG": vaulttest.Canary("long") + strings.Repeat("x", 132000)})
	srv.PutKV(t, r.mount, "twin", map[string]any{"PLAIN": vaulttest.Canary("twin")})
	srv.PutKV(t, r.mount, "denied", map[string]any{"PLAIN": vaulttest.Canary("denied")})
	srv.PutKV(t, r.mount, "deleted", map[string]any{"PLAIN": vaulttest.Canary("deleted")})
	srv.Must(t, "DELETE", r.mount+"/data/deleted", nil)
	token := srv.Token(t, vaulttest.TokenOpts{NoDefault: true, Policies: []string{sc.ReadPolicy(r.mount, "app", "tricky", "invalid", "twin", "deleted", "absent")}})
	r.set("VAULT_ADDR="+srv.Addr, "VAULT_CACERT="+srv.CACert, "VAULTEXEC_PATH=", "VAULT_TOKEN="+token)
	vaulttest.WriteFile(t, filepath.Join(r.dir, "token"), token+"\n", 0o600)
	vaulttest.WriteFile(t, filepath.Join(r.dir, "two"), token+" "+token+"\n", 0o600)
	vaulttest.WriteFile(t, filepath.Join(r.dir, "notoken"), vaulttest.Canary("wrong token")+"\n", 0o600)

	proxies := map[string]string{}
	for name, b := range map[string]vaulttest.Behaviour{
		// bodies that quote what they were asked with, as careless proxies do
		"echo":    vaulttest.Answer(500, `{"errors":["echo `+token+`"]}`),
		"html":    vaulttest.Answer(502, "<html>"+token+" "+r.value+"</html>", "Content-Type", "text/html"),
		"garbage": vaulttest.Answer(200, `{"data": {"data": {"PLAIN": "`+r.value+`"`),
		"types":   vaulttest.Answer(200, `{"data": "`+r.value+`", "lease_duration": "`+token+`"}`),
		"odd":     vaulttest.Answer(200, `{"request_id":"r","data": {"data": "`+r.value+`", "metadata": {"version": 1, "created_time": "x", "destroyed": false}}}`),
		"moved":   vaulttest.Redirect(307, "http://user:"+token+"@127.0.0.9"),
		"cut":     vaulttest.Truncate,
		"badnum":  vaulttest.Answer(200, `{"request_id":"r","data": {"data": {"N": 1`+"\u00a0"+`2}, "metadata": {"version": 1}}}`),
	} {
		p := vaulttest.NewProxy(t, srv)
		p.Set(b)
		proxies[name] = p.Addr
	}
	for _, c := range []struct {
		name string
		code string
		args []string
	}{
		{"success", "0", []string{"--path", "app", "--path", "tricky"}},
		{"token-file", "0", []string{"--path", "app", "--token-file", filepath.Join(r.dir, "token")}},
		{"bad-token-file", "125", []string{"--path", "app", "--token-file", filepath.Join(r.dir, "two")}},
		{"wrong-token", "125", []string{"--path", "app", "--token-file", filepath.Join(r.dir, "notoken")}},
		{"dry-run", "0", []string{"--path", "app", "--path", "tricky", "--dry-run"}},
		{"invalid", "123", []string{"--path", "invalid"}},
		{"invalid-dry-run", "123", []string{"--path", "invalid", "--dry-run"}},
		{"collision", "123", []string{"--path", "tricky", "--path", "twin"}},
		{"text", "0", []string{"--env", "X=${tricky#QUOTED|url}${tricky#MULTI|json}${tricky#PLAIN|base64}"}},
		{"text-invalid", "123", []string{"--env", "X=${tricky#PLAIN}${invalid#NULL}${invalid#NUL}"}},
		{"text-no-such-key", "122", []string{"--env", "X=${tricky#PLAIN|url}${tricky#PLAN}"}},
		{"no-such-key", "122", []string{"--env", "X=tricky#PLAN"}},
		{"denied", "121", []string{"--path", "tricky", "--path", "denied"}},
		{"absent", "122", []string{"--path", "absent", "--path", "app"}},
		{"deleted", "122", []string{"--path", "deleted"}},
		{"optional", "0", []string{"--path", "app", "--optional-path", "deleted", "--optional-path", "absent"}},
		{"too-large", "123", []string{"--path", "invalid", "--only", "LONG"}},
		{"not-found", "127", []string{"--path", "app", "--", "no-such-program"}},
		{"unknown-authority", "120", []string{"--path", "app", "--ca-cert", "/etc/ssl/certs/ca-certificates.crt"}},
		{"refused", "120", []string{"--path", "app", "--address", "https://user:" + vaulttest.Canary("password") + "@127.0.0.1:1", "--wait", "100ms"}},
		{"echo", "120", nil}, {"html", "120", nil}, {"garbage", "120", nil}, {"types", "120", nil}, {"odd", "120", nil}, {"moved", "120", nil}, {"cut", "120", nil}, {"badnum", "120", nil},
	} {
		if c.args == nil {
			c.args = []string{"--path", "app", "--address", proxies[c.name], "--wait", "0"}
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for i, godebug := range []string{"", "http2debug=1", "http2debug=2", "http2debug=2,http1debug=2,netdns=go+2,tlsmaxrsasize=0,gctrace=1,inittrace=1,schedtrace=100"} {
				r := *r
				r.t = t
				r.set("GODEBUG="+godebug, "GOTRACEBACK=all")
				format := []string{"text", "json"}[i%2]
				args := append([]string{"--log-level", "debug", "--log-format", format}, c.args...)
				if c.args[len(c.args)-1] != "no-such-program" {
					args = append(args, "--", "true")
				}
				if code := c.code; i < 3 || code == "0" {
					r.start(args...).finish(code)
				}
			}
		})
	}
	t.Cleanup(func() { // after the parallel ones
		entries, err := os.ReadDir(r.dir)
		if err == nil && len(entries) == 3 {
			return
		}
		t.Errorf("something was written to the folder: %v %v", entries, err)
	})
}

// TestShapesAreSeen is the negative control: the checks of finish see a secret in every shape.
func TestShapesAreSeen(t *testing.T) {
	secret := vaulttest.Canary(`with "quotes" <and> ключ`)
	plain := vaulttest.Canary("plain")
	for _, shape := range []string{
		secret, plain, base64.StdEncoding.EncodeToString([]byte(plain)), base64.RawURLEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(plain)),
		strings.ToUpper(hex.EncodeToString([]byte(plain))), url.QueryEscape(secret), url.PathEscape(secret), strings.ReplaceAll(secret, `"`, `\"`),
	} {
		text := "before " + shape + " after"
		if vaulttest.Redact(text) == text {
			t.Errorf("%q is not seen", shape)
		}
	}
}
