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
		some, err := halfOpen(family, port)
		if err != nil {
			return handshakesInProc(port)
		}
		list = append(list, some...)
	}
	return list
}

// The sizes of linux/netlink.h and linux/inet_diag.h.
const (
	nlHeader    = 16 // struct nlmsghdr
	diagRequest = 56 // struct inet_diag_req_v2
	diagPorts   = 4  // where idiag_sport is in struct inet_diag_msg, behind four bytes
	diagID      = 48 // struct inet_diag_sockid
	synRecv     = 3  // TCP_SYN_RECV of include/net/tcp_states.h
)

// halfOpen asks for the connections of one family.
func halfOpen(family uint8, port uint16) (list []string, err error) {
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
	b[nlHeader], b[nlHeader+1] = family, unix.IPPROTO_TCP
	host.PutUint32(b[nlHeader+4:], 1<<synRecv)
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
					binary.BigEndian.Uint16(body[diagPorts:]) == port {
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
