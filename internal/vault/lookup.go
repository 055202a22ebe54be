package vault

import (
	"context"
	"net/http"
	"time"
)

// TokenInfo is what Vault says of a token. The token itself and its accessor are left out.
type TokenInfo struct {
	Type      string        // "service" or "batch"
	Name      string        // display name
	Policies  []string      // those of the identity included
	TTL       time.Duration // 0 for one that never ends
	Renewable bool
	Uses      int // requests that are left; 0 for any number
}

// LookupToken asks about the client's own token, which costs one use of a use-limited one. Without the default policy
// it is mostly denied.
func (c *Client) LookupToken(ctx context.Context) (TokenInfo, error) {
	d, err := c.lookupSelf(ctx, request{auth: true})
	if err != nil {
		return TokenInfo{}, err
	}
	return TokenInfo{d.Type, d.Name, d.policies(), d.life(), d.Renewable, d.Uses}, nil
}

// RevokeToken ends the client's own token, which somebody else obtained.
func (c *Client) RevokeToken(ctx context.Context) error {
	_, err := c.do(ctx, request{what: "cannot revoke the token", method: http.MethodPut, auth: true, path: "auth/token/revoke-self"})
	return err
}

// selfLookup is what auth/token/lookup-self says of a token.
type selfLookup struct {
	Type             string   `json:"type"`
	Name             string   `json:"display_name"`
	TokenPolicies    []string `json:"policies"`
	IdentityPolicies []string `json:"identity_policies"`
	TTL              int      `json:"ttl"`
	Renewable        bool     `json:"renewable"`
	Uses             int      `json:"num_uses"`
	Expires          *string  `json:"expire_time"` // null for a token that never ends
}

func (d selfLookup) policies() []string { return append(d.TokenPolicies, d.IdentityPolicies...) }

func (d selfLookup) life() time.Duration { return time.Duration(d.TTL) * time.Second }

// lookupSelf asks about the token of r.
func (c *Client) lookupSelf(ctx context.Context, r request) (selfLookup, error) {
	r.what, r.path = "cannot look the token up", "auth/token/lookup-self"
	a, err := c.do(ctx, r)
	if err != nil {
		return selfLookup{}, err
	}
	var d selfLookup
	if a.Data.into(&d) != nil || d.Type == "" {
		return selfLookup{}, notVaults(r.what, "")
	}
	return d, nil
}

// Info is what is known of the token.
type Info struct {
	Method    Method        `json:"method"`
	Mount     string        `json:"mount,omitempty"` // of the auth method
	Own       bool          `json:"own"`             // vaultexec obtained it and revokes it
	Known     bool          `json:"known"`           // what follows is known
	Type      string        `json:"type,omitempty"`  // service, batch
	Policies  []string      `json:"policies,omitempty"`
	Life      time.Duration `json:"-"` // left; 0 for a token that never ends
	Renewable bool          `json:"renewable"`
	Uses      int           `json:"uses,omitempty"` // requests it is good for; 0 for any number
}

// Info tells about the token. Only Vault knows of one that was handed in (auth/token/lookup-self, which costs a use of
// a use-limited token). Where the token is not allowed to ask, Known is false and the failure says why.
func (s *Session) Info(ctx context.Context) (Info, error) {
	g, _ := s.state()
	info := Info{Method: s.conf.Method, Mount: s.Mount(), Own: s.Own()}
	if g == nil || s.conf.Method == AuthAgent {
		return info, nil
	}
	if !g.known {
		found, err := s.lookup(ctx, g.token)
		if err != nil {
			return info, err
		}
		g = &found
	}
	info.Known, info.Type, info.Policies, info.Renewable, info.Uses = true, g.kind, g.policies, g.renewable, g.uses
	if g.life > 0 {
		info.Life = max(s.Client.Clock.Left(g.at.Add(g.life)), 0)
	}
	return info, nil
}

// lookup asks Vault about a token that was handed in.
func (s *Session) lookup(ctx context.Context, t Text) (grant, error) {
	at := time.Now()
	d, err := s.Client.lookupSelf(ctx, request{auth: true, token: &t})
	if err != nil {
		return grant{}, err
	}
	g := grant{
		token: t, policies: d.policies(), kind: d.Type, at: at, life: d.life(), known: true,
		renewable: d.Renewable && d.Type != "batch", uses: d.Uses, asked: true,
	}
	if d.Expires != nil && g.life == 0 {
		g.life = time.Second // less than one is left
	}
	return g, nil
}
