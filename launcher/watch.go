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
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/environ"
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

// watcher looks at the secrets from time to time and reads them when it is told to. It runs in a goroutine of its own
// and never decides anything: it sends what it saw to the main goroutine.
//
// Two states are kept for each path: seen is the newest that was found, and acted is what the last completed read was
// made of. A look that finds something other than seen is news. A read that failed for a reason that may pass sets
// again: the next look that gets through has the read repeated, whatever it finds.
type watcher struct {
	session   *vault.Session
	sources   []environ.Source
	rules     environ.Rules
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
	got          []environ.Fetched // what was read last
	sights       []environ.Source  // what is looked at: the sources, and the secrets of their folders at the last read
	seen         states
	acted        states
	noMeta       denials         // of metadata
	again        bool            // a read failed in passing: look and read again
	owed         bool            // no read has got through since: all is not well yet
	misses       int             // looks and reads that failed in a row
	pause        time.Duration   // that the server asked for
	troubleSince time.Time       // zero while there is none
	refused      map[string]bool // what cannot be used and why, as it was last logged
	refusedSince time.Time
	leases       map[string]*leaseState
}

// watchEvent is news of the watcher: secrets in a new state, or the result of a read and the states that it found.
type watchEvent struct {
	states states
	again  bool // nothing new is known, a read that failed is to be repeated
	read   *readResult
}

// readResult is everything read anew.
type readResult struct {
	number int
	env    *environ.Env // nil when it failed
	moving bool         // something changed again since the last look, or a replica that lags behind has answered
	id     string
	took   time.Duration
}

func newWatcher(l *launch, p program, got []environ.Fetched) *watcher {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	w := &watcher{
		session: l.Session, sources: l.Sources, rules: l.Rules, inherited: l.Environ, argv: p.argv,
		opt: vault.ReadOptions{KVVersion: l.KVVersion}, interval: l.Watching.Interval, log: l.Log,
		clock: l.Session.Client.Clock,
		out:   make(chan watchEvent, 4), reads: make(chan int, 4), look: make(chan struct{}, 1),
		digest: vault.NewDigester(key), got: got,
		refused: map[string]bool{}, leases: map[string]*leaseState{},
	}
	for _, g := range got {
		if g.Secret != nil {
			w.holdLease(g.Source.Path, g.Secret.Lease, time.Now())
		}
	}
	w.sights = seenSources(got)
	w.acted = w.statesOf(got)
	w.seen = maps.Clone(w.acted)
	return w
}

// watched reports whether the latest version of the path counts.
func (w *watcher) watched(p vault.Path) bool { return p.Version == 0 && w.leaseOf(p) == nil }

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
	stale, moving := w.notice(found)
	result.moving = moving
	if err == nil && !stale {
		result.env, err = environ.Build(got, w.rules, w.inherited)
		if err == nil {
			err = environ.CheckSize(result.env, w.argv, stackLimit())
		}
	}
	switch {
	case stale: // nothing is ever built from the past
		result.env, result.moving, w.again, w.owed = nil, true, true, true
	case err == nil:
		maps.Copy(w.acted, found)
		for _, g := range got {
			if g.Secret != nil {
				w.holdLease(g.Source.Path, g.Secret.Lease, time.Now())
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

// notice notes the states that a read found. It takes out of them a path that a lagging replica has answered for.
func (w *watcher) notice(found states) (stale, moving bool) {
	for p, m := range found {
		if !w.watched(p) {
			continue
		}
		newest, known := w.seen[p]
		if m.OlderThan(newest) {
			w.log.Debug("a replica that lags behind has answered", "path", p.String(), "version", m.String(),
				"known", newest.String())
			stale = true
			delete(found, p)
			continue
		}
		moving = moving || known && m != newest // a secret that is new in its folder is not known
		w.seen[p] = m
	}
	return stale, moving
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
func (w *watcher) fetch(ctx context.Context) ([]environ.Fetched, error) {
	f := &fetcher{client: w.session.Client, sources: w.sources, opt: w.opt, log: w.log}
	keep := map[vault.Path]*vault.Secret{}
	for _, g := range w.got {
		l := w.leaseOf(g.Source.Path)
		if g.Secret != nil && (g.Source.Path.Version > 0 || l != nil && !l.reread) {
			keep[g.Source.Path] = g.Secret
		}
	}
	var got []environ.Fetched
	err := w.session.Do(ctx, func(ctx context.Context) error {
		var err error
		got, err = f.fetchAgain(ctx, keep)
		return err
	})
	return got, err
}

// statesOf collects the states that a read found, also of secrets that are gone. Pinned versions are left out: they
// cannot change.
func (w *watcher) statesOf(got []environ.Fetched) states {
	found := states{}
	for _, g := range got {
		p := g.Source.Path
		switch {
		case p.Version > 0:
		case g.Folder != nil:
			found[p] = w.digest.FolderMarker(g.Folder)
		case g.Secret != nil:
			found[p] = w.digest.Marker(g.Secret)
		case g.Absence != nil:
			if m, nothing := vault.MarkerOf(g.Absence); nothing {
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
		parts = append(parts, fmt.Sprintf("%s=%d,%s,%t,%t,%t,%x", p, m.Version, m.Created, m.Absent, m.Deleted,
			m.Destroyed, m.Digest))
	}
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

// unusable logs once what cannot be used and why.
func (w *watcher) unusable(err error, changes string) {
	now := map[string]bool{}
	for _, f := range fault.All(err) {
		now[f.Error()] = true
		if !w.refused[f.Error()] {
			w.log.Warn("the change is not used, the command keeps running with what it has: "+f.Error(),
				append([]any{"paths", changes}, hinted(f)...)...)
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
		w.refused = map[string]bool{}
	}
}

func (w *watcher) send(ctx context.Context, ev watchEvent) {
	select {
	case w.out <- ev:
	case <-ctx.Done():
	}
}
