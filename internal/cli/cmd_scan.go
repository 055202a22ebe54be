package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/mask"
	"github.com/agenticverz/vaultexec/internal/scan"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

var scanCommand = &command{
	name: "scan", args: "[DIR|-]", summary: "is one of these secrets in plain text there?",
	about: `
Reads the secrets that a run with the same options would get, and looks for their
values: in the files below DIR (by default the current folder), or in standard
input. It finds them in every form that --mask masks: quoted, escaped, folded, in
base64 and hexadecimal at any place, UTF-16, dumps of bytes, and codes within
codes. It prints where each one is, its key and its form, never the value:

  config/app.env:3: app-prod#DB_PASSWORD  plain

In a git repository it looks into the files that git does not ignore, also those of
submodules. Symbolic links are not followed. Binary files have an offset, as @123,
in place of a line. Compressed data is not unpacked.

Values shorter than --mask-min, or too common (true, 5432, localhost), are not
looked for; their keys are named. Of a value with several lines, one line alone
counts when it is a word of 16 characters or more. What is in an object has a key of
its own (app-prod#db.password), which --exclude db.password leaves out. Leased
secrets are not read.

Exit code: 0 when nothing was found; 1 when something was; 125 when something could
not be looked into and nothing was found in the rest.
`,
	own: []option{
		{name: "history", group: groupOwn, usage: "look into every object of the git repository, too: all versions of all files in all commits, messages, and what no commit has any more"},
		{name: "staged", group: groupOwn, usage: "look only into what is staged for the next commit"},
		{name: "ignored", group: groupOwn, usage: "look into the files that git ignores, too"},
		{name: "mask-min", arg: "BYTES", env: ownVar("MASK_MIN"), def: "6", group: groupOwn, usage: "do not look for shorter values"},
		jsonOption,
		{name: "sarif", group: groupOwn, usage: "report as SARIF 2.1.0, for a code host"},
	},
	shared: append([]string{"--path", "--optional-path", "--env", "--resolve-env", "--env-file", "--only", "--exclude"}, withKV...),
	most:   1, report: true, do: (*app).scan,
}

// scanned is everything that scan shows.
type scanned struct {
	*scan.Result
	folder  string   // what comes before the names of files
	keys    []string // looked for
	leftOut []string // not looked for: their values are too short or too common
	unread  []string // not looked for: leased
}

func (a *app) scan(ctx context.Context, s *settings, words []string) error {
	where := "."
	if len(words) == 1 {
		where = words[0]
	}
	if err := checkPlace(s, where); err != nil {
		return err
	}
	o := launcher.Options{Environ: a.environ, Log: a.ui.log, Waits: a.ui.waits, Waited: a.waited, MountIsDefault: !s.isSet("mount"), KVVersion: s.kvVersion(),
		Wait: waitTime(s), Masking: launcher.Masking{Least: maskMin(s)},
		Rules: environ.Rules{Only: s.globs("only"), Exclude: s.globs("exclude"), AllowNames: []string{"*"}}}
	a.sources(s, &o)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	if len(o.Sources) == 0 {
		return &fault.Error{Kind: fault.Usage, What: "cannot scan", Why: "no secret is named",
			Hint: "name what to look for, as for a run: vaultexec scan --path app-prod"}
	}
	n, out, err := a.needles(ctx, s, o)
	if err != nil {
		return err
	}
	n.Environ = a.environ
	scanner := scan.New(n)
	switch {
	case where == "-":
		scanner.Stream(ctx, os.Stdin)
	case s.bool("staged"):
		err = scanner.Staged(ctx, where)
	default:
		if s.bool("history") {
			err = scanner.History(ctx, where)
		}
		if err == nil && !(s.bool("history") && scan.IsGitDir(where)) {
			err = scanner.Tree(ctx, where, s.bool("ignored"))
		}
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	out.Result = scanner.Result()
	if out.folder = filepath.ToSlash(filepath.Clean(where)); where == "-" || out.folder == "." {
		out.folder = ""
	}
	if err != nil && len(out.Findings) == 0 {
		return err
	}
	if err != nil {
		out.Unread = append(out.Unread, scan.Unread{Name: ".", Why: fault.Of(err).Error()})
	}
	return a.reportScan(s, out)
}

// checkPlace looks at what is to be scanned before Vault is asked.
func checkPlace(s *settings, where string) error {
	bad := func(why, hint string) error {
		return &fault.Error{Kind: fault.Usage, What: "cannot scan", Why: why, Hint: hint}
	}
	tree, staged := s.bool("history") || s.bool("ignored"), s.bool("staged")
	if s.bool("json") && s.bool("sarif") {
		return bad("--json and --sarif are two reports", "give one of them")
	}
	switch {
	case where == "-" && (tree || staged):
		return bad("standard input has no history, nothing staged and nothing ignored",
			"leave --history, --staged and --ignored out, or name a folder")
	case staged && tree:
		return bad("--staged looks into nothing but what is staged", "leave --history and --ignored out, or --staged")
	case where == "-" && nothing(os.Stdin):
		return bad("standard input is closed, or /dev/null", "give it what is to be scanned: vaultexec scan … - <FILE")
	case where == "-":
		return nil
	}
	info, err := os.Stat(where)
	why := "it is not a folder"
	if err != nil {
		why = vault.Errno(err)
	}
	if err != nil || !info.IsDir() {
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot scan %q", where), Why: why,
			Hint: "name a folder; a single file is read as standard input: vaultexec scan … - <FILE"}
	}
	return nil
}

