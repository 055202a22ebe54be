package launcher

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func startFirst() policy {
	p := testPolicy
	p.startFirst = true
	return p
}

// beside takes a machine into a handover.
func beside(t *testing.T) *walk {
	t.Helper()
	w := newWalk(startFirst())
	w.now = w.now.Add(time.Minute)
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "2"}), actHook)
	wantActions(t, w.do(evHooked{ok: true}), actStartBeside)
	w.wantBoth(t, running, preparing)
	return w
}

func (w *walk) wantBoth(t *testing.T, s state, c companion) {
	t.Helper()
	w.want(t, s)
	if w.companion != c {
		t.Fatalf("the companion is %s, want %s\n%s", w.companion, c, strings.Join(w.log, "\n"))
	}
}

// The whole way: the next command is started, is ready, serves; the old one's queue drains, it is told to stop and ends.
func TestHandover(t *testing.T) {
	w := beside(t)
	wantActions(t, w.do(evReady{}), actSwitch)
	w.wantBoth(t, running, draining)
	wantActions(t, w.do(evDrained{}), actStopOther)
	w.wantBoth(t, running, leaving)
	wantActions(t, w.do(evOtherExited{exitStatus(1)}), actSweepOther)
	w.wantBoth(t, running, sweeping)
	wantActions(t, w.do(evOtherGone{}), actForgetOther)
	w.wantBoth(t, running, alone)
	wantActions(t, w.pass(testPolicy.probation), actKeepGood)
	if w.current != "2" {
		t.Errorf("runs %q", w.current)
	}
}

// A new command that ends, or is not ready in time, or of which nobody can know, is given up; the old one runs on, and that
// set of versions is not tried again until it changes.
func TestHandoverGivenUp(t *testing.T) {
	for name, give := range map[string]func(t *testing.T, w *walk){
		"it ends": func(t *testing.T, w *walk) {
			wantActions(t, w.do(evOtherExited{exitStatus(1)}), actLogUnready, actSweepOther)
		},
		"it does not stop in time": func(t *testing.T, w *walk) {
			wantActions(t, w.do(evUnready{errors.New("x")}), actLogUnready, actStopOther)
			w.now = w.now.Add(testPolicy.stopTimeout)
			wantActions(t, w.do(evTimer{}), actKillOther)
			wantActions(t, w.do(evOtherExited{killedStatus(unix.SIGKILL)}), actSweepOther)
		},
		"nobody can know": func(t *testing.T, w *walk) {
			wantActions(t, w.do(evUnready{errors.New("x")}), actLogUnready, actStopOther)
			wantActions(t, w.do(evOtherExited{killedStatus(unix.SIGTERM)}), actSweepOther)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := beside(t)
			give(t, w)
			w.do(evOtherGone{})
			w.wantBoth(t, running, alone)
			w.do(evChanged{})
			w.until()
			wantActions(t, w.do(evRead{id: "2", pinned: true, same: true}), actLogTriedBefore, actDrop)
			w.do(evChanged{})
			w.until()
			wantActions(t, w.do(evRead{id: "3"}), actHook)
			if w.current != "" {
				t.Errorf("runs %q", w.current)
			}
		})
	}
	w := beside(t)
	wantActions(t, w.do(evBesideFailed{err: errors.New("x")}), actLogUnready, actForgetOther)
	w.wantBoth(t, running, alone)
}

// The old command ends while the new one warms: the new one takes its place. The new one ends before the old one was told to
// stop: the old one serves on.
func TestHandoverOneEnds(t *testing.T) {
	w := beside(t)
	wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogTakesOver, actSwitch, actSweepOther)
	w.wantBoth(t, running, sweeping)
	w.do(evOtherGone{})
	w.wantBoth(t, running, alone)

	w = beside(t)
	w.rollback = false
	w.do(evReady{})
	wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogBack, actSwitch, actSweepOther)
	w.do(evOtherGone{})
	w.wantBoth(t, running, alone)
	if w.rejected != "2" {
		t.Errorf("rejected %q", w.rejected)
	}

	w = beside(t) // on trial: what worked before follows, and has its queue
	w.do(evReady{})
	wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogRevert, actTermGroup)
	wantActions(t, w.do(evGroupGone{}), actStopOther)
	w.do(evOtherExited{exitStatus(0)})
	wantActions(t, w.do(evOtherGone{}), actForgetOther, actRevert)
	w.want(t, starting)

	w = beside(t) // the old one is ending already: what worked before is started when it is gone
	w.do(evReady{})
	w.do(evDrained{})
	wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogRevert, actTermGroup)
	wantActions(t, w.do(evGroupGone{}))
	w.wantBoth(t, clearing, leaving)
	wantActions(t, w.do(evOtherExited{exitStatus(0)}), actSweepOther)
	wantActions(t, w.do(evOtherGone{}), actForgetOther, actRevert)
	w.want(t, starting)
}

