package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const leastMasked = 6

// maskAll masks a whole text in one piece.
func maskAll(set *Set, text string) string {
	m := Masker{Set: set, Least: leastMasked}
	return string(m.Flush(m.Write(nil, []byte(text))))
}

// exactly is a set of patterns, and of nothing that is made of them.
func exactly(patterns ...string) *Set {
	var list []pattern
	for _, p := range patterns {
		list = append(list, pattern{p, whole})
	}
	return &Set{exact: newIndex(list), plain: [2]*index{newIndex(nil), newIndex(nil)}, dense: newIndex(nil)}
}

func setOf(values ...string) *Set { return NewSet(values, leastMasked) }

func TestMaskText(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		text   string
		want   string
	}{
		{"nothing to mask", nil, "text", "text"},
		{"once", []string{"secret-1"}, "a secret-1 b", "a *** b"},
		{"at the ends", []string{"secret-1"}, "secret-1 and secret-1", "*** and ***"},
		{"twice in a row", []string{"secret-1"}, "secret-1secret-1", "******"},
		{"almost", []string{"secret-1"}, "a secret-2 secret-", "a secret-2 ***"},
		{"a beginning that is too short to be one", []string{"secret-1"}, "secre", "secre"},
		{"longest first", []string{"secret", "secret-long"}, "secret-long secret-lo secret", "*** ***-lo ***"},
		{"one within another", []string{"mysecretword", "secret"}, "mysecretword", "***"},
		{"overlapping", []string{"abcdefgh", "efghijkl"}, "abcdefghijkl.", "***."},
		{"overlapping itself", []string{"abcabcabc"}, "abcabcabcabcabc!", "***!"},
		{"false start", []string{"aaaaaab"}, "aaaaaaaaaab.", "aaaa***."},
		{"binary", []string{"\x00\xff\x00\xfe\x80\x81"}, "\xff\x00\xff\x00\xfe\x80\x81\x00", "\xff***\x00"},
		{"lines", []string{"first line\nsecond line\nab"}, "> second line\n> first line\nab", "> ***\n> ***\nab"},
		{"all lines", []string{"first line\nsecond line\nab"}, "[first line\nsecond line\nab]", "[***]"},
		{"lines of a terminal", []string{"first line\nab\nsecond line\n"}, "[first line\r\nab\r\nsecond line]\r\n", "[***]\r\n"},
		{"armor is no secret", []string{"-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----\n"}, "-----BEGIN KEY-----\nother\n abcdefghijkl\n", "-----BEGIN KEY-----\nother\n ***\n"},
		{"trailing line break", []string{"secret-1\n"}, "secret-1 ", "*** "},
		{"JSON", []string{"a\"b\\c/d<e>\n\u00e9"}, `{"k":"a\"b\\c/d\u003ce\u003e\n` + "\u00e9" + `"}`, `{"k":"***"}`},
		{"basic auth", []string{"correct horse"}, base64.StdEncoding.EncodeToString([]byte("user:correct horse!")), base64.StdEncoding.EncodeToString([]byte("user:"))[:6] + "***JzZSE="},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "basic auth" { // what depends on the neighbours stays: at most a character at each end
				got := maskAll(setOf(c.values...), c.text)
				if !strings.Contains(got, Text) || len(strings.ReplaceAll(got, Text, "")) > 12 {
					t.Fatalf("got %q of %q", got, c.text)
				}
				return
			}
			if got := maskAll(setOf(c.values...), c.text); got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Every coding that programs print values in is masked, by itself and within other text, and what does the coding here is the
// real encoder where there is one.
func TestMaskForms(t *testing.T) {
	values := []string{
		"plainPassword123", "with space & more", `quote's "and" back\slash`, "pct%20/slash+plus?a=b", "dollar$`tick`!{a,b}*~#[x]",
		"#leading", "~leading", "tab\tnew\nline of text", "uml\u00e4ut \u20ac \U0001f600", "<html>&amp;'\"`+=", "ends with break\n", "esc\x1b[0m\x01\x7f", "per.cent-_~ok'()*",
	}
	var python []string // all that it says about the first, then about the second
	if path, err := exec.LookPath("python3"); err == nil {
		out, err := exec.Command(path, append([]string{"-c", `
import json, shlex, sys
from urllib.parse import quote, quote_plus
for v in sys.argv[1:]:
    for s in json.dumps(v)[1:-1], shlex.quote(v).strip("'"), quote(v), quote_plus(v), quote(v, safe=""):
        print(s, end="\0")`}, values...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		python = strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	}
	for n, v := range values {
		forms := map[string]string{
			"plain": v, "hex": fmt.Sprintf("%x", v), "HEX": fmt.Sprintf("%X", v),
			"base64": base64.StdEncoding.EncodeToString([]byte(v)), "raw base64": base64.RawStdEncoding.EncodeToString([]byte(v)),
			"url base64": base64.URLEncoding.EncodeToString([]byte(v)), "raw url base64": base64.RawURLEncoding.EncodeToString([]byte(v)),
			"query": url.QueryEscape(v), "path": url.PathEscape(v), "userinfo": strings.TrimPrefix(url.UserPassword("", v).String(), ":"), "fragment": (&url.URL{Fragment: v}).EscapedFragment(), "URL path": (&url.URL{Path: "/" + v}).EscapedPath()[1:],
			"terminal": strings.ReplaceAll(v, "\n", "\r\n"),
		}
		inner := func(b []byte) string { return strings.Trim(string(b[1:len(b)-1]), "\n") }
		b, _ := json.Marshal(v)
		forms["json"] = inner(b)
		var plain bytes.Buffer
		enc := json.NewEncoder(&plain)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v)
		forms["json without HTML"] = inner(bytes.TrimSpace(plain.Bytes()))
		for i := range len(python) / len(values) {
			forms[fmt.Sprint("python ", i)] = python[n*len(python)/len(values)+i]
		}
		for _, shell := range []string{"bash", "dash"} {
			path, err := exec.LookPath(shell)
			if err != nil {
				continue
			}
			script := `export -p | sed -n '/SECRET_VALUE=/,$p'; set | sed -n '/^SECRET_VALUE=/,$p'`
			if shell == "bash" {
				script += `; printf '%q\n' "$SECRET_VALUE"; echo "${SECRET_VALUE@Q}"; declare -p SECRET_VALUE`
			}
			cmd := exec.Command(path, "-c", script)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SECRET_VALUE="+v)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			forms[shell] = string(out)
		}
		set := setOf(v)
		for name, form := range forms {
			for _, text := range []string{form, "before " + form + " after", form + form} {
				got := maskAll(set, text)
				// Of what is around the value nothing is missing, and of it no six characters in a row are there.
				if !strings.Contains(got, Text) {
					t.Errorf("%q: %s is shown: %q", v, name, got)
				}
				for i := range max(len(v)-5, 0) {
					if part := v[i : i+6]; strings.Contains(got, part) && name != "bash" && name != "dash" {
						t.Errorf("%q: %s shows %q: %q", v, name, part, got)
					}
				}
				if (name == "bash" || name == "dash") && strings.Count(got, Text) < 2 {
					t.Errorf("%q: %s: %q", v, name, got)
				}
			}
		}
	}
}

// folded cuts a text into lines of a given width.
func folded(s string, width int) []string {
	var lines []string
	for ; len(s) > width; s = s[width:] {
		lines = append(lines, s[:width])
	}
	return append(lines, s)
}

// leastCode is how many characters of a code may be left at its ends, which have bits of what is around it.
const leastCode = 6

// Of a code that is folded at any column nothing is left, and of a value neither.
func TestMaskFolded(t *testing.T) {
	v := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 7)
	for name, code := range map[string]string{"text": v, "base64": base64.StdEncoding.EncodeToString([]byte(v)), "hex": fmt.Sprintf("%x", v)} {
		for _, width := range []int{1, 2, 3, 7, 16, 60, 64, 76, 100} {
			for _, between := range []string{"\n", "\r\n", "\n    ", "\\n", "\\\n"} {
				got := maskAll(setOf(v), strings.Join(folded(code, width), between)+"\n")
				if left := strings.TrimSpace(strings.Trim(strings.ReplaceAll(got, Text, ""), "=")); len(left) >= leastCode {
					t.Errorf("%s, width %d, %q: %q is left", name, width, between, left)
				}
			}
		}
	}
}

// Nor does it matter where a line break stands beside a blank of the value, or in its place.
func TestMaskFoldedAtBlanks(t *testing.T) {
	v := "correct horse battery staple"
	for width := 1; width < 30; width++ {
		if got := maskAll(setOf(v), "a\n"+strings.Join(folded(v, width), "\n")+"\nb"); got != "a\n***\nb" {
			t.Errorf("width %d: %q", width, got)
		}
	}
	if got := maskAll(setOf(v), "correct horse\nbattery\n  staple."); got != "***." {
		t.Errorf("wrapped: %q", got)
	}
}

// What is held back is the longest end that may still become a value, and nothing else.
func TestMaskHolds(t *testing.T) {
	m := Masker{Set: exactly("secret-1", "secret-1-more"), Least: leastMasked}
	put := func(chunk, want string) {
		t.Helper()
		if got := string(m.Write(nil, []byte(chunk))); got != want {
			t.Fatalf("after %q: %q, want %q", chunk, got, want)
		}
	}
	idle := func(want string) {
		t.Helper()
		if got := string(m.Flush(nil)); got != want {
			t.Fatalf("idle: %q, want %q", got, want)
		}
	}
	put("Password: ", "Password: ")
	put("is se", "is ")
	put("a", "sea")
	put("secret-1", "")
	put(" ", "*** ")
	// A prompt that looks like a value's beginning appears after a moment; what it was is not forgotten.
	put("> sec", "> ")
	idle("sec")
	put("ret-", "")
	idle("***") // eight of its bytes are no coincidence
	put("1", "")
	idle("")
	put("-", "")
	put("more.", ".")
	put("secr", "")
	idle("secr")
	put("etary", "etary")
	put("secret-1", "")
	idle("***") // a longer one may follow
	put("-more", "")
	put("!", "!")
}

// naive is what masker does, without hurry: everything is looked at again for every byte.
type naive struct {
	patterns []string
	least    int
	typed    bool
	text     string
	done     int
}

func (n *naive) put(chunk string, end bool) string {
	n.text += chunk
	limit := len(n.text)
	type run struct{ from, to int }
	var runs []run
	for i := range n.text {
		rest := n.text[i:]
		to, partial := i, 0
		for _, p := range n.patterns {
			if strings.HasPrefix(rest, p) {
				to = max(to, i+len(p))
			} else if strings.HasPrefix(p, rest) && (partial == 0 || len(p) < partial) {
				partial = len(p)
			}
		}
		if partial > 0 && !end {
			limit = min(limit, i)
		}
		if partial > 0 && end && len(rest) >= n.least && (!n.typed || 2*len(rest) >= partial) {
			to = len(n.text)
		}
		if to > i {
			runs = append(runs, run{i, to})
		}
	}
	// Byte by byte: what is decided and has not been put out.
	out := ""
	for k := n.done; k < limit; k++ {
		inside := slices.ContainsFunc(runs, func(r run) bool { return r.from <= k && k < r.to && (r.from < limit || end) })
		if !inside {
			out += n.text[k : k+1]
		}
	}
	n.done = max(n.done, limit)
	return out
}

// merged is the whole text masked by the plainest code there is.
func merged(patterns []string, text string) string {
	out, cover := "", 0
	for i := range len(text) {
		to := i
		for _, p := range patterns {
			if strings.HasPrefix(text[i:], p) {
				to = max(to, i+len(p))
			}
		}
		if to > i && i >= cover {
			out += Text
		}
		cover = max(cover, to)
		if i >= cover {
			out += text[i : i+1]
		}
	}
	return out
}

// checkMask compares the masker with the naive one, whole and cut into pieces, with pauses and without.
func checkMask(t *testing.T, patterns []string, text string, cuts []byte, typed bool) {
	t.Helper()
	patterns = slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return p == "" || strings.Contains(p, "*") })
	text = strings.ReplaceAll(text, "*", "")
	set := exactly(patterns...)
	whole := Masker{Set: set, Least: leastMasked, Typed: typed}
	want := string(whole.Flush(whole.Write(nil, []byte(text))))
	chunked := Masker{Set: set, Least: leastMasked, Typed: typed}
	paused := Masker{Set: set, Least: leastMasked, Typed: typed}
	ref := naive{patterns: patterns, least: leastMasked, typed: typed}
	got := ""
	rest := text
	strip := func(b []byte) string { return strings.ReplaceAll(string(b), Text, "") }
	for i := 0; rest != ""; i++ {
		n, pause := 1, false
		if len(cuts) > 0 {
			c := cuts[i%len(cuts)]
			n, pause = min(1+int(c>>1), len(rest)), c&1 == 1
		}
		got += string(chunked.Write(nil, []byte(rest[:n])))
		a, b := strip(paused.Write(nil, []byte(rest[:n]))), ref.put(rest[:n], false)
		if a != b {
			t.Fatalf("patterns %q, text %q, at %q: %q, want %q", patterns, text, rest, a, b)
		}
		rest = rest[n:]
		if pause {
			if a, b := strip(paused.Flush(nil)), ref.put("", true); a != b {
				t.Fatalf("patterns %q, text %q, pause before %q: %q, want %q", patterns, text, rest, a, b)
			}
		}
	}
	got += string(chunked.Flush(nil))
	if got != want {
		t.Fatalf("patterns %q, text %q in pieces: %q, whole: %q", patterns, text, got, want)
	}
	// Behind the text stands what no pattern goes on with, so that the end decides nothing.
	if !slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(p, "\xfa") }) {
		m := Masker{Set: set, Least: leastMasked}
		if got, want := string(m.Write(nil, []byte(text+"\xfa"))), merged(patterns, text+"\xfa"); got != want {
			t.Fatalf("patterns %q, text %q: %q, want %q", patterns, text, got, want)
		}
	}
}

