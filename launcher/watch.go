package launcher

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
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
// Two states are kept for each path: seen is the newest that was found, acted what the last read was made of that came to an
// end. A look that finds something else than seen is news. A read that failed for a reason that may pass sets again: the next
// look that gets through has the read repeated, whatever it finds.
type watcher struct {
	session   *vault.Session
	sources   []Source
	rules     EnvRules
	inherited []string
	argv      []string
	opt       vault.ReadOptions
	interval  time.Duration
	log       *slog.Logger
	clock     *clock.Clock // by which leases end and looks are due

	out   chan watchEvent
	reads chan int      // a read is asked for; the number comes back with its result
	look  chan struct{} // look at once

	digest       vault.Digester
	got          []fetched // what was read last
	sights       []Source  // what is looked at: the sources, and the secrets that their folders had at the last read
	seen         states
	acted        states
	noMeta       map[vault.Path]vault.Text // the token that may not read the metadata of a path
	again        bool                      // a read failed in passing: look and read again
	owed         bool                      // no read has got through since: all is not well yet
	misses       int                       // looks and reads that failed in a row
	pause        time.Duration             // that the server asked for
	troubleSince time.Time                 // zero while there is none
	refused      map[string]string         // what cannot be used and why, as it was last logged
	refusedSince time.Time
	leases       map[string]*leaseState
}

// watchEvent is news of the watcher: secrets in another state than before, or the result of a read and the states that it
// found.
type watchEvent struct {
	states states
	again  bool // nothing new is known, a read that failed is to be repeated
	read   *readResult
}

// readResult is everything read anew.
type readResult struct {
	number int
	env    *Env // nil when it failed
	moving bool // something changed again since the last look, or a replica that lags behind has answered
	id     string
	took   time.Duration
}

// leaseState is a dynamic secret whose lease is kept alive.
type leaseState struct {
	path    vault.Path
	key     string // in watcher.leases
	lease   vault.Lease
	full    time.Duration // what it was granted at first
	next    time.Time     // renew, or read again
	ends    time.Time
	reread  bool // it cannot be renewed any longer
	rereads int  // how often that was asked for
	warned  bool
	retries int
	stuck   int // renewals in a row that did not move its end
}

func newWatcher(l *launch, p program, got []fetched) *watcher {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	w := &watcher{
		session: l.Session, sources: l.Sources, rules: l.Rules, inherited: l.Environ, argv: p.argv,
		opt: vault.ReadOptions{KVVersion: l.KVVersion}, interval: l.Watching.Interval, log: l.Log, clock: l.Session.Client.Clock,
		out: make(chan watchEvent, 4), reads: make(chan int, 4), look: make(chan struct{}, 1),
		digest: vault.NewDigester(key), got: got,
		noMeta: map[vault.Path]vault.Text{}, refused: map[string]string{}, leases: map[string]*leaseState{},
	}
	for _, g := range got {
		if g.secret != nil {
			w.holdLease(g.source.Path, g.secret.Lease, time.Now())
		}
	}
	w.sights = seenSources(got)
	w.acted = w.statesOf(got)
	w.seen = maps.Clone(w.acted)
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
		jumped := w.clock.Jumped()
		wake := next
		if l := w.nextLease(); l != nil && (wake.IsZero() || w.clock.Left(l.next) < w.clock.Left(wake)) {
			wake = l.next
		}
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(w.clock.Left(wake), 0))
		}
		select {
		case <-ctx.Done():
			return
		case <-jumped:
		case n := <-w.reads:
			w.read(ctx, n)
		case <-w.look:
			w.lookAll(ctx)
		case <-timer.C:
			if l := w.nextLease(); l != nil && w.clock.Left(l.next) <= 0 {
				w.tendLease(ctx, l)
			}
			if !next.IsZero() && w.clock.Left(next) <= 0 {
				w.lookAll(ctx)
				next = time.Now().Add(max(nextLook(w.interval, w.misses, mathrand.N), w.pause))
			}
		}
	}
}

