// Package cloud finds the identities that machines of AWS, Google Cloud and Azure have by themselves, and makes of them what Vault's
// auth methods take as proof. It knows nothing of Vault's API.
package cloud

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// askTimeout bounds one question. A metadata service is on the same host, or a hop away; where there is none, its address leads
// nowhere, and nothing ever answers.
const askTimeout = 5 * time.Second

// mostAnswer is in bytes. A token has a few thousand.
const mostAnswer = 1 << 20

// errTooLong is an answer that no metadata service gives.
var errTooLong = errors.New("the answer is too long")

// ask sends one request and returns the status and body of the answer. It goes past any proxy and follows no redirect: the answer is a
// credential, and what it is asked for is on this machine's own link. A connection is not kept.
func ask(ctx context.Context, r *http.Request) (status int, body []byte, err error) {
	a, err := exchange(ctx, r, nil)
	return a.status, a.body, err
}

// answer is what came back. Its body is a credential.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// exchange is ask with all of the answer. proxy is for what is not on this machine's own link; it may be nil.
func exchange(ctx context.Context, r *http.Request, proxy func(*http.Request) (*url.URL, error)) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	transport := &http.Transport{Proxy: proxy, DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 16}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case err != nil:
		return answer{}, err
	case len(body) > mostAnswer:
		return answer{}, errTooLong
	}
	return answer{resp.StatusCode, resp.Header, body}, nil
}
