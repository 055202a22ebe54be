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
	"github.com/agenticverz/vaultexec/launcher"
)

// exitDifferent is the exit code of diff for sides that differ: that of diff(1).
const exitDifferent = 1

var diffCommand = &command{
	name: "diff", args: "A B", summary: "which names differ: secrets, versions, .env files",
	about: `
Names are printed, values never. A and B are each

  PATH[@VERSION]   a secret; vault:PATH, whatever the path looks like
  file:FILE        a .env file. A word that begins with ./ or ../, or whose last
                   part begins or ends with .env, is one, too; - reads it from
                   standard input. Only the spelling decides, not what is there.
  env              this environment; only names that the other side has count

  vaultexec diff .env app-prod
  vaultexec diff app-prod@3 app-prod
  vaultexec diff app-staging app-prod

Values are compared as a run would put them into the environment: a number equals
the string of the same digits. A file is read as vaultexec import reads it.

Exit code: 0 the same, 1 different; an error has one from 120 to 125.
`,
	own: []option{
		{name: "all", group: groupOwn, usage: "list the equal names, too; without it they are counted"},
		expandOption, dialectOption, jsonOption,
	},
	shared: withKV, least: 2, most: 2,
	report: true, do: (*app).diff,
}

// side is one of the two that are compared. A value that no variable can hold (null) is nil.
type side struct {
	label  string
	env    bool
	file   string // "" for none
	path   vault.Path
	values map[string]*vault.Text
}

// sideOf tells by its spelling what a word means.
func sideOf(word, mount string) (side, error) {
	if word == "env" {
		return side{label: word, env: true}, nil
	}
	name, isFile := strings.CutPrefix(word, "file:")
	last := path.Base(word)
	switch {
	case isFile && name == "":
		return side{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot compare with %q", word),
			Why: "it names no file", Hint: "write it as file:FILE"}
	case word == "-", strings.HasPrefix(word, "./"), strings.HasPrefix(word, "../"):
		isFile = true
	case strings.HasPrefix(last, ".env"), strings.HasSuffix(last, ".env"):
		isFile = !strings.HasPrefix(word, "vault:")
	}
	if isFile { // name is the whole word where there was no file:
		return side{label: name, file: name}, nil
	}
	p, err := vault.ParsePath(strings.TrimPrefix(word, "vault:"), mount)
	return side{label: word, path: p}, err
}

func (a *app) diff(ctx context.Context, s *settings, words []string) error {
	var sides [2]side
	for i, word := range words {
		var err error
		sides[i], err = sideOf(word, s.mount())
		s.faults = append(s.faults, fault.All(err)...)
	}
	x, y := &sides[0], &sides[1]
	if x.env && y.env || x.file == "-" && y.file == "-" {
		s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: "cannot compare",
			Why: fmt.Sprintf("both sides are %q", words[0]), Hint: "name a secret or a file: vaultexec diff .env app-prod"})
	}
	o := dotenvOptions(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	remote := false
	for i := range sides {
		switch d := &sides[i]; {
		case d.file != "":
			vars, err := a.readDotenv(d.file, o, "compare", "a secret of this name is written as vault:PATH")
			if err != nil {
				return err
			}
			d.values = make(map[string]*vault.Text, len(vars))
			for name, v := range vars {
				d.values[name] = &v
			}
		case !d.env:
			remote = true
		}
	}
	if remote {
		err := a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
			for i := range sides {
				if err := a.readSide(ctx, c, s, &sides[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	a.takeEnv(x, y)
	a.takeEnv(y, x)
	return a.reportDiff(s, compareSides(*x, *y))
}

// readSide reads a side that is in Vault.
func (a *app) readSide(ctx context.Context, c *vault.Client, s *settings, d *side) error {
	if d.env || d.file != "" {
		return nil
	}
	secret, err := a.readSecret(ctx, c, s, d.path, "compare")
	if err != nil {
		if f, no := os.Stat(d.label); no == nil && f.Mode().IsRegular() && fault.Is(err, fault.Missing, fault.Denied) {
			fault.Of(err).AddHint("the file of this name is written as " + shellQuote("file:"+d.label))
		}
		return err
	}
	p := secret.Path
	p.Version = secret.Version
	d.label, d.values = p.String(), make(map[string]*vault.Text, len(secret.Values))
	for name, v := range secret.Values {
		d.values[name] = nil
		if text, err := v.Text(); err == nil {
			d.values[name] = &text
		}
	}
	return nil
}

// takeEnv takes the names of the other side out of the environment.
func (a *app) takeEnv(d, other *side) {
	if !d.env {
		return
	}
	d.values = map[string]*vault.Text{}
	for name := range other.values {
		if a.isSet(name) {
			v := vault.NewText(a.getenv(name))
			d.values[name] = &v
		}
	}
}

// difference is what diff says: names.
type difference struct {
	A         string   `json:"a"`
	B         string   `json:"b"`
	OnlyA     []string `json:"only_a"`
	OnlyB     []string `json:"only_b"`
	Different []string `json:"different"`
	Equal     int      `json:"equal"`
	Names     []string `json:"equal_names,omitempty"` // with --all
}

func compareSides(x, y side) difference {
	d := difference{A: x.label, B: y.label, OnlyA: []string{}, OnlyB: []string{}, Different: []string{}}
	for _, name := range slices.Sorted(maps.Keys(x.values)) {
		v := x.values[name]
		w, both := y.values[name]
		switch {
		case !both:
			d.OnlyA = append(d.OnlyA, name)
		case v == nil && w == nil, v != nil && w != nil && v.Equal(*w):
			d.Names = append(d.Names, name)
		default:
			d.Different = append(d.Different, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(y.values)) {
		if _, both := x.values[name]; !both {
			d.OnlyB = append(d.OnlyB, name)
		}
	}
	d.Equal = len(d.Names)
	return d
}

// reportDiff prints what differs, and says so by the exit code.
func (a *app) reportDiff(s *settings, d difference) error {
	if !s.bool("all") {
		d.Names = nil
	}
	if s.bool("json") {
		a.ui.reportJSON(d)
	} else {
		for _, list := range []struct {
			head  string
			names []string
			tone  tone
		}{{"only in " + d.A, d.OnlyA, badTone}, {"only in " + d.B, d.OnlyB, goodTone}, {"different", d.Different, doubtTone}, {"equal", d.Names, plainTone}} {
			for i, name := range list.names {
				if i == 0 {
					a.ui.printf("%s:\n", oneLine(list.head))
				}
				a.ui.printf("  %s\n", a.ui.screen.paint(list.tone, oneLine(name)))
			}
		}
		a.ui.printf("%d equal\n", d.Equal)
	}
	if len(d.OnlyA)+len(d.OnlyB)+len(d.Different) > 0 {
		return &launcher.Exited{Code: exitDifferent}
	}
	return nil
}
