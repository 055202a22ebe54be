// Package vault talks to HashiCorp Vault and OpenBao: connection, tokens, KV engines, system calls. It knows nothing of
// the processes that get the secrets.
package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/fault"
)

// Config says where Vault is and how to reach it. It is complete: no environment variable is read beside it but Go's
// own HTTP_PROXY, HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.
type Config struct {
	Address       string        // http://, https:// or unix:// address
	Agent         bool          // the address is that of a Vault Agent or Proxy
	Namespace     string        // sent with every request but those for the health of the server
	AuthNamespace string        // of the login and of the token itself, in place of Namespace; RootNamespace for none
	CACert        string        // PEM file
	CACertBytes   string        // PEM itself
	CAPath        string        // folder of PEM files
	ClientCert    string        // PEM file
	ClientKey     string        // PEM file
	TLSServerName string        // name to verify in place of the address's host
	AllowOwner    []int         // users whose files count as one's own (internal/trust)
	SkipVerify    bool          // do not verify the server's certificate
	SRVLookup     bool          // look the address up as a DNS SRV record when it has no port
	ProxyAddress  Text          // HTTP proxy, in place of HTTP_PROXY and HTTPS_PROXY
	ProxyFrom     string        // where ProxyAddress was named, for texts
	Headers       Text          // JSON object of additional headers
	Timeout       time.Duration // of one request, connecting included; 0 means 10 s
	UserAgent     string
	Secrets       *Secrets             // what is secret in this run; it is added to
	Skipped       func(files []string) // called with the files in CAPath that hold no certificate; may be nil

	// TestOnlyDial connects in place of the network.
	TestOnlyDial func(ctx context.Context, network, address string) (net.Conn, error)
	// TestOnlyClock takes the place of the machine's.
	TestOnlyClock *clock.Clock
}

// RootNamespace names the namespace that is named by no header. No other can have its name.
const RootNamespace = "root"

// DefaultAddress is where the Vault CLI looks, too.
const DefaultAddress = api.DefaultAddress

// maxConns bounds the connections over which plain HTTP requests are spread. All of them stay open between two rounds
// of polling; net/http's own default would dial most of them anew each time.
const maxConns = 32

// defaultTimeout is the time of one attempt where none is given.
const defaultTimeout = 10 * time.Second

// usesSRV reports whether vault/api takes the host of an address for the name of a service (SRV): only without a port.
func (cfg Config) usesSRV(u *url.URL) bool { return cfg.SRVLookup && u.Port() == "" }

// Client is a connection to one Vault. It is safe for use by several goroutines.
type Client struct {
	Clock   *clock.Clock // by which tokens and leases end
	Secrets *Secrets     // what no text may hold

	api     *api.Client
	bare    *api.Client // the same without the namespace
	login   *api.Client // the same in the namespace of the login
	pools   *pools
	files   *tlsFiles
	spares  *spares // nil but with plain HTTP to a host
	timeout time.Duration
	url     *url.URL

	unverified bool // the server's certificate is not looked at
	bySRV      bool // the host's name is looked up as a service (SRV), and the host is what DNS says

	proxyFrom string // for texts; "" when net/http itself found the proxy

	where string // scheme://host for texts; never with a user name or password
	agent bool

	mu     sync.Mutex
	token  Text
	uses   int  // requests made with token, as Vault counts them
	leased bool // a lease was made with token and ends with it

	mounts mountCache

	running atomic.Bool     // a command runs
	answers [6]atomic.Int64 // of Vault, by the first digit of the status; 0 for requests without an answer
	longest atomic.Int64    // of the secrets that were read before, in bytes of their answers
}

