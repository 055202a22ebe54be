package statusserver

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// tlsConn is the type that http.Server.TLSNextProto names.
type tlsConn = tls.Conn

const (
	mostConns = 64
	// grace is how long a connection may be idle while others wait.
	grace = time.Second
)

// door lets mostConns connections in at a time. A further one waits until one of them leaves, or has been idle for longer
// than grace: that one is closed. So idle connections, or ones with half a request, delay a probe by a second at most, and
// do not fill the memory either.
type door struct {
	net.Listener
	once sync.Once
	shut chan struct{}
	left chan struct{} // a connection has

	mu   sync.Mutex
	open map[*conn]struct{}
}

// conn is a connection that was let in.
type conn struct {
	net.Conn
	door  *door
	busy  bool      // it is being answered
	since time.Time // when it came, or got its last answer
}

func newDoor(l net.Listener) *door {
	return &door{Listener: l, shut: make(chan struct{}), left: make(chan struct{}, 1), open: map[*conn]struct{}{}}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for !d.hasRoom() {
		wait := time.NewTimer(grace / 10)
		select {
		case <-d.left:
		case <-wait.C:
		case <-d.shut:
			wait.Stop()
			return nil, net.ErrClosed
		}
		wait.Stop()
	}
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	in := &conn{Conn: c, door: d, since: time.Now()}
	d.mu.Lock()
	d.open[in] = struct{}{}
	d.mu.Unlock()
	return in, nil
}

// hasRoom reports whether one more may come in. If there is no room, it closes the connection that has been idle for longest,
// once that is longer than grace.
func (d *door) hasRoom() bool {
	d.mu.Lock()
	var idle *conn
	for c := range d.open {
		if !c.busy && time.Since(c.since) >= grace && (idle == nil || c.since.Before(idle.since)) {
			idle = c
		}
	}
	room := len(d.open) < mostConns
	d.mu.Unlock()
	if !room && idle != nil {
		_ = idle.Close()
		return true
	}
	return room
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.shut) })
	return d.Listener.Close()
}

// Close lets the connection out.
func (c *conn) Close() error {
	c.door.mu.Lock()
	delete(c.door.open, c)
	c.door.mu.Unlock()
	select {
	case c.door.left <- struct{}{}:
	default:
	}
	return c.Conn.Close()
}

type connKey struct{}

// context is http.Server.ConnContext.
func (d *door) context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// occupied notes which connections are being answered.
func (d *door) occupied(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			c.note(true)
			defer c.note(false)
		}
		next.ServeHTTP(w, r)
	})
}

func (c *conn) note(busy bool) {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	c.busy, c.since = busy, time.Now()
}
