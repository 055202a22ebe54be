package cli

import (
	"sort"
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// sources reads --path, --optional-path and --env into one list, in the order of the command line, after the references
// in variables, which were there before.
func (a *app) sources(s *settings, o *launcher.Options) {
	mount := s.mount()
	a.variables(s, o, mount)
	type ordered struct {
		sources []environ.Source
		order   int
	}
	var list []ordered
	for _, name := range []string{"path", "optional-path"} {
		for _, v := range s.all(name) {
			p, err := vault.ParsePathOrFolder(v.text, mount)
			if err != nil {
				s.fail(v, err)
			}
			list = append(list, ordered{[]environ.Source{{Path: p, Optional: name == "optional-path"}}, v.order})
		}
	}
	for _, v := range s.all("env") {
		sources, err := a.parseEnv(v, mount)
		if err == nil {
			err = dangerous(sources, o.Rules.AllowNames)
		}
		if err != nil {
			s.fail(v, err)
		}
		list = append(list, ordered{sources, v.order})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].order < list[j].order })
	for _, l := range list {
		o.Sources = append(o.Sources, l.sources...)
	}
	environ.SpellAlike(o.Sources)
}

// parseEnv reads one --env, or one item of the variable.
func (a *app) parseEnv(v setting, mount string) ([]environ.Source, error) {
	sources, err := environ.ParseEnv(v.text, mount)
	if err == nil || v.origin != fromVariable {
		return sources, err
	}
	f := *fault.Of(err)
	if all := a.getenv(v.from); strings.Contains(all, ",") && !strings.Contains(all, "\n") {
		f.AddHint("a comma parts the items of " + v.from +
			": where one holds a comma itself, put a line break between them, or after the only one")
	}
	return sources, &f
}
