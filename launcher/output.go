package launcher

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/mask"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Masking is what --mask asks for.
type Masking struct {
	On    bool
	Least int // bytes; shorter values are not masked
}

// outputs are the command's standard output and error with --mask. Each is a pipe to vaultexec, or a terminal where
// vaultexec's own is one. What comes out there is masked and written to vaultexec's own. If both are the same file,
// they are the same pipe, which keeps the order of what is written. The pipes live as long as vaultexec and serve one
// child after the other.
//
// Each stream has a goroutine that copies and knows nothing of the child. It reads no more before what it read is
// written: a slow reader slows the child down, as it would without vaultexec.
type outputs struct {
	l       *launch
	streams []*stream
	fds     [3]int // the child's descriptors 0 to 2, as vaultexec has them

	set    atomic.Pointer[mask.Set]
	env    *environ.Env // the last one whose values are masked
	now    []string     // values of the running child, also those that replaced others in its files
	before []string     // of the one before: something of it may be on its way, or live on in another session
	told   string       // names that were left out, as they were logged last
	ended  bool         // finish was called
}

const (
	idleTime  = 40 * time.Millisecond // after which an undecided end is let go; 50 ms are promised
	lastDrain = 200 * time.Millisecond
	chunkSize = 64 << 10 // what a pipe holds
)

// openOutputs returns nil without --mask.
func (l *launch) openOutputs() (*outputs, error) {
	if !l.Masking.On {
		return nil, nil
	}
	o := &outputs{l: l, fds: [3]int{0, 1, 2}}
	o.set.Store(mask.NewSet(nil, 0))
	for _, fd := range []int{1, 2} {
		if fd == 2 && sameFile(1, 2) {
			o.fds[2] = o.fds[1]
			break
		}
		s, err := o.newStream(fd)
		if err != nil {
			return nil, maskFault(err)
		}
		o.streams = append(o.streams, s)
	}
	for _, s := range o.streams {
		s.mask = mask.Masker{Least: l.Masking.Least, Typed: s.typed}
		s.requests, s.over = make(chan request, 8), make(chan struct{})
		go s.run()
	}
	return o, nil
}

// newStream makes what the child gets as a standard descriptor, and what is read from it.
func (o *outputs) newStream(fd int) (*stream, error) {
	s := &stream{outputs: o, out: fd, name: [...]string{1: "output", 2: "error"}[fd]}
	inner := o.l.inner
	var err error
	switch {
	case inner != nil && inner.ours(fd):
		s.in, o.fds[fd], s.typed = inner.master, inner.slave, true
	case isTerminal(fd):
		if s.in, o.fds[fd], err = openPty(); err == nil {
			s.relays = true
			plainOutput(s.in, fd)
		}
	default:
		s.in, o.fds[fd], err = openPipe()
	}
	if err == nil {
		err = unix.SetNonblock(s.in, true)
	}
	if err == nil {
		s.wake, s.waker, err = openPipe()
	}
	if err == nil {
		err = unix.SetNonblock(s.wake, true)
	}
	return s, err
}

func maskFault(err error) error {
	return &fault.Error{Kind: fault.Usage, What: "cannot mask the output",
		Why: "no terminal or pipe for it: " + vault.Errno(err), Err: err,
		Hint: "where standard output and error are not terminals, pipes are enough: vaultexec … 2>&1 | cat"}
}

// openPipe returns both ends, which no other program inherits.
func openPipe() (r, w int, err error) {
	var p [2]int
	if err := pipe(&p); err != nil {
		return -1, -1, err
	}
	return p[0], p[1], nil
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, getTermios)
	return err == nil
}

// sameFile reports whether two descriptors lead to the same place.
func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// plainOutput prepares a terminal that stands in front of another: it has the same size, and does not repeat what the
// other does with line ends.
func plainOutput(pty, fd int) {
	if modes, err := unix.IoctlGetTermios(fd, getTermios); err == nil {
		modes.Oflag &^= unix.OPOST
		_ = unix.IoctlSetTermios(pty, setTermios, modes)
	}
	copySize(fd, pty)
}

