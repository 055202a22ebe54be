// Package cloud finds the identities that machines of AWS, Google Cloud and Azure have by themselves, and makes of them what Vault's
// auth methods take as proof. It knows nothing of Vault's API.
package cloud

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
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
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 16}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(answer.Body, mostAnswer+1))
	switch {
	case err != nil:
		return 0, nil, err
	case len(body) > mostAnswer:
		return 0, nil, errTooLong
	}
	return answer.StatusCode, body, nil
}
