package vault

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

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
	f.looks.do(t.Context(), func() {}) // after what is under way
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
