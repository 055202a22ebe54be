package launcher

import (
	"context"
	mathrand "math/rand/v2"
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

// soon is the pace while the command has the last-good copy: Vault is asked as often as at the start.
const soon = 5 * time.Second

// pace is the time between two looks, and between two tries of a path at first.
func (w *watcher) pace() time.Duration {
	switch {
	case !w.watches():
		return firstRetry
	case w.copy.used() != nil:
		return min(w.interval, soon)
	}
	return w.interval
}

// nextLook is the pause before the next look.
func (w *watcher) nextLook() time.Duration {
	misses := w.misses
	if w.copy.used() != nil {
		misses = 0
	}
	return nextLook(w.pace(), misses, mathrand.N)
}

// sight is what a look at one path found.
type sight struct {
	record *record
	marker vault.Marker
	secret *vault.Secret // where the look had to read it
	err    error
}

// away reports whether Vault could not be asked.
func (s sight) away() bool { return fault.Is(s.err, fault.Away) }

// lookAll looks at every watched path, and at the leases, and reports news.
func (w *watcher) lookAll(ctx context.Context) {
	var due []*record
	now := time.Now()
	for _, r := range w.records.all() {
		if r.watched() && !r.rests(now) {
			due = append(due, r)
		}
	}
	judge := w.lookAtLeases(ctx)
	w.lookAt(ctx, due)
	if asked, trouble := judge(); asked > 0 && len(due) == 0 && ctx.Err() == nil {
		w.noteAnswer(trouble)
	}
	w.tend(ctx) // what a lease that Vault does not know any more asks for
}

// lookAt looks at records and reports news.
func (w *watcher) lookAt(ctx context.Context, due []*record) {
	sights := w.lookAround(ctx, due)
	if ctx.Err() != nil {
		return
	}
	seen, news, worst := w.compare(sights)
	again := w.again && !general(worst)
	for _, s := range sights { // what a read was refused is read again, when its time has come
		again = again || s.err == nil && s.record.trouble.read
	}
	if len(sights) > 0 && !general(worst) { // Vault answers
		w.misses, w.pause = 0, 0
	}
	switch {
	case len(sights) == 0: // nobody was asked
	case worst != nil:
		w.note(worst)
	case !w.owed && !w.lookRefused(): // otherwise the read tells whether all is well
		w.note(nil)
	}
	if news || again {
		w.again = w.again && !again
		w.send(ctx, w.event(seen, !news))
	}
}

// lookRefused reports whether a look at some path is refused, which is tried again at its own time.
func (w *watcher) lookRefused() bool {
	return slices.ContainsFunc(w.records.inTrouble(), func(r *record) bool { return r.trouble.look })
}

// lookAround looks at paths at the same time. One failure is not yet trouble: behind a balancer it may be the one dead
// node of three. What could not be asked is asked once more, unless it failed the last time, too.
func (w *watcher) lookAround(ctx context.Context, due []*record) []sight {
	sights := make([]sight, len(due))
	for i, r := range due {
		sights[i].record = r
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
			wg.Go(func() { s.look(ctx, w) })
		}
	}
	wg.Wait()
}

// compare takes in what was seen. It returns the states that the last read did not find, whether one of them is news,
// and the worst of the failures.
func (w *watcher) compare(sights []sight) (seen states, news bool, worst error) {
	seen = states{}
	now := time.Now()
	for _, s := range sights {
		r := s.record
		w.book.note(r.path, s.err, now)
		if s.err != nil {
			if general(s.err) || worst == nil {
				worst = s.err
			}
			if !general(s.err) {
				w.copy.drop(s.err)
				r.denied(s.err, false, now, w.interval, mathrand.N)
			}
			continue
		}
		if r.trouble.look = false; !r.trouble.read {
			r.trouble = trouble{}
		}
		before := r.newest
		sighting := r.see(s.marker, r.steady(), now)
		if s.marker.Gone() && (sighting == sawNews || sighting == sawBack) {
			w.copy.drop(goneFault(r.path, s.marker)) // the read that follows may have to wait for its turn, for hours
		}
		switch sighting {
		case sawNews:
			news = true
			if !r.rotates.IsZero() { // the old password is refused from now on
				w.press(now)
				w.fresh = true
			}
		case sawBack:
			news = true
			w.log.Warn("the secret is still older than what was read before: Vault was probably restored from a snapshot; the older one counts from now on",
				"path", r.path.String(), "version", s.marker.String(), "known", before.String())
		case sawOlder:
			w.log.Debug("a replica that lags behind has answered", "path", r.path.String(), "version", s.marker.String(),
				"known", before.String())
		case sawFleet:
			w.leave(r)
		}
		w.sawRotation(r, s, now)
		if s.secret != nil {
			w.hold(s.secret.Lease) // a path that appeared: the read makes another
		}
		if r.newest != r.taken {
			seen[r.path] = r.newest
		}
	}
	return seen, news, worst
}

// sawRotation notes when a static role's password is changed next.
func (w *watcher) sawRotation(r *record, s sight, now time.Time) {
	if s.secret == nil || s.marker == r.taken && r.awaits(now) {
		return
	}
	if in, yes := s.secret.Rotates(); yes {
		r.rotatesIn(in, now)
	}
}

// look finds the state of the path.
func (s *sight) look(ctx context.Context, w *watcher) {
	s.err = w.session.Do(ctx, func(ctx context.Context) (err error) {
		if s.record.path.Folder {
			s.marker, err = w.lookInto(ctx, s.record.path)
		} else {
			s.marker, s.secret, err = w.lookAtSecret(ctx, s.record.path)
		}
		return err
	})
}

// lookAtSecret finds the state of one secret: from the metadata where the policy allows that, else from the data
// itself, which is returned, too.
func (w *watcher) lookAtSecret(ctx context.Context, p vault.Path) (vault.Marker, *vault.Secret, error) {
	client := w.session.Client
	engine, known := client.Engine(p)
	if !known && w.opt.KVVersion == 2 && p.Mount != "" {
		engine, known = vault.Engine{Mount: p.Mount, KV: 2}, true
	}
	hasMeta := known && engine.KV == 2 && !w.noMeta.has(p, client.Token())
	if hasMeta {
		m, err := client.Look(ctx, vault.Within(p, engine))
		if !fault.Is(err, fault.Denied) {
			return m, nil, err
		}
	}
	m, s, err := w.lookAtData(ctx, p)
	if err != nil {
		return m, nil, err // a policy that forbids the data, too, may come back as it was
	}
	if hasMeta {
		w.noMeta.add(p, client.Token())
		w.log.Debug("the policy forbids the metadata, the data is read in its place", "path", p.String())
	}
	return m, s, nil
}

// lookAtData finds the state of one secret by reading it.
func (w *watcher) lookAtData(ctx context.Context, p vault.Path) (vault.Marker, *vault.Secret, error) {
	s, err := w.session.Client.Read(ctx, p, w.opt)
	if err == nil {
		return w.digest.Marker(s), s, nil
	}
	if m, there := vault.MarkerOf(err); there {
		return m, nil, nil
	}
	return vault.Marker{}, nil, err
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

// note logs when trouble with Vault begins and when it is over, and nothing in between. nil is none.
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
	if general(trouble) {
		w.misses++
		w.pause = min(f.RetryAfter, maxMiss)
	}
}
