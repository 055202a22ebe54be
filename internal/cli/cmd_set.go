package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var setCommand = &command{
	name: "set", args: "PATH [KEY|KEY=-|KEY=@FILE]...", summary: "new values for several keys, in one version",
	about: `
The other keys of the secret stay as they are, also when others write at the
same moment, as for vaultexec rotate, which makes random values. What was written
is read back. Names are printed, values never. Nothing is written before every
value has been read.

  vaultexec set app-prod SMTP_USER SMTP_PASSWORD    asks for both, without echo
  vaultexec set app-prod TLS_KEY=@key.pem TLS_CERT=@cert.pem
  pass show stripe | vaultexec set app-prod STRIPE_KEY=- --delete OLD_STRIPE_KEY

One line break at the end of a file or of standard input is dropped. A value on
the command line is an error: every user can read it in the process list.

Policy: as for vaultexec rotate.
`,
	own: []option{
		{name: "delete", arg: "KEY", list: true, group: groupOwn, usage: "take this key away, in the same version"},
		{name: "raw", group: groupOwn, usage: "keep the line break at the end of files and of standard input"},
		{name: "create", group: groupOwn, usage: "make a new path or new keys, or write over a version that was deleted (its other keys stay gone)"},
		dryRunOption, jsonOption,
	},
	shared: withKV, least: 1, most: 1 << 10, secret: 2,
	report: true, do: (*app).set,
}

const setForm = "vaultexec set PATH KEY"

func (a *app) set(ctx context.Context, s *settings, words []string) error {
	typed, err := writable(words[0], s.mount(), "set", "leave @VERSION out")
	s.faults = append(s.faults, fault.All(err)...)
	var gone []string
	for _, v := range s.all("delete") {
		if err := checkKey(v.text, setForm+" --delete KEY"); err != nil {
			s.fail(v, err)
		}
		gone = append(gone, v.text)
	}
	values, err := a.setValues(s, words[1:], gone)
	if err := fault.Join(append(s.faults, fault.All(err)...)); err != nil {
		return err
	}
	keys := slices.Sorted(maps.Keys(values))
	for _, key := range gone {
		values[key] = vault.Value{}
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		p, engine, err := a.resolve(ctx, c, s, typed)
		if err != nil {
			return err
		}
		var report changeReport
		edit := vault.Edit{
			Path: p, Set: values, Patience: a.patience(s), Create: s.bool("create"),
			Check: func(st vault.State) error {
				if err := mayWrite(st, "set", keys, s.bool("create")); err != nil {
					return err
				}
				if err := mayDelete(st, gone); err != nil {
					return err
				}
				report = newChangeReport(st)
				for _, key := range slices.Sorted(maps.Keys(values)) {
					report.takeIn(st, key, values[key])
				}
				if st.Exists && len(report.Unchanged) == len(values) {
					return vault.ErrNothing
				}
				if st.Engine.KV == 1 && st.Keys != nil && len(values) == len(gone) && len(gone) == len(st.Keys) {
					return &fault.Error{Kind: fault.Usage, What: "cannot set " + st.Path.String(),
						Why: "KV version 1 keeps no secret without a key", Hint: "`vault delete` takes the whole secret away"}
				}
				return misplaced(ctx, c, s, st, typed)
			},
		}
		out, err := a.applyOrLook(ctx, c, s, edit, engine)
		switch {
		case err != nil && out.Version == 0 && len(keys) == 0: // nothing is to be made
			return advise(ctx, c, s, typed, err)
		case err != nil && out.Version == 0:
			return adviseRotate(ctx, c, s, typed, err)
		}
		report.done(out, err)
		a.reportChange(s, report)
		return err
	})
}

// mayDelete refuses to take away what is not there: somebody has misspelled it.
func mayDelete(st vault.State, keys []string) error {
	var list []*fault.Error
	for _, key := range keys {
		if st.Keys == nil && !st.Readable() || slices.Contains(st.Keys, key) {
			continue
		}
		list = append(list, noKey(fmt.Sprintf("cannot delete %s#%s", st.Path, key), key, st.Keys))
	}
	return fault.Join(list)
}

// setValues reads the values from wherever the words say: files first, and what a person types last, when nothing else
// can be wrong any more.
func (a *app) setValues(s *settings, words, gone []string) (map[string]vault.Value, error) {
	values := make(map[string]vault.Value, len(words)+len(gone))
	var (
		ask     []string // keys
		input   string   // the key whose value standard input is
		read    bool
		refused = func(key, why, hint string) {
			s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot set %q", key), Why: why, Hint: hint})
		}
	)
	if len(words)+len(gone) == 0 {
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot run vaultexec set", Why: "no key is named",
			Hint: "write it as " + setForm}
	}
	seen := slices.Clone(gone)
	for _, word := range words {
		key, from, given := strings.Cut(word, "=")
		if err := checkKey(key, setForm); err != nil {
			s.faults = append(s.faults, fault.Of(err))
			continue
		}
		file, isFile := strings.CutPrefix(from, "@")
		switch {
		case slices.Contains(seen, key):
			refused(key, "it is named twice", "name each key once")
		case key == "-":
			refused(key, "it is no key", "standard input goes to the key of KEY=-")
		case !given && !isTerminal(a.terminal.in):
			refused(key, "standard input is no terminal to ask at", "KEY=- reads it, KEY=@FILE reads a file")
		case !given:
			ask = append(ask, key)
		case from == "-" && input != "":
			refused(key, "standard input is the value of "+input, "read the other from a file: KEY=@FILE")
		case from == "-":
			input, read = key, true
			ask = append(ask, key)
		case isFile:
			read = true
			v, err := a.valueIn(s, file, "")
			s.faults = append(s.faults, fault.All(err)...)
			values[key] = v.Value()
		default:
			refused(key, "everybody can see a value on the command line",
				"it is in the list of processes and in the shell's history: leave =VALUE out to be asked for it, or write KEY=- (standard input) or KEY=@FILE; and take another value")
		}
		seen = append(seen, key)
	}
	if s.bool("raw") && !read {
		s.bad(s.one("raw"), "it is for a value from standard input or a file", "leave it out, or write KEY=- or KEY=@FILE")
	}
	if len(s.faults) > 0 {
		return values, nil
	}
	for _, key := range ask {
		v, err := a.valueTyped(s, "New value of "+oneLine(key)+": ", "KEY=@FILE")
		if err != nil {
			return nil, err
		}
		values[key] = v.Value()
	}
	return values, nil
}
