package launcher

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/reap"
)

// start makes a child and tells the machine. It tries again for a while where the program file is being written, or
// where processes or memory are short for a moment. It also tries again where the file is missing and another command
// ran before: a deploy replaces it, perhaps by a removal and a copy.
func (s *supervisor) start() []action {
	if s.again() && s.tty != nil {
		s.tty.resetModes()
	}
	deadline := time.Now().Add(startRetry)
	for delay := time.Duration(0); ; delay = min(max(2*delay, 10*time.Millisecond), time.Second) {
		// A signal that came while there was no child ends vaultexec, and no child is started for it.
		if sig := s.waitForSignal(delay); sig != 0 {
			return s.machine.on(evSignal{sig}, time.Now())
		}
		s.notify.live()
		err := s.fork()
		if err == nil {
			s.started()
			s.notify.started()
			s.tellStatus()
			s.warmFirst()
			if s.watch != nil {
				s.watch.started(s.starting().leases())
			}
			return s.machine.on(evStarted{}, time.Now())
		}
		if !passing(err, s.again()) || !time.Now().Before(deadline) {
			return s.machine.on(evStartFailed{startErrorIn(s.Dir, s.program.path, err)}, time.Now())
		}
	}
}

// starting is the edition that a command is started with.
func (s *supervisor) starting() edition {
	if s.next != nil {
		return *s.next
	}
	return s.runs
}

// again reports whether a command ran before.
func (s *supervisor) again() bool { return !s.forkedAt.IsZero() || s.other != nil }

// passing reports whether a start may succeed a moment later. again says that the program could be started before.
func passing(err error, again bool) bool {
	is := func(errnos ...error) bool {
		return slices.ContainsFunc(errnos, func(errno error) bool { return errors.Is(err, errno) })
	}
	return is(unix.ETXTBSY, unix.EAGAIN, unix.ENOMEM, unix.ENFILE) ||
		again && is(unix.EMFILE, unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ENOEXEC, unix.ESTALE)
}

// waitForSignal waits for d, or until a deadly signal arrives, which it returns. Other signals mean nothing without a
// child: a fresh program would die of SIGUSR1.
func (s *supervisor) waitForSignal(d time.Duration) syscall.Signal {
	t := time.NewTimer(d)
	defer t.Stop()
	runtime.Gosched() // os/signal's goroutine may hold a signal that it could not put into the channel yet
	ends := func(sig os.Signal) syscall.Signal {
		switch {
		case sig == unix.SIGCONT && s.inner.left():
			return unix.SIGTERM
		case isDeadly(sig.(syscall.Signal)) && sig != s.Watching.Refresh:
			return sig.(syscall.Signal)
		}
		return 0
	}
	for over := false; ; {
		select {
		case sig := <-s.signals.ch:
			if sig := ends(sig); sig != 0 {
				return sig
			}
			continue
		default:
		}
		if over || d == 0 {
			return 0
		}
		select {
		case sig := <-s.signals.ch:
			if sig := ends(sig); sig != 0 {
				return sig
			}
		case <-s.status.turns():
		case <-t.C:
			over = true
		}
	}
}

// fork starts the command with what vaultexec itself was started with: descriptors, limits, folder. The child shares
// vaultexec's standard descriptors; it leads a group of its own unless the terminal is shared.
func (s *supervisor) fork() error {
	sys := &syscall.SysProcAttr{Setpgid: !s.sharedGroup()}
	if !setParentDeath(sys, s.Supervision.StopSignal) && !s.again() {
		s.Log.Warn("a seccomp filter refuses PR_SET_PDEATHSIG: the command gets no signal when vaultexec is killed")
	}
	front := false
	if s.tty != nil {
		s.tty.look()
		front = s.tty.own && s.tty.foreground && s.inner.inFront() && s.other == nil
	}
	next := s.starting().env
	if s.sockets == nil {
		s.sockets = s.held.current()
	}
	s.out.begin(next)
	env, fds, err := s.files.handOver(next)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	if err := s.held.listen(); err != nil {
		return err
	}
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: s.held.environ(s.said.environ(withPWD(env, s.Dir), s.notify.every())),
		Files: childFiles(s.out.files(), s.held.files(s.sockets), fds), Sys: sys}
	s.said.beforeFork()
	pid, err := s.forkExec(attr)
	s.said.afterFork(pid)
	if err != nil {
		return err
	}
	s.pid, s.left, s.stopped, s.selfStopped, s.says, s.forkedAt = pid, 0, false, false, false, time.Now()
	s.isReady, s.unready = false, false
	s.tellGuard()
	s.stopAt = time.Time{}
	// SIGTTIN or SIGTTOU stops a command that asks for the terminal before it has it. It goes on at once
	// (childStopped).
	if front {
		s.tty.give(s.tty.group, pid)
		if s.machine.tries() {
			s.keys.begin(pid)
		}
	}
	return nil
}

