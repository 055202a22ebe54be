package launcher

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of the state machine need neither a process nor a Vault. They carry the numbers of the demands that they stand
// for.

var testPolicy = policy{
	settle: 2 * time.Second, minUptime: 5 * time.Second, probation: 10 * time.Second, rollback: true,
	stopTimeout: 10 * time.Second, random: func(d time.Duration) time.Duration { return d },
}

func exitStatus(code int) unix.WaitStatus             { return unix.WaitStatus(code << 8) }
func killedStatus(sig syscall.Signal) unix.WaitStatus { return unix.WaitStatus(sig) }

// walk is a machine with a clock of the test's own.
type walk struct {
	*machine
	now time.Time
	log []string
}

func newWalk(p policy) *walk {
	w := &walk{machine: newMachine(p), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.do(evStarted{})
	return w
}

func (w *walk) do(ev event) []action {
	acts := w.on(ev, w.now)
	w.log = append(w.log, fmt.Sprintf("%s %T%+v → %s %v", w.now.Format("04:05.000"), ev, ev, w.state, acts))
	return acts
}

// pass lets time pass and delivers the timer's event on the way, as supervise.go does.
func (w *walk) pass(d time.Duration) []action {
	var acts []action
	end := w.now.Add(d)
	for due := w.nextDue(); !due.IsZero() && !due.After(end); due = w.nextDue() {
		w.now = due
		more := w.do(evTimer{})
		acts = append(acts, more...)
		if len(more) == 0 && w.nextDue().Equal(w.now) {
			break
		}
	}
	w.now = end
	return acts
}

// until lets time pass up to the next deadline.
func (w *walk) until() []action {
	if w.deadline.After(w.now) {
		w.now = w.deadline
	}
	return w.do(evTimer{})
}

// restart takes a running child of some age through a whole change.
func (w *walk) restart(id string) {
	w.do(evChanged{})
	for w.state == settling || w.state == waiting {
		w.until()
	}
	w.do(evRead{id: id})
	w.do(evHooked{ok: true})
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
}

func (w *walk) want(t *testing.T, s state) {
	t.Helper()
	if w.state != s {
		t.Fatalf("%s, want %s\n%s", w.state, s, strings.Join(w.log, "\n"))
	}
}

func wantActions(t *testing.T, got []action, want ...action) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("actions %v, want %v", got, want)
	}
}

// in returns a machine that came to a state on a way that people take.
func in(p policy, s state) *walk {
	w := newWalk(p)
	w.now = w.now.Add(time.Minute)
	switch s {
	case running:
		return w
	case ending:
		w.do(evSignal{unix.SIGTERM})
		return w
	case ended:
		w.do(evExited{status: exitStatus(0)})
		w.do(evGroupGone{})
		return w
	case waiting:
		w.splay = time.Minute
	case diverting:
		w.diverts = true
	case queueing:
		w.locks = true
	}
	w.do(evChanged{})
	if s == settling {
		return w
	}
	w.until()
	if s == waiting || s == queueing || s == reading {
		return w
	}
	w.do(evRead{id: "2"})
	if s == hooking {
		return w
	}
	w.do(evHooked{ok: true})
	if s == stopping || s == diverting {
		return w
	}
	w.do(evExited{status: killedStatus(unix.SIGTERM)})
	if s == clearing {
		return w
	}
	w.do(evGroupGone{})
	return w // starting
}

var allStates = []state{starting, running, settling, waiting, queueing, reading, hooking, diverting, stopping, ending, clearing, ended}

