package cli

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// NO_COLOR wins over CLICOLOR_FORCE, and that over what the output is. (A terminal is TestAtATerminal's.)
func TestColours(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{map[string]string{"TERM": "xterm"}, false},
		{map[string]string{"CLICOLOR_FORCE": "1"}, true},
		{map[string]string{"CLICOLOR_FORCE": "1", "TERM": "dumb"}, true},
		{map[string]string{"CLICOLOR_FORCE": "0"}, false},
		{map[string]string{"CLICOLOR_FORCE": ""}, false},
		{map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, false},
	} {
		if s := screenOf(nil, func(name string) string { return c.env[name] }); s.colour != c.want || s.columns != 0 {
			t.Errorf("%v: %+v, want colours: %v", c.env, s, c.want)
		}
	}
	if got := (screen{}).paint(badTone, "x") + (screen{colour: true}).paint(plainTone, "x") + (screen{colour: true}).paint(badTone, "x"); got != "xx\x1b[31mx\x1b[0m" {
		t.Errorf("%q", got)
	}
}

// Lines are broken at blanks where there is a terminal, later ones are indented, and nothing is lost.
func TestBroken(t *testing.T) {
	t.Parallel()
	words := "  keys: " + strings.TrimSpace(strings.Repeat("ÄÖÜ_KEY, ", 20))
	for columns := 40; columns < 200; columns += 7 {
		lines := screen{columns: columns}.broken(words, 10)
		for i, line := range lines {
			if n := utf8.RuneCountInString(line); n > columns-10 {
				t.Errorf("%d columns: %d in %q", columns, n, line)
			}
			if indent := len(line) - len(strings.TrimLeft(line, " ")); i == 0 && indent != 2 || i > 0 && indent != 4 {
				t.Errorf("%q is indented by %d", line, indent)
			}
		}
		if got := strings.Fields(strings.Join(lines, " ")); !slices.Equal(got, strings.Fields(words)) {
			t.Errorf("%d columns: %q", columns, got)
		}
	}
	if got := (screen{}).broken(words, 10); len(got) != 1 || got[0] != words {
		t.Errorf("without a terminal: %q", got)
	}
	long := strings.Repeat("x", 100)
	if got := (screen{columns: 40}).broken("a "+long+" b", 0); !slices.Equal(got, []string{"a", "  " + long, "  b"}) {
		t.Errorf("%q", got)
	}
}
