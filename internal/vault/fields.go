package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// A path may have fields, as in /pki/issue/web?common_name=app.example&ttl=24h. What is there is made for whoever asks:
// a certificate, a signature, a key. Nobody reads it twice, so that it has no versions, and nobody looks at it.
//
// Path.Fields holds them in one form, so that two spellings are one path: sorted by their names, and escaped as
// parseFields reads them.

const hintQuestion = `write %3F for a "?" that belongs to the name`

// parseFields reads NAME=VALUE&NAME=VALUE. As in the query of a URL, %26 stands for &, %25 for %, and so on. A + is a
// plus, as in base64 and in addresses, and no blank.
func parseFields(path, text string) (string, error) {
	bad := func(why, hint string) (string, error) { return "", pathError(path, why, hint) }
	switch {
	case text == "":
		return bad("no field follows the ?", "write NAME=VALUE&NAME=VALUE there, or "+hintQuestion)
	case !utf8.ValidString(text):
		return bad("a field is not UTF-8", "Vault takes text only: encode the value as the engine asks for it")
	case strings.IndexFunc(text, unicode.IsControl) >= 0:
		return bad("a control character in a field", "write it as %0A if you mean it")
	}
	var names, fields []string
	for field := range strings.SplitSeq(text, "&") {
		name, value, ok := strings.Cut(field, "=")
		if !ok || name == "" {
			return bad("a field is not of the form NAME=VALUE",
				"write PATH?NAME=VALUE&NAME=VALUE, with %26 for an & within a value; or "+hintQuestion)
		}
		name, err := url.PathUnescape(name)
		if err == nil {
			value, err = url.PathUnescape(value)
		}
		switch {
		case err != nil:
			return bad("a % in a field begins no escape", "write %25 for a literal %")
		case !utf8.ValidString(name), !utf8.ValidString(value):
			return bad("a field is not UTF-8", "Vault takes text only: encode the value as the engine asks for it")
		case strings.IndexFunc(name, unicode.IsControl) >= 0:
			return bad("a control character in the name of a field",
				"write the name as `vault path-help MOUNT/PATH` shows it")
		case slices.Contains(names, name):
			return bad("a field is given twice", "give each field once; for a list, separate the items with commas")
		}
		names = append(names, name)
		fields = append(fields, escapeField(name, "=")+"="+escapeField(value, ""))
	}
	slices.Sort(fields)
	return strings.Join(fields, "&"), nil
}

