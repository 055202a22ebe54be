package launcher

import (
	"time"

	"golang.org/x/sys/unix"
)

// This is the part of the state machine for --restart-order start-first: the next command starts beside the one that serves,
// and takes over when it is ready. While there are two, one of them serves. Its life is the machine's state, as always; the
// life of the other one is the companion. Changes wait until there is one again: there are never three.
//
//	alone ──▶ preparing ──ready──▶ draining ──▶ leaving ──▶ sweeping ──▶ alone
//	             └─ not ready, or TERM ─────────▲             ▲
//	             └─ has ended ────────────────────────────────┘
//
// In preparing the other one is the new command, from draining on the old one. A new command that exits, or is not ready in
// time, does no harm: the old one has served all the while.

// companion is where the command stands that does not serve.
type companion uint8

const (
	alone     companion = iota // there is none
	preparing                  // it is the next one, and not ready yet
	draining                   // it is the old one, and what waits in its queue is served first
	leaving                    // it was told to stop
	sweeping                   // it has ended, what is left of its group is being ended
)

// String names the companion in logs.
func (c companion) String() string {
	return [...]string{"alone", "preparing", "draining", "leaving", "sweeping"}[c]
}

// drainLimit is how long the old command may take for what waits in its queue before it is told to stop all the same.
const drainLimit = 10 * time.Second

type (
	evBesideFailed struct { // the next command could not be started
		err     error
		passing bool // the cause may pass
	}
	evReady       struct{}            // it is ready
	evUnready     struct{ err error } // it will not be, or that cannot be known
	evDrained     struct{}            // nothing waits any more for the command that is about to be told to stop
	evOtherExited struct{ status unix.WaitStatus }
	evOtherGone   struct{} // no live process of its group is left
)

func (evBesideFailed) isEvent() {}
func (evReady) isEvent()        {}
func (evUnready) isEvent()      {}
func (evDrained) isEvent()      {}
func (evOtherExited) isEvent()  {}
func (evOtherGone) isEvent()    {}

// startBeside begins a handover. The wait for the new command has no deadline here: warming keeps the time (evUnready).
func (m *machine) startBeside(now time.Time) []action {
	m.companion, m.otherDue, m.otherKilled, m.gaveUp, m.otherTold = preparing, time.Time{}, false, false, false
	m.passing = false
	m.enter(running, m.onTrial)
	return []action{actStartBeside}
}

// beside handles what concerns the command that does not serve. over says that the event concerns nothing else.
func (m *machine) beside(ev event, now time.Time) (acts []action, over bool) {
	switch ev := ev.(type) {
	case evBesideFailed:
		m.cause, m.gaveUp, m.passing = ev.err, true, ev.passing
		if !ev.passing {
			m.rejectNew()
		}
		return append([]action{actLogUnready}, m.otherGone(now)...), true
	case evReady:
		if m.companion == preparing {
			return m.takeOver(draining, now), true
		}
	case evTurnLost:
		m.lostTurn()
		return nil, true
	case evUnready:
		if m.companion == preparing {
			m.cause = ev.err
			return m.giveUp(now), true
		}
	case evDrained:
		if m.companion != draining {
			return nil, false
		}
		return m.stopOther(now), true
	case evOtherExited:
		m.otherStatus = ev.status
		if m.companion == preparing {
			m.cause, m.gaveUp = nil, true
			m.rejectNew()
			acts = append(acts, actLogUnready)
		}
		return append(acts, m.sweep(now)...), true
	case evOtherGone:
		return m.otherGone(now), true
	case evTimer:
		if !m.otherDue.IsZero() && !now.Before(m.otherDue) {
			return m.otherTimer(now), false
		}
		return nil, false
	default:
		return nil, false
	}
	return nil, true
}

// takeOver has the next command serve. What the old one is from now on is given.
func (m *machine) takeOver(old companion, now time.Time) []action {
	m.current, m.startedAt, m.told, m.killed, m.termAt, m.limited = m.candidate, now, m.otherTold, false, time.Time{}, false
	m.onTrial, m.askedAt = time.Time{}, time.Time{}
	if m.rollback && m.probation > 0 {
		m.onTrial = now.Add(m.probation)
	}
	m.companion, m.otherDue = old, now.Add(drainLimit)
	m.holdTurn(now)
	m.enter(running, m.onTrial)
	return []action{actSwitch}
}

