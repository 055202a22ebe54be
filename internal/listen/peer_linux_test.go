package listen

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// Whose the other end is, by either family, and that nobody's it is once it is closed.
func TestPeer(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			if host == "::1" {
				continue // a machine without IPv6
			}
			t.Fatal(err)
		}
		defer l.Close()
		pair := func() (here, there net.Conn) {
			t.Helper()
			there, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if here, err = l.Accept(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { here.Close(); there.Close() })
			return here, there
		}
		here, _ := pair()
		if uid, known := Peer(here); uid != os.Geteuid() || !known {
			t.Errorf("%s: user %d, %v", host, uid, known)
		}
		for _, linger := range []int{-1, 0} { // FIN, RST
			here, there := pair()
			if err := there.(*net.TCPConn).SetLinger(linger); err != nil {
				t.Fatal(err)
			}
			there.Close()
			wait.Until(t, 30*time.Second, "the other end to be nobody's", func() bool {
				uid, known := Peer(here)
				return uid == -1 && known
			})
		}
	}
}
