package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"sort"
	"strings"
	"sync"
)

// minSecret is the length from which a string counts as a secret. Shorter ones ("1", "true", "dev") would blacken
// harmless text all over a log.
const minSecret = 8

var secrets struct {
	sync.Mutex
	known map[string]bool
	long  []string // the same, longest first: a value that contains another is blackened as a whole
}

// Secret makes values known to Redact. Every token and every value that this package writes into Vault is registered
// without asking.
func Secret(values ...string) {
	secrets.Lock()
	defer secrets.Unlock()
	if secrets.known == nil {
		secrets.known = map[string]bool{}
	}
	for _, v := range values {
		for _, form := range append(Forms(v), strings.Split(v, "\n")...) {
			if len(form) >= minSecret && !secrets.known[form] {
				secrets.known[form] = true
				secrets.long = append(secrets.long, form)
			}
		}
	}
	sort.Slice(secrets.long, func(i, j int) bool { return len(secrets.long[i]) > len(secrets.long[j]) })
}

// Redact replaces every known secret in s.
func Redact(s string) string {
	secrets.Lock()
	defer secrets.Unlock()
	for _, v := range secrets.long {
		s = strings.ReplaceAll(s, v, "[secret]")
	}
	return s
}

// Forms returns the shapes in which a value gives itself away: as it is, as the inside of a JSON string, with and
// without HTML escapes, as Base64, which Vault's API and Kubernetes like, in hexadecimal and as part of a URL.
func Forms(v string) []string {
	raw := []byte(v)
	forms := []string{
		v, base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), url.QueryEscape(v), url.PathEscape(v),
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err == nil {
		forms = append(forms, strings.Trim(strings.TrimSuffix(b.String(), "\n"), `"`))
	}
	if q, err := json.Marshal(v); err == nil {
		forms = append(forms, strings.Trim(string(q), `"`))
	}
	return forms
}

// Canary returns a value that occurs nowhere else, so that finding it anywhere proves a leak. The label is only there
// to tell several of them apart.
func Canary(label string) string {
	v := "canary-" + label + "-" + random(12)
	Secret(v)
	return v
}

// random returns n random bytes in hexadecimal.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, says its documentation
	return hex.EncodeToString(b)
}
