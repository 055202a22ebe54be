package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// sources reads --path, --optional-path and --env into one list, in the order of the command line, after the references in
// variables, which were there before.
func (a *app) sources(s *settings, o *launcher.Options) {
	mount, err := vault.ParseMount(s.str("mount"))
	if err != nil {
		s.fail(s.one("mount"), err)
	}
	a.variables(s, o, mount)
	type ordered struct {
		sources []launcher.Source
		order   int
	}
	var list []ordered
	for _, name := range []string{"path", "optional-path"} {
		for _, v := range s.all(name) {
			p, err := vault.ParseSource(v.text, mount)
			if err != nil {
				s.fail(v, err)
			}
			list = append(list, ordered{[]launcher.Source{{Path: p, Optional: name == "optional-path"}}, v.order})
		}
	}
	for _, v := range s.all("env") {
		sources, err := launcher.ParseEnv(v.text, mount)
		if err != nil && v.source == fromVariable && !strings.Contains(a.getenv(v.from), "\n") && strings.Contains(a.getenv(v.from), ",") {
			f := *fault.Of(err)
			f.AddHint("a comma parts the items of " + v.from + ": where one holds a comma itself, put a line break between them, or after the only one")
			err = &f
		}
		if err == nil {
			err = dangerous(sources, o.Rules.AllowNames)
		}
		if err != nil {
			s.fail(v, err)
		}
		list = append(list, ordered{sources, v.order})
	}
	slices.SortStableFunc(list, func(a, b ordered) int { return a.order - b.order })
	for _, l := range list {
		o.Sources = append(o.Sources, l.sources...)
	}
}

// dangerous refuses a reference under a name that changes which code runs.
func dangerous(sources []launcher.Source, allowed []string) error {
	for _, src := range sources {
		if launcher.Steers(src.Name) {
			return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot set %s", src.Name), Why: "it steers vaultexec and Vault's own tools, which no secret may", Hint: "give it another name; what vaultexec itself is to have is set where it is started"}
		}
		if launcher.IsDangerous(src.Name, allowed) {
			return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot set %s", src.Name), Why: "it changes which code runs, and whoever may write the secret would own the process", Hint: "allow it with --allow-name " + src.Name}
		}
	}
	return nil
}
