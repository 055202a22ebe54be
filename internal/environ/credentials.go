package environ

import (
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/vault"
)

// credentialNames are taken out of what others inherit. The BAO_ names are OpenBao's for the same.
var credentialNames = []string{
	"VAULT_TOKEN", "VAULT_HEADERS", "VAULT_SECRET_ID", "VAULT_ROLE_ID", "VAULT_WRAPPED_TOKEN",
	"BAO_TOKEN", "BAO_HEADERS", "BAO_SECRET_ID", "BAO_ROLE_ID", "BAO_WRAPPED_TOKEN",
	"VAULTEXEC_SECRET_ID", "VAULTEXEC_ROLE_ID", "VAULTEXEC_WRAPPED_SECRET_ID", "VAULTEXEC_WRAPPED_TOKEN",
	"VAULTEXEC_TOKEN",
	"VAULTEXEC_GITHUB_TOKEN",
	"VAULTEXEC_PASSWORD", "VAULTEXEC_JWT", "VAULT_PASSWORD", "VAULT_JWT", "BAO_PASSWORD", "BAO_JWT",
}

// IsCredential reports whether a variable holds a credential for Vault itself.
func IsCredential(name string) bool { return slices.Contains(credentialNames, name) }

// proxyNames are the variables by which programs find their proxies. The command, too, may need the password in one.
var proxyNames = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}

// IsProxy reports whether programs find a proxy by a variable of that name.
func IsProxy(name string) bool { return slices.Contains(proxyNames, name) }

// HasPassword reports whether a variable is an address with a user or a password in it: of Vault or of a proxy.
func HasPassword(name, value string) bool {
	return (isAddress(name) || IsProxy(name)) && len(vault.Users(value)) > 0
}

// isAddress reports whether a variable is one by which vaultexec, or Vault's own tools, find Vault or the way to it.
// The server's own settings (VAULT_PG_CONNECTION_URL) are not among them.
func isAddress(name string) bool {
	for _, prefix := range []string{"VAULT_", "BAO_", "VAULTEXEC_"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return strings.HasSuffix(rest, "ADDR") || strings.HasSuffix(rest, "ADDRESS") ||
				strings.HasSuffix(rest, "PROXY")
		}
	}
	return false
}

// withoutUsers is a list of addresses, or one, without their users and passwords.
func withoutUsers(value string) string {
	users := vault.Users(value)
	for _, u := range slices.Backward(users) {
		value = value[:u.From] + value[u.To+1:] // with the @
	}
	return value
}

// leastCopied is from how many bytes on a variable that is equal to a credential is a copy of it and no coincidence.
const leastCopied = 16

// WithoutCredentials is an environment for a program that has no business with Vault. It lacks the variables that hold
// a credential for Vault, and others that hold the same. Its addresses of Vault and of Vault's proxies lack the user
// and the password. (A password may well belong to another program, too, and so may a proxy; they stay.) It returns the
// names of what was taken out or changed.
func WithoutCredentials(environ []string) (rest, stripped []string) {
	copied := map[string]bool{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if IsCredential(name) && len(value) >= leastCopied && !strings.HasSuffix(name, "_PASSWORD") {
			copied[value] = true
		}
	}
	rest = make([]string, 0, len(environ))
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case IsCredential(name), copied[value]:
			stripped = append(stripped, name)
			continue
		case isAddress(name) && HasPassword(name, value):
			stripped = append(stripped, name)
			kv = name + "=" + withoutUsers(value)
		}
		rest = append(rest, kv)
	}
	slices.Sort(stripped)
	return rest, slices.Compact(stripped)
}
