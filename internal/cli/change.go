package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// What the commands have in common that write secrets.

// writable reads the path of a secret that is to be written. cure is for who names a version.
func writable(word, mount, verb, cure string) (vault.Path, error) {
	p, err := vault.ParsePath(word, mount)
	if err == nil {
		err = vault.NoFields(p)
	}
	if err == nil && p.Version != 0 {
		err = &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot %s %s", verb, p),
			Why: "an old version cannot be changed", Hint: cure}
	}
	return p, err
}

// checkKey refuses what nobody means as a key.
func checkKey(key, form string) error {
	if key != "" && strings.IndexFunc(key, unicode.IsControl) < 0 && utf8.ValidString(key) {
		return nil
	}
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q as a key", key),
		Why: "it is empty or holds a control character", Hint: "write it as in " + form}
}

// mayWrite refuses what needs --create: a typing error would otherwise make a new secret that nobody reads.
func mayWrite(st vault.State, verb string, keys []string, create bool) error {
	what := fmt.Sprintf("cannot %s %s", verb, st.Path)
	if len(keys) == 1 {
		what += "#" + keys[0]
	}
	switch {
	case create, st.Blind:
		return nil
	case st.Gone != nil:
		return &fault.Error{Kind: fault.Deleted, What: what, Why: fmt.Sprintf("the latest version is %s", st.Gone),
			Hint: "bring it back with `vault kv undelete`, or the version before with `vaultexec rollback`, or start anew with --create: its other keys stay gone"}
	case !st.Exists:
		return vault.NoSecret(what)
	case st.Keys == nil:
		return nil
	}
	var list []*fault.Error
	for _, key := range keys {
		if !slices.Contains(st.Keys, key) {
			e := noKey(fmt.Sprintf("cannot %s %s#%s", verb, st.Path, key), key, st.Keys)
			if e.Hint != "" {
				e.Hint += " "
			}
			e.Hint += "--create makes a new one"
			list = append(list, e)
		}
	}
	return fault.Join(list)
}

