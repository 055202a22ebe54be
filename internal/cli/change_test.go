package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// What a word of diff is, its spelling says.
func TestSides(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"env": "environment", "vault:env": "secret m/env", "/m/env": "secret m/env", "./env": "file ./env", "file:env": "file env",
		".env": "file .env", ".env.prod": "file .env.prod", "conf/.env": "file conf/.env", "/srv/app/.env": "file /srv/app/.env",
		"prod.env": "file prod.env", "../x": "file ../x", "./a/b": "file ./a/b", "-": "file -", "file:-": "file -",
		"prod.env@3": "secret m/prod.env@3", "vault:prod.env": "secret m/prod.env", "vault:.env@2": "secret m/.env@2",
		"app": "secret m/app", "app@3": "secret m/app@3", "team/app": "secret m/team/app", "environment": "secret m/environment",
		"a.env/b": "secret m/a.env/b", "/other/app@1": "secret other/app@1", "app-env": "secret m/app-env", "x.envrc": "secret m/x.envrc",
		"file:": "an error", "vault:": "an error", "a//b": "an error", "app#KEY": "an error", "": "an error", "..": "an error",
	} {
		d, err := sideOf(word, "m")
		got := "secret " + d.path.String()
		switch {
		case err != nil:
			got = "an error"
		case d.env:
			got = "environment"
		case d.file != "":
			got = "file " + d.file
		}
		if got != want {
			t.Errorf("%q is %s, want %s", word, got, want)
		}
	}
}

func TestCompareSides(t *testing.T) {
	t.Parallel()
	of := func(values ...string) map[string]*vault.Text {
		m := map[string]*vault.Text{}
		for _, kv := range values {
			name, value, has := strings.Cut(kv, "=")
			m[name] = nil
			if text := vault.NewText(value); has {
				m[name] = &text
			}
		}
		return m
	}
	d := compareSides(side{label: "x", values: of("A=1", "B=1", "C", "D", "E=", "F")}, side{label: "y", values: of("B=2", "C", "D=1", "E=", "F=", "G=1")})
	if got := fmt.Sprint(d); got != "{x y [A] [G] [B D F] 2 [C E]}" {
		t.Error(got)
	}
}

// valuesOf makes values of JSON.
func valuesOf(t *testing.T, text string) map[string]vault.Value {
	t.Helper()
	var m map[string]vault.Value
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func stateOf(t *testing.T, version int, text string) vault.State {
	t.Helper()
	st := vault.State{Exists: true, Version: version, Values: valuesOf(t, text), Engine: vault.Engine{KV: 2}}
	st.Keys = slices.Sorted(maps.Keys(st.Values))
	return st
}

// What a rollback changes, and when it may: always what was seen at first.
func TestRollbackChecks(t *testing.T) {
	t.Parallel()
	const first, old = `{"A": "bad", "B": "b", "NEW": 1}`, `{"A": "good", "B": "b", "GONE": null}`
	for _, c := range []struct {
		keys            []string
		now             string // "" for deleted
		changes, report string
		outcome         string
	}{
		{nil, first, "A GONE NEW", "[GONE] [A] [] [NEW]", "goes on"},
		{nil, `{"A": "bad", "B": "b", "NEW": 1.0}`, "A GONE NEW", "[GONE] [A] [] [NEW]", "overtaken"}, // another literal
		{nil, `{"A": "bad", "B": "theirs", "NEW": 1}`, "A B GONE NEW", "[GONE] [A B] [] [NEW]", "overtaken"},
		{nil, `{"A": "bad", "B": "b", "NEW": 1, "MORE": ""}`, "A GONE MORE NEW", "[GONE] [A] [] [MORE NEW]", "overtaken"},
		{nil, `{"A": "bad", "B": "b"}`, "A GONE", "[GONE] [A] [] []", "goes on"}, // that would have gone anyway
		{nil, old, "", "[] [] [] []", "nothing"},
		{nil, "", "A B GONE", "[A B GONE] [] [] []", "overtaken"},
		{[]string{"A"}, first, "A", "[] [A] [] []", "goes on"},
		{[]string{"A", "B"}, first, "A", "[] [A] [B] []", "goes on"},
		{[]string{"A"}, `{"A": "bad", "B": "theirs", "MORE": ""}`, "A", "[] [A] [] []", "goes on"},
		{[]string{"A"}, `{"A": "theirs", "B": "b", "NEW": 1}`, "A", "[] [A] [] []", "overtaken"},
		{[]string{"A"}, `{"B": "b", "NEW": 1}`, "A", "[A] [] [] []", "overtaken"},
		{[]string{"A"}, `{"A": "good"}`, "", "[] [] [A] []", "nothing"},
		{[]string{"A"}, "", "A", "[] [] [] []", "deleted"},
		{[]string{"GONE"}, first, "GONE", "[GONE] [] [] []", "goes on"},
	} {
		r := &rollback{keys: c.keys, first: stateOf(t, 4, first), old: &vault.Secret{Version: 3, Values: valuesOf(t, old)}}
		now := vault.State{Version: 5, Gone: &vault.Marker{Version: 5, Deleted: true}, Values: map[string]vault.Value{}, Engine: vault.Engine{KV: 2}}
		if c.now != "" {
			now = stateOf(t, 5, c.now)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(r.changes(now.Values))), " "); got != c.changes {
			t.Errorf("%s, %s: changes %s, want %s", c.keys, c.now, got, c.changes)
		}
		err := r.check(now)
		outcome := "goes on"
		switch {
		case errors.Is(err, vault.ErrNothing):
			outcome = "nothing"
		case fault.Is(err, fault.Deleted):
			outcome = "deleted"
		case errors.Is(err, vault.ErrRefused) && fault.Is(err, fault.Conflict):
			outcome = "overtaken"
		case err != nil:
			t.Error(err)
		}
		if got := fmt.Sprint(r.report.Added, r.report.Changed, r.report.Unchanged, r.report.Dropped); got != c.report || outcome != c.outcome {
			t.Errorf("%s, %s: %s and %s, want %s and %s", c.keys, c.now, got, outcome, c.report, c.outcome)
		}
	}
}

// What is not known is not claimed: a key whose value is hidden counts as changed.
func TestReportOfHiddenValues(t *testing.T) {
	t.Parallel()
	new := vault.NewText("x").Value()
	for _, c := range []struct {
		st   vault.State
		want string
	}{
		{stateOf(t, 1, `{"A": "x", "B": "y", "GONE": "z"}`), "[C] [B] [A] [GONE]"},
		{vault.State{Blind: true}, "[] [A B C] [] [GONE]"},
		{vault.State{Exists: true, Version: 1}, "[] [A B C] [] [GONE]"},
		{vault.State{Exists: true, Version: 1, Keys: []string{"A", "B"}}, "[C] [A B] [] [GONE]"},
	} {
		r := newChangeReport(c.st)
		for _, key := range []string{"A", "B", "C"} {
			r.takeIn(c.st, key, new)
		}
		r.takeIn(c.st, "GONE", vault.Value{})
		if got := fmt.Sprint(r.Added, r.Changed, r.Unchanged, r.Dropped); got != c.want {
			t.Errorf("%v: %s, want %s", c.st.Keys, got, c.want)
		}
	}
}
