package launcher

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/notify"
)

// What supervise.go carries out in a handover (handover.go): it starts the next command beside the one that serves,
// waits until that is ready (ready.go), has it serve, and ends the old one.

// besideOnTerminal refuses two commands where both would be in vaultexec's own group, with the keys of the terminal for
// both: nobody could tell them apart.
func (l *launch) besideOnTerminal() error {
	if !l.StartFirst || l.Watching.Interval == 0 && len(l.Sources) == 0 {
		return nil
	}
	t := openTerminal()
	if t == nil {
		return nil
	}
	defer unix.Close(t.fd)
	if t.own {
		return nil
	}
	return &fault.Error{Kind: fault.Usage, What: "cannot use --restart-order start-first",
		Why:  "two commands in one group cannot be told apart",
		Hint: "on this terminal the command shares vaultexec's process group: start vaultexec by itself and not in a pipeline or a script, or without a terminal (setsid, systemd, a container)"}
}

// afterDrained is how long the old command may still be busy to accept what it took out of its queue.
const afterDrained = 100 * time.Millisecond

// asOther does something with the command that does not serve, as if it did.
func (s *supervisor) asOther(f func()) {
	s.child, s.other = s.other, s.child
	f()
	s.child, s.other = s.other, s.child
}

// startBeside starts the next command beside the one that serves.
func (s *supervisor) startBeside() []action {
	s.logDecision("secrets changed, starting the new command beside the old one")
	s.endWarming() // of a first command that is not ready yet
	s.replaces("starting the new command beside the old one: " + s.runs.states.text(s.next.states))
	next := &child{runs: *s.next}
	var err error
	if next.sockets, err = s.held.add(); err == nil {
		s.other = next
		s.asOther(func() { err = s.fork() })
	}
	if err != nil {
		if s.other = nil; next.sockets != nil {
			s.held.retire(next.sockets)
		}
		return s.machine.on(evBesideFailed{startErrorIn(s.Dir, s.program.path, err), passing(err, true)}, time.Now())
	}
	s.next = nil
	s.sayShared()
	s.warm = s.newWarming(next, false)
	s.seeKeys()
	return nil
}

// sayShared says once of each address that both commands have one socket for it, and why.
func (s *supervisor) sayShared() {
	if s.held == nil {
		return
	}
	for _, g := range s.held.groups {
		name := g.Current().String()
		if why := g.Shared(); why != "" && !slices.Contains(s.held.told, name) {
			s.held.told = append(s.held.told, name)
			s.Log.Info("both commands share a socket, and connections may reach either of them until the old one ends",
				"listen", name, "why", why)
		}
	}
}

// warmed: the next command is ready, or nobody will know.
func (s *supervisor) warmed(err error) {
	begun := s.warm.begun
	s.endWarming()
	if s.other == nil { // the first command of a run
		if err != nil {
			s.notReady(err, begun)
			return
		}
		s.isReady = true
		s.notify.commandReady()
		s.tellFirst()
		return
	}
	if err != nil {
		s.happened(evUnready{err})
		return
	}
	s.other.isReady = true
	s.notify.commandReady()
	s.happened(evReady{})
}

func (s *supervisor) endWarming() {
	s.warm.end()
	s.warm = nil
	s.asks.kill()
}

// warmFirst waits for the command that serves where systemd or --status does, and nobody else is waited for.
func (s *supervisor) warmFirst() {
	if s.warm == nil && s.pid != 0 && (s.notify.awaitsCommand() || s.status != nil && !s.isReady) {
		s.warm = s.newWarming(s.child, true)
	}
}

// newWarming begins to wait for a command that was started. first says that there is no other one.
func (s *supervisor) newWarming(c *child, first bool) *warming {
	u := warmup{want: s.Ready, pid: c.pid, first: first, told: s.said != nil}
	for i, own := range c.sockets {
		u.sockets = append(u.sockets, warmSocket{own, s.held.groups[i]})
	}
	if u.want.By == ReadyAuto {
		u.sockets = append(u.sockets, activated(s.Environ)...)
	}
	w := newWarming(u)
	if c.says {
		w.heard(notify.Message{Ready: true})
	}
	return w
}

// askProgram runs the program of --ready exec:.
func (s *supervisor) askProgram() {
	c := s.other
	if c == nil {
		c = s.child
	}
	var err error
	if s.asks, err = forkReady(s.Ready.Program, s.Environ, readyEnv(s.Environ, c.runs.sets, c.pid)); err != nil {
		s.warm.notRun(err)
	}
}

// programEnded: the program of --ready exec: has.
func (s *supervisor) programEnded(status unix.WaitStatus) {
	late := s.asks.ended()
	if s.warm != nil {
		s.warm.exited(status, late)
	}
}

// heardCommand takes what a process of a command has said.
func (s *supervisor) heardCommand(m said) {
	defer m.Close()
	serves := m.group == s.child.group()
	next := s.child
	if s.other != nil {
		next = s.other
	}
	for _, c := range []*child{s.child, s.other} {
		if c != nil && m.group == c.group() {
			c.says = c.says || m.Ready
		}
	}
	if s.warm != nil && m.group == next.group() {
		s.warm.heard(m.Message)
	}
	if serves {
		if m.Watchdog && s.notify != nil {
			s.notify.keeps = true
		}
		s.notify.pass(&m.Message, s.Masking.On)
	}
}

