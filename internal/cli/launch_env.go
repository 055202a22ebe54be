package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/dotenv"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
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

func readEnvFile(v setting, allow []int) (map[string]string, error) {
	what := fmt.Sprintf("cannot read %s %q", v.from, v.text)
	f, err := trust.Open(v.text, allow)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Usage, What: what, Why: vault.Errno(err), Hint: trust.Cure(err, "name a file of NAME=VALUE lines")}
	}
	defer func() { _ = f.Close() }()
	vars, err := parseDotenv(f, dotenv.Options{})
	if err != nil {
		return nil, &fault.Error{Kind: fault.Usage, What: what, Why: fault.Of(err).Why, Hint: fault.Of(err).Hint}
	}
	return vars, nil
}

// writeReferences writes a .env file in which every value that was imported is a reference to where it is now.
func writeReferences(file string, targets []*target) error {
	refs := map[string]string{}
	for _, t := range targets {
		for name := range t.set {
			refs[name] = "vault:" + t.path.Reference(name)
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		quote := ""
		if strings.ContainsAny(refs[name], " \t\"\\$`") {
			quote = "'"
		}
		fmt.Fprintf(&b, "%s=%s%s%s\n", name, quote, refs[name], quote)
	}
	what := fmt.Sprintf("cannot write --write-references %q", file)
	if again, err := dotenv.Parse(b.String(), dotenv.Options{}); err != nil || !maps.Equal(again, refs) {
		return &fault.Error{Kind: fault.Usage, What: what, Why: "a path has characters that no .env file takes", Hint: "name its key with --env NAME=PATH#KEY instead"}
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		_, err = f.WriteString(b.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return &fault.Error{Kind: fault.Usage, What: what, Why: vault.Errno(err), Hint: "what was imported is in Vault; the same command again writes the file"}
	}
	return nil
}