// SIGTERM in a handover goes to both, and the status is that of the command that served.
func TestHandoverTerm(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*walk)
		want   []action
	}{
		"preparing": {func(*walk) {}, []action{actStopOther}},
		"draining":  {func(w *walk) { w.do(evReady{}) }, []action{actStopOther}},
		"leaving":   {func(w *walk) { w.do(evReady{}); w.do(evDrained{}) }, nil},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(name, first), func(t *testing.T) {
				w := beside(t)
				c.before(w)
				wantActions(t, w.do(evSignal{unix.SIGTERM}), c.want...)
				w.wantBoth(t, ending, leaving)
				serves := func() { w.do(evExited{status: exitStatus(7)}); w.do(evGroupGone{}) }
				other := func() { w.do(evOtherExited{exitStatus(8)}); w.do(evOtherGone{}) }
				if first {
					serves()
					if w.over() {
						t.Fatal("ends before the other one")
					}
					other()
				} else {
					other()
					serves()
				}
				if !w.over() {
					t.Fatalf("%s, %s", w.state, w.companion)
				}
				var e *Exited
				if !errors.As(w.outcome(), &e) || e.Code != 7 {
					t.Errorf("ends with %v", w.outcome())
				}
			})
		}
	}
}

// A signal that may end both commands is no failure of the new secrets, whenever in the handover it came. SIGHUP goes to the
// one that serves, and says nothing about the other.
func TestHandoverSignals(t *testing.T) {
	for _, c := range []struct {
		sig  unix.Signal
		want []action
	}{
		{unix.SIGINT, []action{actTermGroup}},
		{unix.SIGQUIT, []action{actTermGroup}},
		{unix.SIGHUP, []action{actLogRevert, actTermGroup}},
	} {
		w := beside(t)
		w.do(evSignal{c.sig})
		w.do(evReady{})
		wantActions(t, w.do(evExited{status: exitStatus(1)}), c.want...)

		w = beside(t) // in the handover before: it says nothing about this one
		w.do(evSignal{c.sig})
		w.do(evOtherExited{exitStatus(1)})
		w.do(evOtherGone{})
		w.do(evChanged{})
		w.until()
		w.do(evRead{id: "3"})
		w.do(evHooked{ok: true})
		w.do(evReady{})
		wantActions(t, w.do(evExited{status: exitStatus(1)}), actLogRevert, actTermGroup)
	}
}

// A command that was ended by hand or by a key ends the run, whichever serves, on trial or not.
func TestHandoverByHand(t *testing.T) {
	for name, ev := range map[string]evExited{
		"a key, and a failure":  {status: exitStatus(1), key: true},
		"a key, and success":    {status: exitStatus(0), key: true},
		"killed by SIGINT":      {status: killedStatus(unix.SIGINT)},
		"exit code 143 of TERM": {status: exitStatus(143)},
	} {
		for _, trial := range []bool{true, false} {
			for _, serves := range []string{"old", "new"} {
				w := beside(t)
				if w.rollback = trial; serves == "new" {
					w.do(evReady{})
				}
				t.Log(name, trial, serves)
				wantActions(t, w.do(ev), actTermGroup)
				wantActions(t, w.do(evGroupGone{}), actStopOther)
				w.do(evOtherExited{exitStatus(0)})
				w.do(evOtherGone{})
				if w.want(t, ended); w.status != ev.status {
					t.Errorf("%s: ends with %v", name, w.status)
				}
			}
		}
	}
	w := beside(t) // no hand: what runs out of memory
	wantActions(t, w.do(evExited{status: killedStatus(unix.SIGKILL)}), actLogTakesOver, actSwitch, actSweepOther)
}

