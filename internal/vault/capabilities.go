package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Capabilities asks what the token may do with API paths. It needs the default policy, or a rule for
// sys/capabilities-self, and costs one use of a use-limited token.
func (c *Client) Capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	r := request{what: "cannot ask for the token's capabilities", method: http.MethodPut, path: "sys/capabilities-self",
		body: func() any { return map[string][]string{"paths": paths} }}
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	var d map[string]json.RawMessage
	if a.Data.into(&d) != nil {
		return nil, notVaults(r.what, "")
	}
	caps := map[string][]string{}
	for _, p := range paths {
		var list []string
		if json.Unmarshal(d[p], &list) == nil {
			caps[p] = list
		}
	}
	return caps, nil
}

// Allows reports whether capabilities, as Vault lists them, include one.
func Allows(capabilities []string, want string) bool {
	return slices.Contains(capabilities, want) || slices.Contains(capabilities, "root")
}

// APIPath is the path of a secret in policies and requests.
func (e Engine) APIPath(p Path) string {
	p = p.within(e.Mount)
	switch {
	case e.KV == 2 && p.Folder: // what a list needs
		return e.Mount + "/metadata/" + p.Name
	case e.KV == 2:
		return e.Mount + "/data/" + p.Name
	}
	return e.Mount + "/" + p.Name
}

// MetadataPath is the path of a secret's versions; "" where there are none.
func (e Engine) MetadataPath(p Path) string {
	if e.KV != 2 || p.Folder {
		return ""
	}
	return e.Mount + "/metadata/" + p.within(e.Mount).Name
}

// ServerInfo is what a server tells about itself without a token.
type ServerInfo struct {
	Version    string
	Date       time.Time // its clock
	enterprise *bool     // since Vault 1.16; not on OpenBao
}

// Server asks the server for its version. It may be sealed or a standby.
func (c *Client) Server(ctx context.Context) (ServerInfo, error) {
	// sys/health answers 400 on OpenBao when a namespace comes with it, and every state of the server but one is an
	// error status.
	r := request{what: "cannot ask for the server's version", path: "sys/health", bare: true, quiet: true,
		token: &Text{}}
	a, err := c.do(ctx, r)
	if err != nil {
		return ServerInfo{}, err
	}
	var h struct {
		Version    string `json:"version"`
		Enterprise *bool  `json:"enterprise"`
	}
	if a.raw.into(&h) != nil || h.Version == "" {
		return ServerInfo{}, notVaults(r.what, "")
	}
	return ServerInfo{h.Version, a.Date, h.Enterprise}, nil
}

// IgnoresNamespaces reports whether the server is Vault's community edition, which answers requests for any namespace
// from the root one. OpenBao, whose versions begin with 2, has real namespaces.
func (s ServerInfo) IgnoresNamespaces() bool {
	if s.enterprise != nil {
		return !*s.enterprise
	}
	return strings.HasPrefix(s.Version, "1.") && !strings.Contains(s.Version, "+ent") &&
		!strings.Contains(s.Version, "+prem")
}
