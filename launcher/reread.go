package launcher

import (
	"context"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// This is how the watcher reads everything anew when the main goroutine asks for it.

// read reads anew what may have changed, and builds the environment.
func (w *watcher) read(ctx context.Context, number int) {
	start := time.Now()
	reads, err := w.fetch(ctx, start)
	if ctx.Err() != nil {
		return
	}
	result := &readResult{number: number}
	incomplete, moving := w.takeIn(reads, start)
	faults := judged(err)
	w.copy.drop(fault.Join(faults))
	if general(err) {
		incomplete = true
	}
	result.moving = moving
	switch {
	case incomplete && !w.pressed():
		w.again, w.owed = true, w.owed || general(err)
		if w.watches() && w.fresh {
			w.last = w.by
		}
		if general(err) {
			w.note(err)
		}
	default:
		result.wish = w.wish(faults)
		result.flawed = result.flawed || incomplete
		w.again, w.owed = incomplete, general(err)
		if result.env != nil && !result.flawed && !w.records.haveGone(result.got) {
			w.copy.keep(result.got)
		} else if !incomplete {
			w.copy.prune(w.records.chosen(newest))
		}
		switch {
		case general(err):
			w.note(err)
		case !incomplete && !w.lookRefused():
			w.note(nil)
		}
	}
	result.took = time.Since(start)
	w.send(ctx, watchEvent{states: w.records.latest(), by: w.deadline(), read: result})
}

// wish is the environment that is wanted after a read. It is empty where the command already has it, and something
// stands in the way of more.
func (w *watcher) wish(faults []*fault.Error) wish {
	wanted, err := w.records.wanted()
	faults = append(faults, judged(err)...)
	if err == nil && !wanted.pinned {
		w.records.settle()
	}
	if len(faults) > 0 {
		w.unusable(faults, w.records.unused())
	} else if len(w.records.inTrouble()) == 0 {
		w.usable()
	}
	wanted.flawed = len(faults) > 0
	return wanted
}

// judged lists the failures that say something of the secrets, and not of Vault.
func judged(err error) []*fault.Error {
	return slices.DeleteFunc(fault.All(err), func(f *fault.Error) bool { return general(f) })
}

// fetch reads the secrets once, without waiting: all but pinned versions, leases that still live, and what Vault has
// refused a moment ago.
func (w *watcher) fetch(ctx context.Context, now time.Time) ([]*read, error) {
	f := &fetcher{client: w.session.Client, sources: w.records.sources, opt: w.opt, log: w.log}
	keep := map[vault.Path]content{}
	for p, r := range w.records.at {
		if r.kept(now, !w.watches()) {
			keep[p] = r.read
		}
	}
	var reads []*read
	err := w.session.Do(ctx, func(ctx context.Context) error {
		var err error
		reads, err = f.fetchAgain(ctx, keep)
		return err
	})
	return reads, err
}

// takeIn takes in what a read found. What was read stays read, whatever became of the rest. incomplete says that
// something is missing which may come at any moment.
func (w *watcher) takeIn(reads []*read, at time.Time) (incomplete, moving bool) {
	unread := map[vault.Path]bool{} // the secrets of folders that cannot be used
	for _, rd := range reads {
		if rd.err != nil && rd.folder != nil {
			for _, p := range rd.members {
				unread[p] = true
			}
		}
	}
	for _, rd := range reads {
		if rd.kept {
			continue
		}
		r := w.records.of(rd.path)
		marker, known := w.judge(rd)
		if known {
			w.book.note(r.path, nil, at)
		} else if rd.err != nil {
			w.book.note(r.path, rd.err, at)
		}
		if !known {
			if general(rd.err) {
				incomplete = true
			} else {
				r.denied(rd.err, true, at, w.pace(), mathrand.N)
			}
			continue
		}
		c := content{rd.secret, rd.folder, rd.absence, marker}
		usable, moves := r.found(marker)
		moving = moving || moves && !r.read.empty() // a secret that is new in its folder was not known
		switch {
		case !usable:
			w.log.Debug("a replica that lags behind has answered", "path", rd.path.String(), "version", marker.String(),
				"known", r.newest.String())
			incomplete = incomplete || r.newest != r.read.marker
		case rd.err != nil || unread[rd.path]: // what somebody wrote, and makes no use of: it stays so until somebody writes again
			r.taken, r.trouble = marker, trouble{}
			if r.lease != nil {
				r.trouble = trouble{err: rd.err, read: true, next: r.lease.next}
			}
		default:
			had := r.lease
			r.take(c, at, w.haste)
			if r.lease != nil {
				w.fresh = w.fresh || had != r.lease
				w.hold(r.lease.Lease)
			}
		}
	}
	w.records.forget()
	w.reserve()
	return incomplete, moving
}

// judge is the state that a read found, and whether it found any.
func (w *watcher) judge(rd *read) (vault.Marker, bool) {
	switch {
	case rd.secret != nil, rd.folder != nil:
		return w.marker(content{secret: rd.secret, folder: rd.folder}), true
	case rd.absence != nil:
		return vault.MarkerOf(rd.absence)
	case rd.err != nil:
		return vault.MarkerOf(rd.err)
	}
	return vault.Marker{}, false
}

// unusable logs once what cannot be used and why.
func (w *watcher) unusable(faults []*fault.Error, changes string) {
	now := map[string]bool{}
	for _, f := range faults {
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
