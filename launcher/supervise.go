package launcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/reap"
)

// Supervision is how a child is watched over.
type Supervision struct {
	StopSignal   syscall.Signal
	StopTimeout  time.Duration
	StopExplicit bool // --stop-timeout was given: a received SIGTERM has that limit, too
	SignalGroup  bool // all forwarded signals go to the child's whole group
	OKExit       OKExit
}

// supervisor owns the child. Everything in it belongs to the main goroutine, which is locked to the main thread: it alone
// forks, reaps and signals, so that a process ID is known before it can be reaped, no signal can hit a recycled one, and the
// parent-death signal is tied to a thread that lives as long as the process.
type supervisor struct {
	*launch
	program program
	workdir workdir
	machine *machine
	tty     *terminal // nil without a controlling terminal
	files   *files

	runs edition  // what the running child has
	good edition  // proven to work
	next *edition // for the next child

	watch *watcher      // nil when nothing is looked at
	reads int           // number of the last read that was asked for
	known states        // what was seen last
	since time.Time     // when the change under way was seen
	took  time.Duration // of the last read
	hook  hookRun
	keys  witness // of the terminal's, while the child is in its probation

	pid  int // of the child; 0 while there is none
	left int // group of the child that ended last, while it is being cleared

	toldAll bool         // as PID 1: everything that is left was told to end
	named   map[int]bool // processes that outlived their command, as they were logged

	forkedAt    time.Time
	stopAt      time.Time // when vaultexec told the child to stop; zero if it has not
	stopped     bool      // the child is stopped
	selfStopped bool      // vaultexec has stopped itself and waits for SIGCONT
	deniedTold  bool

	chld  chan os.Signal
	timer *time.Timer

	guard      guard
	guardTimer *time.Timer // nil where no guard is needed
}

const (
	groupPoll  = 10 * time.Millisecond // while a group is being cleared
	startRetry = 10 * time.Second      // for what may pass
	forkMoment = 10 * time.Millisecond // in which a signal from before the fork is received; no program has a handler so soon
)

// supervise runs the command as a child until it has ended. It returns *Exited, *Killed or the failure to start.
func (l *launch) supervise(p program, env *Env, got []fetched) error {
	s := &supervisor{
		launch: l, program: p, workdir: currentWorkdir(l.Started), runs: edition{env: env}, known: states{},
		machine: newMachine(l.policy()),
		files:   newFiles(l.AllowDisk, l.AllowOwner...),
		chld:    make(chan os.Signal, 1),
		timer:   time.NewTimer(time.Hour),
	}
	s.timer.Stop()
	if s.notify == nil { // it is a lease that has vaultexec stay
		s.takeNotify()
		if s.notify != nil {
			env.inherit = withoutNotify(env.inherit)
		}
	}
	becomeSubreaper()
	s.tty = openTerminal()
	signal.Notify(s.chld, unix.SIGCHLD)
	s.signals.catchAll()
	oneProcessor() // from here on it mostly sleeps
	reserveThreads()
	s.do(s.start())
	if s.needsGuard() {
		s.guardTimer = time.NewTimer(guardDelay)
	}
	finish := s.attend(p, got)
	releaseProgram()
	s.loop()
	s.guard.end()
	s.notify.ends()
	s.shutDown(finish)
	return s.counted(s.outcome())
}

// attend starts what goes on beside the child: the watch and the life of the token, or, where nothing needs Vault any more, the
// token's revocation. The function that it returns ends that.
func (s *supervisor) attend(p program, got []fetched) (finish func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	if s.machine.state != ended && (s.Watching.Interval > 0 && len(s.Sources) > 0 || len(leases(got)) > 0) {
		s.Session.Client.Bound()
		s.watch = newWatcher(s.launch, p, got)
		s.runs.states = s.watch.statesOf(got)
		s.good = s.runs
		done.Go(func() { s.watch.run(ctx) })
		done.Go(func() { s.Session.Keep(ctx, s.Log) })
		collectOften()
		debug.FreeOSMemory()
		return func(last context.Context) {
			cancel()
			done.Wait()
			s.Session.Revoke(last)
		}
	}
	session := s.Session
	s.forget()
	over := make(chan struct{})
	done.Go(func() {
		session.Revoke(ctx)
		session.Client.CloseIdle()
		select {
		case <-time.After(connEnd):
			clearFreed()
			releaseProgram()
		case <-over:
		}
	})
	return func(context.Context) {
		close(over)
		done.Wait()
		cancel()
	}
}

// policy is what the machine needs of the options.
func (l *launch) policy() policy {
	w := l.Watching
	return policy{
		stopSignal: l.Supervision.StopSignal, okExit: l.Supervision.OKExit, stopTimeout: l.Supervision.StopTimeout, stopExplicit: l.Supervision.StopExplicit,
		onChange: w.OnChange.Do, settle: w.Settle, splay: w.Splay, minUptime: w.MinUptime,
		probation: w.Probation, rollback: w.Rollback, random: func(d time.Duration) time.Duration { return rand.N(d + 1) },
	}
}

