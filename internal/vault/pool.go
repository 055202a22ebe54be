package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// pools carries the requests over one pool of connections at a time. It leaves a pool that has gone silent, or whose
// certificates have changed, for a fresh one. What is under way in the old pool may end there; no further request
// begins in it.
//
// A connection that dies in silence (the peer's machine is gone, a firewall dropped it) is found out by an attempt that
// nobody answers. Over HTTP/1.1 net/http then closes it, but its neighbours are dead as well; over HTTP/2 it would use
// the one connection for a quarter of an hour on, until the kernel gives up. HTTP/2 pings would notice it some seconds
// earlier, and wake an idle process every few seconds as long as the connection stands
// (http.HTTP2Config.SendPingTimeout asks whether frames come, not whether anybody waits for one).
type pools struct {
	https bool
	dead  func() // called when a pool is given up; for the connections that were made ahead

	mu  sync.Mutex
	now *pool

	heard atomic.Int64  // when an answer last came, in nanoseconds since born
	born  time.Time     // so that heard is of the monotonic clock
	slots chan struct{} // one for each request under way, as long as a connection carries one at a time
	wide  chan struct{} // closed when a connection was found to carry many (HTTP/2): nobody waits for a slot any more
	once  sync.Once
}

// pool is one of the transports.
type pool struct {
	*http.Transport
	lead  sync.Once
	first chan struct{} // closed when the first connection stands, or could not be made
}

func newPools(t *http.Transport, https bool) *pools {
	return &pools{
		https: https, dead: func() {}, now: &pool{Transport: t, first: make(chan struct{})}, born: time.Now(),
		slots: make(chan struct{}, maxConns), wide: make(chan struct{}),
	}
}

func (p *pools) current() *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// leave makes further requests use fresh connections, unless somebody else has done so since old was current. change
// may change the new transport before it is used.
func (p *pools) leave(old *pool, change func(*http.Transport)) {
	p.mu.Lock()
	if p.now == old {
		fresh := another(old.Transport, p.https)
		if change != nil {
			change(fresh)
		}
		p.now = &pool{Transport: fresh, first: make(chan struct{})}
	}
	p.mu.Unlock()
	old.CloseIdleConnections()
	p.dead()
}

// note tells that an answer came.
func (p *pools) note() { p.heard.Store(int64(time.Since(p.born))) }

// silent reports whether no answer came to anybody since then.
func (p *pools) silent(since time.Time) bool {
	return p.heard.Load() < int64(since.Sub(p.born))
}

// errNoSlot is the failure of a request that found every connection busy, and none of them answering.
var errNoSlot = errors.New("every connection is busy and none answers")

// slot waits until a connection may be free, so that the wait does not count as the request's own time. It gives up
// when no answer at all came for as long as limit. The function that it returns ends the use.
func (p *pools) slot(ctx context.Context, limit time.Duration) (release func(), err error) {
	select {
	case <-p.wide:
		return func() {}, nil
	default:
	}
	release = func() { <-p.slots }
	select {
	case p.slots <- struct{}{}:
		return release, nil
	default:
	}
	for {
		begin := time.Now()
		t := time.NewTimer(limit)
		select {
		case p.slots <- struct{}{}:
			t.Stop()
			return release, nil
		case <-p.wide:
			t.Stop()
			return func() {}, nil
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
			if p.silent(begin) {
				return nil, errNoSlot
			}
		}
	}
}

// RoundTrip implements http.RoundTripper. Over https the first request of a pool goes ahead alone until its connection
// stands, so that all others share it over HTTP/2 (or dial with a session ticket) in place of one TLS handshake each.
// Nobody waits longer than for a connection of its own.
//
// What can be read of an answer is bounded.
func (p *pools) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.roundTrip(req)
	if err == nil {
		bound(resp)
	}
	return resp, err
}

func (p *pools) roundTrip(req *http.Request) (*http.Response, error) {
	t := p.current()
	if !p.https {
		return t.RoundTrip(req)
	}
	leader := false
	t.lead.Do(func() { leader = true })
	if leader {
		release := sync.OnceFunc(func() { close(t.first) })
		defer release()
		trace := &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) {
				if c, ok := info.Conn.(*tls.Conn); ok && c.ConnectionState().NegotiatedProtocol == "h2" {
					p.once.Do(func() { close(p.wide) })
				}
			},
			// WroteHeaders and not GotConn: net/http hands an HTTP/2 connection out once before it offers it to others.
			WroteHeaders: func() { release() },
		}
		return t.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	}
	select {
	case <-t.first:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return t.RoundTrip(req)
}
