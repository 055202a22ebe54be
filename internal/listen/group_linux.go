package listen

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The sockets are an SO_REUSEPORT group (socket(7)), and the program is a classic BPF program of
// SO_ATTACH_REUSEPORT_CBPF, which needs no privilege. It sees the first segment of a connection and returns the place of
// a socket in the group. Sockets have their places in the order in which they were listened on. If there is no such
// place, the kernel chooses by a hash.
//
// SO_REUSEPORT lets any process of the same user join in. So it is off until the first Add: until then nobody else can
// bind the address. (The group is made all the same, by attaching a program before the socket is listened on:
// reuseport_attach_prog in net/core/sock_reuseport.c.) From then on it stays: the kernel remembers for the port that it
// was on. Who joins in gets nothing, since the program gives everything to one place; and the next Add, whose socket is
// not in the place that it should be in, notices.

// cannotGroup says why a socket can have none beside it.
func cannotGroup(s *Socket) string {
	switch {
	case s.adopted:
		return "somebody else has made the socket"
	case s.addr == nil:
		return "a unix socket cannot be steered"
	}
	return ""
}

// begin makes the group of the first socket, before it is listened on.
func (g *Group) begin() error {
	s := g.current
	if err := reusePort(s.fd, true); err != nil {
		return err
	}
	err := steer(s, always(0))
	if off := reusePort(s.fd, false); err == nil {
		err = off
	}
	return err
}

// join adds a second socket, and makes sure that it is in place 1.
func (g *Group) join() (*Socket, error) {
	first := g.members[0]
	if err := reusePort(first.fd, true); err != nil {
		return nil, err
	}
	if err := steer(first, always(0)); err != nil {
		return nil, err
	}
	s, err := bindLike(first)
	if err != nil {
		return nil, err
	}
	if err = s.Listen(); err == nil {
		err = verify(first, s)
	}
	if err != nil {
		_ = steer(first, always(0))
		unix.Close(s.fd)
		return nil, err
	}
	return s, nil
}

// errPlace is what keeps a socket from being steered to.
var errPlace = errors.New("another process has joined the address, or the kernel cannot steer")

const verifyLimit = 500 * time.Millisecond

// verify connects to the second socket of a group, from a source that only it is given, and looks whether that has come
// to it. Nothing else reaches it yet.
func verify(first, second *Socket) error {
	p, err := NewProbe(second)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := steer(first, except(p.From(), 1, 0)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), verifyLimit)
	defer cancel()
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// On a busy machine it may come to the queue a moment after connect(2) has returned.
	ready := []unix.PollFd{{Fd: int32(second.fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(verifyLimit); ; {
		n, err := unix.Poll(ready, int(time.Until(deadline).Milliseconds()))
		if n > 0 {
			break
		}
		if err != unix.EINTR || !time.Now().Before(deadline) {
			return errPlace
		}
	}
	fd, _, err := unix.Accept(second.fd) // it is there: this does not wait
	if err != nil {
		return err
	}
	unix.Close(fd)
	return steer(first, always(0))
}

// bindLike binds another socket to the same address.
func bindLike(first *Socket) (*Socket, error) {
	v6only, err := unix.GetsockoptInt(first.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	s, err := openTCP(first.addr, err == nil && v6only != 0)
	if err != nil {
		return nil, err
	}
	if err = reusePort(s, true); err == nil {
		err = unix.Bind(s, first.addr)
	}
	if err != nil {
		unix.Close(s)
		return nil, err
	}
	return &Socket{Spec: first.Spec, fd: s, addr: first.addr}, nil
}

func reusePort(fd int, on bool) error {
	n := 0
	if on {
		n = 1
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, n)
}

// SteerProbe has connections from one source address and port go to a socket, and every other one to where they go now.
func (g *Group) SteerProbe(to *Socket, from netip.AddrPort) error {
	i, current := slices.Index(g.members, to), slices.Index(g.members, g.current)
	switch {
	case g.shared != "":
		return errShared
	case i < 0:
		return errUnknown
	}
	return steer(g.members[0], except(from, i, current))
}

// steer attaches a program to the group of a socket.
func steer(s *Socket, program []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	err := unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog)
	runtime.KeepAlive(program)
	return err
}

func load(size uint16, offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: offset}
}

func give(k int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(k)}
}

// always is the program that gives everything to one place.
func always(place int) []unix.SockFilter { return []unix.SockFilter{give(place)} }

// netOff is SKF_NET_OFF of linux/filter.h: what is loaded from there on is the network header.
const netOff = 1<<32 - 0x100000

// except is the program that gives connections from one source to a place, and all others to another. It compares the
// version of IP, the source address and the port behind a header without options. (A segment that has some is not
// vaultexec's own.)
func except(from netip.AddrPort, place, others int) []unix.SockFilter {
	addr := from.Addr().Unmap()
	version, at, port := uint32(4), uint32(12), uint32(20)
	if addr.Is6() {
		version, at, port = 6, 8, 40
	}
	type test struct {
		load []unix.SockFilter
		want uint32
	}
	tests := []test{{[]unix.SockFilter{
		load(unix.BPF_B, netOff), {Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4}}, version}}
	for word := range slices.Chunk(addr.AsSlice(), 4) {
		want := uint32(word[0])<<24 | uint32(word[1])<<16 | uint32(word[2])<<8 | uint32(word[3])
		tests = append(tests, test{[]unix.SockFilter{load(unix.BPF_W, netOff+at)}, want})
		at += 4
	}
	tests = append(tests, test{[]unix.SockFilter{load(unix.BPF_H, netOff+port)}, uint32(from.Port())})
	var program []unix.SockFilter
	end := 1 // the instructions from the last test to its alternative
	for _, t := range slices.Backward(tests) {
		jump := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: t.want, Jf: uint8(end)}
		program = slices.Concat(t.load, []unix.SockFilter{jump}, program)
		end += len(t.load) + 1
	}
	return append(program, give(place), give(others))
}
