package notify

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Receiver is the socket that NOTIFY_SOCKET names.
type Receiver struct {
	conn *net.UnixConn
	name string
	dir  string // to be removed; "" for an abstract socket
}

// Listen makes the socket: an abstract one, which leaves nothing behind. A command in a network namespace of its own does
// not find that; where none can be had, and with inFile, the socket is a file in a new folder that only this user may
// enter.
func Listen(inFile bool) (*Receiver, error) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	r := &Receiver{name: "@vaultexec-" + hex.EncodeToString(b[:])}
	err := errors.ErrUnsupported
	if !inFile {
		r.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.name, Net: "unixgram"})
	}
	if err != nil {
		if r.dir, err = os.MkdirTemp("", "vaultexec-"); err != nil { // mode 0700
			return nil, err
		}
		r.name = filepath.Join(r.dir, "notify")
		if r.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.name, Net: "unixgram"}); err != nil {
			_ = os.Remove(r.dir)
			return nil, err
		}
	}
	raw, err := r.conn.SyscallConn()
	if err == nil {
		// From here on the kernel adds to each message who has sent it. Nobody knows the name yet.
		if cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		}); err == nil {
			err = cerr
		}
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Address is the value of NOTIFY_SOCKET.
func (r *Receiver) Address() string { return r.name }

// Close ends a Receive that waits, with net.ErrClosed.
func (r *Receiver) Close() {
	_ = r.conn.Close()
	if r.dir != "" {
		_ = os.Remove(r.name)
		_ = os.Remove(r.dir)
	}
}

// InGroup returns a question for Receive: whether a process is in a process group. One that has ended and was not reaped
// still is.
func InGroup(group int) func(pid int) bool {
	return func(pid int) bool {
		g, err := unix.Getpgid(pid)
		return err == nil && group > 0 && g == group
	}
}

// Receive waits for the next message of a process that knows says yes to. All others are dropped. knows is asked while
// the sender may be ending: one that ends at once and was reaped is nobody any more.
func (r *Receiver) Receive(knows func(pid int) bool) (Message, error) {
	text := make([]byte, maxMessage+1)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFiles))
	for {
		n, nc, flags, _, err := r.conn.ReadMsgUnix(text, control)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Message{}, err
		}
		pid, files := sender(control[:nc])
		m, ok := parse(text[:n])
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !ok || pid <= 0 || !knows(pid) {
			closeAll(files)
			continue
		}
		m.PID = pid
		m.admit(files)
		return m, nil
	}
}

// sender reads who has sent a message, as the kernel says, and the descriptors in it. 0 is a process that is in no
// namespace which this one sees.
func sender(control []byte) (pid int, files []int) {
	parts, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, nil
	}
	for i := range parts {
		switch parts[i].Header.Type {
		case unix.SCM_CREDENTIALS:
			if cred, err := unix.ParseUnixCredentials(&parts[i]); err == nil {
				pid = int(cred.Pid)
			}
		case unix.SCM_RIGHTS:
			if fds, err := unix.ParseUnixRights(&parts[i]); err == nil {
				files = append(files, fds...)
			}
		}
	}
	return pid, files
}