// firstLook spreads watchers that start in the same second evenly over the interval.
func firstLook(interval time.Duration, random func(time.Duration) time.Duration) time.Duration {
	return random(interval) + 1
}

// maxMiss bounds the pause between two looks while Vault is away.
const maxMiss = 5 * time.Minute

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
	for _, r := range plan(w.sights) {
		if w.watched(r.path) {
			sights = append(sights, sight{path: r.path})
		}
	}
	var mu sync.Mutex // for noMeta
	look := func(which func(sight) bool) (failed bool) {
		var wg sync.WaitGroup
		for i := range sights {
			if which(sights[i]) {
				wg.Go(func() { sights[i].marker, sights[i].err = w.lookAt(ctx, sights[i].path, &mu) })
			}
		}
		wg.Wait()
		return slices.ContainsFunc(sights, func(s sight) bool { return fault.Is(s.err, fault.Away) })
	}
	// One failure is not yet trouble: behind a balancer it may be the one dead node of three.
	if look(func(sight) bool { return true }) && w.misses == 0 && ctx.Err() == nil {
		look(func(s sight) bool { return fault.Is(s.err, fault.Away) })
	}
	if ctx.Err() != nil {
		return
	}
	var trouble error
	changed, news := states{}, false
	for _, s := range sights {
		newest := w.seen[s.path]
		switch {
		case s.err != nil:
			if fault.Is(s.err, fault.Away) || trouble == nil {
				trouble = s.err
			}
			continue
		case s.marker.OlderThan(newest): // a replica that lags behind
			continue
		case s.marker != w.acted[s.path]:
			changed[s.path] = s.marker
			news = news || s.marker != newest
		}
		w.seen[s.path] = s.marker
	}
	again := w.again && trouble == nil
	if trouble != nil || !w.owed { // otherwise the read tells whether all is well
		w.note(trouble)
	}
	if news || again {
		w.again = w.again && !again
		w.send(ctx, watchEvent{states: changed, again: !news})
	}
}

// lookAt finds the state of one secret: from the metadata where the policy allows that, else from the data itself.
func (w *watcher) lookAt(ctx context.Context, p vault.Path, mu *sync.Mutex) (vault.Marker, error) {
	var m vault.Marker
	err := w.session.Do(ctx, func(ctx context.Context) error {
		if p.Folder {
			var err error
			m, err = w.lookInto(ctx, p)
			return err
		}
		engine, known := w.session.Client.Engine(p)
		if !known && w.opt.KVVersion == 2 && p.Mount != "" {
			engine, known = vault.Engine{Mount: p.Mount, KV: 2}, true
		}
		mu.Lock()
		token, denied := w.noMeta[p]
		denied = denied && token.Equal(w.session.Client.Token())
		mu.Unlock()
		refused := known && engine.KV == 2 && !denied
		if refused {
			var err error
			m, err = w.session.Client.Look(ctx, vault.Within(p, engine))
			if !fault.Is(err, fault.Denied) {
				return err
			}
		}
		s, err := w.session.Client.Read(ctx, p, w.opt)
		if err == nil {
			m = w.digest.Marker(s)
		} else {
			var there bool
			if m, there = vault.MarkerOf(err); !there {
				return err // a policy that forbids the data, too, may come back as it was
			}
		}
		if refused {
			mu.Lock()
			w.noMeta[p] = w.session.Client.Token()
			mu.Unlock()
			w.log.Debug("the policy forbids the metadata, the data is read in its place", "path", p.String())
		}
		return nil
	})
	return m, err
}

// lookInto finds the state of a folder: which secrets are in it.
func (w *watcher) lookInto(ctx context.Context, p vault.Path) (vault.Marker, error) {
	folder, err := w.session.Client.ListFolder(ctx, p, w.opt.KVVersion)
	if err == nil {
		return w.digest.FolderMarker(folder), nil
	}
	if m, there := vault.MarkerOf(err); there {
		return m, nil
	}
	return vault.Marker{}, err
}

