package launcher

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// This is what the watcher does for leases, and for what else has its own time. lease.go says when.

// maxRenewals bounds how many leases are renewed, looked up or revoked at the same time.
const maxRenewals = 8

// slots has no more than maxRenewals functions run at the same time.
type slots chan struct{}

func newSlots() slots { return make(slots, maxRenewals) }

// run waits for its turn.
func (s slots) run(f func()) {
	s <- struct{}{}
	defer func() { <-s }()
	f()
}

// renewal is how the renewal of a lease went.
type renewal struct {
	of    *record
	lease *lease
	asked time.Time
	got   vault.Lease
	err   error
}

// tend does what is due.
func (w *watcher) tend(ctx context.Context) {
	var renew, rotated, ask []*record
	now := time.Now()
	for _, r := range w.records.all() {
		switch l := r.lease; {
		case l == nil && w.watches() && r.watched() && !r.rotates.IsZero() && w.clock.Left(r.rotates) <= 0:
			rotated = append(rotated, r)
		case l == nil, l.busy, w.clock.Left(l.next) > 0:
		case l.last:
			ask = append(ask, r)
		default:
			renew = append(renew, r)
		}
	}
	w.renew(ctx, renew)
	w.replace(ctx, ask, now)
	if len(rotated) > 0 {
		for _, r := range rotated {
			// Unless the look finds out better.
			r.rotates = now.Add(min(firstAsk<<min(r.awaited, 6), max(w.interval, firstAsk), maxMiss))
			r.awaited++
		}
		w.lookAt(ctx, rotated)
	}
	if !w.last.IsZero() && w.clock.Left(w.last) <= 0 {
		w.last = time.Time{}
		w.send(ctx, w.event(states{}, true))
	}
}

// renew renews leases, while the watcher goes on.
func (w *watcher) renew(ctx context.Context, due []*record) {
	if len(due) == 0 {
		return
	}
	slots := newSlots()
	for _, r := range due {
		l := r.lease
		l.busy = true
		go slots.run(func() {
			done := renewal{of: r, lease: l, asked: time.Now()}
			done.err = w.session.Do(ctx, func(ctx context.Context) (err error) {
				done.got, err = w.session.Client.RenewLease(ctx, l.Lease)
				return err
			})
			select {
			case w.renewed <- done:
			case <-ctx.Done():
			}
		})
	}
}

// wasRenewed takes in how a renewal went.
func (w *watcher) wasRenewed(ctx context.Context, n renewal) {
	l := n.lease
	l.busy = false
	if n.of.lease != l || ctx.Err() != nil { // it was replaced meanwhile
		return
	}
	path := n.of.path.String()
	known := !l.gone && w.clock.Left(l.ends) > 0
	l.renewed(n.got, n.err, n.asked, w.haste, w.clock)
	w.noteAnswer(n.err)
	switch {
	case n.err == nil && l.last:
		w.log.Debug("lease renewed for the last time", "path", path, "ends", wallClock(l.ends))
	case n.err == nil:
		w.log.Debug("lease renewed", "path", path, "duration", l.Duration.String())
	case l.gone:
		if known {
			w.lostLease(path)
		}
	case fault.Is(n.err, fault.Denied) && n.of.unrenewable:
	case fault.Is(n.err, fault.Denied):
		n.of.unrenewable = true
		w.log.Warn("a lease cannot be renewed; the command gets new credentials before it expires: "+fault.Of(n.err).Error(),
			append([]any{"path", path, "ends", wallClock(l.ends)}, hinted(n.err)...)...)
	case l.last:
		w.log.Debug("a lease cannot be renewed any further", "path", path, "ends", wallClock(l.ends), "why",
			fault.Of(n.err).Error())
	}
}

// noteAnswer takes in whether Vault answers what is asked about leases. Where nothing is looked at, nobody else finds
// that out.
func (w *watcher) noteAnswer(err error) {
	switch {
	case general(err):
		w.note(err)
	case !w.owed && !w.lookRefused():
		w.note(nil)
	}
}

func (w *watcher) lostLease(path string) {
	w.log.Warn("Vault no longer knows the lease: it was revoked, or Vault was restored from a snapshot; the command gets new credentials",
		"path", path)
}

