package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// refusedTunnel is the answer of a proxy that made no connection to Vault.
type refusedTunnel struct{ status int }

// Error implements error.
func (r *refusedTunnel) Error() string { return fmt.Sprintf("the proxy answered %d", r.status) }

// tunnelAnswer keeps the status that a proxy answers CONNECT with; net/http keeps the words of it only.
func tunnelAnswer(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &refusedTunnel{resp.StatusCode}
}

// proxy names the HTTP proxy between here and Vault, and where it was named; "" when there is none.
func (c *Client) proxy() string {
	t := c.pools.current()
	if t.Proxy == nil || c.url.Scheme == "unix" {
		return ""
	}
	u, err := t.Proxy(&http.Request{URL: c.url})
	if err != nil || u == nil {
		return ""
	}
	from := c.proxyFrom
	if from == "" {
		from = proxyVariable(c.url.Scheme)
	}
	return fmt.Sprintf("the proxy %s (%s)", (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), from)
}

// proxyVariable is where net/http found the proxy for a scheme.
func proxyVariable(scheme string) string {
	name := strings.ToUpper(scheme) + "_PROXY"
	if os.Getenv(name) == "" {
		return strings.ToLower(name)
	}
	return name
}

// proxyTrouble judges a failure that is a proxy's, and reports whether it is one.
func (c *Client) proxyTrouble(e *fault.Error, err error) bool {
	var tunnel *refusedTunnel
	if errors.As(err, &tunnel) {
		c.proxyRefused(e, tunnel.status)
		return true
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "proxyconnect" {
		return false
	}
	e.Kind, e.Why, e.Hint = fault.Away, "no connection to "+c.proxy(),
		"check that it runs, or exempt Vault from it: NO_PROXY="+c.url.Hostname()
	return true
}

// proxyRefused judges the answer of a proxy.
func (c *Client) proxyRefused(e *fault.Error, status int) {
	name := c.proxy()
	e.Kind = fault.Address // it says the same to the same request again
	switch {
	case status == http.StatusProxyAuthRequired:
		e.Why, e.Hint = name+" wants a user name and a password, or does not take these",
			"put them into its URL: http://USER:PASSWORD@HOST:PORT"
	case status >= 500:
		e.Kind, e.Why, e.Hint = fault.Away, fmt.Sprintf("%s cannot reach Vault at %s (HTTP %d)", name, c.where, status),
			"check --address; the proxy's own log says more"
	case c.url.Scheme == "http": // over http the proxy's answers look like those of what is behind it
		e.Why, e.Hint = fmt.Sprintf("%s, or something behind it that is not Vault, refuses the request to %s (HTTP %d)",
			name, c.where, status),
			"the proxy's own log says which; to go around it: NO_PROXY="+c.url.Hostname()
	default:
		e.Why, e.Hint = fmt.Sprintf("%s does not let connections to %s through (HTTP %d)", name, c.where, status),
			"have it allowed there, or take the proxy out for Vault: NO_PROXY="+c.url.Hostname()
	}
}
