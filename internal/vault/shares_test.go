package vault

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func FuzzParseShares(f *testing.F) {
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 33)))
	for _, s := range []string{key, "Unseal Key 1: " + key + "\n\nInitial Root Token: hvs.x\n", `{"keys": ["` + key + `"]}`, "KEY1=" + key + "\n# x\nTOKEN=x", "Recovery Key 1: " + key, "{", "a: b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shares, err := ParseShares(text, "a test")
		if (err == nil) != (len(shares) > 0) {
			t.Fatalf("%d shares, %v", len(shares), err)
		}
		for i, s := range shares {
			if len(s.raw.Reveal()) < 16 || !strings.Contains(text, s.Key.Reveal()) && !strings.HasPrefix(strings.TrimSpace(text), "{") || s.Label == "" {
				t.Fatalf("share %d is not from the text", i)
			}
			if slices.ContainsFunc(shares[:i], s.Same) {
				t.Fatalf("share %d appears twice", i)
			}
			if err != nil && strings.Contains(err.Error(), s.Key.Reveal()) {
				t.Fatal("a share in the error")
			}
		}
	})
}

func TestParseShare(t *testing.T) {
	raw := []byte(strings.Repeat("\xab", 33))
	a, ok := ParseShare(hex.EncodeToString(raw), "a")
	b, ok2 := ParseShare(" "+base64.StdEncoding.EncodeToString(raw)+"\n", "b")
	if !ok || !ok2 || !a.Same(b) {
		t.Error("one share in two forms is not the same")
	}
	for _, s := range []string{"", "zzzz", "abcd", strings.Repeat("ab", 100), "not base64 !", "hvs.CAESIJxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"} {
		if _, ok := ParseShare(s, ""); ok {
			t.Errorf("%q is taken for a share", s)
		}
	}
}

func TestCombinations(t *testing.T) {
	n := 0
	for set := range combinations([]int{0, 1, 2, 4, 5}, 3) {
		if n++; !slices.IsSorted(set) || slices.Contains(set, 3) {
			t.Errorf("%v", set)
		}
	}
	if n != 10 {
		t.Errorf("%d choices of 3 of 5, want 10", n)
	}
	for range combinations([]int{1}, 2) {
		t.Error("two of one")
	}
	n = 0
	for range combinations(indices(4), 2) {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Error("it goes on after a break")
	}
}
