package cloudtest

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Machine is one of Compute Engine, and the service account that it has. Without a name it is a pod of GKE, or a service of Cloud Run.
type Machine struct {
	Project, Zone, Name, ID string
	Email, Unique           string // of the service account
	Created                 time.Time
}

// NewMachine is a machine with everything that it needs.
func NewMachine() Machine {
	return Machine{Project: "shop", Zone: "europe-west3-a", Name: "web-1", ID: "4711", Email: "web@shop.iam.gserviceaccount.com",
		Unique: "104711", Created: time.Now().Add(-time.Hour)}
}

// Metadata is Google's metadata server as one machine sees it.
type Metadata struct {
	*httptest.Server
	Log
	Host string // as GCE_METADATA_HOST wants it
}

// NewMetadata starts one. Its tokens are signed by key.
func NewMetadata(t *testing.T, m Machine, key *Key) *Metadata {
	return NewMetadataAt(t, m, key, "127.0.0.1:0")
}

// NewMetadataAt is NewMetadata at an address of the caller's.
func NewMetadataAt(t *testing.T, m Machine, key *Key, addr string) *Metadata {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the address was taken meanwhile: %v", err)
	}
	s := &Metadata{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		w.Header().Set("Metadata-Flavor", "Google")
		audience := r.URL.Query().Get("audience")
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google":
			http.Error(w, "Missing Metadata-Flavor:Google header", http.StatusForbidden)
		case r.Header.Get("X-Forwarded-For") != "":
			http.Error(w, "X-Forwarded-For is not allowed", http.StatusForbidden)
		case r.Method != http.MethodGet:
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		case r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" || m.Email == "":
			http.NotFound(w, r)
		case audience == "":
			http.Error(w, "non-empty audience parameter required", http.StatusBadRequest)
		default:
			now := time.Now()
			claims := map[string]any{"iss": "https://accounts.google.com", "aud": audience, "azp": m.Unique, "sub": m.Unique, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
			if r.URL.Query().Get("format") == "full" && m.Name != "" {
				claims = with(claims, map[string]any{"email": m.Email, "email_verified": true, "google": map[string]any{"compute_engine": map[string]any{
					"project_id": m.Project, "project_number": 1, "zone": m.Zone, "instance_id": m.ID, "instance_name": m.Name, "instance_creation_timestamp": m.Created.Unix(),
				}}})
			}
			_, _ = w.Write([]byte(key.Sign(t, claims)))
		}
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	s.Host = strings.TrimPrefix(s.URL, "http://")
	return s
}

// ServiceAccount is the JSON file of a service account's key. tokenURI is where its owner gets tokens from Google.
func ServiceAccount(t *testing.T, email, private, keyID, tokenURI string) string {
	t.Helper()
	b, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": "shop", "private_key_id": keyID, "private_key": private, "client_email": email, "client_id": "1", "token_uri": tokenURI,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// APIs is what Vault's auth method gcp asks of Google: public keys, accounts and machines.
type APIs struct {
	*httptest.Server
	Log
}

// NewAPIs starts them. google signs the tokens of metadata servers, and accounts has the keys of service accounts by their address.
func NewAPIs(t *testing.T, google *Key, m Machine, accounts map[string]*Key) *APIs {
	t.Helper()
	s := &APIs{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		none := map[string]any{"error": map[string]any{"code": 404, "message": "not found"}}
		switch {
		case r.URL.Path == "/token":
			answer(w, 200, map[string]any{"access_token": "of-vault-itself", "token_type": "Bearer", "expires_in": 3600})
		case r.URL.Path == "/oauth2/v1/certs":
			answer(w, 200, map[string]string{google.ID: google.Certificate(t)})
		case strings.HasPrefix(r.URL.Path, "/service_accounts/v1/metadata/x509/"):
			key := accounts[last]
			if key == nil {
				answer(w, 404, none)
				return
			}
			answer(w, 200, map[string]string{key.ID: key.Certificate(t)})
		case r.Header.Get("Authorization") != "Bearer of-vault-itself":
			answer(w, 401, map[string]any{"error": map[string]any{"code": 401, "message": "no token"}})
		case strings.HasPrefix(r.URL.Path, "/v1/projects/-/serviceAccounts/") && (last == m.Email || last == m.Unique):
			answer(w, 200, map[string]string{"email": m.Email, "uniqueId": m.Unique, "projectId": m.Project})
		case strings.HasPrefix(r.URL.Path, "/v1/projects/-/serviceAccounts/") && accounts[last] != nil:
			answer(w, 200, map[string]string{"email": last, "uniqueId": "2", "projectId": "shop"})
		case r.URL.Path == "/compute/v1/projects/"+m.Project+"/zones/"+m.Zone+"/instances/"+m.Name:
			answer(w, 200, map[string]string{"id": m.ID, "name": m.Name, "status": "RUNNING", "zone": s.URL + "/zones/" + m.Zone,
				"creationTimestamp": m.Created.Format(time.RFC3339), "selfLink": s.URL + r.URL.Path})
		default:
			answer(w, 404, none)
		}
	}))
	t.Cleanup(s.Close)
	return s
}
