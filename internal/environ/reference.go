package environ

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A reference names one key of a secret:
//
//	PATH[@VERSION]#KEY         as vault.ParseKeyRef reads it
//	PATH?FIELDS#KEY            the same for what is made from fields
//	vault:PATH[@VERSION]#KEY   the same where a mark is needed, in variables and in files of them
//	vault:MOUNT/data/PATH#KEY[#VERSION]   as bank-vaults writes it: the path of the API of KV version 2
//
// A text may hold several as ${REFERENCE|FILTER...}. A $ directly before such a "${" is doubled: "$${" is a "${" that
// begins no reference. Every other $ stays as it is. There is no language beyond that.

// mark begins a reference where not everything is one.
const mark = "vault:"

// ParseEnv reads the value of --env: NAME=REFERENCE, or NAME=TEXT with ${REFERENCE} in it. A value of several keys is
// several sources in a row.
func ParseEnv(s, mount string) ([]Source, error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok {
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot use " + quoted(s),
			Why: "not of the form NAME=PATH#KEY", Hint: "write it as DB_PASSWORD=database#POSTGRES_PASSWORD"}
	}
	if !IsName(name) {
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot use " + quoted(s),
			Why: quoted(name) + " is not a variable name", Hint: "names are [A-Za-z_][A-Za-z0-9_]*"}
	}
	if !strings.Contains(text, "${") {
		p, key, err := parseReference(text, mount)
		if err != nil && !strings.Contains(text, "#") { // a value that was written here by mistake is not repeated
			err = &fault.Error{Kind: fault.Usage, What: "cannot set " + name, Why: fault.Of(err).Why,
				Hint: fault.Of(err).Hint}
		}
		return []Source{{Path: p, Name: name, Key: key}}, err
	}
	sources, _, err := parseText(name, text, mount, "")
	if err == nil && len(sources) == 0 {
		err = &fault.Error{Kind: fault.Usage, What: "cannot set " + name, Why: "there is no reference in its text",
			Hint: "write one as ${database#POSTGRES_PASSWORD}"}
	}
	return sources, err
}

// ParseVariable reads the value of a variable: a reference that begins with "vault:", or a text with ${vault:REFERENCE}
// in it. Other values give no sources, and the text that they stand for. No error repeats the value, which may be a
// secret.
func ParseVariable(name, value, mount string) (sources []Source, text string, err error) {
	switch {
	case strings.HasPrefix(value, ">>"+mark), strings.Contains(value, "${>>"+mark):
		err = &fault.Error{Why: "it would write to Vault, as bank-vaults does; a start writes nothing"}
	case value == mark+"login":
		err = &fault.Error{
			Why:  "vaultexec hands the token of its own login to no command",
			Hint: "leave the variable out (bank-vaults puts the token of its login there); --keep-token hands on a token that was given, as VAULT_TOKEN"}
	case transit(value):
		err = &fault.Error{Why: "it is ciphertext of the transit engine, which is not decrypted here"}
	case strings.HasPrefix(value, mark):
		var s Source
		s.Name = name
		s.Path, s.Key, err = parseReference(value, mount)
		sources = []Source{s}
	case strings.Contains(value, "${"+mark):
		sources, text, err = parseText(name, value, mount, mark)
	default:
		return nil, value, nil
	}
	if err == nil {
		return sources, text, nil
	}
	e := &fault.Error{Kind: fault.Usage, What: "cannot resolve " + name, Why: fault.Of(err).Why,
		Hint: "a reference is vault:PATH#KEY, vault:/MOUNT/PATH#KEY or vault:MOUNT/data/PATH#KEY (see vaultexec help references)"}
	if value == mark+"login" {
		e.Hint = fault.Of(err).Hint
	}
	return nil, "", e
}

// transit reports whether the value is "vault:v1:…": what the transit engine makes of a plaintext.
func transit(value string) bool {
	version, _, ok := strings.Cut(strings.TrimPrefix(value, mark+"v"), ":")
	return ok && strings.HasPrefix(value, mark+"v") && version != "" && strings.Trim(version, "0123456789") == ""
}

// parseReference reads one reference.
func parseReference(s, mount string) (vault.Path, string, error) {
	rest, marked := strings.CutPrefix(s, mark)
	path, key, _ := strings.Cut(rest, "#")
	engine, name, literal := strings.Cut(path, "/data/")
	if before, _, made := strings.Cut(path, "?"); made && !strings.Contains(before, "/data/") {
		literal = false
	}
	if !marked || !literal || strings.HasPrefix(path, "/") {
		return vault.ParseKeyRef(rest, mount)
	}
	bad := func(why string) (vault.Path, string, error) {
		return vault.Path{}, "", &fault.Error{Kind: fault.Usage, What: "cannot use " + quoted(s), Why: why}
	}
	if strings.HasPrefix(key, "${") {
		return bad("it holds a template of bank-vaults, which vaultexec does not support")
	}
	if strings.HasPrefix(name, "/") {
		return bad("an empty segment")
	}
	mount, err := vault.ParseMount(engine)
	if err != nil {
		return bad(fault.Of(err).Why)
	}
	key, version, pinned := strings.Cut(key, "#")
	if pinned {
		if version == "" || version[0] == '0' || strings.Trim(version, "0123456789") != "" {
			return bad("what follows the second # is no version")
		}
		name += "@" + version
	}
	return vault.ParseKeyRef(name+"#"+key, mount)
}

