package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

const (
	// raceLimit bounds how long lost races are repeated. Twenty writers of one path need about a hundred attempts in
	// all.
	raceLimit = 30 * time.Second
	// readBackLimit bounds the wait for a replica to show what was written.
	readBackLimit = 10 * time.Second
)

// State is what is known of a secret before it is changed.
type State struct {
	Path   Path // with the real mount
	Engine Engine

	Exists bool    // it has a latest version that lives; meaningless when Blind
	Gone   *Marker // its latest version is deleted or destroyed
	Blind  bool    // the policy shows nothing at all

	Version int              // version 2: the latest, also when Gone; 0 when there is none or Blind
	Values  map[string]Value // nil when the policy does not allow to read them
	Keys    []string         // sorted; nil when not known
}

// Readable reports whether the values can be read, or would be if there were any.
func (s State) Readable() bool { return s.Values != nil }

// Edit is a change of one secret: its keys that stand in Set get new values. A key with the zero Value goes.
type Edit struct {
	Path  Path // with the real mount
	Set   map[string]Value
	Alone bool // no other key stays
	// Create lets a secret be made that the policy does not show. (What is shown, Check judges.)
	Create bool
	Whole  bool // not by PATCH: Check compared with what was read, and only check-and-set keeps that true

	// Check is asked before every attempt whether the change may be made to what is there. It may be called several
	// times, when others write at the same moment.
	Check func(State) error
	// Patience is for a Vault that is away.
	Patience Patience
}

// How a secret was written.
const (
	ByPatch = "patch"         // Vault merged the keys
	ByCAS   = "check-and-set" // read, merged here, written on condition that nobody else wrote
	ByPut   = "overwrite"     // KV version 1 knows neither
)

// Written is the outcome of an Edit.
type Written struct {
	Before   State
	Version  int    // version 2: the new one
	Method   string // "" when there was nothing to change
	Verified bool   // it was read back and holds what was written
	Why      string // when not verified
}

// Resolve finds out where the mount of p ends and what is mounted there. It takes a request unless the mount is known.
func (c *Client) Resolve(ctx context.Context, p Path, kv int) (Path, Engine, error) {
	if kv != 0 && p.Mount != "" {
		e := Engine{Mount: p.Mount, Type: "kv", KV: kv}
		c.mounts.add(e)
		return p, e, nil
	}
	e, err := c.ask(ctx, p)
	if err != nil {
		return p, e, err
	}
	if kv != 0 && e.Type == "kv" {
		e.KV = kv
		c.mounts.add(e)
	}
	return p.within(e.Mount), e, nil
}

// State finds out as much as the policy allows: from the secret itself, else from the names of its keys, else from its
// metadata.
func (c *Client) State(ctx context.Context, p Path, e Engine) (State, error) {
	st := State{Path: p, Engine: e}
	s, err := c.Read(ctx, p, ReadOptions{})
	switch {
	case err == nil:
		st.Exists, st.Version, st.Values = true, s.Version, s.Values
		st.Keys = slices.Sorted(maps.Keys(s.Values))
		return st, nil
	case e.KV == 2 && fault.Is(err, fault.Denied):
		return c.stateBehind(ctx, st)
	}
	return st, st.absent(err)
}

// absent takes a failed read as a state where it is one.
func (st *State) absent(err error) error {
	var gone *Gone
	switch {
	case errors.As(err, &gone):
		st.Gone, st.Version, st.Values = &gone.Marker, gone.Marker.Version, map[string]Value{}
	case fault.Is(err, fault.Missing) && !fault.Has(err, fault.NoMount):
		st.Values = map[string]Value{}
	default:
		return err
	}
	return nil
}

// stateBehind looks where a policy without read on the data may still let us: subkeys has the names, metadata the
// version.
func (c *Client) stateBehind(ctx context.Context, st State) (State, error) {
	p := st.Path
	a, err := c.do(ctx, request{what: cannotRead(p), path: p.Mount + "/subkeys/" + p.Name})
	var d struct {
		Subkeys  map[string]json.RawMessage `json:"subkeys"`
		Metadata struct {
			Version int `json:"version"`
		} `json:"metadata"`
	}
	switch {
	case err == nil && a.Data.into(&d) == nil && d.Metadata.Version > 0:
		st.Exists, st.Version = true, d.Metadata.Version
		st.Keys = append([]string{}, slices.Sorted(maps.Keys(d.Subkeys))...)
		return st, nil
	case err != nil && !fault.Is(err, fault.Denied, fault.Missing):
		return st, err
	}
	m, err := c.Look(ctx, p)
	switch {
	case fault.Is(err, fault.Denied):
		st.Blind = true
	case err != nil:
		return st, err
	case m.Absent:
	case m.Deleted || m.Destroyed:
		st.Gone, st.Version = &m, m.Version
	default:
		st.Exists, st.Version = true, m.Version
	}
	return st, nil
}

