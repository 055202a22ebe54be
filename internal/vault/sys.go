package vault

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// SealStatus is Vault's own account of its seal. It takes no token, is not audited, and costs nothing.
type SealStatus struct {
	Type         string `json:"type"` // "shamir", or the name of what unseals automatically
	Initialized  bool   `json:"initialized"`
	Sealed       bool   `json:"sealed"`
	Threshold    int    `json:"t"`
	Shares       int    `json:"n"`
	Progress     int    `json:"progress"`
	Nonce        string `json:"nonce"`
	Version      string `json:"version"`
	Migration    bool   `json:"migration"`
	RecoverySeal bool   `json:"recovery_seal"`
	StorageType  string `json:"storage_type"`
	ClusterName  string `json:"cluster_name"`

	Date    time.Time     `json:"-"` // the server's clock when it answered
	Took    time.Duration `json:"-"`
	TLS     bool          `json:"-"`
	TLSName string        `json:"-"` // "TLS 1.3"
	Expires time.Time     `json:"-"` // of the server's certificate
}

// Seal asks for the state of the seal.
func (c *Client) Seal(ctx context.Context) (SealStatus, error) {
	start := time.Now()
	r := request{what: "cannot read Vault's state", path: "sys/seal-status", bare: true, token: &Text{}}
	a, err := c.do(ctx, r)
	if err != nil {
		return SealStatus{}, err
	}
	s, err := sealStatus(r, a)
	s.Took = time.Since(start)
	if a.tls != nil {
		s.TLS, s.TLSName = true, tlsVersion(a.tls.Version)
		if certs := a.tls.PeerCertificates; len(certs) > 0 {
			s.Expires = certs[0].NotAfter
		}
	}
	return s, err
}

func tlsVersion(v uint16) string {
	switch v {
	case 0x0303:
		return "TLS 1.2"
	case 0x0304:
		return "TLS 1.3"
	}
	return fmt.Sprintf("TLS %#04x", v)
}

func sealStatus(r request, a *Answer) (SealStatus, error) {
	var s SealStatus
	var has struct {
		Sealed *bool `json:"sealed"`
	}
	if a.raw.into(&has) != nil || has.Sealed == nil || a.raw.into(&s) != nil {
		return s, notVaults(r.what, "")
	}
	s.Date = a.Date
	return s, nil
}

// Unseal feeds one share. A share that Vault does not take is a fault.Value; at the threshold that may be because of an
// earlier one, and then the progress is lost.
func (c *Client) Unseal(ctx context.Context, share Text) (SealStatus, error) {
	r := request{what: "cannot unseal", method: http.MethodPut, path: "sys/unseal", bare: true, token: &Text{},
		body: func() any { return map[string]string{"key": share.Reveal()} }, quiet: true}
	return c.unsealing(ctx, r)
}

// ResetUnseal takes the shares back that were fed.
func (c *Client) ResetUnseal(ctx context.Context) (SealStatus, error) {
	r := request{what: "cannot reset the unsealing", method: http.MethodPut, path: "sys/unseal", bare: true,
		token: &Text{}, body: func() any { return map[string]bool{"reset": true} }, quiet: true}
	return c.unsealing(ctx, r)
}

func (c *Client) unsealing(ctx context.Context, r request) (SealStatus, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return SealStatus{}, err
	}
	if a.Status < 300 {
		return sealStatus(r, a)
	}
	words := r.serverWords(c.Secrets, a.Errors)
	e := &fault.Error{Kind: fault.Away, What: r.what, Why: words}
	switch {
	case a.Status == http.StatusBadRequest && strings.Contains(words, "not initialized"):
		e.Err = ErrUninitialized
	case a.Status == http.StatusBadRequest:
		e.Kind = fault.Value
	case words == "":
		e.Why = fmt.Sprintf("HTTP %d", a.Status)
	}
	return SealStatus{}, e
}

// ErrUninitialized is the Err of a failure to unseal a server that has nothing to unseal yet.
var ErrUninitialized = fmt.Errorf("not initialized")

// Leader is what a node knows of its cluster.
type Leader struct {
	HA      bool   `json:"ha_enabled"`
	Self    bool   `json:"is_self"`
	Address string `json:"leader_address"`
}

// Leader asks an unsealed node who leads.
func (c *Client) Leader(ctx context.Context) (Leader, error) {
	a, err := c.do(ctx, request{what: "cannot ask for the leader", path: "sys/leader", bare: true, token: &Text{}})
	var l Leader
	if err == nil && a.raw.into(&l) != nil {
		err = notVaults("cannot ask for the leader", "")
	}
	return l, err
}

// Enterprise reports whether the server is Vault Enterprise; known is false where it does not say (OpenBao, which has
// namespaces all the same).
func (c *Client) Enterprise(ctx context.Context) (enterprise, known bool) {
	a, err := c.do(ctx, request{what: "cannot ask for the health of Vault", path: "sys/health", bare: true,
		token: &Text{}, quiet: true})
	if err != nil {
		return false, false
	}
	var h struct {
		Initialized *bool `json:"initialized"` // a rate limit's answer lacks it
		Enterprise  *bool `json:"enterprise"`
	}
	if a.raw.into(&h) != nil || h.Initialized == nil || h.Enterprise == nil {
		return false, false
	}
	return *h.Enterprise, true
}
