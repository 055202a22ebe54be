package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is a source address and port that is vaultexec's own for as long as it is open: the kernel gives it to nobody
// else. Steered to the next command's socket, a connection from there asks that command alone. Without a group it
// reaches whoever accepts first, and proves nothing about the next command.
type Probe struct {
	fd   int // bound and never connected
	from netip.AddrPort
	to   string // address, or path
}

// NewProbe reserves a source for connections to a socket.
func NewProbe(s *Socket) (*Probe, error) {
	if s.Path != "" {
		return &Probe{fd: -1, to: s.Path}, nil
	}
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return nil, err
	}
	var at netip.AddrPort
	only6, _ := unix.GetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			dev, err := net.InterfaceByIndex(int(sa.ZoneId))
			if err != nil {
				return nil, err
			}
			addr = addr.WithZone(dev.Name)
		}
		at = netip.AddrPortFrom(addr, uint16(sa.Port))
	case *unix.SockaddrUnix:
		return &Probe{fd: -1, to: sa.Name}, nil
	default:
		return nil, unix.EAFNOSUPPORT
	}
	if at.Addr().IsUnspecified() { // every address: then the loopback
		loop := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if at.Addr().Is6() && only6 != 0 {
			loop = netip.IPv6Loopback()
		}
		at = netip.AddrPortFrom(loop, at.Port())
	}
	p := &Probe{to: at.String()}
	if sa, err = sockaddr(at.Addr(), 0); err != nil {
		return nil, err
	}
	if p.fd, err = openTCP(sa, false); err != nil {
		return nil, err
	}
	if err = unix.Bind(p.fd, sa); err == nil {
		sa, err = unix.Getsockname(p.fd)
	}
	if err != nil {
		unix.Close(p.fd)
		return nil, err
	}
	port := 0
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = sa.Port
	case *unix.SockaddrInet6:
		port = sa.Port
	}
	p.from = netip.AddrPortFrom(at.Addr(), uint16(port))
	return p, nil
}

// From is the source; the zero one for a unix socket.
func (p *Probe) From() netip.AddrPort { return p.from }

// Dial connects. One connection at a time: they have the same two ends. Its end is a reset, so that the next one need
// not wait.
func (p *Probe) Dial(ctx context.Context) (net.Conn, error) {
	if !p.from.IsValid() {
		return new(net.Dialer).DialContext(ctx, "unix", p.to)
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(p.from), Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}); err == nil {
			err = cerr
		}
		return err
	}}
	c, err := d.DialContext(ctx, "tcp", p.to)
	for errors.Is(err, unix.EADDRNOTAVAIL) && ctx.Err() == nil { // the one before is still being closed
		time.Sleep(time.Millisecond)
		c, err = d.DialContext(ctx, "tcp", p.to)
	}
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		_ = tcp.SetLinger(0)
	}
	return c, err
}

// Close gives the source back.
func (p *Probe) Close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}
