package launcher

import (
	"testing"
	"time"
)

// onTrialWith is a command that tries a set of versions as the first of its fleet.
func onTrialWith(set string) *walk {
	w := in(withLock(func(p *policy) { p.canary, p.minUptime, p.stopTimeout = true, 0, time.Minute }), running)
	w.do(evChanged{})
	w.until()
	w.do(evRead{id: set, set: set})
	w.do(evTurn{set, true})
	w.do(evRead{id: set, set: set})
	w.do(evHooked{ok: true})
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
	return w
}

// further brings a further set of versions, as far as the question for a place.
func (w *walk) further(t *testing.T, set string) {
	t.Helper()
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: set, set: set}), actDrop, actQueue)
}

func (w *walk) wantTold(t *testing.T, set string) {
	t.Helper()
	if w.triedSet != set {
		t.Errorf("tells of %q, want %q", w.triedSet, set)
	}
}

// The next versions come while the first are on trial. What is found out is said of those that were tried, wherever the next ones
// stand: these may be the correction of what has just failed.
func TestCanaryAndTheNextVersions(t *testing.T) {
	stands := map[string]func(w *walk){
		"asked":   func(*walk) {},
		"reading": func(w *walk) { w.do(evTurn{"three", true}) },
		"hooking": func(w *walk) {
			w.do(evTurn{"three", true})
			w.do(evRead{id: "three", set: "three"})
		},
	}
	for name, reach := range stands {
		t.Run(name, func(t *testing.T) {
			w := onTrialWith("two")
			w.further(t, "three")
			reach(w)
			if acts := w.do(evExited{status: exitStatus(1)}); acts[len(acts)-1] != actTellBad {
				t.Errorf("actions %v", acts)
			}
			w.wantTold(t, "two")

			w = onTrialWith("two")
			w.further(t, "three")
			reach(w)
			w.now = w.now.Add(w.probation)
			wantActions(t, w.do(evTimer{}), actKeepGood, actTellGood)
			w.wantTold(t, "two")
			wantActions(t, w.do(evTimer{}))
		})
	}

	// The trial is cut short: of the first versions nobody knows, and those that follow are tried for as long as all others.
	w := onTrialWith("two")
	w.further(t, "three")
	w.do(evTurn{"three", true})
	w.do(evRead{id: "three", set: "three"})
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	w.now = w.now.Add(w.probation)
	wantActions(t, w.do(evTimer{}))
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	wantActions(t, w.do(evStarted{}), actAccept)
	wantActions(t, w.pass(w.probation-time.Second))
	wantActions(t, w.pass(time.Second), actKeepGood, actTellGood, actLeaveTurn)
	w.wantTold(t, "three")
}

// Those who follow have found out nothing: one of them that fails goes back alone, and the fleet keeps what the first has proven.
func TestCanaryFollowers(t *testing.T) {
	for _, fails := range []bool{true, false} {
		w := in(withLock(func(p *policy) { p.canary = true }), running)
		w.do(evChanged{})
		w.until()
		w.do(evRead{id: "2", set: "two"})
		w.do(evTurn{"two", false})
		w.do(evRead{id: "2", set: "two"})
		w.do(evHooked{ok: true})
		w.do(evExited{status: exitStatus(0)})
		w.do(evGroupGone{})
		w.do(evStarted{})
		if fails {
			wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogRevert, actTermGroup)
			continue
		}
		wantActions(t, w.pass(w.probation), actKeepGood, actLeaveTurn)
	}
}
