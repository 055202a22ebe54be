package listen

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Group is one address with a socket for each command. The next command gets a socket of its own beside the one that
// serves, and a program in the kernel decides which of the two a new connection goes to:
//
//	Add         the next command's socket is there, and nothing reaches it
//	SteerProbe  only connections from one source address and port reach it: a probe asks the next command alone
//	SteerAll    everything new reaches it, and nothing new the old one
//	Divert      the same at once, before the next command is there: what is new waits for it
//	Drained     nothing waits for the old command any more, which may be told to stop
//	Retire      the old socket is closed
//
// There are never more than two. Where it cannot be had (Shared says why), both commands share one socket: Add returns
// the one that there is, and nothing can be steered. A Group is for one goroutine.
type Group struct {
	members  []*Socket // in the kernel's order
	current  *Socket   // who gets what is new
	shared   string    // why there is one socket for all; "" for a group
	passing  bool      // the next command may have one of its own all the same: the machine was too busy to find out
	halfOpen []string  // handshakes of the socket that was current before, which were under way when it was left
	requests []string  // connections whose requests were under way then, or, where it diverted, when its queue was empty
	left     time.Time // when that was
	diverted bool      // nobody accepts connections of the current socket yet
	noted    bool      // requests is that list
	waited   int       // how many waited when Divert looked last
	taken    int       // how many of these the command has accepted at least
}

var (
	errTwo     = errors.New("there are two sockets already")
	errShared  = errors.New("the socket is shared")
	errUnknown = errors.New("the socket is not in the group")

	errNotListening = errors.New("nobody can connect to the socket")
)

// NewGroup makes a group of a socket that was bound and is not listened on yet.
func NewGroup(s *Socket) *Group {
	return &Group{members: []*Socket{s}, current: s, shared: cannotGroup(s)}
}

// Adopt makes a socket of a descriptor that listens already: of one that systemd has handed over. It stays whoever's it
// is. Others may be in a group with it, so that its group is always shared.
func Adopt(name string, fd int) (*Socket, error) {
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, err
	}
	if accepts == 0 {
		return nil, errNotListening
	}
	s := &Socket{Spec: Spec{Name: name}, fd: fd, adopted: true}
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		s.Host, s.Port = netip.AddrFrom4(sa.Addr).String(), uint16(sa.Port)
	case *unix.SockaddrInet6:
		s.Host, s.Port = netip.AddrFrom16(sa.Addr).String(), uint16(sa.Port)
	case *unix.SockaddrUnix:
		s.Path = sa.Name
	}
	return s, err
}

// Shared says why all commands share one socket; "" where each gets its own.
func (g *Group) Shared() string { return g.shared }

// Current is the socket that new connections go to.
func (g *Group) Current() *Socket { return g.current }

// Listen opens the first socket.
func (g *Group) Listen() error {
	if g.shared == "" {
		if err := g.begin(); err != nil {
			g.share(err)
		}
	}
	if g.current.adopted {
		return nil
	}
	return g.current.Listen()
}

// share gives the group up: there is one socket for all.
func (g *Group) share(err error) { g.shared = reason(err) }

// again forgets what kept the last command from having a socket of its own, if that may have passed.
func (g *Group) again() {
	if g.passing {
		g.shared, g.passing = "", false
	}
}

// Add makes the socket of the next command. It listens, and nothing reaches it before it is steered there.
func (g *Group) Add() (*Socket, error) {
	g.again()
	switch {
	case g.shared != "":
		return g.current, nil
	case len(g.members) > 1:
		return nil, errTwo
	}
	s, err := g.join()
	if err != nil {
		g.share(err)
		g.passing = true
		return g.current, nil
	}
	g.members = append(g.members, s)
	return s, nil
}

