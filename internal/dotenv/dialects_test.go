package dotenv

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	compose "github.com/compose-spec/compose-go/v2/dotenv"
)

// dialect is one line, and what each reader makes of it: testdata/dialects.json was written by running Node's dotenv (npm, 2026-11),
// python-dotenv 0.21.0, Ruby's dotenv 2.4.0 and compose-go, with an empty environment. {"error": true} is a refusal.
type dialect struct {
	Line                        string
	Compose, Node, Python, Ruby map[string]any
}

func dialects(t *testing.T) []dialect {
	b, err := os.ReadFile("testdata/dialects.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []dialect
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// texts turns a reader's outcome into variables; ok is false for a refusal or a variable without a value.
func texts(m map[string]any) (vars map[string]string, ok bool) {
	vars = map[string]string{}
	for k, v := range m {
		s, isText := v.(string)
		if !isText {
			return nil, false
		}
		vars[k] = s
	}
	return vars, true
}

// Where import takes a line, it makes of it what Docker Compose does, but that a $ stays as it is written; and never what no reader
// makes of it. What the readers agree about is taken.
func TestDialects(t *testing.T) {
	t.Parallel()
	taken := 0
	for _, d := range dialects(t) {
		got, err := Parse(d.Line, Options{})
		all := []map[string]any{d.Compose, d.Node, d.Python, d.Ruby}
		agree := true
		for _, m := range all {
			want, ok := texts(m)
			first, _ := texts(d.Compose)
			agree = agree && ok && maps.Equal(want, first)
		}
		if err != nil {
			if agree && !strings.Contains(d.Line, "A.B") { // a name that no variable has
				t.Errorf("%q is refused, and all readers agree about it: %v", d.Line, err)
			}
			continue
		}
		taken++
		known := false
		for _, m := range all {
			want, ok := texts(m)
			known = known || ok && maps.Equal(want, got)
		}
		if !known {
			t.Errorf("%q: %s, which no reader makes of it", d.Line, show(got))
		}
		if want, ok := texts(d.Compose); ok && !strings.Contains(d.Line, "$") && !strings.Contains(d.Line, "\ufeff") && !maps.Equal(want, got) {
			t.Errorf("%q: %s, and Compose makes %s of it", d.Line, show(got), show(want))
		}
	}
	if taken < 25 {
		t.Errorf("only %d lines are taken", taken)
	}
}

// composeReads is what the parser of Docker Compose makes of a file; ok is false when it refuses it, or asks the caller's environment.
func composeReads(src string) (vars map[string]string, ok bool) {
	ok = true
	vars, err := compose.UnmarshalWithLookup(src, func(string) (string, bool) { ok = false; return "", false })
	return vars, ok && err == nil
}

// The recorded outcomes of Compose are those of its parser.
func TestComposeDialect(t *testing.T) {
	t.Parallel()
	for _, d := range dialects(t) {
		want, ok := texts(d.Compose)
		got, err := compose.UnmarshalWithLookup(d.Line, func(string) (string, bool) { return "", false })
		if ok != (err == nil) || ok && !maps.Equal(got, want) {
			t.Errorf("%q: %s, %v; recorded %s", d.Line, show(got), err, show(want))
		}
	}
}

// likeCompose compares what is made of a file here with what Compose makes of it. A $ is left out, for it is not expanded here, and so
// are names that no variable has.
func likeCompose(t *testing.T, src string) (taken bool) {
	t.Helper()
	src = strings.NewReplacer("$", "S", "\x00", "0", "\ufeff", "B").Replace(src)
	if !utf8.ValidString(src) {
		return false
	}
	want, ok := composeReads(src + "\n")
	for name, value := range want {
		ok = ok && isName(name) && !strings.ContainsRune(value, 0)
	}
	got, err := Parse(src, Options{Dialect: "compose"})
	if err != nil && strings.Contains(err.Error(), "a comment or a value?") {
		return false
	}
	if ok != (err == nil) || ok && !maps.Equal(got, want) {
		t.Fatalf("%q: %s, %v; Compose makes of it %s, %v", src, show(got), err, show(want), ok)
	}
	return ok
}

// What Compose reads is read here, and comes out the same; what it refuses is refused.
func TestLikeCompose(t *testing.T) {
	t.Parallel()
	taken := 0
	for range 20000 {
		var src strings.Builder
		for range rand.IntN(12) {
			src.WriteString(pieces[rand.IntN(len(pieces))])
		}
		if likeCompose(t, src.String()) || likeCompose(t, "A=\""+src.String()+"\"") {
			taken++
		}
	}
	if taken < 2000 {
		t.Errorf("only %d files were taken", taken)
	}
}

func FuzzLikeCompose(f *testing.F) {
	for _, p := range pieces {
		f.Add("export A=" + p + "x\nB=\"" + p + "\" # c\nC='" + p + "'")
	}
	f.Fuzz(func(t *testing.T, src string) { likeCompose(t, src) })
}

// A dialect that is named reads as its reader does, but that a $ stays as it is written, and that nothing is passed over.
func TestDialectNamed(t *testing.T) {
	t.Parallel()
	taken := map[string]int{}
	for _, d := range dialects(t) {
		for name, recorded := range map[string]map[string]any{"compose": d.Compose, "node": d.Node, "python": d.Python, "ruby": d.Ruby} {
			got, err := Parse(d.Line, Options{Dialect: name})
			if err != nil {
				continue
			}
			taken[name]++
			want, ok := texts(recorded)
			if strings.Contains(d.Line, "$") && (name != "node" || strings.Contains(d.Line, `\$`)) || strings.Contains(d.Line, "\ufeff") {
				continue
			}
			if !ok || !maps.Equal(want, got) {
				t.Errorf("%s reads %q as %s, and the real one as %v", name, d.Line, show(got), recorded)
			}
		}
	}
	for name, least := range map[string]int{"compose": 30, "node": 32, "python": 32, "ruby": 30} {
		if taken[name] < least {
			t.Errorf("%s takes %d lines", name, taken[name])
		}
	}
	for _, name := range []string{"node", "python", "ruby"} {
		got, err := Parse("# c\n\nexport A='x' # c\nB=\"y\"\n\nC=z", Options{Dialect: name})
		if err != nil || show(got) != `A="x" B="y" C="z"` {
			t.Errorf("%s: %s, %v", name, show(got), err)
		}
		if _, err := Parse("A=1\nno assignment\n", Options{Dialect: name}); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s passes a line over: %v", name, err)
		}
	}
}

// What is refused names its line and its variable, and never the value.
func TestUnclearLines(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]Error{
		"X=1\nA=x\rB=2\rC=3":                    {Line: 2},
		"A=1\rB=2":                              {Line: 1},
		"X=1\n\nA=foo\t# comment":               {Line: 3, Names: []string{"A"}},
		"A=foo\u00a0# comment":                  {Line: 1, Names: []string{"A"}},
		"X=\"two\nlines\"\nA=`a b`":             {Line: 3, Names: []string{"A"}},
		"A=`a` # c":                             {Line: 1, Names: []string{"A"}},
		"export A=\"ab\\0cd\"":                  {Line: 1, Names: []string{"A"}},
		"X='\n\n'\nA=\"first\nsecond \\\\\\7\"": {Line: 4, Names: []string{"A"}},
	} {
		_, err := Parse(src, Options{})
		var e *Error
		if !errors.As(err, &e) || e.Line != want.Line || strings.Join(e.Names, "") != strings.Join(want.Names, "") {
			t.Errorf("%q: %v, want line %d of %v", src, err, want.Line, want.Names)
		}
	}
	for _, src := range []string{"A='ab\\0cd'", "A=\"ab\\\\0cd\"", "A='`a b`'", "A=\"foo\t# no comment\"", "A=foo # a\tcomment #", "A=a`b", "A=x\r\nB=2\r\n", "A='x\ry'", "A=ab\\0cd"} {
		if _, err := Parse(src, Options{}); err != nil {
			t.Errorf("%q: %v", src, err)
		}
	}
}

