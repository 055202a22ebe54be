package cloudtest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Tenant is a part of Entra ID with one subscription, and an identity in it.
type Tenant struct {
	ID, Subscription, Group string
	VM, ScaleSet            string
	Object, Client          string // of the identity
	Key                     *Key
}

// NewTenant is a tenant with everything that it needs.
func NewTenant(t *testing.T) Tenant {
	return Tenant{ID: "11111111-1111-1111-1111-111111111111", Subscription: "22222222-2222-2222-2222-222222222222", Group: "shop", VM: "web-1",
		Object: "33333333-3333-3333-3333-333333333333", Client: "44444444-4444-4444-4444-444444444444", Key: NewKey(t, "entra")}
}

func (e Tenant) issuer() string { return "https://sts.windows.net/" + e.ID + "/" }

// VMID is the ID of the tenant's machine or scale set.
func (e Tenant) VMID() string {
	id := "/subscriptions/" + e.Subscription + "/resourcegroups/" + e.Group + "/providers/Microsoft.Compute/"
	if e.ScaleSet != "" {
		return id + "virtualMachineScaleSets/" + e.ScaleSet
	}
	return id + "virtualMachines/" + e.VM
}

// token is an access token of the identity. belongs is the resource that the identity is of.
func (e Tenant) token(t *testing.T, resource, belongs string) string {
	now := time.Now()
	claims := map[string]any{"aud": resource, "iss": e.issuer(), "iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(),
		"oid": e.Object, "sub": e.Object, "appid": e.Client, "tid": e.ID, "ver": "1.0"}
	if belongs != "" {
		claims["xms_mirid"] = belongs
	}
	return e.Key.Sign(t, claims)
}

// IMDS is Azure's instance metadata service as one machine sees it.
type IMDS struct {
	*httptest.Server
	Log
}

