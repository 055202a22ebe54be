package mask

import (
	"slices"
	"strings"
)

// commonValues are settings rather than secrets, in small letters.
var commonValues = []string{
	"true", "false", "yes", "no", "on", "off", "null", "none", "nil", "undefined", "default", "enabled", "disabled",
	"enable", "disable",
	"localhost", "localhost.localdomain", "127.0.0.1", "0.0.0.0", "::1", "production", "development", "staging",
	"testing",
	"debug", "info", "warn", "warning", "error", "utf-8", "utf8",
}

// Common reports whether a value stands in output for many reasons: numbers under six digits, one character repeated,
// and the like.
func Common(value string) bool {
	value = strings.TrimSpace(value)
	if value == "" || strings.Count(value, value[:1]) == len(value) ||
		slices.Contains(commonValues, strings.ToLower(value)) {
		return true
	}
	const digits = "0123456789"
	if strings.Trim(value, "+-."+digits) != "" {
		return false
	}
	n := 0
	for _, c := range digits {
		n += strings.Count(value, string(c))
	}
	return n < 6
}