// TestEveryEventInEveryState is the table of the machine: what each event leads to and what is done, in every state that a
// change of the secrets passes through.
func TestEveryEventInEveryState(t *testing.T) {
	events := map[string]event{
		"started": evStarted{}, "start failed": evStartFailed{errors.New("x")}, "exited": evExited{status: exitStatus(0)},
		"group gone": evGroupGone{}, "TERM": evSignal{unix.SIGTERM}, "INT": evSignal{unix.SIGINT}, "HUP": evSignal{unix.SIGHUP},
		"QUIT": evSignal{unix.SIGQUIT}, "USR1": evSignal{unix.SIGUSR1}, "timer": evTimer{}, "changed": evChanged{},
		"again": evChanged{again: true}, "read": evRead{id: "3"}, "read same": evRead{same: true}, "read failed": evRead{failed: true},
		"read moving": evRead{moving: true, id: "3"}, "hook ok": evHooked{ok: true}, "hook failed": evHooked{},
		"drained": evDrained{}, "turn": evTurn{}, "turn lost": evTurnLost{}, "tried bad": evTriedBad{},
	}
	type outcome struct {
		to   state
		acts string
	}
	// What is not named changes nothing. A timer comes before its time here, unless the state says otherwise.
	table := map[state]map[string]outcome{
		starting: {
			"started": {running, "[accept]"}, "start failed": {ended, "[]"}, "TERM": {ended, "[]"}, "INT": {ended, "[]"},
			"HUP": {ended, "[]"}, "QUIT": {ended, "[]"},
		},
		running: {
			"exited": {clearing, "[term group]"}, "TERM": {ending, "[]"}, "changed": {settling, "[log settle]"}, "again": {settling, "[]"},
		},
		settling: {"exited": {clearing, "[term group]"}, "TERM": {ending, "[log late]"}},
		waiting:  {"exited": {clearing, "[term group]"}, "TERM": {ending, "[log late]"}},
		queueing: {
			"exited": {clearing, "[term group leave turn]"}, "TERM": {ending, "[log late leave turn]"}, "turn": {reading, "[read]"},
			"tried bad": {running, "[reject tried leave turn]"},
		},
		reading: {
			"exited": {clearing, "[term group]"}, "TERM": {ending, "[log late]"}, "read": {hooking, "[hook]"},
			"read same": {running, "[log same accept]"}, "read failed": {running, "[drop]"}, "read moving": {settling, "[drop]"},
		},
		hooking: {
			"exited": {clearing, "[abort hook term group]"}, "TERM": {ending, "[abort hook log late]"},
			"hook ok": {stopping, "[stop]"}, "hook failed": {waiting, "[drop log wait]"},
		},
		diverting: {"exited": {clearing, "[term group]"}, "TERM": {ending, "[log late]"}, "drained": {stopping, "[stop]"}},
		stopping: {
			"exited": {clearing, "[term group]"}, "TERM": {stopping, "[log late]"}, "INT": {stopping, "[log late]"}, "QUIT": {stopping, "[log late]"},
		},
		ending:   {"exited": {clearing, "[term group]"}},
		clearing: {"group gone": {starting, "[start]"}},
		ended:    {},
	}
	for _, s := range allStates {
		for name, ev := range events {
			w := in(testPolicy, s)
			w.want(t, s)
			want, ok := table[s][name]
			if !ok {
				want = outcome{s, "[]"}
			}
			acts := w.do(ev)
			if got := (outcome{w.state, fmt.Sprint(acts)}); got != want {
				t.Errorf("%s in %s: %v, want %v", name, s, got, want)
			}
		}
	}
}

// String names the action in tests.
func (a action) String() string {
	return [...]string{"start", "revert", "accept", "keep good", "read", "hook", "divert", "skip hook", "stop", "signal", "kill", "term group", "abort hook", "warn left",
		"log settle", "log wait", "log same", "log none", "log tried before", "log revert", "log late", "log hurry", "start beside", "switch", "stop other", "kill other", "sweep other", "forget other",
		"warn other", "log unready", "log undrained", "log takes over", "log back", "drop", "queue", "leave turn", "reject tried", "tell good", "tell bad",
		"log no place", "log without"}[a]
}

// Several changes within the settle time, over several looks, are one restart, and postpone it by 30 s at most.
func TestSettle(t *testing.T) {
	w := in(testPolicy, running)
	start := w.now
	w.do(evChanged{})
	for range 100 { // one a second, without end
		w.pass(time.Second)
		if w.state != settling {
			break
		}
		wantActions(t, w.do(evChanged{}))
	}
	w.want(t, reading)
	if waited := w.now.Sub(start); waited < 30*time.Second || waited > 33*time.Second {
		t.Errorf("read after %v, want settle and 30 s more at most", waited)
	}
	// What still changes then is taken as it is.
	wantActions(t, w.do(evRead{moving: true, id: "2"}), actHook)

	// A read that finds more than the looks settles again.
	w = in(testPolicy, reading)
	wantActions(t, w.do(evRead{moving: true, id: "2"}), actDrop)
	w.want(t, settling)
	wantActions(t, w.pass(2*time.Second), actRead)
	wantActions(t, w.do(evRead{id: "2"}), actHook)

	// A settle time longer than 30 s is not cut.
	long := testPolicy
	long.settle = time.Minute
	w = in(long, running)
	w.do(evChanged{})
	w.pass(10 * time.Second)
	w.do(evChanged{})
	w.pass(59 * time.Second)
	w.want(t, settling)
	w.pass(time.Second)
	w.want(t, reading)
}

