package launcher

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// fetcher reads the secrets that the sources name, all at the same time, each secret once.
type fetcher struct {
	client         *vault.Client
	sources        []environ.Source
	opt            vault.ReadOptions
	mountIsDefault bool                   // nobody chose the mount, for the hint
	again          bool                   // not the first time: what is forgiven was said
	keep           map[vault.Path]content // is not read anew
	made           *made                  // takes down every lease that a read makes; nil for nobody
	log            *slog.Logger
}

// made are the leases that the reads of a start have made. A start that fails has no other record of them.
type made struct {
	mu     sync.Mutex
	leases []vault.Lease
}

func (m *made) add(l vault.Lease) {
	if m == nil || l.ID == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases = append(m.leases, l)
}

func (m *made) all() []vault.Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.leases)
}

// read is one secret on its way.
type read struct {
	path     vault.Path
	optional bool // every source that names it forgives its absence
	secret   *vault.Secret
	absence  error // why there is none, if that was forgiven
	err      error
	done     bool
	kept     bool // it was not read anew

	folder  *vault.Folder // of a folder, when it was listed
	members []vault.Path  // the secrets in it
	member  bool          // only a folder names it
}

// plan lists the distinct secrets of the sources in their order.
func plan(sources []environ.Source) []*read {
	var reads []*read
	index := map[vault.Path]*read{}
	for _, s := range sources {
		r, ok := index[s.Path]
		if !ok {
			r = &read{path: s.Path, optional: true}
			index[s.Path] = r
			reads = append(reads, r)
		}
		r.optional = r.optional && s.Optional
	}
	return reads
}

// Read reads what a run would read, except for leased secrets, with a client that is logged in.
func Read(ctx context.Context, client *vault.Client, o Options) ([]environ.Fetched, error) {
	l := &launch{Options: o}
	return l.fetcher(client, true).fetch(ctx, l.patience(time.Now()))
}

// fetch reads everything, waiting for a Vault that is away as patience says. On failure nothing is returned but the
// failures, of all paths at once.
func (f *fetcher) fetch(ctx context.Context, patience vault.Patience) ([]environ.Fetched, error) {
	reads := plan(f.sources)
	away := false
	err := patience.Do(ctx, func(ctx context.Context) error {
		if away { // one request tells whether Vault is back; the others wait for its answer
			if r := firstPending(reads); r != nil {
				f.one(ctx, r)
				if fault.Is(r.err, fault.Away) {
					return r.err
				}
			}
		}
		err := f.round(ctx, &reads)
		away = err != nil
		return err
	})
	if err != nil {
		f.advise(ctx, reads)
		return nil, err
	}
	return f.collect(reads), nil
}

func firstPending(reads []*read) *read {
	for _, r := range reads {
		if !r.done {
			return r
		}
	}
	return nil
}

// round reads what is still missing, all at the same time. Then it reads what the folders among it contain, which is
// added to reads.
func (f *fetcher) round(ctx context.Context, reads *[]*read) error {
	f.pass(ctx, *reads)
	if members := f.members(reads); len(members) > 0 {
		f.pass(ctx, members)
	}
	judgeFolders(*reads)
	return failures(*reads)
}

// pass reads what is still missing, once.
func (f *fetcher) pass(ctx context.Context, reads []*read) {
	var pending []*read
	for _, r := range reads {
		if !r.done {
			pending = append(pending, r)
		}
	}
	if len(pending) == 1 {
		f.one(ctx, pending[0])
	} else {
		var wg sync.WaitGroup
		for _, r := range pending {
			wg.Go(func() { f.one(ctx, r) })
		}
		wg.Wait()
	}
}

// failures returns what stands in the way for good, all of it, or else what may pass.
func failures(reads []*read) error {
	var permanent, waiting []*fault.Error
	for _, r := range reads {
		switch {
		case r.err == nil:
		case fault.Of(r.err).Kind.Retryable():
			waiting = append(waiting, fault.Of(r.err))
		default:
			permanent = append(permanent, fault.Of(r.err))
		}
	}
	if len(permanent) > 0 {
		return fault.Join(permanent)
	}
	if len(waiting) > 0 {
		return waiting[0]
	}
	return nil
}

