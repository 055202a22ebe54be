package launcher

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func withLock(change func(*policy)) policy {
	p := testPolicy
	p.locks, p.lockWait = true, 10*time.Minute
	if change != nil {
		change(&p)
	}
	return p
}

// The place is taken before everything is read, and held until the new command has passed its probation.
func TestTurn(t *testing.T) {
	w := in(withLock(nil), running)
	w.do(evChanged{})
	wantActions(t, w.pass(2*time.Second), actQueue)
	w.want(t, queueing)
	w.pass(time.Minute)
	wantActions(t, w.do(evTurn{}), actRead)
	wantActions(t, w.do(evRead{id: "2", set: "two"}), actHook)
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	wantActions(t, w.do(evExited{status: exitStatus(0)}), actTermGroup)
	wantActions(t, w.do(evGroupGone{}), actStart)
	wantActions(t, w.do(evStarted{}), actAccept)
	wantActions(t, w.pass(9*time.Second))
	wantActions(t, w.pass(time.Second), actKeepGood, actLeaveTurn)

	// Without a rollback nobody goes back, and the others wait for the end of the probation all the same.
	w = in(withLock(func(p *policy) { p.rollback = false }), running)
	w.restartInTurn("2")
	wantActions(t, w.pass(9*time.Second))
	wantActions(t, w.pass(time.Second), actLeaveTurn)

	// With start-first, until the old one is gone, too.
	w = in(withLock(func(p *policy) { p.startFirst = true }), running)
	w.do(evChanged{})
	w.until()
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evHooked{ok: true}), actStartBeside)
	w.do(evReady{})
	w.do(evDrained{})
	wantActions(t, w.pass(9*time.Second))
	w.pass(time.Second)
	wantActions(t, w.do(evOtherExited{exitStatus(0)}), actSweepOther)
	wantActions(t, w.do(evOtherGone{}), actForgetOther, actLeaveTurn)
}

// restartInTurn takes a running child through a whole change, with a place.
func (w *walk) restartInTurn(id string) {
	w.do(evChanged{})
	for w.state == settling || w.state == waiting {
		w.until()
	}
	w.do(evTurn{w.turnSet, true})
	w.do(evRead{id: id, set: id})
	w.do(evHooked{ok: true})
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
}

// What leads to nothing gives the place back at once.
func TestTurnWithoutAChange(t *testing.T) {
	for name, ev := range map[string]evRead{"failed": {failed: true}, "same": {same: true}} {
		w := in(withLock(nil), queueing)
		w.do(evTurn{})
		if acts := w.do(ev); acts[len(acts)-1] != actLeaveTurn || w.state != running {
			t.Errorf("%s: %v in %s", name, acts, w.state)
		}
	}
	w := in(withLock(nil), queueing)
	wantActions(t, w.do(evSignal{unix.SIGTERM}), actLogLate, actLeaveTurn)

	// The repetition of a failed read takes no place before there is something to do.
	w = in(withLock(nil), running)
	w.do(evChanged{again: true})
	wantActions(t, w.pass(2*time.Second), actRead)
	wantActions(t, w.do(evRead{id: "2"}), actDrop, actQueue)
	wantActions(t, w.do(evTurn{}), actRead)
	wantActions(t, w.do(evRead{id: "2"}), actHook)
}

// A hook that fails does not keep the others waiting.
func TestTurnAndAFailedHook(t *testing.T) {
	w := in(withLock(nil), queueing)
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evHooked{hook: true}), actDrop, actLogWait, actLeaveTurn)
	wantActions(t, w.until(), actQueue)
}

// The wait for a place ends: the change is made without one, or tried again later. What expires never waits longer.
func TestNoTurnInTime(t *testing.T) {
	w := in(withLock(nil), queueing)
	wantActions(t, w.pass(9*time.Minute))
	wantActions(t, w.pass(time.Minute), actLeaveTurn, actLogWithout, actRead)
	wantActions(t, w.do(evTurn{})) // too late
	wantActions(t, w.do(evRead{id: "2"}), actHook)
	wantActions(t, w.do(evHooked{ok: true}), actStop)

	w = in(withLock(func(p *policy) { p.lockRequired = true }), queueing)
	wantActions(t, w.pass(35*time.Minute), actLogNoPlace, actLogNoPlace, actLogNoPlace)
	w.want(t, queueing)
	wantActions(t, w.do(evTurn{}), actRead)

	w = in(withLock(func(p *policy) { p.lockWait = 0 }), queueing)
	wantActions(t, w.pass(1000*time.Hour))
	w.want(t, queueing)

	for _, required := range []bool{false, true} {
		w = in(withLock(func(p *policy) { p.lockRequired = required }), queueing)
		w.do(evChanged{by: w.now.Add(20 * time.Second)})
		wantActions(t, w.pass(19*time.Second))
		wantActions(t, w.pass(time.Second), actLeaveTurn, actLogWithout, actRead)
		wantActions(t, w.do(evRead{id: "2"}), actHook)
	}
}

