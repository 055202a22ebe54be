package cloud_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/cloud"
	"github.com/agenticverz/vaultexec/internal/cloudtest"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// claims decodes a part of a JWT.
func claims(t *testing.T, jwt string, part int) (m map[string]any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(jwt, ".")[part])
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGoogleToken(t *testing.T) {
	t.Parallel()
	m := cloudtest.NewMachine()
	meta := cloudtest.NewMetadata(t, m, cloudtest.NewKey(t, "google"))
	token, err := cloud.GoogleToken(t.Context(), meta.Host, "a/b &c")
	if err != nil {
		t.Fatal(err)
	}
	if got := claims(t, token, 1); got["aud"] != "http://vault/a/b &c" || got["google"] == nil {
		t.Errorf("got %v", got)
	}
	if cloud.Subject(token) != "https://accounts.google.com "+m.Unique+"  " {
		t.Errorf("the subject is %q", cloud.Subject(token))
	}
	for _, q := range meta.Requests() {
		if q.Method != http.MethodGet || q.Header.Get("Metadata-Flavor") != "Google" || q.Header.Get("X-Forwarded-For") != "" || q.URL.Query().Get("format") != "full" {
			t.Errorf("%s %s with %v", q.Method, q.URL, q.Header)
		}
	}
	m.Email = ""
	none := cloudtest.NewMetadata(t, m, cloudtest.NewKey(t, "google"))
	_, err = cloud.GoogleToken(t.Context(), none.Host, "app")
	failed(t, err, fault.Usage, "Google's metadata server", "HTTP 404", "service account")
	_, err = cloud.GoogleToken(t.Context(), strings.TrimPrefix(nowhere(t), "http://"), "app")
	failed(t, err, fault.Away, "connection refused", "GCE_METADATA_HOST")
	if !fault.Of(err).Passing {
		t.Error("the wait for it is called one for Vault")
	}
	for _, host := range []string{"http://x", "x/y", "user@x", "x y", "x?y"} {
		_, err = cloud.GoogleToken(t.Context(), host, "app")
		failed(t, err, fault.Usage, "GCE_METADATA_HOST is no HOST[:PORT]")
	}
}

// The stand-in refuses what the real server refuses, or the tests above would show nothing.
func TestMetadataRefuses(t *testing.T) {
	t.Parallel()
	e := cloudtest.NewTenant(t)
	meta, imds, app := cloudtest.NewMetadata(t, cloudtest.NewMachine(), cloudtest.NewKey(t, "google")), cloudtest.NewIMDS(t, e), cloudtest.NewApp(t, e)
	const google = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=x"
	const azure = "?resource=x&api-version=2018-02-01"
	for _, c := range []struct {
		url    string
		header map[string]string
		want   int
	}{
		{meta.URL + google, map[string]string{"Metadata-Flavor": "Google"}, 200},
		{meta.URL + google, nil, 403},
		{meta.URL + google, map[string]string{"Metadata-Flavor": "Google", "X-Forwarded-For": "10.0.0.1"}, 403},
		{imds.URL + "/metadata/identity/oauth2/token" + azure, map[string]string{"Metadata": "true"}, 200},
		{imds.URL + "/metadata/identity/oauth2/token" + azure, nil, 400},
		{imds.URL + "/metadata/identity/oauth2/token" + azure, map[string]string{"Metadata": "true", "X-Forwarded-For": "10.0.0.1"}, 400},
		{app.URL + "/msi/token?resource=x&api-version=2019-08-01", map[string]string{"X-IDENTITY-HEADER": app.Header}, 200},
		{app.URL + "/msi/token?resource=x&api-version=2019-08-01", map[string]string{"X-IDENTITY-HEADER": "x"}, 401},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range c.header {
			r.Header.Set(name, value)
		}
		resp, err := (&http.Client{Transport: &http.Transport{}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s with %v: %d, want %d", c.url, c.header, resp.StatusCode, c.want)
		}
	}
}

// Every field that vault-plugin-auth-gcp reads, and no other.
func TestGoogleJWT(t *testing.T) {
	t.Parallel()
	key := cloudtest.NewKey(t, "account")
	now := time.Now()
	var subjects []string
	for _, pkcs1 := range []bool{false, true} {
		document := cloudtest.ServiceAccount(t, "app@shop.iam.gserviceaccount.com", key.PEM(t, pkcs1), key.ID, "")
		jwt, who, err := cloud.GoogleJWT("a test's", document, "app", now)
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, who)
		if got := claims(t, jwt, 0); !reflect.DeepEqual(got, map[string]any{"alg": "RS256", "typ": "JWT", "kid": "account"}) {
			t.Errorf("the header is %v", got)
		}
		if got := claims(t, jwt, 1); !reflect.DeepEqual(got, map[string]any{"sub": "app@shop.iam.gserviceaccount.com", "aud": "vault/app", "exp": float64(now.Add(5 * time.Minute).Unix())}) {
			t.Errorf("the claims are %v", got)
		}
		signed, signature := jwt[:strings.LastIndexByte(jwt, '.')], jwt[strings.LastIndexByte(jwt, '.')+1:]
		raw, _ := base64.RawURLEncoding.DecodeString(signature)
		sum := sha256.Sum256([]byte(signed))
		if err := rsa.VerifyPKCS1v15(&key.RSA.PublicKey, crypto.SHA256, sum[:], raw); err != nil {
			t.Error(err)
		}
	}
	if subjects[0] != subjects[1] || !strings.Contains(subjects[0], "account") {
		t.Errorf("it is said to be proven by %q", subjects)
	}
}

