package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// variables resolves the references in inherited variables, with --resolve-env, and reads the files of --env-file. A
// resolved variable is no longer inherited, so that --keep-existing does not keep the reference. A plain variable of a
// file is inherited as if it had been set. What is already set wins over a file.
func (a *app) variables(s *settings, o *launcher.Options, mount string) {
	files := s.all("env-file")
	resolve := s.bool("resolve-env")
	if !resolve && len(files) == 0 {
		return
	}
	v := &variables{s: s, o: o, mount: mount, set: map[string]bool{}}
	v.inherit(a.environ, resolve)
	v.addFiles(files)
	o.Environ = v.environ
}

// variables is the environment before the secrets of --path and --env, with the references in it taken out.
type variables struct {
	s       *settings
	o       *launcher.Options
	mount   string
	environ []string
	set     map[string]bool // inherited
}

// inherit takes over the environment that vaultexec was started with.
func (v *variables) inherit(environ []string, resolve bool) {
	v.environ = make([]string, 0, len(environ))
	resolved := map[string]bool{}
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case ok && resolved[name]:
			continue
		case ok && !v.set[name] && v.o.Rules.Inherits(name): // of a name that stands there twice the first counts
			v.set[name] = true
			if !resolve || forVaultexec(name) {
				break
			}
			text, isReference := v.resolve(name, value, "")
			if isReference {
				resolved[name] = true
				continue
			}
			kv = name + "=" + text
		}
		v.environ = append(v.environ, kv)
	}
}

// addFiles adds what the files say of variables that are not set.
func (v *variables) addFiles(files []setting) {
	added := map[string]string{}
	from := map[string]setting{}
	for _, f := range files {
		vars, err := readEnvFile(f, v.s.owners())
		if err != nil {
			v.s.faults = append(v.s.faults, fault.Of(err))
		}
		for name, value := range vars { // of two files the later wins
			added[name], from[name] = value, f
		}
	}
	for _, name := range slices.Sorted(maps.Keys(added)) {
		if v.set[name] {
			continue
		}
		text, isReference := v.resolve(name, added[name], fmt.Sprintf(" of %q", from[name].text))
		if isReference {
			continue
		}
		// It is no longer inherited.
		v.environ = slices.DeleteFunc(v.environ, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		v.environ = append(v.environ, name+"="+text)
		v.o.Rules.Pass = append(v.o.Rules.Pass, name) // also with --clean-env: it was asked for
	}
}

// resolve takes the references out of a value, or returns its text. of says in a failure which file it is from.
func (v *variables) resolve(name, value, of string) (text string, isReference bool) {
	sources, text, err := environ.ParseVariable(name, value, v.mount)
	if err == nil {
		err = dangerous(sources, v.o.Rules.AllowNames)
	}
	if err != nil {
		f := *fault.Of(err)
		f.What += of
		v.s.faults = append(v.s.faults, &f)
	}
	v.o.Sources = append(v.o.Sources, sources...)
	return text, len(sources) > 0
}

// forVaultexec reports whether a variable is a setting of vaultexec or of Vault's client, and no business of the
// command's.
func forVaultexec(name string) bool {
	return vault.IsClientVariable(name) || strings.HasPrefix(name, "VAULTEXEC_")
}
