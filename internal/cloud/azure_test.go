package cloud_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/cloud"
	"github.com/agenticverz/vaultexec/internal/cloudtest"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func fields(t *testing.T, z *cloud.Azure, want map[string]string) {
	t.Helper()
	got, err := z.Fields(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestAzureManaged(t *testing.T) {
	t.Parallel()
	e := cloudtest.NewTenant(t)
	imds := cloudtest.NewIMDS(t, e)
	z := &cloud.Azure{Resource: "https://vault.example", IMDS: imds.URL}
	token, err := z.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := claims(t, token, 1); got["aud"] != "https://vault.example" {
		t.Errorf("got %v", got)
	}
	if !strings.Contains(cloud.Subject(token), e.Object) {
		t.Errorf("the subject is %q", cloud.Subject(token))
	}
	machine := map[string]string{"subscription_id": e.Subscription, "resource_group_name": e.Group, "vm_name": e.VM}
	fields(t, z, machine)
	e.ScaleSet = "web"
	machine["vmss_name"] = "web"
	fields(t, &cloud.Azure{Resource: "x", IMDS: cloudtest.NewIMDS(t, e).URL}, machine)
	for _, q := range imds.Requests() {
		if q.Method != http.MethodGet || q.Header.Get("Metadata") != "true" || q.Header.Get("X-Forwarded-For") != "" || q.URL.Query().Has("client_id") {
			t.Errorf("%s %s with %v", q.Method, q.URL, q.Header)
		}
	}
	_, err = (&cloud.Azure{Resource: "x", IMDS: imds.URL, ClientID: "other"}).Token(t.Context())
	failed(t, err, fault.Usage, "metadata service", "HTTP 400, invalid_request", "--azure-client-id")
	away := &cloud.Azure{Resource: "x", IMDS: nowhere(t)}
	_, err = away.Token(t.Context())
	failed(t, err, fault.Away, "connection refused")
	_, err = away.Fields(t.Context())
	failed(t, err, fault.Away, "connection refused")
	// A container with an identity, which is no machine.
	fields(t, &cloud.Azure{Resource: "x", IMDS: server(t, http.NotFound)}, map[string]string{})
	_, err = (&cloud.Azure{Resource: "x", IMDS: server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })}).Fields(t.Context())
	failed(t, err, fault.Usage, "tells of no machine")
}

func TestAzureApp(t *testing.T) {
	t.Parallel()
	e := cloudtest.NewTenant(t)
	app := cloudtest.NewApp(t, e)
	header := func() string { return app.Header }
	z := &cloud.Azure{Resource: "x", Endpoint: app.URL + "/msi/token", Header: header, ClientID: e.Client}
	if _, err := z.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	fields(t, z, map[string]string{})
	z.Owner, z.Group, z.Site = e.Subscription+"+shop-WestEuropewebspace", e.Group, app.Name
	fields(t, z, map[string]string{"subscription_id": e.Subscription, "resource_group_name": e.Group, "resource_id": app.ID(e)})
	z.ResourceID = "/subscriptions/s/resourcegroups/g/providers/Microsoft.App/containerApps/a"
	fields(t, z, map[string]string{"subscription_id": "s", "resource_group_name": "g", "resource_id": z.ResourceID})
	z.Header = func() string { return "another" }
	_, err := z.Token(t.Context())
	failed(t, err, fault.Usage, "the app's identity endpoint", "HTTP 401", "IDENTITY_HEADER")
}

