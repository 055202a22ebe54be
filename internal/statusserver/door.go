package statusserver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// tlsConn is the type that http.Server.TLSNextProto names.
type tlsConn = tls.Conn

const (
	mostConns = 64
	// grace is how long a connection may be idle while others wait.
	grace = time.Second
	// busyGrace is how long an answer may take then. The slowest is that of /livez in a loop that hangs. What takes longer
	// is not taken by who has asked, or is a body that was announced and does not come.
	busyGrace = turnTime + grace
	// acceptPause follows a failure to accept. Most are those of one connection, or of a shortage that passes (accept(2)).
	acceptPause = 100 * time.Millisecond
)

// roomFor is how many connections may be open with a limit of descriptors: at most a quarter of them. Commands are started
// and Vault is asked by the same process.
func roomFor(limit uint64) int { return int(max(min(mostConns, limit/4), 1)) }

func room() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return mostConns
	}
	return roomFor(uint64(r.Cur)) // signed on FreeBSD
}

// door lets so many connections in at a time: mostConns, if there are descriptors for them. A further one waits until one of
// them leaves, or has been idle for longer than grace, or has been answered for longer than busyGrace: that one is closed. So
// idle connections, or ones with half a request, delay a probe by a second, and do not fill the memory either.
type door struct {
	net.Listener
	most int
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
	since time.Time // when it came, when its answer was begun, or when it got that
}

func newDoor(l net.Listener) *door {
	return &door{Listener: l, most: room(), shut: make(chan struct{}), left: make(chan struct{}, 1), open: map[*conn]struct{}{}}
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
	c, err := d.accept()
	if err != nil {
		return nil, err
	}
	in := &conn{Conn: c, door: d, since: time.Now()}
	d.mu.Lock()
	d.open[in] = struct{}{}
	d.mu.Unlock()
	return in, nil
}

// accept waits for a connection. A failure is no end: http.Server would close the listener for most of them, and nobody
// would answer any more.
func (d *door) accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return c, err
		}
		select {
		case <-time.After(acceptPause):
		case <-d.shut:
			return nil, net.ErrClosed
		}
	}
}

// hasRoom reports whether one more may come in. If there is no room, it closes the connection that has been as it is for
// longest, once that is too long.
func (d *door) hasRoom() bool {
	d.mu.Lock()
	var idle *conn
	for c := range d.open {
		most := grace
		if c.busy {
			most = busyGrace
		}
		if time.Since(c.since) >= most && (idle == nil || c.since.Before(idle.since)) {
			idle = c
		}
	}
	room := len(d.open) < d.most
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
