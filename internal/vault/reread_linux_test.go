package vault_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A credential file that does not answer holds nobody up, and what comes later is not lost.
func TestCredentialPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	source := vault.FileSource("--token-file", path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		_, err := source(ctx)
		refused(t, err, fault.Away, "--token-file", "does not answer", "pipe")
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("late\n"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	for range 2 { // a pipe says it once
		got, err := source(t.Context())
		if err != nil || got.Reveal() != "late" {
			t.Fatalf("got %v", err)
		}
	}
}

func TestQuotedCredentials(t *testing.T) {
	for _, s := range []string{`"abc"`, `'abc'`, " \"abc\"\r\n"} {
		_, err := vault.CheckCredential("VAULT_TOKEN", s)
		refused(t, err, fault.Usage, "VAULT_TOKEN", "in quotes")
	}
	for address, word := range map[string]string{`"http://127.0.0.1:8200"`: "in quotes", "http://127.0.0.1:8200\r": "carriage return", " http://127.0.0.1:8200": "blank"} {
		_, err := vault.New(vault.Config{Address: address})
		refused(t, err, fault.Usage, "address of Vault", word)
	}
}
