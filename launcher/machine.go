package launcher

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The life of the child is a state machine without a clock, a process or a lock of its own: events and the time go in,
// actions and the next deadline come out. supervise.go carries the actions out. The diagram stands in doc.go. "The child"
// is the command that serves; handover.go is the part for a second one.

// state is where the life of the child stands.
type state uint8

const (
	starting  state = iota // a child is to be started
	running                // it runs, and nothing is under way
	settling               // something changed in Vault; more may follow
	waiting                // the change waits for its turn: --splay, --min-uptime, a postponement
	queueing               // it waits for a place in the --restart-lock
	reading                // everything is read and checked
	hooking                // --on-change-hook runs
	diverting              // what is new waits for the next child; what waits for this one is served first
	stopping               // the child was told to stop by vaultexec
	ending                 // the child was told to end by a signal from outside, and nothing follows it
	clearing               // the child has ended, what is left of its group is being ended
	ended                  // nothing is left to do
)

var stateNames = [...]string{"starting", "running", "settling", "waiting", "queueing", "reading", "hooking", "diverting",
	"stopping", "ending", "clearing", "ended"}

// String names the state in logs.
func (s state) String() string { return stateNames[s] }

// purpose says what follows when the child is gone.
type purpose uint8

const (
	toEnd     purpose = iota // vaultexec ends with the child's status
	toRestart                // a new child with the new environment
	toRevert                 // a new child with the last good environment
	toExit                   // --on-change exit: vaultexec ends with a code of its own
	toDie                    // a signal between two children ends vaultexec
)

const (
	maxPostpone  = 30 * time.Second // changes that keep coming postpone a restart by no more
	groupGrace   = 2 * time.Second  // from SIGTERM to SIGKILL for what is left of a group
	killPatience = 5 * time.Second  // for what survives SIGKILL, in uninterruptible sleep
	lastPatience = time.Second      // the same when vaultexec is about to end
	againAfter   = time.Second      // GNU timeout sends SIGTERM twice within microseconds
	hookGrace    = time.Second      // for a hook that is run when nothing may be postponed any more
	firstRetry   = 10 * time.Second // for a hook that failed, doubled each time
	lastRetry    = 5 * time.Minute
)

// machine is the state of one supervised run.
type machine struct {
	policy
	state    state
	deadline time.Time // of the current state; zero for none. It dies with the state.

	next      purpose
	err       error           // why it ended, when not by a child's status
	status    unix.WaitStatus // of the child that ended last
	signal    unix.Signal     // toDie; and what ended the run while the child was stopping
	startedAt time.Time       // of the running child
	onTrial   time.Time       // end of the probation; zero when the child is not on it
	candidate string          // id of what was read last
	reaction  Reaction        // to what was read last
	current   string          // id of what the running child was started with
	pending   bool            // a change could not be acted on: read again when the child runs undisturbed
	quiet     bool            // nothing new is known, a failed read is repeated
	rejected  string          // id of the set of versions that made a child fail
	told      bool            // a signal that may end the child was passed on: its end is no failure of the secrets
	askedAt   time.Time       // when SIGINT or SIGQUIT, which ask for the end, was passed on to the child
	since     time.Time       // the change under way was seen
	latest    time.Time       // further changes postpone the change under way no longer than until then
	by        time.Time       // nothing postpones the change under way further; zero for no such time
	splayed   time.Duration   // random delay of the change under way
	why       string          // what waiting waits for
	termAt    time.Time       // first SIGTERM received while the child runs
	killed    bool            // the group got its SIGKILL
	retries   int             // postponements of the change under way
	limited   bool            // in ending: the stop timeout runs

	companion   companion       // the command that does not serve, in a handover
	otherDue    time.Time       // its deadline; zero for none
	otherKilled bool            // what is left of its group got its SIGKILL
	otherStatus unix.WaitStatus // how it ended
	otherTold   bool            // a signal that may end both was passed on
	gaveUp      bool            // the next command of this handover was not taken

	passing      bool  // it could not be started, for a cause that may pass
	besideFailed bool  // so was one for the change under way: if nothing may postpone it further, the old one is stopped first
	cause        error // why; nil when it ended
	held         bool  // the command that served is gone, and the other one is waited for

	turn      turn
	turnSet   string    // the set of versions that a place is asked for, or was given for
	turnUntil time.Time // the new command is on trial until then, and the place is held
	queuedAt  time.Time // the change under way has first asked for a place; zero before that
	changedAt time.Time // the watch last saw something new
	keepsTurn bool      // settling again, after the turn had come
	without   bool      // the change under way is made without a place
	isFirst   bool      // nobody else has tried it: with --canary the others are told what becomes of it

	// Sets of versions, "" for none: an earlier one may be on trial while a place is asked for or held for the next.
	onTrialSet string // the command runs with it, and the others are told when the trial is over
	failedSet  string // it has failed just now
	triedSet   string // the others are told of it: actTellGood, actTellBad
}