// loop waits for events until nothing is left to do.
func (s *supervisor) loop() {
	var poll *time.Ticker
	var tick <-chan time.Time
	var news <-chan watchEvent
	if s.watch != nil {
		news = s.watch.out
	}
	for s.machine.state != ended {
		if s.machine.state == clearing && poll == nil {
			poll = time.NewTicker(groupPoll)
			tick = poll.C
		} else if s.machine.state != clearing && poll != nil {
			poll.Stop()
			poll, tick = nil, nil
		}
		s.arm()
		select {
		case sig := <-s.signals.ch:
			s.received(sig.(syscall.Signal))
		case <-s.chld:
			s.reap()
		case <-tick:
			s.reap()
			s.lookAtGroup()
		case ev := <-news:
			s.heard(ev)
		case <-s.notify.tick():
			s.notify.live()
		case <-s.guardDue():
			s.guard.begin(s.Supervision.StopTimeout, max(s.pid, s.left))
		case <-s.hook.over():
			s.hook.tooLong()
		case <-s.timer.C:
			s.happened(evTimer{})
		}
	}
	if poll != nil {
		poll.Stop()
	}
}

// arm sets the one timer to the deadline of the machine's state.
func (s *supervisor) arm() {
	if s.machine.deadline.IsZero() {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(time.Until(s.machine.deadline), 0))
}

// happened hands an event to the machine and carries its actions out.
func (s *supervisor) happened(ev event) {
	s.do(s.machine.on(ev, time.Now()))
	if s.machine.state == ending {
		s.notify.ends()
	}
}

func (s *supervisor) do(acts []action) {
	for _, a := range acts {
		switch a {
		case actStart:
			s.do(s.start())
		case actRevert:
			good := s.good
			s.next = &good
		case actAccept:
			if s.next != nil {
				s.runs, s.next = *s.next, nil
			}
		case actDrop:
			s.next = nil
		case actKeepGood:
			s.good = s.runs
			s.keys.end()
			s.unmaskBefore()
		case actRead:
			s.reads++
			s.watch.reads <- s.reads
		case actHook:
			s.startHook()
		case actStop:
			s.logDecision(stopText[s.machine.next])
			s.keys.end()
			s.takeKeys()
			s.stopAt = time.Now()
			s.signalChild(s.Supervision.StopSignal, s.Supervision.SignalGroup)
			if s.stopped {
				s.signalChild(unix.SIGCONT, true)
			}
		case actSignal:
			s.logDecision("secrets changed, signalling the command")
			s.signalChild(s.Watching.OnChange.Signal, s.Supervision.SignalGroup)
		case actKill:
			s.logKill()
			s.killGroup(unix.SIGKILL)
		case actTermGroup:
			s.endGroup()
		case actAbortHook:
			s.hook.kill()
		case actWarnLeft:
			s.warnLeft()
		case actLogNone: // who looks at its files by itself finds the new ones
			s.logAction(a)
			s.rewrite(s.next.env)
		default:
			s.logAction(a)
		}
	}
}

// heard takes what the watcher sends.
func (s *supervisor) heard(ev watchEvent) {
	r := ev.read
	if r != nil && r.number != s.reads { // asked for by a state that is gone
		return
	}
	maps.Copy(s.known, ev.states)
	if r == nil {
		switch s.machine.state {
		case running, stopping, clearing, starting:
			s.since = time.Now()
		}
		s.happened(evChanged{again: ev.again})
		return
	}
	if s.machine.state != reading {
		return
	}
	s.took = r.took
	if r.env == nil {
		s.happened(evRead{failed: true, moving: r.moving})
		return
	}
	s.next, s.known = &edition{r.env, ev.states}, maps.Clone(ev.states) // without what is no longer in its folder
	s.happened(evRead{same: r.env.Equal(s.runs.env), moving: r.moving, id: r.id})
}

// start makes a child and tells the machine. A program file that is being written, or a momentary lack of processes or
// memory, is tried again for a while. So is one that is missing when another command ran before: a deploy replaces it, perhaps
// by a removal and a copy.
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
			s.notify.started()
			return s.machine.on(evStarted{}, time.Now())
		}
		if !passing(err, s.again()) || !time.Now().Before(deadline) {
			return s.machine.on(evStartFailed{startErrorIn(s.Dir, s.program.path, err)}, time.Now())
		}
	}
}

// again reports whether a command ran before.
func (s *supervisor) again() bool { return !s.forkedAt.IsZero() }