// noKey is the failure over a key that is not among those of a secret, with the one that was meant.
func noKey(what, key string, keys []string) *fault.Error {
	e := &fault.Error{Kind: fault.Missing, What: what, Why: "the secret has no such key"}
	if near := vault.Nearest(key, keys); near != "" {
		e.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	return e
}

// apply makes a change. On KV version 1 it says what it cannot promise.
func (a *app) apply(ctx context.Context, c *vault.Client, edit vault.Edit, engine vault.Engine) (vault.Written, error) {
	if engine.KV == 1 {
		a.ui.log.Warn(fmt.Sprintf(
			"%s is KV version 1, which has no check-and-set: what somebody else writes to %s at the same moment is lost",
			engine.Mount, edit.Path.Name))
	}
	return c.Apply(ctx, edit, engine)
}

// applyOrLook makes a change, or with --dry-run only looks whether it may be made.
func (a *app) applyOrLook(
	ctx context.Context, c *vault.Client, s *settings, edit vault.Edit, engine vault.Engine) (vault.Written, error) {
	if !s.bool("dry-run") {
		return a.apply(ctx, c, edit, engine)
	}
	var out vault.Written
	err := edit.Patience.Do(ctx, func(ctx context.Context) (err error) {
		if out.Before, err = c.State(ctx, edit.Path, engine); err == nil {
			err = edit.Check(out.Before)
		}
		return err
	})
	if errors.Is(err, vault.ErrNothing) {
		err = nil
	}
	return out, err
}

// changeReport says what happened to one secret. Of the keys it holds the names only.
type changeReport struct {
	Path      string   `json:"path"`
	KV        int      `json:"kv_version"`
	Old       int      `json:"old_version,omitempty"`
	New       int      `json:"new_version,omitempty"`
	From      int      `json:"from_version,omitempty"` // what was brought back
	Deleted   bool     `json:"over_deleted,omitempty"` // the latest version was deleted or destroyed
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Unchanged []string `json:"unchanged"`
	Dropped   []string `json:"dropped"`
	Written   bool     `json:"written"`
	Verified  bool     `json:"verified"`
	Why       string   `json:"not_verified_because,omitempty"`
}

func newChangeReport(st vault.State) changeReport {
	return changeReport{Path: st.Path.String(), KV: st.Engine.KV, Old: st.Version, Deleted: st.Gone != nil,
		Added: []string{}, Changed: []string{}, Unchanged: []string{}, Dropped: []string{}}
}

// take notes what becomes of one key.
func (r *changeReport) take(key string, before, after vault.Value) {
	list := &r.Changed
	switch none := (vault.Value{}); {
	case before.Same(after):
		list = &r.Unchanged
	case before.Same(none):
		list = &r.Added
	case after.Same(none):
		list = &r.Dropped
	}
	*list = append(*list, key)
}

// takeIn is take for a secret whose values may be hidden. Then a key counts as changed, unless it is known to be new.
func (r *changeReport) takeIn(st vault.State, key string, after vault.Value) {
	switch {
	case st.Readable():
		r.take(key, st.Values[key], after)
	case after.Same(vault.Value{}):
		r.Dropped = append(r.Dropped, key)
	case st.Keys != nil && !slices.Contains(st.Keys, key):
		r.Added = append(r.Added, key)
	default:
		r.Changed = append(r.Changed, key)
	}
}

// done notes how it ended.
func (r *changeReport) done(out vault.Written, err error) {
	if out.Before.Blind && out.Version > 0 {
		r.Old = out.Version - 1 // a patch makes the next version
	}
	r.New, r.Verified, r.Why = out.Version, out.Verified, out.Why
	r.Written = out.Method != "" && (err == nil || out.Version > 0)
}

// reportChange prints what one command did to one secret.
func (a *app) reportChange(s *settings, r changeReport) {
	dry := s.bool("dry-run")
	if s.bool("json") {
		a.ui.reportJSON(struct {
			changeReport
			DryRun bool `json:"dry_run,omitempty"`
		}{r, dry})
		return
	}
	a.ui.changeText(r, dry)
}

// changeText prints what happened to one secret, and to each key.
func (u *ui) changeText(r changeReport, dry bool) {
	u.printf("%s\n", oneLine(r.line(dry)))
	for _, list := range []struct {
		sign  string
		names []string
		tone  tone
	}{{"+", r.Added, goodTone}, {"~", r.Changed, doubtTone}, {"=", r.Unchanged, plainTone}, {"-", r.Dropped, badTone}} {
		for _, name := range list.names {
			u.printf("  %s\n", u.screen.paint(list.tone, list.sign+" "+oneLine(name)))
		}
	}
}

func (r changeReport) line(dry bool) string {
	head := r.Path + ": "
	changes := len(r.Added) + len(r.Changed) + len(r.Dropped)
	deleted := ""
	if r.Deleted {
		deleted = " (deleted)"
	}
	switch {
	case changes == 0 && !r.Deleted && !r.Written:
		head += "up to date"
		if r.From > 0 {
			head += fmt.Sprintf(" with version %d", r.From)
		}
		return head + ", nothing to write"
	case dry:
		head += "not written (dry run)"
	case !r.Written:
		head += "not written"
	case r.KV == 1:
		head += "written"
	case r.Old == 0:
		head += fmt.Sprintf("version %d, a new path", r.New)
	default:
		head += fmt.Sprintf("version %d%s → %d", r.Old, deleted, r.New)
	}
	if r.From > 0 {
		head += fmt.Sprintf(", from version %d", r.From)
	}
	if r.Written {
		if r.Verified {
			head += ", verified"
		} else {
			head += fmt.Sprintf(", not verified (%s)", r.Why)
		}
	}
	for _, part := range []struct {
		names []string
		word  string
	}{{r.Added, "new"}, {r.Changed, "changed"}, {r.Unchanged, "unchanged"}, {r.Dropped, "dropped"}} {
		if n := len(part.names); n > 0 {
			head += fmt.Sprintf(", %d %s", n, part.word)
		}
	}
	return head
}

func dataPath(st vault.State) string {
	if st.Engine.KV == 1 {
		return st.Path.Mount + "/" + st.Path.Name
	}
	return st.Path.Mount + "/data/" + st.Path.Name
}
