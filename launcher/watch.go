package launcher

import (
	"context"
	"crypto/rand"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Watching is what --watch asks for. What a change leads to counts for a lease without --watch, too.
type Watching struct {
	Interval  time.Duration // between two looks, ± 10 %; 0 looks at nothing
	Settle    time.Duration
	Splay     time.Duration
	MinUptime time.Duration
	Probation time.Duration
	Rollback  bool
	OnChange  OnChange
	Hook      string        // program to run before a change is acted on; "" for none
	Refresh   Signal        // makes vaultexec look at once; 0 for none
	Margin    time.Duration // how long before the end of a lease it is replaced; 0 for a tenth of its life
}

// watcher looks at the secrets from time to time, keeps leases alive, and reads when it is told to. It runs in a
// goroutine of its own, to which its records belong, and never decides what is done with the command: it sends what it
// saw to the main goroutine.
type watcher struct {
	session  *vault.Session
	opt      vault.ReadOptions
	interval time.Duration
	haste    haste
	log      *slog.Logger
	clock    *clock.Clock // by which leases end and looks are due

	out     chan watchEvent
	inbox   inbox
	look    chan struct{} // look at once
	renewed chan renewal

	book    *lookBook // nil without --status
	copy    *lastGood // nil without --fallback
	digest  vault.Digester
	records records
	noMeta  denials // of metadata
	noLook  denials // of the lookup of leases
	mayEnd  denials // of their revocation

	again        bool          // a read failed in passing: it is repeated after a look that gets through
	owed         bool          // no read has got through since: all is not well yet
	misses       int           // looks and reads in a row that Vault did not answer
	pause        time.Duration // that the server asked for
	troubleSince time.Time     // zero while there is none
	refused      map[string]bool
	refusedSince time.Time

	by    time.Time     // the command must be told to stop by then, or its credentials end under it; zero for no such time
	last  time.Time     // when what Vault does not answer is no longer waited for, because by has come; zero for never
	fresh bool          // there are new credentials that the command does not have
	held  []vault.Lease // every lease that was made and not revoked
	gone  []letGo       // but for those
	next  time.Time     // the next look
}

// watchEvent is news of the watcher: secrets in a new state, or the result of a read and the states that it found.
type watchEvent struct {
	states states
	again  bool      // nothing new is known, a read that failed is to be repeated
	by     time.Time // it must be acted on by then; zero for any time
	read   *readResult
}

// readResult is everything read anew.
type readResult struct {
	number int
	wish        // its env is nil when it failed
	moving bool // something changed again since the last look, or a replica that lags behind has answered
	took   time.Duration
}

// inbox is what the main goroutine asks of the watcher. It never blocks: the watcher may wait for Vault.
type inbox struct {
	mu   sync.Mutex
	list []func(context.Context)
	full chan struct{}
}

func (b *inbox) put(f func(context.Context)) {
	b.mu.Lock()
	b.list = append(b.list, f)
	b.mu.Unlock()
	select {
	case b.full <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []func(context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list = nil
	return list
}

func newWatcher(l *launch, p program, got []environ.Fetched) *watcher {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	w := &watcher{
		session: l.Session, opt: vault.ReadOptions{KVVersion: l.KVVersion}, interval: l.Watching.Interval, log: l.Log,
		haste: haste{margin: l.Watching.Margin, settle: l.Watching.Settle, stop: l.Supervision.StopTimeout},
		clock: l.Session.Client.Clock,
		out:   make(chan watchEvent, 4), inbox: inbox{full: make(chan struct{}, 1)},
		look: make(chan struct{}, 1), renewed: make(chan renewal),
		book: l.book(), copy: l.last, digest: vault.NewDigester(key),
		refused: map[string]bool{},
		records: records{sources: l.Sources, rules: l.Rules, inherit: l.Environ, at: map[vault.Path]*record{},
			check: func(env *environ.Env) error { return environ.CheckSize(env, p.argv, stackLimit()) }},
	}
	if l.StartFirst { // the old command has its credentials until the new one is ready
		w.haste.stop += l.Ready.Timeout
	}
	now := time.Now()
	for _, g := range got {
		r := w.records.of(g.Source.Path)
		c := content{secret: g.Secret, folder: g.Folder, absence: g.Absence}
		c.marker = w.marker(c)
		r.newest = c.marker
		r.take(c, now, w.haste)
		w.book.note(r.path, nil, now)
		if g.Secret != nil {
			w.hold(g.Secret.Lease)
		}
		if r.fleeting {
			w.leave(r)
		}
	}
	w.records.settle()
	w.reserve()
	w.again = w.copy.used() != nil // everything is read as soon as Vault answers
	return w
}

// marker is the state of what a read gave.
func (w *watcher) marker(c content) vault.Marker {
	switch {
	case c.folder != nil:
		return w.digest.FolderMarker(c.folder)
	case c.secret != nil:
		return w.digest.Marker(c.secret)
	}
	m, _ := vault.MarkerOf(c.absence)
	return m
}

// leave says once that a path differs at every read, which is no reason for anything.
func (w *watcher) leave(r *record) {
	w.log.Info("the secret differs at every read; the command keeps what was read at its start", "path", r.path.String())
}

// watches reports whether somebody asked for looks.
func (w *watcher) watches() bool { return w.interval > 0 }

// ask has everything read anew. The number comes back with the result.
func (w *watcher) ask(number int) { w.inbox.put(func(ctx context.Context) { w.read(ctx, number) }) }

// started is told of the command that was started last: which leases it has. No other command needs any.
func (w *watcher) started(has []vault.Lease) {
	w.inbox.put(func(ctx context.Context) {
		w.by, w.last, w.fresh = time.Time{}, time.Time{}, false
		w.retire(ctx, has)
	})
}

// acted is told that the running command has what was read, or will not get it: no start follows. What its leases took
// the place of presses no more, is not looked at, and is revoked at the end, should it still live then.
func (w *watcher) acted() {
	w.inbox.put(func(context.Context) {
		w.by, w.last, w.fresh = time.Time{}, time.Time{}, false
		now := time.Now()
		w.gone = slices.DeleteFunc(w.gone, func(g letGo) bool { return w.clock.Left(g.by) <= 0 })
		current := w.records.leaseIDs()
		w.held = slices.DeleteFunc(w.held, func(l vault.Lease) bool {
			if !current[l.ID] {
				w.gone = append(w.gone, letGo{l, now.Add(l.Duration)})
			}
			return !current[l.ID]
		})
	})
}

// letGo is a lease in whose place another is, and that nobody keeps alive. It has ended by then.
type letGo struct {
	lease vault.Lease
	by    time.Time
}

// toRevoke lists what is revoked at the end.
func (w *watcher) toRevoke() []vault.Lease {
	all := slices.Clone(w.held)
	for _, g := range w.gone {
		if w.clock.Left(g.by) > 0 {
			all = append(all, g.lease)
		}
	}
	return all
}

// reject is told that states made a command fail, and what worked before.
func (w *watcher) reject(id string, good edition) {
	w.inbox.put(func(context.Context) { w.records.reject(id, good.got, good.states) })
}

// run looks and reads until ctx ends. interval 0 keeps leases alive and looks at nothing.
func (w *watcher) run(ctx context.Context) {
	if w.watches() {
		w.next = time.Now().Add(firstLook(w.pace(), mathrand.N))
	}
	timer := time.NewTimer(0)
	timer.Stop()
	for {
		jumped, login := w.clock.Jumped(), w.session.Changed()
		w.noteTokens()
		w.book.show(w)
		if wake := w.wake(); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(w.clock.Left(wake), 0))
		}
		select {
		case <-ctx.Done():
			return
		case <-jumped:
		case <-login:
		case r := <-w.renewed:
			w.wasRenewed(ctx, r)
		case <-w.look:
			w.lookAll(ctx)
		case <-w.inbox.full:
			for _, f := range w.inbox.take() {
				f(ctx)
			}
		case <-timer.C:
			w.tend(ctx)
			if !w.next.IsZero() && w.clock.Left(w.next) <= 0 {
				w.lookAll(ctx)
				w.next = time.Now().Add(max(w.nextLook(), w.pause))
			}
		}
	}
}

// wake is when something is to be done next.
func (w *watcher) wake() time.Time {
	wake := w.next
	for _, t := range []time.Time{w.records.next(w.watches()), w.last} {
		if !t.IsZero() && (wake.IsZero() || w.clock.Left(t) < w.clock.Left(wake)) {
			wake = t
		}
	}
	return wake
}

// event makes news of what was seen.
func (w *watcher) event(seen states, again bool) watchEvent {
	return watchEvent{states: seen, again: again, by: w.deadline()}
}

// deadline is the time by which a command must be told to stop. One that is over, and for which there are no new
// credentials, hurries nothing else.
func (w *watcher) deadline() time.Time {
	if !w.fresh && w.clock.Left(w.by) <= 0 {
		return time.Time{}
	}
	return w.timerTime(w.by)
}

// timerTime is a time by the clock of timers; the zero time stays zero.
func (w *watcher) timerTime(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.Now().Add(w.clock.Left(t))
}

// pressed reports whether there are new credentials, and the command has to be told to stop now.
func (w *watcher) pressed() bool { return w.fresh && !w.by.IsZero() && w.clock.Left(w.by) <= 0 }

func (w *watcher) send(ctx context.Context, ev watchEvent) {
	select {
	case w.out <- ev:
	case <-ctx.Done():
	}
}
