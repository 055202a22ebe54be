package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var importCommand = &command{
	name: "import", args: "[PATH] FILE|-", summary: "move a .env file into Vault",
	about: `
The variables of FILE become keys of the secret PATH. What is there already
stays: other keys are kept, and keys with another value are listed and nothing is
written, unless --overwrite. What was written is read back and compared. Names
are printed, values never, and FILE is not deleted.

  vaultexec import app-prod .env
  vaultexec import .env --map 'POSTGRES_*=database' --map '*=app-prod'

The first --map that fits a name decides; PATH, where it is given too, takes the
rest. FILE is read as Docker Compose reads it: export, quotes over several lines,
escapes in double quotes, comments after a blank. $VAR and ${VAR} stay as they
are written unless --expand.
`,
	own: []option{
		{name: "map", arg: "GLOB=PATH", list: true, group: groupOwn, usage: "names that fit GLOB go to PATH"},
		{name: "overwrite", group: groupOwn, usage: "change keys that have another value"},
		{name: "replace", group: groupOwn, usage: "make the secret exactly what FILE says: keys that are not in it go, others change"},
		expandOption, dialectOption,
		{name: "write-references", arg: "NEWFILE", group: groupOwn, usage: "write a new .env file with references in place of the values, for --env-file"},
		dryRunOption, jsonOption,
	},
	shared: withKV, least: 1, most: 2,
	report: true,
	do:     (*app).importFile,
}

// target is one secret that an import goes to.
type target struct {
	path   vault.Path
	typed  vault.Path // as it was written
	engine vault.Engine
	set    map[string]vault.Text
	report changeReport
}

func (a *app) importFile(ctx context.Context, s *settings, words []string) error {
	file := words[len(words)-1]
	targets, err := a.importTargets(s, words[:len(words)-1], file)
	if err != nil {
		return err
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		// Everything is compared before anything is written.
		for _, t := range targets {
			if err := a.compareTarget(ctx, c, s, t); err != nil {
				return err
			}
		}
		if err := refuseTwice(targets); err != nil {
			return err
		}
		if err := refuseChanges(targets, s); err != nil {
			return err
		}
		failed := a.importAll(ctx, c, s, targets)
		a.reportImport(s, file, targets, failed)
		return failed
	})
}

// importTargets reads the options and the file, and finds what goes where.
func (a *app) importTargets(s *settings, paths []string, file string) ([]*target, error) {
	rules, err := mapRules(s, paths, s.mount())
	if err := fault.Join(append(s.faults, fault.All(err)...)); err != nil {
		return nil, err
	}
	o := dotenvOptions(s)
	if err := fault.Join(s.faults); err != nil {
		return nil, err
	}
	vars, err := a.readDotenv(file, o, "import", "vaultexec import PATH FILE")
	if err != nil {
		return nil, err
	}
	targets, err := assign(vars, rules)
	if err != nil {
		return nil, err
	}
	refs := s.str("write-references")
	if _, err := os.Lstat(refs); refs != "" && err == nil { // found out before anything is written
		return nil, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot write --write-references %q", refs),
			Why: "it is there already", Hint: "name a new file"}
	}
	return targets, nil
}

// importAll writes the secrets up to the first that fails, and then the file of references.
func (a *app) importAll(ctx context.Context, c *vault.Client, s *settings, targets []*target) error {
	if s.bool("dry-run") {
		return nil
	}
	for _, t := range targets {
		if err := a.importInto(ctx, c, s, t); err != nil {
			return err
		}
	}
	if refs := s.str("write-references"); refs != "" {
		return writeReferences(refs, targets)
	}
	return nil
}

// mapRule sends names that fit a pattern to a path.
type mapRule struct {
	glob string
	path vault.Path
}

func mapRules(s *settings, words []string, mount string) ([]mapRule, error) {
	var rules []mapRule
	add := func(glob, text string) error {
		p, err := writable(text, mount, "import into", "leave @VERSION out")
		rules = append(rules, mapRule{glob, p})
		return err
	}
	for _, v := range s.all("map") {
		glob, text, ok := strings.Cut(v.text, "=")
		if !ok || glob == "" || !validGlob(glob) {
			s.bad(v, "not of the form GLOB=PATH", "write it as --map 'POSTGRES_*=database'")
			continue
		}
		if err := add(glob, text); err != nil {
			s.fail(v, err)
		}
	}
	if len(words) == 1 {
		if err := add("*", words[0]); err != nil {
			return nil, err
		}
	}
	if len(rules) == 0 && len(s.faults) == 0 {
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot import", Why: "no path",
			Hint: "vaultexec import PATH FILE, or vaultexec import FILE --map 'GLOB=PATH'"}
	}
	return rules, nil
}

// assign sends each variable to the path of the first rule that fits.
func assign(vars map[string]vault.Text, rules []mapRule) ([]*target, error) {
	var (
		targets   []*target
		unmatched []string
	)
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		i := slices.IndexFunc(rules, func(r mapRule) bool {
			ok, _ := path.Match(r.glob, name) // the pattern was checked
			return ok
		})
		if i < 0 {
			unmatched = append(unmatched, name)
			continue
		}
		j := slices.IndexFunc(targets, func(t *target) bool { return t.path == rules[i].path })
		if j < 0 {
			j, targets = len(targets), append(targets,
				&target{path: rules[i].path, typed: rules[i].path, set: map[string]vault.Text{}})
		}
		targets[j].set[name] = vars[name]
	}
	if len(unmatched) > 0 {
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot import " + strings.Join(unmatched, ", "),
			Why: "no --map fits", Hint: "add --map '*=PATH', or give PATH before FILE"}
	}
	return targets, nil
}

