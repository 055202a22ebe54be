package vault

import (
	"path"
	"strings"
	"testing"
	"unicode"

	"github.com/agenticverz/vaultexec/internal/fault"
)

func TestParsePath(t *testing.T) {
	for in, want := range map[string]Path{
		"app-prod":                     {Mount: "m", Name: "app-prod"},
		"app-prod@3":                   {Mount: "m", Name: "app-prod", Version: 3},
		"a/b/c@12":                     {Mount: "m", Name: "a/b/c", Version: 12},
		"/agenticverz/app-prod":        {Mount: "agenticverz", Name: "app-prod"},
		"/agenticverz/app-prod@2":      {Mount: "agenticverz", Name: "app-prod", Version: 2},
		"/team/kv/app":                 {Name: "team/kv/app"}, // only the server knows where the mount ends
		"/team/kv/app@7":               {Name: "team/kv/app", Version: 7},
		"x@0":                          {Mount: "m", Name: "x@0"}, // no version: @[1-9][0-9]*
		"x@01":                         {Mount: "m", Name: "x@01"},
		"x@":                           {Mount: "m", Name: "x@"},
		"x@3a":                         {Mount: "m", Name: "x@3a"},
		"x@3@4":                        {Mount: "m", Name: "x@3", Version: 4},
		"x%403":                        {Mount: "m", Name: "x@3"},
		"x%403@4":                      {Mount: "m", Name: "x@3", Version: 4},
		"a%23b":                        {Mount: "m", Name: "a#b"},
		"a%2540":                       {Mount: "m", Name: "a%40"}, // unescaped once
		"a%2Cb%2cc":                    {Mount: "m", Name: "a,b,c"},
		"100%":                         {Mount: "m", Name: "100%"},
		"a%41":                         {Mount: "m", Name: "a%41"},
		" blank ":                      {Mount: "m", Name: " blank "},
		"ключ/ü":                       {Mount: "m", Name: "ключ/ü"},
		"...":                          {Mount: "m", Name: "..."},
		"data/app":                     {Mount: "m", Name: "data/app"},
		"q%3Fversion=1&x":              {Mount: "m", Name: "q?version=1&x"},
		"q%3fv":                        {Mount: "m", Name: "q?v"},
		"q?version=1&x":                {}, // worked in 0.1.0, and named a secret
		"@5":                           {},
		"":                             {},
		"/":                            {},
		"/only":                        {},
		"//a":                          {},
		"a//b":                         {},
		"a/":                           {},
		"a/../b":                       {},
		"./a":                          {},
		"a/.":                          {},
		"%2E%2E/a":                     {Mount: "m", Name: "%2E%2E/a"}, // stays what it is; Vault gets it escaped
		"a\nb":                         {},
		"a\x7f":                        {},
		"a\u009bb":                     {}, // CSI of eight-bit terminals
		"a#b":                          {},
		"a@99999999999999999999999999": {},
	} {
		got, err := ParsePath(in, "m")
		if (want == Path{}) {
			if f := fault.Of(err); err == nil || f.Kind != fault.Usage || f.Why == "" {
				t.Errorf("ParsePath(%q) = %+v, %v; want a usage error", in, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("ParsePath(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestParseKeyRef(t *testing.T) {
	for in, want := range map[string]struct {
		path Path
		key  string
	}{
		"database#PASSWORD":   {Path{Mount: "m", Name: "database"}, "PASSWORD"},
		"database@4#PASSWORD": {Path{Mount: "m", Name: "database", Version: 4}, "PASSWORD"},
		"/x/y/z@4#a.b-c":      {Path{Name: "x/y/z", Version: 4}, "a.b-c"},
		"a#b#c@3":             {Path{Mount: "m", Name: "a"}, "b#c@3"},
		"a%23b#c%23d%25":      {Path{Mount: "m", Name: "a#b"}, "c#d%"},
		"a#with blank":        {Path{Mount: "m", Name: "a"}, "with blank"},
		"a":                   {},
		"a#":                  {},
		"#KEY":                {},
		"a#K\nEY":             {},
		"a/../b#KEY":          {},
	} {
		p, key, err := ParseKeyRef(in, "m")
		if want.key == "" {
			if !fault.Is(err, fault.Usage) {
				t.Errorf("ParseKeyRef(%q) = %+v, %q, %v; want a usage error", in, p, key, err)
			}
			continue
		}
		if err != nil || p != want.path || key != want.key {
			t.Errorf("ParseKeyRef(%q) = %+v, %q, %v; want %+v", in, p, key, err, want)
		}
	}
}

func TestParseMount(t *testing.T) {
	for in, want := range map[string]string{"secret": "secret", "team/kv": "team/kv", "/team/kv/": "team/kv", "": "", "/": "", "a//b": "", "..": "", "a/../b": ""} {
		got, err := ParseMount(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("ParseMount(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

// FuzzParsePath: whatever is accepted names exactly one secret below a mount, in the eyes of vault/api's path.Join too.
func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"app-prod", "app-prod@3", "/agenticverz/app-prod", "/team/kv/app@12", "../../sys/raw/x", "a//b", "x%403", "a%23b%25", "@1", "/", "a#KEY", "a@1#KEY#x", "q?x", "q?x=y&a=%26%0a#K", "q@1?=%", "a\x00b", "\xff/\xfe", "%2e%2e/%2f", "...", "x@18446744073709551616"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, mount := range []string{"m", "team/kv"} {
			p, err := ParsePath(s, mount)
			ref, key, refErr := ParseKeyRef(s, mount)
			if refErr == nil && (key == "" || strings.ContainsFunc(key, unicode.IsControl)) {
				t.Errorf("%q: key %q", s, key)
			}
			if err == nil && refErr == nil {
				t.Errorf("%q is both a path and a key of one", s)
			}
			if err != nil {
				if fault.Of(err).Kind != fault.Usage || p != (Path{}) {
					t.Errorf("%q: %+v with %v", s, p, err)
				}
				if refErr != nil {
					continue
				}
				p = ref
			}
			if p.Version < 0 || p.Name == "" {
				t.Errorf("%q: %+v", s, p)
			}
			full := p.Name
			if p.Mount != "" {
				full = p.Mount + "/" + p.Name
			}
			if clean := path.Join("/v1", full); clean != "/v1/"+full {
				t.Errorf("%q would be sent as %q", s, clean)
			}
			if again, err := parsePath("x?"+p.Fields, "m"); p.Fields != "" && (err != nil || again.Fields != p.Fields || p.Version != 0 || p.Folder) {
				t.Errorf("%q: fields %q become %q: %v", s, p.Fields, again.Fields, err)
			}
			if strings.ContainsFunc(full+p.Fields, unicode.IsControl) {
				t.Errorf("%q: a control character is left", s)
			}
		}
	})
}

// What Reference writes is read back as the same secret, whatever characters it has.
func TestReference(t *testing.T) {
	t.Parallel()
	for _, p := range []Path{
		{Mount: "m", Name: "a"}, {Mount: "m", Name: "a@3"}, {Mount: "m", Name: "a", Version: 3}, {Mount: "m", Name: "a#b%40 c,|}"}, {Mount: "m", Name: "data"}, {Mount: "m@1", Name: "%"},
		{Mount: "team/kv", Name: "a/b@2", Version: 1}, {Mount: "m", Name: "a?b", Fields: "a%26=%23@,*&b=c=d"},
	} {
		for _, key := range []string{"K", "a#b", "%23", "k k"} {
			ref := p.Reference(key)
			got, k, err := ParseKeyRef(ref, "other")
			if err != nil || got.String() != p.String() || got.Version != p.Version || got.Fields != p.Fields || k != key {
				t.Errorf("%q: %+v %q %v", ref, got, k, err)
			}
		}
	}
}

func TestLooksSecret(t *testing.T) {
	t.Parallel()
	body := "CAESIJ0123456789abcdefghij"
	for _, s := range []string{"hvs." + body, "hvb." + body, "hvr." + body, "s." + body, "b." + body, "s." + body + ".nsid1"} {
		if !IsToken(s) || !LooksSecret("x "+s) || TokenLine([]byte("a: b\nc: "+s+"\n")) != 2 {
			t.Errorf("%q is not seen", s)
		}
	}
	for _, s := range []string{"-----BEGIN PRIVATE KEY-----", "postgres://app:pass@db/app", "x=http://u:p@h"} {
		if !LooksSecret(s) || IsToken(s) {
			t.Errorf("%q", s)
		}
	}
	for _, s := range []string{"", "s.", "hvs.short", "https://vault.example.com:8200", "docs.example.com", "class.a_very_long_name_of_something", "postgres://${db#U}:${db#P|url}@db", "a@b", "http://user@host"} {
		if LooksSecret(s) || TokenLine([]byte(s)) != 0 {
			t.Errorf("%q is taken for a secret", s)
		}
	}
}

func TestParsePathOrFolder(t *testing.T) {
	for text, want := range map[string]Path{
		"app":        {Mount: "m", Name: "app"},
		"app@3":      {Mount: "m", Name: "app", Version: 3},
		"*":          {Mount: "m", Folder: true},
		"app/*":      {Mount: "m", Name: "app/", Folder: true},
		"a/b/*":      {Mount: "m", Name: "a/b/", Folder: true},
		"/n/*":       {Mount: "n", Folder: true},
		"/n/app/*":   {Name: "n/app/", Folder: true},
		"a%40b/*":    {Mount: "m", Name: "a@b/", Folder: true},
		"%2A":        {Mount: "m", Name: "*"},
		"app/%2a":    {Mount: "m", Name: "app/*"},
		"app*":       {Mount: "m", Name: "app*"}, // a name: there are no patterns
		"*/x":        {Mount: "m", Name: "*/x"},
		"app/**":     {Mount: "m", Name: "app/**"},
		"app/*@0":    {Mount: "m", Name: "app/*@0"},
		"/n/app/%2A": {Name: "n/app/*"},
		"app/%2A@12": {Mount: "m", Name: "app/*", Version: 12},
	} {
		got, err := ParsePathOrFolder(text, "m")
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
			continue
		}
		if again, err := ParsePathOrFolder("/"+EscapePath(got.String()), "other"); !got.Folder && got.Version == 0 && (err != nil || again.String() != got.String()) {
			t.Errorf("%q is written as %q, which is %v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"/*", "app/*@3", "*@1", "//*", "a//*", "../*", "/", "app/*#KEY", "app/"} {
		if p, err := ParsePathOrFolder(text, "m"); err == nil {
			t.Errorf("%q is taken as %+v", text, p)
		}
	}
}

// A mount of several segments is found at the end of a folder's path, too.
func TestFolderWithinMount(t *testing.T) {
	for name, want := range map[string]string{"team/kv/": "", "team/kv/app/": "app/"} {
		p := Path{Name: name, Folder: true}.within("team/kv")
		if p.Name != want || p.Mount != "team/kv" || !p.Folder || p.String() != name+"*" {
			t.Errorf("%q: %+v", name, p)
		}
	}
}