func newMachine(p policy) *machine { return &machine{policy: p} }

func (m *machine) enter(s state, deadline time.Time) {
	m.state, m.deadline = s, deadline
}

// on handles one event. Every state handles every event; what it does not name changes nothing.
func (m *machine) on(ev event, now time.Time) []action {
	acts, over := m.beside(ev, now)
	if !over {
		acts = append(acts, m.onState(ev, now)...)
	}
	return m.afterTurn(acts, now)
}

// onState handles an event in the state of the command that serves.
func (m *machine) onState(ev event, now time.Time) []action {
	switch m.state {
	case starting:
		return m.inStarting(ev, now)
	case running, settling, waiting, queueing, reading, hooking, diverting:
		return m.withChild(ev, now)
	case stopping:
		return m.inStopping(ev, now)
	case ending:
		return m.inEnding(ev, now)
	case clearing:
		return m.inClearing(ev, now)
	case ended:
		return nil
	}
	panic(fmt.Sprintf("no state %d", m.state))
}

func (m *machine) inStarting(ev event, now time.Time) []action {
	switch ev := ev.(type) {
	case evStarted:
		m.startedAt, m.told, m.killed, m.termAt, m.limited = now, false, false, time.Time{}, false
		m.onTrial, m.askedAt, m.turnUntil, m.onTrialSet = time.Time{}, time.Time{}, time.Time{}, ""
		if m.next == toRestart {
			m.current = m.candidate
			m.holdTurn(now)
		}
		if m.tries() {
			m.onTrial = now.Add(m.probation)
		}
		return append([]action{actAccept}, m.run(now)...)
	case evStartFailed:
		m.err = ev.err
		m.enter(ended, time.Time{})
	case evSignal:
		if isDeadly(ev.sig) {
			m.next, m.signal = toDie, ev.sig
			m.enter(ended, time.Time{})
		}
	case evChanged:
		m.since = now
		m.hurry(ev.by)
		m.postponeSeen(ev.again)
	case evTimer: // --min-uptime before a revert is over
		if m.due(now) {
			m.enter(starting, time.Time{})
			return []action{actStart}
		}
	}
	return nil
}

// due reports whether the state has a deadline and it is over.
func (m *machine) due(now time.Time) bool { return !m.deadline.IsZero() && !now.Before(m.deadline) }

// run enters running, whose deadline is the end of the probation. It enters settling if a change came when nothing
// could be done about it.
func (m *machine) run(now time.Time) []action {
	m.next = toEnd
	if m.pending {
		return m.settleFirst(now)
	}
	m.by, m.besideFailed = time.Time{}, false
	m.enter(running, m.onTrial)
	return nil
}

// exited: the child has ended without being told by vaultexec.
func (m *machine) exited(ev evExited, now time.Time) []action {
	if acts, over := m.exitedBeside(ev, now); over {
		return acts
	}
	status := ev.status
	m.status, m.next = status, toEnd
	failed := !status.Exited() || status.ExitStatus() != 0
	if to, ok := m.okExit.of(status); ok {
		failed = to != 0
	}
	if failed && !m.told && !ev.key && !byHand(status) && !m.onTrial.IsZero() {
		if m.state != running { // the change under way is none of this child's
			m.postpone()
		}
		m.rejectRunning()
		m.next, m.onTrial = toRevert, time.Time{}
		return append([]action{actLogRevert}, m.clear(now)...)
	}
	return m.clear(now)
}

// clear begins to end what is left of the group. The actions are harmless when nothing is.
func (m *machine) clear(now time.Time) []action {
	m.killed = false
	m.enter(clearing, now.Add(groupGrace))
	return []action{actTermGroup}
}