// A change that comes while another waits for its turn has its own settle time.
func TestSettleWhileWaiting(t *testing.T) {
	w := newWalk(testPolicy)
	w.do(evChanged{})
	wantActions(t, w.pass(2*time.Second), actLogWait)
	w.pass(2500 * time.Millisecond) // half a second before --min-uptime is over
	w.do(evChanged{})
	wantActions(t, w.pass(1900*time.Millisecond))
	w.want(t, waiting)
	wantActions(t, w.pass(100*time.Millisecond), actRead)
}

// A change seen while nothing can be done about it is not lost: by the hook, while the child is stopped, while its group is
// cleared and before a revert.
func TestChangeIsKept(t *testing.T) {
	for _, s := range []state{reading, hooking, diverting, stopping, clearing, starting} {
		w := in(testPolicy, s)
		w.do(evChanged{})
		for range 10 {
			switch w.state {
			case reading:
				w.do(evRead{id: "2"})
			case hooking:
				w.do(evHooked{ok: true})
			case diverting:
				w.do(evDrained{})
			case stopping:
				w.do(evExited{status: exitStatus(0)})
			case clearing:
				w.do(evGroupGone{})
			case starting:
				wantActions(t, w.do(evStarted{}), actAccept, actLogSettle)
			}
			if w.state == settling {
				break
			}
		}
		if w.state != settling {
			t.Errorf("a change in %s is lost:\n%s", s, strings.Join(w.log, "\n"))
		}
	}
	// The same for --on-change signal, which goes back to running by the hook.
	p := testPolicy
	p.onChange = ReactSignal
	w := in(p, hooking)
	w.do(evChanged{})
	wantActions(t, w.do(evHooked{ok: true}), actSignal, actAccept, actLogSettle)
	// A hook that fails has everything read again anyway.
	w = in(testPolicy, hooking)
	w.do(evChanged{})
	w.do(evHooked{})
	w.until()
	w.do(evRead{id: "2"})
	w.want(t, hooking)
}

// A child that fails within the probation is replaced by the last good environment, once, and its versions are not
// tried again.
func TestRollback(t *testing.T) {
	w := in(testPolicy, running)
	w.restart("2")
	w.pass(time.Second)
	acts := w.do(evExited{status: exitStatus(1)})
	wantActions(t, acts, actLogRevert, actTermGroup)
	wantActions(t, w.do(evGroupGone{}), actRevert)
	w.want(t, starting)
	wantActions(t, w.pass(3*time.Second)) // --min-uptime counts here, too
	wantActions(t, w.pass(time.Second), actStart)
	wantActions(t, w.do(evStarted{}), actAccept)
	w.want(t, running)
	w.pass(time.Minute)

	w.do(evChanged{}) // deleted and undeleted, say
	w.until()
	wantActions(t, w.do(evRead{id: "2"}), actLogTriedBefore, actDrop)
	w.want(t, running)

	w.restart("3")
	w.want(t, running)
	if keep := w.pass(10 * time.Second); !slices.Contains(keep, actKeepGood) {
		t.Errorf("the probation's end does nothing: %v", keep)
	}
	// After it, a failure is the command's own.
	w.do(evExited{status: exitStatus(1)})
	w.do(evGroupGone{})
	w.want(t, ended)
}

// A key that ends the command is no failure of the secrets, whatever it exits with.
func TestNoRollbackAfterAKey(t *testing.T) {
	for _, status := range []unix.WaitStatus{exitStatus(1), exitStatus(0), exitStatus(255), killedStatus(unix.SIGKILL)} {
		w := in(testPolicy, running)
		w.restart("2")
		w.do(evExited{status: status, typed: true, key: true})
		w.do(evGroupGone{})
		w.want(t, ended)
	}
}

// What looks like a signal to end, and is none, is a failure like any other.
func TestRollbackOfOtherSignals(t *testing.T) {
	for _, status := range []unix.WaitStatus{killedStatus(unix.SIGKILL), killedStatus(unix.SIGSEGV), killedStatus(unix.SIGUSR1), exitStatus(137), exitStatus(139), exitStatus(128), exitStatus(255)} {
		w := in(testPolicy, running)
		w.restart("2")
		wantActions(t, w.do(evExited{status: status}), actLogRevert, actTermGroup)
	}
}

