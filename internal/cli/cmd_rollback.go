package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var rollbackCommand = &command{
	name: "rollback", args: "PATH", summary: "bring an old version back, as a new one",
	about: `
The version before the current one, or that of --to, becomes the newest, also
when the current one is deleted. The names that change are printed (+ new,
~ changed, - gone), values never. What was written is read back.

  vaultexec rollback app-prod --dry-run
  vaultexec rollback app-prod
  vaultexec rollback app-prod --to 3 --key STRIPE_KEY

Without --to it is the newest version before the current one that is neither
deleted nor destroyed. So a second rollback undoes the first.

If somebody else changes what is about to be replaced, nothing is written: nobody
has seen that yet. Other keys that change at the same moment are kept with --key.

Policy: "read" and "patch" on MOUNT/data/PATH, or "read" and "update". Over a
deleted version, and for values that are objects, "update" is needed.
`,
	own: []option{
		{name: "to", arg: "VERSION", group: groupOwn, usage: "the version to bring back"},
		{name: "key", arg: "KEY", list: true, group: groupOwn, usage: "bring back this key alone, and keep the others as they are"},
		dryRunOption, jsonOption,
	},
	shared: withKV, least: 1, most: 1,
	report: true, do: (*app).rollback,
}

func (a *app) rollback(ctx context.Context, s *settings, words []string) error {
	typed, err := writable(words[0], s.mount(), "roll back", "leave @VERSION out, and name the version with --to")
	s.faults = append(s.faults, fault.All(err)...)
	var keys []string
	for _, v := range s.all("key") {
		if err := checkKey(v.text, "vaultexec rollback PATH --key KEY"); err != nil {
			s.fail(v, err)
		}
		if slices.Contains(keys, v.text) {
			continue
		}
		keys = append(keys, v.text)
	}
	to := 0
	if v := s.one("to"); s.given.has("to") { // an empty one, of an unset variable, is no version
		if to, err = strconv.Atoi(v.text); err != nil || to < 1 {
			s.bad(v, "not the number of a version", "`vaultexec get --versions PATH` shows those that there are")
		}
	}
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		p, engine, err := a.resolve(ctx, c, s, typed)
		if err != nil {
			return err
		}
		r := &rollback{keys: keys, path: p}
		if engine.KV != 2 {
			return &fault.Error{Kind: fault.Usage, What: r.cannot(), Why: "only KV version 2 keeps versions",
				Hint: "write the value anew: vaultexec rotate PATH KEY -"}
		}
		err = a.patience(s).Do(ctx, func(ctx context.Context) error { return r.look(ctx, c, engine, to) })
		if err != nil {
			return advise(ctx, c, s, typed, err)
		}
		edit := vault.Edit{Path: p, Set: r.changes(r.first.Values), Patience: a.patience(s), Check: r.check}
		out, err := a.applyOrLook(ctx, c, s, edit, engine)
		if err != nil && out.Version == 0 {
			return advise(ctx, c, s, typed, err)
		}
		r.report.done(out, err)
		a.reportChange(s, r.report)
		return err
	})
}

// rollback is one that is under way.
type rollback struct {
	path   vault.Path
	keys   []string      // those that are brought back; none for all
	first  vault.State   // what it is to replace
	old    *vault.Secret // what it brings back
	report changeReport
}

func (r *rollback) cannot() string { return "cannot roll back " + r.path.String() }

// look finds out what there is, and what there was. That settles what is brought back: whatever others write meanwhile,
// it stays the version that was meant.
func (r *rollback) look(ctx context.Context, c *vault.Client, engine vault.Engine, to int) (err error) {
	if r.first, err = c.State(ctx, r.path, engine); err != nil {
		return err
	}
	if err := r.possible(r.first); err != nil {
		return err
	}
	if to == 0 {
		r.old, err = c.Before(ctx, r.first)
	} else {
		p := r.path
		p.Version = to
		r.old, err = c.Read(ctx, p, vault.ReadOptions{})
	}
	if err != nil {
		return r.advise(fault.Of(err), to)
	}
	for _, key := range r.keys {
		if _, ok := r.old.Values[key]; !ok {
			e := noKey(r.cannot()+"#"+key, key, slices.Sorted(maps.Keys(r.old.Values)))
			e.Why = fmt.Sprintf("version %d has no such key", r.old.Version)
			if e.Hint == "" {
				e.Hint = "--to names another version"
			}
			return e
		}
	}
	return nil
}