// Random text, random values, random pieces.
func TestMaskRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(b)
	}
	for range 4000 {
		alphabet := "abcdefgh"[:1+r.IntN(8)]
		var patterns []string
		for range 1 + r.IntN(30) {
			patterns = append(patterns, word(alphabet, 1+r.IntN(8)+r.IntN(3)*r.IntN(20)))
		}
		if r.IntN(2) == 0 { // the default: none under six bytes
			patterns = slices.DeleteFunc(patterns, func(p string) bool { return len(p) < leastMasked })
		}
		text := ""
		for range r.IntN(12) {
			text += word(alphabet, r.IntN(12))
			if len(patterns) > 0 {
				p := patterns[r.IntN(len(patterns))]
				text += p[:r.IntN(len(p)+1)]
			}
		}
		cuts := make([]byte, 1+r.IntN(8))
		for i := range cuts {
			cuts[i] = byte(r.IntN(40))
		}
		checkMask(t, patterns, text, cuts, r.IntN(2) == 0)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("secret-1\nsecret-1-more\nother", "a secret-1 b secret-1-mo secret-1-more", []byte{3, 10, 0}, false)
	f.Add("aaaaaab\naaaaaa", "aaaaaaaaaaaab", []byte{2}, true)
	f.Add("abcdefgh\nefghijkl\nijklabcd", "abcdefghijklabcdefgh", []byte{1, 5}, false)
	f.Add("a\nab\nabc\nabcd", "abcdabcabaabcd", []byte{0}, false)
	f.Add("\x00\xff\x00\xff\x00\xff", "\x00\xff\x00\xff\x00\xff\x00\xff", []byte{9, 1}, true)
	f.Fuzz(func(t *testing.T, patterns, text string, cuts []byte, typed bool) {
		if len(patterns) > 500 || len(text) > 500 || len(cuts) > 50 {
			return
		}
		checkMask(t, strings.Split(patterns, "\n"), text, cuts, typed)
	})
}

