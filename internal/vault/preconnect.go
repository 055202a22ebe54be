package vault

import (
	"context"
	"net"
	"sync"
	"time"
)

// spares are connections that are made ahead, together with the one for the login. Everything is read over them after
// it. Otherwise all reads but one would wait a round trip for a connection first.
type spares struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	addr string // Vault's own; connections to a proxy are not made ahead

	mu    sync.Mutex
	want  int // to be made with the next connection
	ready []chan spare
}

type spare struct {
	conn net.Conn // nil when it could not be made
	at   time.Time
}

// spareLife bounds how long a spare is good for: a server may close a connection over which nothing comes (Vault after
// ten seconds), and the request on it would fail.
const spareLife = 2 * time.Second

// DialContext takes a spare connection, or makes one.
func (s *spares) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr != s.addr {
		return s.dial(ctx, network, addr)
	}
	if sp, ok := s.take(ctx, network, addr); ok && sp.conn != nil {
		if time.Since(sp.at) < spareLife {
			return sp.conn, nil
		}
		_ = sp.conn.Close()
	}
	return s.dial(ctx, network, addr)
}

// take begins what is wanted, or waits for one that was begun before.
func (s *spares) take(ctx context.Context, network, addr string) (spare, bool) {
	s.mu.Lock()
	if len(s.ready) == 0 {
		for range s.want {
			ch := make(chan spare, 1)
			s.ready = append(s.ready, ch)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), spareLife)
				defer cancel()
				conn, _ := s.dial(ctx, network, addr)
				ch <- spare{conn, time.Now()}
			}()
		}
		s.want = 0
		s.mu.Unlock()
		return spare{}, false
	}
	mine := s.ready[0]
	s.ready = s.ready[1:]
	s.mu.Unlock()
	select {
	case sp := <-mine:
		return sp, true
	case <-ctx.Done():
		go discard(mine)
		return spare{}, false
	}
}

func discard(ch <-chan spare) {
	if sp := <-ch; sp.conn != nil {
		_ = sp.conn.Close()
	}
}

// drop closes those that nobody took.
func (s *spares) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range s.ready {
		go discard(ch)
	}
	s.want, s.ready = 0, nil
}

// Expect tells that n requests will be made at the same time, after one that comes before them. Over TLS they share its
// connection.
func (c *Client) Expect(n int) {
	if c.spares == nil {
		return
	}
	c.spares.mu.Lock()
	defer c.spares.mu.Unlock()
	c.spares.want = max(min(n, maxConns)-1, 0)
}