var update = flag.Bool("update", false, "write the table of docs/dotenv.md anew")

// The table in docs/dotenv.md is that of the recorded outcomes, and of Parse.
func TestDialectTable(t *testing.T) {
	t.Parallel()
	const file, begin = "../../docs/dotenv.md", "| line | Compose | Node | Python | Ruby | import |\n|---|---|---|---|---|---|\n"
	cell := func(m map[string]any) string {
		vars, ok := texts(m)
		if !ok {
			return "refused"
		}
		if len(vars) == 0 {
			return "nothing"
		}
		if v, only := vars["A"]; only && len(vars) == 1 {
			if v == "" {
				return "empty"
			}
			return "`` " + strings.Trim(strconv.QuoteToASCII(v), `"`) + " ``"
		}
		return "`` " + strings.ReplaceAll(show(vars), "\\\\", "\\") + " ``"
	}
	var table strings.Builder
	table.WriteString(begin)
	for _, d := range dialects(t) {
		got := map[string]any{"error": true}
		if vars, err := Parse(d.Line, Options{}); err == nil {
			got = map[string]any{}
			for k, v := range vars {
				got[k] = v
			}
		}
		line := strings.NewReplacer("\n", "⏎", "\r", "␍", "\t", "⇥", "\ufeff", "(byte order mark)").Replace(d.Line)
		table.WriteString(strings.ReplaceAll(fmt.Sprintf("`` %s `` ~ %s ~ %s ~ %s ~ %s ~ %s", line, cell(d.Compose), cell(d.Node), cell(d.Python), cell(d.Ruby), cell(got)), " ~ ", " | ") + " |\n")
	}
	text := strings.ReplaceAll(table.String(), "\n`` ", "\n| `` ")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(b), begin)
	if !ok {
		t.Fatal("docs/dotenv.md has no table")
	}
	if want := before + text; string(b) != want {
		if !*update {
			t.Fatal("the table of docs/dotenv.md is another: go test ./internal/dotenv -run TestDialectTable -update")
		}
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
