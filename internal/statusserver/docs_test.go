package statusserver

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// docs/status.md has every key, metric and value of a label, and no metric that there is not.
func TestDocument(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	var all map[string]any
	s := full()
	s.Next = &Next{}
	if err := json.Unmarshal(s.JSON(), &all); err != nil {
		t.Fatal(err)
	}
	n := 0
	var keys func(v any)
	keys = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				n++
				if !strings.Contains(text, "`"+k+"`") {
					t.Errorf("no key %s", k)
				}
				keys(inner)
			}
		case []any:
			for _, inner := range v {
				keys(inner)
			}
		}
	}
	keys(all)
	if n < 60 {
		t.Errorf("%d keys", n)
	}
	for _, list := range [][]string{Kinds, Reasons, Statuses, States, {string(Starting), string(Running), string(Restarting), string(Ending)}} {
		for _, word := range list {
			if !strings.Contains(text, "`"+word+"`") {
				t.Errorf("no value %s", word)
			}
		}
	}
	_, table, _ := strings.Cut(text, "| metric | type | |")
	table, _, _ = strings.Cut(table, "| label |")
	named := map[string]bool{}
	for line := range strings.Lines(table) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			named[strings.FieldsFunc(rest, func(r rune) bool { return r == '{' || r == '`' })[0]] = true
		}
	}
	there := families(t, full().Metrics(noon, false))
	for name := range there {
		if !named[name] {
			t.Errorf("no metric %s", name)
		}
	}
	for name := range named {
		if there[name] == nil {
			t.Errorf("%s is no metric", name)
		}
	}
}