// New makes a client. Every VAULT_ and BAO_ variable must have been unset before: vault/api reads them again by itself,
// and some of them (VAULT_AGENT_ADDR, VAULT_WRAP_TTL, VAULT_TOKEN) would win over what cfg says.
func New(cfg Config) (*Client, error) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); IsClientVariable(name) {
			return nil, &fault.Error{Kind: fault.Defect, What: "cannot set up the connection",
				Why: name + " is still set"}
		}
	}
	u, err := checkAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	files, tlsConfig, err := newTLSFiles(cfg)
	if err != nil {
		return nil, err
	}
	transport, err := cfg.transport(tlsConfig, u.Scheme == "https")
	if err != nil {
		return nil, err
	}
	httpClient := &http.Client{
		Transport:     transport, // vault/api has it dial where a unix:// address leads
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client, err := cfg.apiClient(httpClient)
	if err != nil {
		return nil, err
	}
	ways := newPools(transport, u.Scheme == "https")
	httpClient.Transport = ways
	c := &Client{
		Clock: clock.Machine, Secrets: cfg.noteSecrets(), api: client, bare: client.WithNamespace(""), login: client,
		pools: ways, files: files, url: u, where: u.Scheme + "://" + u.Host + strings.TrimRight(u.Path, "/"), proxyFrom: cfg.ProxyFrom,
		unverified: cfg.SkipVerify, bySRV: cfg.usesSRV(u), timeout: cfg.Timeout, agent: cfg.Agent,
	}
	if cfg.TestOnlyClock != nil {
		c.Clock = cfg.TestOnlyClock
	}
	switch cfg.AuthNamespace {
	case "":
	case RootNamespace:
		c.login = c.bare
	default:
		c.login = client.WithNamespace(cfg.AuthNamespace)
	}
	if u.Scheme == "http" {
		c.preconnect(transport)
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	return c, nil
}

// IsClientVariable reports whether vault/api, the Vault CLI or OpenBao's reads a variable of this name.
func IsClientVariable(name string) bool {
	return strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_")
}

// transport makes the first pool of connections.
func (cfg Config) transport(tlsConfig *tls.Config, https bool) (*http.Transport, error) {
	transport := newTransport(https)
	if transport.TLSClientConfig = tlsConfig; https {
		tlsConfig.NextProtos = offered
	}
	transport.OnProxyConnectResponse = tunnelAnswer
	if !cfg.ProxyAddress.Empty() {
		proxy, err := url.Parse(cfg.ProxyAddress.Reveal())
		if err != nil || proxy.Host == "" {
			return nil, &fault.Error{Kind: fault.Usage, What: "cannot use " + cfg.ProxyFrom, Why: "not a URL",
				Hint: "write it as http://proxy:3128"}
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	transport.Proxy = aroundProxy(transport.Proxy)
	transport.DialContext = localDial(transport.DialContext)
	if cfg.TestOnlyDial != nil {
		transport.DialContext = cfg.TestOnlyDial
	}
	return transport, nil
}

// apiClient makes the client of vault/api, with nothing of its own: no environment, no redirects, no retries, no token.
func (cfg Config) apiClient(httpClient *http.Client) (*api.Client, error) {
	conf := &api.Config{
		Address:    cfg.Address,
		HttpClient: httpClient,
		SRVLookup:  cfg.SRVLookup,
		// vault/api would send the token to any host that a redirect names.
		DisableRedirects: true,
		// Its retries lie below ours: up to 4.5 s before the first error shows.
		MaxRetries: 0,
		// Each attempt has a context of its own.
		Timeout: 0,
	}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot set up the connection",
			Why: "the address is not valid", Hint: "correct --address, VAULT_ADDR or VAULT_AGENT_ADDR", Err: err}
	}
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	client.ClearToken()
	client.AddHeader("User-Agent", cfg.UserAgent)
	if err := addHeaders(client, cfg.Headers.Reveal()); err != nil {
		return nil, err
	}
	if cfg.Namespace != "" {
		client.SetNamespace(cfg.Namespace)
	}
	return client, nil
}

// noteSecrets takes down what is secret in the configuration, in the list of the run where there is one.
func (cfg Config) noteSecrets() *Secrets {
	secrets := cfg.Secrets
	if secrets == nil {
		secrets = &Secrets{}
	}
	secrets.AddAddress(cfg.Address)
	secrets.AddAddress(cfg.ProxyAddress.Reveal())
	secrets.AddHeaders(cfg.Headers.Reveal())
	return secrets
}

// preconnect lets connections be made ahead. Over TLS all requests share one.
func (c *Client) preconnect(transport *http.Transport) {
	port := c.url.Port()
	if port == "" {
		port = "80"
	}
	c.spares = &spares{dial: transport.DialContext, addr: net.JoinHostPort(c.url.Hostname(), port)}
	transport.DialContext = c.spares.DialContext
	c.pools.dead = c.spares.drop
}

// newTransport makes a transport. The HTTP/2 of one for https is that of vault/api, by golang.org/x/net: a release leaves
// out the copy that net/http has of it (the build tag nethttpomithttp2), which takes 0.5 MB. From Go 1.27 on the two are
// one.
func newTransport(https bool) *http.Transport {
	t := &http.Transport{}
	if https {
		if ready, ok := api.DefaultConfig().HttpClient.Transport.(*http.Transport); ok {
			t = ready
		}
		t.ForceAttemptHTTP2 = true
	}
	t.TLSHandshakeTimeout = 0 // each attempt has a limit
	t.Proxy = http.ProxyFromEnvironment
	t.DialContext = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	t.MaxConnsPerHost = maxConns
	// The headers of HTTP/2 are bounded by it, too.
	t.MaxResponseHeaderBytes = maxHeader
	t.MaxIdleConns = maxConns
	t.MaxIdleConnsPerHost = maxConns
	t.IdleConnTimeout = 90 * time.Second
	t.ExpectContinueTimeout = time.Second
	return t
}

// another makes a transport like this one, with no connection yet.
func another(old *http.Transport, https bool) *http.Transport {
	t := newTransport(https)
	t.Proxy, t.DialContext, t.OnProxyConnectResponse = old.Proxy, old.DialContext, old.OnProxyConnectResponse
	t.TLSClientConfig = old.TLSClientConfig.Clone()
	return t
}

// offered are the protocols of a connection for https.
var offered = []string{"h2", "http/1.1"}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Errno returns the bare cause of a file error: "permission denied" in place of "open /x: permission denied".
func Errno(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Where is the server's address for texts, without user name and password.
func (c *Client) Where() string { return c.where }

// Namespace is that of the requests, "" for none.
func (c *Client) Namespace() string { return c.api.Namespace() }

// Agent reports whether a Vault Agent or Proxy in front adds the token.
func (c *Client) Agent() bool { return c.agent }

// SetToken sets the token for all requests from now on.
func (c *Client) SetToken(t Text) {
	c.Secrets.Add(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.token.Equal(t) {
		c.token, c.uses, c.leased = t, 0, false
	}
}

// tokenUse tells how many requests were made with the token, and whether a lease hangs on it.
func (c *Client) tokenUse() (uses int, leased bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uses, c.leased
}

// noteUse counts a request made with t. Denied ones count for Vault, too; only the question for mounts does not.
func (c *Client) noteUse(t Text, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.Equal(c.token) && !strings.HasPrefix(path, "sys/internal/ui/mounts") {
		c.uses++
	}
}

func (c *Client) noteLease(t Text) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leased = c.leased || t.Equal(c.token)
}

// Token returns the token in use.
func (c *Client) Token() Text {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

// CloseIdle closes the connections that carry no request.
func (c *Client) CloseIdle() {
	c.pools.current().CloseIdleConnections()
	if c.spares != nil {
		c.spares.drop()
	}
}

// Slim lets go of what vault/api makes before main and nobody here asks for: the patterns of its SudoPaths, 0.3 MB. It is
// for a process that stays.
func Slim() { clear(api.SudoPaths()) }
