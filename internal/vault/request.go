package vault

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// request is one call of Vault's HTTP API.
type request struct {
	what   string // what cannot be done when it fails: "cannot read agenticverz/app-prod"
	method string // GET when empty
	path   string // below /v1/
	query  url.Values
	body   func() any         // gives what is encoded as JSON; nil for no body. A function, so that nobody prints it
	token  *Text              // in place of the client's; an empty one sends none
	bare   bool               // without namespace: sys/health answers 400 to it on OpenBao
	merge  bool               // the body is a JSON merge patch
	login  bool               // refusals are those of a login
	auth   bool               // a login, or about the token itself: in the namespace of the login
	poll   bool               // one of many, sent again and again: waits for a connection only in its own time
	quiet  bool               // any status is fine, the caller looks at it
	denied func(*fault.Error) // gives a denial its hint, where nothing better is known; may be nil
	secret bool               // the answer holds a secret
	public bool               // the body does not: it was on the command line
	values bool               // every text in the body is a value, whatever its key
	least  time.Duration      // that it may take, however short the time of an attempt is: a person is asked

	sent *atomic.Bool // set when the request was on its way, so that Vault may have acted on it; may be nil
}

// Answer is a response of Vault that was understood.
type Answer struct {
	Status        int
	Date          time.Time // the server's clock; zero when it sent none
	LeaseID       string
	LeaseDuration int // seconds
	Renewable     bool
	Data          Value
	Auth          *Auth
	Wrapped       bool // the response was wrapped, Data is empty
	Warnings      []string
	Errors        []string
	raw           Value
	token         Text                 // that it was asked with
	tls           *tls.ConnectionState // nil without TLS
}

// Auth is the part of an answer that a login gives. It refuses to be printed.
type Auth struct {
	ClientToken   Text     `json:"client_token"`
	Accessor      Text     `json:"accessor"`
	Policies      []string `json:"policies"`
	LeaseDuration int      `json:"lease_duration"`
	Renewable     bool     `json:"renewable"`
	TokenType     string   `json:"token_type"`
	NumUses       int      `json:"num_uses"`
	MFA           Value    `json:"mfa_requirement"`
}

// Format prints "***" for every verb.
func (a Auth) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Hidden)) }

// do sends one request, once. The error is a *fault.Error. An Answer comes with the error too when Vault sent one.
func (c *Client) do(ctx context.Context, r request) (*Answer, error) {
	if !r.poll {
		release, err := c.pools.slot(ctx, c.timeout)
		if err != nil {
			return nil, c.transportError(r, err)
		}
		defer release()
	}
	way, begin := c.pools.current(), time.Now()
	ctx, cancel := context.WithTimeout(ctx, max(c.timeout, r.least))
	defer cancel()
	if r.token == nil { // what was sent, also when another login comes in between
		token := c.Token()
		r.token = &token
	}
	client := c.inNamespace(r)
	req, err := r.encode(client)
	if err != nil {
		return nil, err
	}
	if r.sent != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { r.sent.Store(true) }})
	}
	ctx = context.WithValue(ctx, limitKey{}, c.limit(r))
	c.noteUse(*r.token, r.path)
	// The lower-level call, because only it takes any method with a token and headers of the request's own;
	// Logical().Read would moreover turn "no handler for route" and an unfollowed redirect into "no such secret".
	resp, err := client.RawRequestWithContext(ctx, req) //lint:ignore SA1019 see above
	if resp == nil && tlsFailed(err) && c.freshTLS(ctx, way) {
		way = c.pools.current()
		resp, err = client.RawRequestWithContext(ctx, req) //lint:ignore SA1019 see above
	}
	if resp == nil {
		c.answered(0)
		return nil, c.broken(r, err, way, begin)
	}
	defer resp.Body.Close()
	c.answered(resp.StatusCode)
	c.pools.note()
	body, err := io.ReadAll(resp.Body)
	if errors.Is(err, errTooLong) {
		return nil, tooLong(r.what, c.limit(r))
	}
	if err != nil {
		return nil, c.broken(r, err, way, begin)
	}
	c.noteLength(r, len(body))
	a, err := c.understand(r, resp.Response, body)
	if a != nil {
		a.token = *r.token
	}
	if a != nil && a.LeaseID != "" && r.secret { // a lease that is renewed hangs on the token that made it
		c.noteLease(*r.token)
	}
	return a, err
}

// inNamespace is the client whose requests go to the namespace of this one.
func (c *Client) inNamespace(r request) *api.Client {
	switch {
	case r.bare:
		return c.bare
	case r.auth:
		return c.login
	}
	return c.api
}

// encode makes the request as vault/api sends it.
func (r request) encode(client *api.Client) (*api.Request, error) {
	req := client.NewRequest(cmp.Or(r.method, http.MethodGet), "/v1/"+r.path)
	for name, values := range r.query {
		req.Params[name] = values
	}
	req.ClientToken = r.token.Reveal()
	if r.merge {
		req.Headers.Set("Content-Type", "application/merge-patch+json")
	}
	if r.body != nil {
		if err := req.SetJSONBody(r.body()); err != nil {
			return nil, &fault.Error{Kind: fault.Defect, What: r.what, Why: "the request cannot be encoded"}
		}
	}
	return req, nil
}

// broken judges a request without an answer, and leaves connections behind that are dead or may be: over them nobody
// got an answer in all the time that the attempt had.
func (c *Client) broken(r request, err error, way *pool, begin time.Time) error {
	if time.Since(begin) >= c.timeout && c.pools.silent(begin) {
		c.pools.leave(way, nil)
	}
	return c.transportError(r, err)
}

// freshTLS takes in what has changed in the files of TLS, and reports whether further requests are made with other
// connections than those of way.
func (c *Client) freshTLS(ctx context.Context, way *pool) bool {
	if apply, yes := c.files.changed(ctx); yes {
		c.pools.leave(way, apply)
	}
	return c.pools.current() != way
}
