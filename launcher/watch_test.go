package launcher

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vault"
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

// D29: a thousand watchers that start in the same second spread their looks over the interval, and stay spread.
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

// D7, D9: while Vault is away the pauses grow to eight intervals or five minutes, and are never shorter than an interval.
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
			l := &leaseState{full: 60 * s}
			l.granted(vault.Lease{ID: "x", Duration: 60 * s, Renewable: true}, now)
			got := false
			for _, r := range c.all {
				now = now.Add(r.after)
				renewed := vault.Lease{ID: "x", Duration: r.duration, Renewable: true, Capped: r.capped}
				if got = l.goesOn(renewed, now); got {
					l.granted(renewed, now)
				}
			}
			if got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
