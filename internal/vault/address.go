package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// checkAddress accepts http://host, https://host and unix:///socket. vault/api sends a user name or password in the
// address as basic authentication, for a reverse proxy; it stays out of every text.
func checkAddress(address string) (*url.URL, error) {
	bad := func(why, hint string) error {
		return &fault.Error{Kind: fault.Usage, What: "cannot use the address of Vault", Why: why, Hint: hint}
	}
	switch {
	case quoted(address):
		return nil, bad("it is in quotes", "leave them out in VAULT_ADDR: only a shell removes them")
	case strings.HasSuffix(address, "\r"):
		return nil, bad("it ends in a carriage return",
			"the file that VAULT_ADDR was read from has Windows line endings: take them out")
	case strings.TrimSpace(address) != address:
		return nil, bad("there is a blank before or after it", "correct --address, VAULT_ADDR or VAULT_AGENT_ADDR")
	}
	u, err := url.Parse(address)
	if err != nil { // err quotes the address, which may hold a password
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot use the address of Vault", Why: "not a URL",
			Hint: `write it as --address http://127.0.0.1:8200 or VAULT_ADDR`}
	}
	if p := strings.TrimSuffix(u.Path, "/"); u.Scheme != "unix" && strings.HasSuffix(p, "/v1") {
		// Vault would look for the mount "v1" there, and deny it.
		return nil, &fault.Error{Kind: fault.Usage,
			What: fmt.Sprintf("cannot use %q as the address of Vault", u.Redacted()),
			Why:  "it ends in /v1", Hint: "leave /v1 out: every request begins with it anyway"}
	}
	if why := misformed(u); why != "" {
		what := "cannot use the address of Vault"
		shown := *u // the query may hold a token, and what stands before an @ a password
		shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
		if text := shown.String(); !strings.Contains(text, "@") {
			what = fmt.Sprintf("cannot use %q as the address of Vault", text)
		}
		return nil, &fault.Error{Kind: fault.Usage, What: what, Why: why,
			Hint: "correct --address, VAULT_ADDR or VAULT_AGENT_ADDR: http://HOST[:PORT], https://HOST[:PORT] or unix:///SOCKET"}
	}
	return u, nil
}

// misformed says what an address has too little or too much; "" for a good one.
func misformed(u *url.URL) string {
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix":
		return "not an http, https or unix URL"
	case u.Scheme == "unix" && u.Path == "":
		return "it names no socket"
	case u.Scheme != "unix" && u.Host == "":
		return "it names no host"
	case u.RawQuery != "" || u.Fragment != "":
		return "it has a query or a fragment"
	}
	return ""
}

func addHeaders(client *api.Client, text string) error {
	if text == "" {
		return nil
	}
	bad := func(why string) error {
		return &fault.Error{Kind: fault.Usage, What: "cannot use VAULT_HEADERS", Why: why,
			Hint: `write it as {"NAME": "VALUE"}`}
	}
	var headers map[string]string
	if err := json.Unmarshal([]byte(text), &headers); err != nil {
		return bad("not a JSON object of strings")
	}
	for name, value := range headers {
		if strings.HasPrefix(http.CanonicalHeaderKey(name), "X-Vault-") {
			return bad("headers that begin with X-Vault- are Vault's own")
		}
		if strings.ContainsAny(name+value, "\r\n") {
			return bad("a line break in a header")
		}
		client.AddHeader(name, value)
	}
	return nil
}
