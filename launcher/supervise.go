package launcher

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/restartlock"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Supervision is how a child is watched over.
type Supervision struct {
	StopSignal   syscall.Signal
	StopTimeout  time.Duration
	StopExplicit bool // --stop-timeout was given: a received SIGTERM has that limit, too
	SignalGroup  bool // all forwarded signals go to the child's whole group
	OKExit       OKExit
}

// child is one command: of two in a handover each has one.
type child struct {
	pid  int // 0 before its start and after its end
	left int // its group when it has ended, while that is being cleared

	runs     edition // what it has
	sockets  socketSet
	forkedAt time.Time
	stopAt   time.Time // when vaultexec told it to stop; zero if it has not
	stopped  bool      // by a signal
	served   bool      // that was seen
	says     bool      // READY=1
	unready  bool      // that it is not was said
	isReady  bool      // by --ready; started, where that was not given
}

// group is the process group of the child, as long as anything of it may be left; 0 after that.
func (c *child) group() int {
	if c == nil {
		return 0
	}
	return max(c.pid, c.left)
}

// supervisor owns the child. Everything in it belongs to the main goroutine, which is locked to the main thread. It
// alone forks, reaps and signals. So a process ID is known before it can be reaped, no signal can hit a recycled one,
// and the parent-death signal is tied to a thread that lives as long as the process.
type supervisor struct {
	*launch
	program program
	workdir workdir
	machine *machine
	tty     *terminal // nil without a controlling terminal
	files   *files

	*child                    // the command that serves
	other      *child         // the other one, in a handover; nil while there is none
	warm       *warming       // the command that is not ready yet; nil while there is none
	emptySince time.Time      // when the queue of the command that is left was seen to be empty; zero while it is not
	said       *commandNotify // what commands say; nil where nobody listens
	asks       hookRun        // the program of --ready exec:

	divertSince time.Time // when the wait for requests before a stop has begun
	diverted    bool      // new connections go elsewhere, where that can be had

	good edition  // proven to work
	next *edition // for the next child

	watch *watcher            // nil when nothing is looked at
	reads int                 // number of the last read that was asked for
	known states              // what was seen last
	took  time.Duration       // of the last read
	queue *queue              // nil without --restart-lock
	tried restartlock.Outcome // of what was not tried here
	hook  hookRun
	keys  witness // of the terminal's, while the child is in its probation

	toldAll bool         // as PID 1: everything that is left was told to end
	named   map[int]bool // processes that outlived their command, as they were logged

	selfStopped bool // vaultexec has stopped itself and waits for SIGCONT
	deniedTold  bool

	chld  chan os.Signal
	timer *time.Timer

	guard   guard
	guarded bool        // the command gets a guard
	settled *time.Timer // once: settleDown
}

const (
	groupPoll  = 10 * time.Millisecond // while a group is being cleared
	startRetry = 10 * time.Second      // for what may pass
	// Within forkMoment a signal from before the fork is received; no program has a handler so soon.
	forkMoment = 10 * time.Millisecond
)

// supervise runs the command as a child until it has ended. It returns *Exited, *Killed or the failure to start.
func (l *launch) supervise(p program, env *environ.Env, got []environ.Fetched) error {
	s := &supervisor{
		launch: l, program: p, workdir: currentWorkdir(l.Started), child: &child{runs: edition{env: env, got: got}}, known: states{},
		machine: newMachine(l.policy()),
		files:   newFiles(l.AllowDisk, l.AllowOwner...),
		chld:    make(chan os.Signal, 1),
		timer:   time.NewTimer(time.Hour),
	}
	s.timer.Stop()
	if s.notify == nil { // it is a lease that has vaultexec stay
		s.takeNotify()
		if s.notify != nil {
			env.DropInherited(notifyVariables)
		}
	}
	if l.wantsNotify() {
		s.said = listenToCommand()
	}
	s.held.begin()
	becomeSubreaper()
	s.tty = openTerminal()
	signal.Notify(s.chld, unix.SIGCHLD)
	s.signals.catchAll()
	oneProcessor() // from here on it mostly sleeps
	reserveThreads()
	s.do(s.start())
	s.publish() // while the paths are known, whatever follows
	s.guarded, s.settled = s.needsGuard(), time.NewTimer(settleDelay)
	vault.Slim()
	finish := s.attend(p, got)
	s.tellFirst()
	s.publish()
	s.loop()
	s.endWarming()
	s.said.close()
	s.guard.end()
	s.notify.ends()
	s.shutDown(finish)
	return s.counted(s.machine.outcome())
}

