package vault

import (
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// What a token needs and when, for every kind of token.
func TestNextNeed(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	base := grant{token: NewText("x"), own: true, known: true, at: at}
	with := func(change func(*grant)) *grant {
		g := base
		change(&g)
		return &g
	}
	for _, c := range []struct {
		name     string
		g        *grant
		want     need
		from, to time.Duration // after at, for spread 1 and 0
	}{
		{"root", with(func(g *grant) {}), needNothing, 0, 0},
		{"renewable", with(func(g *grant) { g.life, g.renewable = time.Hour, true }), needRenewal, 36 * time.Minute, 40 * time.Minute},
		{"at its longest life", with(func(g *grant) { g.life = time.Hour }), needLogin, 45 * time.Minute, 50 * time.Minute},
		{"batch", with(func(g *grant) { g.life, g.kind = time.Hour, "batch" }), needLogin, 45 * time.Minute, 50 * time.Minute},
		{"very short", with(func(g *grant) { g.life, g.renewable = time.Second, true }), needRenewal, 600 * time.Millisecond, 666667 * time.Microsecond},
		{"handed in", with(func(g *grant) { g.own, g.known = false, false }), needLookup, 0, 0},
		{"handed in, not to be looked up", with(func(g *grant) { g.own, g.known, g.asked = false, false, true }), needNothing, 0, 0},
		{"handed in, renewable", with(func(g *grant) { g.own, g.life, g.renewable = false, 90*time.Second, true }), needRenewal, 54 * time.Second, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			for spread, after := range map[float64]time.Duration{0: c.to, 1: c.from} {
				n, when := c.g.next(spread, 0)
				if n != c.want {
					t.Fatalf("needs %v, want %v", n, c.want)
				}
				if n == needNothing || n == needLookup {
					continue
				}
				if d := when.Sub(at) - after; d < -time.Millisecond || d > time.Millisecond {
					t.Errorf("spread %v: after %v, want %v", spread, when.Sub(at), after)
				}
			}
		})
	}
}

// What has met its longest life gets a login before its end; less life alone does not show that.
func TestRenewed(t *testing.T) {
	const capped = `TTL of "5s" exceeded the effective max_ttl of "4s"; TTL value is capped accordingly`
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	type renewal struct {
		after    time.Duration // since the one before
		seconds  int
		fixed    bool
		warnings []string
	}
	for _, c := range []struct {
		name string
		all  []renewal
		want need
	}{
		{"full", []renewal{{3 * time.Second, 5, false, nil}}, needRenewal},
		{"capped", []renewal{{3 * time.Second, 4, false, []string{"something else", capped}}}, needLogin},
		{"the last second", []renewal{{3 * time.Second, 1, false, []string{capped}}}, needLogin},
		{"periodic, longer than before", []renewal{{3 * time.Second, 60, false, nil}}, needRenewal},
		{"token_ttl lowered, the end moves", []renewal{{3 * time.Second, 4, false, nil}}, needRenewal},
		{"token_ttl lowered, the end stays by chance", []renewal{{3 * time.Second, 2, false, nil}}, needRenewal},
		{"token_ttl lowered, and it goes on", []renewal{{3 * time.Second, 2, false, nil}, {time.Second, 2, false, nil}, {time.Second, 2, false, nil}}, needRenewal},
		{"token_ttl lowered a lot", []renewal{{3 * time.Second, 1, false, nil}}, needRenewal},
		{"capped, and not said", []renewal{{2 * time.Second, 3, false, nil}, {2 * time.Second, 1, false, nil}}, needLogin},
		{"no longer renewable", []renewal{{3 * time.Second, 5, true, nil}}, needLogin},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := grant{token: NewText("x"), own: true, known: true, at: at, life: 5 * time.Second, renewable: true}
			now := at
			for _, r := range c.all {
				now = now.Add(r.after)
				g = g.renewed(&Answer{Auth: &Auth{LeaseDuration: r.seconds, Renewable: !r.fixed}, Warnings: r.warnings}, now)
			}
			n, when := g.next(0, 0)
			if n != c.want {
				t.Errorf("needs %v, want %v", n, c.want)
			}
			if when.After(g.at.Add(g.life)) {
				t.Errorf("at %v, after the end", when)
			}
		})
	}
}

func TestRefusalDelays(t *testing.T) {
	want := []time.Duration{1, 2, 4, 8, 15, 15, 15}
	for i, w := range want {
		if d := refusalDelay(i + 1); d != w*time.Minute {
			t.Errorf("after %d: %v, want %v minutes", i+1, d, w)
		}
	}
	var r refusals
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a := &attempt{path: "auth/approle/login", body: map[string]Text{"secret_id": NewText("x")}}
	if r.check(a, "", now) != nil {
		t.Error("the first login has to wait")
	}
	r.note(a, &fault.Error{Why: "no"}, now)
	err := r.check(a, "cannot log in", now.Add(59*time.Second))
	if f := fault.Of(err); !fault.Is(err, fault.Refused) || f.RetryAfter != time.Second {
		t.Errorf("got %v, %v", err, f.RetryAfter)
	}
	if r.check(a, "", now.Add(time.Minute)) != nil {
		t.Error("a minute is not enough")
	}
	other := &attempt{path: a.path, body: map[string]Text{"secret_id": NewText("y")}}
	if r.check(other, "", now) != nil {
		t.Error("other credentials have to wait")
	}
}

func TestIgnoresNamespaces(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		info ServerInfo
		want bool
	}{
		{ServerInfo{Version: "1.21.0", enterprise: &no}, true},
		{ServerInfo{Version: "1.21.0+ent", enterprise: &yes}, false},
		{ServerInfo{Version: "1.14.2"}, true},
		{ServerInfo{Version: "1.14.2+ent"}, false},
		{ServerInfo{Version: "2.5.5"}, false}, // OpenBao
	} {
		if got := c.info.IgnoresNamespaces(); got != c.want {
			t.Errorf("%+v: %v", c.info, got)
		}
	}
}