// What is no key of a service account: one line each, that names the file and not what is in it.
func TestGoogleJWTRefuses(t *testing.T) {
	t.Parallel()
	key := cloudtest.NewKey(t, "account")
	good := cloudtest.ServiceAccount(t, "app@shop.iam.gserviceaccount.com", key.PEM(t, false), key.ID, "")
	vaulttest.Secret(key.PEM(t, false))
	with := func(name, value string) string {
		var m map[string]string
		if err := json.Unmarshal([]byte(good), &m); err != nil {
			t.Fatal(err)
		}
		m[name] = value
		b, _ := json.Marshal(m)
		return string(b)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	ec := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.RSA.PublicKey)}))
	vaulttest.Secret("a-secret-of-another-file")
	for _, c := range []struct{ document, says string }{
		{`a-secret-of-another-file`, "not a service account's key in JSON"},
		{`["a-secret-of-another-file"]`, "not a service account's key in JSON"},
		{`{"type": "a-secret-of-another-file"}`, "not a service account's key in JSON"},
		{`{}`, "not a service account's key in JSON"},
		{with("type", "authorized_user"), "a person's login (authorized_user)"},
		{with("type", "external_account"), "federation (external_account) without a key"},
		{with("type", "external_account_authorized_user"), "without a key"},
		{with("type", "impersonated_service_account"), "without a key"},
		{with("type", "gdch_service_account"), "Distributed Cloud"},
		{with("client_email", ""), "no client_email"},
		{with("private_key_id", ""), "no private_key_id"},
		{with("private_key", ""), "no private_key"},
		{with("private_key", "a-secret-of-another-file"), "not in PEM"},
		{with("private_key", ec), "not an RSA key"},
		{with("private_key", public), "not an RSA key"},
	} {
		_, _, err := cloud.GoogleJWT(`--gcp-credentials-file "key.json"`, c.document, "app", time.Now())
		failed(t, err, fault.Usage, "cannot use --gcp-credentials-file \"key.json\"", c.says)
	}
	if _, _, err := cloud.GoogleJWT("", good, "app", time.Now()); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// A service that takes the question and says nothing is given up, and waited for.
