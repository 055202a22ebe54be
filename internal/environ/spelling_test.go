package environ

import (
	"testing"

	"github.com/agenticverz/vaultexec/internal/vault"
)

// TestSpellAlike: what is written in two ways is one path, so that it is read once.
func TestSpellAlike(t *testing.T) {
	t.Parallel()
	path := func(text, mount string) Source {
		p, err := vault.ParsePathOrFolder(text, mount)
		if err != nil {
			t.Fatal(err)
		}
		return Source{Path: p}
	}
	sources := []Source{
		path("/pki/issue/web?b=2&a=1", "secret"), path("issue/web?a=1&b=2", "pki"), path("web?a=%31&b=2", "pki/issue"),
		path("/pki/issue/web?a=1", "secret"), path("/secret/app/x", "m"), path("app/x", "secret"), path("app/x@3", "secret"), path("app/*", "secret"), path("/secret/app/*", "m"),
	}
	SpellAlike(sources)
	distinct := map[vault.Path]int{}
	for _, s := range sources {
		distinct[s.Path]++
	}
	web, app := vault.Path{Mount: "pki", Name: "issue/web", Fields: "a=1&b=2"}, vault.Path{Mount: "secret", Name: "app/x"}
	if len(distinct) != 5 || distinct[web] != 3 || distinct[app] != 2 || distinct[vault.Path{Mount: "secret", Name: "app/", Folder: true}] != 2 {
		t.Errorf("%+v", distinct)
	}
}
