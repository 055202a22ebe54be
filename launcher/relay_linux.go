package launcher

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// With --mask on a terminal the command needs another terminal, which it can set modes of, read keys from and open as /dev/tty,
// and whose output goes through the filter. A terminal is shared by a session, and the leader of a new session has nobody who
// would see its child stop. So there are two vaultexecs:
//
//	shell ─── relay ──(signals, stops, status)── inner ─── command
//	  └─ outer terminal: keys ──────▶ master ▌inner terminal▐ slave ─┘
//	                  ▲                  │
//	                  └─── filter ◀──────┘  (in the inner vaultexec)
//
// The inner one is started from the same command line as the leader of a session on the inner terminal. It does everything that
// vaultexec does: it logs in, has the values, masks, and writes to the outer terminal itself. The relay, which is the one that
// the shell knows, never has a value. It passes keys, window sizes and signals on and shares the fate of the inner one: it stops
// when that stops, resumes it when it is resumed, and ends as it ended.
//
// While the relay is in the foreground, the outer terminal is raw: Ctrl-C is a byte that the inner terminal makes a signal of. The
// modes move with the foreground: what the shell has set is set inside when the job comes to the front, and what the command has
// set is set outside when it stops or ends, so that `stty -echo` has its effect and a pager its own modes back.

// relayed reports whether the command needs a terminal of its own: vaultexec has the terminal to itself and writes to it, or all is
// the terminal, as in a script. In a pipeline the terminal belongs to others as well, and its modes are left alone.
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

// backgroundPoll is how often the relay looks whether the shell has put it in the foreground: of a job that is running already
// the shell only changes that, and nobody is told.
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
			if (sig == unix.SIGINT || sig == unix.SIGQUIT) && !r.keys.told(sig) && r.tty.group != os.Getpid() && r.tty.inFront() == r.tty.group {
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
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.IXOFF | unix.IXANY
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return t
}

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
	k := &keyboard{outer: outer, master: master, lost: make(chan struct{}, 1), sent: map[syscall.Signal]int{}, all: map[syscall.Signal]bool{},
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

// tellGroup does for the group what the outer terminal would do if it were not raw: a key that the inner terminal makes a signal of
// is one for everybody who shares the foreground, whatever the command makes of it. The script or the make around the
// command ends by it, as without --mask.
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

// swallow reports whether a signal is the relay's own copy of one that it has sent to its group. Two that come together may arrive as
// one.
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

// stop stops this process so that the relay sees it and does the same, unless nobody could resume the relay: then it returns
// false. (SIGTSTP would do nothing: no shell is in this session.)
func (in *inner) stop() bool {
	p, ok := readProcess(in.relay) // which hidepid may hide
	if ok && orphanedFrom(p.parent, p.group, p.session, p.group == in.relay) {
		return false
	}
	raise(unix.SIGSTOP)
	return true
}

// inFront reports whether the one in front has the foreground of its terminal. Where it has not, the command must not have that
// of the inner one: what reads then is stopped, as without vaultexec.
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