// escapeField writes a name or a value so that parseFields reads it as it is, and that it shows no control character.
func escapeField(s, special string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) || strings.ContainsRune("%&#"+special, r) {
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// fields are the names and values of a path's fields.
func (p Path) fields() map[string]string {
	list := map[string]string{}
	for field := range strings.SplitSeq(p.Fields, "&") {
		name, value, _ := strings.Cut(field, "=")
		name, _ = url.PathUnescape(name)
		list[name], _ = url.PathUnescape(value)
	}
	return list
}

// fieldsRefused is the failure of fields where they mean nothing.
func fieldsRefused(p Path, why, hint string) *fault.Error {
	return &fault.Error{Kind: fault.Usage, What: cannotRead(p), Why: why, Hint: hint}
}

// NoFields refuses the fields of a path that names a KV secret which is to be written.
func NoFields(p Path) error {
	if p.Fields == "" {
		return nil
	}
	return &fault.Error{Kind: fault.Usage, What: "cannot write to " + p.String(), Why: noFieldsInKV,
		Hint: hintNoFieldsInKV}
}

const (
	noFieldsInKV     = "a KV secret takes no fields"
	hintNoFieldsInKV = "leave out what follows the ?, or " + hintQuestion
)

// readMade has the engine make what p names, from its fields.
func (c *Client) readMade(ctx context.Context, p Path, engine Engine, opt ReadOptions) (*Secret, error) {
	if engine.KV != 0 {
		return nil, fieldsRefused(p, noFieldsInKV, hintNoFieldsInKV)
	}
	s := &Secret{Path: p, Engine: engine}
	if opt.NoLease {
		return s, nil
	}
	usage, err := c.usage(ctx, p)
	if err != nil {
		return nil, err
	}
	capability, f := usage.judge(p, engine)
	if f != nil {
		return nil, f
	}
	r := request{what: cannotRead(p), path: p.Mount + "/" + p.Name, secret: true, public: true}
	r.denied = needs(r.path, capability)
	fields := p.fields()
	if capability == "read" {
		r.query = url.Values{}
		for name, value := range fields {
			r.query.Set(name, value)
		}
	} else {
		r.method, r.body = http.MethodPut, func() any { return fields }
	}
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return s, s.take(a)
}

// usage is what the engine's help says of a path.
type usage struct {
	known       bool     // the help says something
	read, write bool     // of a list, neither
	query, body []string // the names of the fields that a read and a write take
}

// usage asks the engine how a path is used, which every token may.
func (c *Client) usage(ctx context.Context, p Path) (u usage, err error) {
	r := request{what: cannotRead(p), path: p.Mount + "/" + p.Name, query: url.Values{"help": {"1"}}}
	a, err := c.do(ctx, r)
	if err != nil {
		if fault.Has(err, fault.NoPath) || fault.Is(err, fault.Away, fault.BadToken) {
			return u, err
		}
		return u, nil // something in front of Vault lets no such question through
	}
	var help struct {
		OpenAPI struct {
			Paths map[string]struct {
				Get  *operation `json:"get"`
				Post *operation `json:"post"`
			} `json:"paths"`
			Components struct {
				Schemas map[string]schema `json:"schemas"`
			} `json:"components"`
		} `json:"openapi"`
	}
	if a.raw.into(&help) != nil || len(help.OpenAPI.Paths) == 0 {
		return u, nil
	}
	u.known = true
	for _, path := range help.OpenAPI.Paths {
		if get := path.Get; get != nil {
			listed := false // a list is a GET with ?list=true
			for _, param := range get.Parameters {
				listed = listed || param.Name == "list" && param.Required
			}
			if !listed {
				u.read = true
				for _, param := range get.Parameters {
					u.query = append(u.query, param.Name)
				}
			}
		}
		if path.Post == nil {
			continue
		}
		u.write = true
		for _, content := range path.Post.RequestBody.Content {
			s := content.Schema
			if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
				s = help.OpenAPI.Components.Schemas[name]
			}
			for name := range s.Properties {
				u.body = append(u.body, name)
			}
		}
	}
	return u, nil
}

// operation is a part of OpenAPI 3, and so is schema.
type operation struct {
	Parameters []struct {
		Name     string `json:"name"`
		Required bool   `json:"required"`
	} `json:"parameters"`
	RequestBody struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
}

type schema struct {
	Ref        string                     `json:"$ref"`
	Properties map[string]json.RawMessage `json:"properties"`
}

// judge chooses between a read with a query and a write, by the capability that it takes. A path that is both read and
// written holds settings of the engine, unless people know better, and those are not for a start to change.
func (u usage) judge(p Path, e Engine) (capability string, f *fault.Error) {
	names := make([]string, 0, 8)
	for name := range p.fields() {
		names = append(names, name)
	}
	slices.Sort(names)
	unknown := func(taken []string) string {
		if i := slices.IndexFunc(names, func(n string) bool { return !slices.Contains(taken, n) }); i >= 0 {
			return names[i]
		}
		return ""
	}
	switch {
	case !u.known && making.hold(e, p):
		return "update", nil
	case !u.known:
		return "", fieldsRefused(p, "Vault does not say whether the path takes fields",
			"a proxy in front of Vault may block ?help=1: allow it for this path")
	case !u.read && !u.write:
		f := &fault.Error{Kind: fault.Missing, Cause: fault.Unsupported, What: cannotRead(p), Why: whyUnsupported}
		notReadable(f, e, p)
		return "", f
	case u.read && unknown(u.query) == "":
		return "read", nil
	case u.read && u.write && !making.hold(e, p):
		return "", fieldsRefused(p, "the path holds settings that fields would change",
			"leave them out to read it; `vault write` changes settings of the engine")
	case !u.write && len(u.query) == 0:
		return "", fieldsRefused(p, "the path takes no fields", "leave them out, or "+hintQuestion)
	}
	taken := u.body
	if !u.write {
		taken = u.query
	}
	if name := unknown(taken); name != "" {
		slices.Sort(taken)
		hint := "it takes: " + strings.Join(slices.Compact(taken), ", ")
		if near := Nearest(name, taken); near != "" {
			hint = fmt.Sprintf("did you mean %q? ", near) + hint
		}
		return "", fieldsRefused(p, fmt.Sprintf("the path takes no field %q", name), hint)
	}
	return "update", nil
}
