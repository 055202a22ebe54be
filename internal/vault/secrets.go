package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/agenticverz/vaultexec/internal/mask"
)

// Secrets is the one list of what is secret in a run beside the secrets that are read: tokens, secret ids, passwords
// and the like that were used or given, headers, and passwords in addresses. Nothing takes anything out of it but
// Forget. It is safe for use by several goroutines, and nil is an empty list.
type Secrets struct {
	mu   sync.Mutex
	list []Text
}

// leastSecret is from how many bytes on a secret can be told from other words.
const leastSecret = 4

// Add adds secrets to the list.
func (s *Secrets) Add(list ...Text) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range list {
		if len(t.Reveal()) >= leastSecret && !slices.ContainsFunc(s.list, func(o Text) bool { return o.Equal(t) }) {
			s.list = append(s.list, t)
		}
	}
}

// Span is a part of a text.
type Span struct{ From, To int }

// Users returns where users and passwords stand in an address, or in a list of addresses with commas between them: what
// is before the last @ of what comes before the path. It goes by the text, and not by what net/url takes for an
// address. curl and Go's net/http also take a proxy without a scheme, and what is no address at all must not show its
// password either.
func Users(text string) []Span {
	var list []Span
	for at := 0; at < len(text); {
		end := len(text)
		if i := strings.IndexByte(text[at:], ','); i >= 0 {
			end = at + i
		}
		from := at
		if i := strings.Index(text[at:end], "://"); i >= 0 {
			from = at + i + len("://")
		}
		authority := text[from:end]
		if i := strings.IndexAny(authority, "/?#"); i >= 0 {
			authority = authority[:i]
		}
		if i := strings.LastIndexByte(authority, '@'); i >= 0 {
			list = append(list, Span{from, from + i})
		}
		at = end + 1
	}
	return list
}

// AddAddress adds the user and the password of an address, or of each in a list. A user alone is a token; beside a
// password it is a name.
func (s *Secrets) AddAddress(text string) {
	for _, at := range Users(text) {
		user, password, _ := strings.Cut(text[at.From:at.To], ":")
		secrets := []string{password}
		if password == "" || LooksSecret(user) {
			secrets = append(secrets, user)
		}
		for _, secret := range secrets {
			s.Add(NewText(secret))
			if plain, err := url.PathUnescape(secret); err == nil {
				s.Add(NewText(plain))
			}
		}
	}
}

// AddHeaders adds the values of VAULT_HEADERS, also without the scheme before them, and a password of basic
// authentication.
func (s *Secrets) AddHeaders(text string) {
	var headers map[string]string
	if json.Unmarshal([]byte(text), &headers) != nil {
		return
	}
	for _, value := range headers {
		s.Add(NewText(value))
		scheme, rest, _ := strings.Cut(value, " ")
		s.Add(NewText(rest))
		if strings.EqualFold(scheme, "Basic") {
			if plain, err := base64.StdEncoding.DecodeString(rest); err == nil {
				_, password, _ := strings.Cut(string(plain), ":")
				s.Add(NewText(password))
			}
		}
	}
}

// All returns what is in the list.
func (s *Secrets) All() []Text {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// Forget empties the list.
func (s *Secrets) Forget() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.list)
	s.list = nil
}

// Clean takes the secrets, and others that the caller knows of, out of somebody's words, however they are written in
// them. A password that is a common word is no exception.
func (s *Secrets) Clean(words string, more []string) string {
	values := slices.Clone(more)
	for _, t := range s.All() {
		values = append(values, t.Reveal())
	}
	if len(values) == 0 || words == "" {
		return words
	}
	return mask.NewSet(values, leastSecret).Clean(words)
}

// noted makes a source that adds what it gives to the list.
func (s *Secrets) noted(source Source) Source {
	if source == nil {
		return nil
	}
	return func(ctx context.Context) (Text, error) {
		t, err := source(ctx)
		if err == nil {
			s.Add(t)
		}
		return t, err
	}
}

// Leaves are the texts and numbers in a value that is an object or a list, or a text that holds one, down to the given
// number of them. A program that reads a field of the value has such a part.
func (v Value) Leaves(most int) []Text {
	l := &leaves{most: most}
	l.collect(v.raw(), 0)
	return l.list
}

// leaves is one collection.
type leaves struct {
	most int
	list []Text
}

// nest is an object or a list that is open.
type nest struct {
	object bool
	value  bool // of an object: the last token was a key
}

// collect takes the leaves of JSON. depth counts the texts that it stands in.
func (l *leaves) collect(raw []byte, depth int) {
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	open := []nest{{}}
	for len(l.list) < l.most {
		tok, err := dec.Token()
		if err != nil {
			return
		}
		at := &open[len(open)-1]
		isKey := at.object && !at.value
		at.value = isKey
		switch tok := tok.(type) {
		case json.Delim:
			if tok == '{' || tok == '[' {
				open = append(open, nest{object: tok == '{'})
			} else {
				open = open[:len(open)-1]
			}
		case json.Number:
			l.list = append(l.list, NewText(tok.String()))
		case string:
			if !isKey {
				l.text(tok, len(open) == 1 && depth == 0, depth)
			}
		}
	}
}

// text takes a text, unless it is the whole value itself, and what is in it when it holds JSON.
func (l *leaves) text(s string, whole bool, depth int) {
	if !whole {
		l.list = append(l.list, NewText(s))
	}
	if t := strings.TrimSpace(s); depth < 2 && (strings.HasPrefix(t, "{") || strings.HasPrefix(t, "[")) &&
		json.Valid([]byte(t)) {
		l.collect([]byte(t), depth+1)
	}
}