// attend starts what goes on beside the child: the watch and the life of the token. Where nothing needs Vault any more,
// it starts the token's revocation instead. The function that it returns ends that.
func (s *supervisor) attend(p program, got []environ.Fetched) (finish func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	if !s.machine.over() && (s.Watching.Interval > 0 && len(s.Sources) > 0 || ends(got)) {
		s.Session.Client.Bound()
		s.watch = newWatcher(s.launch, p, got)
		s.runs.states = s.watch.records.states(newest)
		s.good = s.runs
		s.queue = newQueue(s.RestartLock, s.Log)
		done.Go(func() { s.watch.run(ctx) })
		done.Go(func() { s.Session.Keep(ctx, s.Log) })
		collectOften()
		return func(last context.Context) {
			cancel()
			var left sync.WaitGroup // beside the revocation, which must not lose its time to an engine that does not answer
			if s.queue != nil {
				left.Go(func() { s.queue.close(last, s.machine.ownCode()) })
			}
			done.Wait()
			giveBack(last, s.Session, s.watch.toRevoke())
			left.Wait()
		}
	}
	session := s.Session
	s.forget()
	over := make(chan struct{})
	done.Go(func() {
		giveBack(ctx, session, leases(got))
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
		stopSignal: l.Supervision.StopSignal, okExit: l.Supervision.OKExit,
		stopTimeout: l.Supervision.StopTimeout, stopExplicit: l.Supervision.StopExplicit,
		onChange: w.OnChange.Do, exitCode: w.OnChange.Code, settle: w.Settle, splay: w.Splay, minUptime: w.MinUptime,
		probation: w.Probation, rollback: w.Rollback, startFirst: l.StartFirst, diverts: l.held.canSteer(),
		locks: l.RestartLock.Engine != nil, lockWait: l.RestartLock.Wait, lockRequired: l.RestartLock.Required,
		canary: l.RestartLock.Canary,
		random: func(d time.Duration) time.Duration { return rand.N(d + 1) },
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
	for !s.machine.over() {
		if s.machine.polls() && poll == nil {
			poll = time.NewTicker(groupPoll)
			tick = poll.C
		} else if !s.machine.polls() && poll != nil {
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
			s.lookAtOther()
			s.lookAtRequests()
		case err := <-s.warm.ready():
			s.warmed(err)
		case <-s.warm.wantsRun():
			s.askProgram()
		case <-s.asks.over():
			s.asks.tooLong()
		case m := <-s.said.said():
			s.heardCommand(m)
		case ev := <-news:
			s.heard(ev)
		case ev := <-s.queue.events():
			s.heardQueue(ev)
		case <-s.notify.tick():
			s.notify.live()
		case <-s.status.turns():
			continue
		case <-s.status.refreshes():
			s.refresh()
		case <-s.status.tokens():
		case v := <-s.status.looks():
			s.status.seen = v
		case <-s.settled.C:
			s.settleDown()
		case <-s.hook.over():
			s.hook.tooLong()
		case <-s.timer.C:
			s.happened(evTimer{})
		}
		s.publish()
	}
	if poll != nil {
		poll.Stop()
	}
}

// arm sets the one timer to the machine's next deadline.
func (s *supervisor) arm() {
	due := s.machine.nextDue()
	if due.IsZero() {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(time.Until(due), 0))
}

// happened hands an event to the machine and carries its actions out.
func (s *supervisor) happened(ev event) {
	s.do(s.machine.on(ev, time.Now()))
	if s.machine.isEnding() {
		s.notify.ends()
		s.held.close() // who comes now is to be refused, and not to wait in vain
	}
}

func (s *supervisor) do(acts []action) {
	for _, a := range acts {
		switch a {
		case actStart:
			s.do(s.start())
		case actRevert:
			good := s.lastGood()
			s.next = &good
			s.watch.reject(s.machine.rejected, s.good)
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
			s.watch.ask(s.reads)
		case actHook:
			s.startHook()
		case actSkipHook:
			s.afterHook(s.startable())
		case actDivert:
			s.divert()
		case actStop:
			s.logStop()
			if s.machine.next == toRestart {
				s.replaces("restarting: " + s.runs.states.text(s.next.states))
			}
			s.keys.end()
			s.takeKeys()
			s.stopAt = time.Now()
			s.held.commandStops(s.machine.followed())
			s.signalChild(s.Supervision.StopSignal, s.Supervision.SignalGroup)
			if s.stopped {
				s.signalChild(unix.SIGCONT, true)
			}
		case actSignal:
			s.logDecision("secrets changed, signalling the command")
			s.signalChild(s.Watching.OnChange.Signal, s.Supervision.SignalGroup)
			s.watch.acted()
		case actKill:
			s.logKill()
			s.killGroup(unix.SIGKILL)
		case actTermGroup:
			s.endGroup()
		case actAbortHook:
			s.hook.kill()
		case actWarnLeft:
			s.warnLeft()
		case actStartBeside:
			s.do(s.startBeside())
		case actSwitch:
			s.switchOver()
		case actStopOther:
			s.stopOther()
		case actKillOther:
			s.killOther()
		case actSweepOther:
			s.sweepOther()
		case actForgetOther:
			s.forgetOther()
		case actLogUnready:
			if s.logUnready(); !s.machine.passing {
				s.watch.reject(s.machine.rejected, s.runs)
			}
		case actLogBack:
			s.logAction(a)
			s.watch.reject(s.machine.rejected, s.other.runs)
		case actQueue:
			s.queue.ask(s.machine.turnSet, s.runs.states.text(s.known), s.machine.turnUntil)
		case actLeaveTurn:
			s.queue.leave()
		case actTellGood:
			s.queue.tell(s.machine.triedSet, true)
		case actTellBad:
			s.queue.tell(s.machine.triedSet, false)
		case actRejectTried:
			s.logAction(a)
			s.watch.reject(s.machine.rejected, s.runs)
		case actLogNone: // who looks at its files by itself finds the new ones
			s.logAction(a)
			s.rewrite(s.next.env)
			s.watch.acted()
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
		s.happened(evChanged{again: ev.again, by: ev.by})
		return
	}
	if !s.machine.awaitsRead() {
		return
	}
	s.took = r.took
	same := r.env != nil && r.env.Equal(s.runs.env)
	if r.env == nil || same && r.flawed {
		s.happened(evRead{failed: true, moving: r.moving, by: ev.by})
		return
	}
	s.next = &edition{env: r.env, states: r.wish.states, got: r.got}
	s.known = maps.Clone(ev.states) // without what is no longer in its folder
	set := r.states.set()
	if set == s.runs.states.set() {
		set = ""
	}
	s.happened(evRead{same: same, moving: r.moving, id: r.id, set: set, pinned: r.pinned, by: ev.by,
		beside: len(changedBesideFiles(s.runs.env, r.env)) > 0})
}

// lastGood is what worked last, with the present leases.
func (s *supervisor) lastGood() edition {
	return s.good.withLeasesOf(s.runs, func(got []environ.Fetched) (*environ.Env, error) {
		return environ.Build(got, s.Rules, s.Environ)
	})
}

// heardQueue takes what the queue for a place in the lock sends.
func (s *supervisor) heardQueue(ev queueEvent) {
	if s.queue.meant(ev) {
		s.tried = ev.tried
		s.happened(ev.event)
	}
}