// A second SIGTERM ends the wait for both commands where --stop-timeout was given, as it does for one.
func TestHandoverSecondTerm(t *testing.T) {
	for name, served := range map[string]bool{"both live": false, "the one that serves has ended": true} {
		for _, explicit := range []bool{true, false} {
			w := beside(t)
			w.stopExplicit = explicit
			w.do(evReady{})
			w.do(evDrained{})
			w.do(evSignal{unix.SIGTERM})
			var want []action
			if explicit {
				want = []action{actKill, actKillOther}
			}
			if served {
				w.do(evExited{status: exitStatus(0)})
				w.do(evGroupGone{})
				want = want[min(1, len(want)):]
			}
			w.now = w.now.Add(againAfter - 1)
			wantActions(t, w.do(evSignal{unix.SIGTERM}))
			w.now = w.now.Add(1)
			t.Log(name, explicit)
			wantActions(t, w.do(evSignal{unix.SIGTERM}), want...)
		}
	}
}

// A command that cannot be started for what may pass is no fault of the secrets: it is tried again, less and less often.
func TestHandoverCannotStartNow(t *testing.T) {
	w := beside(t)
	for _, wait := range []time.Duration{firstRetry, 2 * firstRetry} {
		wantActions(t, w.do(evBesideFailed{errors.New("x"), true}), actLogUnready, actForgetOther, actLogWait)
		if w.rejected != "" {
			t.Fatalf("rejected %q", w.rejected)
		}
		begun := w.now
		w.until()
		if got := w.now.Sub(begun); got != wait {
			t.Errorf("tried again after %v, want %v", got, wait)
		}
		wantActions(t, w.do(evRead{id: "2"}), actHook)
		wantActions(t, w.do(evHooked{ok: true}), actStartBeside)
	}
	wantActions(t, w.do(evReady{}), actSwitch)
}

// A change waits for the end of a handover. One that a lease causes is tried again when the new command was not ready, and in
// the end the old one is stopped first.
func TestHandoverAndChanges(t *testing.T) {
	w := beside(t)
	wantActions(t, w.do(evChanged{}))
	w.do(evReady{})
	wantActions(t, w.do(evChanged{}))
	w.do(evDrained{})
	w.do(evOtherExited{exitStatus(0)})
	wantActions(t, w.do(evOtherGone{}), actForgetOther, actLogSettle)
	w.want(t, settling)

	w = beside(t)
	by := w.now.Add(30 * time.Second)
	wantActions(t, w.do(evChanged{by: by}))
	w.do(evOtherExited{exitStatus(1)})
	wantActions(t, w.do(evOtherGone{}), actForgetOther, actLogWait)
	w.want(t, waiting)
	w.until()
	wantActions(t, w.do(evRead{id: "2", pinned: true}), actHook)
	wantActions(t, w.do(evHooked{ok: true}), actStartBeside)
	w.do(evOtherExited{exitStatus(1)})
	w.do(evOtherGone{})
	w.until()
	if !w.now.Equal(by) {
		t.Errorf("tried again at %v, want %v", w.now, by)
	}
	w.do(evRead{id: "2", pinned: true})
	wantActions(t, w.do(evHooked{ok: true}), actStop)
}

// pair is two commands that live and die at random.
type pair struct {
	*walk
	rnd           *rand.Rand
	serves, other bool // alive
	group, group2 bool // something of its group is left when it has ended
	reading       bool
	warm          bool
	id            int
	term          bool
	starts        int
}

func (p *pair) step(t *testing.T, ev event) {
	fail := func(text string) { t.Fatalf("%s\n%s", text, strings.Join(p.log, "\n")) }
	for _, a := range p.do(ev) {
		switch a {
		case actStartBeside:
			switch {
			case p.other || !p.serves:
				fail("a command is started beside two, or none")
			case p.term:
				fail("a command is started after SIGTERM")
			case p.rnd.IntN(10) == 0:
				p.step(t, evBesideFailed{err: errors.New("x")})
			default:
				p.other, p.warm = true, true
				p.starts++
			}
		case actStart:
			if p.serves || p.other {
				fail("a command is started while another one lives")
			}
			if p.term {
				fail("a command is started after SIGTERM")
			}
			p.serves = true
			p.step(t, evStarted{})
		case actSwitch:
			p.serves, p.other, p.group, p.group2, p.warm = p.other, p.serves, p.group2, p.group, false
			if !p.serves {
				fail("a command serves that has ended")
			}
		case actStopOther:
			p.warm = false
		case actKillOther:
			if p.other {
				p.other, p.group2 = false, p.rnd.IntN(2) == 0
				p.step(t, evOtherExited{killedStatus(unix.SIGKILL)})
			}
		case actSweepOther:
			if p.warm = false; p.other {
				fail("a group is swept before its command")
			}
			if !p.group2 {
				p.step(t, evOtherGone{})
			}
		case actKill:
			if p.serves {
				p.serves = false
				p.step(t, evExited{status: killedStatus(unix.SIGKILL)})
			}
		case actTermGroup:
			p.step(t, evGroupGone{})
		case actRead:
			p.reading = true
		case actHook, actSkipHook:
			p.step(t, evHooked{ok: p.rnd.IntN(5) > 0})
		case actForgetOther:
			if p.other {
				fail("a command is forgotten that lives")
			}
		}
	}
	if p.over() && (p.serves || p.other) {
		fail("it ends before its commands")
	}
	if (p.companion == draining || p.companion == sweeping) && p.otherDue.IsZero() {
		fail("a companion without a deadline")
	}
	if p.companion == alone && p.other {
		fail("two commands, and one is forgotten")
	}
}

