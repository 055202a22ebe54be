package launcher

import (
	"time"

	"golang.org/x/sys/unix"
)

// settleFirst begins with a change.
func (m *machine) settleFirst(now time.Time) []action {
	m.pending, m.retries, m.splayed = false, 0, 0
	m.queuedAt, m.changedAt, m.keepsTurn, m.without = time.Time{}, now, false, false
	if m.splay > 0 {
		m.splayed = m.random(m.splay)
	}
	m.latest = now.Add(m.settle + maxPostpone)
	m.enter(settling, m.inTime(now.Add(m.settle)))
	return m.tell(actLogSettle)
}

// hurry notes that the change under way has to be acted on by a time.
func (m *machine) hurry(by time.Time) {
	if !by.IsZero() && (m.by.IsZero() || by.Before(m.by)) {
		m.by = by
	}
}

// inTime is when something is to be done that would be done at t if nothing were ending.
func (m *machine) inTime(t time.Time) time.Time {
	if m.by.IsZero() {
		return t
	}
	return earlier(t, m.by)
}

// late reports whether nothing may postpone the change under way any longer.
func (m *machine) late(now time.Time) bool { return !m.by.IsZero() && !now.Before(m.by) }

// tell is an action of the log that the repetition of a failed read does without: it may be repeated for days.
func (m *machine) tell(a action) []action {
	if m.quiet {
		return nil
	}
	return []action{a}
}

// withChild handles the states in which the child runs undisturbed.
func (m *machine) withChild(ev event, now time.Time) []action {
	var first []action
	if !m.onTrial.IsZero() && !now.Before(m.onTrial) {
		m.onTrial = time.Time{}
		first = append(first, actKeepGood)
		if m.state == running {
			m.deadline = time.Time{}
		}
	}
	if m.state == hooking {
		switch ev := ev.(type) {
		case evExited:
			first = append(first, actAbortHook)
		case evSignal:
			if ev.sig == unix.SIGTERM {
				first = append(first, actAbortHook)
			}
		}
	}
	switch ev := ev.(type) {
	case evExited:
		return append(first, m.exited(ev, now)...)
	case evSignal:
		return append(first, m.signalled(ev.sig, now)...)
	case evChanged:
		m.hurry(ev.by)
		return append(first, m.changed(ev.again, now)...)
	case evTimer:
		return append(first, m.timer(now)...)
	case evRead:
		return append(first, m.read(ev, now)...)
	case evHooked:
		return append(first, m.hooked(ev, now)...)
	case evDrained:
		return append(first, m.drained(now)...)
	case evTurn:
		return append(first, m.gotTurn(ev, now)...)
	case evTriedBad:
		return append(first, m.triedBad(now)...)
	}
	return first
}

func (m *machine) changed(again bool, now time.Time) []action {
	if !again {
		m.changedAt = now
	}
	switch m.state {
	case running:
		if m.companion != alone { // a change waits for the end of a handover
			m.postponeSeen(again)
			return nil
		}
		m.quiet, m.since = again, now
		return m.settleFirst(now)
	case settling, waiting: // it may be waiting for something else, and for longer than that
		m.quiet = m.quiet && again
		m.deadline = m.inTime(later(m.deadline, m.settled(now)))
	case queueing: // it is read when the turn has come
		if m.canary && !again { // but what nobody tries any more is not waited for
			m.latest = now.Add(m.settle + maxPostpone)
			m.enter(settling, m.settled(now))
			m.keepsTurn = true
			return nil
		}
		if m.deadline.IsZero() || m.by.Before(m.deadline) && !m.by.IsZero() {
			m.deadline = m.by
		}
	case reading: // it is not in what was read, or has not settled
		m.postpone()
	case hooking:
		m.postpone()
		m.deadline = m.by
	case diverting:
		m.postpone()
		m.deadline = m.inTime(m.deadline)
	}
	return nil
}

// postpone keeps a change for the time when the child runs undisturbed again.
func (m *machine) postpone() { m.pending, m.quiet = true, false }

// postponeSeen keeps what the watch has seen. The repetition of a failed read stays a quiet one.
func (m *machine) postponeSeen(again bool) {
	m.quiet = again && (m.quiet || !m.pending)
	m.pending = true
}

// settled is when the settle time is over, counted from now.
func (m *machine) settled(now time.Time) time.Time {
	return m.inTime(earlier(now.Add(m.settle), m.latest))
}

