package vault_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// sinkOf is what an Agent's sink with wrap_ttl writes: the wrap info of sys/wrapping/wrap.
func sinkOf(t *testing.T, srv *vaulttest.Server, token string) string {
	t.Helper()
	body, _ := json.Marshal(map[string]string{"token": token})
	w := wrapped(t, srv, "sys/wrapping/wrap", string(body), "5m")
	return fmt.Sprintf(`{"token":%q,"accessor":"x","ttl":300,"creation_time":"2026-01-01T00:00:00Z","creation_path":"sys/wrapping/wrap","wrapped_accessor":""}`+"\n", w)
}

// A token file that is an Agent's sink in JSON: the token in it is used, never revoked, and an envelope that is used up is stale
// and no theft.
func TestTokenFileOfWrappingSink(t *testing.T) {
	r := newRole(t)
	token := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{"default"}})
	path := file(t, sinkOf(t, r.srv, token))
	s := vault.NewTokenSession(newClient(t, vault.Config{Address: r.srv.Addr}), vault.FileSource("--token-file", path))
	login(t, s)
	if s.Client.Token().Reveal() != token {
		t.Error("it is not the token in the envelope that is used")
	}
	refused(t, s.Relogin(t.Context(), s.Client.Token()), fault.BadToken, "used up", "read again")
	other := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{"default"}})
	rewrite(t, path, sinkOf(t, r.srv, other))
	if err := s.Relogin(t.Context(), s.Client.Token()); err != nil || s.Client.Token().Reveal() != other {
		t.Fatalf("a new envelope is not used: %v", err)
	}
	acc := accessor(t, r.srv, s.Client.Token())
	s.Revoke(t.Context())
	if !alive(t, r.srv, acc) {
		t.Error("the Agent's token was revoked")
	}
}

// What the Vault CLI prints with -format=json: a login, and a wrapping token that --token-file unwraps.
func TestTokenFileInJSON(t *testing.T) {
	r := newRole(t)
	token := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{"default"}})
	w := wrapped(t, r.srv, "auth/token/create", `{"policies":["default"]}`, "5m")
	for _, content := range []string{
		fmt.Sprintf(`{"auth":{"client_token":%q},"lease_id":""}`, token),
		fmt.Sprintf(`{"token":%q}`, token),
		fmt.Sprintf("{\n  \"wrap_info\": {\"token\": %q, \"ttl\": 300}\n}\n", w),
	} {
		s := vault.NewTokenSession(newClient(t, vault.Config{Address: r.srv.Addr}), vault.FileSource("--token-file", file(t, content)))
		login(t, s)
		if _, err := s.Client.LookupToken(t.Context()); err != nil {
			t.Errorf("the token of a file in JSON is not valid: %v", err)
		}
	}
}

// --wrapped-token-file takes JSON, too, and what a sink wraps is no better there for being JSON: a thief could write it.
func TestWrappedTokenInJSON(t *testing.T) {
	r := newRole(t)
	conf := func(content string) vault.LoginConfig {
		return vault.LoginConfig{Method: vault.AuthToken, WrappedToken: vault.Unwrapping(vault.FileSource("--wrapped-token-file", file(t, content)))}
	}
	w := wrapped(t, r.srv, "auth/token/create", `{"policies":["default"]}`, "5m")
	login(t, newSession(t, r.srv.Addr, conf(fmt.Sprintf(`{"token":%q,"wrapped_accessor":"x"}`, w))))
	sink := sinkOf(t, r.srv, r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{"default"}}))
	refused(t, newSession(t, r.srv.Addr, conf(sink)).Login(t.Context()), fault.Refused, "an Agent's sink with wrap_ttl", "--token-file", "intercepted")

	// a secret id
	info := fmt.Sprintf(`{"wrap_info":{"token":%q}}`, wrapped(t, r.srv, r.at()+"/secret-id", "{}", "5m"))
	c := r.conf()
	c.SecretID, c.WrappedSecretID = nil, vault.Unwrapping(vault.FileSource("--wrapped-secret-id-file", file(t, info)))
	login(t, newSession(t, r.srv.Addr, c))
}

// What is JSON and no token is called what it is, and where a wrapping token has no place that is said.
func TestCredentialInJSON(t *testing.T) {
	for content, words := range map[string]string{
		`{"curve25519_public_key":"a","nonce":"b","encrypted_payload":"c"}`: "dh_type",
		`{"data":{}}`:                     "JSON without a token",
		`{"token":"a b"}`:                 "a blank",
		`{"token":"hvs.x","ttl":300}`:     "--wrapped-secret-id-file",
		`{"wrap_info":{"token":"hvs.x"}}`: "the JSON of a wrapping token",
	} {
		_, err := vault.CheckCredential("--secret-id-file", content)
		refused(t, err, fault.Usage, words)
	}
	if id, err := vault.CheckCredential("--secret-id-file", "{no-json"); err != nil || id.Reveal() != "{no-json" {
		t.Errorf("a credential that only begins like JSON is refused: %v", err)
	}
}

// A pipe is read once, whatever is in it.
func TestWrappedTokenInJSONFromPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, _ = w.WriteString(`{"wrap_info":{"token":"hvs.wrapping"}}`)
	w.Close()
	source := vault.Unwrapping(vault.FileSource("--wrapped-token-file", filepath.Join("/dev/fd", fmt.Sprint(r.Fd()))))
	for range 2 {
		if got, err := source(t.Context()); err != nil || got.Reveal() != "hvs.wrapping" {
			t.Fatalf("got %v", err)
		}
	}
}
