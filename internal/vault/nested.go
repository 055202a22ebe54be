package vault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// NoKey says why a secret has no value under a key, and what it has.
type NoKey struct{ Why, Hint string }

// Find returns the value of a key. That is the key of that very name, or what a way of several steps leads to in its
// objects and lists, as in "db.password" or "hosts.0". A name with dots in it wins over a way; at every step the
// longest name wins.
func (s *Secret) Find(key string) (Value, *NoKey) { return find(s.Values, "", key) }

// find looks for key in an object, which is what the steps in front of it led to.
func find(object map[string]Value, way, key string) (Value, *NoKey) {
	if v, ok := object[key]; ok {
		return v, nil
	}
	for i := len(key) - 1; i > 0; i-- {
		if key[i] != '.' {
			continue
		}
		if v, ok := object[key[:i]]; ok {
			return v.enter(join(way, key[:i]), key[i+1:])
		}
	}
	names := slices.Sorted(maps.Keys(object))
	if way == "" {
		return Value{}, &NoKey{"no such key", namesHint(key, "it", names)}
	}
	step := firstStep(key)
	return Value{}, &NoKey{fmt.Sprintf("no %q in %s", step, way), namesHint(step, way, names)}
}

// enter goes on with the rest of a way inside of the value.
func (v Value) enter(way, rest string) (Value, *NoKey) {
	raw := bytes.TrimSpace(v.raw())
	kind := "a number"
	switch {
	case len(raw) == 0:
		kind = "null"
	case raw[0] == '{':
		var object map[string]Value
		if json.Unmarshal(raw, &object) == nil {
			return find(object, way, rest)
		}
	case raw[0] == '[':
		var list []Value
		if json.Unmarshal(raw, &list) == nil {
			return item(list, way, rest)
		}
	case raw[0] == '"':
		kind = "text"
	case raw[0] == 't', raw[0] == 'f':
		kind = "true or false"
	case raw[0] == 'n':
		kind = "null"
	}
	return Value{}, &NoKey{fmt.Sprintf("no %q in %s, which is %s", firstStep(rest), way, kind),
		"a dot leads into objects and lists only; `vault kv put PATH @FILE.json` writes them"}
}

// item goes on in a list.
func item(list []Value, way, rest string) (Value, *NoKey) {
	step, rest, more := strings.Cut(rest, ".")
	n, err := strconv.Atoi(step)
	if err != nil || strconv.Itoa(n) != step || n < 0 || n >= len(list) {
		hint := fmt.Sprintf("it is a list of %d, counted from 0", len(list))
		if len(list) == 0 {
			hint = "it is a list without items"
		}
		return Value{}, &NoKey{fmt.Sprintf("no %q in %s", step, way), hint}
	}
	if !more {
		return list[n], nil
	}
	return list[n].enter(join(way, step), rest)
}

func firstStep(way string) string {
	step, _, _ := strings.Cut(way, ".")
	return step
}

func join(way, step string) string {
	if way == "" {
		return step
	}
	return way + "." + step
}

// namesHint names the one that was meant, or what there is.
func namesHint(name, where string, names []string) string {
	if near := Nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	switch {
	case len(names) == 0 && where == "it":
		return "the secret has no keys"
	case len(names) == 0:
		return where + " has nothing in it"
	case len(names) > 10:
		names = append(names[:10:10], "…")
	}
	return where + " has: " + strings.Join(names, ", ")
}

// Leaf is a text or a number in an object or a list, with the way there, as Find takes it behind the key.
type Leaf struct {
	Way  string
	Text Text
}

// mostSteps bounds the ways of leaves. What lies deeper is one of Leaves, without a name.
const mostSteps = 16

// NamedLeaves lists the leaves of a value that is an object or a list, down to the given number of them.
func (v Value) NamedLeaves(most int) (list []Leaf) {
	v.walk("", mostSteps, func(way string, v Value) bool {
		if text, err := v.Text(); err == nil {
			list = append(list, Leaf{way, text})
		}
		return len(list) < most
	})
	return list
}

// walk passes on what is below a value until take returns false.
func (v Value) walk(way string, steps int, take func(way string, v Value) bool) bool {
	raw := bytes.TrimSpace(v.raw())
	if steps == 0 || len(raw) == 0 {
		return true
	}
	below := func(step string, v Value) bool {
		at := join(way, step)
		if raw := bytes.TrimSpace(v.raw()); len(raw) > 0 && (raw[0] == '{' || raw[0] == '[') {
			return v.walk(at, steps-1, take)
		}
		return take(at, v)
	}
	switch raw[0] {
	case '{':
		var object map[string]Value
		if json.Unmarshal(raw, &object) != nil {
			return true
		}
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if !below(name, object[name]) {
				return false
			}
		}
	case '[':
		items, _ := v.Items()
		for i, item := range items {
			if !below(strconv.Itoa(i), item) {
				return false
			}
		}
	}
	return true
}
