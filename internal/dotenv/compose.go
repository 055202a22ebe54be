package dotenv

import (
	"strconv"
	"strings"
	"unicode"
)

// composed is what a file says by the rules of Docker Compose. A $ that may begin a reference is the character dollar. One that stands
// for itself, in single quotes or behind a backslash in double ones, is $.
type composed struct {
	vars   map[string]string
	dollar string
}

// Why a line is not read.
const (
	noAssignment = "there is no = in it, or it follows a closing quote"
	unreadable   = "it cannot be read: an = is missing, a name has a character that no name has, or a quote is not closed"
	openQuote    = "a quote is not closed"
)

// readCompose reads a file as Docker Compose does, whose own parser the tests hold it against. One thing differs: a name without = is
// a variable of the caller there and an error here.
func readCompose(src string) (*composed, error) {
	c := &composed{vars: map[string]string{}, dollar: unused(src)}
	for line, rest := 1, src; ; {
		start := pastBlank(rest)
		line += strings.Count(rest[:start], "\n")
		if rest = rest[start:]; rest == "" {
			return c, nil
		}
		name, n, why := composeName(rest)
		value, size := "", 0
		if why == "" {
			value, size, why = c.value(rest[n:])
		}
		if why != "" {
			return nil, &Error{Line: line, Why: why}
		}
		c.vars[name] = value
		n += size
		line += strings.Count(rest[:n], "\n")
		rest = rest[n:]
	}
}

// pastBlank is the length of the white space and comments at the beginning.
func pastBlank(s string) int {
	rest := strings.TrimLeftFunc(s, unicode.IsSpace)
	for strings.HasPrefix(rest, "#") {
		rest = strings.TrimLeftFunc(rest[lineLength(rest):], unicode.IsSpace)
	}
	return len(s) - len(rest)
}

func lineLength(s string) int {
	if n := strings.IndexByte(s, '\n'); n >= 0 {
		return n
	}
	return len(s)
}

// inLine reports whether a rune is white space that Compose passes over around a name.
func inLine(r rune) bool { return r != '\n' && r <= 0xff && unicode.IsSpace(r) }

// composeName returns the name at the beginning, and the length up to the value behind = or :.
func composeName(s string) (name string, n int, why string) {
	text := s
	if rest, ok := strings.CutPrefix(s, "export"); ok && strings.IndexFunc(rest, isASCIISpace) == 0 {
		text = strings.TrimLeftFunc(rest, inLine)
	}
	end := strings.IndexFunc(text, func(r rune) bool {
		return !inLine(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune("_.-[]", r)
	})
	if end < 0 {
		end = len(text)
	}
	name = strings.TrimRightFunc(text[:end], unicode.IsSpace)
	switch {
	case strings.Contains(name, " "):
		return "", 0, unreadable
	case end == len(text), text[end] == '\n':
		return "", 0, noAssignment
	case text[end] != '=' && text[end] != ':':
		return "", 0, unreadable
	}
	value := strings.TrimLeftFunc(text[end+1:], inLine)
	return name, len(s) - len(value), ""
}

// isASCIISpace is \s of a regular expression.
func isASCIISpace(r rune) bool { return strings.ContainsRune("\t\n\f\r ", r) }

// value returns the value at the beginning and its length. What follows a closing quote is looked at as if it were a new line.
func (c *composed) value(s string) (value string, n int, why string) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		n = lineLength(s)
		value, _, _ = strings.Cut(s[:n], " #")
		return strings.ReplaceAll(strings.TrimRightFunc(value, unicode.IsSpace), "$", c.dollar), n, ""
	}
	n = closing(s)
	switch {
	case n == 0:
		return "", 0, openQuote
	case s[0] == '\'':
		return strings.ReplaceAll(s[1:n], `\'`, "'"), n + 1, ""
	}
	return c.doubleQuoted(s[1:n]), n + 1, ""
}

// doubleQuoted resolves the escapes of a value in double quotes: \0 and three octal digits are a character.
func (c *composed) doubleQuoted(s string) string {
	var b strings.Builder
	for {
		text, rest, escape := strings.Cut(s, `\`)
		b.WriteString(strings.ReplaceAll(text, "$", c.dollar))
		if !escape {
			return b.String()
		}
		s = rest
		if at := strings.IndexByte(`$"\abfnrtv`, rest[0]); at >= 0 { // there is one: a quote behind the backslash would not close
			b.WriteByte("$\"\\\a\b\f\n\r\t\v"[at])
			s = rest[1:]
			continue
		}
		if digits, ok := strings.CutPrefix(rest, "0"); ok {
			if code, err := strconv.ParseUint(digits[:min(len(digits), 3)], 8, 8); err == nil && len(digits) >= 3 {
				b.WriteRune(rune(code))
				s = digits[3:]
				continue
			}
			s = digits // the 0 is lost there
		}
		b.WriteByte('\\')
	}
}
