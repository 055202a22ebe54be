package vault

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Who can read what is sent goes by where the bytes go.
func TestExposed(t *testing.T) {
	const proxy, between = "the proxy http://proxy.test:3128 (VAULT_PROXY_ADDR)", "anybody in between"
	for _, c := range []struct {
		address         string
		proxied, unseen bool // by a proxy; no verification
		srv             bool
		want            string
	}{
		{address: "https://vault.test:8200", want: ""},
		{address: "https://vault.test:8200", proxied: true, want: ""},
		{address: "https://vault.test:8200", unseen: true, want: between},
		{address: "https://vault.test:8200", unseen: true, proxied: true, want: proxy},
		{address: "https://127.0.0.1:8200", unseen: true, proxied: true, want: ""},
		{address: "http://vault.test:8200", want: between},
		{address: "http://vault.test:8200", proxied: true, want: proxy},
		{address: "http://127.0.0.1:8200", proxied: true, want: ""},
		{address: "http://127.8.8.8:8200", proxied: true, want: ""},
		{address: "http://[::1]:8200", proxied: true, want: ""},
		{address: "http://localhost:8200", proxied: true, want: ""},
		{address: "http://LocalHost.:8200", proxied: true, want: ""},
		{address: "http://vault.localhost:8200", proxied: true, want: ""},
		{address: "http://localhost.test:8200", want: between},
		{address: "http://notlocalhost:8200", want: between},
		{address: "http://10.0.0.1:8200", want: between},
		{address: "http://0.0.0.0:8200", want: between},
		{address: "http://localhost", srv: true, want: between},
		{address: "unix:///run/vault.sock", proxied: true, want: ""},
	} {
		cfg := Config{Address: c.address, SkipVerify: c.unseen, SRVLookup: c.srv}
		if c.proxied {
			cfg.ProxyAddress, cfg.ProxyFrom = NewText("http://proxy.test:3128"), "VAULT_PROXY_ADDR"
		}
		client, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := client.Exposed(); got != c.want {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}

// Names of this machine are this machine's, whatever DNS or a proxy would make of them.
func TestLocalNames(t *testing.T) {
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.String() }))
	defer proxy.Close()
	var dialled []string
	dial := localDial(func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled = append(dialled, addr)
		return nil, net.ErrClosed
	})
	for _, host := range []string{"localhost", "vault.localhost", "VAULT.LOCALHOST."} {
		dialled = nil
		if _, err := dial(t.Context(), "tcp", net.JoinHostPort(host, "8200")); err == nil {
			t.Fatal("no failure")
		}
		if got := strings.Join(dialled, " "); got != "127.0.0.1:8200 [::1]:8200" {
			t.Errorf("%s: dialled %s", host, got)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"errors":[]}`)) }))
	defer srv.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(srv.URL, "http://"))
	nobodys := NewText("hvs.nobodys")
	for _, address := range []string{srv.URL, "http://localhost:" + port, "http://vault.localhost:" + port} {
		c, err := New(Config{Address: address, ProxyAddress: NewText(proxy.URL), ProxyFrom: "VAULT_PROXY_ADDR"})
		if err != nil {
			t.Fatal(err)
		}
		if a, err := c.do(t.Context(), request{what: "cannot ask", path: "x", token: &nobodys, quiet: true}); err != nil || a.Status != http.StatusOK {
			t.Errorf("%s: %v", address, err)
		}
		c.CloseIdle()
	}
	if len(asked) > 0 {
		t.Errorf("the proxy was asked for %s", <-asked)
	}
}

// The name that is verified is the one that was written, also where DNS says which host has the service.
func TestServiceName(t *testing.T) {
	for _, c := range []struct{ address, given, want string }{
		{"https://vault.test", "", "vault.test"},
		{"https://vault.test", "other.test", "other.test"},
		{"https://vault.test:8200", "", ""}, // no lookup
	} {
		_, conf, err := newTLSFiles(Config{Address: c.address, SRVLookup: true, TLSServerName: c.given})
		if err != nil {
			t.Fatal(err)
		}
		if conf.ServerName != c.want {
			t.Errorf("%+v: %q", c, conf.ServerName)
		}
	}
}
