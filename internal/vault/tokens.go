package vault

import (
	"bytes"
	"strings"
)

// tokenPrefixes begin the tokens of Vault (since 1.10 and before) and OpenBao, service, batch and recovery, and how
// many characters follow at least. Source: developer.hashicorp.com/vault/docs/concepts/tokens, "Token prefixes".
var tokenPrefixes = []struct {
	prefix string
	least  int
}{{"hvs.", 20}, {"hvb.", 20}, {"hvr.", 20}, {"s.", 24}, {"b.", 24}, {"r.", 24}}

// IsToken reports whether s has the form of a token.
func IsToken(s string) bool {
	i, n := findToken([]byte(s))
	return i == 0 && n == len(s)
}

// TokenLine returns the first line of b, counted from 1, that holds what looks like a token; 0 when none does.
func TokenLine(b []byte) int {
	i, _ := findToken(b)
	if i < 0 {
		return 0
	}
	return 1 + bytes.Count(b[:i], []byte("\n"))
}

// LooksSecret reports whether s is better not repeated: it holds a token, a private key, or a password in a URL.
func LooksSecret(s string) bool {
	if i, _ := findToken([]byte(s)); i >= 0 || strings.Contains(s, "-----BEGIN") {
		return true
	}
	_, rest, ok := strings.Cut(s, "://")
	if !ok {
		return false
	}
	if i := strings.IndexAny(rest, "/?# "); i >= 0 {
		rest = rest[:i]
	}
	user, _, ok := strings.Cut(rest, "@")
	return ok && strings.Contains(user, ":")
}

// findToken returns where a token begins and how long it is, -1 when there is none. Of the older ones, which
// begin with a single letter, only those that begin a word count.
func findToken(b []byte) (at, length int) {
	for i := 0; i < len(b); i++ {
		for _, p := range tokenPrefixes {
			if !bytes.HasPrefix(b[i:], []byte(p.prefix)) || len(p.prefix) == 2 && i > 0 && tokenByte(b[i-1]) {
				continue
			}
			n := len(p.prefix)
			for i+n < len(b) && tokenByte(b[i+n]) {
				n++
			}
			// A word of letters and digits, as far as the next dot, which begins a namespace's ID.
			first, _, _ := bytes.Cut(b[i+len(p.prefix):i+n], []byte("."))
			if len(first) >= p.least {
				return i, n
			}
		}
	}
	return -1, 0
}

func tokenByte(c byte) bool {
	return c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
