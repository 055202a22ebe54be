// Package dotenv reads .env files in the dialect of Docker Compose: export, single and double quotes over several lines,
// escapes in double quotes, comments. Three things differ. A reference such as ${VAR} stays as it is written unless the
// caller asks to expand it. Lines that Compose would leave out or guess at are errors. No error quotes the file, because
// half of a value may look like a name.
package dotenv

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Error says what is wrong with a file.
type Error struct {
	Line  int      // 0 when it is not known
	Names []string // variables that are concerned
	Why   string
}

// Error returns "line 3: …".
func (e *Error) Error() string {
	s := e.Why
	if len(e.Names) > 0 {
		s = strings.Join(e.Names, ", ") + ": " + s
	}
	if e.Line > 0 {
		s = fmt.Sprintf("line %d: %s", e.Line, s)
	}
	return s
}

// Options change how a file is read.
type Options struct {
	Dialect string // one of Dialects; "" refuses what they read differently
	Expand  bool   // replace $VAR, ${VAR}, ${VAR-default} and ${VAR:-default} by what the file itself says of VAR
}

// Parse returns the variables of a file. Of a name that stands there twice the last counts, as everywhere.
func Parse(src string, o Options) (map[string]string, error) {
	src = strings.TrimPrefix(src, "\ufeff")
	switch {
	case !utf8.ValidString(src):
		return nil, &Error{Why: "it is not UTF-8"}
	case strings.ContainsRune(src, 0):
		return nil, &Error{Why: "it holds a NUL byte"}
	}
	switch o.Dialect {
	case "":
		if err := unclear(src); err != nil {
			return nil, err
		}
	case "compose":
	default:
		return parseAs(o.Dialect, src)
	}
	c, err := readCompose(src)
	if err != nil {
		return nil, err
	}
	if ambiguous := commentOrValue(src, c.vars); len(ambiguous) > 0 {
		return nil, &Error{Names: ambiguous,
			Why: `a comment or a value? put quotes around it, or "" before the comment`}
	}
	for key, value := range c.vars {
		switch {
		case !isName(key):
			return nil, nameError(c.vars)
		case strings.ContainsRune(value, 0):
			return nil, &Error{Names: []string{key}, Why: "it holds a NUL byte"}
		}
	}
	if o.Expand {
		return expandAll(c)
	}
	for key, value := range c.vars {
		c.vars[key] = strings.ReplaceAll(value, c.dollar, "$")
	}
	return c.vars, nil
}

// unused returns a character of a private use area that does not occur in s.
func unused(s string) string {
	r := '\ue000'
	for strings.ContainsRune(s, r) {
		r++
	}
	return string(r)
}

// Patterns are compiled when they are needed: together they would take 0.1 ms of every start.
var commentLike = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*[=:][ \t]+#`)
})

// commentOrValue finds KEY= # text, which is an empty value to a shell and the value "# text" to Compose.
func commentOrValue(src string, parsed map[string]string) []string {
	var names []string
	for _, m := range commentLike().FindAllStringSubmatch(src, -1) {
		if strings.HasPrefix(parsed[m[1]], "#") && !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}

// nameError lists the names that no variable can have. One without any letter may be a piece of a value.
func nameError(parsed map[string]string) error {
	e := &Error{Why: "names are [A-Za-z_][A-Za-z0-9_]*"}
	for _, key := range slices.Sorted(maps.Keys(parsed)) {
		if !isName(key) && strings.IndexFunc(key, unicode.IsLetter) >= 0 {
			e.Names = append(e.Names, fmt.Sprintf("%q", key))
		}
	}
	return e
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// expansion replaces references. They are looked up in the file alone: what the caller's environment happens to hold
// does not belong into a secret.
type expansion struct {
	*composed
	done  map[string]string
	doing []string
}

func expandAll(c *composed) (map[string]string, error) {
	x := &expansion{composed: c, done: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(c.vars)) {
		if _, err := x.value(key); err != nil {
			return nil, err
		}
	}
	return x.done, nil
}

func (x *expansion) value(key string) (string, error) {
	if v, ok := x.done[key]; ok {
		return v, nil
	}
	if slices.Contains(x.doing, key) {
		return "", &Error{Names: []string{key}, Why: "it refers to itself"}
	}
	x.doing = append(x.doing, key)
	defer func() { x.doing = x.doing[:len(x.doing)-1] }()
	v, err := x.expand(key, x.vars[key])
	if err != nil {
		return "", err
	}
	x.done[key] = v
	return v, nil
}

var (
	braced = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^{}]*))?\}`)
	})
	simple = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)`) })
)

// maxExpanded bounds what variables that refer to each other can grow to. Vault takes no longer string.
const maxExpanded = 1 << 20

// expand works on one value from left to right. $$ is one $, and a $ before anything else stays.
func (x *expansion) expand(key, v string) (string, error) {
	var b strings.Builder
	for {
		text, rest, found := strings.Cut(v, x.dollar)
		b.WriteString(text)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(rest, x.dollar) {
			b.WriteByte('$')
			v = rest[len(x.dollar):]
			continue
		}
		ref, more := parseReference(rest)
		switch {
		case ref == nil && strings.HasPrefix(rest, "{"):
			return "", &Error{Names: []string{key},
				Why: "a reference that is not understood: only $VAR, ${VAR}, ${VAR-default} and ${VAR:-default} are"}
		case ref == nil:
			b.WriteByte('$')
			v = rest
			continue
		}
		other, err := x.referred(key, ref)
		if err != nil {
			return "", err
		}
		if b.Len()+len(other) > maxExpanded {
			return "", &Error{Names: []string{key}, Why: "it becomes longer than Vault takes"}
		}
		b.WriteString(other)
		v = more
	}
}

// reference is $VAR, or ${VAR} with what stands in its place.
type reference struct {
	name      string
	operator  string // "-": the default counts when there is no such variable; ":-": when it is empty, too
	otherwise string
}

// parseReference reads a reference behind its $, and returns what follows it; nil when there is none.
func parseReference(text string) (ref *reference, rest string) {
	if m := braced().FindStringSubmatch(text); m != nil {
		return &reference{m[1], m[2], m[3]}, text[len(m[0]):]
	}
	if m := simple().FindStringSubmatch(text); m != nil {
		return &reference{name: m[1]}, text[len(m[0]):]
	}
	return nil, text
}

// referred is what a reference in the value of key stands for.
func (x *expansion) referred(key string, ref *reference) (string, error) {
	_, known := x.vars[ref.name]
	value := ""
	if known {
		var err error
		if value, err = x.value(ref.name); err != nil {
			return "", err
		}
	}
	switch {
	case ref.operator == "-" && !known, ref.operator == ":-" && value == "":
		return ref.otherwise, nil
	case !known:
		return "", &Error{Names: []string{key}, Why: fmt.Sprintf("it refers to %s, which is not in the file", ref.name)}
	}
	return value, nil
}
