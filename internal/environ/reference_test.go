package environ

import (
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

func TestParseVariable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ value, want string }{
		{"vault:database#KEY", "m/database#KEY"},
		{"vault:database@3#KEY", "m/database@3#KEY"},
		{"vault:/agenticverz/database#KEY", "agenticverz/database#KEY"},
		{"vault:/team/kv/database#KEY", "team/kv/database#KEY"},
		{"vault:team/database#KEY", "m/team/database#KEY"},
		{"vault:secret/data/x#KEY", "secret/x#KEY"},
		{"vault:team/kv/data/a/b#KEY#12", "team/kv/a/b@12#KEY"},
		{"vault:secret/data/a/data/b#KEY", "secret/a/data/b#KEY"},
		{"vault:/secret/data/x#KEY", "secret/data/x#KEY"},
		{"vault:data/x#KEY", "m/data/x#KEY"},
		{"vault:x#with#hash", "m/x#with#hash"},
		{"a${vault:x#K|url|json}b${vault:/y/z#L}c", "[a]m/x#K|url|json[b]y/z#L[c]"},
		{"${vault:x#K}", "m/x#K"},
		{"${vault:x%7Cy%7D#K%7C}", "m/x|y}#K|"},
		{"${HOME} $${vault:x#K} $$${vault:x#K}", "[${HOME} ${vault:x#K} $]m/x#K"},
		{"vaultage", "text vaultage"},
		{"", "text "},
		{"$${vault:x#K} ${x", "text ${vault:x#K} ${x"},
		{"vault:", "error"}, {"vault:x", "error"}, {"vault:#K", "error"}, {"vault:x#", "error"}, {"vault:/x#K", "error"}, {"vault:a//b#K", "error"}, {"vault:../x#K", "error"},
		{"vault:secret/data/x#K#v1", "error"}, {"vault:secret/data/x#K#0", "error"}, {"vault:secret/data/x#K#07", "error"}, {"vault:secret/data/x#K#", "error"}, {"vault:secret/data/x#K#1#2", "error"}, {"vault:secret/data//x#K", "error"}, {"vault:secret/data/x#${.K}", "error"},
		{"vault:/data/x", "error"}, {"vault:x/../data/y#K", "error"},
		{">>vault:secret/data/x#{}", "error"}, {"a${>>vault:x#{}}", "error"}, {"vault:v1:abc=", "error"},
		{"a${vault:x#K", "error"}, {"a${vault:x}", "error"}, {"a${vault:x#K|}", "error"}, {"a${vault:x#K|upper}", "error"}, {"${vault:v1:abc}", "error"},
	} {
		sources, text, err := ParseVariable("NAME", c.value, "m")
		got := "text " + text
		switch {
		case err != nil:
			got = "error"
			if e := fault.Of(err); e.Kind != fault.Usage || e.What != "cannot resolve NAME" || e.Why == "" || e.Hint == "" {
				t.Errorf("%q: %+v", c.value, e)
			}
		case len(sources) > 0:
			got = written(sources)
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.value, got, c.want)
		}
	}
}

// written is a row of sources in one line.
func written(sources []Source) string {
	var b strings.Builder
	for _, s := range sources {
		if s.Before.Reveal() != "" {
			b.WriteString("[" + s.Before.Reveal() + "]")
		}
		b.WriteString(strings.Join(append([]string{s.Path.String() + "#" + s.Key}, s.Filters...), "|"))
		if s.After.Reveal() != "" {
			b.WriteString("[" + s.After.Reveal() + "]")
		}
	}
	return b.String()
}

// FuzzReferences: every text gives sources that hang together and that build what was written, or an error that does not
// repeat the value of a variable.
func FuzzReferences(f *testing.F) {
	for _, s := range []string{"vault:a#b", "${vault:a#b}", "x${a#b|url}y$${z}${c@2#d|json|base64|trim}$", "$$$${a#b}", "${", "${}", "${a#b", "vault:m/data/x#K#3", ">>vault:x", "vault:v1:x", "a}b${vault:%7D#%7C}|"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sources, err := ParseEnv("A="+s, "m"); err == nil {
			built(t, s, sources)
		} else if fault.Of(err).Kind != fault.Usage {
			t.Errorf("%q: %v", s, err)
		}
		sources, text, err := ParseVariable("A", s, "m")
		switch {
		case err != nil:
			e := fault.Of(err)
			if len(s) > 30 && strings.Contains(e.Error()+e.Hint, s) {
				t.Errorf("the error repeats %q", s)
			}
		case len(sources) > 0:
			built(t, s, sources)
		case text != s && !strings.Contains(s, "$${vault:"):
			t.Errorf("%q became %q", s, text)
		}
	})
}

// built makes the value of secrets whose every key is "V", and compares it with what the sources say.
func built(t *testing.T, s string, sources []Source) {
	t.Helper()
	var got []Fetched
	want := ""
	for i, src := range sources {
		if src.Name != "A" || src.Key == "" || src.More != (i < len(sources)-1) || src.After.Reveal() != "" && src.More {
			t.Fatalf("%q: source %d: %+v", s, i, src)
		}
		got = append(got, Fetched{Source: src, Secret: &vault.Secret{Path: src.Path, Values: map[string]vault.Value{src.Key: value(t, `"V"`)}}})
		v := "V"
		for _, f := range src.Filters {
			v = filters[f](v)
		}
		want += src.Before.Reveal() + v + src.After.Reveal()
	}
	env, err := Build(got, Rules{}, nil)
	if err != nil {
		if strings.IndexByte(want, 0) < 0 && len(want) < 1<<16 {
			t.Fatalf("%q: %v", s, err)
		}
		return
	}
	if len(env.Vars) != 1 || env.Vars[0].Value.Reveal() != want {
		t.Fatalf("%q: %q, want %q", s, env.Strings(), want)
	}
}