// copySize makes a terminal as large as another and reports whether it was not.
func copySize(from, to int) bool {
	size, err := unix.IoctlGetWinsize(from, unix.TIOCGWINSZ)
	if err != nil {
		return false
	}
	old, err := unix.IoctlGetWinsize(to, unix.TIOCGWINSZ)
	if err != nil || *old == *size {
		return false
	}
	return unix.IoctlSetWinsize(to, unix.TIOCSWINSZ, size) == nil
}

// files are the descriptors that the child gets.
func (o *outputs) files() []uintptr {
	if o == nil {
		return []uintptr{0, 1, 2}
	}
	return []uintptr{uintptr(o.fds[0]), uintptr(o.fds[1]), uintptr(o.fds[2])}
}

// begin masks what the next child is given, before it is started.
func (o *outputs) begin(env *environ.Env) {
	if o == nil || o.env == env {
		return
	}
	o.before, o.now = o.now, nil
	o.add(env)
}

// forgetBefore lets go of what the command before was given, unless something of its output may not be written yet.
func (o *outputs) forgetBefore() {
	for _, s := range o.streams {
		if s.busy.Load() || pending(s.in) > 0 {
			return
		}
	}
	o.before = nil
	o.maskAll()
}

// add masks what the running child is given in addition.
func (o *outputs) add(env *environ.Env) {
	if o == nil || o.env == env {
		return
	}
	o.env = env
	values, leftOut := maskedValues(env, o.l.Masking.Least)
	known := make(map[string]bool, len(o.now))
	for _, v := range o.now {
		known[v] = true
	}
	for _, v := range append(values, o.credentials()...) {
		if !known[v] {
			known[v] = true
			o.now = append(o.now, v)
		}
	}
	o.maskAll()
	if names := strings.Join(leftOut, ", "); names != o.told {
		o.told = names
		o.l.Log.Debug("not masked, too short or too common", "names", names)
	}
}

// maskAll makes the set of all that is masked from now on.
func (o *outputs) maskAll() {
	o.set.Store(mask.NewSet(append(slices.Clone(o.before), o.now...), o.l.Masking.Least))
}

// resize passes the size of the window on where the child has another terminal, and reports whether it changed.
func (o *outputs) resize() bool {
	changed := false
	if o != nil {
		for _, s := range o.streams {
			changed = s.relays && copySize(s.out, s.in) || changed
		}
	}
	return changed
}

// drain writes what the child has written so far, before vaultexec stops with it. Whoever does not read is not waited
// for.
func (o *outputs) drain() {
	if o == nil {
		return
	}
	limit := time.NewTimer(lastDrain)
	defer limit.Stop()
	for _, w := range o.ask(false) {
		select {
		case <-w.done:
		case <-w.over:
		case <-limit.C:
			return
		}
	}
}

// finish writes what is left when the command and its group have ended. Others may still have the pipes open: what they
// write later is lost. finish waits for a reader that does not read, as the command would, until a signal comes that
// would end vaultexec. If one has already come, it waits for a moment.
func (o *outputs) finish(told bool) {
	if o == nil || o.ended {
		return
	}
	o.ended = true
	var limit <-chan time.Time
	if told {
		limit = time.After(farewell)
	}
	for _, w := range o.ask(true) {
		for waiting := true; waiting; {
			select {
			case <-w.done:
				waiting = false
			case <-w.over:
				waiting = false
			case <-limit:
				return
			case sig := <-o.l.signals.ch:
				if isDeadly(sig.(unix.Signal)) {
					return
				}
			}
		}
	}
}

// ask sends a request to every stream.
func (o *outputs) ask(end bool) []request {
	var all []request
	for _, s := range o.streams {
		r := request{end: end, done: make(chan struct{}), over: s.over}
		select {
		case s.requests <- r:
			_, _ = unix.Write(s.waker, []byte{0})
			all = append(all, r)
		default: // it is stuck, and has been asked
		}
	}
	return all
}
