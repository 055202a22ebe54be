package vault

import (
	"slices"
	"testing"
)

func TestSecretsOfAddresses(t *testing.T) {
	for text, want := range map[string][]string{
		"http://127.0.0.1:8200":                   nil,
		"https://user:passw0rd@h:8200/x":          {"passw0rd"},
		"HTTPS://user:p%40ssw0rd@[::1]:8200":      {"p%40ssw0rd", "p@ssw0rd"},
		"user:passw0rd@proxy:3128":                {"passw0rd"}, // without a scheme
		"http://a:secret1@h1,http://b:secret2@h2": {"secret1", "secret2"},
		"http://u:p w0rd@host":                    {"p w0rd"}, // no address at all
		"http://u:p%zzword@h":                     {"p%zzword"},
		"https://hvs.CAESIJabcdefghijklmnop@h":    {"hvs.CAESIJabcdefghijklmnop"},
		"https://h/path@x":                        nil,
		"unix:///run/vault@1.sock":                nil,
		"http://admin:admin@h":                    {"admin"},
		"http://u:pa@ss@h":                        {"pa@ss"},
	} {
		var s Secrets
		s.AddAddress(text)
		var got []string
		for _, t := range s.All() {
			got = append(got, t.Reveal())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d secrets, want %d", text, len(got), len(want))
		}
	}
}

// A password that is a common word, or a few digits, is taken out of Vault's words like any other.
func TestCommonSecretsAreCleaned(t *testing.T) {
	for _, secret := range []string{"localhost", "12345", "true", "aaaaaa", "production"} {
		if got := (&Secrets{}).Clean("cannot bind as ["+secret+"]", []string{secret}); got != "cannot bind as ["+Hidden+"]" {
			t.Errorf("%q", got)
		}
	}
}