// The exchange of a federated token runs in a process of its own: net/http takes proxies, and crypto/x509 CAs, in once.
func TestAzureFederated(t *testing.T) {
	if os.Getenv("TEST_FEDERATED") != "" {
		federated(t)
		return
	}
	t.Parallel()
	e := cloudtest.NewTenant(t)
	trusted := cloudtest.NewKey(t, "cluster").Sign(t, map[string]any{"sub": "pod"})
	vaulttest.Secret(trusted)
	net := cloudtest.NewInternet(t, e, trusted)
	file := filepath.Join(t.TempDir(), "token")
	vaulttest.WriteFile(t, file, trusted, 0o600)
	for _, c := range []struct{ client, ca, proxy, says string }{
		{e.Client, net.CA, net.Proxy, "ok"},
		{"other", net.CA, net.Proxy, "usage: cannot exchange AZURE_FEDERATED_TOKEN_FILE for a token of Azure: HTTP 400, unauthorized_client, AADSTS700016"},
		{e.Client, "/dev/null", net.Proxy, "usage: cannot exchange AZURE_FEDERATED_TOKEN_FILE for a token of Azure: its certificate is not trusted"},
		{e.Client, net.CA, nowhere(t), "away: cannot exchange AZURE_FEDERATED_TOKEN_FILE for a token of Azure: no connection to the proxy that HTTPS_PROXY names"},
		{"stranger", net.CA, net.Proxy, "usage: cannot exchange AZURE_FEDERATED_TOKEN_FILE for a token of Azure: HTTP 401, invalid_client, AADSTS70021 "},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAzureFederated$", "-test.v")
		cmd.Env = append(os.Environ(), "TEST_FEDERATED="+file, "TEST_CLIENT="+c.client, "TEST_TENANT="+e.ID, "HTTPS_PROXY="+c.proxy, "SSL_CERT_FILE="+c.ca, "SSL_CERT_DIR=/nowhere")
		if c.client == "stranger" {
			cmd.Env = append(cmd.Env, "TEST_CLIENT="+e.Client, "TEST_FEDERATED=/dev/null")
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "federated: "+c.says) {
			t.Errorf("%s, %v:\n%s", c.says, err, vaulttest.Redact(string(out)))
		}
		if vaulttest.Redact(string(out)) != string(out) {
			t.Errorf("a secret is shown:\n%s", vaulttest.Redact(string(out)))
		}
	}
	if len(net.Forms) != 3 {
		t.Fatalf("%d exchanges", len(net.Forms))
	}
	want := map[string][]string{"grant_type": {"client_credentials"}, "client_id": {e.Client}, "scope": {"https://management.azure.com//.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {trusted}}
	if got := map[string][]string(net.Forms[0]); !reflect.DeepEqual(got, want) {
		t.Errorf("sent %s", vaulttest.Redact(net.Forms[0].Encode()))
	}
}

func federated(t *testing.T) {
	z := &cloud.Azure{Resource: cloud.AzureResource, ClientID: os.Getenv("TEST_CLIENT"), Tenant: os.Getenv("TEST_TENANT"),
		Federated: func(context.Context) (string, error) {
			b, err := os.ReadFile(os.Getenv("TEST_FEDERATED"))
			return string(b), err
		}}
	if f := z.Check(); f != nil {
		t.Fatal(f)
	}
	token, err := z.Token(t.Context())
	if err != nil {
		f := fault.Of(err)
		t.Logf("federated: %v: %v (%s)", f.Kind, f, f.Hint)
		return
	}
	if got := claims(t, token, 1); got["aud"] != cloud.AzureResource {
		t.Errorf("got %v", got)
	}
	fields(t, z, map[string]string{})
	t.Log("federated: ok")
}

func TestAzureCheck(t *testing.T) {
	t.Parallel()
	token := func(context.Context) (string, error) { return "x", nil }
	header := func() string { return "x" }
	for says, z := range map[string]*cloud.Azure{
		"AZURE_TENANT_ID is not":                      {Federated: token},
		"not the ID or the domain of a tenant":        {Federated: token, Tenant: "a/b"},
		"not the ID or the domain":                    {Federated: token, Tenant: ".."},
		"no client ID":                                {Federated: token, Tenant: "t"},
		"AZURE_AUTHORITY_HOST is not an https://":     {Federated: token, Tenant: "t", ClientID: "c", Authority: "http://login.example"},
		"AZURE_AUTHORITY_HOST is not an https:// ":    {Federated: token, Tenant: "t", ClientID: "c", Authority: "login.example"},
		"Service Fabric":                              {Endpoint: "https://localhost", Fabric: true, Header: header},
		"Azure Arc":                                   {Endpoint: "http://localhost:40342", Arc: true},
		"IDENTITY_HEADER is not":                      {Endpoint: "http://localhost"},
		"IDENTITY_ENDPOINT is not an http:// address": {Endpoint: "file:///etc/passwd", Header: header},
		"AZURE_POD_IDENTITY_AUTHORITY_HOST is not":    {IMDS: "169.254.169.254"},
		"--azure-resource-id is not":                  {ResourceID: "web-1"},
	} {
		f := z.Check()
		if f == nil {
			t.Fatalf("%s: passes", says)
		}
		if f.Kind != fault.Usage || !strings.Contains(f.Error(), says) {
			t.Errorf("%s: %v", says, f)
		}
	}
	for _, z := range []*cloud.Azure{{}, {IMDS: "http://127.0.0.1:1/"}, {Endpoint: "http://127.0.0.1:1/msi/token", Header: header},
		{Federated: token, Tenant: "t", ClientID: "c"}, {Federated: token, Tenant: "t", ClientID: "c", Authority: "https://login.microsoftonline.us/"},
		{ResourceID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/s"}} {
		if f := z.Check(); f != nil {
			t.Errorf("%+v: %v", z, f)
		}
	}
}
