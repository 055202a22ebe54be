package restartlock

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
)

const (
	// mostAnswer and mostFile are in bytes. A Lease with all its outcomes has a few thousand.
	mostAnswer = 1 << 20
	mostFile   = 1 << 20

	// keepIdle is how long a connection is kept that nobody uses. Thousands may wait for a place, and look at it every few seconds:
	// their server should not hold a connection for each.
	keepIdle = 3 * time.Second

	// dialLimit ends a connection that is being made and that nobody waits for any more. net/http goes on making it when the request
	// has ended, for the next one.
	dialLimit = 5 * time.Second
)

var errTooLong = errors.New("the answer is too long")

// secret is a credential. It cannot be printed: of a function, reflection finds the address of its code.
type secret struct{ held func() string }

func newSecret(s string) secret { return secret{func() string { return s }} }

func (s secret) reveal() string {
	if s.held == nil {
		return ""
	}
	return s.held()
}

// peer is the server of an engine.
type peer struct {
	name string   // of the lock: "kubernetes:shop/api"
	who  string   // "the API server of Kubernetes"
	ca   string   // names the CA that its certificate is verified with, for hints
	base *url.URL // scheme, host and what stands before each path

	// dial makes what the connections are made with, from the files as they are now.
	dial      func() (*http.Transport, error)
	transport *http.Transport
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// open reads the files. What is wrong with them is said at the start.
func (p *peer) open() error {
	t, err := p.dial()
	if err != nil {
		return err
	}
	// ctx is the limit of a request, with its connection, its handshake and its answer; no limit of the transport's own is shorter.
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = 1, 1, keepIdle
	t.TLSHandshakeTimeout = dialLimit
	t.MaxResponseHeaderBytes = 1 << 16
	t.DisableCompression = true
	// HTTP/1.1 is all that single requests need, and a release has no other in net/http.
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	p.transport = t
	return nil
}

// Close ends the connection that is kept.
func (p *peer) Close() {
	if p.transport != nil {
		p.transport.CloseIdleConnections()
	}
}

// ask sends one request. It follows no redirect: the answer of another host is nobody's word, and the request holds a credential. TLS
// that fails has sent nothing, so it is tried once more with the files as they are by now: CAs and client certificates are replaced.
func (p *peer) ask(ctx context.Context, what, method, path string, query url.Values, body []byte, sign func(http.Header)) (answer, error) {
	for again := false; ; again = true {
		a, err := p.once(ctx, method, path, query, body, sign)
		if err == nil {
			return a, nil
		}
		if again || !tlsFailed(err) || ctx.Err() != nil {
			return a, p.silent(what, err)
		}
		p.Close()
		if err := p.open(); err != nil {
			return a, err
		}
	}
}

func (p *peer) once(ctx context.Context, method, path string, query url.Values, body []byte, sign func(http.Header)) (answer, error) {
	u := *p.base
	u.Path += path
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("User-Agent", "vaultexec")
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	sign(r.Header)
	resp, err := p.transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case ctx.Err() != nil: // a server that sees the connection close may end its answer in the middle, in good order
		err = ctx.Err()
	case err == nil && len(b) > mostAnswer:
		err = errTooLong
	}
	return answer{resp.StatusCode, resp.Header, b}, err
}

//go:noinline // it is called in thirty places
func (p *peer) fault(k fault.Kind, what, why, hint string) *fault.Error {
	return &fault.Error{Kind: k, What: "cannot " + what + " (" + p.name + ")", Why: why, Hint: hint}
}

// unusable is a setting or a file that is wrong.
//
//go:noinline // as fault
func (p *peer) unusable(what, why, hint string) *fault.Error {
	return p.fault(fault.Usage, "use "+what, why, hint)
}

func tlsFailed(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify) || strings.Contains(err.Error(), "remote error: tls: ")
}