func (f *fetcher) one(ctx context.Context, r *read) {
	if c, ok := f.keep[r.path]; ok {
		r.secret, r.folder, r.absence, r.done, r.kept = c.secret, c.folder, c.absence, true, true
		return
	}
	if r.path.Folder {
		r.folder, r.err = f.client.ListFolder(ctx, r.path, f.opt.KVVersion)
	} else {
		r.secret, r.err = f.client.Read(ctx, r.path, f.opt)
	}
	switch {
	case r.err == nil && r.path.Folder:
		r.done = true
	case r.err == nil:
		r.done = true
		f.made.add(r.secret.Lease)
		f.log.Debug("read", "path", r.secret.Path.String(), "engine", r.secret.Engine.String(),
			"version", r.secret.Version)
	case r.optional && forgivable(r.err):
		r.absence, r.err, r.done = r.err, nil, true
		if !f.again {
			f.leftOut(r)
		}
	default:
		r.done = !fault.Of(r.err).Kind.Retryable()
	}
}

// forgivable says what --optional-path forgives: that there is nothing, never that it may not be read.
func forgivable(err error) bool { return fault.Is(err, fault.Missing, fault.Deleted) }

// quickTries is how often a read beside a running command is tried in quick succession. Otherwise one dead node in
// three behind a balancer would fail every round.
const quickTries = 3

// fetchAgain reads everything but what is kept, without waiting for a Vault that is away. What it saw comes with a
// failure, too.
func (f *fetcher) fetchAgain(ctx context.Context, keep map[vault.Path]content) ([]*read, error) {
	f.again, f.keep = true, keep
	reads := plan(f.sources)
	err := f.round(ctx, &reads)
	for n := 1; n < quickTries && fault.Is(err, fault.Away) && f.pause(ctx, n); n++ {
		err = f.round(ctx, &reads)
	}
	return reads, err
}

// pause lets a moment pass before try n is repeated, and reports whether ctx goes on.
func (f *fetcher) pause(ctx context.Context, n int) bool {
	t := time.NewTimer(time.Duration(n) * 50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// collect pairs the sources with their secrets. The secrets of a folder follow it as sources of their own.
func (f *fetcher) collect(reads []*read) []environ.Fetched {
	index := byPath(reads)
	got := make([]environ.Fetched, 0, len(f.sources))
	for _, s := range f.sources {
		r := index[s.Path]
		got = append(got, r.fetched(s))
		for _, p := range r.members {
			m := index[p]
			got = append(got, m.fetched(environ.Source{Path: p, Optional: m.optional}))
		}
	}
	return got
}

func (r *read) fetched(s environ.Source) environ.Fetched {
	g := environ.Fetched{Source: s, Secret: r.secret, Folder: r.folder, Absence: r.absence}
	if r.err != nil {
		g.Absence = r.err
	}
	return g
}

// advise asks for a better hint for the first failure, which takes two requests at most.
func (f *fetcher) advise(ctx context.Context, reads []*read) {
	for _, r := range reads {
		if r.err != nil && !fault.Of(r.err).Kind.Retryable() {
			f.client.Advise(ctx, r.path, fault.Of(r.err), f.mountIsDefault)
			return
		}
	}
}

// leases lists the leases among the secrets.
func leases(got []environ.Fetched) []vault.Lease {
	var ls []vault.Lease
	seen := map[string]bool{}
	for _, g := range got {
		if g.Secret != nil && g.Secret.Lease.ID != "" && !seen[g.Secret.Lease.ID] {
			seen[g.Secret.Lease.ID] = true
			ls = append(ls, g.Secret.Lease)
		}
	}
	return ls
}

// ends reports whether any of the secrets ends by itself.
func ends(got []environ.Fetched) bool {
	return slices.ContainsFunc(got, func(g environ.Fetched) bool { return g.Secret != nil && g.Secret.Lease.Ends() })
}