// wallClock is a time of this machine for a log.
func wallClock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// replace asks for new credentials in the place of those that end. Should they not come, they are asked for again, but
// not without end in short order.
func (w *watcher) replace(ctx context.Context, due []*record, now time.Time) {
	if len(due) == 0 {
		return
	}
	seen, again := states{}, true
	asked := false
	for _, r := range due {
		l := r.lease
		if w.boundByToken(l) { // another one would end with the same token
			l.next = l.ends
			continue
		}
		asked = true
		again = again && l.asked > 0
		w.press(l.actBy(w.haste))
		if w.clock.Left(l.ends) <= 0 && l.asked > 0 && !l.overdue {
			l.overdue = true
			w.log.Error("the credentials have expired, and there are no new ones yet; the command keeps running with what it has",
				"path", r.path.String(), "ended", wallClock(l.ends))
		}
		w.log.Debug("asking for new credentials", "path", r.path.String(), "ends", wallClock(l.ends), "act_by",
			wallClock(l.actBy(w.haste)))
		l.ask(now, w.clock)
		l.next = later(l.next, now.Add(w.pause))
		seen[r.path] = vault.Marker{Digest: [32]byte{1}}
	}
	if asked {
		w.send(ctx, watchEvent{states: seen, again: again, by: w.timerTime(w.by)})
	}
}

// boundByToken reports whether a lease that still lives ends because the token does that is in use. It is replaced when
// there is another token.
func (w *watcher) boundByToken(l *lease) bool {
	end := w.session.TokenEnds(l.Token)
	return l.ID != "" && !l.gone && w.session.Holds(l.Token) && !end.IsZero() && w.clock.Left(l.ends) > 0 &&
		!end.After(l.ends.Add(time.Second))
}

// press notes a time by which the command must be told to stop.
func (w *watcher) press(by time.Time) {
	if w.by.IsZero() || by.Before(w.by) {
		w.by = by
	}
}

// noteTokens takes in when tokens end, and with them the leases that they made.
func (w *watcher) noteTokens() {
	now := time.Now()
	for _, r := range w.records.leases() {
		if l := r.lease; l.ID != "" && !l.Token.Empty() {
			l.tokenEnds(w.session.TokenEnds(l.Token), w.session.Holds(l.Token), now, w.haste)
		}
	}
}

// reserve has the next login come early enough for the leases.
func (w *watcher) reserve() {
	var longest time.Duration
	for _, r := range w.records.leases() {
		if r.lease.ID != "" {
			longest = max(longest, w.haste.reserve(r.lease.full))
		}
	}
	w.session.Reserve(longest)
}

// lookAtLeases finds out whether Vault still knows the leases, where the policy allows that question. It asks while
// other looks are under way. The function that it returns takes the answers in. It returns how many there were, and the
// failure where Vault gave none.
func (w *watcher) lookAtLeases(ctx context.Context) (judge func() (asked int, trouble error)) {
	type answer struct {
		of    *record // nil for a lease that was replaced, and that the command still has
		lease *lease
		left  time.Duration
		asked time.Time
		err   error
	}
	token := w.session.Client.Token()
	var asked []*answer
	if !w.noLook.has(vault.Path{}, token) {
		for _, r := range w.records.leases() {
			if l := r.lease; l.ID != "" && !l.gone {
				asked = append(asked, &answer{of: r, lease: l, asked: time.Now()})
			}
		}
		for _, l := range w.replaced() {
			asked = append(asked, &answer{lease: l, asked: time.Now()})
		}
	}
	var wg sync.WaitGroup
	slots := newSlots()
	for _, a := range asked {
		lease := a.lease.Lease
		wg.Go(func() {
			slots.run(func() {
				a.err = w.session.Do(ctx, func(ctx context.Context) (err error) {
					a.left, err = w.session.Client.LookupLease(ctx, lease)
					return err
				})
			})
		})
	}
	return func() (int, error) {
		wg.Wait()
		var trouble error
		for _, a := range asked {
			switch {
			case general(a.err):
				trouble = a.err
			case fault.Is(a.err, fault.Denied):
				w.noLook.add(vault.Path{}, token)
			case a.of == nil:
				w.pressOld(a.lease, a.left, a.asked, a.err)
			case a.of.lease != a.lease: // it was replaced meanwhile
			case a.err == nil:
				a.lease.hasLeft(a.left, a.asked, w.haste)
			case vault.NoLease(a.err):
				if !a.lease.gone && w.clock.Left(a.lease.ends) > 0 {
					w.lostLease(a.of.path.String())
				}
				a.lease.lost(time.Now())
			}
		}
		return len(asked), trouble
	}
}

