package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Hidden is what a secret prints as, whatever it is printed with.
const Hidden = "***"

// Text is a secret string that refuses to be printed. Only Reveal gives it away. The zero Text is the empty one.
//
// A function holds it, because methods alone do not keep it: fmt and log/slog call no method of what stands in an
// unexported field, and print what reflection finds there. Of a function reflection finds the address of its code,
// which is the same for every Text. It also keeps == from being compiled, which would compare something else: see
// Equal.
//
// Plain strings remain where somebody else wants them as they are: environments (the kernel's), request headers
// (vault/api's), an address with a user's password in it, a role id among the settings, and what --mask looks for and
// has read.
type Text struct{ held func() string }

// NewText makes a Text of s.
func NewText(s string) Text {
	if s == "" {
		return Text{}
	}
	return Text{func() string { return s }}
}

// Reveal returns the secret itself.
func (t Text) Reveal() string {
	if t.held == nil {
		return ""
	}
	return t.held()
}

// Empty reports whether the secret is the empty string.
func (t Text) Empty() bool { return t.held == nil }

// Equal reports whether both are the same secret. How long it takes depends on them: neither side is anybody's to
// choose and try.
func (t Text) Equal(o Text) bool { return t.Reveal() == o.Reveal() }

// String returns "***".
func (t Text) String() string { return Hidden }

// GoString returns "***".
func (t Text) GoString() string { return Hidden }

// Format prints "***" for every verb.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Hidden)) }

// MarshalJSON gives "***".
func (t Text) MarshalJSON() ([]byte, error) { return []byte(`"` + Hidden + `"`), nil }

// LogValue gives "***".
func (t Text) LogValue() slog.Value { return slog.StringValue(Hidden) }

// Value is the text as a JSON string.
func (t Text) Value() Value {
	raw, _ := json.Marshal(t.Reveal()) // never fails
	return holdValue(raw)
}

// UnmarshalJSON takes a JSON string. A null is the empty one, as for a string.
func (t *Text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return errors.New("not a JSON string") // the error may quote the value
	}
	*t = NewText(s)
	return nil
}

// Value is one value of a secret as Vault sent it, or more of an answer: JSON. It refuses to be printed, and to be
// compared, like Text.
type Value struct{ held func() []byte }

// holdValue makes a Value of JSON, without a copy.
func holdValue(raw []byte) Value {
	if len(raw) == 0 {
		return Value{}
	}
	return Value{func() []byte { return raw }}
}

// raw is the JSON itself, nil of the zero Value.
func (v Value) raw() json.RawMessage {
	if v.held == nil {
		return nil
	}
	return v.held()
}

// into decodes the JSON. Whatever does not fit is an error whose text may quote the value.
func (v Value) into(x any) error { return json.Unmarshal(v.raw(), x) }

// String returns "***".
func (v Value) String() string { return Hidden }

// GoString returns "***".
func (v Value) GoString() string { return Hidden }

// Format prints "***" for every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Hidden)) }

// MarshalJSON gives "***".
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Hidden + `"`), nil }

// LogValue gives "***".
func (v Value) LogValue() slog.Value { return slog.StringValue(Hidden) }

// UnmarshalJSON keeps the JSON as it stands.
func (v *Value) UnmarshalJSON(b []byte) error {
	*v = holdValue(bytes.Clone(b))
	return nil
}

// ErrNull is returned by Text for a JSON null.
var ErrNull = errors.New("null")

// Text turns the value into the string that a variable holds: strings unchanged, numbers as the literal that Vault
// sent, booleans as true and false, objects and lists as compact JSON without HTML escaping. A null is ErrNull.
func (v Value) Text() (Text, error) {
	raw := bytes.TrimSpace(v.raw())
	if len(raw) == 0 {
		return Text{}, ErrNull
	}
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return Text{}, errors.New("not valid JSON") // err may quote the value
		}
		return NewText(s), nil
	case '{', '[':
		return compact(raw)
	case 'n':
		return Text{}, ErrNull
	}
	return NewText(string(raw)), nil
}

// Items are the items of a list, and whether the value is one.
func (v Value) Items() (items []Value, isList bool) {
	raw := bytes.TrimSpace(v.raw())
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		return nil, false
	}
	return items, true
}

// compact re-encodes an object or list. Vault sends <, > and & as \u003c and so on; json.Compact would keep that.
func compact(raw []byte) (Text, error) {
	var buf bytes.Buffer
	if err := respell(&buf, raw); err != nil {
		return Text{}, errors.New("not valid JSON")
	}
	return NewText(buf.String()), nil
}

// largeTree is the length from which on JSON is not made into a tree: a list of a million numbers would take fifty
// times its length.
const largeTree = 64 << 10

// respell writes JSON anew, the keys of objects sorted. Above largeTree it goes token by token, and the order is the
// server's (Vault sorts, too).
func respell(buf *bytes.Buffer, raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	w := respeller{buf: buf, enc: enc, levels: []level{{}}}
	if len(raw) < largeTree {
		var x any
		if err := dec.Decode(&x); err != nil {
			return err
		}
		return w.encode(x)
	}
	for {
		tok, err := dec.Token()
		if err == io.EOF && w.complete() {
			return nil
		}
		if err == nil {
			err = w.token(tok)
		}
		if err != nil {
			return err
		}
	}
}

// respeller writes JSON token by token.
type respeller struct {
	buf    *bytes.Buffer
	enc    *json.Encoder
	levels []level
}

// level is an object or a list that is open.
type level struct {
	object bool
	count  int // tokens so far; those of an object are keys and values in turns
}

// complete reports whether one value was written, whole.
func (w *respeller) complete() bool { return len(w.levels) == 1 && w.levels[0].count == 1 }

func (w *respeller) token(tok json.Token) error {
	d, delim := tok.(json.Delim)
	if d == '}' || d == ']' {
		w.buf.WriteString(d.String())
		w.levels = w.levels[:len(w.levels)-1]
		return nil
	}
	switch at := &w.levels[len(w.levels)-1]; {
	case at.object && at.count%2 == 1:
		w.buf.WriteByte(':')
	case at.count > 0:
		w.buf.WriteByte(',')
	}
	w.levels[len(w.levels)-1].count++
	if delim {
		w.buf.WriteString(d.String())
		w.levels = append(w.levels, level{object: d == '{'})
		return nil
	}
	return w.encode(tok)
}

// encode writes a value without the encoder's line break.
func (w *respeller) encode(x any) error {
	if err := w.enc.Encode(x); err != nil {
		return err
	}
	w.buf.Truncate(w.buf.Len() - 1)
	return nil
}