// silent judges a request without an answer. The text of err is not used: nobody has looked at what is in it.
func (p *peer) silent(what string, err error) error {
	var (
		cert   *tls.CertificateVerificationError
		name   x509.HostnameError
		record tls.RecordHeaderError
		op     *net.OpError
		dns    *net.DNSError
		errno  syscall.Errno
		slow   net.Error
	)
	host := p.base.Host
	f := p.fault(fault.Away, what, "no usable answer from "+host, "check that "+p.who+" runs, and that it can be reached from here")
	f.Err = err
	switch {
	case errors.Is(err, errTooLong):
		return p.foreign(what, "the answer is too long")
	case errors.As(err, &name):
		f.Kind, f.Why, f.Hint = fault.Address, "the certificate of "+host+" is for another name", "have it issued for this name, too"
	case errors.As(err, &cert):
		f.Kind, f.Why, f.Hint = fault.Address, "the certificate of "+host+" is not trusted", "compare it with "+p.ca
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		f.Kind, f.Why, f.Hint = fault.Address, host+" does not speak TLS", "check the address"
	case tlsFailed(err):
		f.Kind, f.Why, f.Hint = fault.Address, host+" refused the TLS connection", "it may want another client certificate"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		f.Why, f.Hint = "no connection to the proxy of HTTP_PROXY or HTTPS_PROXY", "check that it runs, or exempt the host: NO_PROXY="+host
	case errors.As(err, &dns):
		f.Why = "no address found for " + host
	case errors.Is(err, context.Canceled):
		f.Why = "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		f.Why = "no answer in time from " + host
	case errors.As(err, &errno):
		f.Why = errno.Error() + " (" + host + ")"
	}
	return f
}

// foreign is an answer that this server never gives. It is not printed: it may be anything.
//
//go:noinline // as fault
func (p *peer) foreign(what, why string) error {
	return p.fault(fault.Address, what, why+" ("+p.base.Host+")", "something else than "+p.who+" answers there: check the address")
}

// failed judges a status that has the same meaning at both servers.
func (p *peer) failed(what string, a answer) error {
	status := "HTTP " + strconv.Itoa(a.status)
	switch {
	case a.status >= 300 && a.status < 400:
		return p.foreign(what, status+", a redirect, which is not followed")
	case a.status == http.StatusTooManyRequests || a.status >= 500:
		f := p.fault(fault.Away, what, status+" from "+p.base.Host, "its own log says more")
		if s, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && s > 0 && s < 3600 {
			f.RetryAfter = time.Duration(s) * time.Second
		}
		return f
	}
	return p.foreign(what, status)
}

// readFile reads a file that decides about who is talked to, and as whom.
func (p *peer) readFile(path, hint string, allow []int) ([]byte, error) {
	f, err := trust.Open(path, allow)
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, mostFile+1))
		_ = f.Close()
	}
	switch {
	case err != nil:
		why := "it cannot be read"
		var errno syscall.Errno
		if errors.As(err, &errno) {
			why = errno.Error()
		} else if trust.Refused(err) {
			why = err.Error()
		}
		e := p.unusable(strconv.Quote(path), why, trust.Cure(err, hint))
		e.Err, e.Passing = err, errors.Is(err, os.ErrNotExist) // it may be about to be written
		return nil, e
	case len(b) > mostFile:
		return nil, p.unusable(strconv.Quote(path), "it is too long", hint)
	}
	return b, nil
}

// roots makes a pool of the certificates in a file.
func (p *peer) roots(pool *x509.CertPool, path, hint string, allow []int) error {
	b, err := p.readFile(path, hint, allow)
	if err == nil && !pool.AppendCertsFromPEM(b) {
		err = p.unusable(strconv.Quote(path), "no certificate in it", "a PEM file has lines that begin with -----BEGIN CERTIFICATE")
	}
	return err
}

// newIdentity is who holds a place: the host, and a number that is new in each process. A place that an earlier process of this host
// has left is another's.
func newIdentity() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails, says its documentation
	return host + "_" + hex.EncodeToString(b)
}

// added puts an outcome before those that there are. It replaces an older one of the same set: each set needs the room of one. What
// nobody can read any more is given up.
func added(old []byte, o Outcome) []byte {
	o.What = cut(o.What, mostWhat)
	list := slices.DeleteFunc(outcomes(old), func(p Outcome) bool { return p.Set == o.Set })
	list = append([]Outcome{o}, list...)
	if len(list) > MostOutcomes {
		list = list[:MostOutcomes]
	}
	b, _ := json.Marshal(list) // never fails
	return b
}

// outcomes reads a list of them. A list that somebody has spoiled is none: the next outcome replaces it.
func outcomes(b []byte) []Outcome {
	var list []Outcome
	if json.Unmarshal(b, &list) != nil {
		return nil
	}
	if len(list) > MostOutcomes {
		list = list[:MostOutcomes]
	}
	for i := range list { // anybody who may write there may have written anything
		list[i].By, list[i].What = cut(list[i].By, mostName), cut(list[i].What, mostWhat)
	}
	return list
}

// The longest name of a host or pod, and what of a list of versions is kept for people, in bytes.
const (
	mostName = 253
	mostWhat = 1000
	// What newIdentity adds to the name of a host.
	identityMore = 17
)

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// mostTries bounds how often an outcome is written anew because somebody else has written one meanwhile.
const mostTries = 50
