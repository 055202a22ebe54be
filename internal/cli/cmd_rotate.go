package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var rotateCommand = &command{
	name: "rotate", args: "PATH KEY [VALUE | -]", summary: "a new value for one key, random when none is given",
	about: `
The other keys of the secret stay as they are, also when others write at the
same moment: by PATCH where the policy allows it, otherwise by reading and
writing on condition that nobody else wrote (check-and-set). What was written is
read back.

  vaultexec rotate app-prod MACHINE_SECRET_TOKEN          32 random letters and digits
  vaultexec rotate --charset hex --length 64 app-prod K
  pass show stripe | vaultexec rotate app-prod STRIPE_KEY -
  vaultexec rotate app-prod KEY -- -value-with-a-dash

A value on the command line stands in the shell's history; - reads it from
standard input, without the line break at its end.

Policy: "patch" on MOUNT/data/PATH is enough to write, but then nothing can be
read back; with "read" it is verified. "read" and "update" do without patch.
`,
	own: []option{
		{name: "length", arg: "N", def: "32", group: groupOwn, usage: "characters of a random value"},
		{name: "charset", arg: "alnum|hex|base64|ascii|uuid", def: "alnum", group: groupOwn, usage: "what a random value is made of"},
		{name: "from-file", arg: "FILE", group: groupOwn, usage: "take the value from FILE, without one line break at its end"},
		{name: "raw", group: groupOwn, usage: "keep that line break, of FILE or of standard input"},
		{name: "create", group: groupOwn, usage: "make a new path or a new key, or write over a version that was deleted (its other keys stay gone)"},
		dryRunOption, jsonOption,
	},
	shared: withKV, least: 2, most: 3, secret: 2,
	report: true,
	do:     (*app).rotate,
}

// rotateReport is what rotate says.
type rotateReport struct {
	Path     string `json:"path"`
	Key      string `json:"key"`
	KV       int    `json:"kv_version"`
	Old      int    `json:"old_version,omitempty"`
	New      int    `json:"new_version,omitempty"`
	NewPath  bool   `json:"new_path,omitempty"`
	NewKey   bool   `json:"new_key,omitempty"`
	Deleted  bool   `json:"over_deleted,omitempty"` // the latest version was deleted or destroyed
	Method   string `json:"method,omitempty"`
	Verified bool   `json:"verified"`
	Why      string `json:"not_verified_because,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

func (a *app) rotate(ctx context.Context, s *settings, words []string) error {
	typed, err := writable(words[0], s.mount(), "rotate", "leave @VERSION out")
	if err != nil {
		return err
	}
	key := words[1]
	if err := checkKey(key, "vaultexec rotate PATH KEY"); err != nil {
		return err
	}
	value, err := a.newValue(s, words[2:])
	if err := fault.Join(append(s.faults, fault.All(err)...)); err != nil {
		return err
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		p, engine, err := a.resolve(ctx, c, s, typed)
		if err != nil {
			return err
		}
		edit := vault.Edit{
			Path: p, Set: map[string]vault.Value{key: value.Value()}, Patience: a.patience(s), Create: s.bool("create"),
			Check: func(st vault.State) error {
				if err := mayWrite(st, "rotate", []string{key}, s.bool("create")); err != nil {
					return err
				}
				return misplaced(ctx, c, s, st, typed)
			},
		}
		out, err := a.applyOrLook(ctx, c, s, edit, engine)
		if err != nil && out.Version == 0 {
			return adviseRotate(ctx, c, s, typed, err)
		}
		r := rotateReportOf(out, key)
		if st := out.Before; s.bool("dry-run") {
			r.DryRun = true
			if st.Engine.KV == 2 && !st.Blind {
				r.New = st.Version + 1
			}
		}
		a.reportRotate(s, r)
		return err
	})
}

// adviseRotate looks for the name that was meant, and says what to do when there is none.
func adviseRotate(ctx context.Context, c *vault.Client, s *settings, p vault.Path, err error) error {
	err = advise(ctx, c, s, p, err)
	if fault.Has(err, fault.NoSecret) { // advise may have found that another path was meant
		fault.Of(err).AddHint("--create makes a new one")
	}
	return err
}

func rotateReportOf(out vault.Written, key string) rotateReport {
	st := out.Before
	r := rotateReport{
		Path: st.Path.String(), Key: key, KV: st.Engine.KV, Old: st.Version, New: out.Version,
		Method: out.Method, Verified: out.Verified, Why: out.Why,
		NewPath: !st.Blind && !st.Exists && st.Gone == nil || st.Blind && out.Version == 1, Deleted: st.Gone != nil,
	}
	r.NewKey = st.Exists && st.Keys != nil && !slices.Contains(st.Keys, key)
	if st.Blind && out.Version > 0 {
		r.Old = out.Version - 1 // a patch makes the next version
	}
	return r
}

func (a *app) reportRotate(s *settings, r rotateReport) {
	if s.bool("json") {
		a.ui.reportJSON(r)
		return
	}
	var parts []string
	switch {
	case r.KV == 1 && !r.DryRun:
		parts = append(parts, "written")
	case r.KV == 1 || r.New == 0:
	case r.NewPath:
		parts = append(parts, fmt.Sprintf("version %d", r.New))
	case r.Deleted:
		parts = append(parts, fmt.Sprintf("version %d (deleted) → %d", r.Old, r.New))
	default:
		parts = append(parts, fmt.Sprintf("version %d → %d", r.Old, r.New))
	}
	if r.NewPath {
		parts = append(parts, "a new path")
	}
	if r.NewKey {
		parts = append(parts, "a new key")
	}
	switch {
	case r.DryRun:
		parts = append(parts, "not written (dry run)")
	case r.Verified:
		parts = append(parts, "verified")
	default:
		if r.KV != 1 {
			parts = append(parts, "written")
		}
		parts = append(parts, fmt.Sprintf("not verified (%s)", r.Why))
	}
	a.ui.printf("%s\n", oneLine(fmt.Sprintf("%s#%s: %s", r.Path, r.Key, strings.Join(parts, ", "))))
}