// NewIMDS starts one.
func NewIMDS(t *testing.T, e Tenant) *IMDS {
	t.Helper()
	s := &IMDS{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		q := r.URL.Query()
		bad := func(why string) {
			answer(w, 400, map[string]string{"error": "invalid_request", "error_description": why})
		}
		switch {
		case r.Header.Get("Metadata") != "true":
			bad("Required metadata header not specified")
		case r.Header.Get("X-Forwarded-For") != "":
			bad("a proxy is in between")
		case q.Get("api-version") != "2018-02-01":
			bad("Required query variable 'api-version' not specified")
		case r.URL.Path == "/metadata/instance":
			answer(w, 200, map[string]any{"compute": map[string]string{"name": e.VM, "resourceGroupName": e.Group, "subscriptionId": e.Subscription, "vmScaleSetName": e.ScaleSet, "location": "westeurope"}})
		case r.URL.Path != "/metadata/identity/oauth2/token":
			answer(w, 404, map[string]string{"error": "Not found"})
		case q.Get("resource") == "":
			bad("Required audience parameter not specified")
		case q.Get("client_id") != "" && q.Get("client_id") != e.Client:
			bad("Identity not found")
		default:
			answer(w, 200, map[string]string{"access_token": e.token(t, q.Get("resource"), e.VMID()), "expires_in": "86399", "resource": q.Get("resource"), "token_type": "Bearer"})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// App is the identity endpoint of App Service, and Header what it wants to see.
type App struct {
	*httptest.Server
	Log
	Header, Name string
}

// NewApp starts one.
func NewApp(t *testing.T, e Tenant) *App {
	t.Helper()
	s := &App{Header: vaulttest.Canary("identity-header"), Name: "shop-app"}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		q := r.URL.Query()
		switch {
		case r.Header.Get("X-IDENTITY-HEADER") != s.Header:
			answer(w, 401, map[string]any{"statusCode": 401, "message": "unauthorized"})
		case r.URL.Path != "/msi/token" || q.Get("api-version") != "2019-08-01" || q.Get("resource") == "" || q.Get("client_id") != "" && q.Get("client_id") != e.Client:
			answer(w, 400, map[string]any{"statusCode": 400, "message": "no identity"})
		default:
			answer(w, 200, map[string]string{"access_token": e.token(t, q.Get("resource"), s.ID(e)), "expires_on": "1586984735", "resource": q.Get("resource"), "token_type": "Bearer", "client_id": e.Client})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// ID is the app as a resource.
func (s *App) ID(e Tenant) string {
	return "/subscriptions/" + e.Subscription + "/resourceGroups/" + e.Group + "/providers/Microsoft.Web/sites/" + s.Name
}

// Internet is login.microsoftonline.com and management.azure.com, behind a proxy that ends their TLS: what is told Proxy and CA reaches
// nothing else.
type Internet struct {
	Log
	Proxy string
	CA    string // its file
	Forms []url.Values
	mu    sync.Mutex
}

// handed is a listener of connections that somebody else has accepted.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// NewInternet starts it. trusted is the token of a workload that the identity trusts.
func NewInternet(t *testing.T, e Tenant, trusted string) *Internet {
	t.Helper()
	ca := vaulttest.NewCA(t, "the internet")
	pair := ca.Server(t, vaulttest.CertOpts{DNS: []string{"login.microsoftonline.com", "management.azure.com"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	s := &Internet{CA: ca.File}
	inner := &handed{conns: make(chan net.Conn), done: make(chan struct{})}
	sites := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(t, w, r, e, trusted) }), ReadHeaderTimeout: time.Minute}
	go func() { _ = sites.Serve(inner) }()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "login.microsoftonline.com:443" && r.Host != "management.azure.com:443" {
			t.Errorf("the proxy is asked for %s %s", r.Method, r.Host)
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		select {
		case inner.conns <- tls.Server(&begun{conn, buf.Reader}, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}):
		case <-inner.done:
			_ = conn.Close()
		}
	}))
	t.Cleanup(func() {
		_ = sites.Close()
		_ = inner.Close()
		proxy.Close()
	})
	s.Proxy = proxy.URL
	return s
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	r *bufio.Reader
}

func (b *begun) Read(p []byte) (int, error) { return b.r.Read(p) }

func (s *Internet) serve(t *testing.T, w http.ResponseWriter, r *http.Request, e Tenant, trusted string) {
	s.note(r)
	vm := "/subscriptions/" + e.Subscription + "/resourceGroups/" + e.Group + "/providers/Microsoft.Compute/virtualMachines/" + e.VM
	vmss := "/subscriptions/" + e.Subscription + "/resourceGroups/" + e.Group + "/providers/Microsoft.Compute/virtualMachineScaleSets/web"
	sites := "/subscriptions/" + e.Subscription + "/resourceGroups/" + e.Group + "/providers/Microsoft.Web/sites/"
	authority := "https://login.microsoftonline.com/" + e.ID
	identity := map[string]any{"location": "westeurope", "identity": map[string]string{"principalId": e.Object, "type": "SystemAssigned"}}
	switch r.Host + r.URL.Path {
	case "login.microsoftonline.com/" + e.ID + "/.well-known/openid-configuration":
		answer(w, 200, map[string]string{"issuer": e.issuer(), "jwks_uri": authority + "/discovery/keys"})
	case "login.microsoftonline.com/" + e.ID + "/discovery/keys":
		answer(w, 200, map[string]any{"keys": []any{e.Key.JWK()}})
	case "login.microsoftonline.com/common/discovery/instance":
		answer(w, 200, map[string]any{"tenant_discovery_endpoint": authority + "/v2.0/.well-known/openid-configuration", "metadata": []any{
			map[string]any{"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net", "aliases": []string{"login.microsoftonline.com"}}}})
	case "login.microsoftonline.com/" + e.ID + "/v2.0/.well-known/openid-configuration":
		answer(w, 200, map[string]string{"issuer": authority + "/v2.0", "authorization_endpoint": authority + "/oauth2/v2.0/authorize", "token_endpoint": authority + "/oauth2/v2.0/token"})
	case "login.microsoftonline.com/" + e.ID + "/oauth2/v2.0/token":
		s.exchange(t, w, r, e, trusted)
	case "management.azure.com" + vm, "management.azure.com" + vmss:
		answer(w, 200, identity)
	case "management.azure.com/subscriptions/" + e.Subscription + "/providers/Microsoft.Web":
		answer(w, 200, map[string]any{"namespace": "Microsoft.Web", "resourceTypes": []any{map[string]any{"resourceType": "sites", "apiVersions": []string{"2023-01-01"}}}})
	default:
		if strings.HasPrefix(r.URL.Path, sites) {
			answer(w, 200, identity)
			return
		}
		answer(w, 404, map[string]any{"error": map[string]string{"code": "ResourceNotFound", "message": "not found"}})
	}
}

// exchange is the token endpoint: for a workload, and for Vault itself.
func (s *Internet) exchange(t *testing.T, w http.ResponseWriter, r *http.Request, e Tenant, trusted string) {
	_ = r.ParseForm()
	f := r.PostForm
	s.mu.Lock()
	s.Forms = append(s.Forms, f)
	s.mu.Unlock()
	resource, ok := strings.CutSuffix(strings.Fields(f.Get("scope") + " x")[0], "/.default")
	switch {
	case f.Get("client_secret") != "": // Vault's own, to ask for machines
		answer(w, 200, map[string]any{"access_token": "of-vault-itself", "token_type": "Bearer", "expires_in": 3600})
	case r.Method != http.MethodPost || f.Get("grant_type") != "client_credentials" || !ok ||
		f.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
		answer(w, 400, map[string]string{"error": "invalid_request", "error_description": "AADSTS900144: The request body must contain ..."})
	case f.Get("client_id") != e.Client:
		answer(w, 400, map[string]string{"error": "unauthorized_client", "error_description": "AADSTS700016: Application with identifier was not found"})
	case f.Get("client_assertion") != trusted:
		answer(w, 401, map[string]string{"error": "invalid_client", "error_description": "AADSTS70021: No matching federated identity record found for presented assertion " + f.Get("client_assertion")})
	default:
		answer(w, 200, map[string]any{"access_token": e.token(t, resource, ""), "token_type": "Bearer", "expires_in": 3600})
	}
}
