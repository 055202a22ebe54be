package launcher

import (
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// evenly fails unless n moments are spread evenly over ten parts of an interval: 5 standard deviations are allowed.
func evenly(t *testing.T, what string, moments []time.Duration, interval time.Duration) {
	t.Helper()
	var parts [10]int
	for _, m := range moments {
		parts[min(int(m*10/interval), 9)]++
	}
	want := float64(len(moments)) / 10
	for i, n := range parts {
		if diff := float64(n) - want; diff*diff > 25*want*0.9 {
			t.Errorf("%s: %d of %d in part %d, want about %.0f", what, n, len(moments), i, want)
		}
	}
}

// A thousand watchers that start in the same second spread their looks over the interval, and stay spread.
func TestLooksAreSpread(t *testing.T) {
	const interval = 30 * time.Second
	random := rand.New(rand.NewPCG(1, 2))
	n := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	at := make([]time.Duration, 1000)
	for i := range at {
		at[i] = firstLook(interval, n)
		if at[i] <= 0 || at[i] > interval {
			t.Fatalf("first look after %v", at[i])
		}
	}
	evenly(t, "first look", at, interval)
	for range 2880 { // a day
		for i := range at {
			d := nextLook(interval, 0, n)
			if d < interval*9/10 || d > interval*11/10 {
				t.Fatalf("the next look after %v", d)
			}
			at[i] += d
		}
	}
	for i := range at {
		at[i] %= interval
	}
	evenly(t, "after a day", at, interval)
}

// While Vault is away the pauses grow to eight intervals or five minutes, and are never shorter than an interval.
func TestPausesGrow(t *testing.T) {
	n := func(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d))) }
	for _, c := range []struct {
		interval time.Duration
		misses   int
		want     time.Duration
	}{
		{30 * time.Second, 0, 30 * time.Second},
		{30 * time.Second, 1, 30 * time.Second},
		{30 * time.Second, 2, time.Minute},
		{30 * time.Second, 3, 2 * time.Minute},
		{30 * time.Second, 4, 4 * time.Minute},
		{30 * time.Second, 1000, 4 * time.Minute},
		{time.Second, 1000, 8 * time.Second},
		{2 * time.Minute, 1000, 5 * time.Minute},
		{time.Hour, 1000, time.Hour},
	} {
		for range 100 {
			if d := nextLook(c.interval, c.misses, n); d < c.want*9/10 || d > c.want*11/10 {
				t.Errorf("interval %v, %d misses: %v, want %v ± 10 %%", c.interval, c.misses, d, c.want)
			}
		}
	}
}

// A lease goes on being renewed as long as that moves its end, or may do so again.
func TestLeaseGoesOn(t *testing.T) {
	type renewal struct {
		after, duration time.Duration
		capped          bool
	}
	const s = time.Second
	for _, c := range []struct {
		name string
		all  []renewal
		want bool
	}{
		{"full", []renewal{{40 * s, 60 * s, false}}, true},
		{"the role gives less, the end moves", []renewal{{40 * s, 25 * s, false}}, true},
		{"the role gives less, the end comes nearer", []renewal{{40 * s, 10 * s, false}}, true},
		{"and goes on", []renewal{{40 * s, 10 * s, false}, {7 * s, 10 * s, false}, {7 * s, 10 * s, false}}, true},
		{"capped, much is left", []renewal{{40 * s, 50 * s, true}}, true},
		{"capped, little is left", []renewal{{40 * s, 25 * s, true}}, false},
		{"capped, and not said", []renewal{{40 * s, 20 * s, false}, {13 * s, 7 * s, false}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			l := &lease{}
			l.granted(vault.Lease{ID: "x", Duration: 60 * s, Renewable: true}, now, haste{})
			got := false
			for _, r := range c.all {
				now = now.Add(r.after)
				renewed := vault.Lease{ID: "x", Duration: r.duration, Renewable: true, Capped: r.capped}
				if got = l.goesOn(renewed, now); got {
					l.granted(renewed, now, haste{})
				}
			}
			if got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// After a sleep of the machine what was due meanwhile is done at once: a look, and what a lease needs.
func TestWatchSuspended(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"N": "1"})
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{sc.ReadPolicy(mount, "app")}})
	var asleep atomic.Int64
	machine := clock.New(func() time.Time { return time.Now().Add(time.Duration(asleep.Load())) }, nil)
	client, err := vault.New(vault.Config{Address: srv.Addr, TestOnlyClock: machine})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	path := vault.Path{Mount: mount, Name: "app"}
	l := &launch{Options: Options{
		Session: vault.NewTokenSession(client, vault.TextSource("the test's token", token)), Log: slog.New(slog.DiscardHandler),
		Sources: []environ.Source{{Path: path}}, Watching: Watching{Interval: time.Hour},
	}}
	got, err := l.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := newWatcher(l, program{argv: []string{"app"}}, got)
	leased := vault.Path{Mount: "x", Name: "lease"}
	w.records.sources = append(w.records.sources, environ.Source{Path: leased})
	w.records.of(leased).lease = &lease{last: true, next: time.Now().Add(3 * time.Hour), ends: time.Now().Add(4 * time.Hour)}
	srv.PutKV(t, mount, "app", map[string]string{"N": "2"})
	go w.run(t.Context())
	next := func() states {
		select {
		case ev := <-w.out:
			return ev.states
		case <-time.After(time.Minute):
			t.Fatal("nothing after a sleep")
		}
		return nil
	}
	asleep.Store(int64(2 * time.Hour))
	machine.Jump()
	if seen := next(); seen[path].Version != 2 {
		t.Errorf("the look after two hours of sleep saw %v", seen)
	}
	asleep.Store(int64(3*time.Hour - time.Second))
	machine.Jump()
	asleep.Store(int64(3*time.Hour + time.Second))
	machine.Jump()
	if seen := next(); len(seen) != 1 || seen[leased].Digest == [32]byte{} {
		t.Errorf("three hours later: %v, want the lease", seen)
	}
}
