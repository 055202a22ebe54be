package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/launcher"
)

// variables resolves the references in inherited variables, with --resolve-env, and reads the files of --env-file. A variable
// that is resolved is no longer inherited, so that --keep-existing does not keep the reference; a plain one of a file is
// inherited as if it had been set. What is set already wins over a file.
func (a *app) variables(s *settings, o *launcher.Options, mount string) {
	files := s.all("env-file")
	resolve := s.bool("resolve-env")
	if !resolve && len(files) == 0 {
		return
	}
	environ := make([]string, 0, len(a.environ))
	set := map[string]bool{}
	gone := map[string]bool{}
	for _, kv := range a.environ {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case ok && gone[name]:
			continue
		case ok && !set[name] && o.Rules.Inherits(name): // of a name that stands there twice the first counts
			set[name] = true
			if !resolve || forVaultexec(name) {
				break
			}
			sources, text, err := resolveVariable(name, value, mount, o.Rules.AllowNames)
			if err != nil {
				s.faults = append(s.faults, fault.Of(err))
			}
			if o.Sources = append(o.Sources, sources...); len(sources) > 0 {
				gone[name] = true
				continue
			}
			kv = name + "=" + text
		}
		environ = append(environ, kv)
	}
	added := map[string]string{}
	from := map[string]setting{}
	for _, f := range files {
		vars, err := readEnvFile(f, s.owners())
		if err != nil {
			s.faults = append(s.faults, fault.Of(err))
		}
		for name, value := range vars { // of two files the later wins
			added[name], from[name] = value, f
		}
	}
	for _, name := range slices.Sorted(maps.Keys(added)) {
		if set[name] {
			continue
		}
		sources, text, err := resolveVariable(name, added[name], mount, o.Rules.AllowNames)
		if err != nil {
			e := *fault.Of(err)
			e.What += fmt.Sprintf(" of %q", from[name].text)
			s.faults = append(s.faults, &e)
		}
		if o.Sources = append(o.Sources, sources...); len(sources) > 0 {
			continue
		}
		environ = slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, name+"=") }) // not inherited
		environ = append(environ, name+"="+text)
		o.Rules.Pass = append(o.Rules.Pass, name) // also with --clean-env: it was asked for
	}
	o.Environ = environ
}

func resolveVariable(name, value, mount string, allowed []string) ([]launcher.Source, string, error) {
	sources, text, err := launcher.ParseVariable(name, value, mount)
	if err == nil {
		err = dangerous(sources, allowed)
	}
	return sources, text, err
}

// forVaultexec reports whether a variable is a setting of vaultexec or of Vault's client, and no business of the command's.
func forVaultexec(name string) bool {
	return strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") || strings.HasPrefix(name, "VAULTEXEC_")
}
