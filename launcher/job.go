package launcher

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// received handles one signal of this process.
func (s *supervisor) received(sig syscall.Signal) {
	if sig == unix.SIGPIPE {
		return
	}
	if sig == unix.SIGCONT && s.inner.left() { // killed, and what it was to the command is over
		if s.pid != 0 {
			s.resumed()
		}
		sig = unix.SIGTERM
	}
	if sig == s.Watching.Refresh && s.watch != nil {
		s.refresh()
		return
	}
	if s.pid == 0 || s.machine.isStopping() {
		// The machine hears of it before the end of the child is looked at, so that no other is started.
		if s.pid != 0 {
			s.forward(sig)
		}
		s.happened(evSignal{sig})
		return
	}
	// No signal goes to a child that has ended.
	s.reap()
	if s.pid != 0 {
		s.forward(sig)
	}
	s.happened(evSignal{sig})
}

// sharedGroup reports whether the child stays in vaultexec's group.
func (s *supervisor) sharedGroup() bool { return s.tty != nil && !s.tty.own }

// forward passes a signal on, unless the terminal has sent it to the child as well.
func (s *supervisor) forward(sig syscall.Signal) {
	resized := sig == unix.SIGWINCH && s.out.resize() // whoever heard of it before saw the old size
	if s.sharedGroup() {
		changed := sig == unix.SIGWINCH && s.tty.sizeChanged(time.Now())
		front := s.tty.inFront()
		gone := front < 0
		if sig == unix.SIGHUP && gone {
			gone = s.tty.hangsUp(time.Now())
		}
		// One that ends things and came just before the fork reached nobody but vaultexec.
		early := isDeadly(sig) && time.Since(s.forkedAt) < forkMoment
		if !early && !resized && terminalSent(sig, s.tty.foreground, front == s.tty.group, changed, gone) {
			return
		}
	}
	toGroup := s.Supervision.SignalGroup
	both := sig == unix.SIGINT || sig == unix.SIGQUIT || isStop(sig) // of SIGTERM the machine has the other one told
	switch sig {
	case unix.SIGTERM:
		if s.machine.isStopping() { // the child has its stop signal already
			return
		}
		sig = s.Supervision.StopSignal
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		toGroup = true
	case unix.SIGCONT:
		s.resumed()
		return
	}
	s.signalChild(sig, toGroup)
	if both && s.other != nil && (sig != s.Supervision.StopSignal || s.other.stopAt.IsZero()) {
		s.asOther(func() { s.signalChild(sig, toGroup) })
	}
}

// isStop reports whether a signal of the terminal stops programs.
func isStop(sig syscall.Signal) bool {
	return sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU
}

// signalChild sends sig to the child, or to the child's group where it has one. Without a child it does nothing: for
// kill(2), 0 is the group of vaultexec itself.
func (s *supervisor) signalChild(sig syscall.Signal, group bool) {
	if s.pid == 0 {
		return
	}
	to := s.pid
	if group && !s.sharedGroup() {
		to = -s.pid
	}
	if err := unix.Kill(to, sig); err == unix.EPERM && !s.deniedTold {
		s.deniedTold = true
		s.Log.Warn("cannot signal the command: it runs as another user", "pid", s.pid)
	}
}

// resumed: SIGCONT arrived, from `fg`, `bg` or kill(1). The whole group goes on, not only its leader: otherwise a
// pipeline below it would stay stopped. In a shared group whoever resumed vaultexec has resumed the child, too.
func (s *supervisor) resumed() {
	self := s.selfStopped
	s.selfStopped = false
	if s.tty != nil {
		s.tty.look()
		if s.tty.own {
			if s.inner.inFront() {
				s.tty.give(s.tty.group, s.pid)
			}
		} else if self && !s.stopped {
			return
		}
	}
	s.signalChild(unix.SIGCONT, true)
	if s.other != nil {
		s.asOther(func() { s.signalChild(unix.SIGCONT, true) })
	}
}

// childStopped makes a stop of the child visible to the shell that waits for vaultexec, by stopping vaultexec too, with
// the same signal. Without a terminal nothing is done: somebody who stops and resumes the child must not leave
// vaultexec behind. Where nobody could resume vaultexec either (it leads its session), a stop by Ctrl-Z changes
// nothing: the kernel would have ignored it there without vaultexec.
func (s *supervisor) childStopped(sig syscall.Signal) {
	if s.tty == nil {
		return
	}
	// A child that was stopped because it asked for the terminal goes on if it can have it. It can after `fg` of a job
	// that runs: the shell gives the terminal to the group that it knows, and has no reason to send SIGCONT.
	if s.tty.own && (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && s.inner.inFront() &&
		(s.tty.inFront() == s.pid || s.tty.give(s.tty.group, s.pid)) {
		s.signalChild(unix.SIGCONT, true)
		return
	}
	if s.inner == nil && orphaned() {
		s.unstop(sig)
		return
	}
	if s.tty.own {
		s.tty.give(s.pid, s.tty.group)
	}
	s.out.drain()
	s.selfStopped = true
	if s.inner != nil {
		if !s.inner.stop() {
			s.selfStopped = false
			s.unstop(sig)
		}
		return
	}
	stopSelf(sig)
	// Execution goes on here after SIGCONT, which is in the channel now, or at once if the parent died in between.
	if orphaned() {
		s.selfStopped = false
		s.unstop(sig)
	}
}

// unstop undoes a stop of the child by Ctrl-Z where nobody could resume vaultexec. One that asks for a terminal that it
// cannot have stays stopped: it would ask without end.
func (s *supervisor) unstop(sig syscall.Signal) {
	if sig != unix.SIGTSTP {
		return
	}
	if s.tty.own {
		s.tty.give(s.tty.group, s.pid)
	}
	s.signalChild(unix.SIGCONT, true)
}

// takeKeys has the keys of the terminal reach vaultexec and no longer the command, which was told to stop. Ctrl-C then
// ends the run, and not only a command that another one would follow. SIGTTOU or SIGTTIN stops a command that still
// wants the terminal, to set its modes back or to ask something; it gets the terminal (childStopped).
func (s *supervisor) takeKeys() {
	if s.tty != nil && s.tty.own {
		s.tty.give(s.pid, s.tty.group)
	}
}

// takeTerminal gives the foreground back to vaultexec's group when it was the child's.
func (s *supervisor) takeTerminal() {
	if s.tty == nil || !s.tty.own {
		return
	}
	if front := s.tty.inFront(); front >= 0 && front != s.tty.group &&
		(front == s.pid || unix.Kill(-front, 0) == unix.ESRCH) {
		s.tty.give(front, s.tty.group)
	}
}
