package vault

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// A CA file on a disk that does not answer holds no request up, however often it is looked at. What was read before goes on
// being used, and the change is found when the disk answers.
func TestHungCAFile(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	pem, err := os.ReadFile(vaulttest.NewCA(t, "a test's CA").File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	f, _, err := newTLSFiles(Config{Address: "https://vault.test", CACert: ca})
	if err != nil {
		t.Fatal(err)
	}
	if _, yes := f.changed(t.Context()); yes {
		t.Error("changed, and it is not")
	}
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(ca, 0o600); err != nil { // a read hangs like that of a server that is away
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if _, yes := f.changed(over); yes {
			t.Error("changed, and nothing was read")
		}
	}
	w, err := os.OpenFile(ca, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(pem); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	f.reads.do(t.Context(), time.Minute, func() {}) // after what is under way
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, yes := f.changed(t.Context()); !yes {
		t.Error("the disk answers again, and the new file is not found")
	}
}

// A handshake goes on with the client certificate that was read before, long before its request is over.
func TestHungClientCert(t *testing.T) {
	t.Parallel()
	pair := vaulttest.NewCA(t, "a test's CA").Client(t, vaulttest.CertOpts{})
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, pair.CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	f, _, err := newTLSFiles(Config{Address: "https://vault.test", ClientCert: cert, ClientKey: pair.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	before := f.clientCert(t.Context())
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(cert, 0o600); err != nil {
		t.Fatal(err)
	}
	request, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // also while the first look hangs
		if got := f.clientCert(request); got != before || request.Err() != nil {
			t.Errorf("got %p, want %p; %v", got, before, request.Err())
		}
	}
	if filePatience > defaultTimeout/2 {
		t.Errorf("a handshake waits %v, and a request lasts %v", filePatience, defaultTimeout)
	}
}
