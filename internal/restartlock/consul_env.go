package restartlock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// settings are what the variables say that Consul's own programs go by (github.com/hashicorp/consul/api, api.go).
type settings struct {
	token             secret // CONSUL_HTTP_TOKEN
	tokenFile         string
	basic             secret // CONSUL_HTTP_AUTH, encoded
	socket            string // path of a unix socket
	unverified        bool
	caFile, caFolder  string
	certFile, keyFile string
	serverName        string
	namespace         string
	partition         string
	allow             []int
	given, hasBasic   bool
}

func openConsul(s Spec, env func(string) string, allow []int) (Engine, error) {
	e := &consul{key: s.Name, identity: newIdentity(), ttl: sessionTTL, delay: lockDelay}
	e.peer.name = s.String()
	e.who, e.ca = "Consul", "CONSUL_CACERT"
	e.allow = allow
	if err := e.readEnv(env); err != nil {
		return nil, err
	}
	if _, err := e.credential(); err != nil {
		return nil, err
	}
	e.dial = e.newTransport
	return e, e.open()
}

// readEnv reads the variables. In two cases consul/api goes on with what it cannot read; here that ends with an error: it would take
// CONSUL_HTTP_SSL_VERIFY=yes for false.
func (e *consul) readEnv(env func(string) string) error {
	ssl, err := e.boolean(env, "CONSUL_HTTP_SSL", false)
	if err != nil {
		return err
	}
	verify, err := e.boolean(env, "CONSUL_HTTP_SSL_VERIFY", true)
	if err != nil {
		return err
	}
	e.unverified = !verify
	if err := e.setAddress(env("CONSUL_HTTP_ADDR"), ssl); err != nil {
		return err
	}
	e.tokenFile = env("CONSUL_HTTP_TOKEN_FILE")
	if t := env("CONSUL_HTTP_TOKEN"); t != "" {
		e.token, e.given = newSecret(t), true
	}
	if auth := env("CONSUL_HTTP_AUTH"); auth != "" {
		user, password, _ := strings.Cut(auth, ":")
		e.basic, e.hasBasic = newSecret(base64.StdEncoding.EncodeToString([]byte(user+":"+password))), true
	}
	e.caFile, e.caFolder = env("CONSUL_CACERT"), env("CONSUL_CAPATH")
	e.certFile, e.keyFile = env("CONSUL_CLIENT_CERT"), env("CONSUL_CLIENT_KEY")
	e.serverName = env("CONSUL_TLS_SERVER_NAME")
	if host, _, err := net.SplitHostPort(e.serverName); err == nil {
		e.serverName = host
	}
	e.namespace, e.partition = env("CONSUL_NAMESPACE"), env("CONSUL_PARTITION")
	if (e.certFile == "") != (e.keyFile == "") {
		return e.unusable("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY", "one of them is not set", "set both, or none")
	}
	return nil
}

func (e *consul) boolean(env func(string) string, name string, otherwise bool) (bool, error) {
	v := env(name)
	if v == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, e.unusable(name, "it is neither true nor false", "write true or false")
	}
	return b, nil
}

// setAddress reads CONSUL_HTTP_ADDR: host:port, http://, https:// with a path before Consul's own, unix://. With CONSUL_HTTP_SSL an
// address of http:// has TLS, too.
func (e *consul) setAddress(addr string, ssl bool) error {
	const name, hint = "CONSUL_HTTP_ADDR", "write HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH"
	if addr == "" {
		addr = "127.0.0.1:8500"
	}
	scheme, rest, found := strings.Cut(addr, "://")
	if !found {
		scheme, rest = "http", addr
	}
	prefix := ""
	switch scheme {
	case "http", "https":
		if ssl {
			scheme = "https"
		}
		if found {
			rest, prefix, _ = strings.Cut(rest, "/")
		}
	case "unix":
		if !filepath.IsAbs(rest) {
			return e.unusable(name, "a socket has an absolute path", hint)
		}
		e.socket, scheme, rest = rest, "http", "localhost"
	default:
		return e.unusable(name, "it has a scheme that Consul has not", hint)
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil || u.Host != rest || u.Hostname() == "" { // the error may quote a password
		return e.unusable(name, "it is no address", hint)
	}
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		u.Path = "/" + prefix
	}
	e.base = u
	return nil
}