// Values in all their forms.
func FuzzMaskForms(f *testing.F) {
	f.Add("secret value 1", "before ", " after", []byte{3})
	f.Add("line one\nline two\n", "{\"a\":\"", "\"}", []byte{1, 0})
	f.Fuzz(func(t *testing.T, value, before, after string, cuts []byte) {
		if len(value) > 200 || len(before) > 100 || len(after) > 100 || len(cuts) > 50 || len(value) < leastMasked || Common(value) {
			return
		}
		set := setOf(value)
		for _, form := range []string{value, base64.StdEncoding.EncodeToString([]byte(value)), url.QueryEscape(value), fmt.Sprintf("%x", value)} {
			text := before + form + after
			whole := maskAll(set, text)
			if !strings.Contains(before+after, form) && !strings.Contains(whole, Text) {
				t.Fatalf("%q in %q is shown: %q", form, text, whole)
			}
			m := Masker{Set: set, Least: leastMasked}
			var got []byte
			rest := []byte(text)
			for i := 0; len(rest) > 0; i++ {
				n := 1
				if len(cuts) > 0 {
					n = min(1+int(cuts[i%len(cuts)]), len(rest))
				}
				got = m.Write(got, rest[:n])
				rest = rest[n:]
			}
			if got = m.Flush(got); string(got) != whole {
				t.Fatalf("in pieces %q, whole %q", got, whole)
			}
		}
	})
}

