package e2e

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/cloud"
	"github.com/agenticverz/vaultexec/internal/cloudtest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// withEnvironment gives a plugin of a dev server variables of its own.
func withEnvironment(t *testing.T, srv *vaulttest.Server, plugin string, env ...string) {
	t.Helper()
	data, _ := srv.Must(t, "GET", "sys/plugins/catalog/auth/"+plugin, nil)["data"].(map[string]any)
	srv.Must(t, "PUT", "sys/plugins/catalog/auth/"+plugin, map[string]any{"sha256": data["sha256"], "command": data["command"], "env": env})
}

// cloudRig is a rig whose vaultexec has no token.
func cloudRig(t *testing.T, srv *vaulttest.Server, env ...string) *rig {
	t.Helper()
	r := rigOn(t, srv)
	r.set(append([]string{"VAULT_TOKEN=", "VAULTEXEC_WAIT=0"}, env...)...)
	return r
}

// role makes a role that may read the rig's secret.
func (r *rig) role(path string, with map[string]any) {
	r.t.Helper()
	with["token_policies"] = r.policy
	r.srv.Must(r.t, "POST", path, with)
}

// Against Vault's own plugin gcp, as it is, whose config has addresses for all that it asks of Google.
func TestGCP(t *testing.T) {
	srv := vaulttest.NewDevWithPlugin(t, "gcp")
	google, account, m := cloudtest.NewKey(t, "google"), cloudtest.NewKey(t, "account"), cloudtest.NewMachine()
	const email = "app@shop.iam.gserviceaccount.com"
	apis := cloudtest.NewAPIs(t, google, m, map[string]*cloudtest.Key{email: account})
	meta := cloudtest.NewMetadata(t, m, google)
	file := func(t *testing.T, text string) string {
		path := filepath.Join(t.TempDir(), "key.json")
		vaulttest.WriteFile(t, path, text, 0o600)
		return path
	}
	// Vault's own account, by which it asks Google. The address that gives it tokens is in its file.
	vaults := file(t, cloudtest.ServiceAccount(t, "vault@shop.iam.gserviceaccount.com", account.PEM(t, false), "account", apis.URL+"/token"))
	withEnvironment(t, srv, "gcp", "GOOGLE_APPLICATION_CREDENTIALS="+vaults)
	srv.Must(t, "POST", "sys/auth/gcp", map[string]any{"type": "gcp"})
	srv.Must(t, "POST", "auth/gcp/config", map[string]any{"custom_endpoint": map[string]string{"api": apis.URL, "iam": apis.URL, "crm": apis.URL, "compute": apis.URL + "/compute/v1/"}})
	r := cloudRig(t, srv, "GCE_METADATA_HOST="+meta.Host)
	r.role("auth/gcp/role/machine", map[string]any{"type": "gce", "bound_projects": m.Project, "bound_zones": m.Zone, "bound_service_accounts": m.Email})
	r.role("auth/gcp/role/elsewhere", map[string]any{"type": "gce", "bound_projects": "other"})
	r.role("auth/gcp/role/account", map[string]any{"type": "iam", "bound_service_accounts": email, "max_jwt_exp": "900"})
	r.role("auth/gcp/role/inferred", map[string]any{"type": "iam", "bound_service_accounts": m.Email, "max_jwt_exp": "3600"})
	r.role("auth/gcp/role/stranger", map[string]any{"type": "iam", "bound_service_accounts": "nobody@shop.iam.gserviceaccount.com"})
	pkcs8 := file(t, cloudtest.ServiceAccount(t, email, account.PEM(t, false), "account", ""))
	pkcs1 := file(t, cloudtest.ServiceAccount(t, email, account.PEM(t, true), "account", ""))
	deleted := file(t, cloudtest.ServiceAccount(t, email, cloudtest.NewKey(t, "deleted").PEM(t, false), "deleted", ""))
	vaulttest.Secret(account.PEM(t, false), account.PEM(t, true))

	for name, args := range map[string][]string{
		"machine":            {"--auth", "gcp", "--role", "machine"},
		"machine, by name":   {"--gcp-type", "gce", "--role", "machine"},
		"account":            {"--auth", "gcp", "--role", "account", "--gcp-credentials-file", pkcs8},
		"account, PKCS#1":    {"--gcp-credentials-file", pkcs1, "--role", "account"},
		"account of machine": {"--auth", "gcp", "--role", "inferred"},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			r.touch(args...).finish("0").silent()
			if n := tokensOf(t, srv, "auth/gcp/login"); !r.started() || n != 0 {
				t.Errorf("%d tokens left", n)
			}
			r.start(append([]string{"check"}, args...)...).finish("0")
		})
	}
	t.Run("Google's own variable", func(t *testing.T) {
		r := *r
		r.t = t
		r.set("GOOGLE_APPLICATION_CREDENTIALS=" + pkcs8)
		j := r.start("--auth", "gcp", "--role", "account", "--", "env").finish2(t)
		if !strings.Contains(j.out.String(), "GOOGLE_APPLICATION_CREDENTIALS="+pkcs8) {
			t.Error("the command has lost its own variable")
		}
		r.set("VAULTEXEC_GCP_CREDENTIALS_FILE=/nowhere")
		r.touch("--auth", "gcp", "--gcp-type", "gce", "--role", "machine").finish("0")
	})
	t.Run("pod", func(t *testing.T) {
		r := *r
		r.t = t
		pod := m
		pod.Name = ""
		r.set("GCE_METADATA_HOST=" + cloudtest.NewMetadata(t, pod, google).Host)
		r.touch("--auth", "gcp", "--role", "inferred").finish("0").silent()
		r.touch("--auth", "gcp", "--role", "machine").finish("121").says("expected JWT to have claims with GCE metadata").says("hint: .*type iam with max_jwt_exp=1h")
	})
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"bound elsewhere":   {[]string{"--role", "elsewhere"}, "not in bound projects"},
		"another account":   {[]string{"--role", "stranger", "--gcp-credentials-file", pkcs8}, "is not authorized for role"},
		"no such role":      {[]string{"--role", "none"}, "not found"},
		"a key for a gce":   {[]string{"--role", "machine", "--gcp-credentials-file", pkcs8}, "no Google OAuth2 provider key found for GCE role"},
		"a deleted key":     {[]string{"--role", "account", "--gcp-credentials-file", deleted}, "unable to get public key"},
		"an account's role": {[]string{"--role", "account"}, "service account JWTs expire within"},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			r.touch(append([]string{"--auth", "gcp"}, c.args...)...).finish("121").says(c.says).says("hint: .*(auth/gcp/role|type gce|max_jwt_exp)")
		})
	}
	t.Run("metadata server comes later", func(t *testing.T) {
		r := *r
		r.t = t
		addr := strings.TrimPrefix(nobodysAddress(t), "http://")
		r.set("GCE_METADATA_HOST="+addr, "VAULTEXEC_WAIT=60s")
		j := r.touch("--auth", "gcp", "--role", "machine")
		j.awaitStderr("waiting for a credential: cannot get a token from Google's metadata server: connection refused")
		k := r.start("get", "app", "--auth", "gcp", "--role", "machine")
		k.awaitStderr("waiting for a credential: cannot get a token from Google's metadata server: connection refused")
		cloudtest.NewMetadataAt(t, m, google, addr)
		j.finish("0")
		k.finish("0")
		if !r.started() {
			t.Error("the command was not started")
		}
	})
	t.Run("clock", func(t *testing.T) {
		document := cloudtest.ServiceAccount(t, email, account.PEM(t, false), "account", "")
		for _, c := range []struct {
			off  time.Duration
			want int
		}{{0, 200}, {9 * time.Minute, 200}, {-4 * time.Minute, 200}, {11 * time.Minute, 400}, {-10 * time.Minute, 400}} {
			jwt, _, err := cloud.GoogleJWT("a test's", document, "account", time.Now().Add(c.off))
			if err != nil {
				t.Fatal(err)
			}
			if status, out := srv.Do(t, "POST", "auth/gcp/login", map[string]string{"role": "account", "jwt": jwt}); status != c.want {
				t.Errorf("a clock that is off by %v: %d %v", c.off, status, out["errors"])
			}
		}
	})
}

