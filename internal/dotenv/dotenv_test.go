package dotenv

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unicode/utf8"
)

// show writes a map so that a failing test tells what it got.
func show(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%q ", k, m[k])
	}
	return strings.TrimSpace(b.String())
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"A=plain", `A="plain"`},
		{"export A=x\n\texport\tB=y", `A="x" B="y"`},
		{"exportA=x", `exportA="x"`},
		{`A="two words"`, `A="two words"`},
		{"A=two words", `A="two words"`},
		{`A='single $VAR ${X} \n'`, `A="single $VAR ${X} \\n"`},
		{"A=\"multi\nline\"\nB=1", `A="multi\nline" B="1"`},
		{"A='multi\nline'", `A="multi\nline"`},
		{"A=a#b", `A="a#b"`},
		{"A=#x", `A="#x"`},
		{"A=a # c", `A="a"`},
		{`A="a # b" # c`, `A="a # b"`},
		{`A='#' # c`, `A="#"`},
		{"A=http://u:p@h/#frag?x=y", `A="http://u:p@h/#frag?x=y"`},
		{"A=", `A=""`},
		{"A=''\nB=\"\"", `A="" B=""`},
		{"A='' # c", `A=""`},
		{"A=pa$$word", `A="pa$$word"`},
		{"A=pa$1b${X}c$", `A="pa$1b${X}c$"`},
		{`A="pa$1b${X:-d}c$"`, `A="pa$1b${X:-d}c$"`},
		{`A="\$5 \\ \" \n \t \q"`, `A="$5 \\ \" \n \t \\q"`},
		{`A=\$5`, `A="\\$5"`},
		{`A='\$5'`, `A="\\$5"`},
		{`A={"a":"b"}`, `A="{\"a\":\"b\"}"`},
		{`A='{"a":"$b"}'`, `A="{\"a\":\"$b\"}"`},
		{`A="-----BEGIN\nabc\n"`, `A="-----BEGIN\nabc\n"`},
		{`A=abc"def`, `A="abc\"def"`},
		{" A = spaced  ", `A="spaced"`},
		{"A=x\r\nB=\"y\"\r\n", `A="x" B="y"`},
		{"\ufeffA=bom", `A="bom"`},
		{"A=1\nA=2", `A="2"`},
		{"A: yaml", `A="yaml"`},
		{"# c\n\n  # d\nA=1\n#", `A="1"`},
		{`A="ends in a backslash\\"`, `A="ends in a backslash\\"`},
		{`A='it\'s'`, `A="it's"`},
		{"A=VAULTEXEC_DOLLAR$x", `A="VAULTEXEC_DOLLAR$x"`},
		{"A=${VAULTEXEC_DOLLAR}", `A="${VAULTEXEC_DOLLAR}"`},
		{"A=\ue000$", "A=\"\\ue000$\""},
		{"", ""},
	} {
		m, err := Parse(c.src, Options{})
		if err != nil || show(m) != c.want {
			t.Errorf("%q: %s, %v; want %s", c.src, show(m), err, c.want)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"A=1\nB=$A-${A}", `A="1" B="1-1"`},
		{"B=${A}\nA=later", `A="later" B="later"`},
		{"A=1\nB='${A}'", `A="1" B="${A}"`},
		{"A=1\nB=\"\\${A} ${A}\"", `A="1" B="${A} 1"`},
		{"B=$$A", `B="$A"`},
		{"B=${A-d}${C:-e}\nC=", `B="de" C=""`},
		{"B=${A:-}", `B=""`},
		{"B=5$", `B="5$"`},
		{"B=$5", `B="$5"`},
		{"P='a$b'\nB=${P}", `B="a$b" P="a$b"`},
		{"P='a${b}'\nB=\"${P}\"", `B="a${b}" P="a${b}"`},
	} {
		m, err := Parse(c.src, Options{Expand: true})
		if err != nil || show(m) != c.want {
			t.Errorf("%q: %s, %v; want %s", c.src, show(m), err, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	const secret = "s3cr3t"
	for _, c := range []struct{ src, want string }{
		{"A=1\n" + secret, "line 2: there is no ="},
		{`A="a"` + secret, "line 1: there is no ="},
		{"A=1\n" + secret + "/x\n", "line 2: it cannot be read"},
		{"A=1\nB=\"" + secret, "line 2: a quote is not closed"},
		{"A='" + secret + "'\"'\"'x'", "line 1: it cannot be read"},
		{"A= # " + secret, "A: a comment or a value?"},
		{"A.b=" + secret, `"A.b": names are`},
		{"1A=" + secret, `"1A": names are`},
		{"=" + secret, "names are"},
		{"A=\xff" + secret, "not UTF-8"},
		{"A=\x00" + secret, "NUL"},
	} {
		m, err := Parse(c.src, Options{})
		if err == nil {
			t.Errorf("%q: %s, want an error", c.src, show(m))
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want %s", c.src, err, c.want)
		}
	}
	for src, want := range map[string]string{
		"A=${B}" + secret:         "A: it refers to B, which is not in the file",
		"A=${B}\nB=${A}" + secret: "refers to itself",
		"A=${B" + secret:          "not understood",
		"A=${B:?" + secret + "}":  "not understood",
	} {
		_, err := Parse(src, Options{Expand: true})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want %s", src, err, want)
		}
	}
}

// Each line doubles the one before: the last would be 2^40 characters long.
func TestExpandIsBounded(t *testing.T) {
	src := "A0=x\n"
	for i := range 40 {
		src += fmt.Sprintf("A%d=${A%d}${A%d}\n", i+1, i, i)
	}
	if _, err := Parse(src, Options{Expand: true}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Fatal(err)
	}
}

func TestLargeFile(t *testing.T) {
	m := map[string]string{"A": strings.Repeat("$", 1<<16), "B": strings.Repeat(`\"`, 1<<16), "C": strings.Repeat("line\n", 1<<16)}
	start := time.Now()
	got, err := Parse(print(m), Options{})
	if err != nil || !maps.Equal(got, m) {
		t.Fatal("not the same", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Fatalf("it took %v", d)
	}
	t.Log(time.Since(start))
}

// print writes a map as a .env file.
func print(m map[string]string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=\"%s\"\n", k, escape.Replace(m[k]))
	}
	return b.String()
}