// A place that is lost before anything was stopped is taken anew; later, what is under way goes on.
func TestTurnLost(t *testing.T) {
	w := in(withLock(nil), queueing)
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evTurnLost{}))
	wantActions(t, w.do(evHooked{ok: true}), actDrop, actQueue)
	wantActions(t, w.do(evTurn{}), actRead)
	wantActions(t, w.do(evTurnLost{}))
	wantActions(t, w.do(evRead{id: "2"}), actDrop, actQueue)
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	wantActions(t, w.do(evTurnLost{}))
	w.do(evExited{status: exitStatus(0)})
	wantActions(t, w.do(evGroupGone{}), actStart)
	wantActions(t, w.do(evStarted{}), actAccept)
	wantActions(t, w.pass(time.Minute), actKeepGood)
}

// What changes just before the turn comes has its settle time, and the place is kept for it.
func TestTurnAndAFreshChange(t *testing.T) {
	w := in(withLock(nil), queueing)
	w.pass(time.Minute)
	w.do(evChanged{})
	w.pass(time.Second)
	wantActions(t, w.do(evTurn{}))
	w.want(t, settling)
	wantActions(t, w.pass(time.Second), actRead)
	wantActions(t, w.do(evRead{id: "3", moving: true}), actDrop)
	w.want(t, settling)
	wantActions(t, w.pass(2*time.Second), actRead)
	wantActions(t, w.do(evRead{id: "4"}), actHook)
}

// A change whose place is still held, because the command is on trial, needs no other.
func TestTurnOfTheNextChange(t *testing.T) {
	w := in(withLock(nil), running)
	w.restartInTurn("2")
	w.do(evChanged{})
	w.until()
	w.want(t, waiting) // for --min-uptime
	wantActions(t, w.until(), actRead)
	wantActions(t, w.do(evRead{id: "3"}), actHook)
}

// With --canary the set is known before a place is asked for, and its holder tells the others what became of it.
func TestCanary(t *testing.T) {
	canary := withLock(func(p *policy) { p.canary = true })
	w := in(canary, running)
	w.do(evChanged{})
	wantActions(t, w.pass(2*time.Second), actRead)
	wantActions(t, w.do(evRead{id: "2", set: "two"}), actDrop, actQueue)
	if w.turnSet != "two" {
		t.Errorf("asks for %q", w.turnSet)
	}
	wantActions(t, w.do(evTurn{"two", true}), actRead)
	wantActions(t, w.do(evRead{id: "3", set: "three"}), actDrop, actQueue) // another change came
	wantActions(t, w.do(evTurn{"two", true}))                              // is not meant
	wantActions(t, w.do(evTurn{"three", true}), actRead)
	wantActions(t, w.do(evRead{id: "3", set: "three"}), actHook)
	w.do(evHooked{ok: true})
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
	wantActions(t, w.pass(10*time.Second), actKeepGood, actTellGood, actLeaveTurn)

	// It fails here: the others hear of it before the place is free. What worked before follows in the same turn.
	w.now = w.now.Add(time.Minute)
	w.do(evChanged{})
	w.until()
	w.do(evRead{id: "4", set: "four"})
	w.do(evTurn{"four", true})
	w.do(evRead{id: "4", set: "four"})
	w.do(evHooked{ok: true})
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
	wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogRevert, actTermGroup, actTellBad)
	wantActions(t, w.do(evGroupGone{}), actRevert)
	w.now = w.now.Add(testPolicy.minUptime)
	wantActions(t, w.do(evTimer{}), actStart)
	wantActions(t, w.do(evStarted{}), actAccept, actLeaveTurn)

	// It failed elsewhere: it is not tried here, until it changes.
	w = in(canary, running)
	w.do(evChanged{})
	w.until()
	w.do(evRead{id: "2", set: "two"})
	wantActions(t, w.do(evTriedBad{}), actRejectTried, actLeaveTurn)
	w.want(t, running)
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "2", set: "two", pinned: true, same: true}), actLogTriedBefore, actDrop)
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "3", set: "three"}), actDrop, actQueue)

	// What has no versions waits for a place, and nobody is told.
	w = in(canary, running)
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "2"}), actDrop, actQueue)
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	w.do(evHooked{ok: true})
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
	wantActions(t, w.pass(10*time.Second), actKeepGood, actLeaveTurn)
}