// nobodysAddress refuses connections, until somebody listens there.
func nobodysAddress(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

// Against Vault's own plugin azure (without what rotates its own secret: internal/vaulttest/plugin_azure.go). It has no setting for whom it
// asks, but goes by HTTPS_PROXY and SSL_CERT_FILE: the proxy ends the TLS of login.microsoftonline.com and management.azure.com.
func TestAzure(t *testing.T) {
	srv := vaulttest.NewDevWithPlugin(t, "azure")
	e := cloudtest.NewTenant(t)
	trusted := cloudtest.NewKey(t, "cluster").Sign(t, map[string]any{"sub": "system:serviceaccount:shop:app", "iss": "https://cluster"})
	vaulttest.Secret(trusted)
	net := cloudtest.NewInternet(t, e, trusted)
	withEnvironment(t, srv, "azure", "HTTPS_PROXY="+net.Proxy, "SSL_CERT_FILE="+net.CA)
	srv.Must(t, "POST", "sys/auth/azure", map[string]any{"type": "azure"})
	srv.Must(t, "POST", "auth/azure/config", map[string]any{"tenant_id": e.ID, "resource": cloud.AzureResource, "client_id": "55555555-5555-5555-5555-555555555555", "client_secret": vaulttest.Canary("vaults-own"), "max_retries": 0})
	r := cloudRig(t, srv)
	r.role("auth/azure/role/identity", map[string]any{"bound_service_principal_ids": e.Object})
	r.role("auth/azure/role/group", map[string]any{"bound_service_principal_ids": e.Object, "bound_subscription_ids": e.Subscription, "bound_resource_groups": e.Group})
	r.role("auth/azure/role/elsewhere", map[string]any{"bound_service_principal_ids": e.Object, "bound_resource_groups": "other"})
	r.role("auth/azure/role/set", map[string]any{"bound_service_principal_ids": e.Object, "bound_scale_sets": "web"})
	r.role("auth/azure/role/stranger", map[string]any{"bound_service_principal_ids": "66666666-6666-6666-6666-666666666666"})
	imds := cloudtest.NewIMDS(t, e)
	scaled := e
	scaled.VM, scaled.ScaleSet = "web_0", "web"
	set := cloudtest.NewIMDS(t, scaled)
	app := cloudtest.NewApp(t, e)
	federated := filepath.Join(t.TempDir(), "token")
	vaulttest.WriteFile(t, federated, trusted+"\n", 0o600)
	ofIMDS := []string{"AZURE_POD_IDENTITY_AUTHORITY_HOST=" + imds.URL + "/"}
	ofSet := []string{"AZURE_POD_IDENTITY_AUTHORITY_HOST=" + set.URL}
	ofApp := []string{"IDENTITY_ENDPOINT=" + app.URL + "/msi/token", "IDENTITY_HEADER=" + app.Header}
	ofSite := append([]string{"WEBSITE_OWNER_NAME=" + e.Subscription + "+shop-WestEuropewebspace-Linux", "WEBSITE_RESOURCE_GROUP=" + e.Group, "WEBSITE_SITE_NAME=" + app.Name}, ofApp...)
	ofPod := []string{"AZURE_FEDERATED_TOKEN_FILE=" + federated, "AZURE_CLIENT_ID=" + e.Client, "AZURE_TENANT_ID=" + e.ID, "HTTPS_PROXY=" + net.Proxy, "SSL_CERT_FILE=" + net.CA}

	for name, c := range map[string]struct{ env, args []string }{
		"machine":                   {ofIMDS, []string{"--role", "identity"}},
		"machine in a group":        {ofIMDS, []string{"--role", "group"}},
		"machine, by identity":      {ofIMDS, []string{"--role", "identity", "--azure-client-id", e.Client}},
		"scale set":                 {ofSet, []string{"--role", "set"}},
		"app":                       {ofApp, []string{"--role", "identity"}},
		"app in a group":            {ofSite, []string{"--role", "group"}},
		"app in a group, by its ID": {ofApp, []string{"--role", "group", "--azure-resource-id", app.ID(e)}},
		"pod":                       {ofPod, []string{"--role", "identity"}},
		"pod beside a machine":      {append(ofIMDS[:1:1], ofPod...), []string{"--role", "identity"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			r.set(c.env...)
			r.touch(append([]string{"--auth", "azure"}, c.args...)...).finish("0").silent()
			if n := tokensOf(t, srv, "auth/azure/login"); !r.started() || n != 0 {
				t.Errorf("%d tokens left", n)
			}
		})
	}
	for name, c := range map[string]struct {
		env, args []string
		says      string
	}{
		"bound elsewhere":        {ofIMDS, []string{"--role", "elsewhere"}, "resource group not authorized"},
		"another identity":       {ofIMDS, []string{"--role", "stranger"}, "service principal not authorized"},
		"another resource":       {ofIMDS, []string{"--role", "identity", "--azure-resource", "https://vault.example"}, "expected audience"},
		"no such role":           {ofIMDS, []string{"--role", "none"}, "invalid role name"},
		"no machine":             {ofApp, []string{"--role", "group"}, "subscription_id and resource_group_name are required"},
		"a machine in no set":    {ofIMDS, []string{"--role", "set"}, "bound scale set defined but this vm isn't in a scale set"},
		"an ID of somebody else": {ofApp, []string{"--role", "elsewhere", "--azure-resource-id", app.ID(e)}, "resource group not authorized"},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			r.set(c.env...)
			r.touch(append([]string{"--auth", "azure"}, c.args...)...).finish("121").says(c.says).says("hint: .*(auth/azure|--azure-resource-id)")
		})
	}
	for _, q := range append(imds.Requests(), app.Requests()...) {
		if q.Header.Get("X-Forwarded-For") != "" || q.Method != http.MethodGet {
			t.Errorf("%s %s with %v", q.Method, q.URL, q.Header)
		}
	}
}
