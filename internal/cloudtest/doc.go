// Package cloudtest has stand-ins for tests: the metadata services of Google Cloud and Azure, which refuse what the real ones refuse, and
// the parts of Google and of Microsoft that Vault's auth methods gcp and azure ask. All of them listen on the loopback interface.
//
// What the services refuse is from their documentation: cloud.google.com/compute/docs/metadata/querying-metadata ("Metadata-Flavor",
// "X-Forwarded-For"), learn.microsoft.com/azure/virtual-machines/instance-metadata-service ("Metadata: true", proxies) and
// learn.microsoft.com/azure/app-service/overview-managed-identity ("X-IDENTITY-HEADER").
package cloudtest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Key is an RSA key with its number, as those who issue tokens publish it.
type Key struct {
	ID  string
	RSA *rsa.PrivateKey
}

// keys are expensive to make.
var keys struct {
	sync.Mutex
	byID map[string]*Key
}

// NewKey makes the key with this number, once for all tests of a binary.
func NewKey(t *testing.T, id string) *Key {
	t.Helper()
	keys.Lock()
	defer keys.Unlock()
	if k := keys.byID[id]; k != nil {
		return k
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if keys.byID == nil {
		keys.byID = map[string]*Key{}
	}
	keys.byID[id] = &Key{id, key}
	return keys.byID[id]
}

// Sign makes a JWT.
func (k *Key) Sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	part := func(x any) string {
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]string{"alg": "RS256", "kid": k.ID, "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, k.RSA, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Certificate is the public key as Google publishes it: in a certificate of its own, in PEM.
func (k *Key) Certificate(t *testing.T) string {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "unused"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.RSA.Public(), k.RSA)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// JWK is the public key as Microsoft publishes it.
func (k *Key) JWK() map[string]string {
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	return map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": k.ID, "n": number(k.RSA.N), "e": number(big.NewInt(int64(k.RSA.E)))}
}

// PEM is the private key as a service account's file has it: in PKCS#8, or in PKCS#1.
func (k *Key) PEM(t *testing.T, pkcs1 bool) string {
	t.Helper()
	if pkcs1 {
		return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k.RSA)}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.RSA)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// Log keeps the requests that a stand-in got.
type Log struct {
	mu   sync.Mutex
	list []*http.Request
}

func (l *Log) note(r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, r)
}

// Requests returns what came so far.
func (l *Log) Requests() []*http.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*http.Request{}, l.list...)
}

// answer writes JSON.
func answer(w http.ResponseWriter, status int, x any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(x)
}

// with returns the claims with others in their place.
func with(claims, others map[string]any) map[string]any {
	all := maps.Clone(claims)
	maps.Copy(all, others)
	return all
}