// While the child drains after vaultexec's stop signal, a key that ended it ends the run, on a terminal only: without one a
// program may answer a stop signal as it likes.
func TestKeyWhileStopping(t *testing.T) {
	p := testPolicy
	p.stopSignal = unix.SIGTERM
	for name, c := range map[string]struct {
		ev   evExited
		want state
	}{
		"INT at a terminal":           {evExited{status: killedStatus(unix.SIGINT), typed: true}, ended},
		"QUIT at a terminal":          {evExited{status: killedStatus(unix.SIGQUIT), typed: true}, ended},
		"its end":                     {evExited{status: killedStatus(unix.SIGHUP), typed: true}, ended},
		"exit code 130 at a terminal": {evExited{status: exitStatus(130), typed: true}, ended},
		"the stop signal":             {evExited{status: killedStatus(unix.SIGTERM), typed: true}, starting},
		"exit code 143":               {evExited{status: exitStatus(143), typed: true}, starting},
		"exit code 1":                 {evExited{status: exitStatus(1), typed: true}, starting},
		"SIGKILL":                     {evExited{status: killedStatus(unix.SIGKILL), typed: true}, starting},
		"INT without a terminal":      {evExited{status: killedStatus(unix.SIGINT), typed: false}, starting},
		"130 without a terminal":      {evExited{status: exitStatus(130), typed: false}, starting},
	} {
		w := in(p, stopping)
		w.do(c.ev)
		w.do(evGroupGone{})
		if w.state != c.want {
			t.Errorf("%s: %s, want %s", name, w.state, c.want)
		}
	}
}

// The failure of the reverted child ends vaultexec; there is no third try.
func TestRollbackOnce(t *testing.T) {
	w := in(testPolicy, running)
	w.restart("2")
	w.do(evExited{status: killedStatus(unix.SIGSEGV)})
	w.do(evGroupGone{})
	w.until()
	w.do(evStarted{})
	w.do(evExited{status: exitStatus(3)})
	w.do(evGroupGone{})
	w.want(t, ended)
	if w.status.ExitStatus() != 3 {
		t.Errorf("ended with %v", w.status)
	}
}

// What is rejected is what the failed child was started with, and a change that was under way then is not lost.
func TestRollbackDuringTheNextChange(t *testing.T) {
	for _, s := range []state{settling, waiting, reading, hooking, diverting} {
		w := in(testPolicy, running)
		w.restart("2")
		w.diverts = true
		w.do(evChanged{})
		w.until()
		if s != settling {
			for w.state != s && w.state != diverting {
				switch w.state {
				case settling, waiting:
					w.until()
				case reading:
					w.do(evRead{id: "3"})
				case hooking:
					w.do(evHooked{ok: true})
				}
			}
		}
		w.do(evExited{status: exitStatus(1)})
		if w.rejected != "2" {
			t.Errorf("in %s: rejected %q, want the versions of the failed child", s, w.rejected)
		}
		w.do(evGroupGone{})
		w.until()
		wantActions(t, w.do(evStarted{}), actAccept, actLogSettle)
		for w.state == settling || w.state == waiting {
			w.until()
		}
		wantActions(t, w.do(evRead{id: "3"}), actHook)
	}
}

// What is no failure of the secrets leads to no rollback.
func TestNoRollback(t *testing.T) {
	off := testPolicy
	off.rollback = false
	for name, c := range map[string]struct {
		p      policy
		before event
		status unix.WaitStatus
	}{
		"--no-rollback":   {off, nil, exitStatus(1)},
		"exit code 0":     {testPolicy, nil, exitStatus(0)},
		"a SIGTERM first": {testPolicy, evSignal{unix.SIGTERM}, killedStatus(unix.SIGTERM)},
		"Ctrl-C first":    {testPolicy, evSignal{unix.SIGINT}, exitStatus(130)},
		// Keys that vaultexec does not see, and what somebody sends to the command itself.
		"killed by INT":  {testPolicy, nil, killedStatus(unix.SIGINT)},
		"killed by QUIT": {testPolicy, nil, killedStatus(unix.SIGQUIT)},
		"killed by HUP":  {testPolicy, nil, killedStatus(unix.SIGHUP)},
		"killed by TERM": {testPolicy, nil, killedStatus(unix.SIGTERM)},
		"exit code 129":  {testPolicy, nil, exitStatus(129)},
		"exit code 130":  {testPolicy, nil, exitStatus(130)},
		"exit code 131":  {testPolicy, nil, exitStatus(131)},
		"exit code 143":  {testPolicy, nil, exitStatus(143)},
	} {
		w := in(c.p, running)
		w.restart("2")
		if c.before != nil {
			w.do(c.before)
		}
		w.do(evExited{status: c.status})
		w.do(evGroupGone{})
		if w.state != ended {
			t.Errorf("%s: %s, want the end", name, w.state)
		}
	}
	w := newWalk(testPolicy) // the first child has nothing to be rolled back to
	w.do(evExited{status: exitStatus(1)})
	w.do(evGroupGone{})
	w.want(t, ended)
}