// passing reports whether a start may succeed a moment later. again says that the program could be started before.
func passing(err error, again bool) bool {
	is := func(errnos ...error) bool {
		return slices.ContainsFunc(errnos, func(errno error) bool { return errors.Is(err, errno) })
	}
	return is(unix.ETXTBSY, unix.EAGAIN, unix.ENOMEM, unix.ENFILE) || again && is(unix.EMFILE, unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ENOEXEC, unix.ESTALE)
}

// waitForSignal waits for d, or until a deadly signal is there, which it returns. Others mean nothing without a child: a
// fresh program would die of SIGUSR1.
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
		front = s.tty.own && s.tty.foreground && s.inner.inFront()
	}
	next := s.runs.env
	if s.next != nil {
		next = s.next.env
	}
	s.out.begin(next)
	env, fds, err := s.files.handOver(next)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: withPWD(env, s.Dir), Files: childFiles(s.out.files(), fds), Sys: sys}
	pid, err := s.forkExec(attr)
	if err != nil {
		return err
	}
	s.guard.tell(pid)
	s.pid, s.left, s.stopped, s.selfStopped, s.forkedAt = pid, 0, false, false, time.Now()
	s.stopAt = time.Time{}
	// A command that asks for the terminal before it has it is stopped by SIGTTIN or SIGTTOU, and goes on at once (childStopped).
	if front {
		s.tty.give(s.tty.group, pid)
		if s.machine.next == toRestart && s.machine.rollback && s.machine.probation > 0 {
			s.keys.begin(pid)
		}
	}
	return nil
}

// forkExec starts the program, by way of the stub where something has to be done in the child's own process. Go forks with
// CLONE_VFORK: this thread waits uninterruptibly until the child has exec'ed. A Ctrl-Z in that moment would stop the child, whose
// signals are at their default already, and with it vaultexec, and nobody could resume them. So SIGTSTP is blocked meanwhile
// where there is a terminal, and the stub unblocks it: a stop of the stub is seen and treated like one of the command.
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

// sharedGroup reports whether the child stays in vaultexec's group.
func (s *supervisor) sharedGroup() bool { return s.tty != nil && !s.tty.own }

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
		select {
		case s.watch.look <- struct{}{}:
		default: // it is about to look anyway
		}
		return
	}
	if s.pid == 0 || s.machine.state == stopping {
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
	switch sig {
	case unix.SIGTERM:
		if s.machine.state == stopping { // the child has its stop signal already
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
}

// resumed: SIGCONT arrived, from `fg`, `bg` or kill(1). The whole group goes on, not only its leader: a pipeline below it
// would stay stopped. In a shared group whoever resumed vaultexec has resumed the child, too.
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
}

// signalChild sends sig to the child, or to its group where it has one. Without a child it does nothing: for kill(2), 0 is the
// group of vaultexec itself.
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
	case s.machine.state != clearing:
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
	if s.machine.next == toRestart || s.machine.next == toRevert {
		s.nameSurvivors()
	}
	s.guard.tell(0)
	s.happened(evGroupGone{})
}

func (s *supervisor) warnLeft() {
	if names := processNames(s.leftovers()); names != "" {
		s.Log.Warn("left over after SIGKILL, not waited for: " + names)
	}
}

// reap collects every child that has ended or stopped: the command, and orphans that became ours.
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
		if pid == s.hook.pid && pid != 0 && !status.Stopped() && !status.Continued() {
			s.hookEnded(status)
			continue
		}
		if pid == s.guard.pid && pid != 0 && !status.Stopped() && !status.Continued() {
			s.guard.ended()
			continue
		}
		if pid == s.keys.pid && pid != 0 && !status.Stopped() && !status.Continued() {
			s.keys.ended(status)
			continue
		}
		if pid != s.pid {
			if !status.Stopped() && !status.Continued() {
				reap.Ended(pid, syscall.WaitStatus(status))
			}
			continue
		}
		switch {
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
	s.pid = 0
	key := s.keys.asked()
	s.happened(evExited{status: status, typed: typed, key: key})
}

// takeKeys has the keys of the terminal reach vaultexec and no longer the command, which was told to stop: Ctrl-C ends the run
// then, and not only a command that another one would follow. A command that still wants the terminal, to set its modes back
// or to ask something, is stopped by SIGTTOU or SIGTTIN, and gets it (childStopped).
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
	if front := s.tty.inFront(); front >= 0 && front != s.tty.group && (front == s.pid || unix.Kill(-front, 0) == unix.ESRCH) {
		s.tty.give(front, s.tty.group)
	}
}

