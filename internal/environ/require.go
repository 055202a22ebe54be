package environ

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// checkRequired finds the names of --require that the command would not get. A name that a secret gives but that cannot
// be used has a fault of its own.
func (b *builder) checkRequired(env *Env) {
	if len(b.rules.Require) == 0 {
		return
	}
	set := map[string]bool{}
	for _, kv := range env.Strings() {
		if name, _, ok := strings.Cut(kv, "="); ok {
			set[name] = true
		}
	}
	var names []string // of Vault, for the hint
	for _, v := range env.Vars {
		set[v.Name] = true // also as a file
		names = append(names, v.Name)
	}
	var missing []string
	for _, name := range b.rules.Require {
		if !set[name] && !slices.Contains(b.broken, name) && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return
	}
	b.faults = append(b.faults, &fault.Error{Kind: fault.Missing,
		What: "cannot do without " + strings.Join(missing, ", "),
		Why:  "required, and neither given by a secret nor inherited", Hint: requiredHint(missing, names)})
}

// requiredHint names the variable of Vault that was meant, where there is one, as when --upcase or --prefix is missing.
func requiredHint(missing, names []string) string {
	for _, m := range missing {
		if near := vault.Nearest(m, names); near != "" {
			return fmt.Sprintf(
				"did you mean %q, which a secret gives? --upcase, --prefix and --env NAME=PATH#KEY change names", near)
		}
	}
	return "--dry-run without --require shows which names there are; --env NAME=PATH#KEY gives a key another one"
}

// Judgeable leaves out what nobody can tell without reading a leased secret.
func Judgeable(required []string, unread []Source) []string {
	if slices.ContainsFunc(unread, func(s Source) bool { return s.Name == "" }) {
		return nil // it may give any name
	}
	return slices.DeleteFunc(slices.Clone(required), func(name string) bool {
		return slices.ContainsFunc(unread, func(s Source) bool { return s.Name == name })
	})
}

// JudgeableFiles leaves out the files that an unread secret may give: nobody can tell.
func JudgeableFiles(files []FileSpec, unread []Source) []FileSpec {
	return slices.DeleteFunc(slices.Clone(files), func(f FileSpec) bool {
		return slices.ContainsFunc(unread, func(s Source) bool { return s.Name == "" || s.Name == f.Name })
	})
}