// A SIGTERM cancels whatever vaultexec had in mind, in every state.
func TestTermEverywhere(t *testing.T) {
	for _, s := range allStates {
		w := in(testPolicy, s)
		acts := w.do(evSignal{unix.SIGTERM})
		for _, ev := range []event{evTimer{}, evHooked{ok: true}, evRead{id: "9"}, evChanged{}, evExited{status: exitStatus(0)}, evGroupGone{}, evTimer{}, evStarted{}} {
			w.now = w.now.Add(time.Minute)
			acts = append(acts, w.do(ev)...)
		}
		for _, bad := range []action{actStart, actRevert, actStop, actSignal, actHook, actRead} {
			if slices.Contains(acts, bad) {
				t.Errorf("%s after a SIGTERM in %s:\n%s", bad, s, strings.Join(w.log, "\n"))
			}
		}
		w.want(t, ended)
	}
}

// A signal between two children ends vaultexec by it.
func TestSignalBetweenChildren(t *testing.T) {
	for _, sig := range deadly {
		for _, s := range []state{clearing, starting} {
			w := in(testPolicy, s)
			w.do(evSignal{sig})
			w.do(evGroupGone{})
			if w.state != ended || w.next != toDie || w.signal != sig {
				t.Errorf("%s in %s: %s, %v", SignalName(sig), s, w.state, w.signal)
			}
		}
	}
}

// --on-change none tells and takes note; exit stops the child and ends with a code of its own.
func TestOtherReactions(t *testing.T) {
	p := testPolicy
	p.onChange = ReactNone
	wantActions(t, in(p, reading).do(evRead{id: "2"}), actLogNone, actAccept)
	p.onChange = ReactExit
	w := in(p, hooking)
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	if w.state != ended || w.next != toExit {
		t.Errorf("%s %d", w.state, w.next)
	}
	w = in(p, stopping) // its own status counts when a signal asked for the end meanwhile
	w.do(evSignal{unix.SIGTERM})
	w.do(evExited{status: exitStatus(7)})
	w.do(evGroupGone{})
	if w.next != toEnd {
		t.Errorf("purpose %d", w.next)
	}
}

// A signal that cannot bring everything to the command is a restart, of this change only.
func TestInsteadOfSignal(t *testing.T) {
	p := testPolicy
	p.onChange = ReactSignal
	w := in(p, reading)
	wantActions(t, w.do(evRead{id: "2", beside: true}), actHook)
	if w.bySignal() || !w.insteadOfSignal() {
		t.Errorf("by a signal: %t, instead of one: %t", w.bySignal(), w.insteadOfSignal())
	}
	wantActions(t, w.do(evHooked{ok: true}), actStop)
	w.do(evExited{status: exitStatus(0)})
	w.do(evGroupGone{})
	w.do(evStarted{})
	w.pass(time.Minute)
	w.do(evChanged{})
	w.until()
	wantActions(t, w.do(evRead{id: "3"}), actHook)
	if !w.bySignal() || w.insteadOfSignal() {
		t.Errorf("by a signal: %t, instead of one: %t", w.bySignal(), w.insteadOfSignal())
	}
	wantActions(t, w.do(evHooked{ok: true}), actSignal, actAccept)
	// No other reaction minds.
	for _, r := range []Reaction{ReactRestart, ReactExit, ReactNone} {
		p.onChange = r
		w := in(p, reading)
		w.do(evRead{id: "2", beside: true})
		if w.bySignal() || w.insteadOfSignal() {
			t.Errorf("reaction %d: by a signal: %t, instead of one: %t", r, w.bySignal(), w.insteadOfSignal())
		}
	}
}

// A change is as old as the first look that saw it, also where it had to wait for a child that runs undisturbed.
func TestChangeHasAnAge(t *testing.T) {
	for _, s := range []state{running, starting, stopping, clearing} {
		w := in(testPolicy, s)
		w.now = w.now.Add(time.Second)
		w.do(evChanged{})
		if !w.since.Equal(w.now) {
			t.Errorf("in %s: seen at %v, want %v", s, w.since, w.now)
		}
	}
	for _, s := range []state{settling, waiting, reading, hooking, diverting} {
		w := in(testPolicy, s)
		seen := w.since
		w.now = w.now.Add(time.Second)
		w.do(evChanged{})
		if !w.since.Equal(seen) {
			t.Errorf("in %s: seen at %v, want %v", s, w.since, seen)
		}
	}
}

