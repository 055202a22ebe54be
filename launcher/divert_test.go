package launcher

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// A signal that asks for the end, and that came just before the stop signal, is the end: nothing follows. One that the command
// has lived on after, a while ago, is forgotten; so is SIGHUP, which may ask for a reload.
func TestAskedToEndWhileDiverting(t *testing.T) {
	for _, c := range []struct {
		sig  unix.Signal
		wait time.Duration
		ends bool
	}{{unix.SIGINT, 0, true}, {unix.SIGQUIT, 0, true}, {unix.SIGHUP, 0, false}, {unix.SIGUSR1, 0, false}, {unix.SIGINT, time.Minute, false}} {
		w := newWalk(testPolicy)
		w.diverts = true
		w.now = w.now.Add(time.Minute)
		w.do(evChanged{})
		w.until()
		w.do(evRead{id: "2"})
		if c.wait > 0 {
			w.do(evSignal{c.sig})
			w.now = w.now.Add(c.wait)
		}
		wantActions(t, w.do(evHooked{ok: true}), actDivert)
		if c.wait == 0 {
			w.do(evSignal{c.sig})
		}
		wantActions(t, w.do(evDrained{}), actStop)
		w.do(evExited{status: exitStatus(0)})
		if w.followed() == c.ends {
			t.Errorf("%v, %v before: another follows: %v", c.sig, c.wait, w.followed())
		}
	}
}
