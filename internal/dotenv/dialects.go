package dotenv

import (
	"regexp"
	"strings"
	"sync"
)

// The readers of .env files agree about most lines and not about all (docs/dotenv.md has a table, made by running
// them). One of them would read some lines in a way that is surely not meant, or that nobody else does. Such a line is
// refused and not guessed at: what is imported is gone from sight.

// assignment is one KEY=VALUE as it stands in a file.
type assignment struct {
	line  int
	name  string
	quote byte   // ' or ", 0 for none
	raw   string // without the quotes
}

var head = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([^\s=:#'"]+)[ \t]*[=:][ \t]*`)
})

// assignments finds them as every reader does: a value in quotes may have several lines.
func assignments(src string) []assignment {
	var list []assignment
	for line := 1; src != ""; {
		m := head().FindStringSubmatch(src)
		rest := src
		if m != nil {
			rest = src[len(m[0]):]
		}
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			end = len(rest)
		}
		a := assignment{line: line, raw: rest[:end]} // a comment, or nothing that is read
		if m != nil {
			a.name = m[1]
			if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
				if n := closing(rest); n > 0 {
					a.quote, a.raw = rest[0], rest[1:n]
					line += strings.Count(a.raw, "\n")
					if end = strings.IndexByte(rest[n:], '\n'); end < 0 {
						end = len(rest) - n
					}
					end += n
				}
			}
		}
		list = append(list, a)
		src = strings.TrimPrefix(rest[end:], "\n")
		line++
	}
	return list
}

// closing returns the place of the quote that closes the one at the beginning, or 0.
func closing(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i
		}
	}
	return 0
}

var (
	digitEscape = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?:^|[^\\])(?:\\\\)*\\[0-9]`) })
	spaceHash   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[\t\v\f\x{a0}] *#`) })
)

// unclear returns an error for the first line that readers understand differently, and that is refused.
func unclear(src string) error {
	for _, a := range assignments(src) {
		e := &Error{Line: a.line, Names: []string{a.name}}
		switch {
		case a.quote == 0 && strings.Contains(strings.TrimSuffix(a.raw, "\r"), "\r"):
			e.Names = nil
			e.Why = "a carriage return without a line feed: some readers end the line there, others do not; save the file with \\n or \\r\\n at the ends of lines"
		case !isName(a.name): // said elsewhere
			continue
		case a.quote == '"' && digitEscape().MatchString(a.raw):
			e.Why = `a backslash before a digit in double quotes: no two readers agree on what it is; put the value in single quotes, or write \\`
		case a.quote == 0 && strings.HasPrefix(a.raw, "`") && strings.Contains(a.raw[1:], "`"):
			e.Why =
				"backticks are quotes to Node's dotenv and belong to the value elsewhere: use single or double quotes"
		case a.quote == 0 && spaceHash().MatchString(a.raw):
			e.Why = "a comment or a part of the value? Docker Compose takes a # after a tab for the latter, others do not: put quotes around the value, or a blank before the #"
		default:
			continue
		}
		return e
	}
	return nil
}