// A hook that fails postpones the change by 10 s, 20 s … 5 min, and everything is read anew each time.
func TestHookFails(t *testing.T) {
	w := in(testPolicy, hooking)
	for _, pause := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		wantActions(t, w.do(evHooked{}), actDrop, actLogWait)
		wantActions(t, w.pass(pause*time.Second-1))
		wantActions(t, w.pass(1), actRead)
		wantActions(t, w.do(evRead{id: "2"}), actHook)
	}
}

// The random delay is up to --splay and follows the settle time.
func TestSplay(t *testing.T) {
	p := testPolicy
	p.splay = 37 * time.Second
	w := in(p, running)
	w.do(evChanged{})
	wantActions(t, w.until(), actLogWait)
	if w.why != "splay" || w.deadline.Sub(w.now) != 37*time.Second {
		t.Errorf("waits for %q %v", w.why, w.deadline.Sub(w.now))
	}
	wantActions(t, w.until(), actRead)
}

// The stop of a restart ends in SIGKILL after --stop-timeout; what is left of the group after two seconds, and what
// survives that is not waited for.
func TestStopTakesLong(t *testing.T) {
	w := in(testPolicy, stopping)
	wantActions(t, w.pass(9*time.Second))
	wantActions(t, w.pass(time.Second), actKill)
	wantActions(t, w.do(evExited{status: killedStatus(unix.SIGKILL)}), actTermGroup)
	wantActions(t, w.pass(2*time.Second), actKill)
	wantActions(t, w.pass(5*time.Second), actWarnLeft, actStart)
	// A second SIGTERM ends the wait.
	w = in(testPolicy, stopping)
	wantActions(t, w.do(evSignal{unix.SIGTERM}), actLogLate)
	wantActions(t, w.do(evSignal{unix.SIGTERM})) // GNU timeout's twin
	w.now = w.now.Add(time.Second)
	wantActions(t, w.do(evSignal{unix.SIGTERM}), actKill)
}

// A timer that comes early or late does no harm: the deadline decides.
func TestStrayTimer(t *testing.T) {
	for _, s := range allStates {
		w := in(testPolicy, s)
		before := w.state
		if acts := w.do(evTimer{}); w.state != before || len(acts) > 0 {
			t.Errorf("%s: a stray timer leads to %s %v", before, w.state, acts)
		}
	}
}

// random walks: whatever happens in whatever order, the promises hold.

// fate is what the world does to a machine: it obeys its actions after random times and throws in the rest.
type fate struct {
	*walk
	rnd      *rand.Rand
	child    bool // a child runs
	group    bool // its group does
	hook     bool
	reading  bool
	id       int
	starts   []time.Time
	reverted bool
	term     bool
	tried    map[string]int
	ways     map[string]bool
	asked    bool // a place in the restart lock is asked for
	place    bool // one is held
	without  bool // the machine has said that it needs none
	lost     bool // it was lost when something was under way
}

func (f *fate) carry(t *testing.T, acts []action) {
	for _, a := range acts {
		switch a {
		case actStart:
			if f.term {
				t.Fatalf("a start after a SIGTERM:\n%s", strings.Join(f.log, "\n"))
			}
			if f.child || f.group && !slices.Contains(acts, actWarnLeft) {
				t.Fatalf("a start beside a living group:\n%s", strings.Join(f.log, "\n"))
			}
			f.start(t)
		case actRevert:
			f.reverted = true
		case actQueue:
			f.asked = true
		case actLeaveTurn:
			f.asked, f.place = false, false
		case actLogWithout:
			f.without = true
		case actRead:
			f.reading = true
		case actHook:
			f.hook = true
		case actAbortHook:
			f.hook = false
			f.step(t, evHooked{})
		case actTermGroup:
			if f.child {
				t.Fatalf("the group is ended before the child")
			}
			if !f.group {
				f.step(t, evGroupGone{})
			}
		case actStop:
			if f.term {
				t.Fatalf("a restart after a SIGTERM:\n%s", strings.Join(f.log, "\n"))
			}
			if f.locks && !f.place && !f.without && !f.lost {
				t.Fatalf("a restart without a place:\n%s", strings.Join(f.log, "\n"))
			}
			f.without, f.lost = false, false
		}
	}
}