// refuseTwice refuses targets that turn out to be the same secret, one named with its mount and one without.
func refuseTwice(targets []*target) error {
	for i, t := range targets {
		if slices.ContainsFunc(targets[:i], func(o *target) bool { return o.path == t.path }) {
			return &fault.Error{Kind: fault.Usage, What: "cannot import",
				Why: fmt.Sprintf("%s is named in two ways", t.path), Hint: "write it alike in each --map"}
		}
	}
	return nil
}

// compareTarget finds out what is there and what would change.
func (a *app) compareTarget(ctx context.Context, c *vault.Client, s *settings, t *target) error {
	var err error
	if t.path, t.engine, err = a.resolve(ctx, c, s, t.path); err != nil {
		return err
	}
	err = a.patience(s).Do(ctx, func(ctx context.Context) error {
		st, err := c.State(ctx, t.path, t.engine)
		if err == nil {
			err = t.compare(st, s.bool("replace"))
		}
		if err != nil {
			return err
		}
		return misplaced(ctx, c, s, st, t.typed)
	})
	return advise(ctx, c, s, t.typed, err)
}

// compare fills the report of the target by what is there.
func (t *target) compare(st vault.State, replace bool) error {
	what := fmt.Sprintf("cannot import into %s", st.Path)
	switch {
	case !st.Readable():
		return vault.Denied(what, "what is there cannot be read, to keep or compare it",
			dataPath(st), "read")
	case st.Gone != nil && !replace:
		return &fault.Error{Kind: fault.Deleted, What: what, Why: fmt.Sprintf("the latest version is %s", st.Gone),
			Hint: "bring it back with `vault kv undelete`, or start anew with --replace"}
	}
	r := newChangeReport(st)
	for _, k := range slices.Sorted(maps.Keys(t.set)) {
		old, ok := st.Values[k]
		switch {
		case !ok:
			r.Added = append(r.Added, k)
		case old.Matches(t.set[k]):
			r.Unchanged = append(r.Unchanged, k)
		default:
			r.Changed = append(r.Changed, k)
		}
	}
	for _, k := range st.Keys {
		if _, ok := t.set[k]; !ok && replace {
			r.Dropped = append(r.Dropped, k)
		}
	}
	t.report = r
	return nil
}

// refuseChanges lists every key that has another value, of all paths at once.
func refuseChanges(targets []*target, s *settings) error {
	if s.bool("overwrite") || s.bool("replace") {
		return nil
	}
	var list []*fault.Error
	for _, t := range targets {
		if e := t.refuse(); e != nil {
			list = append(list, e)
		}
	}
	return fault.Join(list)
}

func (t *target) refuse() *fault.Error {
	if len(t.report.Changed) == 0 {
		return nil
	}
	return &fault.Error{Kind: fault.Conflict, Err: vault.ErrRefused,
		What: fmt.Sprintf("cannot import into %s", t.report.Path),
		Why:  "Vault has other values for " + strings.Join(t.report.Changed, ", "),
		Hint: "--overwrite changes them; take them out of the file to keep what is in Vault"}
}

// importInto writes one secret, unless there is nothing to change.
func (a *app) importInto(ctx context.Context, c *vault.Client, s *settings, t *target) error {
	replace := s.bool("replace")
	set := make(map[string]vault.Value, len(t.set))
	for k, v := range t.set {
		set[k] = v.Value()
	}
	out, err := a.apply(ctx, c, vault.Edit{
		Path: t.path, Set: set, Alone: replace, Patience: a.patience(s), Whole: true,
		Check: func(st vault.State) error {
			if err := t.compare(st, replace); err != nil {
				return err
			}
			if e := t.refuse(); e != nil && !replace && !s.bool("overwrite") {
				return e // written by somebody else since
			}
			if st.Exists && len(t.report.Added)+len(t.report.Changed)+len(t.report.Dropped) == 0 {
				return vault.ErrNothing
			}
			return nil
		},
	}, t.engine)
	if err != nil && out.Version == 0 {
		err = advise(ctx, c, s, t.typed, err)
	}
	t.report.done(out, err)
	return err
}

// reportImport says what was done, and what is to be done with the file.
func (a *app) reportImport(s *settings, file string, targets []*target, failed error) {
	dry := s.bool("dry-run")
	tracked := file != "-" && gitTracks(file)
	if s.bool("json") {
		reports := make([]changeReport, len(targets))
		for i, t := range targets {
			reports[i] = t.report
		}
		a.ui.reportJSON(struct {
			File    string         `json:"file"`
			Tracked bool           `json:"git_tracked"`
			DryRun  bool           `json:"dry_run"`
			Paths   []changeReport `json:"paths"`
		}{file, tracked, dry, reports})
	} else {
		for _, t := range targets {
			a.ui.changeText(t.report, dry)
		}
	}
	if tracked {
		a.ui.log.Warn(fmt.Sprintf(
			"git tracks %q: whoever has the repository has these values, also from its history; run `git rm --cached` on it, ignore it, and rotate what was in it",
			file))
	}
	if failed == nil && !dry && !s.bool("json") && file != "-" {
		a.ui.printf(
			"%q still holds the values in clear text. Start the program with\n  vaultexec%s -- COMMAND\nand delete the file when nothing reads it any more.\n",
			file, runOptions(s, targets))
	}
}

// runOptions are those of a run that has what was imported, each with a blank before it.
func runOptions(s *settings, targets []*target) string {
	if refs := s.str("write-references"); refs != "" {
		return " --env-file " + shellQuote(refs)
	}
	var paths strings.Builder
	for _, t := range targets {
		fmt.Fprintf(&paths, " --path %s", shellQuote("/"+t.report.Path))
	}
	return paths.String()
}
