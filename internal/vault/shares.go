package vault

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Share is one unseal key share.
type Share struct {
	Key   Text
	Label string // how to name it without showing it: "share 2 (line 5)"
	raw   Text   // decoded, to tell whether two are the same
}

// Same reports whether two shares are the same, one perhaps in hexadecimal and the other in Base64.
func (s Share) Same(o Share) bool { return s.raw.Equal(o.raw) }

// ParseShare reads one share as Vault prints it, in Base64 or hexadecimal. ok is false for what cannot be a share.
func ParseShare(text, label string) (s Share, ok bool) {
	text = strings.TrimSpace(text)
	raw, err := hex.DecodeString(text)
	if err != nil {
		raw, err = base64.StdEncoding.DecodeString(text)
	}
	// A share has a byte more than Vault's root key, which has 32; a lone one is that key itself. 16 is the least that
	// Vault takes, and one encrypted by PGP is several hundred bytes long.
	if err != nil || len(raw) < 16 || len(raw) > 66 {
		return Share{}, false
	}
	return Share{NewText(text), label, NewText(string(raw))}, true
}

// ParseShares finds the shares in what `vault operator init` printed, as text or JSON, in KEY=value lines, or in lines
// of which each is a share. Tokens and comments beside them are passed over.
func ParseShares(text, name string) ([]Share, error) {
	var shares []Share
	var err *fault.Error
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		shares, err = jsonShares(text)
	} else {
		shares, err = textShares(text)
	}
	if err == nil && len(shares) == 0 {
		err = &fault.Error{Why: "there is no key share in it",
			Hint: "it may be the output of `vault operator init`, as text or JSON, KEY=value lines, or a share a line"}
	}
	if err != nil {
		err.Kind, err.What = fault.Usage, "cannot use "+name
		return nil, err
	}
	return shares, nil
}

const recoveryHint = "a Vault that unseals itself has recovery keys, which unseal nothing: look at its seal instead"

func addShare(shares []Share, s Share) []Share {
	if slices.ContainsFunc(shares, s.Same) {
		return shares
	}
	return append(shares, s)
}

// jsonShares takes every list or string whose name says that it is a key and no recovery key: the names differ between
// the CLI (unseal_keys_b64), the API (keys_base64) and what people make of them.
func jsonShares(text string) ([]Share, *fault.Error) {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &object) != nil {
		return nil, &fault.Error{Why: "it begins like JSON but is not JSON",
			Hint: "it should be what `vault operator init -format=json` printed"}
	}
	var shares []Share
	recovery := false
	for _, name := range slices.Sorted(maps.Keys(object)) {
		list := textsOf(object[name])
		switch lower := strings.ToLower(name); {
		case strings.Contains(lower, "recovery"):
			recovery = recovery || len(list) > 0
			continue
		case !strings.Contains(lower, "key") && !strings.Contains(lower, "share"), strings.Contains(lower, "token"),
			strings.Contains(lower, "fingerprint"):
			continue
		}
		for i, k := range list {
			s, ok := ParseShare(k, fmt.Sprintf("share %d", i+1))
			if !ok {
				return nil, &fault.Error{Why: fmt.Sprintf("number %d of %q is no key share", i+1, name),
					Hint: "one that was encrypted by PGP has to be decrypted first"}
			}
			shares = addShare(shares, s)
		}
	}
	if len(shares) == 0 && recovery {
		return nil, &fault.Error{Why: "it holds recovery keys only", Hint: recoveryHint}
	}
	return shares, nil
}

// textsOf is a JSON list of texts, or a single one; empty for anything else.
func textsOf(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	return nil
}

var (
	initLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*(Unseal|Recovery) Key \d+[^:]*:\s*(\S+)\s*$`)
	})
	pairLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_ .-]*?)\s*[=:]\s*["']?(.*?)["']?,?\s*$`)
	})
)

func textShares(text string) ([]Share, *fault.Error) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	read := lineShare
	// The text of `vault operator init` has prose below the keys.
	if slices.ContainsFunc(lines, initLine().MatchString) {
		read = initShare
	}
	var shares []Share
	recovery := false
	for i, line := range lines {
		switch s, is := read(line, fmt.Sprintf("share %d (line %d)", len(shares)+1, i+1)); is {
		case aShare:
			shares = addShare(shares, s)
		case recoveryKey:
			recovery = true
		case noShare:
			return nil, &fault.Error{Why: fmt.Sprintf("line %d is no key share", i+1),
				Hint: "shares are Base64 or hexadecimal; one that was encrypted by PGP has to be decrypted first"}
		}
	}
	if len(shares) == 0 && recovery {
		return nil, &fault.Error{Why: "it holds recovery keys only", Hint: recoveryHint}
	}
	return shares, nil
}

// lineKind is what stands in a line of a text with shares.
type lineKind uint8

const (
	nothing lineKind = iota // prose, a comment, a token
	aShare
	recoveryKey
	noShare // where one should be
)

// initShare reads a line of what `vault operator init` printed.
func initShare(line, label string) (Share, lineKind) {
	m := initLine().FindStringSubmatch(line)
	switch {
	case m == nil:
		return Share{}, nothing
	case m[1] == "Recovery":
		return Share{}, recoveryKey
	case strings.HasPrefix(m[2], "#"):
		return Share{}, nothing
	}
	return shareOf(m[2], label)
}

// lineShare reads a line that is a share, or NAME=share.
func lineShare(line, label string) (Share, lineKind) {
	value := strings.TrimSpace(line)
	if value == "" || strings.HasPrefix(value, "#") {
		return Share{}, nothing
	}
	if s, ok := ParseShare(value, label); ok {
		return s, aShare
	}
	m := pairLine().FindStringSubmatch(line)
	if m == nil {
		return Share{}, noShare
	}
	switch name := strings.ToLower(m[1]); {
	case strings.Contains(name, "recovery"):
		return Share{}, recoveryKey
	case strings.Contains(name, "token"), !strings.Contains(name, "key") && !strings.Contains(name, "share"):
		return Share{}, nothing
	}
	return shareOf(m[2], label)
}

func shareOf(value, label string) (Share, lineKind) {
	if s, ok := ParseShare(value, label); ok {
		return s, aShare
	}
	return Share{}, noShare
}
