package launcher

import "time"

// This is the part of the state machine for --restart-lock: a fleet shares a few places, and a change is carried out while one
// of them is held. The place is taken before everything is read, so that what is started was read after the turn had come. It
// is given back when the new command has passed its probation, or when nothing comes of the change. queue.go does the taking,
// holding and giving back.
//
// With --canary the first that gets the place tries the change, and leaves the outcome there. Who asks for a place names the set
// of versions that it would try, which takes a read before; what is started is still read after the turn has come.

// turn is where the machine stands with the lock.
type turn uint8

const (
	noTurn  turn = iota
	asked        // a place is asked for
	hasTurn      // one is held
)

type (
	evTurn struct { // a place is held
		set   string // with --canary: for this set of versions
		first bool   // which nobody else has tried
	}
	evTurnLost struct{} // it is another's by now
	evTriedBad struct{} // another has tried this set of versions, and it failed
)

func (evTurn) isEvent()     {}
func (evTurnLost) isEvent() {}
func (evTriedBad) isEvent() {}

// takeTurn goes on with a change whose time has come: it is read, or a place is asked for first. The repetition of a failed
// read asks for none before there is something to do.
func (m *machine) takeTurn(now time.Time) []action {
	if !m.locks || m.turn == hasTurn || m.without || m.late(now) || m.canary || m.quiet || m.onChange == ReactNone {
		return m.readAll()
	}
	return m.queue("", now)
}

// mustQueue reports whether what was read needs a place that is not held. set names it to the fleet; "" for what nobody else can
// try: it has no versions.
func (m *machine) mustQueue(set string, now time.Time) bool {
	switch {
	case !m.locks || m.without || m.late(now):
		return false
	case m.turn != hasTurn:
		return true
	}
	return m.canary && set != m.turnSet
}

// queuesAgain reports whether what is about to be done has to wait for another place: the one for it was lost.
func (m *machine) queuesAgain(now time.Time) bool { return m.mustQueue(m.turnSet, now) }

// queue asks for a place.
func (m *machine) queue(set string, now time.Time) []action {
	m.pending, m.quiet = false, false
	if m.queuedAt.IsZero() {
		m.queuedAt = now
	}
	m.turn, m.turnSet, m.isFirst = asked, set, false
	due := m.by
	if m.lockWait > 0 {
		due = m.inTime(later(now, m.queuedAt.Add(m.lockWait)))
	}
	m.enter(queueing, due)
	return []action{actQueue}
}

// gotTurn: a place is held. What changed a moment ago settles first.
func (m *machine) gotTurn(ev evTurn, now time.Time) []action {
	if m.state != queueing || ev.set != m.turnSet {
		return nil
	}
	m.isFirst = ev.first
	m.turn, m.queuedAt, m.latest = hasTurn, time.Time{}, now.Add(m.settle+maxPostpone)
	if m.settled(m.changedAt).After(now) {
		m.enter(settling, m.settled(m.changedAt))
		m.keepsTurn = true
		return nil
	}
	return m.readAll()
}

// lostTurn: nothing that is under way is stopped for it. What has not begun queues again (mustQueue).
func (m *machine) lostTurn() {
	if m.turn == hasTurn {
		m.turn, m.turnUntil, m.onTrialSet = noTurn, time.Time{}, ""
	}
}

// triedBad: another has tried what was read, and it failed there. Credentials that end are replaced all the same, beside the versions
// that the command has.
func (m *machine) triedBad(now time.Time) []action {
	if m.state != queueing {
		return nil
	}
	m.rejected = m.candidate
	if !m.by.IsZero() {
		m.quiet = true // that they failed is said already
		return append([]action{actRejectTried}, m.readAll()...)
	}
	return append([]action{actRejectTried}, m.run(now)...)
}

// queuedTooLong: the wait for a place is over. Where one is required the wait goes on, and is said again from time to time.
func (m *machine) queuedTooLong(now time.Time) []action {
	if !m.late(now) && m.lockRequired {
		m.deadline = m.inTime(now.Add(max(m.lockWait, againNoPlace)))
		return []action{actLogNoPlace}
	}
	m.turn, m.without = noTurn, true
	return append([]action{actLeaveTurn, actLogWithout}, m.readAll()...)
}

// againNoPlace is how often that is said.
const againNoPlace = 10 * time.Minute

// goWithout says that a change is made without a place, which it needs: there is no time for one.
func (m *machine) goWithout() []action {
	if !m.locks || m.turn == hasTurn || m.without {
		return nil
	}
	m.without = true
	return []action{actLogWithout}
}

// needsTurn reports whether a place that is held, or asked for, still has a use.
func (m *machine) needsTurn(now time.Time) bool {
	if m.turn == hasTurn && (m.companion != alone || now.Before(m.turnUntil)) {
		return m.state != ending && m.state != ended
	}
	switch m.state {
	case queueing:
		return true
	case reading: // with --canary it may be asked for, and another set of versions come meanwhile
		return true
	case hooking, diverting:
		return m.turn == hasTurn
	case settling:
		return m.keepsTurn
	case stopping, clearing, starting:
		return m.followed() || m.next == toExit
	case ended:
		return m.next == toExit // the place outlives this process, so that the next one can start
	}
	return false
}

// rejectNew: the command that was started with what was read last has failed beside the one that serves.
func (m *machine) rejectNew() {
	m.rejected = m.candidate
	if m.turn == hasTurn && m.isFirst {
		m.failedSet = m.turnSet
	}
}

// rejectRunning: the command that serves has failed. By now the place may be held for a later set of versions, of which that says
// nothing.
func (m *machine) rejectRunning() {
	m.rejected, m.failedSet, m.onTrialSet = m.current, m.onTrialSet, ""
}

// afterTurn adds what an event means for the place: what its holder found out is left there, and it is given back when it has
// no further use.
func (m *machine) afterTurn(acts []action, now time.Time) []action {
	over := !now.Before(m.turnUntil)
	switch {
	case m.failedSet != "":
		acts, m.triedSet = append(acts, actTellBad), m.failedSet
	case over && m.onTrialSet != "" && m.state >= running && m.state <= diverting:
		acts, m.triedSet = append(acts, actTellGood), m.onTrialSet
	}
	m.failedSet = ""
	if over {
		m.turnUntil, m.onTrialSet = time.Time{}, ""
	}
	if m.turn != noTurn && !m.needsTurn(now) {
		m.turn, m.turnUntil, m.onTrialSet = noTurn, time.Time{}, ""
		acts = append(acts, actLeaveTurn)
	}
	return acts
}

// holdTurn: a command has started with what is new, and is on trial. The place is held until that is over.
func (m *machine) holdTurn(now time.Time) {
	m.onTrialSet = ""
	if m.turn != hasTurn {
		return
	}
	m.turnUntil = now.Add(m.probation)
	if m.isFirst {
		m.onTrialSet = m.turnSet
	}
}
