package vault

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Exposed says who beside the server can read what is sent: "anybody in between", or "the proxy http://proxy:3128
// (HTTP_PROXY)"; "" when nobody can. It goes by where the bytes go, not by the look of the address. TLS whose
// certificate is not verified is open to whoever stands in between. On this machine nobody does.
func (c *Client) Exposed() string {
	switch {
	case c.url.Scheme == "unix":
		return ""
	case c.url.Scheme == "https" && !c.unverified:
		return ""
	}
	if name := c.proxy(); name != "" {
		return name
	}
	if !c.bySRV && isLocal(c.url.Hostname()) {
		return ""
	}
	return "anybody in between"
}

// Unverified reports whether the server's certificate is not verified.
func (c *Client) Unverified() bool { return c.url.Scheme == "https" && c.unverified }

// isLocal reports whether a host of an address is this machine. The names are those that RFC 6761 (6.3) keeps for it,
// whatever DNS says; localDial sees to that.
func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return isLocalName(host) || ip != nil && ip.IsLoopback()
}

func isLocalName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// localDial connects the names of this machine with this machine, and asks nobody where they are.
func localDial(
	dial func(ctx context.Context, network, addr string) (net.Conn, error),
) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || !isLocalName(host) {
			return dial(ctx, network, addr)
		}
		conn, err := dial(ctx, network, net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			return conn, nil
		}
		if conn, err6 := dial(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return conn, nil
		}
		return nil, err
	}
}

// aroundProxy keeps what is for this machine from every proxy.
func aroundProxy(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if isLocal(r.URL.Hostname()) {
			return nil, nil
		}
		return proxy(r)
	}
}