// Apply makes the change and reads it back. On version 2 it is one PATCH where the policy allows it; otherwise, and for
// what has no living version, a write on condition that the version is still the one that was looked at. Who loses a
// race looks again, for half a minute: no key of another writer is lost. Each attempt is one request, so that a crash
// at any moment leaves the old version or the new one, whole.
func (c *Client) Apply(ctx context.Context, edit Edit, e Engine) (Written, error) {
	w := &writer{client: c, edit: edit, engine: e}
	err := edit.Patience.Do(ctx, w.race)
	if err != nil || w.out.Method == "" {
		return w.out, err
	}
	if !w.out.Before.Readable() {
		w.out.Why = "no read"
		return w.out, nil
	}
	w.out.Verified, err = c.readBack(ctx, edit, w.out)
	if err != nil {
		w.out.Why = fault.Of(err).Why
		if fault.Is(err, fault.Denied) { // write without read, over a secret that was missing or visible otherwise
			w.out.Why = "no read"
			return w.out, nil
		}
		if f := fault.Of(err); f.Kind == fault.BadToken {
			f.Kind = fault.Denied // who gets another token and begins anew would write a second time
		}
	}
	return w.out, err
}

// writer is one Apply.
type writer struct {
	client  *Client
	edit    Edit
	engine  Engine
	noPatch bool // the policy, or an old server, does not allow PATCH
	unsure  bool // an attempt failed in a way that leaves open whether it was carried out
	out     Written
}

// race repeats lost races.
func (w *writer) race(ctx context.Context) error {
	start := time.Now()
	for n := 0; ; n++ {
		err := w.attempt(ctx)
		if !fault.Is(err, fault.Conflict) || fault.Of(err).Err == ErrRefused {
			return err
		}
		if time.Since(start) > raceLimit || !sleep(ctx, rand.N(min(time.Second, 20*time.Millisecond<<min(n, 6)))) {
			f := *fault.Of(err)
			f.Why = fmt.Sprintf("others kept changing it at the same time (%d attempts in %s)", n+1,
				time.Since(start).Round(time.Second))
			f.Hint = "try again when they have finished"
			return &f
		}
	}
}

// ErrRefused is the Err of a fault.Conflict that is a decision and not a lost race.
var ErrRefused = errors.New("refused")

// ErrNothing is what an Edit's Check returns when what is there needs no change.
var ErrNothing = errors.New("nothing to change")

func (w *writer) attempt(ctx context.Context) error {
	st, err := w.client.State(ctx, w.edit.Path, w.engine)
	if err != nil {
		return err
	}
	if w.unsure && st.Exists && st.Version == w.out.Before.Version+1 && holds(st.Values, w.edit) {
		w.out.Version = st.Version // the attempt whose answer was lost had been carried out
		return nil
	}
	err = w.edit.Check(st)
	w.out = Written{Before: st}
	if errors.Is(err, ErrNothing) {
		w.out.Version, w.out.Verified = st.Version, true
		return nil
	}
	if err != nil {
		return err
	}
	if w.engine.KV == 2 && (st.Exists || st.Blind) && !w.edit.Alone && !w.edit.Whole && !w.noPatch && !w.edit.merges() {
		if done, err := w.attemptPatch(ctx, st); done {
			return err
		}
	}
	w.out.Method = ByCAS
	if w.engine.KV == 1 {
		w.out.Method = ByPut
	}
	w.out.Version, err = w.put(ctx, st)
	return w.note(err)
}

// attemptPatch is an attempt by PATCH. It is not done when the policy, or an old server, does not allow that and a
// write of the whole secret may be allowed.
func (w *writer) attemptPatch(ctx context.Context, st State) (done bool, err error) {
	w.out.Method = ByPatch
	w.out.Version, err = w.patch(ctx, st)
	unsupported := fault.Has(err, fault.Unsupported)
	switch {
	case fault.Is(err, fault.Missing) && !unsupported && st.Blind && w.edit.Create:
		w.out.Method = ByCAS
		w.out.Version, err = w.put(ctx, st) // on condition that there is no version at all
		return true, w.note(err)
	case fault.Is(err, fault.Missing) && !unsupported && st.Exists && !fault.Has(err, fault.NoMount):
		f := *fault.Of(err)
		f.Kind = fault.Conflict // it was deleted since: Check is to say what that means
		return true, &f
	case !fault.Is(err, fault.Denied) && !unsupported:
		return true, w.note(err)
	case !st.Readable():
		return true, err
	}
	w.noPatch = true
	return false, nil
}

// note remembers that the answer to a write was lost.
func (w *writer) note(err error) error {
	if fault.Is(err, fault.Away) {
		w.unsure = true
	}
	return err
}

func (w *writer) patch(ctx context.Context, st State) (int, error) {
	body := map[string]any{"data": written(nil, w.edit.Set)}
	if st.Version > 0 {
		body["options"] = map[string]int{"cas": st.Version}
	}
	p := st.Path
	r := request{what: cannotWrite(p), method: http.MethodPatch, path: p.Mount + "/data/" + p.Name, merge: true, values: true,
		body: func() any { return body }}
	r.denied = needs(r.path, "patch", `; "read" and "update" together do as well`)
	a, err := w.client.do(ctx, r)
	if a != nil && a.Status == http.StatusNotFound && len(a.raw.raw()) == 0 {
		// What Vault says to a PATCH of nothing: no JSON, just the status.
		err = &fault.Error{Kind: fault.Missing, What: cannotWrite(p),
			Why:  "no such secret, or its latest version is deleted",
			Hint: "--create makes a new one, where the policy allows \"create\" or \"update\""}
	}
	if err != nil {
		return 0, err
	}
	return writtenVersion(p, a)
}

