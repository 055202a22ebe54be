package launcher

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// records are the records of all paths. The environment that is wanted is a pure function of them.
type records struct {
	sources []environ.Source
	rules   environ.Rules
	inherit []string
	check   func(*environ.Env) error // what else the kernel asks of an environment

	at       map[vault.Path]*record
	rejected string // identity of the states that made a command fail
}

// of returns the record of a path, which is new if need be.
func (rs *records) of(p vault.Path) *record {
	r := rs.at[p]
	if r == nil {
		r = &record{path: p}
		rs.at[p] = r
	}
	return r
}

// all lists the records in the order of the sources, the secrets of a folder after it.
func (rs *records) all() []*record {
	var list []*record
	seen := map[vault.Path]bool{}
	for _, s := range rs.expanded(func(r *record) content { return r.read }) {
		if r := rs.at[s.Path]; r != nil && !seen[s.Path] {
			seen[s.Path] = true
			list = append(list, r)
		}
	}
	return list
}

// expanded are the sources with the secrets of their folders.
func (rs *records) expanded(which func(*record) content) []environ.Source {
	var list []environ.Source
	for _, s := range rs.sources {
		list = append(list, s)
		if r := rs.at[s.Path]; r != nil {
			if f := which(r).folder; f != nil {
				for _, p := range f.Secrets() {
					list = append(list, environ.Source{Path: p, Optional: true})
				}
			}
		}
	}
	return list
}

// choice is which content of a record an environment is made of.
type choice func(*record) content

// newest takes what was read last.
func newest(r *record) content { return r.read }

// proven takes what last made a valid environment; of what ends by itself always the present one.
func proven(r *record) content {
	if r.lease != nil || r.used.empty() {
		return r.read
	}
	return r.used
}

// chosen lists the sources with what is chosen for each. It is what the environment is built of.
func (rs *records) chosen(which choice) []environ.Fetched {
	var got []environ.Fetched
	for _, s := range rs.expanded(which) {
		g := environ.Fetched{Source: s}
		if r := rs.at[s.Path]; r != nil {
			c := which(r)
			g.Secret, g.Folder, g.Absence = c.secret, c.folder, c.absence
		}
		got = append(got, g)
	}
	return got
}

// states are the states of what is chosen. Pinned versions are left out: they cannot change.
func (rs *records) states(which choice) states {
	found := states{}
	for _, s := range rs.expanded(which) {
		if r := rs.at[s.Path]; r != nil && s.Path.Version == 0 {
			if c := which(r); !c.empty() {
				found[s.Path] = c.marker
			}
		}
	}
	return found
}

// wish is an environment, and what it is made of.
type wish struct {
	env    *environ.Env
	states states
	got    []environ.Fetched
	id     string // of the newest states, but for what ends by itself
	pinned bool   // it is not made of the newest states, because those made the command fail
	flawed bool   // not everything that is new could be used
}

// wanted is the environment that the command should have. Where the newest states made a command fail, or make no valid
// environment, it is made of those before them, and of the present leases. The error is why the newest cannot be used.
func (rs *records) wanted() (wish, error) {
	w := wish{id: rs.identity()}
	which := choice(newest)
	if w.id == rs.rejected {
		which, w.pinned = proven, true
	}
	env, err := rs.build(which)
	if err != nil && !w.pinned {
		which = proven
		var older error
		if env, older = rs.build(which); older != nil {
			return w, err
		}
	}
	if env == nil {
		return w, err
	}
	w.env, w.states, w.got = env, rs.states(which), rs.chosen(which)
	return w, err
}

// haveGone reports whether something is in use that is no longer there: the command failed without it.
func (rs *records) haveGone(got []environ.Fetched) bool {
	return slices.ContainsFunc(got, func(f environ.Fetched) bool {
		r := rs.at[f.Source.Path]
		return f.Secret != nil && r != nil && r.newest.Gone()
	})
}

// latest are the newest states that were seen.
func (rs *records) latest() states {
	found := states{}
	for p, r := range rs.at {
		if p.Version == 0 {
			found[p] = r.newest
		}
	}
	return found
}

// unused says what of the newest states is in no environment.
func (rs *records) unused() string {
	if text := rs.states(proven).text(rs.latest()); text != "" {
		return text
	}
	var paths []string
	for _, r := range rs.inTrouble() {
		paths = append(paths, r.path.String())
	}
	slices.Sort(paths)
	return strings.Join(paths, ", ")
}

func (rs *records) build(which choice) (*environ.Env, error) {
	env, err := environ.Build(rs.chosen(which), rs.rules, rs.inherit)
	if err == nil && rs.check != nil {
		err = rs.check(env)
	}
	if err != nil {
		return nil, err
	}
	return env, nil
}

// settle notes that what was read last makes a valid environment.
func (rs *records) settle() {
	for _, r := range rs.at {
		r.used = r.read
	}
}

// reject notes that a set of states made a command fail, and goes back to what another command has proven.
func (rs *records) reject(id string, good []environ.Fetched, marks states) {
	rs.rejected = id
	for _, g := range good {
		if r := rs.at[g.Source.Path]; r != nil && r.lease == nil {
			r.used = content{g.Secret, g.Folder, g.Absence, marks[g.Source.Path]}
		}
	}
}

// identity names the newest states. What ends by itself is left out: a new lease is no other version.
func (rs *records) identity() string {
	var parts []string
	for _, s := range rs.expanded(newest) {
		r := rs.at[s.Path]
		if r == nil || r.lease != nil || s.Path.Version > 0 {
			continue
		}
		m := r.read.marker
		parts = append(parts, fmt.Sprintf("%s=%d,%s,%t,%t,%t,%x", s.Path, m.Version, m.Created, m.Absent, m.Deleted,
			m.Destroyed, m.Digest))
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ";")
}

// forget drops the records of paths that no source names any more: secrets that left their folder.
func (rs *records) forget() {
	named := map[vault.Path]bool{}
	for _, which := range []choice{newest, proven} {
		for _, s := range rs.expanded(which) {
			named[s.Path] = true
		}
	}
	for p := range rs.at {
		if !named[p] {
			delete(rs.at, p)
		}
	}
}

// leases lists what ends by itself.
func (rs *records) leases() []*record {
	var list []*record
	for _, r := range rs.at {
		if r.lease != nil {
			list = append(list, r)
		}
	}
	return list
}

// leaseIDs has the leases that are in use.
func (rs *records) leaseIDs() map[string]bool {
	ids := map[string]bool{}
	for _, r := range rs.leases() {
		ids[r.lease.ID] = true
	}
	return ids
}

// inTrouble lists the records that Vault refuses.
func (rs *records) inTrouble() []*record {
	var list []*record
	for _, r := range rs.at {
		if r.trouble.err != nil {
			list = append(list, r)
		}
	}
	return list
}

// next is when the first record needs something by itself; the zero time for never.
func (rs *records) next(watching bool) time.Time {
	var first time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, r := range rs.at {
		if r.lease != nil && !r.lease.busy {
			consider(r.lease.next)
		}
		if watching && r.watched() {
			consider(r.rotates)
		}
	}
	return first
}