// forkExec starts the program, by way of the stub where something has to be done in the child's own process. Go forks
// with CLONE_VFORK: this thread waits uninterruptibly until the child has exec'ed. A Ctrl-Z in that moment would stop
// the child, whose signals are already at their default. It would stop vaultexec with it, and nobody could resume them.
// So SIGTSTP is blocked meanwhile where there is a terminal. The stub unblocks it: a stop of the stub is seen and
// treated like a stop of the command.
func (s *supervisor) forkExec(attr *syscall.ProcAttr) (pid int, err error) {
	path, argv := s.program.path, s.program.argv
	rename := namesThisProcess(attr.Env)
	guard := s.tty != nil && !isBlocked(unix.SIGTSTP)
	if (rename || guard) && executable(selfExe) != nil { // no /proc
		rename, guard = false, false
	}
	if guard || rename {
		path, argv = selfExe, append([]string{stub{terminal: guard, again: s.again()}.name(), path}, argv...)
	}
	start := func() { pid, err = syscall.ForkExec(path, argv, attr) }
	if guard {
		withBlocked(unix.SIGTSTP, start)
	} else {
		start()
	}
	return pid, err
}

// selfExe is this program, also after its file was replaced.
const selfExe = "/proc/self/exe"

// reap collects every child that has ended or stopped: the commands, the helpers, and orphans that became ours.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		ended := !status.Stopped() && !status.Continued()
		switch {
		case ended && pid == s.hook.pid:
			s.hookEnded(status)
		case ended && pid == s.guard.pid:
			s.guard.ended()
		case ended && pid == s.keys.pid:
			s.keys.ended(status)
		case ended && pid == s.asks.pid:
			s.programEnded(status)
		case s.other != nil && pid == s.other.pid:
			s.otherReaped(status)
		case pid != s.pid:
			if ended {
				reap.Ended(pid, syscall.WaitStatus(status))
			}
		case status.Stopped():
			s.stopped = true
			s.childStopped(status.StopSignal())
		case status.Continued():
			s.stopped = false
		default:
			s.childEnded(status)
		}
	}
}

func (s *supervisor) childEnded(status unix.WaitStatus) {
	typed := false
	if s.tty != nil {
		front := s.tty.inFront()
		typed = s.tty.own && (front == s.pid || front == s.tty.group || front < 0)
		s.takeTerminal()
		if status.Signaled() && s.tty.own {
			s.tty.restoreModes()
		}
	}
	if !s.sharedGroup() {
		s.left = s.pid
	}
	s.logEnd(status)
	s.status.exited(status)
	s.commandEnded(status)
	s.pid = 0
	if s.other == nil {
		s.endWarming()
	}
	s.leaveSockets()
	key := s.keys.asked()
	s.happened(evExited{status: status, typed: typed, key: key})
	if s.pid == 0 && !s.machine.followed() {
		s.held.close()
	}
}

// killGroup signals all that belongs to the child or to the one that ended.
func (s *supervisor) killGroup(sig syscall.Signal) {
	switch {
	case s.pid != 0:
		s.signalChild(sig, true)
	case s.toldAll:
		_ = unix.Kill(-1, sig)
	case s.left != 0:
		_ = unix.Kill(-s.left, sig)
	}
}

// endGroup begins the clean-up after the child.
func (s *supervisor) endGroup() {
	if s.endsAll() && othersLeft() {
		s.toldAll = true
		tellAll()
		return
	}
	if s.left != 0 && len(liveMembers(s.left)) > 0 {
		_ = unix.Kill(-s.left, unix.SIGTERM)
		_ = unix.Kill(-s.left, unix.SIGCONT) // a stopped process would not see it
		return
	}
	s.groupGone()
}

// lookAtGroup tells the machine when the group of the last child is gone.
func (s *supervisor) lookAtGroup() {
	switch {
	case !s.machine.awaitsGroup():
	case s.endsAll() && othersLeft():
		if !s.toldAll { // a signal came when another command was to follow
			s.toldAll = true
			tellAll()
		}
	case s.endsAll(), s.left == 0, len(liveMembers(s.left)) == 0:
		s.groupGone()
	}
}

// groupGone: nothing is left of the last command's group.
func (s *supervisor) groupGone() {
	if s.machine.followed() {
		s.nameSurvivors()
	}
	s.left = 0
	s.tellGuard()
	s.happened(evGroupGone{})
}

func (s *supervisor) warnLeft() {
	if names := processNames(s.leftovers()); names != "" {
		s.Log.Warn("left over after SIGKILL, not waited for: " + names)
	}
}