// note logs when trouble with Vault begins and when it is over, and nothing in between.
func (w *watcher) note(trouble error) {
	if trouble == nil {
		if !w.troubleSince.IsZero() {
			w.log.Info("looking at the secrets works again", "after", duration(time.Since(w.troubleSince)))
		}
		w.misses, w.pause, w.troubleSince = 0, 0, time.Time{}
		return
	}
	f := fault.Of(trouble)
	if w.troubleSince.IsZero() {
		w.troubleSince = time.Now()
		w.log.Warn("cannot look at the secrets, the command keeps running with what it has: " + f.Error())
	} else {
		w.log.Debug("still cannot look at the secrets: " + f.Error())
	}
	w.misses++
	w.pause = min(f.RetryAfter, maxMiss)
}

// read reads everything anew, but pinned versions and leases that still live, and builds the environment.
func (w *watcher) read(ctx context.Context, number int) {
	start := time.Now()
	result := &readResult{number: number}
	got, err := w.fetch(ctx)
	if ctx.Err() != nil {
		return
	}
	if got != nil {
		w.sights = seenSources(got)
	}
	found := w.statesOf(got)
	stale := false
	for p, m := range found {
		if !w.watched(p) {
			continue
		}
		newest, known := w.seen[p]
		if m.OlderThan(newest) {
			w.log.Debug("a replica that lags behind has answered", "path", p.String(), "version", m.String(), "known", newest.String())
			stale = true
			delete(found, p)
			continue
		}
		result.moving = result.moving || known && m != newest // a secret that is new in its folder is not known
		w.seen[p] = m
	}
	if err == nil && !stale {
		result.env, err = buildEnv(got, w.rules, w.inherited)
		if err == nil {
			err = checkSize(result.env, w.argv, stackLimit())
		}
	}
	switch {
	case stale: // nothing is ever built from the past
		result.env, result.moving, w.again, w.owed = nil, true, true, true
	case err == nil:
		maps.Copy(w.acted, found)
		for _, g := range got {
			if g.secret != nil {
				w.holdLease(g.source.Path, g.secret.Lease, time.Now())
			}
		}
		w.got, result.id, w.again, w.owed = got, identity(found), false, false
		w.note(nil)
		w.usable()
	default:
		result.env = nil
		w.failed(err, found)
	}
	result.took = time.Since(start)
	w.send(ctx, watchEvent{states: found, read: result})
}