// replaced lists the leases in whose place others are, while the command still has them.
func (w *watcher) replaced() []*lease {
	current := w.records.leaseIDs()
	var old []*lease
	for _, l := range w.held {
		if !current[l.ID] {
			old = append(old, &lease{Lease: l, full: l.Duration})
		}
	}
	return old
}

// pressOld takes in that a lease in whose place another is ends earlier than was known.
func (w *watcher) pressOld(l *lease, left time.Duration, asked time.Time, err error) {
	switch {
	case vault.NoLease(err):
		l.ends = asked
	case err == nil:
		l.ends = asked.Add(left)
	default:
		return
	}
	if by := l.actBy(w.haste); w.by.IsZero() || by.Before(w.by) {
		w.by, w.last = by, time.Now() // the main goroutine hears of it at once
	}
}

// hold remembers a lease until it is revoked.
func (w *watcher) hold(l vault.Lease) {
	if l.ID != "" && !slices.ContainsFunc(w.held, func(h vault.Lease) bool { return h.ID == l.ID }) {
		w.held = append(w.held, l)
	}
}

// retire ends the leases that no command has and no next one will get, and the tokens that made them where nothing
// depends on those any more. It is a courtesy to the server: they end by themselves.
func (w *watcher) retire(ctx context.Context, has []vault.Lease) {
	keep := w.records.leaseIDs()
	for _, l := range has {
		keep[l.ID] = true
	}
	var old []vault.Lease
	w.held = slices.DeleteFunc(w.held, func(l vault.Lease) bool {
		if !keep[l.ID] {
			old = append(old, l)
		}
		return !keep[l.ID]
	})
	if len(old) == 0 {
		return
	}
	token := w.session.Client.Token()
	if w.session.CountsUses() || w.mayEnd.has(vault.Path{}, token) {
		return
	}
	held := slices.Clone(w.held)
	go func() { // best effort, beside everything else
		ctx, cancel := context.WithTimeout(ctx, farewell)
		defer cancel()
		switch may, err := revokeLeases(ctx, w.session, old); {
		case err != nil: // nobody could tell: once more the next time
			w.inbox.put(func(context.Context) { w.held = append(w.held, old...) })
			return
		case !may:
			w.mayEnd.add(vault.Path{}, token)
		}
		for _, l := range old {
			if !slices.ContainsFunc(held, func(h vault.Lease) bool { return h.Token.Equal(l.Token) }) {
				w.session.Drop(ctx, l.Token)
			}
		}
	}()
}

// giveBack is the end of a session: the leases that were made are revoked, and its token where that is vaultexec's own.
func giveBack(ctx context.Context, s *vault.Session, leases []vault.Lease) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if !s.EndsLeases() {
		_, _ = revokeLeases(ctx, s, leases)
	}
	s.Revoke(ctx)
}

// revokeLeases ends leases, best effort, and reports whether the token has the right to. The error is why that is not
// known.
func revokeLeases(ctx context.Context, s *vault.Session, leases []vault.Lease) (may bool, err error) {
	if len(leases) == 0 {
		return true, nil
	}
	if s.Client.Agent() {
		return false, nil
	}
	if may, err := s.Client.MayRevoke(ctx); !may {
		return false, err
	}
	var wg sync.WaitGroup
	var denied atomic.Bool
	slots := newSlots()
	for _, l := range leases {
		wg.Go(func() {
			slots.run(func() {
				if fault.Is(s.Client.RevokeLease(ctx, l), fault.Denied) {
					denied.Store(true)
				}
			})
		})
	}
	wg.Wait()
	return !denied.Load(), nil
}
