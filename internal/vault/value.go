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

// Text is a secret string that refuses to be printed. Only Reveal gives it away.
type Text struct{ s string }

// NewText makes a Text of s.
func NewText(s string) Text { return Text{s} }

// Reveal returns the secret itself.
func (t Text) Reveal() string { return t.s }

// Empty reports whether the secret is the empty string.
func (t Text) Empty() bool { return t.s == "" }

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

// Value is one value of a secret as Vault sent it: JSON. It refuses to be printed like Text.
type Value struct{ raw json.RawMessage }

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
	v.raw = append(v.raw[:0], b...)
	return nil
}

// ErrNull is returned by Text for a JSON null.
var ErrNull = errors.New("null")

// Text turns the value into the string that a variable holds: strings unchanged, numbers as the literal that Vault sent,
// booleans as true and false, objects and lists as compact JSON without HTML escaping. A null is ErrNull.
func (v Value) Text() (Text, error) {
	raw := bytes.TrimSpace(v.raw)
	if len(raw) == 0 {
		return Text{}, ErrNull
	}
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return Text{}, errors.New("not valid JSON") // err may quote the value
		}
		return Text{s}, nil
	case '{', '[':
		return compact(raw)
	case 'n':
		return Text{}, ErrNull
	}
	return Text{string(raw)}, nil
}

// compact re-encodes an object or list. Vault sends <, > and & as \u003c and so on; json.Compact would keep that.
func compact(raw []byte) (Text, error) {
	var buf bytes.Buffer
	if err := respell(&buf, raw); err != nil {
		return Text{}, errors.New("not valid JSON")
	}
	return Text{buf.String()}, nil
}

// largeTree is the length from which JSON is not made a tree of: a list of a million numbers would take fifty times its length.
const largeTree = 64 << 10

// respell writes JSON anew, the keys of objects sorted. Above largeTree it goes token by token, and the order is the server's
// (Vault sorts, too).
func respell(buf *bytes.Buffer, raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if len(raw) < largeTree {
		var x any
		if err := dec.Decode(&x); err != nil {
			return err
		}
		if err := enc.Encode(x); err != nil {
			return err
		}
		buf.Truncate(buf.Len() - 1) // the encoder's line break
		return nil
	}
	type level struct {
		object bool
		count  int // tokens so far; those of an object are keys and values in turns
	}
	levels := []level{{}}
	for {
		tok, err := dec.Token()
		if err == io.EOF && len(levels) == 1 && levels[0].count == 1 {
			return nil
		}
		if err != nil {
			return err
		}
		if tok == json.Delim('}') || tok == json.Delim(']') {
			buf.WriteString(tok.(json.Delim).String())
			levels = levels[:len(levels)-1]
			continue
		}
		at := &levels[len(levels)-1]
		switch {
		case at.object && at.count%2 == 1:
			buf.WriteByte(':')
		case at.count > 0:
			buf.WriteByte(',')
		}
		at.count++
		if d, ok := tok.(json.Delim); ok {
			buf.WriteString(d.String())
			levels = append(levels, level{object: d == '{'})
			continue
		}
		if err := enc.Encode(tok); err != nil {
			return err
		}
		buf.Truncate(buf.Len() - 1)
	}
}
