package launcher

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enter makes the inner vaultexec what it is to be: the leader of the session on the inner terminal.
func (in *inner) enter() error {
	unix.CloseOnExec(in.master)
	unix.CloseOnExec(in.slave)
	// Not "exe", as it was started, and nothing that killall vaultexec would find beside the relay.
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&[]byte("masking\x00")[0])), 0, 0, 0)
	if err := unix.IoctlSetInt(in.slave, unix.TIOCSCTTY, 0); err != nil {
		return maskFault(err)
	}
	if in.ours(0) {
		if err := unix.Dup2(in.slave, 0); err != nil {
			return maskFault(err)
		}
	}
	return nil
}

// stop stops this process so that the relay sees it and does the same. If nobody could resume the relay, it returns
// false instead. (SIGTSTP would do nothing: no shell is in this session.)
func (in *inner) stop() bool {
	p, ok := readProcess(in.relay) // which hidepid may hide
	if ok && orphanedFrom(p.parent, p.group, p.session, p.group == in.relay) {
		return false
	}
	raise(unix.SIGSTOP)
	return true
}

// inFront reports whether the one in front has the foreground of its terminal. Where it has not, the command must not
// have the foreground of the inner terminal: what reads then is stopped, as without vaultexec.
func (in *inner) inFront() bool {
	if in == nil {
		return true
	}
	p, ok := readProcess(in.relay)
	return !ok || p.front == p.group
}

// openPty makes a terminal.
func openPty() (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		unix.Close(master)
		return -1, -1, err
	}
	return master, slave, nil
}