// manyValues are n secrets as they are.
func manyValues(n int) []string {
	r := rand.New(rand.NewPCG(3, 4))
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	values := make([]string, n)
	for i := range values {
		b := make([]byte, 16+r.IntN(48))
		for j := range b {
			b[j] = letters[r.IntN(len(letters))]
		}
		values[i] = string(b)
		switch i % 20 {
		case 0:
			values[i] = "postgres://app:" + values[i][:16] + "@db.internal:5432/app?sslmode=require&x=\"1\""
		case 1:
			values[i] = "-----BEGIN PRIVATE KEY-----\n" + values[i] + "\n" + values[i][:16] + "\n-----END PRIVATE KEY-----\n"
		}
	}
	return values
}

func BenchmarkMask(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	set := NewSet(manyValues(200), leastMasked)
	for name, x := range map[string]*index{"exact": set.exact, "short": set.plain[0], "plain": set.plain[1]} {
		b.Logf("%s: %d patterns, grams of stride %d in %d bytes", name, len(x.patterns), x.stride, len(x.grams))
	}
	texts := map[string]func(i int) string{
		"log": func(i int) string {
			return fmt.Sprintf("2026-11-24T15:04:05.%06dZ INFO request id=%016x path=/api/v1/items/%d status=200 took=%dms\n", i, r.Uint64(), i, i%100)
		},
		"base64": func(int) string {
			return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%x%x", r.Uint64(), r.Uint64()))
		},
		"zero": func(int) string { return "\x00" },
	}
	for name, piece := range texts {
		b.Run(name, func(b *testing.B) {
			var chunk []byte
			for i := 0; len(chunk) < 64<<10; i++ {
				chunk = append(chunk, piece(i)...)
			}
			m := Masker{Set: set, Least: leastMasked}
			var out []byte
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				out = m.Write(out[:0], chunk)
			}
		})
	}
}
