package launcher

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/mask"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// stream copies one output. What stands above requests is fixed before run begins, the rest is run's own.
type stream struct {
	outputs     *outputs
	name        string
	in, out     int
	typed       bool // it shows what a person types
	relays      bool // a terminal that stands before another
	wake, waker int
	requests    chan request
	over        chan struct{} // closed when run has ended

	busy atomic.Bool // something is read and not written

	mask  mask.Masker
	buf   []byte
	text  []byte
	lossy bool // a write failed, and it was said
}

// request is to write everything that is there.
type request struct {
	end  bool          // and to end
	done chan struct{} // closed when it is fulfilled
	over chan struct{} // closed when the stream has ended
}

// run copies until it is told to end, or until nobody reads: then the pipe is closed, so that the child gets SIGPIPE as
// it would without vaultexec. The kernel tells that a pipe's reader has gone even while nothing is written.
func (s *stream) run() {
	// The thread ends with this goroutine. After `stty tostop` a background process that writes would be stopped, and
	// this one catches that signal. The command that wrote is not to be stopped for it either: it has a terminal of its
	// own.
	runtime.LockOSThread()
	blockHere(unix.SIGTTOU)
	defer close(s.over)
	defer unix.Close(s.in)
	s.buf = make([]byte, chunkSize)
	var since time.Time // something has been held back that is not shown yet, and may go before a value at most
	for {
		if ok := s.copy(-1); !ok {
			return
		}
		wait := -1
		switch {
		case !s.mask.Holds():
			since = time.Time{}
		case s.mask.Pending(): // the more of a value, the longer
			since, wait = time.Time{}, int(idleTime/time.Millisecond)
		default:
			if since.IsZero() {
				since = time.Now()
			}
			wait = int(max(idleTime-time.Since(since), 0) / time.Millisecond)
		}
		fds := []unix.PollFd{{Fd: int32(s.in), Events: unix.POLLIN}, {Fd: int32(s.out)},
			{Fd: int32(s.wake), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, wait)
		switch {
		case err != nil: // EINTR
		case n == 0:
			if !s.flush() {
				return
			}
		case fds[2].Revents != 0:
			if !s.serve() {
				return
			}
		case fds[0].Revents&unix.POLLIN == 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0:
			s.flush()
			return
		case fds[1].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
			return
		}
	}
}

// serve fulfils requests. It reports whether to go on.
func (s *stream) serve() bool {
	var b [8]byte
	_, _ = unix.Read(s.wake, b[:])
	for {
		select {
		case r := <-s.requests:
			// What a pipe or a terminal can hold. Somebody who goes on writing is not waited for.
			ok := s.copy(max(pending(s.in), 2*chunkSize)) && s.flush()
			close(r.done)
			if !ok || r.end {
				return false
			}
		default:
			return true
		}
	}
}

// copy reads what is there, limit bytes at most unless it is negative, and reports whether there can be more.
func (s *stream) copy(limit int) bool {
	for limit != 0 {
		b := s.buf
		if limit > 0 {
			b = b[:min(limit, len(b))]
		}
		s.busy.Store(true)
		n, err := unix.Read(s.in, b)
		s.busy.Store(n > 0 || s.mask.Holds())
		switch {
		case n > 0:
			if limit > 0 {
				limit -= n
			}
			s.mask.Set = s.outputs.set.Load()
			s.text = s.mask.Write(s.text[:0], b[:n])
			if !s.write(s.text) {
				return false
			}
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return true
		default: // end of file, or EIO of a terminal that nobody has open
			s.flush()
			return false
		}
		if limit < 0 && len(s.requests) > 0 {
			return true
		}
	}
	return true
}

func (s *stream) flush() bool {
	defer func() { s.busy.Store(s.mask.Held()) }()
	if s.mask.Set = s.outputs.set.Load(); !s.mask.Holds() {
		return true
	}
	s.text = s.mask.Flush(s.text[:0])
	return s.write(s.text)
}

// write reports whether there is somebody to write for. A full disk is no reason to end the command. What cannot be
// written is lost, which is said once, and the command goes on.
func (s *stream) write(b []byte) bool {
	for len(b) > 0 {
		n, err := unix.Write(s.out, b)
		if n > 0 {
			b = b[n:]
			s.lossy = s.lossy && err != nil
			continue
		}
		switch err {
		case unix.EINTR:
		case unix.EAGAIN: // somebody has made vaultexec's own output non-blocking
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.out), Events: unix.POLLOUT}}, -1)
		case unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.ENOMEM, unix.ENOBUFS:
			if !s.lossy {
				s.lossy = true
				s.outputs.l.Log.Warn(fmt.Sprintf("cannot write the command's standard %s, what it writes is lost: %s",
					s.name, vault.Errno(err)))
			}
			return true
		default:
			return false
		}
	}
	return true
}

// pending is how much can be read at once.
func pending(fd int) int {
	n, err := unix.IoctlGetInt(fd, fionread)
	if err != nil {
		return 0
	}
	return n
}
