package launcher

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// run is a supervised run of the machine and the watcher against a model of Vault, without a process.
type run struct {
	t       *testing.T
	model   *model
	launch  *launch
	watcher *watcher
	machine *machine
	rnd     *rand.Rand

	runs, good edition
	next       *edition
	reads      int
	alive      bool      // a child runs
	exit       time.Time // when it will have ended that was told to stop
	fails      time.Time // when it will fail by itself
	drained    time.Time // when nothing waits for it any more, before it is told to stop
	restarts   int

	other     edition   // of the command that does not serve
	beside    bool      // there is one
	otherDue  time.Time // when it is ready, drained or ended
	otherExit bool      // it ends then
}

// broken is what makes a command of the test fail.
func (r *run) broken() bool {
	return strings.Contains(strings.Join(r.runs.env.Strings(), " "), "broken")
}

func (r *run) do(acts []action) {
	m := r.machine
	for _, a := range acts {
		switch a {
		case actRead:
			r.reads++
			r.watcher.ask(r.reads)
		case actAccept:
			if r.next != nil {
				r.runs, r.next = *r.next, nil
			}
		case actDrop:
			r.next = nil
		case actHook, actSkipHook:
			r.do(m.on(evHooked{ok: true}, time.Now()))
		case actDivert:
			r.drained = time.Now().Add(time.Duration(r.rnd.Int64N(int64(9 * time.Second))))
		case actStop:
			r.exit = time.Now().Add(time.Duration(r.rnd.Int64N(int64(9 * time.Second))))
		case actKill:
			r.exit = time.Now()
		case actTermGroup:
			r.do(m.on(evGroupGone{}, time.Now()))
		case actKeepGood:
			r.good = r.runs
		case actRevert:
			back := r.good.withLeasesOf(r.runs, r.build)
			r.next = &back
			r.watcher.reject(m.rejected, r.good)
		case actStartBeside:
			r.other, r.next, r.beside, r.otherExit = *r.next, nil, true, false
			r.otherDue = time.Now().Add(time.Duration(r.rnd.Int64N(int64(8 * time.Second))))
			r.restarts++
		case actSwitch:
			r.runs, r.other = r.other, r.runs
			r.alive, r.exit, r.fails = true, time.Time{}, time.Time{}
			r.otherDue = time.Now().Add(time.Second)
			if r.broken() {
				r.fails = time.Now().Add(time.Duration(r.rnd.Int64N(int64(8 * time.Second))))
			}
		case actStopOther, actKillOther:
			r.otherExit, r.otherDue = true, time.Now().Add(time.Duration(r.rnd.Int64N(int64(9*time.Second))))
		case actSweepOther:
			r.beside = false
			r.do(m.on(evOtherGone{}, time.Now()))
		case actForgetOther:
			if !m.gaveUp {
				r.watcher.started(r.runs.leases())
			}
			r.beside = false
		case actLogUnready:
			r.watcher.reject(m.rejected, r.runs)
		case actLogBack:
			r.watcher.reject(m.rejected, r.other)
		case actStart:
			has := r.runs
			if r.next != nil {
				has = *r.next
			}
			r.watcher.started(has.leases())
			r.alive, r.exit, r.fails = true, time.Time{}, time.Time{}
			r.restarts++
			r.do(m.on(evStarted{}, time.Now()))
			if r.broken() {
				r.fails = time.Now().Add(time.Duration(r.rnd.Int64N(int64(8 * time.Second))))
			}
		}
	}
}

func (r *run) build(got []environ.Fetched) (*environ.Env, error) {
	return environ.Build(got, r.launch.Rules, nil)
}

// heard takes what the watcher sends, as supervise.go does.
func (r *run) heard(ev watchEvent) {
	got := ev.read
	if got == nil {
		r.do(r.machine.on(evChanged{again: ev.again, by: ev.by}, time.Now()))
		return
	}
	if got.number != r.reads || !r.machine.awaitsRead() {
		return
	}
	same := got.env != nil && got.env.Equal(r.runs.env)
	if got.env == nil || same && got.flawed {
		r.do(r.machine.on(evRead{failed: true, moving: got.moving, by: ev.by}, time.Now()))
		return
	}
	r.next = &edition{env: got.env, states: got.wish.states, got: got.got}
	r.do(r.machine.on(evRead{same: same, moving: got.moving, id: got.id, pinned: got.pinned, by: ev.by}, time.Now()))
}

