package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

// encoder writes a text in another way. None of them is the masker's own.
type encoder struct {
	name  string
	isBin bool // base64 or hexadecimal, of which only so many may lie within each other
	write func(r *rand.Rand, s string) string
}

func always(f func(string) string) func(*rand.Rand, string) string {
	return func(_ *rand.Rand, s string) string { return f(s) }
}

var encoders = []encoder{
	{"JSON", false, always(func(s string) string { b, _ := json.Marshal(s); return string(b) })},
	{"JSON without HTML", false, always(func(s string) string {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(s)
		return strings.TrimSuffix(b.String(), "\n")
	})},
	{"JSON in ASCII", false, always(strconv.QuoteToASCII)},
	{"Go", false, always(strconv.Quote)},
	{"HTML", false, always(html.EscapeString)},
	{"XML", false, always(func(s string) string { var b bytes.Buffer; _ = xml.EscapeText(&b, []byte(s)); return b.String() })},
	{"decimal references", false, always(func(s string) string {
		var b strings.Builder
		for _, r := range s {
			if r < 0x80 && r > ' ' && r != '&' && r != '"' {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, "&#%d;", r)
			}
		}
		return b.String()
	})},
	{"query", false, always(url.QueryEscape)},
	{"path", false, always(url.PathEscape)},
	{"SQL", false, always(func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" })},
	{"CSV", false, always(func(s string) string {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		_ = w.Write([]string{"a", s, "b"})
		w.Flush()
		return b.String()
	})},
	{"shell", false, always(func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" })},
	{"C in octal", false, always(func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
				fmt.Fprintf(&b, `\%03o`, c)
			} else {
				b.WriteByte(c)
			}
		}
		return b.String()
	})},
	{"Python bytes", false, always(func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			switch c := s[i]; {
			case c == '\n':
				b.WriteString(`\n`)
			case c < ' ' || c >= 0x7f:
				fmt.Fprintf(&b, `\x%02x`, c)
			case c == '\'' || c == '\\':
				b.WriteString(`\` + string(c))
			default:
				b.WriteByte(c)
			}
		}
		return "b'" + b.String() + "'"
	})},
	{"base64", true, always(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })},
	{"base64 of URLs", true, always(func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) })},
	{"hex", true, always(func(s string) string { return hex.EncodeToString([]byte(s)) })},
	{"HEX", true, always(func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) })},
	{"folded base64", true, func(r *rand.Rand, s string) string {
		return strings.Join(folded(base64.StdEncoding.EncodeToString([]byte(s)), 40+r.IntN(60)), []string{"\n", "\r\n", "\n  "}[r.IntN(3)])
	}},
	{"folded hex", true, func(r *rand.Rand, s string) string {
		return strings.Join(folded(hex.EncodeToString([]byte(s)), 40+r.IntN(60)), "\n")
	}},
}

// wide is base64 of UTF-16, as PowerShell takes commands. Only the innermost code may be that.
var wide = encoder{"base64 of UTF-16", true, always(func(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return base64.StdEncoding.EncodeToString(b)
})}

// nest is a value within a text that was encoded several times, each time with something around it. Another value with the
// same seed has the same around it.
func nest(seed uint64, v string) (text string, names []string) {
	r := rand.New(rand.NewPCG(seed, 1))
	around := []string{"", "", "user:", " ", "key=", "{\"a\":\"", "\"}", ", next: 17", "://", "@host/", "Zürich ", "Basic ", "(", ")", "a", "bc", "def"}
	codes, quotings := 0, 0
	for range 1 + r.IntN(4) {
		v = around[r.IntN(len(around))] + v + around[r.IntN(len(around))]
		e := encoders[r.IntN(len(encoders))]
		if codes == 0 && r.IntN(10) == 0 {
			e = wide
		}
		if e.isBin && codes == maxDepth || !e.isBin && quotings == maxPasses {
			continue
		}
		if e.isBin {
			codes, quotings = codes+1, 0
		} else {
			quotings++
		}
		v = e.write(r, v)
		names = append(names, e.name)
	}
	return v, names
}

// alike is another value of the same kind: other letters and digits in the same places.
func alike(v string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return 'a' + (r-'a'+11)%26
		case r >= 'A' && r <= 'Z':
			return 'A' + (r-'A'+11)%26
		case r >= '0' && r <= '9':
			return '0' + (r-'0'+7)%10
		}
		return r
	}, v)
}

// randomValue is a value as people and generators make them.
func randomValue(r *rand.Rand) string {
	if r.IntN(4) == 0 {
		return []string{"correct horse battery staple", "p@$$w0rd&<more>\"quoted\"", "postgres://app:tr0ub4dor&3@db.internal:5432/app?x='1'", "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASCBKcwggSjAgEAAoI\n-----END KEY-----\n",
			"Zürich-€-passphrase", `C:\new\table "x"`, "100%sure+plus%20", "{\"type\":\"account\",\"key\":\"abc/def+ghi==\"}"}[r.IntN(8)]
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	special := []string{"", "", "-_.", "!@#$%^&*()-_=+[]{};:'\",.<>/?\\|`~ "}[r.IntN(4)]
	b := make([]byte, 8+r.IntN(40))
	for i := range b {
		b[i] = (letters + special)[r.IntN(len(letters)+len(special))]
	}
	return string(b)
}

// checkNested hides a value and looks whether just what depends on it is gone, of the whole text and of pieces of it.
func checkNested(t *testing.T, set *Set, v string, seed uint64) {
	t.Helper()
	text, names := nest(seed, v)
	checkMasked(t, v, seed, names, text, maskAll(set, text))
	checkMasked(t, v, seed, append(names, "a line"), text, strings.TrimSuffix(maskAll(set, text+"\n"), "\n"))
	r := rand.New(rand.NewPCG(seed, 3))
	m := Masker{Set: set, Least: leastMasked}
	var got []byte
	for rest := text + "\xff"; rest != ""; {
		n := 1 + r.IntN(1+r.IntN(40))
		for n < len(rest) && bytesOf[rest[n-1]] == lineBreak { // there, a few bytes are let go
			n++
		}
		n = min(n, len(rest))
		got = m.Write(got, []byte(rest[:n]))
		rest = rest[n:]
	}
	checkMasked(t, v, seed, append(names, "pieces"), text, strings.TrimSuffix(string(m.Flush(got)), "\xff"))
}

func checkMasked(t *testing.T, v string, seed uint64, names []string, text, got string) {
	t.Helper()
	other, _ := nest(seed, alike(v))
	from := 0 // where the two begin to differ
	for from < len(text) && from < len(other) && text[from] == other[from] {
		from++
	}
	behind := 0
	for behind < len(text)-from && behind < len(other)-from && text[len(text)-1-behind] == other[len(other)-1-behind] {
		behind++
	}
	// What is left of the text at both ends is what does not depend on the value, but for a few characters that hold bits of it
	// and of what is around it, in each code.
	slack := 4
	for _, e := range names {
		if strings.Contains(strings.ToLower(e), "hex") {
			slack *= 2
		} else {
			slack += 4
		}
	}
	head, rest, masked := strings.Cut(got, Text)
	foot := rest
	if last := strings.LastIndex(rest, Text); last >= 0 {
		foot = rest[last+len(Text):]
	}
	switch {
	case !masked:
		t.Errorf("%q in %s is shown: %q", v, names, got)
	case len(head) > from+slack || len(foot) > behind+slack:
		t.Errorf("%q in %s: too much is shown: %q of %q, which differs from %d to %d", v, names, got, text, from, len(text)-behind)
	case !strings.HasPrefix(text, head) || !strings.HasSuffix(text, foot):
		t.Errorf("%q in %s: the text around it is another: %q of %q", v, names, got, text)
	case len(head) < from-2*slack-len(v) || len(foot) < behind-2*slack-len(v):
		t.Errorf("%q in %s: more than the value is gone: %q of %q, which differs from %d to %d", v, names, got, text, from, len(text)-behind)
	}
}

// hideable reports whether a value has letters and digits enough to be found in codes, however it was quoted and folded first.
func hideable(v string, names []string, crowded bool) bool {
	least := leastCore
	for i, name := range names {
		if strings.HasPrefix(name, "folded") && slices.ContainsFunc(names[i+1:], isCode) {
			if crowded {
				return false
			}
			least = 12 // a line break may lie in each of two
		}
	}
	c := cores(v)[0]
	for i := c.from; i < c.to; i++ {
		if !isLetter(v[i]) && !strings.ContainsRune("._-", rune(v[i])) {
			return false
		}
	}
	return c.to-c.from >= least
}

func isCode(name string) bool {
	return strings.Contains(name, "64") || strings.Contains(strings.ToLower(name), "hex")
}

// Whatever a value is encoded with, and what that is encoded with, it is not shown, and what is around it is; also in pieces.
func TestMaskNested(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1500) {
		v := randomValue(rand.New(rand.NewPCG(seed, 2)))
		if _, names := nest(seed, v); !hideable(v, names, false) {
			continue
		}
		set := setOf(v)
		checkNested(t, set, v, seed)
		if t.Failed() {
			return
		}
	}
}

// The same among many others, where codes lie within each other once less.
func TestMaskNestedCrowd(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(11, 12))
	for range 4 {
		var values []string
		for range 100 {
			values = append(values, randomValue(r))
		}
		set := setOf(values...)
		for _, v := range values {
			seed := r.Uint64()
			_, names := nest(seed, v)
			codes := 0
			for _, name := range names {
				if isCode(name) {
					codes++
				}
			}
			if codes < maxDepth && hideable(v, names, true) {
				checkNested(t, set, v, seed)
			}
		}
	}
}

func FuzzMaskNested(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomValue(rand.New(rand.NewPCG(seed, 4))), seed)
	}
	f.Fuzz(func(t *testing.T, v string, seed uint64) {
		if _, names := nest(seed, v); len(v) < leastMasked || len(v) > 200 || len(plainText(v)) < leastMasked || Common(v) || Common(plainText(v)) || alike(v) == v || !utf8.ValidString(v) || !hideable(v, names, false) {
			return
		}
		set := setOf(v)
		checkNested(t, set, v, seed)
	})
}

