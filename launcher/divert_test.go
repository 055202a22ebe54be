package launcher

import (
	"testing"
	"time"
)

// diverted is a machine whose command answers its last requests, while new ones wait for the next command.
func diverted(t *testing.T, ev evChanged) *walk {
	t.Helper()
	p := testPolicy
	p.diverts = true
	w := in(p, running)
	w.do(ev)
	w.until()
	wantActions(t, w.do(evRead{id: "2"}), actHook)
	return w
}

// The command is told to stop when nothing waits for it, or when it takes too long for that: then a line says so.
func TestDivertsBeforeTheStop(t *testing.T) {
	w := diverted(t, evChanged{})
	wantActions(t, w.do(evHooked{ok: true}), actDivert)
	w.want(t, diverting)
	wantActions(t, w.pass(drainLimit-1))
	wantActions(t, w.do(evDrained{}), actStop)
	w.want(t, stopping)
	if !w.followed() {
		t.Error("no command follows")
	}
	wantActions(t, w.do(evDrained{}))

	w = diverted(t, evChanged{})
	w.do(evHooked{ok: true})
	wantActions(t, w.pass(drainLimit), actLogUndrained, actStop)
	w.want(t, stopping)
}

// Credentials that end are not waited beyond, and no line complains.
func TestDivertsInTime(t *testing.T) {
	w := newWalk(testPolicy)
	by := w.now.Add(time.Minute + 5*time.Second)
	w = diverted(t, evChanged{by: by})
	w.do(evHooked{ok: true})
	w.want(t, diverting)
	if !w.deadline.Equal(by) {
		t.Errorf("waits until %v, want %v", w.deadline, by)
	}
	wantActions(t, w.until(), actStop)

	w = diverted(t, evChanged{})
	w.do(evHooked{ok: true})
	by = w.now.Add(time.Second)
	w.do(evChanged{by: by})
	if !w.deadline.Equal(by) {
		t.Errorf("waits until %v, want %v", w.deadline, by)
	}
	wantActions(t, w.until(), actStop)

	w = diverted(t, evChanged{by: by.Add(-2 * time.Second)})
	wantActions(t, w.do(evHooked{ok: true}), actStop)
}

// A command that ends meanwhile has ended by itself: nothing follows it.
func TestDivertedEnds(t *testing.T) {
	w := diverted(t, evChanged{})
	w.do(evHooked{ok: true})
	wantActions(t, w.do(evExited{status: exitStatus(1)}), actTermGroup)
	if w.followed() {
		t.Error("another command follows one that has ended by itself")
	}
}