// signalled: a signal was passed on to the child. What it means there is the child's business, but SIGTERM ends
// everything that vaultexec had in mind.
func (m *machine) signalled(sig unix.Signal, now time.Time) []action {
	if !isDeadly(sig) {
		return nil
	}
	m.told = true
	m.otherTold = m.otherTold || m.companion != alone && sig != unix.SIGHUP
	if sig != unix.SIGTERM {
		if sig != unix.SIGHUP {
			m.askedAt = now
		}
		return nil
	}
	var acts []action
	if m.state != running {
		acts = append(acts, actLogLate)
	}
	m.termAt, m.next, m.limited = now, toEnd, m.stopExplicit
	m.enter(ending, time.Time{})
	if m.limited {
		m.deadline = now.Add(m.stopTimeout)
	}
	if m.companion == preparing || m.companion == draining {
		acts = append(acts, m.stopOther(now)...)
	}
	return acts
}

// inStopping: vaultexec has told the child to stop.
func (m *machine) inStopping(ev event, now time.Time) []action {
	switch ev := ev.(type) {
	case evExited:
		m.status = ev.status
		if m.next != toEnd && (m.byKey(ev) || m.asked(now)) {
			m.next = toEnd
			return append([]action{actLogLate}, m.clear(now)...)
		}
		return m.clear(now)
	case evSignal:
		// HUP asks a service to reload; the child, or the next one, has it.
		if !isDeadly(ev.sig) || ev.sig == unix.SIGHUP {
			return nil
		}
		again := !m.termAt.IsZero() && now.Sub(m.termAt) >= againAfter
		if ev.sig == unix.SIGTERM && again {
			return m.kill()
		}
		if ev.sig == unix.SIGTERM && m.termAt.IsZero() {
			m.termAt = now
		}
		if m.next != toEnd {
			m.next, m.signal = toEnd, ev.sig
			return []action{actLogLate}
		}
	case evChanged:
		m.since = now
		m.hurry(ev.by)
		m.postponeSeen(ev.again)
	case evTimer:
		if m.due(now) {
			return m.kill()
		}
	}
	return nil
}

// kill sends the SIGKILL that ends a wait. The end of the child is certain then.
func (m *machine) kill() []action {
	m.deadline, m.limited, m.killed = time.Time{}, false, true
	return []action{actKill}
}

// inEnding: a SIGTERM from outside was passed on. Whoever sent it decides about SIGKILL, unless a limit was asked for.
func (m *machine) inEnding(ev event, now time.Time) []action {
	switch ev := ev.(type) {
	case evExited:
		m.status = ev.status
		return m.clear(now)
	case evSignal:
		if ev.sig == unix.SIGTERM && m.limited && now.Sub(m.termAt) >= againAfter {
			return append(m.kill(), m.hurryOther(now)...)
		}
	case evTimer:
		if m.limited && m.due(now) {
			return m.kill()
		}
	}
	return nil
}

// inClearing: the child has ended.
func (m *machine) inClearing(ev event, now time.Time) []action {
	switch ev := ev.(type) {
	case evGroupGone:
		return m.cleared(now)
	case evChanged:
		m.since = now
		m.hurry(ev.by)
		m.postponeSeen(ev.again)
	case evSignal:
		if isDeadly(ev.sig) && m.followed() {
			m.next, m.signal = toDie, ev.sig
		}
		if ev.sig == unix.SIGTERM {
			return m.hurryOther(now)
		}
	case evTimer:
		if !m.due(now) {
			return nil
		}
		if !m.killed {
			m.killed = true
			patience := lastPatience
			if m.followed() {
				patience = killPatience
			}
			m.enter(clearing, now.Add(patience))
			return []action{actKill}
		}
		return append([]action{actWarnLeft}, m.cleared(now)...)
	}
	return nil
}

// cleared: the way is free for what follows.
func (m *machine) cleared(now time.Time) []action {
	if acts, held := m.hold(now); held {
		return acts
	}
	switch m.next {
	case toRestart:
		m.enter(starting, time.Time{})
		return []action{actStart}
	case toRevert:
		m.enter(starting, later(now, m.startedAt.Add(m.minUptime)))
		return []action{actRevert}
	}
	m.enter(ended, time.Time{})
	return nil
}