// nothing reports whether a file is /dev/null, which Go's runtime also puts in the place of a closed standard input.
func nothing(f *os.File) bool {
	is, err := f.Stat()
	null, nerr := os.Stat(os.DevNull)
	return err == nil && nerr == nil && os.SameFile(is, null)
}

// needles reads the secrets, and gives the token back.
func (a *app) needles(ctx context.Context, s *settings, o launcher.Options) (scan.Options, *scanned, error) {
	var keys []environ.Key
	out := &scanned{keys: []string{}, leftOut: []string{}, unread: []string{}}
	err := a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		got, err := launcher.Read(ctx, c, o)
		if err != nil {
			return err
		}
		var unread []vault.Path
		keys, unread, err = environ.Keys(got, o.Rules)
		for _, p := range unread {
			out.unread = append(out.unread, shortReference(p, "", s.mount()))
		}
		return err
	})
	if err != nil {
		return scan.Options{}, nil, err
	}
	var n scan.Options
	var values []string
	add := func(value, key string, part, within bool) bool {
		if len(value) < o.Masking.Least || mask.Common(value) {
			return false
		}
		values, n.Keys, n.Parts = append(values, value), append(n.Keys, key), append(n.Parts, part)
		if !within {
			return true
		}
		for _, within := range mask.Within(value) {
			if len(within) >= o.Masking.Least && !mask.Common(within) {
				values, n.Keys, n.Parts = append(values, within), append(n.Keys, key), append(n.Parts, true)
			}
		}
		return true
	}
	for _, k := range keys {
		name := shortReference(k.Path, k.Name, s.mount())
		if !add(k.Value.Reveal(), name, false, !k.Object) {
			out.leftOut = append(out.leftOut, name)
			continue
		}
		out.keys = append(out.keys, name)
		for _, part := range k.Parts {
			add(part.Reveal(), name, true, true)
		}
	}
	if len(values) == 0 {
		return scan.Options{}, nil, &fault.Error{Kind: fault.Usage, What: "cannot scan",
			Why:  "there is nothing to look for",
			Hint: "the values are too short or too common, or the secrets are leased: name other secrets, or look for shorter values with --mask-min"}
	}
	n.Needles = mask.NewNeedles(values, o.Masking.Least)
	if n.Needles.Swarms() {
		a.ui.log.Warn("there are so many values that they are not looked for in base64 and hexadecimal")
	}
	return n, out, nil
}

// shortReference is how a run names a key: without the mount where that is the one of --mount.
func shortReference(p vault.Path, key, mount string) string {
	ref := strings.TrimPrefix(p.Reference(key), "/"+vault.EscapePath(mount)+"/")
	return strings.TrimSuffix(ref, "#")
}
