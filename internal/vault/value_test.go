package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

func valueOf(t *testing.T, raw string) Value {
	t.Helper()
	var m map[string]Value
	if err := json.Unmarshal([]byte(`{"k":`+raw+`}`), &m); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return m["k"]
}

func TestValueText(t *testing.T) {
	for raw, want := range map[string]string{
		`""`: "", `"a\nb\n"`: "a\nb\n", `"  lead"`: "  lead", `"\u003ca\u003e \u0026"`: "<a> &", `"\u0000"`: "\x00", `"\ud83d\udd11"`: "🔑", `"=\"'$()"`: `="'$()`,
		`1`: "1", `-0`: "-0", `1.10`: "1.10", `1e3`: "1e3", `12345678901234567890`: "12345678901234567890", ` 7 `: "7",
		`true`: "true", `false`: "false",
		`{}`: "{}", `[]`: "[]", `{ "b" : 1.10 , "a" : [ 1.0 , "\u003c" ] }`: `{"a":[1.0,"<"],"b":1.10}`, `[null,true,"\n"]`: `[null,true,"\n"]`,
	} {
		got, err := valueOf(t, raw).Text()
		if err != nil || got.Reveal() != want {
			t.Errorf("%s becomes %q, %v; want %q", raw, got.Reveal(), err, want)
		}
	}
	if _, err := valueOf(t, `null`).Text(); !errors.Is(err, ErrNull) {
		t.Errorf("null gives %v", err)
	}
	for _, raw := range []string{`"unterminated`, `{"a":`, `"\q"`} {
		if _, err := holdValue([]byte(raw)).Text(); err == nil || strings.Contains(err.Error(), "a") && strings.Contains(err.Error(), raw) {
			t.Errorf("%s gives %v", raw, err)
		}
	}
}

// TestSecretTypesHide: no way of printing shows what is inside.
func TestSecretTypesHide(t *testing.T) {
	const secret = "s3cr3t-inside"
	v := valueOf(t, `"`+secret+`"`)
	text := NewText(secret)
	auth := Auth{ClientToken: text, Accessor: text}
	var buf strings.Builder
	log := slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	log.Debug("x", "text", text, "value", v, "any", map[string]any{"t": text, "v": v})
	for _, x := range []any{v, &v, text, &text, auth, &auth, []Value{v}, map[string]Text{"k": text}, struct{ T Text }{text}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&buf, verb, x)
		}
		fmt.Fprintln(&buf, x)
		if _, ok := x.(Auth); !ok {
			if b, err := json.Marshal(x); err == nil && !strings.Contains(fmt.Sprintf("%T", x), "Auth") {
				buf.Write(b)
			}
		}
	}
	out := buf.String()
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%v", []byte(secret))} {
		if strings.Contains(out, form) {
			t.Errorf("%s is printed", form)
		}
	}
}

// FuzzValue: strings come out as encoding/json reads them, numbers byte for byte, everything else as valid compact JSON.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`""`, `"a\u003c"`, `1.10`, `-1e-400`, `true`, `null`, `{"a":[1.0]}`, `[ ]`, `"\ud800"`, `{"a":{"a":{}}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m map[string]Value
		if json.Unmarshal([]byte(`{"k":`+string(raw)+`}`), &m) != nil || len(m) != 1 {
			return
		}
		v, ok := m["k"]
		if !ok {
			return
		}
		text, err := v.Text()
		s := text.Reveal()
		var x any
		if v.into(&x) != nil {
			return
		}
		switch x := x.(type) {
		case nil:
			if !errors.Is(err, ErrNull) {
				t.Errorf("%s: %v", raw, err)
			}
			return
		case string:
			if s != x || !utf8.ValidString(s) {
				t.Errorf("%s: %q", raw, s)
			}
		case float64, bool:
			if s != strings.TrimSpace(string(v.raw())) {
				t.Errorf("%s: %q", raw, s)
			}
		default:
			if !json.Valid([]byte(s)) || strings.Contains(s, `\u003c`) || strings.ContainsAny(s, "\n") {
				t.Errorf("%s: %q", raw, s)
			}
		}
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	})
}

// Large objects and lists come out as small ones do.
func TestLargeValueText(t *testing.T) {
	small := `{"a":[1.10,"<",{}, [],null ,{"x":[[true],false]}],"b":"\u0026\n","c":{"d":"e", "f":[]}}`
	want, err := valueOf(t, small).Text()
	if err != nil {
		t.Fatal(err)
	}
	n := largeTree/len(small) + 1
	got, err := valueOf(t, "["+strings.Repeat(small+" , ", n)+small+"]").Text()
	if err != nil || got.Reveal() != "["+strings.Repeat(want.Reveal()+",", n)+want.Reveal()+"]" {
		t.Errorf("not the same, %v", err)
	}
	for _, cut := range []string{"", "]", "1", `"`} {
		if _, err := holdValue([]byte("[" + strings.Repeat("1,", largeTree) + cut)).Text(); err == nil && cut != "" && cut != "]" {
			t.Errorf("a list that ends in %q is taken", cut)
		}
	}
}
