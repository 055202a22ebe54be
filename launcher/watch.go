package launcher

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Watching is what --watch asks for.
type Watching struct {
	Interval  time.Duration // between two looks, ± 10 %
	Settle    time.Duration
	Splay     time.Duration
	MinUptime time.Duration
	Probation time.Duration
	Rollback  bool
	OnChange  OnChange
	Hook      string // program to run before a change is acted on; "" for none
	Refresh   Signal // makes vaultexec look at once; 0 for none
}

// watcher looks at the secrets from time to time and reads them when it is told to. It runs in a goroutine of its own and
// never decides anything: it sends what it saw to the main goroutine.
//
// Two states are kept for each path: seen is what the last look found, acted what the last finished read was made of. A look
// that finds something else than seen is news; a read that failed because Vault is away leaves acted behind seen, so that the
// next look that gets through is news again.
type watcher struct {
	session   *vault.Session
	sources   []Source
	rules     EnvRules
	inherited []string
	argv      []string
	opt       vault.ReadOptions
	interval  time.Duration
	log       *slog.Logger

	out   chan watchEvent
	reads chan int      // a read is asked for; the number comes back with its result
	look  chan struct{} // look at once

	digest       vault.Digester
	got          []fetched // what was read last
	seen         map[vault.Path]vault.Marker
	acted        map[vault.Path]vault.Marker
	noMeta       map[vault.Path]vault.Text // the token that may not read the metadata of a path
	again        bool                      // a read failed in passing: look and read again
	misses       int                       // looks that failed in a row
	troubleSince time.Time
	refused      map[string]string // what cannot be used and why, as it was last logged
	leases       map[string]*leaseState
}

// watchEvent is news of the watcher: changes that it saw, or the result of a read and the changes that it is made of.
type watchEvent struct {
	changes []pathChange
	read    *readResult
}

// pathChange is one secret that is in another state than the running child's.
type pathChange struct {
	path     vault.Path
	from, to vault.Marker
}

// String names the change for a log.
func (c pathChange) String() string {
	name := vault.Path{Mount: c.path.Mount, Name: c.path.Name}.String()
	if c.to.Version == 0 && !c.to.Absent {
		return name + " changed"
	}
	return fmt.Sprintf("%s %s → %s", name, c.from, c.to)
}

// readResult is everything read anew.
type readResult struct {
	number int
	env    *Env // nil when it failed
	moving bool // something changed again since the last look
	id     string
	took   time.Duration
}

// leaseState is a dynamic secret whose lease is kept alive.
type leaseState struct {
	path    vault.Path
	lease   vault.Lease
	full    time.Duration // what it was granted at first
	next    time.Time     // renew, or read again
	ends    time.Time
	reread  bool // it cannot be renewed any longer
	warned  bool
	retries int
}

func newWatcher(l *launch, p program, got []fetched) *watcher {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	w := &watcher{
		session: l.Session, sources: l.Sources, rules: l.Rules, inherited: l.Environ, argv: p.argv,
		opt: vault.ReadOptions{KVVersion: l.KVVersion}, interval: l.Watching.Interval, log: l.Log,
		out: make(chan watchEvent, 4), reads: make(chan int, 4), look: make(chan struct{}, 1),
		digest: vault.NewDigester(key), got: got,
		seen: map[vault.Path]vault.Marker{}, acted: map[vault.Path]vault.Marker{},
		noMeta: map[vault.Path]vault.Text{}, refused: map[string]string{}, leases: map[string]*leaseState{},
	}
	for _, g := range got {
		m := vault.Marker{Absent: true}
		if g.secret != nil {
			m = w.digest.Marker(g.secret)
			w.holdLease(g.source.Path, g.secret.Lease, time.Now())
		}
		w.seen[g.source.Path], w.acted[g.source.Path] = m, m
	}
	return w
}

// watched reports whether the latest version of the path counts.
func (w *watcher) watched(p vault.Path) bool { return p.Version == 0 && w.leaseOf(p) == nil }

