package restartlock

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func testCA(t *testing.T) string { return string(vaulttest.NewCA(t, "a CA").PEM) }

func openedWith(vars map[string]string) (*consul, error) {
	e, err := Open(Spec{Consul, "", "api"}, func(name string) string { return vars[name] }, "", nil)
	if err != nil {
		return nil, err
	}
	return e.(*consul), nil
}

// The variables mean what they mean to Consul's own programs.
func TestConsulVariables(t *testing.T) {
	for _, c := range []struct {
		vars map[string]string
		base string // "" for a socket
		tok  string
	}{
		{nil, "http://127.0.0.1:8500", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "consul.example:8501"}, "http://consul.example:8501", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "http://consul.example"}, "http://consul.example", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "https://consul.example:8501/a/b/"}, "https://consul.example:8501/a/b", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "[::1]:8500", "CONSUL_HTTP_SSL": "1"}, "https://[::1]:8500", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "http://c:1", "CONSUL_HTTP_SSL": "true"}, "https://c:1", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "https://c:1", "CONSUL_HTTP_SSL": "false"}, "https://c:1", ""},
		{map[string]string{"CONSUL_HTTP_ADDR": "unix:///run/consul.sock", "CONSUL_HTTP_SSL": "true"}, "", ""},
		{map[string]string{"CONSUL_HTTP_TOKEN": "of-the-variable"}, "http://127.0.0.1:8500", "of-the-variable"},
		{map[string]string{"CONSUL_HTTP_TOKEN": "of-the-variable", "CONSUL_HTTP_TOKEN_FILE": file(t, " of-the-file\n")}, "http://127.0.0.1:8500", "of-the-file"},
		{map[string]string{"CONSUL_HTTP_TOKEN": "of-the-variable", "CONSUL_HTTP_TOKEN_FILE": file(t, "\n")}, "http://127.0.0.1:8500", "of-the-variable"},
	} {
		e, err := openedWith(c.vars)
		if err != nil {
			t.Errorf("%v: %v", c.vars, err)
			continue
		}
		if got := e.base.String(); (c.base == "") != (e.socket == "/run/consul.sock") || c.base != "" && got != c.base {
			t.Errorf("%v: %s %s", c.vars, got, e.socket)
		}
		token, err := e.credential()
		h := http.Header{}
		e.sign(h, token)
		if err != nil || h.Get("X-Consul-Token") != c.tok || h.Get("Authorization") != "" {
			t.Errorf("%v: %v, %v", c.vars, h, err)
		}
	}
	e, err := openedWith(map[string]string{"CONSUL_HTTP_AUTH": "ada:pass:word", "CONSUL_NAMESPACE": "team a", "CONSUL_PARTITION": "p", "CONSUL_TLS_SERVER_NAME": "name.example:8501"})
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{Header: http.Header{}}
	e.sign(r.Header, secret{})
	if user, password, ok := r.BasicAuth(); !ok || user != "ada" || password != "pass:word" {
		t.Errorf("%q, %v", user, ok)
	}
	if q := e.scoped(nil).Encode(); q != "ns=team+a&partition=p" || e.serverName != "name.example" {
		t.Errorf("%s, %s", q, e.serverName)
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConsulVariablesThatAreWrong(t *testing.T) {
	pair := vaulttest.NewCA(t, "a CA").Client(t, vaulttest.CertOpts{})
	for _, c := range []struct {
		vars map[string]string
		why  string
	}{
		{map[string]string{"CONSUL_HTTP_ADDR": "ftp://c"}, "it has a scheme that Consul has not"},
		{map[string]string{"CONSUL_HTTP_ADDR": "unix://run/x"}, "a socket has an absolute path"},
		{map[string]string{"CONSUL_HTTP_ADDR": "http://"}, "it is no address"},
		{map[string]string{"CONSUL_HTTP_ADDR": "ada:a-password@c:1"}, "it is no address"},
		{map[string]string{"CONSUL_HTTP_ADDR": "c:1?x"}, "it is no address"},
		{map[string]string{"CONSUL_HTTP_SSL": "yes"}, "it is neither true nor false"},
		{map[string]string{"CONSUL_HTTP_SSL_VERIFY": "yes"}, "it is neither true nor false"},
		{map[string]string{"CONSUL_HTTP_TOKEN_FILE": "/no/such/file"}, "no such file or directory"},
		{map[string]string{"CONSUL_HTTP_TOKEN_FILE": file(t, "a\nb")}, "it has more than one line"},
		{map[string]string{"CONSUL_CLIENT_CERT": "x"}, "one of them is not set"},
		{map[string]string{"CONSUL_HTTP_SSL": "1", "CONSUL_CACERT": "/no/such/file"}, "no such file or directory"},
		{map[string]string{"CONSUL_HTTP_SSL": "1", "CONSUL_CACERT": file(t, "x")}, "no certificate in it"},
		{map[string]string{"CONSUL_HTTP_SSL": "1", "CONSUL_CAPATH": t.TempDir()}, "it is no folder with certificates"},
		{map[string]string{"CONSUL_HTTP_SSL": "1", "CONSUL_CLIENT_CERT": pair.CertFile, "CONSUL_CLIENT_KEY": pair.CertFile}, "they are no certificate and its key"},
	} {
		_, err := openedWith(c.vars)
		if f := fault.Of(err); err == nil || f.Kind != fault.Usage || f.Why != c.why || f.Hint == "" || strings.Contains(f.Error(), "a-password") {
			t.Errorf("%v: %v", c.vars, err)
		}
	}
}

func TestExposed(t *testing.T) {
	for _, c := range []struct {
		addr       string
		vars       map[string]string
		want       string
		unverified bool
	}{
		{"127.0.0.1:8500", map[string]string{"CONSUL_HTTP_TOKEN": "x"}, "", false},
		{"localhost:8500", map[string]string{"CONSUL_HTTP_TOKEN": "x"}, "", false},
		{"[::1]:8500", map[string]string{"CONSUL_HTTP_TOKEN": "x"}, "", false},
		{"consul.example:8500", map[string]string{"CONSUL_HTTP_TOKEN": "x"}, "anybody in between", false},
		{"consul.example:8500", map[string]string{"CONSUL_HTTP_AUTH": "x"}, "anybody in between", false},
		{"consul.example:8500", nil, "", false}, // nothing that could be read
		{"https://consul.example", map[string]string{"CONSUL_HTTP_TOKEN": "x"}, "", false},
		{"https://consul.example", map[string]string{"CONSUL_HTTP_TOKEN": "x", "CONSUL_HTTP_SSL_VERIFY": "false"}, "anybody in between", true},
		{"unix:///run/x", map[string]string{"CONSUL_HTTP_TOKEN": "x"}, "", false},
	} {
		vars := map[string]string{"CONSUL_HTTP_ADDR": c.addr}
		for k, v := range c.vars {
			vars[k] = v
		}
		e, err := openedWith(vars)
		if err != nil {
			t.Fatal(err)
		}
		if got := Exposed(e); got != c.want || Unverified(e) != c.unverified {
			t.Errorf("%v: %q, %v", vars, got, Unverified(e))
		}
	}
}

// What holds a credential prints without it.
func TestSecretsDoNotPrint(t *testing.T) {
	const marker = "marker-of-a-secret"
	e, err := openedWith(map[string]string{"CONSUL_HTTP_TOKEN": marker, "CONSUL_HTTP_AUTH": "ada:" + marker})
	if err != nil {
		t.Fatal(err)
	}
	s := newSecret(marker)
	for _, v := range []any{s, &s, e.settings, &e.settings, e, *e} {
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		b, _ := json.Marshal(v)
		for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%q", v), fmt.Sprintf("%x", v), log.String(), string(b)} {
			for _, form := range vaulttest.Forms(marker) {
				if strings.Contains(text, form) {
					t.Errorf("%T shows: %s", v, text)
				}
			}
		}
	}
	if s.reveal() != marker || (secret{}).reveal() != "" {
		t.Error("it is not what it was made of")
	}
}
