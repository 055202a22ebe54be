package cli

import (
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// tone decides a text's colour.
type tone int

const (
	plainTone tone = iota
	goodTone
	badTone
	doubtTone // it works, and yet should be known
)

var colourOf = map[tone]string{goodTone: "\x1b[32m", badTone: "\x1b[31m", doubtTone: "\x1b[33m"}

// leastColumns is the narrowest terminal that lines are broken for.
const leastColumns = 40

// screen is what standard output is: a terminal or not.
type screen struct {
	colour  bool
	columns int // of a terminal; 0 where lines are not broken
}

// screenOf is the screen of a file. NO_COLOR wins over CLICOLOR_FORCE, and that over what the file is (no-color.org,
// bixense.com/clicolors).
func screenOf(f *os.File, getenv func(string) string) screen {
	terminal := f != nil && isTerminal(f)
	var s screen
	if terminal {
		s.columns = columnsOf(f)
	}
	force := getenv("CLICOLOR_FORCE")
	switch {
	case getenv("NO_COLOR") != "":
	case force != "" && force != "0":
		s.colour = true
	default:
		s.colour = terminal && smart(getenv)
	}
	return s
}

// smart reports whether a terminal understands escape sequences.
func smart(getenv func(string) string) bool { return getenv("TERM") != "" && getenv("TERM") != "dumb" }

// columnsOf is the width of a terminal; 80 for one that does not know.
func columnsOf(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 80
	}
	return max(int(size.Col), leastColumns)
}

// paint gives a text its colour.
func (s screen) paint(t tone, text string) string {
	if !s.colour || t == plainTone || text == "" {
		return text
	}
	return colourOf[t] + text + "\x1b[0m"
}

// broken is a text in lines that fit the terminal behind an indent, broken at blanks. A word that is too long for a line
// has one of its own.
func (s screen) broken(text string, indent int) []string {
	width := s.columns - indent
	if s.columns == 0 || width < leastColumns/2 || utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	head := text[:len(text)-len(strings.TrimLeft(text, " "))]
	var lines []string
	line, length := head, len(head)
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case length+1+n > width:
			lines = append(lines, line)
			line, length = head+"  ", len(head)+2
		default:
			line, length = line+" ", length+1
		}
		line, length = line+word, length+n
	}
	return append(lines, line)
}

// row prints a text behind a word that is filled up to a width. The tone is the word's; of is the text's own.
func (u *ui) row(width int, head string, t tone, text string, of tone) {
	for _, line := range u.screen.broken(oneLine(text), width+1) {
		u.printf("%s%s %s\n", u.screen.paint(t, head), strings.Repeat(" ", max(width-utf8.RuneCountInString(head), 0)), u.screen.paint(of, line))
		head = ""
	}
}
