package launcher

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// leastCode is how many characters of a code are no coincidence, however short the values may be that are masked.
const leastCode = 6

// maskForms lists what values look like in output: as they are, and as programs print them in another coding. What is shorter
// than least is left out.
func maskForms(values []string, least int) []string {
	var forms []string
	add := func(least int, list []string) {
		for _, f := range list {
			if len(f) < least || f == "" {
				continue
			}
			forms = append(forms, f)
			if strings.Contains(f, "\n") { // as a terminal shows it
				forms = append(forms, strings.ReplaceAll(f, "\n", "\r\n"))
			}
		}
	}
	for _, v := range values {
		add(least, textForms(v))
		add(max(least, leastCode), codedForms(v))
		// $(cat FILE) and the like leave the last line break out.
		if trimmed := strings.TrimRight(v, "\r\n"); trimmed != v {
			add(least, textForms(trimmed))
			add(max(least, leastCode), codedForms(trimmed))
		}
		if !strings.Contains(v, "\n") {
			continue
		}
		for line := range strings.Lines(v) {
			line = strings.TrimSpace(line)
			if len(line) >= least && !isCommon(line) && !isArmor(line) {
				add(least, textForms(line))
			}
		}
	}
	return forms
}

// isArmor reports whether a line is one that begins or ends the text form of a key (RFC 7468): every certificate has it, too.
func isArmor(line string) bool {
	return strings.HasPrefix(line, "-----") && strings.HasSuffix(line, "-----")
}

// textForms are the value, and the value quoted: JSON as various encoders write it, and shell words.
func textForms(v string) []string {
	forms := []string{v}
	if utf8.ValidString(v) {
		for _, q := range jsonQuotings {
			forms = append(forms, q.quote(v))
		}
	}
	return append(forms, shellForms(v)...)
}

// jsonQuoting is how one kind of encoder quotes a string.
type jsonQuoting struct {
	always string // quoted as \u00xx beside control characters
	slash  bool   // \/
	ascii  bool   // nothing but ASCII
	upper  bool   // \u00AB
	coded  bool   // \u000a for \n
	single bool   // ' and not " is quoted, by a backslash: Python's repr
}

var jsonQuotings = []jsonQuoting{
	{},                             // JavaScript, Go without HTML escapes, Ruby
	{ascii: true},                  // Python
	{always: "<>&"},                // Go
	{always: "<>&\u2028\u2029"},    // Go, the rest of it
	{always: "<>&='", ascii: true}, // Gson
	{slash: true},                  // PHP with JSON_UNESCAPED_UNICODE
	{slash: true, ascii: true},     // PHP
	{coded: true},                  // Go before 1.22 for \b and \f, and others
	{always: `"'<>&+` + "`", ascii: true, upper: true}, // .NET
	{single: true},
}

func (q jsonQuoting) quote(v string) string {
	var b strings.Builder
	code := func(c uint16) {
		if q.upper {
			fmt.Fprintf(&b, `\u%04X`, c)
		} else {
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	const short = "\b\f\n\r\t"
	for _, r := range v {
		i := strings.IndexRune(short, r)
		switch {
		case strings.ContainsRune(q.always, r), q.coded && r < ' ', r < ' ' && i < 0:
			code(uint16(r))
		case i >= 0:
			b.WriteString(`\` + "bfnrt"[i:i+1])
		case r == '\\', r == '"' && !q.single, r == '\'' && q.single, r == '/' && q.slash:
			b.WriteString(`\` + string(r))
		case q.ascii && r > '~':
			for _, c := range utf16.Encode([]rune{r}) {
				code(c)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// shellForms are what set, export -p, declare -p, printf %q and ${v@Q} of the shells print between the outer quotes, and
// Python's shlex.
func shellForms(v string) []string {
	backslashed := func(special string) string {
		var b strings.Builder
		for i := range len(v) {
			if strings.IndexByte(special, v[i]) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(v[i])
		}
		return b.String()
	}
	word := backslashed("\t\n !\"$&'()*,;<>?[\\]^`{|}")
	if word != "" && (word[0] == '#' || word[0] == '~') {
		word = `\` + word
	}
	var c, octal strings.Builder // $'…'
	for i := range len(v) {
		if j := strings.IndexByte("\a\b\x1b\f\n\r\t\v\\'", v[i]); j >= 0 {
			q := `\` + `abEfnrtv\'`[j:j+1]
			c.WriteString(q)
			octal.WriteString(q)
			continue
		}
		if v[i] < ' ' || v[i] == 0x7f {
			fmt.Fprintf(&c, `\%03o`, v[i])
		} else {
			c.WriteByte(v[i])
		}
		if v[i] < ' ' || v[i] >= 0x7f {
			fmt.Fprintf(&octal, `\%03o`, v[i])
		} else {
			octal.WriteByte(v[i])
		}
	}
	return []string{
		strings.ReplaceAll(v, "'", `'\''`),
		strings.ReplaceAll(v, "'", `'"'"'`),
		backslashed("\\\"$`"), // "…"
		word, c.String(), octal.String(),
	}
}

// codedForms are the value in base64, hexadecimal and URLs.
func codedForms(v string) []string {
	forms := []string{hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v)))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		raw := enc.EncodeToString([]byte(v))
		forms = append(forms, raw, enc.WithPadding(base64.StdPadding).EncodeToString([]byte(v)))
		whole := base64Within(enc, v, 0)
		forms = append(forms, whole, base64Within(enc, v, 1), base64Within(enc, v, 2))
		forms = append(forms, folded(whole, 76)...) // base64(1), MIME
		forms = append(forms, folded(whole, 64)...) // openssl, PEM
	}
	for _, safe := range urlSafe {
		forms = append(forms, urlQuote(v, safe, "%20", true), urlQuote(v, safe, "%20", false), urlQuote(v, safe, "+", true), urlQuote(v, safe, "+", false))
	}
	return forms
}

// base64Within returns the characters that stand for v whatever comes before and behind it, where v begins at the given place
// of a group of three bytes: user:PASSWORD in a header is base64 of more than the password. The characters at the ends
// that depend on the neighbours, too, and hold up to four bits of v, are not among them.
func base64Within(enc *base64.Encoding, v string, offset int) string {
	code := enc.EncodeToString([]byte("\x00\x00"[:offset] + v))
	from := (8*offset + 5) / 6
	to := 8 * (offset + len(v)) / 6
	if from >= to {
		return ""
	}
	return code[from:to]
}

// folded cuts a long code into the lines of a given width.
func folded(code string, width int) []string {
	if len(code) <= width {
		return nil
	}
	var lines []string
	for ; len(code) > width; code = code[width:] {
		lines = append(lines, code[:width])
	}
	return append(lines, code)
}

// urlSafe is what encoders leave as it is beside letters, digits, "-", "_" and ".".
var urlSafe = []string{
	"~",                 // RFC 3986, Go's QueryEscape
	"~/",                // Python's quote
	"~!'()*",            // encodeURIComponent
	"~$&+=:@",           // Go's PathEscape
	"~;,/?:@&=+$!*'()#", // encodeURI
	"*",                 // forms: WHATWG, Java's URLEncoder
}

func urlQuote(v, safe, space string, upper bool) string {
	format := "%%%02x"
	if upper {
		format = "%%%02X"
	}
	var b strings.Builder
	for i := range len(v) {
		c := v[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_."+safe, c) >= 0:
			b.WriteByte(c)
		case c == ' ':
			b.WriteString(space)
		default:
			fmt.Fprintf(&b, format, c)
		}
	}
	return b.String()
}
