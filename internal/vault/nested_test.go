package vault

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	s := &Secret{}
	if err := json.Unmarshal([]byte(`{
		"db": {"host": "h", "port": 5432, "users": [{"name": "ada"}, {"name": "bob"}], "a.b": {"c": "long"}, "a": {"b": "short"}, "": "empty", "none": {}},
		"db.host": "literal", "hosts": ["x", ["y", 12345678901234567890]], "no": [], "text": "{\"k\":1}", "null": null, "n": 1.10, "yes": true, "a": {"b.c": "dotted"}
	}`), &s.Values); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"db.host": "literal", "db.port": "5432", "db.users.1.name": "bob", "db.users": `[{"name":"ada"},{"name":"bob"}]`, "hosts.0": "x",
		"hosts.1.1": "12345678901234567890", "db.a.b.c": "long", "db.a.b": `{"c":"long"}`, "a.b.c": "dotted", "db.": "empty", "n": "1.10",
	} {
		v, no := s.Find(key)
		if no != nil {
			t.Errorf("%s: %s", key, no.Why)
			continue
		}
		if text, err := v.Text(); err != nil || text.Reveal() != want {
			t.Errorf("%s is %q, %v; want %q", key, text.Reveal(), err, want)
		}
	}
	for key, want := range map[string]string{
		"dbs":           `no such key; did you mean "db"?`,
		"else.where.is": `no such key; it has: a, db, db.host, hosts, n, no, null, text, yes`,
		"db.prt":        `no "prt" in db; did you mean "port"?`,
		"db.zzzzz.x":    `no "zzzzz" in db; db has: , a, a.b, host, none, port, users`,
		"db.none.x":     `no "x" in db.none; db.none has nothing in it`,
		"hosts.2":       `no "2" in hosts; it is a list of 2, counted from 0`,
		"hosts.-1":      `no "-1" in hosts; it is a list of 2, counted from 0`,
		"hosts.01":      `no "01" in hosts; it is a list of 2, counted from 0`,
		"hosts.0.x":     `no "x" in hosts.0, which is text; `,
		"no.0":          `no "0" in no; it is a list without items`,
		"text.k":        `no "k" in text, which is text; `,
		"null.k":        `no "k" in null, which is null; `,
		"n.1":           `no "1" in n, which is a number; `,
		"yes.x":         `no "x" in yes, which is true or false; `,
		"db.users.0.":   `no "" in db.users.0; db.users.0 has: name`,
		".":             `no such key; `,
		"":              `no such key; `,
	} {
		if _, no := s.Find(key); no == nil || !strings.HasPrefix(no.Why+"; "+no.Hint, want) {
			t.Errorf("%s: %+v, want %s", key, no, want)
		}
	}
}

// FuzzFind: every key of an object is found by its own name, and no failure shows a value.
func FuzzFind(f *testing.F) {
	f.Add("a.b", "a", "a.b.c")
	f.Add("", ".", "..")
	f.Add("0", "x", "x.0.0")
	f.Fuzz(func(t *testing.T, k1, k2, key string) {
		const canary = "canary-that-is-never-printed"
		raw, _ := json.Marshal(map[string]any{k1: map[string]any{k2: []any{canary, map[string]any{k1: canary}}}, k2: canary})
		s := &Secret{}
		if json.Unmarshal(raw, &s.Values) != nil {
			t.Skip()
		}
		for name := range s.Values {
			if _, no := s.Find(name); no != nil {
				t.Errorf("%q is not found: %s", name, no.Why)
			}
		}
		if _, no := s.Find(key); no != nil && strings.Contains(no.Why+no.Hint, canary) {
			t.Errorf("%q: %s; %s", key, no.Why, no.Hint)
		}
	})
}
