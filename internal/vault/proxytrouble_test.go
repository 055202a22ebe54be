package vault_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// What a proxy does is not blamed on Vault: the proxy is named, and where it was named, without its password.
func TestProxyTrouble(t *testing.T) {
	t.Parallel()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	says := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	password := vaulttest.Canary("proxy")
	for _, c := range []struct {
		name, proxy string
		kind        fault.Kind
		words       []string
	}{
		{"dead", dead.Addr().String(), fault.Away, []string{"no connection to the proxy", "NO_PROXY=vault.example"}},
		{"403", says(403), fault.Address, []string{"HTTP 403", "NO_PROXY"}},
		{"407", says(407), fault.Address, []string{"user name and a password"}},
		{"503", says(503), fault.Away, []string{"cannot reach Vault"}},
	} {
		for _, scheme := range []string{"https", "http"} {
			c := c
			t.Run(c.name+" "+scheme, func(t *testing.T) {
				client := newClient(t, vault.Config{
					Address: scheme + "://vault.example:8200", ProxyAddress: vault.NewText("http://me:" + password + "@" + c.proxy), ProxyFrom: "VAULT_PROXY_ADDR",
				})
				if c.name == "403" { // whose answer it is can be told with TLS only
					c.words = append(c.words, map[string]string{"https": "does not let connections", "http": "or something behind it that is not Vault"}[scheme])
				}
				_, err := client.LookupToken(t.Context())
				refused(t, err, c.kind, append(c.words, "http://"+c.proxy, "VAULT_PROXY_ADDR")...)
			})
		}
	}
}
