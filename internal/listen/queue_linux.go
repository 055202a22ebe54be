package listen

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// longestQueue is the length of a socket's queue as vaultexec sets it: a little less than what the kernel allows
// (net.core.somaxconn), which is the number that a command may ask for. So a command that calls listen(2) shows: it
// changes the number (TouchedByListen).
func longestQueue() int {
	most := 4096
	if b, err := os.ReadFile("/proc/sys/net/core/somaxconn"); err == nil {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil && n > 0 {
			most = n
		}
	}
	const less = 3
	if most <= 4*less {
		return most
	}
	return most - less
}

// TouchedByListen reports whether somebody has called listen(2) on the socket since Listen did. known says whether that
// can be told: for a listening TCP socket, tcpi_sacked of TCP_INFO is the length of its queue (tcp_get_info in
// net/ipv4/tcp.c).
func (s *Socket) TouchedByListen() (touched, known bool) {
	info, err := s.info()
	if err != nil {
		return false, false
	}
	return info.State != tcpListen || int(info.Sacked) != s.mark, true
}

// tcpListen is TCP_LISTEN of include/net/tcp_states.h.
const tcpListen = 10

// info is TCP_INFO of the socket.
func (s *Socket) info() (*unix.TCPInfo, error) {
	if s.fd < 0 || s.addr == nil || s.mark == 0 {
		return nil, unix.EINVAL
	}
	return unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
}

// queued is how many connections wait to be accepted; -1 if that cannot be told.
func queued(s *Socket) int {
	info, err := s.info()
	if err != nil || info.State != tcpListen {
		return -1
	}
	return int(info.Unacked) // tcp_get_info in net/ipv4/tcp.c
}
