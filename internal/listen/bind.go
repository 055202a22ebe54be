package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Socket is a socket that is bound. It is close-on-exec.
type Socket struct {
	Spec
	fd   int
	addr unix.Sockaddr // nil for a unix socket
	file fileID        // of a unix socket
	mark int           // the queue's length that Listen has set last; 0 before

	adopted bool // somebody else has made it, and it is left as it is
}

// FD is its descriptor in this process; -1 once it is closed.
func (s *Socket) FD() int { return s.fd }

// lookupLimit bounds how long the address of a name is asked for.
const lookupLimit = 10 * time.Second

// Bind binds all addresses, or none and returns every reason why not, in the order of specs. Nobody can connect before
// Listen.
func Bind(ctx context.Context, specs []Spec) ([]*Socket, error) {
	var sockets []*Socket
	var faults []*fault.Error
	for _, spec := range specs {
		s, err := bind(ctx, spec)
		if err != nil {
			faults = append(faults, bindFault(spec, err))
			continue
		}
		sockets = append(sockets, s)
	}
	if len(faults) > 0 {
		for _, s := range sockets {
			s.Close()
		}
		return nil, fault.Join(faults)
	}
	return sockets, nil
}

func bind(ctx context.Context, spec Spec) (*Socket, error) {
	if spec.Path != "" {
		return bindUnix(spec)
	}
	if spec.Host == "" {
		s, err := bindTCP(spec, &unix.SockaddrInet6{Port: int(spec.Port)}, false)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // a machine without IPv6
			return bindTCP(spec, &unix.SockaddrInet4{Port: int(spec.Port)}, false)
		}
		return s, err
	}
	addr, err := resolve(ctx, spec.Host)
	if err != nil {
		return nil, err
	}
	sa, err := sockaddr(addr, spec.Port)
	if err != nil {
		return nil, err
	}
	return bindTCP(spec, sa, true)
}

// What bind finds wrong. The kernel's own errors are passed on as they are.
var (
	errNoHost   = errors.New("the name has no address")
	errNoZone   = errors.New("this machine has no such network interface")
	errServed   = errors.New("another process listens there")
	errNoSocket = errors.New("something is there that is not a socket")
	errOthers   = errors.New("there is a socket of another user")
)

// resolve asks for the address of a host, IPv4 first, as net.Listen does. For localhost nobody is asked.
func resolve(ctx context.Context, host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a, nil
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(all) == 0 {
		return netip.Addr{}, errNoHost
	}
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			return a, nil
		}
	}
	return all[0], nil
}

func sockaddr(a netip.Addr, port uint16) (unix.Sockaddr, error) {
	a4 := a.Unmap()
	if a4.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a4.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		dev, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, errNoZone
		}
		sa.ZoneId = uint32(dev.Index)
	}
	return sa, nil
}

// bindTCP binds without SO_REUSEPORT: with it, a second vaultexec of the same user would join in and take half of the
// connections, and nobody would be told. (SO_REUSEADDR is for what is left of old connections. On Linux it does not let
// anybody in where another process listens.)
func bindTCP(spec Spec, sa unix.Sockaddr, only6 bool) (*Socket, error) {
	fd, err := openTCP(sa, only6)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Socket{Spec: spec, fd: fd, addr: sa}, nil
}

// openTCP makes a socket for an address, with the options that have to be set before it is bound.
//
// Accepted connections inherit TCP_NODELAY. uvicorn and hypercorn take a descriptor that they are given for a unix
// socket, and would leave Nagle's algorithm on.
func openTCP(sa unix.Sockaddr, only6 bool) (int, error) {
	family := unix.AF_INET
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err := newSocket(family)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		v6only := 0
		if only6 {
			v6only = 1
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd, nil
}

// newSocket makes a stream socket that is close-on-exec from its first moment on: darwin has no SOCK_CLOEXEC.
func newSocket(family int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}

// Listen opens the socket, or sets the length of its queue anew, to as much as the kernel allows: a command may have
// asked for less, or have closed the socket for everybody with shutdown(2). It is harmless for those who listen on it.
func (s *Socket) Listen() error {
	if s.fd < 0 {
		return nil
	}
	mark := longestQueue()
	if err := unix.Listen(s.fd, mark); err != nil {
		return bindFault(s.Spec, err)
	}
	s.mark = mark
	return nil
}

// Listener accepts the socket's connections in this process. Closing it leaves the socket as it is.
func (s *Socket) Listener() (net.Listener, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, bindFault(s.Spec, err)
	}
	f := os.NewFile(uintptr(fd), s.String())
	defer f.Close()
	l, err := net.FileListener(f) // with a descriptor of its own
	if err != nil {
		return nil, bindFault(s.Spec, err)
	}
	return l, nil
}

// Close closes the socket here. The file of a unix socket is removed, unless somebody else has put another in its place.
// Whoever else has the descriptor listens on.
func (s *Socket) Close() {
	if s.fd < 0 || s.adopted {
		return
	}
	if s.Path != "" {
		s.removeFile() // while it is open: then its number is nobody else's
	}
	unix.Close(s.fd)
	s.fd = -1
}

// bindFault says why an address cannot be had, and who has it.
func bindFault(spec Spec, err error) *fault.Error {
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot listen on %s", spec), Why: reason(err), Err: err}
	switch {
	case errors.Is(err, unix.EADDRINUSE), errors.Is(err, errServed):
		e.Why = "the address is in use"
		if who := holder(spec); who != "" {
			e.Why += " by " + who
		}
		e.Hint = "end what listens there, or choose another address"
	case errors.Is(err, errNoHost):
		e.Hint = "check its spelling; :PORT listens on every address of this machine"
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, errNoZone):
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			e.Why = "this machine has no such address"
		}
		e.Hint = "only an address of this machine will do; :PORT listens on all of them"
	case spec.Path == "" && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)):
		e.Hint = "a low port needs root or CAP_NET_BIND_SERVICE: choose one from 1024 on, or let systemd hand the socket over"
	case errors.Is(err, unix.EAFNOSUPPORT):
		e.Hint = "this machine has no IPv6: write an IPv4 address, as in 127.0.0.1:8000"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		e.Hint = "its folder must exist; in a unit of systemd, RuntimeDirectory= makes one below /run"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		e.Hint = "vaultexec's user needs write permission for the folder, and for a socket that is there already"
	case errors.Is(err, errNoSocket), errors.Is(err, errOthers):
		e.Hint = "choose another path; only an earlier socket of the same user is replaced"
	}
	return e
}

// reason is the kernel's text without the names that Go puts before it.
func reason(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
