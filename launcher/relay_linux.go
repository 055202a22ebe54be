package launcher

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// With --mask on a terminal the command needs another terminal, whose output goes through the filter. The command can
// set its modes, read keys from it and open it as /dev/tty. A session shares a terminal, and the leader of a new
// session has nobody who would see its child stop. So there are two vaultexecs:
//
//	shell ─── relay ──(signals, stops, status)── inner ─── command
//	  └─ outer terminal: keys ──────▶ master ▌inner terminal▐ slave ─┘
//	                  ▲                  │
//	                  └─── filter ◀──────┘  (in the inner vaultexec)
//
// The inner one is started from the same command line as the leader of a session on the inner terminal. It does
// everything that vaultexec does: it logs in, has the values, masks, and writes to the outer terminal itself. The
// relay, which is the one that the shell knows, never has a value. It passes keys, window sizes and signals on, and
// shares the fate of the inner one. It stops when the inner one stops, resumes it when it is resumed itself, and ends
// as the inner one ended.
//
// While the relay is in the foreground, the outer terminal is raw: Ctrl-C is a byte that the inner terminal turns into
// a signal. The modes move with the foreground. What the shell has set is set inside when the job comes to the front,
// and what the command has set is set outside when it stops or ends. So `stty -echo` has its effect and a pager gets
// its own modes back.

// relayed reports whether the command needs a terminal of its own. It does if vaultexec has the terminal to itself and
// writes to it, or if all is the terminal, as in a script. In a pipeline the terminal belongs to others as well, and
// its modes are left alone.
func (l *launch) relayed() (terminals int, yes bool) {
	if !l.Masking.On || l.inner != nil {
		return 0, false
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return 0, false
	}
	for fd := range 3 {
		if sid, err := unix.IoctlGetInt(fd, unix.TIOCGSID); err == nil && sid == session {
			terminals |= 1 << fd
		}
	}
	writes := terminals&(1<<1|1<<2) != 0
	reads := terminals&(1<<0) != 0
	leads := unix.Getpgrp() == os.Getpid()
	return terminals, writes && (leads || reads) && !anyPipe(0, 1, 2)
}

// relay is the vaultexec in front.
type relay struct {
	*launch
	tty    *terminal // the outer one; its descriptor is the relay's own, and non-blocking
	master int
	last   unix.Termios // modes of the inner terminal as they were set or seen last
	raw    bool
	pid    int
	keys   *keyboard
	poll   *time.Ticker
}

// backgroundPoll is how often the relay looks whether the shell has put it in the foreground. For a job that already
// runs, the shell changes only that and tells nobody.
const backgroundPoll = 100 * time.Millisecond

// runRelay starts the inner vaultexec and ends as it ends.
func (l *launch) runRelay(terminals int) error {
	r := &relay{launch: l, tty: openTerminal()}
	if r.tty == nil {
		return maskFault(unix.ENOTTY)
	}
	if err := unix.SetNonblock(r.tty.fd, true); err != nil {
		return maskFault(err)
	}
	master, slave, err := openPty()
	if err != nil {
		return maskFault(err)
	}
	r.master = master
	_ = unix.SetNonblock(master, true)
	if r.tty.modes != nil {
		_ = unix.IoctlSetTermios(master, setTermios, r.tty.modes)
	}
	copySize(r.tty.fd, master)
	r.behind()
	if r.keys, err = newKeyboard(r.tty.fd, master); err != nil {
		return maskFault(err)
	}
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, unix.SIGCHLD)
	l.signals.catchAll()
	runtime.GOMAXPROCS(1)
	// Raw first: a Ctrl-Z between fork and exec would stop both and nobody could resume them (forkExec).
	r.front()
	if err := r.start(slave, terminals); err != nil {
		r.back()
		return maskFault(err)
	}
	unix.Close(slave)
	go r.keys.run()
	return r.loop(chld)
}

// start starts the inner vaultexec. When the relay dies, it is resumed, and finds out.
func (r *relay) start(slave, terminals int) error {
	in := &inner{master: r.master, slave: slave, terminals: terminals, relay: os.Getpid()}
	for _, fd := range []int{r.master, slave} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
		defer unix.CloseOnExec(fd)
	}
	attr := &syscall.ProcAttr{Env: r.Started, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	setParentDeath(attr.Sys, unix.SIGCONT)
	pid, err := syscall.ForkExec(selfExe, append([]string{in.name()}, os.Args[1:]...), attr)
	r.pid = pid
	return err
}

