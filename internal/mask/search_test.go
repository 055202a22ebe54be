package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"
)

// searchAll searches a text in pieces of one byte and as a whole, which has to be the same.
func searchAll(t *testing.T, n *Needles, text string) []Hit {
	t.Helper()
	s := NewSearcher(n)
	var lists [2][]Hit
	for i, r := range []interface{ Read([]byte) (int, error) }{strings.NewReader(text), iotest.HalfReader(strings.NewReader(text))} {
		size, err := s.Search(r, func(h Hit) { lists[i] = append(lists[i], h) })
		if err != nil || size != int64(len(text)) {
			t.Fatalf("%d bytes of %d, %v", size, len(text), err)
		}
	}
	return lists[0]
}

func inUTF16(order func(u uint16) []byte) func(string) string {
	return func(v string) string {
		var b []byte
		for _, u := range utf16.Encode([]rune(v)) {
			b = append(b, order(u)...)
		}
		return string(b)
	}
}

// Every form is found in its line, and is called by its name.
func TestSearchForms(t *testing.T) {
	t.Parallel()
	v := `correct&horse "battery" st/aple+7`
	std := func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) }
	forms := []struct {
		name, text string
	}{
		{"plain", v}, {"base64", std(v)}, {"base64", std("a" + v)}, {"base64", std("ab" + v)},
		{"base64url", base64.URLEncoding.EncodeToString([]byte("\xfb\xff\xbf\xff" + v + "\xff\xff\xff"))},
		{"base64 in base64", std(base64.URLEncoding.EncodeToString([]byte("\xfb\xff" + v)))},
		{"hex", hex.EncodeToString([]byte(v))}, {"hex", strings.ToUpper(hex.EncodeToString([]byte(v)))},
		{"URL-encoded", url.PathEscape(v)}, {"URL-encoded", url.QueryEscape(v)},
		{"escaped", jsonOf(v)}, {"escaped", jsonOf(jsonOf(v))}, {"HTML-escaped", html.EscapeString(v)},
		{"URL-encoded in base64", std("x" + url.PathEscape(v))},
		{"base64 in hex", hex.EncodeToString([]byte(std(v)))},
		{"UTF-16", inUTF16(func(u uint16) []byte { return []byte{byte(u), byte(u >> 8)} })(v)},
		{"UTF-16", inUTF16(func(u uint16) []byte { return []byte{byte(u >> 8), byte(u)} })(v)},
		{"UTF-16 in base64", std(inUTF16(func(u uint16) []byte { return []byte{byte(u), byte(u >> 8)} })(v))},
		{"byte by byte", fmt.Sprintf("% x", v)}, {"byte by byte", fmt.Sprint([]byte(v))},
		{"folded", strings.Join(folded(v, 9), "\n")},
		{"base64, folded", strings.Join(folded(std(v), 20), "\n")},
	}
	n := NewNeedles([]string{v, "another value 2"}, leastMasked)
	for _, f := range forms {
		best := Hit{Form: strings.Repeat("x", 99)}
		for _, h := range searchAll(t, n, "one\ntwo = "+f.text+"\nthree") {
			if h.Value == 0 && len(h.Form) < len(best.Form) {
				best = h
			}
		}
		if best.Form != f.name || best.Line != 2 || best.Part {
			t.Errorf("%q is found as %q in line %d, want %q", f.text, best.Form, best.Line, f.name)
		}
	}
}

// A searcher finds what the masker masks, wherever the windows end.
func TestSearchIsMask(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		v := randomValue(rand.New(rand.NewPCG(seed, 2)))
		text, names := nest(seed, v)
		if !hideable(v, names, false) {
			continue
		}
		n := NewNeedles([]string{v}, leastMasked)
		for _, before := range []int{0, window - len(text)/2, 3*window - 1} {
			all := strings.Repeat(".\n", before/2) + text + "\n"
			lines := before/2 + 1
			found := false
			for _, h := range searchAll(t, n, all) {
				if from, to := before/2*2, len(all); h.From < int64(from) || h.To > int64(to) || h.Line < lines {
					t.Fatalf("seed %d, %s: a hit at %d to %d, line %d, which is not in the text from %d to %d", seed, names, h.From, h.To, h.Line, from, to)
				}
				found = true
			}
			if !found {
				t.Fatalf("seed %d, %s, behind %d bytes: %q is not found in %q", seed, names, before, v, text)
			}
			if hits := searchAll(t, NewNeedles([]string{alike(v)}, leastMasked), all); len(hits) > 0 && alike(v) != v {
				t.Fatalf("seed %d, %s: another value is found: %+v", seed, names, hits[0])
			}
		}
	}
}

// A value that is the beginning of another, or the same, is found with it.
func TestSearchOwners(t *testing.T) {
	t.Parallel()
	values := []string{"secret-1", "secret-1-and-more", "secret-1", "secret-1-and-other"}
	found := map[int]bool{}
	for _, h := range searchAll(t, NewNeedles(values, leastMasked), "a secret-1-and-more b") {
		found[h.Value] = true
	}
	if fmt.Sprint(found) != "map[0:true 1:true 2:true]" {
		t.Error(found)
	}
}

// Of a value of several lines a long word alone is a part of it. What stands around it in many files is not.
func TestSearchParts(t *testing.T) {
	t.Parallel()
	v := "{\n  \"type\": \"service_account\",\n  \"key\": \"0123\"\n}\nQWxsIHRoZSBraW5nJ3MgaG9yc2Vz\nshort-line"
	n := NewNeedles([]string{v}, leastMasked)
	for text, want := range map[string]string{
		"  \"type\": \"service_account\",": "[]", "short-line": "[]", "> QWxsIHRoZSBraW5nJ3MgaG9yc2Vz": "[true]", v: "[false]",
		strings.ReplaceAll(v, "\n", "\n    "): "[false]",
	} {
		parts := []bool{}
		for _, h := range searchAll(t, n, text) {
			if len(parts) == 0 || !h.Part {
				parts = append(parts[:0], h.Part)
			}
		}
		if fmt.Sprint(parts) != want {
			t.Errorf("%q: %v, want %s", text, parts, want)
		}
	}
}

// However long the stream, the window stays.
func TestSearchMemory(t *testing.T) {
	t.Parallel()
	n := NewNeedles(append(manyValues(20), strings.Repeat("0123456789abcdef\n", 60000)), leastMasked)
	s := NewSearcher(n)
	for _, piece := range []string{"\\", "%25", "a", "QUJD", " ", "\x00", "0123456789abcdef\n"} {
		text := bytes.Repeat([]byte(piece), 1<<20/len(piece))
		if _, err := s.Search(bytes.NewReader(text), func(Hit) {}); err != nil {
			t.Fatal(err)
		}
		if most := 2*(window+2*n.set.most) + window; cap(s.m.held) > most {
			t.Errorf("%q: a window of %d bytes, at most %d", piece, cap(s.m.held), most)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	line, _ := json.Marshal(map[string]string{"level": "info", "text": "a request of /api/v1/items took 17 ms"})
	text := bytes.Repeat(append(line, '\n'), 1<<20/len(line))
	s := NewSearcher(NewNeedles(manyValues(200), leastMasked))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		_, _ = s.Search(bytes.NewReader(text), func(Hit) { b.Error("found") })
	}
}
