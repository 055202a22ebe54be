package launcher

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
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
		if len(v) > largeValue {
			forms = append(forms, largeForms(v, least)...)
			continue
		}
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

// A value of many kilobytes in every form would be several times its size for each, and a bundle of certificates would take
// more memory than most containers have. So a large value is looked for in pieces: its lines, and of long lines and codes pieces
// that overlap by half, so that one *** stands for all of them. Of the codes only plain base64 is looked for.
const (
	largeValue = 4 << 10
	longLine   = 256
	linePiece  = 64
	codePiece  = 256
)

// largeForms are the forms of the pieces of a large value.
func largeForms(v string, least int) []string {
	var forms []string
	for line := range strings.Lines(v) {
		line = strings.TrimSpace(line)
		if len(line) < least || isCommon(line) || isArmor(line) {
			continue
		}
		if len(line) <= longLine {
			forms = append(forms, textForms(line)...)
			continue
		}
		for _, piece := range pieces(line, linePiece) {
			forms = append(forms, textForms(piece)...)
		}
	}
	code := base64.StdEncoding.EncodeToString([]byte(v))
	forms = append(forms, pieces(code, codePiece)...)
	for _, width := range []int{76, 64} {
		for _, line := range folded(code, width) {
			if len(line) >= max(least, leastCode) {
				forms = append(forms, line)
			}
		}
	}
	return forms
}

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

// isArmor reports whether a line is one that begins or ends the text form of a key (RFC 7468): every certificate has it, too.
func isArmor(line string) bool {
	return strings.HasPrefix(line, "-----") && strings.HasSuffix(line, "-----")
}

// textForms are the value, and the value quoted: JSON as various encoders write it, and shell words.
func textForms(v string) []string {
	q := quotings()
	forms := []string{v}
	if utf8.ValidString(v) {
		forms = quoteAll(forms, v, q.json)
	}
	forms = quoteAll(forms, v, q.shell)
	if v != "" && (v[0] == '#' || v[0] == '~') { // what printf %q quotes at the beginning only
		forms = append(forms, `\`+q.shell[0].quote(v))
	}
	return forms
}

// quoting is one way to write a string: what stands for each byte, "" for itself.
type quoting struct {
	bytes [256]string
	code  string // format of what stands for a UTF-16 unit outside of ASCII; "" for UTF-8 as it is
}

func (q *quoting) quote(v string) string {
	var b strings.Builder
	b.Grow(len(v) + len(v)/2)
	for i := 0; i < len(v); {
		c := v[i]
		if c >= utf8.RuneSelf && q.code != "" {
			r, n := utf8.DecodeRuneInString(v[i:])
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, q.code, unit)
			}
			i += n
			continue
		}
		if with := q.bytes[c]; with != "" {
			b.WriteString(with)
		} else {
			b.WriteByte(c)
		}
		i++
	}
	return b.String()
}

// quoteAll appends v in every quoting. Most agree about the bytes that are in v, and about many values with v itself.
func quoteAll(forms []string, v string, quotings []quoting) []string {
	var has [256]bool
	for i := range len(v) {
		has[v[i]] = true
	}
	var present, key []byte
	for c, yes := range has {
		if yes {
			present = append(present, byte(c))
		}
	}
	seen := map[string]bool{}
	for i := range quotings {
		q := &quotings[i]
		key = key[:0]
		for _, c := range present {
			with := q.bytes[c]
			if c >= utf8.RuneSelf && q.code != "" {
				with = q.code
			}
			if with != "" {
				key = append(append(key, with...), 0)
			}
			key = append(key, 0)
		}
		if len(key) > len(present) && !seen[string(key)] {
			seen[string(key)] = true
			forms = append(forms, q.quote(v))
		}
	}
	return forms
}

// set makes with, a format of the byte, stand for all of some bytes.
func (q *quoting) set(bytes, format string) {
	for i := range len(bytes) {
		q.bytes[bytes[i]] = fmt.Sprintf(format, bytes[i])
	}
}

const (
	controls = "\x00\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
	letters  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// quotings are made when they are needed first.
var quotings = sync.OnceValue(func() (all struct{ json, shell, url []quoting }) {
	type kind struct {
		coded   string // as \u00xx beside control characters
		escaped string // by a backslash
		ascii   bool
		upper   bool // \u00AB
		long    bool // \u000a for \n
	}
	for _, k := range []kind{
		{escaped: `"`},                              // JavaScript, Go without HTML escapes, Ruby
		{escaped: `"`, ascii: true},                 // Python
		{escaped: `"`, coded: "<>&"},                // Go
		{escaped: `"`, coded: "<>&='", ascii: true}, // Gson
		{escaped: `"/`},                             // PHP with JSON_UNESCAPED_UNICODE
		{escaped: `"/`, ascii: true},                // PHP
		{escaped: `"`, long: true},
		{coded: `"'<>&+` + "`", ascii: true, upper: true}, // .NET
		{escaped: "'"},                                    // Python's repr
	} {
		var q quoting
		format := `\u%04x`
		if k.upper {
			format = `\u%04X`
		}
		q.set(controls+k.coded, format)
		if !k.long {
			for i, c := range "\b\f\n\r\t" {
				q.bytes[c] = `\` + "bfnrt"[i:i+1]
			}
		}
		q.set(`\`+k.escaped, `\%c`)
		if k.ascii {
			q.set("\x7f", format)
			q.code = format
		}
		all.json = append(all.json, q)
	}

	// What set, export -p, declare -p, printf %q and ${v@Q} of the shells print between the outer quotes, and Python's shlex.
	all.shell = make([]quoting, 6)
	all.shell[0].set("\t\n !\"$&'()*,;<>?[\\]^`{|}", `\%c`)
	all.shell[1].set("\\\"$`", `\%c`)
	all.shell[2].bytes['\''] = `'\''`
	all.shell[3].bytes['\''] = `'"'"'`
	for i := range 2 { // $'…'
		q := &all.shell[4+i]
		q.set(controls+"\x7f", `\%03o`)
		for i, c := range "\a\b\x1b\f\n\r\t\v\\'" {
			q.bytes[c] = `\` + `abEfnrtv\'`[i:i+1]
		}
		for c := utf8.RuneSelf; c < 256 && i == 1; c++ {
			q.bytes[c] = fmt.Sprintf(`\%03o`, c)
		}
	}

	// What encoders leave as it is in URLs, beside letters, digits, "-", "_" and ".".
	for _, safe := range []string{
		"~",                 // strictly RFC 3986, Go's QueryEscape
		"~/",                // Python's quote
		"~!'()*",            // encodeURIComponent
		"~!$&'()*+,;=",      // RFC 3986: user and password
		"~!$&'()*+,;=:@",    // the same: segment of a path
		"~$&+,;=",           // Go: user and password
		"~$&+=:@",           // PathEscape
		"~$&+,/:;=@",        // URL.Path
		"~!$&()*+,/:;=?@",   // URL.Fragment
		"~;,/?:@&=+$!*'()#", // encodeURI
		"*",                 // forms: WHATWG, Java's URLEncoder
	} {
		for _, format := range []string{"%%%02X", "%%%02x"} {
			var q quoting
			for c := range 256 {
				if c >= utf8.RuneSelf || strings.IndexByte(letters+"-_."+safe, byte(c)) < 0 {
					q.bytes[c] = fmt.Sprintf(format, c)
				}
			}
			form := q
			form.bytes[' '] = "+"
			all.url = append(all.url, q, form)
		}
	}
	return all
})

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
	return quoteAll(forms, v, quotings().url)
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