// plain is print in single quotes, where nothing but the quote and the backslash before one need care; ok says whether the
// dialect can write the values like this at all.
func plain(m map[string]string) (text string, ok bool) {
	var b strings.Builder
	for k, v := range m {
		if strings.ContainsAny(v, `'\`) {
			return "", false
		}
		fmt.Fprintf(&b, "export %s='%s' # comment\n", k, v)
	}
	return b.String(), true
}

func checkRoundTrip(t *testing.T, m map[string]string) {
	t.Helper()
	text := print(m)
	for _, o := range []Options{{}, {Expand: true}} {
		got, err := Parse(text, o)
		if err != nil || !maps.Equal(got, m) {
			t.Fatalf("%s\nbecame %s, %v\nby way of %s", show(m), show(got), err, text)
		}
	}
	if text, ok := plain(m); ok {
		if got, err := Parse(text, Options{Expand: true}); err != nil || !maps.Equal(got, m) {
			t.Fatalf("%s\nbecame %s, %v\nby way of %s", show(m), show(got), err, text)
		}
	}
}

// Values that are made of what a parser may stumble over are more telling than random characters.
var pieces = []string{"$", "${", "}", "{", `\`, `"`, "'", "\n", "\r\n", "\r", "#", " #", " ", "\t", "=", ":", "export ", "A", "$A", "${A}", "${A:-x}",
	"VAULTEXEC_DOLLAR", "${VAULTEXEC_DOLLAR}", "\ue000", "n", "é", "😀", "`", "$(x)", "$$", `\n`, `\$`, "0", `\0`, `\0101`, `\0999`, "=\"", "\"\n", "\u2003", "[", ".", "\u0085", "\u00a0", "\ufeff", "-----BEGIN-----"}

func TestRoundTrip(t *testing.T) {
	if err := quick.Check(func(values []string) bool {
		m := map[string]string{}
		for i, v := range values {
			if v = strings.ToValidUTF8(strings.ReplaceAll(v, "\x00", ""), ""); v != "" || i%2 == 0 {
				m[fmt.Sprintf("K_%d", i)] = v
			}
		}
		checkRoundTrip(t, m)
		return true
	}, &quick.Config{MaxCount: 300}); err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		m := map[string]string{}
		for i := range 1 + rand.IntN(4) {
			var v strings.Builder
			for range rand.IntN(8) {
				v.WriteString(pieces[rand.IntN(len(pieces))])
			}
			m[string(rune('A'+i))] = v.String()
		}
		checkRoundTrip(t, m)
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, p := range pieces {
		f.Add(p + "x" + p)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			t.Skip()
		}
		checkRoundTrip(t, map[string]string{"A": v, "B": "$A" + v})
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"A=1", "export A='x'\nB=\"a\\nb\" # c\n", "A: b", "A", "\"", "A=\"", "A=${B}\nB=$A", "=", "A= #", "[A]=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		for _, o := range []Options{{}, {Expand: true}} {
			m, err := Parse(src, o)
			if (err == nil) == (m == nil) {
				t.Fatalf("%q: %s, %v", src, show(m), err)
			}
			for k, v := range m {
				if !isName(k) || strings.ContainsRune(v, 0) || strings.Contains(v, "VAULTEXEC_DOLLAR") && !strings.Contains(src, "VAULTEXEC_DOLLAR") {
					t.Fatalf("%q: %s", src, show(m))
				}
			}
		}
	})
}
