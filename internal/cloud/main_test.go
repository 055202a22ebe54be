package cloud_test

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// TestMain sets proxies that nothing answers at: whatever goes through one fails. net/http takes them in at its first request, so that a
// test with another proxy needs a process of its own (TEST_PROXY, TEST_FEDERATED).
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"} {
		if os.Getenv("TEST_FEDERATED") == "" || name != "HTTPS_PROXY" { // see TestAzureFederated
			_ = os.Unsetenv(name)
		}
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY"} {
		_ = os.Setenv(name, cmp.Or(os.Getenv("TEST_PROXY"), "http://127.0.0.1:1"))
	}
	if proxy := os.Getenv("TEST_PROXY"); proxy != "" {
		_ = os.Setenv("HTTPS_PROXY", proxy)
	}
	vaulttest.Main(m)
}

// failed wants a failure of a kind whose text and hint hold all the words, and no other secret.
func failed(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("got %v, want a failure of kind %v", err, kind)
	}
	f := fault.Of(err)
	all := f.Error() + " | " + f.Hint
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("the failure does not say %q: %s", w, all)
		}
	}
	if len(f.Error()) > 200 || f.Hint == "" {
		t.Errorf("the failure is no clear line: %s", all)
	}
	if got := vaulttest.Redact(all); got != all {
		t.Errorf("a secret in the text: %s", got)
	}
}

// server is a stand-in whose answers a test writes.
func server(t *testing.T, f http.HandlerFunc) (addr string) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// nowhere is an address that refuses connections.
func nowhere(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}