// TestRandomHandovers: whatever order things happen in, there are never three commands, none is started after SIGTERM, none is
// left at the end, and everything ends.
func TestRandomHandovers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	starts := 0
	for n := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, n))
		pol := startFirst()
		pol.rollback, pol.stopExplicit, pol.diverts = rnd.IntN(3) > 0, rnd.IntN(2) == 0, rnd.IntN(2) == 0
		pol.startFirst = rnd.IntN(5) > 0
		pol.random = func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d) + 1)) }
		p := &pair{walk: newWalk(pol), rnd: rnd, serves: true}
		for range 300 {
			if p.over() {
				break
			}
			p.now = p.now.Add(time.Duration(rnd.IntN(1500)) * time.Millisecond)
			if due := p.nextDue(); !due.IsZero() && due.Before(p.now) {
				p.now = due
				p.step(t, evTimer{})
				continue
			}
			switch k := rnd.IntN(100); {
			case k < 20:
				ev := evChanged{again: rnd.IntN(4) == 0}
				if rnd.IntN(4) == 0 {
					ev.by = p.now.Add(time.Duration(rnd.IntN(60)) * time.Second)
				}
				p.step(t, ev)
			case k < 50 && p.reading:
				p.reading = false
				p.id += rnd.IntN(2)
				p.step(t, evRead{failed: rnd.IntN(6) == 0, same: rnd.IntN(6) == 0, moving: rnd.IntN(6) == 0, pinned: rnd.IntN(6) == 0, id: fmt.Sprint(p.id)})
			case k < 65 && p.warm:
				if p.warm = false; rnd.IntN(6) == 0 {
					p.step(t, evUnready{errors.New("x")})
				} else {
					p.step(t, evReady{})
				}
			case k < 70 && (p.companion == draining || p.state == diverting):
				p.step(t, evDrained{})
			case k < 80 && p.other && (p.companion == leaving || rnd.IntN(10) == 0):
				p.other, p.group2 = false, rnd.IntN(2) == 0
				p.step(t, evOtherExited{exitStatus(rnd.IntN(2))})
			case k < 85 && p.serves && (p.state == stopping || p.state == ending || rnd.IntN(100) == 0):
				p.serves = false
				p.step(t, evExited{status: exitStatus(rnd.IntN(2))})
			case k < 90 && !p.other && p.group2 && p.companion == sweeping:
				p.group2 = false
				p.step(t, evOtherGone{})
			case k < 91:
				p.step(t, evSignal{[]unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGUSR1}[rnd.IntN(3)]})
			case k < 92 && rnd.IntN(6) == 0:
				p.term = true
				p.step(t, evSignal{unix.SIGTERM})
			}
		}
		// Now everything ends by itself.
		for n := 0; !p.over(); n++ {
			if n > 1000 {
				t.Fatalf("it does not end: %s, %s\n%s", p.state, p.companion, strings.Join(p.log, "\n"))
			}
			switch {
			case p.serves && p.state != starting:
				if !p.term {
					p.term = true
					p.step(t, evSignal{unix.SIGTERM})
				}
				p.serves = false
				p.step(t, evExited{status: exitStatus(0)})
			case p.other:
				p.other, p.group2 = false, false
				p.step(t, evOtherExited{exitStatus(0)})
			case p.group2 && p.companion == sweeping:
				p.group2 = false
				p.step(t, evOtherGone{})
			default:
				p.term = true
				p.step(t, evSignal{unix.SIGTERM})
				p.now = p.now.Add(time.Second)
				p.step(t, evTimer{})
			}
		}
		starts += p.starts
	}
	if starts < 3000 {
		t.Errorf("%d handovers are too few to mean anything", starts)
	}
}
