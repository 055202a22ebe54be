package vaulttest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
)

// Freezer passes bytes on to a server, whatever they mean, until its connections freeze: they stay open and nothing
// comes through them any more, as with a firewall that has forgotten them. It listens on a loopback port.
type Freezer struct {
	Addr string // as VAULT_ADDR wants it

	to    string
	conns atomic.Int64

	mu     sync.Mutex
	frozen chan struct{} // closed when what is open now has frozen
}

// NewFreezer starts one in front of addr, a URL.
func NewFreezer(t TB, addr string) *Freezer {
	t.Helper()
	u, err := url.Parse(addr)
	if err != nil {
		t.Fatalf("cannot parse the server's address: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("cannot start a freezer: %v", err)
	}
	f := &Freezer{to: u.Host, frozen: make(chan struct{})}
	u.Host = l.Addr().String()
	f.Addr = u.String()
	end := make(chan struct{})
	t.Cleanup(func() {
		close(end)
		_ = l.Close()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.conns.Add(1)
			f.mu.Lock()
			frozen := f.frozen
			f.mu.Unlock()
			go f.pass(c, frozen, end)
		}
	}()
	return f
}

// Freeze freezes every connection that is open. New ones pass.
func (f *Freezer) Freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.frozen)
	f.frozen = make(chan struct{})
}

// Conns returns how many connections were accepted.
func (f *Freezer) Conns() int { return int(f.conns.Load()) }

func (f *Freezer) pass(c net.Conn, frozen, end <-chan struct{}) {
	defer c.Close()
	up, err := net.Dial("tcp", f.to)
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{}, 2)
	relay := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			select {
			case <-frozen:
				return // what came is lost, and the peer is not told
			default:
			}
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				if err == io.EOF {
					done <- struct{}{}
				}
				return
			}
		}
	}
	go relay(up, c)
	go relay(c, up)
	select {
	case <-done:
	case <-frozen:
		<-end
	case <-end:
	}
}