// childStopped makes a stop of the child visible to the shell that waits for vaultexec, by stopping vaultexec too, with the
// same signal. Without a terminal nothing is done: somebody who stops and resumes the child must not leave vaultexec behind.
// Where nobody could resume vaultexec either (it leads its session), a stop by Ctrl-Z changes nothing: the kernel would have
// ignored it there without vaultexec.
func (s *supervisor) childStopped(sig syscall.Signal) {
	if s.tty == nil {
		return
	}
	// A child that was stopped because it asked for the terminal goes on if it can have it. That is so after `fg` of a job that
	// runs: the shell gives the terminal to the group that it knows, and has no reason to send SIGCONT.
	if s.tty.own && (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && s.inner.inFront() && (s.tty.inFront() == s.pid || s.tty.give(s.tty.group, s.pid)) {
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

// unstop undoes a stop of the child by Ctrl-Z where nobody could resume vaultexec. One that asks for a terminal that it cannot
// have stays stopped: it would ask without end.
func (s *supervisor) unstop(sig syscall.Signal) {
	if sig != unix.SIGTSTP {
		return
	}
	if s.tty.own {
		s.tty.give(s.tty.group, s.pid)
	}
	s.signalChild(unix.SIGCONT, true)
}

// outcome is what vaultexec ends with.
func (s *supervisor) outcome() error {
	m := s.machine
	switch {
	case m.err != nil:
		return m.err
	case m.next == toDie:
		return &Killed{Signal: m.signal}
	case m.signal != 0 && m.status.Signaled() && m.status.Signal() == s.Supervision.StopSignal: // which was vaultexec's own
		return &Killed{Signal: m.signal}
	case m.next == toExit:
		return &Exited{Code: s.Watching.OnChange.Code} // the decision was logged
	case m.status.Signaled():
		return &Killed{Signal: m.status.Signal()}
	}
	return &Exited{Code: m.status.ExitStatus()}
}

// stubName is argv[0] of vaultexec started as a stub that sets LISTEN_PID and WATCHDOG_PID to its own process ID and becomes
// the command. Only a process itself knows its ID before it runs; socket activation compares them (sd_listen_fds(3)).
const stubName = "vaultexec: starting the command"

// stub is what the name says beside that.
type stub struct {
	terminal bool // SIGTSTP is to be unblocked
	again    bool // a command ran before
}

func (s stub) name() string {
	name := stubName
	if s.again {
		name += " again"
	}
	if s.terminal {
		name += " in a terminal"
	}
	return name
}

func parseStub(argv0 string) (s stub, ok bool) {
	for _, s.again = range []bool{false, true} {
		for _, s.terminal = range []bool{false, true} {
			if argv0 == s.name() {
				return s, true
			}
		}
	}
	return stub{}, false
}

// pidVariables name the process that they are meant for.
var pidVariables = []string{"LISTEN_PID", "WATCHDOG_PID"}

func namesThisProcess(env []string) bool {
	self := fmt.Sprint(os.Getpid())
	for _, kv := range env {
		for _, name := range pidVariables {
			if kv == name+"="+self {
				return true
			}
		}
	}
	return false
}

// IsStub reports whether vaultexec was started by itself as the stub.
func IsStub(args []string) bool {
	if len(args) <= 2 {
		return false
	}
	_, ok := parseStub(args[0])
	return ok
}

// RunStub becomes the command args[1] with the arguments after it. It returns only if that failed.
func RunStub(args, environ []string) error {
	// A signal that is meant for the command and comes before it exists does what it would do to the command then. Go would
	// print a stack for SIGQUIT, swallow others, and lose what its handler has when execve comes.
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if sig != perThread && !isIgnored(sig) {
			setDefault(sig)
		}
	}
	awaitHandlers()
	this, _ := parseStub(args[0])
	if this.terminal {
		unblock(unix.SIGTSTP)
	}
	path, argv, env := args[1], args[2:], renameProcess(environ)
	for deadline, delay := time.Now().Add(startRetry), 10*time.Millisecond; ; delay = min(2*delay, time.Second) {
		err := unix.Exec(path, argv, env)
		if !passing(err, this.again) || !time.Now().Before(deadline) {
			return startError(path, err)
		}
		time.Sleep(delay)
	}
}

// renameProcess has the variables that name the parent name this process. LISTEN_PIDFDID of systemd 259 says the same as
// LISTEN_PID for a process ID that is used again: the inode of a pidfd.
func renameProcess(environ []string) []string {
	parent, self := fmt.Sprint(os.Getppid()), fmt.Sprint(os.Getpid())
	env := make([]string, 0, len(environ))
	listens := slices.Contains(environ, "LISTEN_PID="+parent)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case value == parent && slices.Contains(pidVariables, name):
			kv = name + "=" + self
		case listens && name == "LISTEN_PIDFDID":
			id := pidfdID()
			if id == 0 { // it need not be there
				continue
			}
			kv = fmt.Sprintf("%s=%d", name, id)
		}
		env = append(env, kv)
	}
	return env
}
