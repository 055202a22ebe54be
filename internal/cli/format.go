package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agenticverz/vaultexec/internal/vault"
)

// age is the age of a version by the server's clock.
func age(s *vault.Secret) (time.Duration, bool) {
	created, err := time.Parse(time.RFC3339Nano, s.CreatedTime)
	if err != nil {
		return 0, false
	}
	now := s.Date
	if now.IsZero() {
		now = time.Now()
	}
	return max(now.Sub(created), 0), true
}

// roughly writes a duration in its two largest units.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// spell writes a duration as people say it: "89 days", "5 h", "3 min", "12 s".
func spell(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// shortTime cuts the fraction of a second off a time of the server's.
func shortTime(t string) string {
	if i := strings.IndexByte(t, '.'); i >= 0 && strings.HasSuffix(t, "Z") {
		return t[:i] + "Z"
	}
	return t
}

// shellQuote quotes a word for POSIX sh where it needs to be.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("_-./=:@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// oneLine makes visible what a terminal does not show as it is; names in Vault may hold anything. That means control
// characters, and whatever changes the order of a line or takes no space in it: U+202E, U+200B, U+2028, tags.
func oneLine(s string) string {
	if strings.IndexFunc(s, unseen) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unseen(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// withoutPasswords takes the user and the password out of every address in a text, whoever wrote it.
func withoutPasswords(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "://")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		b.WriteString("://")
		end := strings.IndexAny(rest, "/?#\"'<> \t\r\n")
		if end < 0 {
			end = len(rest)
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			b.WriteString(vault.Hidden)
			rest = rest[at:]
		}
		s = rest
	}
}

func unseen(r rune) bool { return !unicode.IsPrint(r) }
