package launcher

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

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
