package mask

import (
	"encoding/base64"
	"strings"
)

// pieces cuts a text into pieces of n bytes, each of which overlaps the next by half. None of them is a copy.
func pieces(s string, n int) []string {
	if len(s) <= n {
		return []string{s}
	}
	var list []string
	for at := 0; ; at += n / 2 {
		if at+n >= len(s) {
			return append(list, s[len(s)-n:])
		}
		list = append(list, s[at:at+n])
	}
}

// isArmor reports whether a line begins or ends the text form of a key (RFC 7468). Every certificate has such lines,
// too.
func isArmor(line string) bool {
	return strings.HasPrefix(line, "-----") && strings.HasSuffix(line, "-----")
}

// base64Within returns the characters that stand for v whatever comes before and behind it, where v begins at the given
// place of a group of three bytes: user:PASSWORD in a header is base64 of more than the password. The characters at the
// ends also depend on the neighbours, and hold up to four bits of v. They are not among those returned.
func base64Within(enc *base64.Encoding, v string, offset int) string {
	code := enc.EncodeToString([]byte("\x00\x00"[:offset] + v))
	from := (8*offset + 5) / 6
	to := 8 * (offset + len(v)) / 6
	if from >= to {
		return ""
	}
	return code[from:to]
}
