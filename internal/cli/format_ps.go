package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/statusserver"
)

// psWidth is how wide the screen of vaultexec ps is.
const psWidth = 80

// psText is the screen of vaultexec ps.
func psText(screen screen, s *statusserver.Snapshot, now time.Time) string {
	var b strings.Builder
	painted := func(t tone, text string) {
		b.WriteString(screen.paint(t, strings.TrimRight(fit(oneLine(text), psWidth), " ")) + "\n")
	}
	line := func(format string, args ...any) { painted(plainTone, fmt.Sprintf(format, args...)) }
	c := s.Command
	words, tone := []string{c.Name}, doubtTone
	if c.PID != 0 {
		words = append(words, fmt.Sprintf("pid %d", c.PID), statusserver.RunningSince(c.Started.Time))
	}
	switch {
	case s.Phase != statusserver.Running:
		words = append(words, string(s.Phase))
	case c.Ready:
		words, tone = append(words, "ready"), goodTone
	default:
		words, tone = append(words, "not ready"), badTone
	}
	painted(tone, strings.Join(words, ", "))
	if c.NotReady != "" && s.Phase != statusserver.Ending {
		painted(tone, c.NotReady)
	}
	words = []string{count(c.Restarts, "restart")}
	if c.Rollbacks > 0 {
		words = append(words, count(c.Rollbacks, "rollback"))
	}
	if c.LastExit != nil {
		words = append(words, fmt.Sprintf("last exit %s ago: %s", since(c.LastExit.At, now), c.LastExit.Status))
	}
	line("%s", strings.Join(words, ", "))
	if s.Next != nil {
		line("next command: pid %d, started %s ago", s.Next.PID, since(s.Next.Started, now))
	}
	psChange(line, s.Change, now)
	if s.Copy != nil {
		painted(badTone, fmt.Sprintf("Vault was away at the start: the command has the last-good copy, written %s ago", since(s.Copy.Written, now)))
	}
	for _, text := range s.Refused {
		painted(badTone, "not used: "+text)
	}
	psPaths(painted, s.Paths, now)
	if t := s.Token; t != nil {
		text := "login: " + t.Method
		if !t.Ends.IsZero() {
			text += ", token expires " + until(t.Ends, now)
		}
		text += ", " + count(t.Renewals, "renewal")
		tone := plainTone
		if t.Failing && t.LastFailure != nil {
			text, tone = text+", "+t.LastFailure.Text, badTone
		}
		painted(tone, text)
	}
	for _, l := range s.Leases {
		line("lease: %s, expires %s", l.Path, until(l.Ends, now))
	}
	return b.String()
}

// psChange is what is under way, its deadline first: the text may be cut.
func psChange(line func(string, ...any), c *statusserver.Change, now time.Time) {
	if c == nil {
		return
	}
	text := c.State
	if left := c.Until.Sub(now); left > 0 { // without a deadline it is negative
		text += ", at most " + shortly(left) + " more"
	}
	if c.Text != "" {
		text += ": " + c.Text
	}
	line("under way: %s", text)
}

// psPaths is the table of the paths.
func psPaths(line func(tone, string), paths []statusserver.Path, now time.Time) {
	if len(paths) == 0 {
		return
	}
	width := len("PATH")
	for _, p := range paths {
		width = max(width, utf8.RuneCountInString(oneLine(p.Path)))
	}
	width = min(width, 34)
	row := func(path, version, age, look, trouble string) {
		t := plainTone
		if trouble != "" && path != "PATH" {
			t = badTone
		}
		line(t, fmt.Sprintf("%-*s  %9s %5s %9s  %s", width, fit(path, width), version, age, look, trouble))
	}
	line(plainTone, "")
	row("PATH", "VERSION", "AGE", "LAST LOOK", "TROUBLE")
	for _, p := range paths {
		version := "-"
		if p.Version > 0 {
			version = strconv.Itoa(p.Version)
		}
		if p.Newest > 0 && p.Newest != p.Version {
			version += " → " + strconv.Itoa(p.Newest)
		}
		look := since(p.LastLook, now)
		if !p.Watched {
			look = "-"
		}
		row(oneLine(p.Path), version, since(p.Created, now), look, psTrouble(p))
	}
	line(plainTone, "")
}

func psTrouble(p statusserver.Path) string {
	switch {
	case p.Failing && p.LastFailure != nil:
		return p.LastFailure.Kind
	case p.State != "":
		return p.State
	}
	return ""
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// since is how long ago a time was, in one unit.
func since(t statusserver.Time, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return shortly(now.Sub(t.Time))
}

// until says how far away a time is.
func until(t statusserver.Time, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + shortly(d)
	}
	return shortly(now.Sub(t.Time)) + " ago"
}

// shortly writes a duration in one unit: 17s, 5m, 3h, 12d.
func shortly(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// fit cuts a text to a width.
func fit(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}
