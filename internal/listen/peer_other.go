//go:build !linux

package listen

import "net"

// Peer does not know: only Linux tells.
func Peer(net.Conn) (uid int, known bool) { return -1, false }
