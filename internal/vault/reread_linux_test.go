package vault_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/wait"
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

// Nor does a home directory on a server that is away.
func TestStoredTokenPipe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, content string }{{".vault-token", "late"}, {".vault", "# nothing"}} {
		home := t.TempDir()
		path := filepath.Join(home, c.name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		wait.Until(t, time.Minute, "a failure that names "+c.name, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err = vault.StoredToken(ctx, home, "", nil)
			return strings.Contains(fmt.Sprint(err), c.name+`"`)
		})
		refused(t, err, fault.Away, "does not answer", "network file system")
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(c.content); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		rewrite(t, filepath.Join(home, ".vault-token"), "there")
		got, err := vault.StoredToken(t.Context(), home, "", nil)
		if err != nil || got.Reveal() != "there" {
			t.Errorf("%s: after it has answered: %v", c.name, err)
		}
	}
}