func value(t *testing.T, json string) vault.Value {
	t.Helper()
	var v vault.Value
	if err := v.UnmarshalJSON([]byte(json)); err != nil {
		t.Fatal(err)
	}
	return v
}

// A text is set from all of its keys or not at all, and two texts of the same keys are two values.
func TestTexts(t *testing.T) {
	t.Parallel()
	secret := &vault.Secret{Path: vault.Path{Mount: "m", Name: "x"}, Values: map[string]vault.Value{
		"A": value(t, `"a"`), "N": value(t, `null`), "J": value(t, `{"b": 1}`), "Z": value(t, `"z\u0000"`),
	}}
	build := func(rules Rules, texts ...string) (string, error) {
		var got []Fetched
		for _, text := range texts {
			sources, err := ParseEnv(text, "m")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sources {
				g := Fetched{Source: s, Secret: secret}
				if s.Path.Name != "x" {
					g.Secret = nil // leased, and not read by a check
				}
				got = append(got, g)
			}
		}
		env, err := Build(got, rules, nil)
		if err != nil {
			return "", err
		}
		return strings.Join(env.Strings(), " "), nil
	}
	for _, c := range []struct {
		rules Rules
		texts []string
		want  string // or the error
	}{
		{Rules{}, []string{"X=1${x#A}2${x#A}3"}, "X=1a2a3"},
		{Rules{}, []string{"X=${x#J|json}", "Y=${x#Z|base64}"}, `X="{\"b\":1}" Y=egA=`},
		{Rules{}, []string{"X=${x#Z|json}"}, `X="z\u0000"`},
		{Rules{}, []string{"X=${x#Z}"}, "cannot use m/x#Z: the value holds a NUL byte, which no variable can"},
		{Rules{}, []string{"X=${x#B}${x#C}", "Y=x#A"}, "cannot use m/x#B: no such key; cannot use m/x#C: no such key"},
		{Rules{}, []string{"X=${x#A}${x#N}", "Y=${x#A}"}, "cannot use m/x#N: the value is null"},
		{Rules{NullAsEmpty: true}, []string{"X=${x#A}${x#N}"}, "X=a"},
		{Rules{}, []string{"X=${x#A}${lease#P}", "Y=${x#A}-${x#A}"}, "Y=a-a"},
		{Rules{}, []string{"X=${x#A}", "X=x#A"}, "X=a"},
		{Rules{}, []string{"X=1${x#A}", "X=${x#A}1"}, "cannot set X: both m/x#A and m/x#A give it"},
		{Rules{}, []string{"X=${x#A|trim}", "X=${x#A}"}, "cannot set X: both m/x#A and m/x#A give it"},
		{Rules{OnCollision: CollisionLast}, []string{"X=1${x#A}", "X=${x#A}1"}, "X=a1"},
	} {
		got, err := build(c.rules, c.texts...)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.texts, got, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ filter, in, want string }{
		{"url", "aZ09-._~ /?#[]@!$&'()*+,;=%:é\n", "aZ09-._~%20%2F%3F%23%5B%5D%40%21%24%26%27%28%29%2A%2B%2C%3B%3D%25%3A%C3%A9%0A"},
		{"json", "a\"\\<&>\n\u2028é", `"a\"\\<&>\n\u2028é"`},
		{"base64", "ab?", "YWI/"},
		{"trim", " \t\n x y \r\n", "x y"},
	} {
		if got := filters[c.filter](c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.filter, got, c.want)
		}
	}
}

// TestLines: a list becomes its items, each with a line break at its end; a text gets one.
func TestLines(t *testing.T) {
	t.Parallel()
	secret := &vault.Secret{Path: vault.Path{Mount: "m", Name: "x"}, Values: map[string]vault.Value{
		"CHAIN": value(t, `["a<", "b\n", 3, {"c": [1]}]`), "TEXT": value(t, `"t"`), "ENDED": value(t, `"t\n"`), "NONE": value(t, `[]`), "EMPTY": value(t, `""`),
		"LOOKS": value(t, `"[\"a\"]"`), "NULL": value(t, `["a", null]`),
	}}
	for text, want := range map[string]string{
		"${x#CHAIN|lines}":                       "a<\nb\n3\n{\"c\":[1]}\n",
		"${x#TEXT|lines}${x#ENDED|lines}":        "t\nt\n",
		"${x#TEXT|lines}${x#CHAIN|lines|base64}": "t\nYTwKYgozCnsiYyI6WzFdfQo=",
		"${x#CHAIN|trim|lines}":                  "[\"a<\",\"b\\n\",3,{\"c\":[1]}]\n",
		"${x#NONE|lines}${x#EMPTY|lines}":        "",
		"${x#LOOKS|lines}":                       "[\"a\"]\n", // a text, whatever it looks like
		"${x#CHAIN}":                             "[\"a<\",\"b\\n\",3,{\"c\":[1]}]",
		"${x#NULL|lines}":                        "",
	} {
		sources, err := ParseEnv("A="+text, "m")
		if err != nil {
			t.Fatal(err)
		}
		var got []Fetched
		for _, s := range sources {
			got = append(got, Fetched{Source: s, Secret: secret})
		}
		env, err := Build(got, Rules{}, nil)
		switch {
		case strings.Contains(text, "NULL"):
			if !fault.Is(err, fault.Value) {
				t.Errorf("%s: %v", text, err)
			}
		case err != nil || env.Vars[0].Value.Reveal() != want:
			t.Errorf("%s: %v %v", text, env.Strings(), err)
		}
	}
}