func (m *machine) timer(now time.Time) []action {
	if !m.due(now) {
		return nil
	}
	switch m.state {
	case settling:
		turn, why := now.Add(m.splayed), "splay"
		m.splayed = 0
		if up := m.startedAt.Add(m.minUptime); up.After(turn) {
			turn, why = up, "min-uptime"
		}
		if m.inTime(turn).After(now) {
			return m.wait(turn, why)
		}
		return m.takeTurn(now)
	case waiting:
		return m.takeTurn(now)
	case queueing:
		return m.queuedTooLong(now)
	case hooking: // its failure comes back
		m.deadline = time.Time{}
		return []action{actAbortHook}
	case diverting:
		return append(m.undrained(now), m.replace(now)...)
	}
	return nil
}

// wait waits for something that is not a further change. Changes that come meanwhile may postpone the turn afresh.
func (m *machine) wait(turn time.Time, why string) []action {
	if m.inTime(turn) != turn {
		turn, why = m.by, why+", cut short because credentials of the command expire"
	}
	m.why, m.latest, m.without = why, turn.Add(maxPostpone), false
	m.enter(waiting, turn)
	return m.tell(actLogWait)
}

func (m *machine) readAll() []action {
	m.pending, m.keepsTurn = false, false
	m.enter(reading, time.Time{})
	return []action{actRead}
}

// read: everything was read, or could not be.
func (m *machine) read(ev evRead, now time.Time) []action {
	if m.state != reading {
		return nil
	}
	m.hurry(ev.by)
	if (ev.moving || m.pending) && now.Before(m.latest) && !m.late(now) {
		m.pending, m.keepsTurn = false, m.turn != noTurn
		m.enter(settling, m.settled(now))
		return []action{actDrop}
	}
	switch {
	case ev.failed:
		return append([]action{actDrop}, m.run(now)...)
	case m.rejected != "" && ev.id == m.rejected && (ev.same || !ev.pinned):
		return append(append(m.tell(actLogTriedBefore), actDrop), m.run(now)...)
	case ev.same:
		return append(append(m.tell(actLogSame), actAccept), m.run(now)...)
	}
	m.candidate, m.reaction = ev.id, m.onChange
	if ev.beside && m.onChange == ReactSignal {
		m.reaction = ReactRestart
	}
	if m.onChange == ReactNone {
		return append([]action{actLogNone, actAccept}, m.run(now)...)
	}
	if m.mustQueue(ev.set, now) {
		return append([]action{actDrop}, m.queue(ev.set, now)...)
	}
	acts := m.goWithout()
	m.enter(hooking, time.Time{})
	if !m.by.IsZero() {
		m.deadline = later(m.by, now.Add(hookGrace))
	}
	return append(acts, actHook)
}

// hooked: the hook, if there is one, has ended, and the program was looked up again.
func (m *machine) hooked(ev evHooked, now time.Time) []action {
	if m.state != hooking {
		return nil
	}
	if !ev.ok && ev.hook && m.late(now) {
		m.enter(hooking, time.Time{})
		return []action{actLogHurry, actSkipHook}
	}
	if !ev.ok {
		d := lastRetry
		if m.retries < 5 {
			d = min(firstRetry<<m.retries, lastRetry)
		}
		m.retries++
		if m.late(now) { // it is not the time that is missing
			m.by = time.Time{}
		}
		return append([]action{actDrop}, m.wait(now.Add(d), "another try")...)
	}
	if m.queuesAgain(now) {
		return append([]action{actDrop}, m.queue(m.turnSet, now)...)
	}
	switch m.reaction {
	case ReactSignal:
		return append([]action{actSignal, actAccept}, m.run(now)...)
	case ReactExit:
		m.next = toExit
	default:
		if m.startFirst && !(m.besideFailed && m.late(now)) {
			return m.startBeside(now)
		}
		if m.diverts && !m.late(now) {
			m.enter(diverting, m.inTime(now.Add(drainLimit)))
			return []action{actDivert}
		}
		return m.replace(now)
	}
	m.enter(stopping, now.Add(m.stopTimeout))
	return []action{actStop}
}

// asked reports whether a signal that asks for the end was passed on to the child a short while ago: that, and not only the
// stop signal that followed, may have ended it.
func (m *machine) asked(now time.Time) bool {
	return !m.askedAt.IsZero() && now.Sub(m.askedAt) < max(m.stopTimeout, killPatience)
}

// drained: nothing that came before what is new waits for the child any more, or that will not be.
func (m *machine) drained(now time.Time) []action {
	if m.state != diverting {
		return nil
	}
	return m.replace(now)
}

// undrained is the line of the log, unless there is no time for what waits.
func (m *machine) undrained(now time.Time) []action {
	if m.late(now) {
		return nil
	}
	return []action{actLogUndrained}
}

// replace has the child stop, and the next one follow.
func (m *machine) replace(now time.Time) []action {
	m.next = toRestart
	m.enter(stopping, now.Add(m.stopTimeout))
	return []action{actStop}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