// Bytes that are printed one by one, as by od, openssl, Go, Node and C.
func TestMaskDumps(t *testing.T) {
	for _, v := range []string{"plainPassword123 and more than a line of it", "p@$$w0rd\x00\xff!"} {
		var list []string
		for i := range len(v) {
			list = append(list, fmt.Sprint(v[i]))
		}
		var od strings.Builder
		for i := range len(v) {
			if fmt.Fprintf(&od, " %02x", v[i]); i%16 == 15 {
				od.WriteString("\n")
			}
		}
		for name, form := range map[string]string{
			"od": od.String(), "blanks": fmt.Sprintf("% x", v), "HEX": fmt.Sprintf("% X", v), "C": strings.ReplaceAll(fmt.Sprintf("%# x", v), " ", ", "),
			"colons": strings.ReplaceAll(fmt.Sprintf("% X", v), " ", ":"), "Go": fmt.Sprint([]byte(v)), "Node": strings.Join(list, ","), "Python": strings.Join(list, ", "),
		} {
			got := maskAll(setOf(v), "before (bytes "+form+") behind")
			if left := strings.TrimSpace(got); left != "before (bytes ***) behind" && left != "before (bytes [***]) behind" && left != "before (bytes 0x***) behind" && left != "before (bytes  ***\n) behind" && left != "before (bytes  ***) behind" {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
}

// A text without a value comes out byte for byte, whatever it holds and however it comes.
func TestMaskLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(21, 22))
	set := setOf("Xk9qLm2pWz7Rt4", "correct horse battery", "p@$$w0rd&<more>\"quoted\"")
	words := []string{"\\", "\\\\", "\\n", "\\u00", "\\u00e9", "\\x4", "%", "%2", "%25", "%E4", "&", "&amp", "&amp;", "&#3", "&#34;", "\n", "\r\n", "  ", "+", "=", "\"", "'", "\x00", "\xff\xc3", "ü", "€", "\U0001f600",
		"correct horse", "Xk9qLm2pWz7R", "WGs5cUxt", "586b39714c6d", "58 6b 39 71", "88, 107, 57", "p@$$w0rd", "a", "Basic ", "0123456789", "QUJDREVGR0hJSktM", "\x1b[0m", "{", "}", ";", "#"}
	for range 3000 {
		var text strings.Builder
		for range r.IntN(60) {
			text.WriteString(words[r.IntN(len(words))])
		}
		text.WriteString("\xff.") // no beginning of a value stands at the end
		m := Masker{Set: set, Least: leastMasked}
		var got []byte
		for rest := text.String(); rest != ""; {
			n := min(1+r.IntN(1+r.IntN(30)), len(rest))
			got = m.Write(got, []byte(rest[:n]))
			rest = rest[n:]
		}
		if got = m.Flush(got); string(got) != text.String() {
			t.Fatalf("got %q of %q", got, text.String())
		}
	}
}

// The time that a text takes grows with its length and no faster, whatever it is made of, and no more of it is held than a
// value may take. (What counts is the work that grows with the square of the length: minutes for these.)
func TestMaskIsLinear(t *testing.T) {
	t.Parallel()
	set := setOf("Xk9qLm2pWz7Rt4", strings.Repeat("ab", 2000), "p@$$w0rd&<more>\"quoted\"", strings.Repeat("abcdefgh\n", 100000))
	for name, piece := range map[string]string{
		"backslashes": "\\", "percent": "%25", "ampersands": "&amp;", "letter": "a", "anchors": "WGs5cUxtMnBXejdSdDQ", "period": "ab", "codes": "YWJhYmFiYWJhYmFi", "hex": "616261626162", "lines": "abcdefgh\n", "line breaks": "\n", "blanks": " ", "NUL": "\x00", "quotes": "\"'", "dump": "58 6b 39 71 ", "escapes": "\\u0061",
	} {
		m := Masker{Set: set, Least: leastMasked}
		chunk := []byte(strings.Repeat(piece, 64<<10/len(piece)))
		most := 0
		var out []byte
		for range 32 {
			out = m.Write(out[:0], chunk)
			most = max(most, len(m.held))
		}
		if m.Flush(out); most > 2*set.most {
			t.Errorf("%s: %d bytes are held", name, most)
		}
	}
}

// Values of every length stand in lines of their own, which is where undecided bytes are let go.
func TestMaskLines(t *testing.T) {
	for _, n := range []int{6, 7, 8, 9, 10, 11, 12, 16, 24, 40} {
		for _, all := range []string{"abcdefghijklmnopqrstuvwxyz0123456789ABCDEF", "a-b.c_d-e.f_g-h.i_j-k.l_m-n.o_p-q.r_s-t.u", "p@ssw0rd!$%&/()=?abcdefghijklmnopqrstuvwxyz"} {
			v := all[:n]
			for _, others := range [][]string{nil, {"another value"}, {"$!x", "p@x", "Tr0ub4dor&3 correct", "x-y-z-0123456789"}} {
				set := setOf(append(others, v)...)
				for _, line := range []string{v + "\n", "pw=" + v + "\r\n", "'" + v + "'\n\n", fmt.Sprintf("%x\n", v), base64.StdEncoding.EncodeToString([]byte(v)) + "\n"} {
					for _, typed := range []bool{false, true} {
						m := Masker{Set: set, Least: leastMasked, Typed: typed}
						got := m.Write(nil, []byte(line))
						if got = m.Flush(got); !strings.Contains(string(got), Text) || strings.Contains(string(got), v[1:6]) {
							t.Errorf("typed %v, %q of %q", typed, got, line)
						}
					}
				}
			}
		}
	}
}

// What stands directly before a value may look like the beginning of an escape, and eats none of it.
func TestMaskBehindEscapes(t *testing.T) {
	v := `newpass"word123`
	for _, before := range []string{`\`, `\\`, `%`, `C:\`, `100%`, `&`, `\x`, `%2`} {
		for name, form := range map[string]string{"text": v, "JSON": jsonOf(v), "base64": base64.StdEncoding.EncodeToString([]byte(v)), "hex": fmt.Sprintf("%x", v)} {
			if got := maskAll(setOf(v), before+form+" "); !strings.Contains(got, Text) || strings.Contains(got, "pass") {
				t.Errorf("%s behind %s: %q", name, before, got)
			}
		}
	}
}
