package vaulttest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// plugins are auth methods and databases that the minimal build of Vault lacks, by their name in Vault's catalogue:
// Vault's own code, run beside it as external plugins.
var plugins = map[string]string{
	"aws":          "github.com/hashicorp/vault/builtin/credential/aws/cmd/aws",
	"azure":        azureModule + "/cmd/vault-plugin-auth-azure",
	"gcp":          "github.com/hashicorp/vault-plugin-auth-gcp/cmd/vault-plugin-auth-gcp",
	"kubernetes":   "github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes",
	"ldap":         "github.com/hashicorp/vault/builtin/credential/ldap/cmd/ldap",
	PostgresPlugin: "github.com/hashicorp/vault/plugins/database/postgresql/postgresql-database-plugin",
}

// PostgresPlugin is what the database engine needs for PostgreSQL. OpenBao has it built in.
const PostgresPlugin = "postgresql-database-plugin"

var pluginBuild = []string{"-trimpath", "-ldflags", "-s -w"}

// NewDevWithPlugin starts a dev-mode server for this test alone, with a plugin beside it that the minimal build lacks:
// "aws", "azure", "gcp", "kubernetes", "ldap" or PostgresPlugin. The first use builds it, kept like the server program itself.
func NewDevWithPlugin(t TB, name string) *Server {
	t.Helper()
	if name == PostgresPlugin && OpenBao(t) {
		return NewDev(t)
	}
	dir, err := pluginDir(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return NewDev(t, "-dev-plugin-dir="+dir)
}

// BuildPlugins builds every plugin that is not there already, so that no test has to.
func BuildPlugins(ctx context.Context) error {
	for name := range plugins {
		if _, err := plugin(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// plugin returns the path of a plugin's program, building it if need be.
func plugin(ctx context.Context, name string) (string, error) {
	pkg := plugins[name]
	if pkg == "" {
		return "", fmt.Errorf("there is no plugin %q", name)
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	src := filepath.Join(root, "tools", "vault")
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	key, err := sourceKey(src, vaultBuild)
	if err != nil {
		return "", err
	}
	if name == "azure" {
		key += "-" + graphKey()
	}
	kept := filepath.Join(cache, "plugin-"+name+"-"+key)
	if executable(kept) {
		return kept, nil
	}
	args := pluginBuild
	if name == "azure" {
		modfile, done, err := withoutGraph(ctx, src)
		if err != nil {
			return "", err
		}
		defer done()
		args = append(args[:len(args):len(args)], "-modfile", modfile)
	}
	return kept, buildTool(ctx, "Vault's plugin "+name, src, kept, args, pkg)
}

// pluginDir returns a folder that holds this plugin alone: a dev server registers every file in it.
func pluginDir(name string) (string, error) {
	kept, err := plugin(context.Background(), name)
	if err != nil {
		return "", err
	}
	dir, err := TempDir("plugins")
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, name)
	if os.Link(kept, at) == nil { // Vault follows no symbolic link out of the folder
		return dir, nil
	}
	program, err := os.ReadFile(kept)
	if err != nil {
		return "", fmt.Errorf("cannot copy the plugin: %w", err)
	}
	return dir, os.WriteFile(at, program, 0o755)
}