// switchOver has the other command serve.
func (s *supervisor) switchOver() {
	s.endWarming()
	old := s.child
	s.child, s.other = s.other, s.child
	s.served = true
	s.handedOver(old)
	s.held.steer(s.sockets)
	s.emptySince = time.Time{}
	s.warmFirst() // one that takes the place of another before it is ready
	if s.tty != nil && s.tty.own && s.pid != 0 && !s.tty.give(old.group(), s.pid) && s.inner.inFront() {
		s.tty.look()
		if s.tty.foreground { // the old one has ended, and vaultexec has taken the terminal back
			s.tty.give(s.tty.group, s.pid)
		}
	}
	s.seeKeys()
	if s.stopped && s.tty != nil && s.tty.own { // it asked for the terminal before it could have it
		defer s.childStopped(unix.SIGTTIN)
	}
	s.tellGuard()
	s.tellStatus()
	s.Log.Info("the new command serves", "command", s.name(), "pid", s.pid, "after", duration(time.Since(s.forkedAt)))
}

// lookAtOther looks at what is polled of the command that does not serve: its queue, or what is left of its group.
func (s *supervisor) lookAtOther() {
	switch {
	case s.other == nil:
	case s.machine.isDraining():
		s.lookAtQueue(s.other.sockets, afterDrained)
	case s.machine.isSweeping() && len(liveMembers(s.other.left)) == 0:
		s.happened(evOtherGone{})
	}
}

// seeKeys watches for a key that ends the command in front: that is the end of both, and no failure.
func (s *supervisor) seeKeys() {
	if s.tty != nil && s.tty.own && s.pid != 0 && s.tty.inFront() == s.pid {
		s.keys.begin(s.pid)
	}
}

func (s *supervisor) stopOther() {
	s.endWarming()
	s.other.stopAt = time.Now()
	s.asOther(func() {
		s.signalChild(s.Supervision.StopSignal, s.Supervision.SignalGroup)
		if s.stopped {
			s.signalChild(unix.SIGCONT, true)
		}
	})
}

func (s *supervisor) killOther() {
	s.asOther(func() {
		if s.pid != 0 {
			s.Log.Warn("the command did not stop in time, it gets SIGKILL", "command", s.name(), "pid", s.pid, "after",
				duration(time.Since(s.stopAt)), "hint", "--stop-timeout gives it more time")
			s.signalChild(unix.SIGKILL, true)
			return
		}
		if s.left != 0 {
			_ = unix.Kill(-s.left, unix.SIGKILL)
		}
	})
}

// otherReaped: the command that does not serve has ended, or was stopped or resumed by a signal.
func (s *supervisor) otherReaped(status unix.WaitStatus) {
	switch {
	case status.Stopped():
		s.other.stopped = true
		// Without the terminal it cannot do what it was stopped for, and nobody would resume it.
		if sig := status.StopSignal(); sig == unix.SIGTTIN || sig == unix.SIGTTOU {
			return
		}
	case status.Continued():
		s.other.stopped = false
	default:
		s.asOther(func() {
			s.logEnd(status)
			s.status.exited(status)
			s.left, s.pid = s.pid, 0
		})
		s.endWarming()
		s.happened(evOtherExited{status})
	}
}

// sweepOther ends what is left of the group of the command that does not serve, and has ended.
func (s *supervisor) sweepOther() {
	if s.other == nil {
		return
	}
	if left := s.other.left; left != 0 && len(liveMembers(left)) > 0 {
		_ = unix.Kill(-left, unix.SIGTERM)
		_ = unix.Kill(-left, unix.SIGCONT)
	}
}

// forgetOther: there is one command again. What the other one had is given back.
func (s *supervisor) forgetOther() {
	s.endWarming()
	if s.other != nil {
		s.held.retire(s.other.sockets)
	}
	s.said.forget(s.other.group())
	s.other, s.next = nil, nil
	s.tellGuard()
	if s.machine.gaveUpNext() {
		s.tellStatus()
		s.out.begin(s.runs.env)
		s.rewrite(s.runs.env)
	}
	if s.watch != nil && !s.machine.gaveUp { // otherwise the one that serves still waits for what is new
		s.watch.started(s.runs.leases())
	}
	if !s.machine.onProbation() {
		s.keys.end()
	}
	s.warmFirst()
	s.nameSurvivors()
}

// logUnready says why the next command was not taken, and that nothing was lost.
func (s *supervisor) logUnready() {
	m := s.machine
	why := "it has ended: " + statusText(m.otherStatus)
	if m.cause != nil {
		why = m.cause.Error()
	}
	why = strings.TrimPrefix(why, "cannot ")
	attrs := []any{"why", why}
	if s.other != nil {
		attrs = append(attrs, "paths", s.runs.states.text(s.other.runs.states), "pid", s.other.group(), "after",
			duration(time.Since(s.other.forkedAt)))
	}
	if m.passing {
		s.Log.Warn("the new command cannot be started now; the old one runs on", append(attrs, hinted(m.cause)...)...)
		return
	}
	s.status.rolledBack()
	s.status.does("the new command is given up, the old one runs on")
	s.Log.Error("the new command is not ready; the old one runs on, and these versions are not tried again",
		append(attrs, hinted(m.cause)...)...)
}
