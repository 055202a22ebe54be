package launcher

import (
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/notify"
)

// What the command says goes on to systemd where vaultexec was given its socket. Not all of it: MAINPID, READY, STOPPING
// and RELOADING are about the unit, and vaultexec says them itself; parse of internal/notify drops what it does not know.

// pass hands on what the command that serves says. With --mask its STATUS stays here: it may hold a secret, and what is
// masked is only what is printed. Descriptors are systemd's from then on.
func (n *notifier) pass(m *notify.Message, masked bool) {
	if n == nil {
		return
	}
	words := passed(m, masked)
	n.speaks = n.speaks || m.Status != "" && !masked
	files := m.Files()
	defer closeAll(files)
	if m.Store && len(files) > 0 {
		words = append(words, "FDSTORE=1", "FDNAME="+m.Name)
		if m.NoPoll {
			words = append(words, "FDPOLL=0")
		}
	}
	if len(words) == 0 {
		return
	}
	n.sendFiles(strings.Join(words, "\n"), files)
}

// passed are the words of a message that go on, but for FDSTORE.
func passed(m *notify.Message, masked bool) (words []string) {
	if m.Status != "" && !masked {
		words = append(words, "STATUS="+m.Status)
	}
	if m.Extend > 0 {
		words = append(words, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", m.Extend.Microseconds()))
	}
	switch {
	case m.Trigger:
		words = append(words, "WATCHDOG=trigger")
	case m.Watchdog:
		words = append(words, "WATCHDOG=1")
	}
	if m.Remove {
		words = append(words, "FDSTOREREMOVE=1", "FDNAME="+m.Name)
	}
	return words
}

// sendFiles is send with descriptors.
func (n *notifier) sendFiles(text string, files []int) {
	// A leading @ is an abstract one.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(notifyLimit))
	if len(files) == 0 {
		_, _ = conn.Write([]byte(text))
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool { // WriteMsgUnix refuses a socket that is connected
		return unix.Sendmsg(int(fd), []byte(text), unix.UnixRights(files...), nil, 0) != unix.EAGAIN
	})
}