func (f *fate) start(t *testing.T) {
	f.group = false
	if f.rnd.IntN(50) == 0 {
		f.step(t, evStartFailed{errors.New("x")})
		return
	}
	if n := len(f.starts); n > 0 && f.now.Sub(f.starts[n-1]) < f.minUptime {
		t.Fatalf("two starts %v apart:\n%s", f.now.Sub(f.starts[n-1]), strings.Join(f.log, "\n"))
	}
	if !f.reverted {
		if f.tried[f.candidate]++; f.rejected != "" && f.candidate == f.rejected {
			t.Fatalf("versions that failed are tried again:\n%s", strings.Join(f.log, "\n"))
		}
	}
	f.reverted = false
	f.starts = append(f.starts, f.now)
	f.child, f.group = true, f.rnd.IntN(3) == 0
	f.step(t, evStarted{})
}

func (f *fate) step(t *testing.T, ev event) {
	from := f.state
	acts := f.do(ev)
	if f.state != from {
		f.ways[from.String()+" "+f.state.String()] = true
	}
	f.check(t)
	f.carry(t, acts)
}

// check: what holds at every moment.
func (f *fate) check(t *testing.T) {
	timed := f.state == settling || f.state == waiting || f.state == diverting || f.state == clearing || f.state == stopping && !f.killed
	if timed && f.deadline.IsZero() {
		t.Fatalf("%s without a deadline:\n%s", f.state, strings.Join(f.log, "\n"))
	}
	if f.state == running && f.onTrial.IsZero() && f.turnUntil.IsZero() && f.turn != noTurn {
		t.Fatalf("a place that nobody needs:\n%s", strings.Join(f.log, "\n"))
	}
	if f.state == settling && f.deadline.Sub(f.now) > f.settle || f.state == settling && f.deadline.After(f.latest) {
		t.Fatalf("settles until %v, at %v at the latest:\n%s", f.deadline, f.latest, strings.Join(f.log, "\n"))
	}
}

// happen does one thing that may happen now.
func (f *fate) happen(t *testing.T) {
	f.now = f.now.Add(time.Duration(f.rnd.IntN(1500)) * time.Millisecond)
	if due := f.nextDue(); !due.IsZero() && due.Before(f.now) {
		f.now = due
		f.step(t, evTimer{})
		return
	}
	switch n := f.rnd.IntN(100); {
	case n < 12:
		f.step(t, evChanged{again: f.rnd.IntN(4) == 0})
	case n < 14:
		f.step(t, evTimer{}) // a stray one
	case n < 15 && f.rnd.IntN(6) == 0:
		f.step(t, evSignal{[]unix.Signal{unix.SIGUSR1, unix.SIGWINCH, unix.SIGHUP, unix.SIGINT}[f.rnd.IntN(4)]})
	case n < 16 && f.rnd.IntN(4) == 0:
		f.term = true
		f.step(t, evSignal{unix.SIGTERM})
	case n < 45 && f.reading:
		f.reading = false
		if f.rnd.IntN(3) > 0 {
			f.id++
		}
		f.step(t, evRead{failed: f.rnd.IntN(6) == 0, same: f.rnd.IntN(6) == 0, moving: f.rnd.IntN(6) == 0, id: fmt.Sprint(f.id), set: fmt.Sprint(f.id)})
	case n < 50 && f.asked:
		f.asked = false
		if f.canary && f.turnSet != "" && f.rnd.IntN(4) == 0 {
			f.step(t, evTriedBad{})
			return
		}
		f.place = true
		f.step(t, evTurn{f.turnSet, true})
	case n < 52 && f.place && f.rnd.IntN(3) == 0:
		f.place, f.lost = false, f.state == diverting
		f.step(t, evTurnLost{})
	case n < 60 && f.hook:
		f.hook = false
		f.step(t, evHooked{ok: f.rnd.IntN(3) > 0})
	case n < 70 && f.state == diverting:
		f.step(t, evDrained{})
	case n < 80 && f.child && (f.state == stopping || f.state == ending || f.rnd.IntN(60) == 0):
		f.child = false
		f.step(t, evExited{status: []unix.WaitStatus{exitStatus(0), exitStatus(1), killedStatus(unix.SIGTERM)}[f.rnd.IntN(3)]})
	case n < 95 && !f.child && f.group && f.state == clearing:
		f.group = false
		f.step(t, evGroupGone{})
	}
}