func TestSilentMetadata(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 2)
	at := server(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	for _, token := range []func(context.Context) (string, error){
		func(ctx context.Context) (string, error) {
			return cloud.GoogleToken(ctx, strings.TrimPrefix(at, "http://"), "app")
		},
		(&cloud.Azure{Resource: "x", IMDS: at}).Token,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		_, err := token(ctx)
		failed(t, err, fault.Away, "cancelled")
	}
}

// Nothing goes through a proxy of the environment. 0.0.0.0 leads to this machine, and is no loopback address, which net/http exempts.
func TestPastProxies(t *testing.T) {
	t.Parallel()
	e := cloudtest.NewTenant(t)
	meta, imds, app := cloudtest.NewMetadata(t, cloudtest.NewMachine(), cloudtest.NewKey(t, "google")), cloudtest.NewIMDS(t, e), cloudtest.NewApp(t, e)
	there := func(url string) string { return strings.Replace(url, "127.0.0.1", "0.0.0.0", 1) }
	if resp, err := (&http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}).Get(there(meta.URL)); err == nil {
		resp.Body.Close()
		t.Fatal("the control: there is no proxy for this address")
	}
	if _, err := cloud.GoogleToken(t.Context(), there(meta.Host), "app"); err != nil {
		t.Error(err)
	}
	z := &cloud.Azure{Resource: "x", IMDS: there(imds.URL)}
	if _, err := z.Token(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := z.Fields(t.Context()); err != nil {
		t.Error(err)
	}
	z = &cloud.Azure{Resource: "x", Endpoint: there(app.URL) + "/msi/token", Header: func() string { return app.Header }}
	if _, err := z.Token(t.Context()); err != nil {
		t.Error(err)
	}
}

// Answers that are not Google's, nor Azure's: none of them is taken for a token, and none is followed.
func TestHostileMetadata(t *testing.T) {
	t.Parallel()
	jwt := cloudtest.NewKey(t, "google").Sign(t, map[string]any{"sub": "x"})
	vaulttest.Secret(jwt)
	elsewhere := server(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect is followed") })
	for name, c := range map[string]struct {
		answer      http.HandlerFunc
		google      string
		azure       string
		kind, kind2 fault.Kind
	}{
		"no Metadata-Flavor": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(jwt)) }, "no header Metadata-Flavor", "no access token", fault.Usage, fault.Usage},
		"another flavour": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "google")
			_, _ = w.Write([]byte(`{"access_token":"` + jwt + ` "}`))
		}, "no header Metadata-Flavor", "no access token", fault.Usage, fault.Usage},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			http.Redirect(w, r, elsewhere, http.StatusFound)
		}, "redirect, which is not followed", "redirect, which is not followed", fault.Usage, fault.Usage},
		"page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			_, _ = w.Write([]byte("<html>Log in to the network</html>"))
		}, "no identity token", "no access token", fault.Usage, fault.Usage},
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			for range 1 << 10 {
				if _, err := w.Write([]byte(strings.Repeat("x", 1<<12))); err != nil {
					return
				}
			}
		}, "longer than a token can be", "longer than a token can be", fault.Usage, fault.Usage},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", strings.Repeat("x", 1<<20))
		}, "no usable answer", "no usable answer", fault.Away, fault.Away},
		"overloaded": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "HTTP 429", "HTTP 429", fault.Away, fault.Away},
		"broken": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "HTTP 503", "HTTP 503", fault.Away, fault.Away},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Metadata-Flavor", "Google")
		}, "no usable answer", "no usable answer", fault.Away, fault.Away},
		"gone": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			w.WriteHeader(http.StatusGone)
		}, "HTTP 410", "HTTP 410", fault.Usage, fault.Away},
	} {
		t.Run(name, func(t *testing.T) {
			at := server(t, c.answer)
			_, err := cloud.GoogleToken(t.Context(), strings.TrimPrefix(at, "http://"), "app")
			failed(t, err, c.kind, c.google)
			_, err = (&cloud.Azure{Resource: cloud.AzureResource, IMDS: at}).Token(t.Context())
			failed(t, err, c.kind2, c.azure)
		})
	}
}
