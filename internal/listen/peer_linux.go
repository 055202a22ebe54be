package listen

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Peer finds out which user of this machine has the other end of a connection over a loopback address. known is false
// where nobody on this side of the network has it (it comes out of a virtual machine's host, for instance), and where
// /proc says nothing of connections. Whoever has closed their end already is nobody (-1).
func Peer(c net.Conn) (uid int, known bool) {
	here, ok1 := c.LocalAddr().(*net.TCPAddr)
	there, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return -1, true
	}
	a, b := here.AddrPort(), there.AddrPort()
	uid, known = -1, false
	away := false
	for f := range tcpInProc("") {
		switch local, remote := endpoint(f[1]), endpoint(f[2]); {
		case local == unmapped(b) && remote == unmapped(a):
			if f[9] == "0" { // its inode: no process has it
				return -1, true
			}
			n, err := strconv.Atoi(f[7])
			if err != nil {
				return -1, true
			}
			return n, true
		case local == unmapped(a):
			known = true // the kernel shows what listens here
			away = away || remote == unmapped(b) && f[3] == stateEstablished
		}
	}
	return uid, known && !away
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// endpoint reads ADDRESS:PORT as the kernel writes it.
func endpoint(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	addr, ok := parseHex(host)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n))
}
