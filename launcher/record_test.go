package launcher

import (
	"fmt"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var testStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// version is the state of a version that was written so many minutes after the start of the test's time.
func version(n, minutes int) vault.Marker {
	return vault.Marker{Version: n, Created: testStart.Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339Nano)}
}

// What a look means depends on what was seen before.
func TestRecordSees(t *testing.T) {
	digest := func(b byte) vault.Marker { return vault.Marker{Digest: [32]byte{b}} }
	const s = time.Second
	for name, c := range map[string]struct {
		steady bool
		looks  []vault.Marker
		every  time.Duration
		want   []sighting
	}{
		"nothing new":           {true, []vault.Marker{version(2, 2), version(2, 2)}, s, []sighting{sawSame, sawSame}},
		"a version, once":       {true, []vault.Marker{version(3, 3), version(3, 3)}, s, []sighting{sawNews, sawSame}},
		"a version taken back":  {true, []vault.Marker{version(3, 3), {Version: 3, Created: version(3, 3).Created, Deleted: true}}, s, []sighting{sawNews, sawNews}},
		"a replica lags":        {true, []vault.Marker{version(1, 1), version(2, 2), version(1, 1)}, s, []sighting{sawOlder, sawSame, sawOlder}},
		"restored, seen often":  {true, []vault.Marker{version(1, 1), version(1, 1), version(1, 1), version(1, 1), version(1, 1), version(1, 1)}, s, []sighting{sawOlder, sawOlder, sawOlder, sawOlder, sawBack, sawSame}},
		"restored, seen long":   {true, []vault.Marker{version(1, 1), version(1, 1)}, 5 * time.Minute, []sighting{sawOlder, sawBack}},
		"restored, then newer":  {true, []vault.Marker{version(1, 1), version(1, 1), version(1, 1), version(1, 1), version(1, 1), version(2, 9)}, s, []sighting{sawOlder, sawOlder, sawOlder, sawOlder, sawBack, sawNews}},
		"another content":       {false, []vault.Marker{digest(1), digest(1)}, s, []sighting{sawDoubt, sawNews}},
		"another at every look": {false, []vault.Marker{digest(1), digest(2)}, s, []sighting{sawDoubt, sawFleet}},
		"another for a moment":  {false, []vault.Marker{digest(1), version(2, 2), digest(1)}, s, []sighting{sawDoubt, sawSame, sawDoubt}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &record{newest: version(2, 2), taken: version(2, 2)}
			now := testStart
			var got []sighting
			for _, m := range c.looks {
				got = append(got, r.see(m, c.steady, now))
				now = now.Add(c.every)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// When a lease needs something, and by when the command must be told to stop.
func TestLeasePlan(t *testing.T) {
	const s, m, h = time.Second, time.Minute, time.Hour
	renewable := func(d time.Duration) vault.Lease { return vault.Lease{ID: "x", Duration: d, Renewable: true} }
	fixed := func(d time.Duration) vault.Lease { return vault.Lease{ID: "x", Duration: d} }
	for name, c := range map[string]struct {
		lease            vault.Lease
		haste            haste
		earliest, latest time.Duration // of the next step
		by               time.Duration
	}{
		"renewed at two thirds":                 {renewable(h), haste{settle: 2 * s, stop: 10 * s}, 36 * m, 40 * m, 59*m + 48*s},
		"renewed so early that enough is left":  {renewable(20 * s), haste{settle: 2 * s, stop: 10 * s}, 10 * s, 10 * s, 10 * s},
		"replaced a tenth before":               {fixed(24 * h), haste{settle: 2 * s, stop: 10 * s}, 24*h - 144*m - 2*s, 24*h - 144*m - 2*s, 24*h - 12*s},
		"the stop timeout is the least":         {fixed(m), haste{settle: 2 * s, stop: 10 * s}, 48 * s, 48 * s, 50 * s},
		"as --lease-margin says":                {fixed(h), haste{margin: 10 * m, settle: 2 * s, stop: 10 * s}, 50*m - 2*s, 50*m - 2*s, h - 12*s},
		"half of the life is the most":          {fixed(10 * s), haste{margin: h, settle: 2 * s, stop: 10 * s}, 5 * s, 5 * s, 5 * s},
		"a settle time longer than half a life": {fixed(10 * s), haste{settle: 20 * s, stop: 10 * s}, 5 * s, 5 * s, 5 * s},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lease{}
			l.granted(c.lease, testStart, c.haste)
			if next := l.next.Sub(testStart); next < c.earliest || next > c.latest {
				t.Errorf("next after %v, want %v to %v", next, c.earliest, c.latest)
			}
			if by := l.actBy(c.haste).Sub(testStart); by != c.by {
				t.Errorf("act by %v, want %v", by, c.by)
			}
		})
	}
}

// What the failure of a renewal leads to.
func TestLeaseNotRenewed(t *testing.T) {
	ha := haste{settle: 2 * time.Second, stop: 10 * time.Second}
	at := time.Now()
	for name, c := range map[string]struct {
		err        error
		last, gone bool
		least      time.Duration // from the failure to the next step
		most       time.Duration
	}{
		"Vault is away":       {&fault.Error{Kind: fault.Away}, false, false, time.Second, 5 * time.Second},
		"the token is dead":   {&fault.Error{Kind: fault.BadToken}, false, false, time.Second, 5 * time.Second},
		"Vault knows it not":  {&fault.Error{Kind: fault.Missing, Cause: fault.NoLease}, true, true, 0, 0},
		"the policy denies":   {&fault.Error{Kind: fault.Denied}, true, false, 8 * time.Second, 8 * time.Second},
		"it is not renewable": {&fault.Error{Kind: fault.Usage}, true, false, 8 * time.Second, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lease{}
			l.granted(vault.Lease{ID: "x", Duration: time.Minute, Renewable: true}, at.Add(-40*time.Second), ha)
			l.renewed(l.Lease, c.err, at, ha, clock.New(time.Now, nil))
			if l.last != c.last || l.gone != c.gone {
				t.Errorf("last %t, gone %t", l.last, l.gone)
			}
			if d := l.next.Sub(at); d < c.least || d > c.most {
				t.Errorf("next after %v, want %v to %v", d, c.least, c.most)
			}
		})
	}
}

// A lease ends with its token. New credentials are read when there is another token to read them with.
func TestLeaseEndsWithItsToken(t *testing.T) {
	ha := haste{settle: 2 * time.Second, stop: 10 * time.Second}
	start := func() *lease {
		l := &lease{}
		l.granted(vault.Lease{ID: "x", Duration: 24 * time.Hour, Renewable: true}, testStart, ha)
		return l
	}
	end, now := testStart.Add(time.Hour), testStart.Add(50*time.Minute)
	l := start()
	next := l.next
	l.tokenEnds(end, true, now, ha)
	if !l.ends.Equal(end) || l.last || l.next != next {
		t.Errorf("with the same token: %+v", l)
	}
	l.tokenEnds(end, false, now, ha)
	if !l.last || l.next != now {
		t.Errorf("with another token: last %t, next %v", l.last, l.next)
	}
	l = start()
	l.tokenEnds(time.Time{}, true, now, ha)
	if l.last || !l.ends.Equal(testStart.Add(24*time.Hour)) {
		t.Error("a token without an end ends the lease")
	}
}

// world makes records of KV secrets and a lease.
type world struct {
	records
	clock int
}

func newWorld(paths ...string) *world {
	w := &world{records: records{at: map[vault.Path]*record{}}}
	for _, p := range paths {
		w.sources = append(w.sources, environ.Source{Path: vault.Path{Mount: "kv", Name: p}})
		w.write(p, "1")
	}
	w.settle()
	return w
}

func secretOf(values map[string]string, lease vault.Lease) *vault.Secret {
	s := &vault.Secret{Engine: vault.Engine{Type: "kv", KV: 2}, Values: map[string]vault.Value{}, Lease: lease}
	for k, v := range values {
		var x vault.Value
		_ = x.UnmarshalJSON([]byte(v))
		s.Values[k] = x
	}
	return s
}

// write is a new version that was read; its one key is called as the path.
func (w *world) write(path, value string) {
	w.clock++
	p := vault.Path{Mount: "kv", Name: path}
	r := w.of(p)
	m := version(w.clock, w.clock)
	r.found(m)
	r.take(content{secret: secretOf(map[string]string{path: value}, vault.Lease{}), marker: m}, testStart, haste{})
}

func (w *world) lend(path, value string) {
	w.clock++
	p := vault.Path{Mount: "kv", Name: path}
	m := vault.Marker{Digest: [32]byte{byte(w.clock)}}
	s := secretOf(map[string]string{path: value}, vault.Lease{ID: value, Duration: time.Hour})
	w.of(p).take(content{secret: s, marker: m}, testStart, haste{})
}

func (w *world) has(t *testing.T, want map[string]string) wish {
	t.Helper()
	got, _ := w.wanted()
	if got.env == nil {
		t.Fatal("no environment")
	}
	for _, v := range got.env.Vars {
		if v.Value.Reveal() != want[v.Name] {
			t.Errorf("%s is not %q", v.Name, want[v.Name])
		}
	}
	if len(got.env.Vars) != len(want) {
		t.Errorf("%d variables, want %d", len(got.env.Vars), len(want))
	}
	return got
}

// A rollback is a pin of the other paths, with the present leases; what was rejected is not wanted because a lease is new.
func TestRecordsRejected(t *testing.T) {
	w := newWorld("A", "B")
	w.sources = append(w.sources, environ.Source{Path: vault.Path{Mount: "kv", Name: "L"}})
	w.lend("L", "10")
	w.settle()
	good := w.has(t, map[string]string{"A": "1", "B": "1", "L": "10"})
	w.write("A", "2")
	bad := w.has(t, map[string]string{"A": "2", "B": "1", "L": "10"})
	w.settle()
	w.reject(bad.id, good.got, good.states)
	if got := w.has(t, map[string]string{"A": "1", "B": "1", "L": "10"}); !got.pinned {
		t.Error("not pinned")
	}
	w.lend("L", "11")
	got := w.has(t, map[string]string{"A": "1", "B": "1", "L": "11"})
	if got.id != bad.id || !got.pinned {
		t.Error("a new lease makes another set of versions")
	}
	w.write("B", "2")
	if got := w.has(t, map[string]string{"A": "2", "B": "2", "L": "11"}); got.pinned {
		t.Error("still pinned after a further version")
	}
}

// What cannot be used leaves the others, and leases, alone.
func TestRecordsUnusable(t *testing.T) {
	w := newWorld("A", "B")
	w.sources = append(w.sources, environ.Source{Path: vault.Path{Mount: "kv", Name: "L"}})
	w.lend("L", "10")
	w.settle()
	w.write("A", "null")
	w.lend("L", "11")
	if _, err := w.wanted(); err == nil {
		t.Error("a null is no value")
	}
	w.has(t, map[string]string{"A": "1", "B": "1", "L": "11"})
	w.write("A", "3")
	w.has(t, map[string]string{"A": "3", "B": "1", "L": "11"})
}

// A path that Vault refuses is tried again less and less often.
func TestRecordBacksOff(t *testing.T) {
	r := &record{}
	now, tries := testStart, 0
	for now.Before(testStart.Add(time.Hour)) {
		if !r.rests(now) {
			r.denied(&fault.Error{Kind: fault.Denied}, true, now, time.Second, func(d time.Duration) time.Duration { return d / 2 })
			tries++
		}
		now = now.Add(time.Second)
	}
	if tries < 12 || tries > 460 {
		t.Errorf("%d tries in an hour", tries)
	}
}
