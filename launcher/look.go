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

// nextLook is the pause before the next look: the interval ± 10 %. From the second look that failed in a row on, each
// doubles it, up to eight intervals or five minutes.
func nextLook(interval time.Duration, misses int, random func(time.Duration) time.Duration) time.Duration {
	d := interval
	if misses > 1 {
		d = min(interval<<min(misses-1, 3), max(maxMiss, interval))
	}
	return d - d/10 + random(d/5+1)
}

// sight is what a look at one path found.
type sight struct {
	path   vault.Path
	marker vault.Marker
	err    error
}

// away reports whether Vault could not be asked.
func (s sight) away() bool { return fault.Is(s.err, fault.Away) }

// lookAll looks at every watched path and reports news.
func (w *watcher) lookAll(ctx context.Context) {
	sights := w.lookAround(ctx)
	if ctx.Err() != nil {
		return
	}
	changed, news, trouble := w.compare(sights)
	again := w.again && trouble == nil
	if trouble != nil || !w.owed { // otherwise the read tells whether all is well
		w.note(trouble)
	}
	if news || again {
		w.again = w.again && !again
		w.send(ctx, watchEvent{states: changed, again: !news})
	}
}

// lookAround looks at every watched path at the same time. One failure is not yet trouble: behind a balancer it may be
// the one dead node of three. What could not be asked is asked once more, unless it failed the last time, too.
func (w *watcher) lookAround(ctx context.Context) []sight {
	var sights []sight
	for _, r := range plan(w.sights) {
		if w.watched(r.path) {
			sights = append(sights, sight{path: r.path})
		}
	}
	w.lookAtEach(ctx, sights, func(sight) bool { return true })
	if slices.ContainsFunc(sights, sight.away) && w.misses == 0 && ctx.Err() == nil {
		w.lookAtEach(ctx, sights, sight.away)
	}
	return sights
}

// lookAtEach looks at those of the paths that which is true for, all at the same time.
func (w *watcher) lookAtEach(ctx context.Context, sights []sight, which func(sight) bool) {
	var wg sync.WaitGroup
	for i := range sights {
		if s := &sights[i]; which(*s) {
			wg.Go(func() { s.marker, s.err = w.lookAt(ctx, s.path) })
		}
	}
	wg.Wait()
}

// compare notes what was seen. It returns the states that the last read did not find, whether one of them is news, and
// the worst of the failures.
func (w *watcher) compare(sights []sight) (changed states, news bool, trouble error) {
	changed = states{}
	for _, s := range sights {
		newest := w.seen[s.path]
		switch {
		case s.err != nil:
			if s.away() || trouble == nil {
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
	return changed, news, trouble
}

// lookAt finds the state of one path.
func (w *watcher) lookAt(ctx context.Context, p vault.Path) (m vault.Marker, err error) {
	err = w.session.Do(ctx, func(ctx context.Context) (err error) {
		if p.Folder {
			m, err = w.lookInto(ctx, p)
		} else {
			m, err = w.lookAtSecret(ctx, p)
		}
		return err
	})
	return m, err
}

// lookAtSecret finds the state of one secret: from the metadata where the policy allows that, else from the data
// itself.
func (w *watcher) lookAtSecret(ctx context.Context, p vault.Path) (vault.Marker, error) {
	client := w.session.Client
	engine, known := client.Engine(p)
	if !known && w.opt.KVVersion == 2 && p.Mount != "" {
		engine, known = vault.Engine{Mount: p.Mount, KV: 2}, true
	}
	hasMeta := known && engine.KV == 2 && !w.noMeta.has(p, client.Token())
	if hasMeta {
		m, err := client.Look(ctx, vault.Within(p, engine))
		if !fault.Is(err, fault.Denied) {
			return m, err
		}
	}
	m, err := w.lookAtData(ctx, p)
	if err != nil {
		return m, err // a policy that forbids the data, too, may come back as it was
	}
	if hasMeta {
		w.noMeta.add(p, client.Token())
		w.log.Debug("the policy forbids the metadata, the data is read in its place", "path", p.String())
	}
	return m, nil
}

// lookAtData finds the state of one secret by reading it.
func (w *watcher) lookAtData(ctx context.Context, p vault.Path) (vault.Marker, error) {
	s, err := w.session.Client.Read(ctx, p, w.opt)
	if err == nil {
		return w.digest.Marker(s), nil
	}
	if m, there := vault.MarkerOf(err); there {
		return m, nil
	}
	return vault.Marker{}, err
}

// denials tell which token may not read the metadata of a path. Looks at several paths ask at the same time.
type denials struct {
	mu     sync.Mutex
	tokens map[vault.Path]vault.Text
}

func (d *denials) has(p vault.Path, token vault.Text) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	denied, ok := d.tokens[p]
	return ok && denied.Equal(token)
}

func (d *denials) add(p vault.Path, token vault.Text) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tokens == nil {
		d.tokens = map[vault.Path]vault.Text{}
	}
	d.tokens[p] = token
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