func (w *watcher) leaseOf(p vault.Path) *leaseState {
	for _, l := range w.leases {
		if l.path == p {
			return l
		}
	}
	return nil
}

// run looks and reads until ctx ends. interval 0 keeps leases alive and looks at nothing.
func (w *watcher) run(ctx context.Context) {
	var next time.Time
	if w.interval > 0 {
		next = time.Now().Add(firstLook(w.interval, mathrand.N))
	}
	timer := time.NewTimer(0)
	timer.Stop()
	for {
		wake := next
		if l := w.nextLease(); l != nil && (wake.IsZero() || l.next.Before(wake)) {
			wake = l.next
		}
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(wake), 0))
		}
		select {
		case <-ctx.Done():
			return
		case n := <-w.reads:
			w.read(ctx, n)
		case <-w.look:
			w.lookAll(ctx)
		case <-timer.C:
			now := time.Now()
			if l := w.nextLease(); l != nil && !now.Before(l.next) {
				w.tendLease(ctx, l)
			}
			if !next.IsZero() && !now.Before(next) {
				w.lookAll(ctx)
				next = time.Now().Add(nextLook(w.interval, w.misses, mathrand.N))
			}
		}
	}
}

// firstLook spreads watchers that start in the same second evenly over the interval.
func firstLook(interval time.Duration, random func(time.Duration) time.Duration) time.Duration {
	return random(interval) + 1
}

// maxMissFactor and maxMiss bound the pause between two looks while Vault is away.
const (
	maxMissFactor = 8
	maxMiss       = 5 * time.Minute
)

// nextLook is the pause before the next look: the interval ± 10 %, and after looks that failed twice as long for each, up to
// eight intervals or five minutes.
func nextLook(interval time.Duration, misses int, random func(time.Duration) time.Duration) time.Duration {
	d := interval
	if misses > 1 {
		d = min(interval<<min(misses-1, 3), max(maxMiss, interval))
	}
	return d - d/10 + random(d/5+1)
}

