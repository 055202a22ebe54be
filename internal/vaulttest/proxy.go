package vaulttest

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// Proxy stands in front of a server, on a loopback port of its own, notes what passes and misbehaves on demand.
type Proxy struct {
	Addr string // as VAULT_ADDR wants it

	next  http.Handler
	srv   *http.Server
	stop  chan struct{} // closed at the end, so that black holes give up their connections
	conns atomic.Int64

	mu    sync.Mutex
	all   Behaviour
	rules []rule
	seen  []Request
}

// Behaviour answers one request, or hands it on to next, the real server.
type Behaviour func(p *Proxy, w http.ResponseWriter, r *http.Request, next http.Handler)

type rule struct {
	match func(*http.Request) bool
	do    Behaviour
}

// Request is what a proxy notes about a request. It holds no token: of the headers only their names, and the values of
// those that carry no secret.
type Request struct {
	At        time.Time
	Method    string // LIST is shown as it was sent: GET with list=true, or LIST
	Path      string // without /v1/
	Query     string
	Headers   []string // canonical names, sorted
	UserAgent string
	Namespace string
	Form      string // Content-Type
}

// Has tells whether the request carried a header.
func (r Request) Has(header string) bool {
	return slices.Contains(r.Headers, http.CanonicalHeaderKey(header))
}

// NewProxy starts a proxy in front of s that speaks plain HTTP.
func NewProxy(t TB, s *Server) *Proxy {
	t.Helper()
	return newProxy(t, s, nil)
}

// NewTLSProxy starts a proxy in front of s that speaks TLS (HTTP/1.1) with this certificate.
func NewTLSProxy(t TB, s *Server, cert *KeyPair) *Proxy {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatalf("cannot load the proxy's certificate: %v", err)
	}
	return newProxy(t, s, &pair)
}

func newProxy(t TB, s *Server, cert *tls.Certificate) *Proxy {
	t.Helper()
	target, err := url.Parse(s.Addr)
	if err != nil {
		t.Fatalf("cannot parse the server's address: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("cannot start a proxy: %v", err)
	}
	p := &Proxy{Addr: "http://" + l.Addr().String(), all: Pass, stop: make(chan struct{})}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport = s.client.Transport
	forward.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) {
		Reset(p, w, nil, nil) // a server that is away looks away through the proxy, too
	}
	p.next = forward
	p.srv = &http.Server{
		Handler:  http.HandlerFunc(p.serve),
		ErrorLog: log.New(io.Discard, "", 0), // handshakes that a test wants to fail
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				p.conns.Add(1)
			}
		},
		// HTTP/2 offers no connection to reset or truncate.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	if cert != nil {
		p.Addr = "https://" + l.Addr().String()
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12})
	}
	go func() { _ = p.srv.Serve(l) }()
	t.Cleanup(func() {
		close(p.stop)
		_ = p.srv.Close()
	})
	return p
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	// Read the body first: behaviours take the connection away, and net/http would wait for the rest of the request.
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	req := Request{
		At: time.Now(), Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/v1/"), Query: r.URL.RawQuery,
		UserAgent: r.UserAgent(), Namespace: r.Header.Get("X-Vault-Namespace"), Form: r.Header.Get("Content-Type"),
	}
	for name := range r.Header {
		req.Headers = append(req.Headers, name)
	}
	slices.Sort(req.Headers)

	p.mu.Lock()
	p.seen = append(p.seen, req)
	do := p.all
	for _, rule := range slices.Backward(p.rules) {
		if rule.match(r) {
			do = rule.do
			break
		}
	}
	p.mu.Unlock()
	do(p, w, r, p.next)
}

// Set makes b the behaviour for every request that no rule of On matches.
func (p *Proxy) Set(b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = b
}

// On makes b the behaviour for requests that match. The rule set last wins.
func (p *Proxy) On(match func(*http.Request) bool, b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, rule{match, b})
}

// Clear drops every rule and goes back to Pass. What was noted stays.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all, p.rules = Pass, nil
}

// Requests returns what has come in so far, in order.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// Forget drops what was noted.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
	p.conns.Store(0)
}

// Count returns how many of the requests noted satisfy match.
func (p *Proxy) Count(match func(Request) bool) int {
	n := 0
	for _, r := range p.Requests() {
		if match(r) {
			n++
		}
	}
	return n
}

// Conns returns how many connections were accepted.
func (p *Proxy) Conns() int { return int(p.conns.Load()) }

// WaitRequests waits until at least n requests have come in: the handshake of tests that act while a client is waiting.
func (p *Proxy) WaitRequests(t TB, n int) {
	t.Helper()
	wait.Until(t, 30*time.Second, strconv.Itoa(n)+" requests", func() bool { return len(p.Requests()) >= n })
}

// Under matches requests whose path, without /v1/, starts with prefix.
func Under(prefix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/"+prefix) }
}

// Pass hands the request on.
func Pass(_ *Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }

// Delay hands the request on after d.
func Delay(d time.Duration) Behaviour {
	return func(p *Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		select {
		case <-time.After(d):
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		case <-p.stop:
		}
	}
}

// Reset ends the connection with a TCP reset, without a word.
func Reset(_ *Proxy, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	if c := hijack(w); c != nil {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // closing then sends RST
		}
		_ = c.Close()
	}
}

// Truncate answers with the real server's headers and half of its body.
func Truncate(_ *Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	next.ServeHTTP(rec, r)
	for name, values := range rec.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(rec.body)))
	w.WriteHeader(rec.status)
	_, _ = w.Write(rec.body[:len(rec.body)/2])
	_ = http.NewResponseController(w).Flush() // what is only buffered would not be sent
	panic(http.ErrAbortHandler)               // net/http's own way to cut an answer short
}

// BlackHole takes the request and never answers.
func BlackHole(p *Proxy, _ http.ResponseWriter, r *http.Request, _ http.Handler) {
	select {
	case <-r.Context().Done(): // the client has given up
	case <-p.stop:
	}
	panic(http.ErrAbortHandler)
}

// Answer answers without the real server. Headers are given as pairs: name, value, name, value.
func Answer(status int, body string, headers ...string) Behaviour {
	return func(_ *Proxy, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Errors answers like Vault does: a status with {"errors": [text]}.
func Errors(status int, texts ...string) Behaviour {
	body, _ := rawJSON(map[string][]string{"errors": append([]string{}, texts...)})
	return Answer(status, string(body))
}

// HTML answers like a portal or an ingress does.
func HTML(status int) Behaviour {
	return Answer(status, "<html><body>not here</body></html>", "Content-Type", "text/html")
}

// Redirect sends the client elsewhere, as a standby does. to is an origin such as https://127.0.0.1:8200; the path
// stays.
func Redirect(status int, to string) Behaviour {
	return func(_ *Proxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", to+r.URL.RequestURI())
		w.WriteHeader(status)
	}
}

// First does b for the first n requests and then the other one.
func First(n int, b, then Behaviour) Behaviour {
	var count atomic.Int64
	return func(p *Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if count.Add(1) <= int64(n) {
			b(p, w, r, next)
			return
		}
		then(p, w, r, next)
	}
}

// hijack takes the TCP connection away from net/http, below TLS where there is one.
func hijack(w http.ResponseWriter) net.Conn {
	h, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	c, _, err := h.Hijack()
	if err != nil {
		return nil
	}
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(p []byte) (int, error) {
	r.body = append(r.body, p...)
	return len(p), nil
}