// put writes the whole secret: what stays of it and what is set.
func (w *writer) put(ctx context.Context, st State) (int, error) {
	p := st.Path
	before := st.Values
	if w.edit.Alone {
		before = nil
	}
	data := written(before, w.edit.Set)
	for k, v := range data {
		if v == nil {
			delete(data, k)
		}
	}
	r := request{what: cannotWrite(p), method: http.MethodPost, path: p.Mount + "/" + p.Name, values: true,
		body: func() any { return data }}
	if w.engine.KV == 2 {
		r.path = p.Mount + "/data/" + p.Name
		r.body = func() any { return map[string]any{"data": data, "options": map[string]int{"cas": st.Version}} }
	}
	r.denied = needs(r.path, "update")
	if !st.Exists && st.Gone == nil {
		r.denied = needs(r.path, "create")
	}
	a, err := w.client.do(ctx, r)
	if err != nil || w.engine.KV == 1 {
		return 0, err
	}
	return writtenVersion(p, a)
}

func writtenVersion(p Path, a *Answer) (int, error) {
	var d struct {
		Version int `json:"version"`
	}
	if a.Data.into(&d) != nil || d.Version == 0 {
		return 0, notVaults(cannotWrite(p), "it names no version")
	}
	return d.Version, nil
}

func cannotWrite(p Path) string { return "cannot write " + p.String() }

// written is for the body of a request only: what was there and what is set. A key that goes is a nil, which a PATCH takes
// for that.
func written(before, set map[string]Value) map[string]any {
	m := make(map[string]any, len(before)+len(set))
	for k, v := range before {
		m[k] = v.raw()
	}
	for k, v := range set {
		m[k] = nil
		if v.held != nil {
			m[k] = v.raw()
		}
	}
	return m
}

// merges reports whether a PATCH would not write what is to be set: it merges objects, and takes a null away.
func (e Edit) merges() bool {
	for _, v := range e.Set {
		if raw := bytes.TrimSpace(v.raw()); len(raw) > 0 && (raw[0] == '{' || raw[0] == 'n') {
			return true
		}
	}
	return false
}

// holds reports whether values are what the edit wanted.
func holds(values map[string]Value, edit Edit) bool {
	if edit.Alone && len(values) != len(edit.Set) {
		return false
	}
	for k, want := range edit.Set {
		if !values[k].Same(want) {
			return false
		}
	}
	return true
}

// readBack reads until the version that was written shows: a replica may lag behind. If later versions already pushed
// it out, it looks for it in the latest.
func (c *Client) readBack(ctx context.Context, edit Edit, w Written) (bool, error) {
	p := w.Before.Path
	ctx, cancel := context.WithTimeout(ctx, readBackLimit)
	defer cancel()
	mismatch := &fault.Error{Kind: fault.Conflict, What: "cannot verify " + p.String(),
		Why:  "it was written and reads back with another value",
		Hint: "somebody else wrote at the same moment, or Vault changed it: look with `vaultexec get`", Err: ErrRefused}
	for n := 1; ; n++ {
		exact := p
		exact.Version = w.Version
		s, err := c.Read(ctx, exact, ReadOptions{})
		if err == nil {
			if holds(s.Values, edit) {
				return true, nil
			}
			return false, mismatch
		}
		if fault.Is(err, fault.Missing) {
			if s, err := c.Read(ctx, p, ReadOptions{}); err == nil && s.Version > w.Version && holds(s.Values, edit) {
				return true, nil
			}
		}
		if !fault.Is(err, fault.Missing, fault.Away) {
			return false, err
		}
		if !sleep(ctx, min(backoff(n), 500*time.Millisecond)) {
			return false, &fault.Error{Kind: fault.Away, What: "cannot verify " + p.String(),
				Why: fmt.Sprintf("version %d was written and cannot be read back after %s (%s)", w.Version,
					readBackLimit, fault.Of(err).Why),
				Hint: "a replica may lag behind: look again with `vaultexec get`"}
		}
	}
}

// Same reports whether both are the same JSON, however it is spelled. The zero Value, which no key has, is only itself.
func (v Value) Same(o Value) bool {
	if v.held == nil || o.held == nil {
		return v.held == nil && o.held == nil
	}
	a, aerr := v.Text()
	b, berr := o.Text()
	return aerr == berr && a.Equal(b) && v.isString() == o.isString()
}

func (v Value) isString() bool { return bytes.HasPrefix(bytes.TrimSpace(v.raw()), []byte(`"`)) }

// Matches reports whether a value is this text, whatever its JSON type.
func (v Value) Matches(t Text) bool {
	text, err := v.Text()
	return err == nil && text.Equal(t)
}
