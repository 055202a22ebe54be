package listen

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// handshakes are the connections to a port that are half open. The kernel is asked for those in that state alone
// (sock_diag(7)): a busy machine has a hundred thousand in others, and /proc/net/tcp lists them all. Where no such
// question is allowed, /proc has to do.
func handshakes(port uint16) []string {
	var list []string
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		some, err := connections(family, port, stateOf{synRecv, 0}, func(message) bool { return true })
		if err != nil {
			return handshakesInProc(port)
		}
		list = append(list, some...)
	}
	return list
}

// underWay are the connections to a port whose requests are under way, as far as the kernel can tell: nothing has come yet
// (a client connects first and writes then), or something has come that was not read. One that has been silent for longer
// than silentTime is idle. accepted leaves out those that still wait in a queue. Where no such question is allowed there
// are none.
func underWay(port uint16, accepted bool) (list []string) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		some, err := connections(family, port, stateOf{established, 1 << (diagInfo - 1)}, func(m message) bool {
			return (!accepted || m.accepted()) && (m.unread() || m.silent())
		})
		if err != nil {
			return nil
		}
		list = append(list, some...)
	}
	return list
}

// message is a struct inet_diag_msg, with the attributes behind it.
type message []byte

func (m message) accepted() bool {
	return len(m) >= diagMessage && binary.NativeEndian.Uint32(m[diagInode:]) != 0
}

func (m message) unread() bool {
	return len(m) >= diagMessage && binary.NativeEndian.Uint32(m[diagUnread:]) > 0
}

// silent reports whether nothing has come yet, on a connection that is not older than silentTime: the time since the last
// byte came is counted from the handshake until then.
func (m message) silent() bool {
	info := attribute(m[min(diagMessage, len(m)):], diagInfo)
	return len(info) >= bytesReceived+8 && binary.NativeEndian.Uint64(info[bytesReceived:]) == 0 &&
		time.Duration(binary.NativeEndian.Uint32(info[lastReceived:]))*time.Millisecond < silentTime
}

// attribute finds one of the attributes behind a struct inet_diag_msg.
func attribute(list []byte, kind uint16) []byte {
	for len(list) >= 4 {
		size := int(binary.NativeEndian.Uint16(list))
		if size < 4 || size > len(list) {
			return nil
		}
		if binary.NativeEndian.Uint16(list[2:]) == kind {
			return list[4:size]
		}
		list = list[min((size+3)&^3, len(list)):]
	}
	return nil
}

// stateOf is a state of TCP, and what is to be told of the connections in it.
type stateOf struct {
	state uint
	ext   uint8
}

// The sizes of linux/netlink.h and linux/inet_diag.h.
const (
	nlHeader    = 16 // struct nlmsghdr
	diagRequest = 56 // struct inet_diag_req_v2
	diagPorts   = 4  // where idiag_sport is in struct inet_diag_msg, behind four bytes
	diagID      = 48 // struct inet_diag_sockid
	diagMessage = 72 // struct inet_diag_msg
	diagUnread  = 56 // idiag_rqueue in it: bytes that were not read
	diagInode   = 68 // idiag_inode in it; 0 for a connection that was not accepted
	diagInfo    = 2  // INET_DIAG_INFO: the attribute with a struct tcp_info

	lastReceived  = 52  // where tcpi_last_data_recv is in struct tcp_info, in milliseconds
	bytesReceived = 128 // and tcpi_bytes_received

	established = 1 // TCP_ESTABLISHED of include/net/tcp_states.h
	synRecv     = 3 // TCP_SYN_RECV
)

// connections asks for the connections of one family that are in a state, and keeps those that keep says.
func connections(family uint8, port uint16, of stateOf, keep func(message) bool) (list []string, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, err
	}
	host := binary.NativeEndian
	b := make([]byte, nlHeader+diagRequest)
	host.PutUint32(b, uint32(len(b)))
	host.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	host.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[nlHeader], b[nlHeader+1], b[nlHeader+2] = family, unix.IPPROTO_TCP, of.ext
	host.PutUint32(b[nlHeader+4:], 1<<of.state)
	if of.state == established { // the kernel leaves out all others, of which there may be many
		binary.BigEndian.PutUint16(b[nlHeader+8:], port)
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for buf := make([]byte, 32<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		for m := buf[:n]; len(m) >= nlHeader; {
			size := int(host.Uint32(m))
			if size < nlHeader || size > len(m) {
				return nil, unix.EBADMSG
			}
			switch host.Uint16(m[4:]) {
			case unix.NLMSG_DONE:
				return list, nil
			case unix.NLMSG_ERROR:
				return nil, unix.EPROTO
			case unix.SOCK_DIAG_BY_FAMILY:
				if body := m[nlHeader:size]; len(body) >= diagPorts+diagID &&
					binary.BigEndian.Uint16(body[diagPorts:]) == port && keep(body) {
					list = append(list, fmt.Sprintf("%x", body[diagPorts:diagPorts+36])) // ports and addresses
				}
			}
			m = m[min((size+3)&^3, len(m)):]
		}
	}
}

// handshakesInProc reads them from /proc/net/tcp.
func handshakesInProc(port uint16) (list []string) {
	suffix := fmt.Sprintf(":%04X", port)
	for f := range tcpInProc(stateSynRecv) {
		if strings.HasSuffix(f[1], suffix) {
			list = append(list, f[1]+" "+f[2])
		}
	}
	return list
}
