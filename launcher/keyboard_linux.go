package launcher

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// keyboard passes on what is typed, as fast as the inner terminal takes it.
type keyboard struct {
	outer, master int
	wake, waker   int
	lost          chan struct{} // told when reading fails
	shared        bool          // the relay shares its group with others, such as a script, make or npm
	literal       bool          // the key before was VLNEXT

	mu   sync.Mutex
	on   bool
	sent map[syscall.Signal]int // to the group, and not yet received by the relay itself
	all  map[syscall.Signal]bool
}

func newKeyboard(outer, master int) (*keyboard, error) {
	k := &keyboard{outer: outer, master: master, lost: make(chan struct{}, 1), sent: map[syscall.Signal]int{},
		all:    map[syscall.Signal]bool{},
		shared: unix.Getpgrp() != os.Getpid()}
	var err error
	if k.wake, k.waker, err = openPipe(); err == nil {
		err = unix.SetNonblock(k.wake, true)
	}
	return k, err
}

// enable lets it read, or keeps it from reading: what is typed belongs to somebody else.
func (k *keyboard) enable(on bool) {
	k.mu.Lock()
	k.on = on
	k.mu.Unlock()
	_, _ = unix.Write(k.waker, []byte{0})
}

func (k *keyboard) run() {
	runtime.LockOSThread()
	blockHere(unix.SIGTTIN) // a read in the background fails with EIO
	buf := make([]byte, 4096)
	for {
		k.mu.Lock()
		on := k.on
		k.mu.Unlock()
		fds := []unix.PollFd{{Fd: int32(k.wake), Events: unix.POLLIN}, {Fd: int32(k.outer)}}
		if on {
			fds[1].Events = unix.POLLIN
		}
		if _, err := unix.Poll(fds, -1); err != nil { // EINTR
			continue
		}
		if fds[0].Revents != 0 {
			_, _ = unix.Read(k.wake, buf)
			continue
		}
		n, ok := k.read(buf)
		hungUp := fds[1].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
		if !ok || hungUp {
			select {
			case k.lost <- struct{}{}:
			default:
			}
		}
		if k.shared {
			k.tellGroup(buf[:n])
		}
		if hungUp || !k.write(buf[:n]) {
			return
		}
	}
}

// read reads unless it is not to. When it fails, nothing is read until it is enabled again.
func (k *keyboard) read(buf []byte) (n int, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.on {
		return 0, true
	}
	n, err := unix.Read(k.outer, buf)
	if n > 0 || err == unix.EAGAIN || err == unix.EINTR {
		return max(n, 0), true
	}
	k.on = false
	return 0, false
}

// tellGroup does for the group what the outer terminal would do if it were not raw. A key that the inner terminal turns
// into a signal is one for everybody who shares the foreground, whatever the command makes of it. The script or the
// make around the command ends by it, as without --mask.
func (k *keyboard) tellGroup(typed []byte) {
	if len(typed) == 0 {
		return
	}
	modes, err := unix.IoctlGetTermios(k.master, getTermios)
	if err != nil || modes.Lflag&unix.ISIG == 0 {
		k.literal = false
		return
	}
	for _, c := range typed {
		if k.literal {
			k.literal = false
			continue
		}
		switch {
		case c == 0: // _POSIX_VDISABLE
		case c == modes.Cc[unix.VINTR]:
			k.tell(unix.SIGINT)
		case c == modes.Cc[unix.VQUIT]:
			k.tell(unix.SIGQUIT)
		case c == modes.Cc[unix.VLNEXT]:
			const quotes = unix.ICANON | unix.IEXTEN
			k.literal = modes.Lflag&quotes == quotes
		}
	}
}

func (k *keyboard) tell(sig syscall.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent[sig]++
	k.all[sig] = true
	if unix.Kill(0, sig) != nil {
		k.sent[sig]--
	}
}

// swallow reports whether a signal is the relay's own copy of one that it has sent to its group. Two that come together
// may arrive as one.
func (k *keyboard) swallow(sig syscall.Signal) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sent[sig] == 0 {
		return false
	}
	k.sent[sig] = 0
	return true
}

// told reports whether the group had a signal by a key.
func (k *keyboard) told(sig syscall.Signal) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all[sig]
}

func (k *keyboard) write(b []byte) bool {
	for len(b) > 0 {
		n, err := unix.Write(k.master, b)
		if n > 0 {
			b = b[n:]
			continue
		}
		if err == unix.EAGAIN || err == nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(k.master), Events: unix.POLLOUT}}, -1)
		} else if err != unix.EINTR {
			return false
		}
	}
	return true
}
