package launcher

import (
	"context"
	mathrand "math/rand/v2"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

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

func (w *watcher) leaseOf(p vault.Path) *leaseState {
	for _, l := range w.leases {
		if l.path == p {
			return l
		}
	}
	return nil
}

// holdLease begins to keep a lease alive.
func (w *watcher) holdLease(p vault.Path, l vault.Lease, now time.Time) {
	if l.Duration == 0 && l.ID == "" {
		return
	}
	old := w.leaseOf(p)
	// Of what has no ID only a further read is another.
	if old != nil && old.lease.ID == l.ID && !(l.ID == "" && old.reread) {
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

// goesOn reports whether a renewal shows that further ones will do. A renewal that gives less than before may mean that
// the role gives less by now. A lease is at its longest life if Vault says that it capped it, or if two renewals in a
// row did not move it.
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

// tendLease renews a lease. If the secrets are watched, one that cannot be renewed any longer is read again before it
// ends.
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
			w.log.Warn(what+", and without --watch it is not replaced", "path", l.path.String(),
				"ends", l.ends.UTC().Format(time.RFC3339))
		}
		return
	}
	// Should the read fail, it is asked for again, but not without end in short order.
	l.next = now.Add(max(w.clock.Left(l.ends)/3, min(10*time.Second<<min(l.rereads, 5), maxMiss)))
	l.rereads++
	w.send(ctx, watchEvent{states: states{l.path: {Digest: [32]byte{1}}}, again: l.rereads > 1})
}
