package vault

import (
	"context"
	"net/http"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Lease is the lease of a dynamic secret. The zero Lease stands for none. One without an ID is the life of what ends by
// itself.
type Lease struct {
	ID        string
	Duration  time.Duration
	Renewable bool
	Capped    bool // of a renewal: Vault says that no more is left of its longest life
	Token     Text // that made it, and with which it ends; empty where it is not known
}

// Ends reports whether there is an end at all.
func (l Lease) Ends() bool { return l.ID != "" || l.Duration > 0 }

// lifeOf is a number of seconds as Vault sends it. What is too long for a Duration, or negative, is as good as the
// longest, or none.
func lifeOf(seconds int) time.Duration {
	return time.Duration(min(max(seconds, 0), longestLife)) * time.Second
}

// RenewLease renews a lease of a dynamic secret and returns it with its new duration. That Vault does not know it any
// more is the cause fault.NoLease.
func (c *Client) RenewLease(ctx context.Context, l Lease) (Lease, error) {
	a, err := c.do(ctx, request{what: "cannot renew a lease", method: http.MethodPut, path: "sys/leases/renew",
		body: leaseBody(l), denied: needs("sys/leases/renew", "update")})
	if err != nil {
		return l, err
	}
	return Lease{ID: l.ID, Duration: lifeOf(a.LeaseDuration), Renewable: a.Renewable,
		Capped: a.capped(), Token: l.Token}, nil
}

// LookupLease finds out how much of its life a lease still has. That Vault does not know it is the cause fault.NoLease.
func (c *Client) LookupLease(ctx context.Context, l Lease) (time.Duration, error) {
	r := request{what: "cannot look a lease up", method: http.MethodPut, path: "sys/leases/lookup",
		body: leaseBody(l), denied: needs("sys/leases/lookup", "update"), poll: true}
	a, err := c.do(ctx, r)
	if err != nil {
		return 0, err
	}
	var d struct {
		TTL int `json:"ttl"`
	}
	if a.Data.into(&d) != nil {
		return 0, notVaults(r.what, "")
	}
	return lifeOf(d.TTL), nil
}

// RevokeLease ends a lease, and with it what it was granted for.
func (c *Client) RevokeLease(ctx context.Context, l Lease) error {
	_, err := c.do(ctx, request{what: "cannot revoke a lease", method: http.MethodPut, path: "sys/leases/revoke",
		body: leaseBody(l)})
	return err
}

func leaseBody(l Lease) func() any { return func() any { return map[string]string{"lease_id": l.ID} } }

// MayRevoke reports whether the token may revoke leases, as far as it may ask. It asks, because a denied request stands
// in the audit log.
func (c *Client) MayRevoke(ctx context.Context) (bool, error) {
	const path = "sys/leases/revoke"
	caps, err := c.Capabilities(ctx, []string{path})
	if fault.Is(err, fault.Denied) {
		return true, nil
	}
	return err == nil && Allows(caps[path], "update"), err
}

// Keys of a static role's answer. Its password is the same until Vault changes it; ttl counts down to that.
const (
	ttlKey      = "ttl"
	rotationKey = "last_vault_rotation"
)

// Rotates reports whether the secret is that of a static role, whose password Vault itself changes from time to time,
// and how long it is until then.
func (s *Secret) Rotates() (in time.Duration, yes bool) {
	if s.Engine.KV != 0 || s.Lease.Ends() {
		return 0, false
	}
	if _, rotated := s.Values[rotationKey]; !rotated {
		return 0, false
	}
	var seconds float64
	if s.Values[ttlKey].into(&seconds) != nil || seconds < 0 {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}

// Fleeting reports whether another read at any time gives something else, whatever is in Vault: a one-time password, and
// what is made from fields.
func (s *Secret) Fleeting() bool { return s.Path.Fields != "" || fleeting.hold(s.Engine, s.Path) }

// Steady reports whether the content is known to change only when somebody changes it.
func (s *Secret) Steady() bool {
	_, static := s.Rotates()
	return s.Engine.KV != 0 || static || harmless.hold(s.Engine, s.Path) && !s.Fleeting()
}

// NoLease reports whether a failure says that Vault does not know the lease.
func NoLease(err error) bool { return fault.Has(err, fault.NoLease) }