// parseText reads a text with ${REFERENCE|FILTER...} in it. Only what begins with mark is a reference. Without any,
// text is what the text stands for.
func parseText(name, s, mount, mark string) (sources []Source, text string, err error) {
	var plain strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			break
		}
		head, rest := s[:i+1], s[i+2:]
		if !strings.HasPrefix(rest, mark) {
			plain.WriteString(head + "{")
			s = rest
			continue
		}
		before := strings.TrimRight(head, "$")
		dollars := len(head) - len(before)
		plain.WriteString(before + strings.Repeat("$", dollars/2))
		if dollars%2 == 0 {
			plain.WriteString("{")
			s = rest
			continue
		}
		inner, after, ok := strings.Cut(rest, "}")
		if !ok {
			return nil, "", &fault.Error{Kind: fault.Usage, What: "cannot set " + name, Why: "a ${ has no }",
				Hint: "a ${ that begins no reference is written $${"}
		}
		src, err := parsePiece(name, inner, mount)
		if err != nil {
			return nil, "", err
		}
		src.Before = vault.NewText(plain.String())
		sources = append(sources, src)
		plain.Reset()
		s = after
	}
	plain.WriteString(s)
	if len(sources) == 0 {
		return nil, plain.String(), nil
	}
	last := &sources[len(sources)-1]
	last.After, last.More = vault.NewText(plain.String()), false
	return sources, "", nil
}

// parsePiece reads what stands in a ${}: REFERENCE|FILTER...
func parsePiece(name, inner, mount string) (Source, error) {
	words := strings.Split(inner, "|")
	src := Source{Name: name, Filters: words[1:], More: true}
	var err error
	if src.Path, src.Key, err = parseReference(words[0], mount); err != nil {
		e := *fault.Of(err)
		e.What = fmt.Sprintf("cannot set %s: cannot use %s", name, quoted("${"+inner+"}"))
		return src, &e
	}
	for _, f := range src.Filters {
		if filters[f] == nil {
			return src, &fault.Error{Kind: fault.Usage, What: "cannot set " + name,
				Why: "there is no filter " + quoted(f), Hint: "choose from: " + strings.Join(sortedKeys(filters), ", ")}
		}
	}
	return src, nil
}

// quoted repeats what somebody wrote, unless it may be a secret.
func quoted(s string) string {
	if vault.LooksSecret(s) {
		return "what is given"
	}
	return fmt.Sprintf("%q", s)
}

// filters change the value of a reference in a text.
var filters = map[string]func(string) string{
	"url":    escapeURL,
	"json":   toJSON,
	"base64": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"trim":   strings.TrimSpace,
	"lines":  asLine,
}

// asLine is a text that ends in a line break. Of a list every item does: see key.
func asLine(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// escapeURL escapes everything but RFC 3986's unreserved characters, so that the value may stand in every part of a
// URL.
func escapeURL(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

// toJSON is a JSON string, with its quotes.
func toJSON(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

// made is a value that is being made of several sources.
type made struct {
	text    strings.Builder
	origins []string
	recipe  strings.Builder // what else decides about the value
	broken  bool            // a piece is missing
	parts   []vault.Text
}

// piece adds one key of a secret to the value that is being made, and the value to the environment when it is complete.
func (b *builder) piece(g Fetched) {
	m, src := &b.made, g.Source
	text, ok := b.key(g)
	if b.rules.Parts && g.Secret != nil {
		m.parts = append(m.parts, vault.NewText(text))
		m.parts = append(m.parts, b.leaves(g.Secret.Values[src.Key])...)
	}
	for _, f := range src.Filters {
		if text = filters[f](text); b.rules.Parts {
			m.parts = append(m.parts, vault.NewText(text))
		}
	}
	m.broken = m.broken || !ok
	before, after := src.Before.Reveal(), src.After.Reveal()
	m.text.WriteString(before + text + after)
	if before+after != "" || len(src.Filters) > 0 || src.More {
		fmt.Fprintf(&m.recipe, "%q%q%q", before, src.Filters, after)
	}
	if g.Secret != nil {
		if o := origin(g, src.Key); !slices.Contains(m.origins, o) {
			m.origins = append(m.origins, o)
		}
	}
	if src.More {
		return
	}
	if m.broken {
		b.broken = append(b.broken, src.Name)
	} else {
		b.put(Variable{Name: src.Name, Value: vault.NewText(m.text.String()), Origin: strings.Join(m.origins, ", "),
			recipe: vault.NewText(m.recipe.String()), Parts: m.parts})
	}
	b.made = made{}
}

// key returns the text of the source's one key.
func (b *builder) key(g Fetched) (string, bool) {
	if g.Secret == nil {
		return "", false
	}
	v, no := g.Secret.Find(g.Source.Key)
	if no != nil {
		if !g.Source.Optional {
			b.fail(fault.Missing, origin(g, g.Source.Key), no.Why, no.Hint)
		}
		return "", false
	}
	from := origin(g, g.Source.Key)
	if items, isList := v.Items(); isList && len(g.Source.Filters) > 0 && g.Source.Filters[0] == "lines" {
		var lines strings.Builder
		for _, item := range items {
			text, ok := b.text(from, item)
			if !ok {
				return "", false
			}
			lines.WriteString(asLine(text))
		}
		return lines.String(), true
	}
	return b.text(from, v)
}