// lookAll looks at every watched path at the same time and reports news.
func (w *watcher) lookAll(ctx context.Context) {
	type sight struct {
		path   vault.Path
		marker vault.Marker
		err    error
	}
	var sights []sight
	for _, r := range plan(w.sources) {
		if w.watched(r.path) {
			sights = append(sights, sight{path: r.path})
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // for noMeta
	for i := range sights {
		wg.Go(func() { sights[i].marker, sights[i].err = w.lookAt(ctx, sights[i].path, &mu) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	var trouble error
	var changes []pathChange
	news := false
	for _, s := range sights {
		if s.err != nil {
			if fault.Is(s.err, fault.Away) || trouble == nil {
				trouble = s.err
			}
			continue
		}
		if old := w.acted[s.path]; s.marker != old && !s.marker.OlderThan(old) {
			changes = append(changes, pathChange{w.realPath(s.path), old, s.marker})
			if s.marker != w.seen[s.path] {
				news = true
			}
		}
		w.seen[s.path] = s.marker
	}
	w.note(trouble)
	if news || w.again && trouble == nil && len(changes) > 0 {
		w.again = false
		w.send(ctx, watchEvent{changes: changes})
	}
}

// realPath gives a path its mount, for texts.
func (w *watcher) realPath(p vault.Path) vault.Path {
	for _, g := range w.got {
		if g.source.Path == p && g.secret != nil {
			return g.secret.Path
		}
	}
	return p
}

// lookAt finds the state of one secret: from the metadata where the policy allows that, else from the data itself.
func (w *watcher) lookAt(ctx context.Context, p vault.Path, mu *sync.Mutex) (vault.Marker, error) {
	var m vault.Marker
	err := w.session.Do(ctx, func(ctx context.Context) error {
		engine, known := w.session.Client.Engine(p)
		mu.Lock()
		denied := w.noMeta[p] == w.session.Client.Token() && !w.noMeta[p].Empty()
		mu.Unlock()
		if known && engine.KV == 2 && !denied {
			var err error
			m, err = w.session.Client.Look(ctx, vault.Within(p, engine))
			if !fault.Is(err, fault.Denied) {
				return err
			}
			mu.Lock()
			w.noMeta[p] = w.session.Client.Token()
			mu.Unlock()
			w.log.Debug("the policy forbids the metadata, the data is read in its place", "path", p.String())
		}
		s, err := w.session.Client.Read(ctx, p, w.opt)
		if err != nil {
			var there bool
			if m, there = vault.MarkerOf(err); there {
				return nil
			}
			return err
		}
		m = w.digest.Marker(s)
		return nil
	})
	return m, err
}

// note logs when looking begins to fail and when it works again, and nothing in between.
func (w *watcher) note(trouble error) {
	if trouble == nil {
		if w.misses > 0 {
			w.log.Info("looking at the secrets works again", "after", time.Since(w.troubleSince).Round(time.Second).String())
		}
		w.misses = 0
		return
	}
	if w.misses == 0 {
		w.troubleSince = time.Now()
		w.log.Warn("cannot look at the secrets, the command keeps running with what it has: " + fault.Of(trouble).Error())
	} else {
		w.log.Debug("still cannot look at the secrets: " + fault.Of(trouble).Error())
	}
	w.misses++
}

// read reads everything anew, but pinned versions and leases that still live, and builds the environment.
func (w *watcher) read(ctx context.Context, number int) {
	start := time.Now()
	result := &readResult{number: number}
	got, err := w.fetch(ctx)
	if ctx.Err() != nil {
		return
	}
	markers := w.markersOf(got)
	var changes []pathChange
	for p, m := range markers {
		if old := w.acted[p]; m != old {
			changes = append(changes, pathChange{w.realPath(p), old, m})
		}
		if m != w.seen[p] {
			result.moving = true
			if !m.OlderThan(w.seen[p]) {
				w.seen[p] = m
			}
		}
	}
	if err == nil {
		result.env, err = buildEnv(got, w.rules, w.inherited)
		if err == nil {
			err = checkSize(result.env, w.argv, stackLimit())
		}
	}
	switch {
	case err == nil:
		for p, m := range markers {
			w.acted[p] = m
		}
		for _, g := range got {
			if g.secret != nil {
				w.holdLease(g.source.Path, g.secret.Lease, time.Now())
			}
		}
		w.got, result.id = got, identity(markers)
		w.usable()
	case fault.Of(err).Kind.Retryable():
		w.again = true
		w.note(err)
	default:
		// It stays so until somebody changes a secret or a policy. What can be seen is noted, so that only a further change
		// is news; a denial shows in no marker, so it is tried again.
		if fault.Is(err, fault.Denied, fault.BadToken, fault.Refused) {
			w.again = true
		} else {
			for p, m := range markers {
				w.acted[p] = m
			}
		}
		w.unusable(err)
	}
	result.took = time.Since(start)
	w.send(ctx, watchEvent{changes: changes, read: result})
}

// fetch reads the secrets once, without waiting.
func (w *watcher) fetch(ctx context.Context) ([]fetched, error) {
	f := &fetcher{client: w.session.Client, sources: w.sources, opt: w.opt, log: w.log}
	keep := map[vault.Path]*vault.Secret{}
	for _, g := range w.got {
		l := w.leaseOf(g.source.Path)
		if g.secret != nil && (g.source.Path.Version > 0 || l != nil && !l.reread) {
			keep[g.source.Path] = g.secret
		}
	}
	var got []fetched
	err := w.session.Do(ctx, func(ctx context.Context) error {
		var err error
		got, err = f.fetchAgain(ctx, keep)
		return err
	})
	return got, err
}

// markersOf collects the states that a read saw, also of secrets that are gone.
func (w *watcher) markersOf(got []fetched) map[vault.Path]vault.Marker {
	markers := map[vault.Path]vault.Marker{}
	for _, g := range got {
		if !w.watched(g.source.Path) {
			continue
		}
		switch {
		case g.secret != nil:
			markers[g.source.Path] = w.digest.Marker(g.secret)
		case g.absence != nil:
			if m, nothing := vault.MarkerOf(g.absence); nothing {
				markers[g.source.Path] = m
			}
		}
	}
	return markers
}

// identity names a set of versions.
func identity(markers map[vault.Path]vault.Marker) string {
	var parts []string
	for p, m := range markers {
		parts = append(parts, fmt.Sprintf("%s=%d,%s,%t,%t,%t,%x", p, m.Version, m.Created, m.Absent, m.Deleted, m.Destroyed, m.Digest))
	}
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

// unusable logs once what cannot be used and why.
func (w *watcher) unusable(err error) {
	now := map[string]string{}
	for _, f := range fault.All(err) {
		now[f.What] = f.Why
		if w.refused[f.What] != f.Why {
			w.log.Warn("the change is not used, the command keeps running with what it has: "+f.Error(), "hint", f.Hint)
		}
	}
	w.refused = now
}

// usable logs once that everything can be used again.
func (w *watcher) usable() {
	if len(w.refused) > 0 {
		w.log.Info("the secrets can be used again", "names", strings.Join(sortedKeys(w.refused), ", "))
		w.refused = map[string]string{}
	}
}

func (w *watcher) send(ctx context.Context, ev watchEvent) {
	select {
	case w.out <- ev:
	case <-ctx.Done():
	}
}

// holdLease begins to keep a lease alive.
func (w *watcher) holdLease(p vault.Path, l vault.Lease, now time.Time) {
	if l.ID == "" {
		return
	}
	if old, ok := w.leases[l.ID]; ok && old.lease.ID == l.ID {
		return
	}
	if old := w.leaseOf(p); old != nil {
		delete(w.leases, old.lease.ID)
	}
	s := &leaseState{path: p, full: l.Duration}
	s.granted(l, now)
	w.leases[l.ID] = s
}

// granted plans the next step of a lease: at two thirds of its life, with jitter.
func (s *leaseState) granted(l vault.Lease, now time.Time) {
	s.lease, s.ends, s.retries = l, now.Add(l.Duration), 0
	life := l.Duration * 2 / 3
	s.next = now.Add(life - life/10 + mathrand.N(life/5+1))
}

func (w *watcher) nextLease() *leaseState {
	var first *leaseState
	for _, l := range w.leases {
		if !l.next.IsZero() && (first == nil || l.next.Before(first.next)) {
			first = l
		}
	}
	return first
}

// tendLease renews a lease. One that cannot be renewed any longer is read again before it ends, if the secrets are watched.
func (w *watcher) tendLease(ctx context.Context, l *leaseState) {
	now := time.Now()
	if l.lease.Renewable && !l.reread {
		var renewed vault.Lease
		err := w.session.Do(ctx, func(ctx context.Context) error {
			var err error
			renewed, err = w.session.Client.RenewLease(ctx, l.lease)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && renewed.Duration > l.full/2:
			l.granted(renewed, now)
			w.log.Debug("lease renewed", "path", l.path.String(), "duration", renewed.Duration.String())
			return
		case fault.Is(err, fault.Away) && now.Before(l.ends):
			l.retries++
			l.next = now.Add(min(time.Second<<min(l.retries, 6), max(l.ends.Sub(now)/4, time.Second)))
			return
		case err == nil:
			l.granted(renewed, now) // the last bit of its longest life
		}
	}
	l.reread = true
	if w.interval == 0 {
		l.next = time.Time{}
		if !l.warned {
			l.warned = true
			w.log.Warn("a lease cannot be renewed any longer, and without --watch it is not replaced", "path", l.path.String(), "ends", l.ends.UTC().Format(time.RFC3339))
		}
		return
	}
	l.next = now.Add(max(time.Until(l.ends)/3, 10*time.Second)) // should the read fail
	w.send(ctx, watchEvent{changes: []pathChange{{path: w.realPath(l.path)}}})
}