// credential is the token to send. The file wins over the variable, and is read at each use: somebody may replace it. An empty one
// leaves the variable.
func (e *consul) credential() (secret, error) {
	if e.tokenFile == "" {
		return e.token, nil
	}
	b, err := e.readFile(e.tokenFile, "CONSUL_HTTP_TOKEN_FILE names it", e.allow)
	if err != nil {
		return secret{}, err
	}
	token := strings.TrimSpace(string(b))
	switch {
	case token == "":
		return e.token, nil
	case strings.ContainsAny(token, "\r\n"):
		return secret{}, e.unusable("CONSUL_HTTP_TOKEN_FILE", "it has more than one line", "keep the token alone in it")
	}
	return newSecret(token), nil
}

func (e *consul) hasToken() bool { return e.given || e.tokenFile != "" }

// sign puts the credentials into the header, never into the URL, which logs keep.
func (e *consul) sign(h http.Header, token secret) {
	if t := token.reveal(); t != "" {
		h.Set("X-Consul-Token", t)
	}
	if e.hasBasic {
		h.Set("Authorization", "Basic "+e.basic.reveal())
	}
}

// scoped adds the namespace and the partition of Consul Enterprise to a query.
func (e *consul) scoped(query url.Values) url.Values {
	if query == nil {
		query = url.Values{}
	}
	if e.namespace != "" {
		query.Set("ns", e.namespace)
	}
	if e.partition != "" {
		query.Set("partition", e.partition)
	}
	return query
}

// newTransport goes past no proxy that Consul's own programs would use.
func (e *consul) newTransport() (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: dialLimit}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext}
	if e.socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", e.socket)
		}
	}
	if e.base.Scheme != "https" {
		return t, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.unverified, ServerName: e.serverName}
	if e.certFile != "" {
		cert, err := e.readFile(e.certFile, "CONSUL_CLIENT_CERT names it", e.allow)
		if err != nil {
			return nil, err
		}
		key, err := e.readFile(e.keyFile, "CONSUL_CLIENT_KEY names it", e.allow)
		if err != nil {
			return nil, err
		}
		both, err := tls.X509KeyPair(cert, key)
		if err != nil { // which may quote what it cannot parse
			return nil, e.unusable("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY", "they are no certificate and its key", "give the two that were made together, as PEM")
		}
		conf.Certificates = []tls.Certificate{both}
	}
	pool, err := e.pool()
	if err != nil {
		return nil, err
	}
	conf.RootCAs = pool
	t.TLSClientConfig = conf
	return t, nil
}

// pool has the CAs: of CONSUL_CACERT, or of all files in CONSUL_CAPATH; nil for those of the system.
func (e *consul) pool() (*x509.CertPool, error) {
	switch pool := x509.NewCertPool(); {
	case e.caFile != "":
		return pool, e.roots(pool, e.caFile, "CONSUL_CACERT names it", e.allow)
	case e.caFolder != "":
		files := 0
		err := filepath.WalkDir(e.caFolder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if at, err := os.Stat(path); err == nil && at.IsDir() { // as Kubernetes links to the folder that has the files
				return nil
			}
			files++
			return e.roots(pool, path, "it is in the folder of CONSUL_CAPATH", e.allow)
		})
		switch {
		case fault.Is(err, fault.Usage):
			return nil, err
		case err != nil || files == 0:
			return nil, e.unusable("CONSUL_CAPATH", "it is no folder with certificates", "name a folder of PEM files")
		}
		return pool, nil
	}
	return nil, nil
}

// exposed says who beside Consul can read the token.
func (e *consul) exposed() string {
	switch {
	case !e.hasToken() && !e.hasBasic, e.socket != "", e.base.Scheme == "https" && !e.unverified:
		return ""
	}
	if r, err := http.NewRequest(http.MethodGet, e.base.String(), nil); err == nil {
		if proxy, err := http.ProxyFromEnvironment(r); err == nil && proxy != nil {
			return "the proxy " + proxy.Scheme + "://" + proxy.Host
		}
	}
	host := e.base.Hostname()
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() || host == "localhost" {
		return ""
	}
	return "anybody in between"
}

func isSession(path string) bool { return strings.HasPrefix(path, "/v1/session/") }

// isID: an answer becomes a part of a path.
func isID(s string) bool {
	return len(s) > 8 && len(s) < 64 && strings.Trim(s, "0123456789abcdefABCDEF-") == ""
}