// SteerAll has every new connection go to a socket. Those that wait in the queue of the other one stay there.
func (g *Group) SteerAll(to *Socket) error {
	i := slices.Index(g.members, to)
	switch {
	case g.shared != "":
		return errShared
	case i < 0:
		return errUnknown
	}
	if err := steer(g.members[0], always(i)); err != nil {
		return err
	}
	if to != g.current {
		g.halfOpen = handshakes(to.Port)
		g.requests, g.left = append(underWay(to.Port, false), g.halfOpen...), time.Now()
	}
	g.current = to
	return nil
}

// Divert has new connections wait for the next command, in a socket of its own, while the one that serves still runs. It
// does so only when that command keeps up: what waits in a queue when it is told to stop is lost. (Left alone, the queue
// would stay for the next command.) So Divert is called again and again, and looks: at a moment when nothing waits, or no
// more than the command was seen to accept since the first call, it diverts. done says that it has, or that it cannot be
// had.
func (g *Group) Divert(first bool) (done bool) {
	if first {
		g.again()
	}
	if g.shared != "" || g.diverted {
		return true
	}
	n := queued(g.current)
	if n < 0 {
		return true
	}
	if first {
		g.taken, g.waited = 0, n
	}
	g.taken, g.waited = g.taken+max(g.waited-n, 0), n
	if n > g.taken {
		return false
	}
	next, err := g.Add()
	if err != nil || g.shared != "" {
		return true
	}
	if err := g.SteerAll(next); err != nil {
		_ = g.Retire(next)
		return true
	}
	g.diverted, g.noted = true, false
	return true
}

// Drained reports whether nothing waits for the command of a socket that is no longer current: neither in its queue, nor
// in a handshake that was under way when it was left, nor in a request on a connection that it has accepted. (The kernel
// finishes a handshake for the socket that it began with.)
func (g *Group) Drained(s *Socket) bool {
	if g.shared != "" || s == g.current || !slices.Contains(g.members, s) || queued(s) != 0 {
		return false
	}
	if len(g.halfOpen) > 0 {
		now := handshakes(s.Port)
		g.halfOpen = slices.DeleteFunc(g.halfOpen, func(h string) bool { return !slices.Contains(now, h) })
	}
	if len(g.halfOpen) > 0 || queued(s) != 0 { // one may have come in between
		return false
	}
	if time.Since(g.left) >= silentTime {
		return true
	}
	if g.diverted && !g.noted { // only the old command has accepted any, and will accept no more
		g.requests, g.noted = underWay(s.Port, true), true
	} else if len(g.requests) > 0 {
		now := underWay(s.Port, g.diverted)
		g.requests = slices.DeleteFunc(g.requests, func(c string) bool { return !slices.Contains(now, c) })
	}
	return len(g.requests) == 0
}

// silentTime is how long requests are waited for that are under way on connections which the old command has accepted: a
// server that is told to stop may close those without an answer (uvicorn does). Some clients connect and send nothing.
const silentTime = time.Second

// Queued is how many connections wait to be accepted; known says whether that can be told.
func (s *Socket) Queued() (n int, known bool) {
	n = queued(s)
	return n, n >= 0
}

// Retire closes a socket. What still waits in its queue is lost. It is closed for whoever else has it, too: a process
// that a command left behind would otherwise keep it in the group. If it is the current one, what is new goes to the
// other from now on.
//
// The kernel puts the last socket of the group into the place of the one that leaves. With two, the program is right
// before and after: if the first leaves, 1 is no place any more, and the only one left gets everything.
func (g *Group) Retire(s *Socket) error {
	i := slices.Index(g.members, s)
	switch {
	case g.shared != "":
		return nil
	case i < 0:
		return errUnknown
	case len(g.members) == 1:
		s.Close()
		return nil
	}
	if s == g.current {
		if err := g.SteerAll(g.members[1-i]); err != nil {
			return err
		}
	}
	_ = unix.Shutdown(s.fd, syscall.SHUT_RDWR)
	s.Close()
	g.members, g.halfOpen, g.diverted = slices.Delete(g.members, i, i+1), nil, false
	return steer(g.members[0], always(0))
}

// Close closes all sockets here.
func (g *Group) Close() {
	for _, s := range g.members {
		s.Close()
	}
}
