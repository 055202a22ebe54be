package vaulttest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const azureModule = "github.com/hashicorp/vault-plugin-auth-azure"

// noGraph takes the place of client/msgraph.go in Vault's plugin azure, which needs Microsoft's Graph to rotate its own secret and for
// nothing else. The client for it has thousands of files, of which one package takes 2.5 GB and minutes to compile. What verifies a
// login is the plugin's own code, as it is.
const noGraph = `package client

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/google/uuid"
)

type Credential interface {
	GetKeyId() *uuid.UUID
	GetSecretText() *string
	GetEndDateTime() *time.Time
}

type Application interface {
	GetId() *string
	GetPasswordCredentials() []Credential
}

type MSGraphClient interface {
	GetApplication(ctx context.Context, clientID string) (Application, error)
	AddApplicationPassword(ctx context.Context, applicationObjectID string, displayName string, endDateTime time.Time) (Credential, error)
	RemoveApplicationPassword(ctx context.Context, applicationObjectID string, keyID *uuid.UUID) error
}

func NewMSGraphApplicationClient(string, azcore.TokenCredential) (MSGraphClient, error) {
	return nil, errors.New("built without Microsoft's Graph")
}
`

// graphKey tells plugins apart that were built with another noGraph.
func graphKey() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(noGraph)))[:8] }

// withoutGraph makes a go.mod for -modfile, in which the plugin is a copy with noGraph in it. (An -overlay may not reach into the module
// cache.) done removes it.
func withoutGraph(ctx context.Context, src string) (modfile string, done func(), err error) {
	list := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = src, append(os.Environ(), "GOWORK=off")
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("cannot bring Vault's plugin azure: %w", err)
		}
		return out, nil
	}
	version, err := list("list", "-m", "-f", "{{.Version}}", azureModule)
	if err != nil {
		return "", nil, err
	}
	// With a version, so that nothing but this module is brought.
	out, err := list("mod", "download", "-json", azureModule+"@"+strings.TrimSpace(string(version)))
	if err != nil {
		return "", nil, err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", nil, fmt.Errorf("cannot bring Vault's plugin azure: %w", err)
	}
	dir, err := TempDir("azure")
	if err != nil {
		return "", nil, err
	}
	done = func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			done()
		}
	}()
	own := filepath.Join(dir, "plugin")
	if err = os.CopyFS(own, os.DirFS(module.Dir)); err != nil {
		return "", nil, err
	}
	graph := filepath.Join(own, "client", "msgraph.go")
	if err = os.Remove(graph); err != nil { // it is read-only, as all of the module cache is
		return "", nil, err
	}
	if err = os.WriteFile(graph, []byte(noGraph), 0o600); err != nil {
		return "", nil, err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		var text []byte
		if text, err = os.ReadFile(filepath.Join(src, name)); err != nil {
			return "", nil, err
		}
		if name == "go.mod" {
			text = fmt.Appendf(text, "\nreplace %s => %s\n", azureModule, own)
		}
		if err = os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return "", nil, err
		}
	}
	return filepath.Join(dir, "go.mod"), done, nil
}
