package cloud

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// source is somebody who gives tokens, as errors name it.
type source struct {
	what string // "cannot get a token from Google's metadata server"
	host string
	hint string // when it does not answer: what else to do
}

// fault is a failure of a source.
//
//go:noinline // it is called in thirty places
func (s *source) fault(k fault.Kind, why, hint string) *fault.Error {
	return &fault.Error{Kind: k, What: s.what, Why: why, Hint: hint}
}

// away is a source that gives no answer, or none of its own. It may be about to: an agent on the node, a network that comes up.
func (s *source) away(why string) *fault.Error {
	f := s.fault(fault.Away, why, s.hint)
	f.Passing = true
	return f
}

// silent judges a question without an answer. The text of err is not used: it holds the URL.
func (s *source) silent(err error) error {
	var (
		cert  *tls.CertificateVerificationError
		op    *net.OpError
		dns   *net.DNSError
		errno syscall.Errno
		slow  net.Error
	)
	f := s.away("no usable answer from " + s.host)
	f.Err = err
	switch {
	case errors.Is(err, errTooLong):
		f = s.wrong("the answer is longer than a token can be")
	case errors.As(err, &cert):
		f = s.fault(fault.Usage, "its certificate is not trusted ("+s.host+")", "name the CA of what looks into TLS on the way with SSL_CERT_FILE")
	case errors.As(err, &op) && op.Op == "proxyconnect":
		f.Why, f.Hint = "no connection to the proxy that HTTPS_PROXY names", "check that it runs, or exempt the host from it: NO_PROXY="+s.host
	case errors.As(err, &dns):
		f.Why = "no address found for " + s.host
	case errors.Is(err, context.Canceled):
		f.Why = "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		f.Why = "no answer in time from " + s.host
	case errors.As(err, &errno):
		f.Why = errno.Error() + " (" + s.host + ")"
	}
	return f
}

// wrong is an answer that this source never gives: something else answers in its place.
func (s *source) wrong(why string) *fault.Error {
	return s.fault(fault.Usage, fmt.Sprintf("%s (%s)", why, s.host), "something else answers in its place: "+s.hint)
}

// failed judges the status of an answer that has no token in it. May it pass, it is waited for.
func (s *source) failed(status int, says, hint string) error {
	why := fmt.Sprintf("HTTP %d%s (%s)", status, says, s.host)
	switch {
	case status >= 300 && status < 400:
		return s.wrong(fmt.Sprintf("HTTP %d, a redirect, which is not followed", status))
	case status == http.StatusTooManyRequests || status >= 500:
		return s.away(why)
	}
	return s.fault(fault.Usage, why, hint)
}
