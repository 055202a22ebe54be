package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// CA is a certificate authority that exists for one test.
type CA struct {
	File string // its certificate, PEM
	PEM  []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// KeyPair is a certificate with its key, in files.
type KeyPair struct {
	CertFile, KeyFile string
	CertPEM           []byte
}

// CertOpts describes a certificate. The zero value is valid for 127.0.0.1, ::1 and localhost, from an hour ago until
// tomorrow.
type CertOpts struct {
	Name    string   // common name, "localhost" by default
	DNS     []string // with IPs, in place of the default names
	IPs     []net.IP
	Expired bool // it was valid until an hour ago
}

// NewCA makes a CA.
func NewCA(t TB, name string) *CA {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatalf("cannot make a CA: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("cannot make a CA: %v", err)
	}
	ca := &CA{cert: cert, key: key, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	ca.File = writePEM(t, pemDir(t), "ca.pem", ca.PEM)
	return ca
}

// Server makes a server certificate.
func (ca *CA) Server(t TB, o CertOpts) *KeyPair {
	t.Helper()
	if o.DNS == nil && o.IPs == nil {
		o.DNS, o.IPs = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return ca.issue(t, o, x509.ExtKeyUsageServerAuth)
}

// Client makes a client certificate for a name.
func (ca *CA) Client(t TB, o CertOpts) *KeyPair {
	t.Helper()
	return ca.issue(t, o, x509.ExtKeyUsageClientAuth)
}

func (ca *CA) issue(t TB, o CertOpts, usage x509.ExtKeyUsage) *KeyPair {
	t.Helper()
	if o.Name == "" {
		o.Name = "localhost"
	}
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: o.Name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
		DNSNames:     o.DNS,
		IPAddresses:  o.IPs,
	}
	if o.Expired {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(-time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatalf("cannot make a certificate: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("cannot make a certificate: %v", err)
	}
	dir := pemDir(t)
	pair := &KeyPair{CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	pair.CertFile = writePEM(t, dir, "cert.pem", pair.CertPEM)
	pair.KeyFile = writePEM(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return pair
}

func newKey(t TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("cannot make a key: %v", err)
	}
	return key
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, says its documentation
	b[0] &= 0x7f        // positive
	return new(big.Int).SetBytes(b)
}

func pemDir(t TB) string {
	t.Helper()
	dir, err := TempDir("tls")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func writePEM(t TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatalf("cannot write a certificate: %v", err)
	}
	return path
}
