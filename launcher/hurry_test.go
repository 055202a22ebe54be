package launcher

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What has an end is not postponed beyond it: by a settle time, --splay, --min-uptime, changes that keep coming, or a hook.
func TestNothingPostponesBeyondTheEnd(t *testing.T) {
	const in = 20 * time.Second
	for name, c := range map[string]struct {
		policy func(*policy)
		before func(*walk) // what else happens while it waits
	}{
		"settle":     {policy: func(p *policy) { p.settle = time.Hour }},
		"splay":      {policy: func(p *policy) { p.splay = time.Hour }},
		"min-uptime": {policy: func(p *policy) { p.minUptime = time.Hour }},
		"changes that keep coming": {before: func(w *walk) {
			for range 10 {
				w.pass(1900 * time.Millisecond)
				w.do(evChanged{})
			}
		}},
		"an earlier change that waits": {policy: func(p *policy) { p.splay = time.Hour }, before: func(w *walk) {
			w.pass(5 * time.Second)
			w.do(evChanged{by: w.now.Add(10 * time.Second)})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPolicy
			if c.policy != nil {
				c.policy(&p)
			}
			w := newWalk(p)
			w.now = w.now.Add(10 * time.Second)
			begin := w.now
			w.do(evChanged{by: w.now.Add(in)})
			if c.before != nil {
				c.before(w)
			}
			for w.state != reading {
				if w.now.Sub(begin) > in {
					w.want(t, reading)
				}
				w.until()
			}
			if d := w.now.Sub(begin); d > in {
				t.Errorf("read after %v, want %v at most", d, in)
			}
			// Something moves, and is not waited for any longer.
			w.now = begin.Add(in)
			wantActions(t, w.do(evRead{id: "2", moving: true, by: begin.Add(in)}), actHook)
		})
	}
}

// A hook that fails, or takes too long, is not waited for when credentials are about to end. A command that cannot be started is.
func TestHookIsNotWaitedFor(t *testing.T) {
	start := func() (*walk, time.Time) {
		w := newWalk(testPolicy)
		w.now = w.now.Add(time.Minute)
		by := w.now.Add(15 * time.Second)
		w.do(evChanged{by: by})
		w.until()
		wantActions(t, w.do(evRead{id: "2"}), actHook)
		return w, by
	}
	w, by := start()
	w.do(evHooked{hook: true})
	w.want(t, waiting)
	if !w.deadline.Equal(w.now.Add(10 * time.Second)) {
		t.Errorf("tried again at %v", w.deadline)
	}
	w.until()
	w.do(evRead{id: "2"})
	w.do(evHooked{hook: true}) // again, 3 s before the end
	w.want(t, waiting)
	if !w.deadline.Equal(by) {
		t.Errorf("waits until %v, want %v", w.deadline, by)
	}
	w.until()
	w.do(evRead{id: "2"})
	wantActions(t, w.do(evHooked{hook: true}), actLogHurry, actSkipHook)
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	w.want(t, stopping)

	w, by = start()
	wantActions(t, w.until(), actAbortHook)
	if !w.now.Equal(by) {
		t.Errorf("aborted at %v, want %v", w.now, by)
	}
	wantActions(t, w.do(evHooked{hook: true}), actLogHurry, actSkipHook)
	wantActions(t, w.do(evHooked{}), actDrop, actLogWait) // the program is gone
	w.want(t, waiting)
	w.do(evSignal{unix.SIGTERM})
	w.want(t, ending)
}

// A command whose versions were rejected gets new credentials, with the versions before them.
func TestPinnedRestart(t *testing.T) {
	w := newWalk(testPolicy)
	w.now = w.now.Add(time.Minute)
	w.restart("2")
	w.do(evExited{status: exitStatus(1)})
	w.do(evGroupGone{})
	w.until()
	w.do(evStarted{})
	w.want(t, running)
	w.now = w.now.Add(time.Minute)
	w.do(evChanged{by: w.now.Add(time.Minute)})
	w.until()
	wantActions(t, w.do(evRead{id: "2", pinned: true, same: true}), actLogTriedBefore, actDrop)
	w.do(evChanged{by: w.now.Add(time.Minute)})
	w.until()
	wantActions(t, w.do(evRead{id: "2", pinned: true}), actHook)
	wantActions(t, w.do(evHooked{ok: true}), actStop)
}
