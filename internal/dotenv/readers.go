package dotenv

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Dialects are the readers whose rules a file can be read by. Without a dialect, a line that they read differently is
// refused where a guess would be wrong (unclear).
var Dialects = []string{"compose", "node", "python", "ruby"}

// parseAs reads a file as one of the other readers does, with two differences. A $ stays as it is written. A line that
// the reader would pass over is an error: what is not imported would be missed only later.
func parseAs(dialect, src string) (map[string]string, error) {
	src = strings.ReplaceAll(src, "\r\n", "\n")
	src = strings.ReplaceAll(src, "\r", "\n")
	next := map[string]func(string) (name, value string, n int){
		"node": nodeLine, "python": pythonLine, "ruby": rubyLine,
	}[dialect]
	if next == nil {
		return nil, &Error{Why: fmt.Sprintf("no dialect %q", dialect)}
	}
	vars := map[string]string{}
	for line := 1; src != ""; {
		first, _, _ := strings.Cut(src, "\n")
		if text := strings.TrimSpace(first); text == "" || text[0] == '#' {
			src = strings.TrimPrefix(src[len(first):], "\n")
			line++
			continue
		}
		name, value, n := next(src)
		switch {
		case n == 0:
			return nil, &Error{Line: line,
				Why: "this dialect does not read it: an = is missing, a quote is not closed, or something follows one"}
		case !isName(name):
			return nil, &Error{Line: line, Why: "names are [A-Za-z_][A-Za-z0-9_]*"}
		}
		vars[name] = value
		line += strings.Count(src[:n], "\n")
		src = src[n:]
	}
	return vars, nil
}

const blank = `[ \t\f\v\x{a0}\x{feff}]*`

var nodeHead = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^` + blank + `(?:export[ \t]+)?([\w.-]+)(?:` + blank + `=|:[ \t]+)` + blank)
})

// quotedOrLine splits what stands behind the = into a quoted value, with its quote, or the rest of the line. n is its
// length with what may follow: blanks and a comment. escaped says that a backslash keeps a quote from closing.
func quotedOrLine(s, quotes string) (raw string, quote byte, n int, ok bool) {
	end := strings.IndexByte(s, '\n')
	if end < 0 {
		end = len(s)
	}
	if s != "" && strings.IndexByte(quotes, s[0]) >= 0 {
		if at := closing(s); at > 0 {
			tail := s[at+1:]
			if stop := strings.IndexByte(tail, '\n'); stop >= 0 {
				tail = tail[:stop]
			}
			rest := strings.TrimSpace(tail)
			return s[1:at], s[0], at + 1 + len(tail), rest == "" || rest[0] == '#'
		}
		return "", s[0], 0, false
	}
	return s[:end], 0, end, true
}

func pastLine(s string, n int) int {
	if n < len(s) && s[n] == '\n' {
		n++
	}
	return n
}

// nodeLine: quotes are ', " and `. A # ends an unquoted value anywhere. Only \n and \r are escapes, and only in double
// quotes.
func nodeLine(s string) (name, value string, n int) {
	m := nodeHead().FindStringSubmatch(s)
	if m == nil {
		return "", "", 0
	}
	raw, quote, size, ok := quotedOrLine(s[len(m[0]):], "'\"`")
	if !ok {
		return "", "", 0
	}
	n = pastLine(s, len(m[0])+size)
	switch quote {
	case 0:
		raw, _, _ = strings.Cut(raw, "#")
		return m[1], strings.TrimSpace(raw), n
	case '"':
		raw = strings.ReplaceAll(strings.ReplaceAll(raw, `\n`, "\n"), `\r`, "\r")
	}
	return m[1], raw, n
}

var pythonHead = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([^=#\s]+)[ \t]*=[ \t]*`)
})

var spaceComment = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\s+#.*`) })

// pythonLine: a # ends an unquoted value after white space, double quotes have Python's escapes, single ones \\ and \'.
func pythonLine(s string) (name, value string, n int) {
	m := pythonHead().FindStringSubmatch(s)
	if m == nil {
		return "", "", 0
	}
	raw, quote, size, ok := quotedOrLine(s[len(m[0]):], `'"`)
	if !ok {
		return "", "", 0
	}
	n = pastLine(s, len(m[0])+size)
	switch quote {
	case '"':
		return m[1], unescape(raw, `\'"abfnrtv`, "\\'\"\a\b\f\n\r\t\v"), n
	case '\'':
		return m[1], unescape(raw, `\'`, `\'`), n
	}
	return m[1], strings.TrimRight(spaceComment().ReplaceAllString(raw, ""), " \t"), n
}

var rubyHead = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([\w.]+)(?:[ \t]*=|:[ \t]+)[ \t]*`)
})

// rubyLine: a # ends an unquoted value anywhere; in double quotes \n and \r are escapes and every other backslash goes.
func rubyLine(s string) (name, value string, n int) {
	m := rubyHead().FindStringSubmatch(s)
	if m == nil {
		return "", "", 0
	}
	raw, quote, size, ok := quotedOrLine(s[len(m[0]):], `'"`)
	if !ok || strings.Contains(raw, "\n") { // versions differ about values of several lines
		return "", "", 0
	}
	n = pastLine(s, len(m[0])+size)
	switch quote {
	case 0:
		raw, _, _ = strings.Cut(raw, "#")
		return m[1], strings.TrimSpace(raw), n
	case '"':
		var b strings.Builder
		for i := 0; i < len(raw); i++ {
			if raw[i] == '\\' && i+1 < len(raw) {
				i++
				switch raw[i] {
				case 'n':
					b.WriteByte('\n')
				case 'r':
					b.WriteByte('\r')
				default:
					b.WriteByte(raw[i])
				}
				continue
			}
			b.WriteByte(raw[i])
		}
		raw = b.String()
	}
	return m[1], raw, n
}

// unescape replaces a backslash and one of from by what stands there in to. Other backslashes stay.
func unescape(s, from, to string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if at := strings.IndexByte(from, s[i+1]); at >= 0 {
				b.WriteByte(to[at])
				i++
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