// step lets time pass up to end, one event at a time, and calls each at every second of it.
func (r *run) step(end time.Time, each func()) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for time.Now().Before(end) {
		wake := end
		due := time.Time{}
		if r.beside {
			due = r.otherDue
		}
		for _, t := range []time.Time{r.machine.nextDue(), r.exit, r.fails, r.drained, due} {
			if !t.IsZero() && t.Before(wake) {
				wake = t
			}
		}
		timer.Reset(max(time.Until(wake), 0))
		select {
		case ev := <-r.watcher.out:
			r.heard(ev)
		case <-second.C:
			each()
		case <-timer.C:
			now := time.Now()
			switch {
			case r.beside && !now.Before(r.otherDue):
				r.otherStep(now)
			case !r.drained.IsZero() && !now.Before(r.drained):
				r.drained = time.Time{}
				r.do(r.machine.on(evDrained{}, now))
			case r.alive && !r.exit.IsZero() && !now.Before(r.exit):
				r.alive, r.exit, r.fails = false, time.Time{}, time.Time{}
				r.do(r.machine.on(evExited{status: killedStatus(unix.SIGTERM)}, now))
			case r.alive && !r.fails.IsZero() && !now.Before(r.fails):
				r.alive, r.exit, r.fails = false, time.Time{}, time.Time{}
				r.do(r.machine.on(evExited{status: exitStatus(3)}, now))
			case !now.Before(r.machine.nextDue()):
				r.do(r.machine.on(evTimer{}, now))
			}
		}
	}
}

// otherStep is what the command that does not serve does when its time has come.
func (r *run) otherStep(now time.Time) {
	r.otherDue = now.Add(time.Hour)
	switch {
	case r.otherExit:
		r.do(r.machine.on(evOtherExited{killedStatus(unix.SIGTERM)}, now))
	case r.machine.companion == draining:
		r.do(r.machine.on(evDrained{}, now))
	case strings.Contains(strings.Join(r.other.env.Strings(), " "), "broken") && r.rnd.IntN(2) == 0:
		r.do(r.machine.on(evOtherExited{exitStatus(3)}, now))
	default:
		r.do(r.machine.on(evReady{}, now))
	}
}

func (r *run) lease() string {
	for _, l := range r.runs.leases() {
		return l.ID
	}
	return ""
}

// TestAgainstAModel puts the watcher, its records and the machine through random writes, deletions, denials, outages,
// restores, revocations, lease ends, logins and failing versions, on a simple model of Vault. The command never works with
// credentials that have ended, unless Vault refused new ones; nobody is asked too often; leases do not pile up; and when all
// trouble is over the command has what the model says.
func TestAgainstAModel(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { againstAModel(t, uint64(seed)) })
		})
	}
}

