package environ

import (
	"slices"
	"testing"
)

func TestWithoutCredentials(t *testing.T) {
	const token = "hvs.CAESIJabcdefghijklmnop"
	given := []string{
		"VAULT_TOKEN=" + token, "COPY=" + token, "VAULTEXEC_PASSWORD=the-database-has-it-too", "DB_PASSWORD=the-database-has-it-too", "VAULT_ROLE_ID=short", "NAME=short",
		"VAULT_ADDR=https://u:pw@h:8200/x?y#z", "BAO_AGENT_ADDR=HTTP://u@[::1]:8100", "VAULT_PROXY_ADDR=u:pw@proxy:3128", "VAULTEXEC_ADDRESS=http://u:p w@h",
		"VAULT_HTTP_PROXY=http://a:1@h1,http://b:2@h2", "HTTPS_PROXY=http://u:pw@proxy:3128", "VAULT_PG_CONNECTION_URL=postgres://vault:pw@db/vault", "VAULT_ADDRS=x@y",
		"VAULT_SOCKET_ADDR=unix:///run/a@b.sock", "VAULT_CLUSTER_ADDR=https://H:8201/ü", "no equals sign", "EMPTY=",
	}
	want := []string{
		"DB_PASSWORD=the-database-has-it-too", "NAME=short",
		"VAULT_ADDR=https://h:8200/x?y#z", "BAO_AGENT_ADDR=HTTP://[::1]:8100", "VAULT_PROXY_ADDR=proxy:3128", "VAULTEXEC_ADDRESS=http://h",
		"VAULT_HTTP_PROXY=http://h1,http://h2", "HTTPS_PROXY=http://u:pw@proxy:3128", "VAULT_PG_CONNECTION_URL=postgres://vault:pw@db/vault", "VAULT_ADDRS=x@y",
		"VAULT_SOCKET_ADDR=unix:///run/a@b.sock", "VAULT_CLUSTER_ADDR=https://H:8201/ü", "no equals sign", "EMPTY=",
	}
	got, stripped := WithoutCredentials(given)
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if want := []string{"BAO_AGENT_ADDR", "COPY", "VAULTEXEC_ADDRESS", "VAULTEXEC_PASSWORD", "VAULT_ADDR", "VAULT_HTTP_PROXY", "VAULT_PROXY_ADDR", "VAULT_ROLE_ID", "VAULT_TOKEN"}; !slices.Equal(stripped, want) {
		t.Errorf("stripped %q, want %q", stripped, want)
	}
	if !HasPassword("HTTPS_PROXY", "user:pw@127.0.0.1:1") || HasPassword("HTTPS_PROXY", "127.0.0.1:1") || HasPassword("VAULT_PG_CONNECTION_URL", "postgres://a:b@c") {
		t.Error("HasPassword")
	}
}
