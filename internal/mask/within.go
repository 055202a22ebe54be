package mask

import (
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// longestSearched is the longest value in which others are looked for: a connection string is short.
const longestSearched = 16 << 10

// leastToken is how long a user without a password is that is a token.
const leastToken = 16

// namedSecrets matches a secret that stands behind its name in a connection string or a query, in quotes or not.
var namedSecrets = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:password|passwd|pwd|pass|secret|token|signature|sig|(?:api|access|account|private|shared|secret)[ _-]?(?:access[ _-]?)?key)["']?\s*[=:]\s*(?:'([^']+)'|"([^"]+)"|([^\s&;,"']+))`)
})

// Within lists the secrets that stand in a value with other things around them: the password of an address, and what a
// connection string calls a password, a token or a key. Programs print the rest of such a value without a thought, and
// these with it. Each comes as it is, and as it is meant where it is written for a URL.
func Within(value string) []string {
	if len(value) > longestSearched {
		return nil
	}
	var list []string
	add := func(s string) {
		list = append(list, s)
		if plain, err := url.PathUnescape(s); err == nil && plain != s {
			list = append(list, plain)
		}
	}
	for _, rest := range strings.Split(value, "://")[1:] {
		if end := strings.IndexAny(rest, "/?#\"'<> \t\r\n"); end >= 0 {
			rest = rest[:end]
		}
		at := strings.LastIndexByte(rest, '@')
		if at < 0 {
			continue
		}
		user, password, given := strings.Cut(rest[:at], ":")
		switch {
		case given && password != "":
			add(password)
		case len(user) >= leastToken:
			add(user)
		}
	}
	if !strings.ContainsAny(value, "=:") {
		return list
	}
	for _, m := range namedSecrets().FindAllStringSubmatch(value, -1) {
		for _, s := range m[1:] {
			if s != "" {
				add(s)
			}
		}
	}
	return list
}