// failed notes why what was read makes no environment. What somebody wrote stays so until somebody writes again: then
// only a further change is news. Everything else, a denial among it, shows in no state of a secret and is tried again.
func (w *watcher) failed(err error, found states) {
	written, answered := true, false
	for _, f := range fault.All(err) {
		isWritten := fault.Is(f, fault.Missing, fault.Deleted, fault.Value)
		written = written && isWritten
		answered = answered || isWritten || f.Kind == fault.Denied
	}
	if !answered {
		w.again, w.owed = true, true
		w.note(err)
		return
	}
	w.owed = false
	w.unusable(err, w.acted.text(found))
	if written {
		w.again = false
		w.note(nil)
		maps.Copy(w.acted, found)
		return
	}
	misses := w.misses
	w.note(nil)
	w.again, w.misses = true, misses+1
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

// statesOf collects the states that a read found, also of secrets that are gone. Pinned versions are left out, they cannot
// change.
func (w *watcher) statesOf(got []fetched) states {
	found := states{}
	for _, g := range got {
		p := g.source.Path
		switch {
		case p.Version > 0:
		case g.folder != nil:
			found[p] = w.digest.FolderMarker(g.folder)
		case g.secret != nil:
			found[p] = w.digest.Marker(g.secret)
		case g.absence != nil:
			if m, nothing := vault.MarkerOf(g.absence); nothing {
				found[p] = m
			}
		}
	}
	return found
}

// identity names a set of versions.
func identity(found states) string {
	var parts []string
	for p, m := range found {
		parts = append(parts, fmt.Sprintf("%s=%d,%s,%t,%t,%t,%x", p, m.Version, m.Created, m.Absent, m.Deleted, m.Destroyed, m.Digest))
	}
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

// unusable logs once what cannot be used and why.
func (w *watcher) unusable(err error, changes string) {
	now := map[string]string{}
	for _, f := range fault.All(err) {
		now[f.What] = f.Why
		if w.refused[f.What] != f.Why {
			w.log.Warn("the change is not used, the command keeps running with what it has: "+f.Error(), append([]any{"paths", changes}, hinted(f)...)...)
		}
	}
	if len(w.refused) == 0 {
		w.refusedSince = time.Now()
	}
	w.refused = now
}

// usable logs once that everything can be used again.
func (w *watcher) usable() {
	if len(w.refused) > 0 {
		w.log.Info("the secrets can be used again", "after", duration(time.Since(w.refusedSince)))
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
	if l.Duration == 0 && l.ID == "" {
		return
	}
	old := w.leaseOf(p)
	if old != nil && old.lease.ID == l.ID && !(l.ID == "" && old.reread) { // of what has no ID only a further read is another
		return
	}
	if old != nil {
		delete(w.leases, old.key)
	}
	s := &leaseState{path: p, key: l.ID, full: l.Duration}
	if l.ID == "" {
		s.key = p.String()
	}
	s.granted(l, now)
	w.leases[s.key] = s
}

// granted plans the next step of a lease: at two thirds of its life, with jitter.
func (s *leaseState) granted(l vault.Lease, now time.Time) {
	s.lease, s.ends, s.retries = l, now.Add(l.Duration), 0
	life := l.Duration * 2 / 3
	s.next = now.Add(life - life/10 + mathrand.N(life/5+1))
}

// goesOn reports whether a renewal shows that further ones will do: one that gives less than before may mean that the role
// gives less by now. At its longest life is what Vault says it capped, or what two renewals in a row did not move.
func (s *leaseState) goesOn(renewed vault.Lease, now time.Time) bool {
	switch {
	case renewed.Capped:
		return renewed.Duration > s.full/2 // there is time to renew it once more before it is read again
	case renewed.Duration >= s.lease.Duration, now.Add(renewed.Duration).After(s.ends.Add(time.Second)):
		s.stuck = 0
		return true
	}
	s.stuck++
	return s.stuck < 2
}

func (w *watcher) nextLease() *leaseState {
	var first *leaseState
	for _, l := range w.leases {
		if !l.next.IsZero() && (first == nil || w.clock.Left(l.next) < w.clock.Left(first.next)) {
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
		case err == nil && l.goesOn(renewed, now):
			l.granted(renewed, now)
			w.log.Debug("lease renewed", "path", l.path.String(), "duration", renewed.Duration.String())
			return
		case fault.Is(err, fault.Away) && w.clock.Left(l.ends) > 0:
			l.retries++
			l.next = now.Add(min(time.Second<<min(l.retries, 6), max(w.clock.Left(l.ends)/4, time.Second)))
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
			what := "a lease cannot be renewed any longer"
			if l.lease.ID == "" {
				what = "a token ends"
			}
			w.log.Warn(what+", and without --watch it is not replaced", "path", l.path.String(), "ends", l.ends.UTC().Format(time.RFC3339))
		}
		return
	}
	// Should the read fail, it is asked for again, but not without end in short order.
	l.next = now.Add(max(w.clock.Left(l.ends)/3, min(10*time.Second<<min(l.rereads, 5), maxMiss)))
	l.rereads++
	w.send(ctx, watchEvent{states: states{l.path: {Digest: [32]byte{1}}}, again: l.rereads > 1})
}
