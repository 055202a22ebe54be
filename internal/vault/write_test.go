package vault

import (
	"encoding/json"
	"testing"
)

// The bodies of writes: what was there, what is set, and what goes. Numbers stay the literal that Vault sent.
func TestWrittenBodies(t *testing.T) {
	t.Parallel()
	parse := func(text string) (m map[string]Value) {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	before := parse(`{"A": "a", "N": 1.10, "O": {"x": 1}}`)
	set := map[string]Value{"A": NewText("<new>\n").Value(), "N": {}, "B": parse(`{"x": null}`)["x"]}
	for _, c := range []struct {
		before map[string]Value
		want   string
	}{
		{before, `{"A":"\u003cnew\u003e\n","B":null,"N":null,"O":{"x":1}}`},
		{nil, `{"A":"\u003cnew\u003e\n","B":null,"N":null}`},
	} {
		got, err := json.Marshal(written(c.before, set))
		if err != nil || string(got) != c.want {
			t.Errorf("%s, want %s (%v)", got, c.want, err)
		}
	}
	if m := written(before, set); m["N"] != nil || m["B"] == nil {
		t.Error("a key that goes and a null look alike")
	}
}

func TestEditHolds(t *testing.T) {
	t.Parallel()
	values := func(text string) (m map[string]Value) {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		set, is string
		gone    string // a key that goes
		alone   bool
		want    bool
	}{
		{`{"A": "1"}`, `{"A": "1", "B": "2"}`, "", false, true},
		{`{"A": "1"}`, `{"A": "1", "B": "2"}`, "", true, false},
		{`{"A": "1"}`, `{"A": 1}`, "", false, false}, // a string is no number
		{`{"A": 1}`, `{"A": 1}`, "", false, true},
		{`{"A": 1}`, `{"A": 2}`, "", false, false},
		{`{"A": "1"}`, `{"B": "1"}`, "", false, false},
		{`{"A": null}`, `{"A": null}`, "", false, true},
		{`{"A": null}`, `{}`, "", false, false},
		{`{"A": null}`, `{"A": ""}`, "", false, false},
		{`{"A": {"b": 1, "a": [true]}}`, `{"A": {"a":[true],"b":1}}`, "", false, true},
		{`{"A": {"b": 1}}`, `{"A": {"b": 1, "c": 2}}`, "", false, false},
		{`{}`, `{"A": "1"}`, "B", false, true},
		{`{}`, `{"A": "1", "B": null}`, "B", false, false},
	} {
		e := Edit{Set: values(c.set), Alone: c.alone}
		if c.gone != "" {
			e.Set[c.gone] = Value{}
		}
		if got := holds(values(c.is), e); got != c.want {
			t.Errorf("%s in %s without %q, alone %v: %v", c.set, c.is, c.gone, c.alone, got)
		}
	}
}

// A PATCH merges objects and takes a null for a key that goes: what is one of them is not written by PATCH.
func TestEditMerges(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{`"x"`: false, `1`: false, `true`: false, `[{"a": 1}]`: false, `{"a": 1}`: true, ` {}`: true, `null`: true} {
		if got := (Edit{Set: map[string]Value{"A": holdValue([]byte(text)), "B": NewText("{").Value()}}).merges(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if (Edit{Set: map[string]Value{"A": {}}}).merges() {
		t.Error("a key that goes is not merged")
	}
}
