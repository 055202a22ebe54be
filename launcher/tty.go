package launcher

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal, and how vaultexec and its child share it.
//
// Where vaultexec is alone with its terminal, the child leads a process group of its own, in the foreground if
// vaultexec's was. What is typed reaches the child only, and nobody forwards it. Where vaultexec shares the terminal
// with others (it does not lead its group, or a standard descriptor is a pipe), the child stays in vaultexec's group.
// The shell knows no other: it would not stop, resume or interrupt a group that it did not make. Then the child gets
// from vaultexec only what the terminal did not send to everyone.
type terminal struct {
	fd         int  // /dev/tty, close-on-exec
	own        bool // the child leads a group of its own
	group      int  // vaultexec's process group
	foreground bool // vaultexec's group was in the foreground when it was last looked
	modes      *unix.Termios
	size       unix.Winsize
	resized    time.Time // when size was seen to change
	hungUp     time.Time // when the first SIGHUP came from a terminal that is gone
}

// moment is how long signals that belong together may be apart.
const moment = time.Second

// openTerminal returns nil when there is no controlling terminal.
func openTerminal() *terminal {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	t := &terminal{fd: fd, group: unix.Getpgrp()}
	t.own = t.group == os.Getpid() && !anyPipe(0, 1, 2)
	t.look()
	t.modes, _ = unix.IoctlGetTermios(fd, getTermios)
	t.sizeChanged(time.Time{})
	return t
}

// anyPipe reports whether one of the descriptors connects to another process.
func anyPipe(fds ...int) bool {
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			if mode := st.Mode & unix.S_IFMT; mode == unix.S_IFIFO || mode == unix.S_IFSOCK {
				return true
			}
		}
	}
	return false
}

// inFront returns the foreground process group, or -1 when the terminal is gone.
func (t *terminal) inFront() int {
	pgrp, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return -1
	}
	return pgrp
}

func (t *terminal) look() { t.foreground = t.inFront() == t.group }

// give puts a group in the foreground if the group that is there now is from. A background process gets SIGTTOU for
// this, which is blocked on the calling thread meanwhile: if it were ignored, children would inherit that.
func (t *terminal) give(from, to int) bool {
	if t.inFront() != from {
		return false
	}
	ok := false
	withBlocked(unix.SIGTTOU, func() { ok = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, to) == nil })
	return ok
}

// background returns a writer for vaultexec's own messages that may write to a terminal whose foreground is the
// child's. After `stty tostop` the kernel answers such a write with SIGTTOU, which is caught here, and so with another
// one, forever. On a terminal that is raw for --mask, lines end as such a terminal needs it.
func background(stderr io.Writer) io.Writer {
	in := parseInner(os.Args[0])
	return backgroundWriter{stderr, in != nil && in.ours(2)}
}

type backgroundWriter struct {
	out io.Writer
	raw bool
}

// Write implements io.Writer.
func (w backgroundWriter) Write(b []byte) (n int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	text := b
	if w.raw {
		text = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	}
	withBlocked(unix.SIGTTOU, func() { n, err = w.out.Write(text) })
	return min(n, len(b)), err
}

// restoreModes sets the terminal back to what it was at the start, after a child that could not do so itself. It does
// so only where the terminal is not shared: `vaultexec -- yes | less` starts when less may have set its own modes, and
// ends after it.
func (t *terminal) restoreModes() {
	if t.modes != nil && t.inFront() == t.group {
		withBlocked(unix.SIGTTOU, func() { _ = unix.IoctlSetTermios(t.fd, setTermios, t.modes) })
	}
}

// resetModes has the next command find the terminal as the first one found it: the one before may have left it raw. In
// a pipeline somebody else may have set the modes.
func (t *terminal) resetModes() {
	if t.own || !anyPipe(0, 1, 2) {
		t.restoreModes()
	}
}

// sizeChanged looks the size up and reports whether it differs from before, or did a moment ago. While a window is
// drawn larger, one look can already see the size of the next signal.
func (t *terminal) sizeChanged(now time.Time) bool {
	if ws, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ); err == nil && *ws != t.size {
		t.size, t.resized = *ws, now
	}
	return now.Sub(t.resized) < moment
}

// hangsUp reports whether a SIGHUP after the end of the terminal belongs to that end. The shell sends one and the
// kernel another, to the whole group. A later one is meant for vaultexec, as in `kill -HUP` for a service that has lost
// its terminal.
func (t *terminal) hangsUp(now time.Time) bool {
	if t.hungUp.IsZero() {
		t.hungUp = now
	}
	return now.Sub(t.hungUp) < moment
}

// orphaned reports whether nobody could resume vaultexec's group: no member has a parent in another group of the same
// session (POSIX's "orphaned process group", XBD 3.256), as for a session leader under docker -it or ssh -t. In a
// script it is the script's parent that counts.
func orphaned() bool {
	group := unix.Getpgrp()
	session, _ := unix.Getsid(0)
	return orphanedFrom(os.Getppid(), group, session, group == os.Getpid())
}

// orphanedFrom is orphaned for any process, of which it is given what decides.
func orphanedFrom(parent, group, session int, leads bool) bool {
	if resumable(parent, group, session) {
		return false
	}
	if leads { // alone in it, as far as the shell knows
		return true
	}
	return !slices.ContainsFunc(processes(), func(p process) bool {
		return p.group == group && !p.dead && resumable(p.parent, group, session)
	})
}

// resumable reports whether this parent has a child in the group as a job.
func resumable(parent, group, session int) bool {
	if parent <= 0 {
		return false
	}
	sid, err := unix.Getsid(parent)
	if err != nil || sid != session {
		return false
	}
	pgid, err := unix.Getpgid(parent)
	return err == nil && pgid != group
}

// terminalSent decides, where the group is shared, whether the terminal sent a signal to everyone in it, the child
// included. It is decided by circumstance, because Go does not tell who sent a signal:
//
//   - INT, QUIT and TSTP come from keys and go to the foreground group only;
//   - TTIN and TTOU go to a background group only;
//   - WINCH comes with another size;
//   - HUP comes when the terminal goes.
//
// What is left open, a kill(2) of INT, QUIT or TSTP at a vaultexec in the foreground, is taken for the terminal's.
func terminalSent(sig unix.Signal, wasInFront, isInFront, sizeChanged, gone bool) bool {
	switch sig {
	case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP:
		// Either look counts: a shell takes the terminal back as soon as its own child has died of the same key.
		return wasInFront || isInFront
	case unix.SIGTTIN, unix.SIGTTOU:
		return !isInFront
	case unix.SIGWINCH:
		return sizeChanged
	case unix.SIGHUP:
		return gone
	}
	return false
}