func (r *relay) loop(chld <-chan os.Signal) error {
	lost := r.keys.lost
	for {
		var tick <-chan time.Time
		if r.poll != nil {
			tick = r.poll.C
		}
		select {
		case sig := <-r.signals.ch:
			r.received(sig.(syscall.Signal))
		case <-chld:
			if err := r.reap(); err != nil {
				return err
			}
		case <-tick:
			if r.front(); r.raw {
				_ = unix.Kill(r.pid, unix.SIGCONT) // the command may have the inner terminal
			}
		case <-lost: // in the background, or hung up
			if r.tty.inFront() < 0 {
				lost = nil
				r.hangup()
			} else {
				r.back()
				r.front()
			}
		}
	}
}

func (r *relay) received(sig syscall.Signal) {
	if r.keys.swallow(sig) { // the inner terminal makes it of the key
		return
	}
	switch sig {
	case unix.SIGPIPE:
		return
	case unix.SIGWINCH:
		if copySize(r.tty.fd, r.master) { // the kernel tells who is in the foreground there
			return
		}
	case unix.SIGCONT:
		r.front()
	}
	_ = unix.Kill(r.pid, sig)
}

// reap looks after the inner vaultexec, and as PID 1 after orphans. It returns how the inner one ended.
func (r *relay) reap() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR, err == nil && pid > 0 && pid != r.pid:
			continue
		case err != nil || pid <= 0:
			return nil
		case status.Stopped():
			r.stop()
			continue
		}
		r.back()
		endAll()
		if status.Signaled() {
			sig := status.Signal()
			if (sig == unix.SIGINT || sig == unix.SIGQUIT) && !r.keys.told(sig) && r.tty.group != os.Getpid() &&
				r.tty.inFront() == r.tty.group {
				// In a script: without vaultexec the key would have reached everyone.
				_ = unix.Kill(0, sig)
			}
			return &Killed{Signal: sig}
		}
		return &Exited{Code: status.ExitStatus()}
	}
}

// stop makes the stop of the inner vaultexec, and of the command, visible to the shell.
func (r *relay) stop() {
	r.back()
	if !orphaned() {
		withDefault(unix.SIGTSTP, func() {
			if r.tty.group == os.Getpid() {
				raise(unix.SIGTSTP)
			} else { // in a script all stop, as they would by the key
				_ = unix.Kill(0, unix.SIGTSTP)
			}
		})
		// Execution goes on here after SIGCONT, which is in the channel now, or at once if the parent died in between.
		if !orphaned() {
			return
		}
	}
	r.front()
	_ = unix.Kill(r.pid, unix.SIGCONT)
}

// front takes the terminal if the relay is in the foreground, and otherwise looks again later.
func (r *relay) front() {
	r.tty.look()
	if !r.tty.foreground {
		if r.poll == nil && r.tty.inFront() >= 0 {
			r.poll = time.NewTicker(backgroundPoll)
		}
		return
	}
	if r.poll != nil {
		r.poll.Stop()
		r.poll = nil
	}
	copySize(r.tty.fd, r.master)
	if r.raw {
		return
	}
	modes, err := unix.IoctlGetTermios(r.tty.fd, getTermios)
	if err != nil {
		return
	}
	// Modes that the command has set while it was in the background are its own.
	if now, err := unix.IoctlGetTermios(r.master, getTermios); err == nil && *now == r.last {
		_ = unix.IoctlSetTermios(r.master, setTermios, modes)
	}
	r.note()
	r.set(rawModes(*modes))
	r.raw = true
	r.keys.enable(true)
}

// back gives the terminal up, with the modes that the command has left behind.
func (r *relay) back() {
	if !r.raw {
		return
	}
	r.keys.enable(false)
	r.raw = false
	if r.tty.inFront() != r.tty.group { // somebody else's now
		return
	}
	r.note()
	r.set(r.last)
	r.behind()
}

// behind prepares the inner terminal for the background: what line ends become is the outer terminal's business there.
func (r *relay) behind() {
	if modes, err := unix.IoctlGetTermios(r.master, getTermios); err == nil {
		modes.Oflag &^= unix.OPOST
		_ = unix.IoctlSetTermios(r.master, setTermios, modes)
	}
	r.note()
}

// note remembers the modes of the inner terminal.
func (r *relay) note() {
	if modes, err := unix.IoctlGetTermios(r.master, getTermios); err == nil {
		r.last = *modes
	}
}

// set changes the modes of the outer terminal.
func (r *relay) set(modes unix.Termios) {
	withBlocked(unix.SIGTTOU, func() { _ = unix.IoctlSetTermios(r.tty.fd, setTermios, &modes) })
}

// hangup: the outer terminal is gone, and so is this end of the inner one. The inner vaultexec sees the same.
func (r *relay) hangup() {
	if r.poll != nil {
		r.poll.Stop()
		r.poll = nil
	}
	unix.Close(r.master)
	r.master = -1
}

// rawModes is cfmakeraw(3).
func rawModes(t unix.Termios) unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL |
		unix.IXON | unix.IXOFF | unix.IXANY
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return t
}