// advise says what helps where the version that was meant is not there.
func (r *rollback) advise(e *fault.Error, to int) error {
	var gone *vault.Gone
	undelete := func(version int) string {
		return fmt.Sprintf("`vault kv undelete -mount=%s -versions=%d %s` brings it back", r.path.Mount, version, r.path.Name)
	}
	switch {
	case e.Kind != fault.Deleted && e.Kind != fault.Missing:
		return e
	case errors.As(e, &gone) && gone.Marker.Destroyed:
		e.Hint = "its values are gone for good: --to names another version"
	case gone != nil:
		e.Hint = undelete(to) + " first; --to names another version"
	case to == 0 && r.first.Gone != nil && r.first.Gone.Deleted:
		e.Hint = undelete(r.first.Version)
	default:
		if to > 0 { // the secret itself was read a moment ago
			e.Why = fmt.Sprintf("there is no version %d, or not any more", to)
		}
		e.Hint = fmt.Sprintf("`vaultexec get --versions %s` shows those that there are", shellQuote("/"+r.path.String()))
	}
	e.What = r.cannot()
	return e
}

func (r *rollback) possible(st vault.State) error {
	switch {
	case !st.Readable():
		return vault.Denied(r.cannot(), "the current version cannot be read", dataPath(st), "read")
	case st.Gone != nil && len(r.keys) > 0:
		return &fault.Error{Kind: fault.Deleted, What: r.cannot(), Why: fmt.Sprintf("the latest version is %s", st.Gone),
			Hint: "leave --key out, and all keys come back"}
	case st.Gone == nil && !st.Exists:
		return vault.NoSecret(r.cannot())
	}
	return nil
}

// names are the keys that it decides about.
func (r *rollback) names(values map[string]vault.Value) []string {
	if len(r.keys) > 0 {
		return r.keys
	}
	names := map[string]bool{}
	for name := range values {
		names[name] = true
	}
	for name := range r.old.Values {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// changes are what values lack to be what is brought back.
func (r *rollback) changes(values map[string]vault.Value) map[string]vault.Value {
	set := map[string]vault.Value{}
	for _, name := range r.names(values) {
		if old := r.old.Values[name]; !old.Same(values[name]) {
			set[name] = old
		}
	}
	return set
}

// check compares what is there now with what was there at first. A change of what would be replaced ends it: somebody
// has written that since, and whoever asked for the rollback has not seen it. With --key other keys may change.
func (r *rollback) check(now vault.State) error {
	if err := r.possible(now); err != nil {
		return err
	}
	r.report = newChangeReport(now)
	r.report.From = r.old.Version
	for _, name := range r.names(now.Values) {
		before, after := now.Values[name], r.old.Values[name]
		if len(r.keys) > 0 || !before.Same(after) {
			r.report.take(name, before, after)
		}
	}
	if len(r.changes(now.Values)) == 0 && now.Exists {
		return vault.ErrNothing
	}
	for _, name := range r.names(now.Values) {
		if !now.Values[name].Same(r.first.Values[name]) {
			return r.overtaken(now)
		}
	}
	if now.Exists != r.first.Exists {
		return r.overtaken(now)
	}
	return nil
}

func (r *rollback) overtaken(now vault.State) error {
	return &fault.Error{Kind: fault.Conflict, Err: vault.ErrRefused, What: r.cannot(),
		Why:  fmt.Sprintf("somebody else changed it at the same moment (version %d)", now.Version),
		Hint: "nothing was written; `vaultexec diff PATH@VERSION PATH` shows which names they changed"}
}
