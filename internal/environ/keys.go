package environ

import (
	"errors"
	"slices"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Key is one key of a secret, whatever variables it would become.
type Key struct {
	Path  vault.Path
	Name  string
	Value vault.Text
	Parts []vault.Text // what it holds under no name: a text may be JSON

	Object bool // or a list: what is in it are keys of their own
}

// Keys lists the keys that the sources name, each once and in their order: every selected key of a whole secret, and
// the single ones. What is in an object or a list is a key of its own, and --exclude leaves it out as well. A null has no value and is left out. unread are the paths that were not read, because that makes
// something new.
func Keys(got []Fetched, rules Rules) (keys []Key, unread []vault.Path, err error) {
	b := builder{rules: rules}
	type place struct {
		path vault.Path
		name string
	}
	seen := map[place]bool{}
	add := func(g Fetched, name string, v vault.Value) {
		at := place{g.Secret.Path, name}
		if seen[at] {
			return
		}
		seen[at] = true
		text, err := v.Text()
		switch {
		case err == nil:
			named := leafKeys(g, name, v)
			keys = append(keys, Key{g.Secret.Path, name, text, unnamed(v, named), len(named) > 0})
			for _, k := range named {
				if at.name = k.Name; !seen[at] && !matchesAny(rules.Exclude, k.Name) {
					seen[at], keys = true, append(keys, k)
				}
			}
		case !errors.Is(err, vault.ErrNull):
			b.fail(fault.Value, origin(g, name), "the value cannot be read", "")
		}
	}
	for _, g := range got {
		switch {
		case g.Secret == nil:
		case g.Secret.Unread():
			if !slices.Contains(unread, g.Secret.Path) {
				unread = append(unread, g.Secret.Path)
			}
		case g.Source.Name == "":
			for _, name := range sortedKeys(g.Secret.Values) {
				if b.selected(name) {
					add(g, name, g.Secret.Values[name])
				}
			}
		default:
			v, no := g.Secret.Find(g.Source.Key)
			switch {
			case no == nil:
				add(g, g.Source.Key, v)
			case !g.Source.Optional:
				b.fail(fault.Missing, origin(g, g.Source.Key), no.Why, no.Hint)
			}
		}
	}
	return keys, unread, fault.Join(b.faults)
}

// leafKeys are the keys within an object or a list.
func leafKeys(g Fetched, name string, v vault.Value) []Key {
	var keys []Key
	for _, leaf := range v.NamedLeaves(maxParts) {
		keys = append(keys, Key{Path: g.Secret.Path, Name: name + "." + leaf.Way, Value: leaf.Text})
	}
	return keys
}

// unnamed are the parts of a value that are none of its keys.
func unnamed(v vault.Value, named []Key) []vault.Text {
	known := make(map[string]bool, len(named))
	for _, k := range named {
		known[k.Value.Reveal()] = true
	}
	return slices.DeleteFunc(v.Leaves(maxParts), func(t vault.Text) bool { return known[t.Reveal()] })
}