// giveUp: the next command is not ready, and will not be waited for.
func (m *machine) giveUp(now time.Time) []action {
	m.gaveUp = true
	m.rejectNew()
	return append([]action{actLogUnready}, m.stopOther(now)...)
}

func (m *machine) stopOther(now time.Time) []action {
	m.companion, m.otherDue = leaving, now.Add(m.stopTimeout)
	return []action{actStopOther}
}

func (m *machine) sweep(now time.Time) []action {
	m.companion, m.otherDue, m.otherKilled = sweeping, now.Add(groupGrace), false
	return []action{actSweepOther}
}

func (m *machine) otherTimer(now time.Time) []action {
	switch m.companion {
	case draining:
		return append([]action{actLogUndrained}, m.stopOther(now)...)
	case leaving:
		m.otherDue = time.Time{} // its end is certain
		return []action{actKillOther}
	case sweeping:
		if m.otherKilled {
			return append([]action{actWarnOther}, m.otherGone(now)...)
		}
		m.otherKilled, m.otherDue = true, now.Add(killPatience)
		return []action{actKillOther}
	}
	return nil
}

// otherGone: there is one command again, or none.
func (m *machine) otherGone(now time.Time) []action {
	if m.companion == alone {
		return nil
	}
	m.companion, m.otherDue = alone, time.Time{}
	acts := []action{actForgetOther}
	switch {
	case m.held:
		m.held = false
		return append(acts, m.cleared(now)...)
	case m.state != running:
		return acts
	case m.gaveUp && (m.passing || !m.by.IsZero()): // the credentials of the one that serves end all the same
		m.retries++
		m.besideFailed = true
		return append(acts, m.wait(now.Add(min(firstRetry<<min(m.retries-1, 5), lastRetry)), "another try")...)
	}
	return append(acts, m.run(now)...)
}

// exitedBeside: the command that serves has ended without being told by vaultexec, while there is another. One that is on
// trial is followed by what worked before, as without a handover: that serves what waits in its queue, which would be lost
// if the old one served on. A signal or a key that asks for the end asks for that of both.
func (m *machine) exitedBeside(ev evExited, now time.Time) (acts []action, over bool) {
	if m.companion != alone {
		m.otherStatus = ev.status
	}
	switch {
	case m.told, ev.key, byHand(ev.status):
	case m.companion == preparing: // better than none
		return append(append([]action{actLogTakesOver}, m.takeOver(sweeping, now)...), m.sweep(now)...), true
	case m.companion == draining && m.onTrial.IsZero(): // the old one is still there, and was told nothing
		m.rejectRunning()
		m.gaveUp = true
		m.startedAt, m.onTrial, m.killed = now, time.Time{}, false
		m.enter(running, time.Time{})
		return append([]action{actLogBack, actSwitch}, m.sweep(now)...), true
	}
	return nil, false
}

// hold reports whether the end of the command that served has to wait for that of the other one, and has that told to
// stop.
func (m *machine) hold(now time.Time) (acts []action, held bool) {
	if m.companion == alone {
		return nil, false
	}
	m.held = true
	m.enter(clearing, time.Time{})
	if m.companion == preparing || m.companion == draining {
		acts = m.stopOther(now)
	}
	return acts, true
}

// hurryOther: a further SIGTERM ends the wait for the other one, as it does for the one that serves.
func (m *machine) hurryOther(now time.Time) []action {
	if m.companion != leaving || !m.stopExplicit || m.termAt.IsZero() || now.Sub(m.termAt) < againAfter {
		return nil
	}
	m.otherDue = time.Time{}
	return []action{actKillOther}
}

// nextDue is when the machine wants an evTimer; zero for never.
func (m *machine) nextDue() time.Time {
	due := m.deadline
	for _, t := range []time.Time{m.otherDue, m.turnUntil} {
		if due.IsZero() || !t.IsZero() && t.Before(due) {
			due = t
		}
	}
	return due
}