// TestRandomWalks: no order of events breaks a promise, and the ways between states are exactly those
// that doc.go names.
func TestRandomWalks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ways := map[string]bool{}
	restarts := 0
	documented := map[string]bool{}
	for from, tos := range diagram(t) {
		for _, to := range tos {
			documented[from+" "+to] = true
		}
	}
	for n := uint64(0); n < 3000 || n < 30000 && !maps.Equal(ways, documented); n++ { // some ways are rare
		rnd := rand.New(rand.NewPCG(seed, n))
		p := testPolicy
		p.onChange = []Reaction{ReactRestart, ReactRestart, ReactRestart, ReactSignal, ReactExit, ReactNone}[rnd.IntN(6)]
		p.rollback, p.stopExplicit = rnd.IntN(3) > 0, rnd.IntN(2) == 0
		p.splay, p.diverts = time.Duration(rnd.IntN(2))*time.Minute, rnd.IntN(2) == 0
		p.locks, p.canary, p.lockRequired = rnd.IntN(2) == 0, p.rollback && rnd.IntN(2) == 0, rnd.IntN(2) == 0
		p.lockWait = time.Duration(rnd.IntN(3)) * 5 * time.Second
		p.random = func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d) + 1)) }
		f := &fate{walk: &walk{machine: newMachine(p), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, rnd: rnd, tried: map[string]int{}, ways: ways}
		f.start(t)
		for range 600 {
			if f.state == ended {
				break
			}
			f.happen(t)
		}
		restarts += len(f.starts) - 1
	}
	t.Logf("%d restarts", restarts)
	if restarts < 300 {
		t.Errorf("the walks restart too rarely to prove anything: %d times", restarts)
	}
	if !maps.Equal(ways, documented) {
		for way := range ways {
			if !documented[way] {
				t.Errorf("doc.go does not know the way %s", way)
			}
		}
		for way := range documented {
			if !ways[way] {
				t.Errorf("doc.go names the way %s, which nobody took", way)
			}
		}
	}
}

// diagram reads the ways from doc.go.
func diagram(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	ways := map[string][]string{}
	for line := range strings.SplitSeq(string(text), "\n") {
		from, to, ok := strings.Cut(strings.TrimPrefix(line, "//"), " → ")
		if ok {
			ways[strings.TrimSpace(from)] = strings.Fields(to)
		}
	}
	return ways
}

// The drawing in doc.go shows the machine's states, all of them and no others.
func TestDiagramNamesTheStates(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, drawing, _ := strings.Cut(string(text), "starting ──▶")
	drawing, _, _ = strings.Cut("starting ──▶"+drawing, "// A change that")
	for _, s := range allStates {
		if !strings.Contains(drawing, s.String()) {
			t.Errorf("the drawing lacks %s", s)
		}
	}
	if len(allStates) != len(stateNames) {
		t.Errorf("%d states, %d names", len(allStates), len(stateNames))
	}
	for from, tos := range diagram(t) {
		for _, name := range append(tos, from) {
			if !slices.Contains(stateNames[:], name) {
				t.Errorf("doc.go names %q, which is no state", name)
			}
		}
	}
}

// TestMachineOnTheClock drives the machine with real timers, on the clock of a bubble, as supervise.go does: a rotation of
// three paths over 3 s leads to one start, at the time that the options say.
func TestMachineOnTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(testPolicy)
		m.on(evStarted{}, time.Now())
		begin := time.Now()
		changes := make(chan struct{})
		go func() {
			time.Sleep(time.Minute)
			for range 3 {
				changes <- struct{}{}
				time.Sleep(1500 * time.Millisecond)
			}
		}()
		timer := time.NewTimer(0)
		timer.Stop()
		var starts []time.Duration
		for len(starts) == 0 {
			timer.Stop()
			if !m.deadline.IsZero() {
				timer.Reset(time.Until(m.deadline))
			}
			var acts []action
			select {
			case <-changes:
				acts = m.on(evChanged{}, time.Now())
			case <-timer.C:
				acts = m.on(evTimer{}, time.Now())
			}
			for len(acts) > 0 {
				a := acts[0]
				acts = acts[1:]
				switch a {
				case actRead:
					acts = append(acts, m.on(evRead{id: "2"}, time.Now())...)
				case actHook:
					acts = append(acts, m.on(evHooked{ok: true}, time.Now())...)
				case actStop:
					time.Sleep(time.Second) // the child takes its time
					acts = append(acts, m.on(evExited{status: exitStatus(0)}, time.Now())...)
				case actTermGroup:
					acts = append(acts, m.on(evGroupGone{}, time.Now())...)
				case actStart:
					starts = append(starts, time.Since(begin))
				}
			}
		}
		if want := time.Minute + 3*time.Second + 2*time.Second + time.Second; starts[0] != want {
			t.Errorf("started after %v, want %v", starts[0], want)
		}
		time.Sleep(3 * time.Second) // the last sender
	})
}
