package restartlock

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// played opens an engine of Kubernetes whose API server is a handler: for answers that no real one can be brought to give.
func played(t *testing.T, handler http.HandlerFunc) Engine {
	t.Helper()
	srv := httptest.NewTLSServer(handler)
	t.Cleanup(srv.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	env := func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": u.Hostname(), "KUBERNETES_SERVICE_PORT": u.Port()}[name]
	}
	return opened(t, "kubernetes:api", env, pod(t, map[string]string{"ca.crt": ca, "namespace": "shop", "token": "a-token"}))
}

// playedConsul does the same with Consul.
func playedConsul(t *testing.T, handler http.HandlerFunc) *consul {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	e, err := openedWith(map[string]string{"CONSUL_HTTP_ADDR": strings.TrimPrefix(srv.URL, "http://"), "CONSUL_HTTP_TOKEN": "a-token"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}
