package cloud

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// googleHost is the metadata server of Compute Engine, and of GKE's workload identity.
// Source: cloud.google.com/compute/docs/instances/verifying-instance-identity.
const googleHost = "metadata.google.internal"

const googleIdentity = "/computeMetadata/v1/instance/service-accounts/default/identity"

// GoogleToken asks Google's metadata server for a token about the service account of this machine or pod, for one role of Vault. host is
// another address of that server (GCE_METADATA_HOST), or "". Who changes the name's address only gets to say who this machine is, and
// learns nothing: nothing secret is sent.
func GoogleToken(ctx context.Context, host, role string) (string, error) {
	s := &source{what: "cannot get a token from Google's metadata server", host: googleHost,
		hint: "it is there on machines and pods of Google Cloud; elsewhere name a service account's key with --gcp-credentials-file"}
	if host != "" {
		s.host = host
		s.hint = "correct GCE_METADATA_HOST, or leave it out"
		if u, err := url.Parse("http://" + host); err != nil || u.Host != host {
			return "", s.fault(fault.Usage, "GCE_METADATA_HOST is no HOST[:PORT]", s.hint)
		}
	}
	// Vault wants an audience that ends in vault/ROLE (validateBaseJWTClaims in vault-plugin-auth-gcp), and with format=full the claims
	// about the machine.
	query := url.Values{"audience": {"http://vault/" + role}, "format": {"full"}}
	at := url.URL{Scheme: "http", Host: s.host, Path: googleIdentity, RawQuery: query.Encode()}
	// The header keeps others from having this machine ask for them: the server refuses a question without it.
	r := &http.Request{Method: http.MethodGet, URL: &at, Header: http.Header{"Metadata-Flavor": {"Google"}}}
	a, err := exchange(ctx, r, nil)
	if err != nil {
		return "", s.silent(err)
	}
	token := strings.TrimSpace(string(a.body))
	switch {
	case a.header.Get("Metadata-Flavor") != "Google":
		return "", s.wrong("the answer is not from Google's metadata server: it has no header Metadata-Flavor")
	case a.status == http.StatusNotFound:
		return "", s.failed(a.status, "", "give the machine a service account (gcloud compute instances set-service-account)")
	case a.status == http.StatusForbidden:
		return "", s.failed(a.status, "", "the pod's service account may not use that of Google: it needs the role roles/iam.workloadIdentityUser")
	case a.status != http.StatusOK:
		return "", s.failed(a.status, "", s.hint)
	case !isJWT(token):
		return "", s.wrong("the answer is no identity token")
	}
	return token, nil
}

// jwtLife is how long a JWT that we sign is good for. Vault refuses one that lives longer than max_jwt_exp of the role, which is
// 15 minutes by default, by its own clock. So 5 minutes pass with a clock that is up to 10 minutes ahead, or 5 behind.
const jwtLife = 5 * time.Minute

// googleKey is a service account's file, as far as it is read. Source: google.aip.dev/auth/4112.
type googleKey struct {
	Type  string `json:"type"`
	Email string `json:"client_email"`
	KeyID string `json:"private_key_id"`
	Key   string `json:"private_key"`
}

// notKey says what is wrong with the other kinds of files that Google's libraries take from the same place; "" for a kind that is unknown.
func notKey(kind string) string {
	switch kind {
	case "authorized_user":
		return "it is a person's login (authorized_user)"
	case "external_account":
		return "it is a federation (external_account) without a key"
	case "external_account_authorized_user":
		return "it is a person's federation, without a key"
	case "impersonated_service_account":
		return "it impersonates a service account, without a key"
	case "gdch_service_account":
		return "it is an account of Google Distributed Cloud"
	}
	return ""
}

// GoogleJWT signs, with the key of a service account, what Vault wants to see for one role. name is the file's, for errors, and document
// what is in it. Nobody is asked: Vault looks the account's public keys up. who is the same as long as the key is.
func GoogleJWT(name, document, role string, now time.Time) (jwt, who string, err error) {
	bad := func(why, hint string) (string, string, error) {
		return "", "", &fault.Error{Kind: fault.Usage, What: "cannot use " + name, Why: why, Hint: hint}
	}
	const another = "name the JSON key file of a service account (gcloud iam service-accounts keys create)"
	var k googleKey
	if json.Unmarshal([]byte(document), &k) != nil {
		return bad("it is not a service account's key in JSON", another)
	}
	if why := notKey(k.Type); why != "" {
		return bad(why, "Vault takes what the key of a service account has signed: "+another+", or log in by the metadata server: --gcp-type gce")
	}
	switch {
	case k.Type != "service_account":
		return bad("it is not a service account's key in JSON", another)
	case k.Email == "":
		return bad("it has no client_email", another)
	case k.KeyID == "":
		return bad("it has no private_key_id", another)
	case k.Key == "":
		return bad("it has no private_key", another)
	}
	key, why := parseRSA(k.Key)
	if why != "" {
		return bad(why, another)
	}
	header, _ := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": k.KeyID})
	claims, _ := json.Marshal(map[string]any{"sub": k.Email, "aud": "vault/" + role, "exp": now.Add(jwtLife).Unix()})
	signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return bad(fmt.Sprintf("its private_key of %d bits cannot sign", key.N.BitLen()), another)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), k.Email + " " + k.KeyID, nil
}

// parseRSA reads a private key in PEM: PKCS#8, as Google writes it, or PKCS#1. why says what is wrong.
func parseRSA(text string) (key *rsa.PrivateKey, why string) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, "its private_key is not in PEM"
	}
	if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if key, ok := parsed.(*rsa.PrivateKey); ok {
			return key, ""
		}
		return nil, "its private_key is not an RSA key"
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, "its private_key is not an RSA key in PKCS#8 or PKCS#1"
	}
	return key, ""
}