// With start-first, a new command that is not ready is the failure.
func TestCanaryBeside(t *testing.T) {
	w := in(withLock(func(p *policy) { p.canary, p.startFirst = true, true }), running)
	w.do(evChanged{})
	w.until()
	w.do(evRead{id: "2", set: "two"})
	w.do(evTurn{"two", true})
	w.do(evRead{id: "2", set: "two"})
	w.do(evHooked{ok: true})
	wantActions(t, w.do(evOtherExited{exitStatus(1)}), actLogUnready, actSweepOther, actTellBad)
	wantActions(t, w.do(evOtherGone{}), actForgetOther, actLeaveTurn)
}

// --on-change exit keeps the place: the next process needs it to start. A signal needs it for a moment only.
func TestTurnOfOtherReactions(t *testing.T) {
	w := in(withLock(func(p *policy) { p.onChange = ReactExit }), queueing)
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	w.do(evExited{status: exitStatus(0)})
	wantActions(t, w.do(evGroupGone{}))
	w.want(t, ended)

	w = in(withLock(func(p *policy) { p.onChange = ReactSignal }), queueing)
	w.do(evTurn{})
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evHooked{ok: true}), actSignal, actAccept, actLeaveTurn)

	w = in(withLock(func(p *policy) { p.onChange = ReactNone }), running)
	w.do(evChanged{})
	wantActions(t, w.pass(2*time.Second), actRead)
}

// With --canary the versions that are waited for may be replaced. Others try the later ones by then, and nobody the earlier ones, so
// that the wait for these would be one for the first place alone.
func TestCanaryAndAFreshChange(t *testing.T) {
	w := in(withLock(func(p *policy) { p.canary = true }), running)
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "2", set: "two"}), actDrop, actQueue)
	w.pass(time.Minute)
	w.do(evChanged{again: true}) // nothing new
	w.want(t, queueing)
	w.do(evChanged{})
	w.want(t, settling)
	wantActions(t, w.do(evTurn{"two", true})) // comes too late
	wantActions(t, w.pass(2*time.Second), actRead)
	wantActions(t, w.do(evRead{id: "3", set: "three"}), actDrop, actQueue)
	if w.turnSet != "three" {
		t.Errorf("asks for %q", w.turnSet)
	}
	// The wait counts from the first question.
	wantActions(t, w.pass(w.lockWait-time.Minute-2*time.Second), actLeaveTurn, actLogWithout, actRead)

	// It is what runs again: nothing is asked for any longer.
	w = in(withLock(func(p *policy) { p.canary = true }), running)
	w.do(evChanged{})
	w.until()
	w.do(evRead{id: "2", set: "two"})
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "3", same: true}), actLogSame, actAccept, actLeaveTurn)
}

// New credentials and versions that failed elsewhere come as one change. The credentials are needed all the same: they are given to
// the command in time, with the versions that it has.
func TestTriedBadAndCredentialsThatEnd(t *testing.T) {
	ended := func() *walk {
		w := in(withLock(func(p *policy) { p.canary = true }), running)
		w.do(evChanged{by: w.now.Add(5 * time.Minute)})
		w.until()
		w.do(evRead{id: "2", set: "two"})
		wantActions(t, w.do(evTriedBad{}), actRejectTried, actRead)
		return w
	}
	w := ended()
	wantActions(t, w.do(evRead{id: "2", pinned: true}), actDrop, actQueue)
	if w.turnSet != "" {
		t.Errorf("asks for %q", w.turnSet)
	}
	wantActions(t, w.until(), actLeaveTurn, actLogWithout, actRead)
	wantActions(t, w.do(evRead{id: "2", pinned: true}), actHook)
	wantActions(t, w.do(evHooked{ok: true}), actStop)

	w = ended()
	wantActions(t, w.do(evRead{id: "2", pinned: true, same: true}), actDrop, actLeaveTurn)
	w.want(t, running)
}