func againstAModel(t *testing.T, seed uint64) {
	const interval = 30 * time.Second
	rnd := rand.New(rand.NewPCG(seed, 1))
	m := newModel(rnd)
	m.put("a", "a1")
	m.put("b", "b1")
	lines := &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelInfo}))
	listener := newPipes()
	server := &http.Server{Handler: m}
	go func() { _ = server.Serve(listener) }()
	client, err := vault.New(vault.Config{Address: "http://vault.test", TestOnlyDial: listener.dial, TestOnlyClock: clock.New(time.Now, nil)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
		client.CloseIdle()
		_ = server.Close()
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, lines)
		}
	}()
	p := testPolicy
	p.random = func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d) + 1)) }
	p.startFirst, p.diverts = seed%3 == 0, seed%3 == 1
	p.splay = []time.Duration{0, time.Minute}[seed%2]
	l := &launch{Options: Options{
		Session:     vault.NewSession(client, vault.LoginConfig{Method: vault.AuthAppRole, RoleID: vault.TextSource("role", "role-of-the-test"), SecretID: vault.TextSource("secret", "secret-of-the-test")}),
		Log:         log,
		Sources:     []environ.Source{{Path: vault.Path{Mount: "kv", Name: "a"}}, {Path: vault.Path{Mount: "kv", Name: "b"}}, {Path: vault.Path{Mount: "db", Name: "creds/app"}}},
		Watching:    Watching{Interval: interval, Settle: p.settle, Splay: p.splay, MinUptime: p.minUptime},
		Supervision: Supervision{StopTimeout: p.stopTimeout}, Ready: Ready{Timeout: 20 * time.Second}, StartFirst: p.startFirst,
	}}
	if err := l.Session.Login(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := l.fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, model: m, launch: l, machine: newMachine(p), rnd: rnd, alive: true}
	r.runs.got = got
	if r.runs.env, err = r.build(got); err != nil {
		t.Fatal(err)
	}
	r.watcher = newWatcher(l, program{argv: []string{"app"}}, got)
	r.runs.states = r.watcher.records.states(newest)
	r.good = r.runs
	r.machine.on(evStarted{}, time.Now())
	running.Go(func() { r.watcher.run(ctx) })
	running.Go(func() { l.Session.Keep(ctx, log) })

	var excused time.Time // until then the command may have dead credentials: Vault refused new ones
	excuse := func(d time.Duration) {
		if u := time.Now().Add(d); u.After(excused) {
			excused = u
		}
	}
	var history []string
	note := func(format string, args ...any) {
		history = append(history, time.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
	}
	trouble := func() bool { return m.away || m.noRole || m.denied["db/creds/app"] }
	check := func() {
		var inTrouble bool
		m.change(func() { inTrouble = trouble() })
		if inTrouble { // and the longest pause until a new try
			excuse(maxMiss + time.Minute)
		}
		if id := r.lease(); r.alive && !m.isAlive(id) && time.Now().After(excused) {
			t.Errorf("%s: the command works with credentials that have ended (%s, %s)\n%s", time.Now().Format("15:04:05"), id, r.machine.state, strings.Join(history, "\n"))
			excuse(time.Hour)
		}
		if n := m.howMany(); n > 4 {
			t.Errorf("%d leases at the same time", n)
		}
	}
	events := 0
	value := 1
	for end := time.Now().Add(6 * time.Hour); time.Now().Before(end); {
		events++
		value++
		switch rnd.IntN(14) {
		case 0, 1:
			note("a is written")
			m.put("a", fmt.Sprint("a", value))
		case 2:
			note("b is written")
			m.put("b", fmt.Sprint("b", value))
		case 3:
			note("a makes the command fail")
			m.put("a", fmt.Sprint("broken", value))
		case 4:
			note("b is deleted")
			m.change(func() { m.kv["b"][len(m.kv["b"])-1].gone = true })
		case 5:
			note("b is denied, or not")
			m.change(func() { m.denied["kv/b"] = !m.denied["kv/b"] })
		case 6:
			note("credentials are denied, or not")
			m.change(func() { m.denied["db/creds/app"] = !m.denied["db/creds/app"] })
		case 7:
			note("Vault is away, or back")
			m.change(func() { m.away = !m.away })
		case 8:
			note("the role is gone, or back")
			m.change(func() { m.noRole = !m.noRole })
		case 9:
			note("the lease is revoked")
			m.change(func() { delete(m.leases, r.lease()) })
			excuse(interval*11/10 + 20*time.Second)
		case 10:
			note("a snapshot is taken")
			m.change(m.snapshot)
		case 11:
			note("a snapshot is restored")
			m.change(m.restore)
			excuse(interval*11/10 + 20*time.Second)
		case 12:
			note("all tokens end")
			m.change(func() { m.tokens = map[string]time.Time{} })
			excuse(interval*11/10 + 20*time.Second)
		}
		if rnd.IntN(3) == 0 { // most trouble is over soon
			m.change(func() { m.away, m.noRole, m.denied["db/creds/app"] = false, false, false })
		}
		r.step(time.Now().Add(time.Duration(rnd.Int64N(int64(10*time.Minute)))), check)
	}
	note("all is well")
	m.change(func() { m.away, m.noRole, m.denied = false, false, map[string]bool{} })
	value++
	m.put("b", fmt.Sprint("b", value))
	m.put("a", fmt.Sprint("a", value))
	r.step(time.Now().Add(30*time.Minute), check)
	vars := map[string]string{}
	for _, v := range r.runs.env.Vars {
		vars[v.Name] = v.Value.Reveal()
	}
	if vars["A"] != fmt.Sprint("a", value) || vars["B"] != fmt.Sprint("b", value) || !m.isAlive(vars["USER"]) {
		t.Errorf("at the end the command has %v, want version %d\n%s", vars, value, strings.Join(history, "\n"))
	}
	hours := 6.5
	if most := int(hours*5) + 2*events; len(m.made) > most {
		t.Errorf("%d credentials were made in %v hours and %d events", len(m.made), hours, events)
	}
	if most := int(hours*3600/interval.Seconds()*4*1.3) + 60*events; m.requests > most {
		t.Errorf("%d requests, want %d at most", m.requests, most)
	}
	for range 60 { // a replacement may be under way
		if m.howMany() > 1 {
			r.step(time.Now().Add(time.Second), check)
		}
	}
	if n := m.howMany(); n != 1 {
		t.Errorf("%d leases are left, want that of the command", n)
	}
	t.Logf("%d events, %d restarts, %d credentials, %d requests", events, r.restarts, len(m.made), m.requests)
}
