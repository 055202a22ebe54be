package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/dotenv"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// maxDotenv bounds a file. Vault takes no secret over 1 MiB.
const maxDotenv = 4 << 20

// Options that say how a .env file is read.
var (
	expandOption  = option{name: "expand", group: groupOwn, usage: "replace $VAR, ${VAR} and ${VAR:-default}, outside of single quotes, by the value that FILE gives VAR"}
	dialectOption = option{name: "dialect", arg: "compose|node|python|ruby", group: groupOwn, usage: "read FILE as Docker Compose, Node's dotenv, python-dotenv or Ruby's dotenv does; without it, lines that they read differently in a way that matters are refused (docs/dotenv.md)"}
)

// dotenvOptions are the options that say how a .env file is read.
func dotenvOptions(s *settings) dotenv.Options {
	o := dotenv.Options{Expand: s.bool("expand"), Dialect: s.choice("dialect")}
	if o.Expand && o.Dialect != "" && o.Dialect != "compose" {
		s.bad(s.one("expand"), "only Docker Compose's dialect is expanded",
			"leave --dialect "+o.Dialect+" out, or --expand")
	}
	return o
}

// readDotenv reads a .env file, or standard input. verb is what it is read for; hint is for a file that is not there.
func (a *app) readDotenv(file string, o dotenv.Options, verb, hint string) (map[string]vault.Text, error) {
	what, in := fmt.Sprintf("%q", file), io.Reader(a.terminal.in)
	if file == "-" {
		what = "standard input"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, &fault.Error{Kind: fault.Usage, What: "cannot read " + what, Why: vault.Errno(err), Hint: hint}
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	parsed, err := parseDotenv(in, o)
	if err == nil && len(parsed) == 0 {
		err = &fault.Error{Kind: fault.Value, Why: "there is no variable in it", Hint: "a line of it is NAME=VALUE"}
	}
	if err == nil {
		err = noReferences(parsed)
	}
	if err != nil {
		e := *fault.Of(err)
		e.What = "cannot " + verb + " " + what
		return nil, &e
	}
	vars := make(map[string]vault.Text, len(parsed))
	for k, v := range parsed {
		vars[k] = vault.NewText(v)
	}
	return vars, nil
}

// noReferences refuses a file that was made by --write-references: what it holds would take the place of the values.
func noReferences(vars map[string]string) error {
	var names []string
	for name, value := range vars {
		if sources, _, err := environ.ParseVariable(name, value, "secret"); err == nil && len(sources) > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return &fault.Error{Kind: fault.Value,
		Why:  "these hold references to Vault, not values: " + strings.Join(names, ", "),
		Hint: "leave the file as it is and run with it: --env-file FILE puts the values in place of the references"}
}

// parseDotenv reads a .env file. Its failures have no What yet, and hold names and line numbers only.
func parseDotenv(in io.Reader, o dotenv.Options) (map[string]string, error) {
	b, err := io.ReadAll(io.LimitReader(in, maxDotenv+1))
	switch {
	case err != nil:
		return nil, &fault.Error{Kind: fault.Usage, Why: vault.Errno(err)}
	case len(b) > maxDotenv:
		return nil, &fault.Error{Kind: fault.Usage, Why: "it is larger than Vault takes",
			Hint: "name a file of NAME=VALUE lines"}
	}
	parsed, err := dotenv.Parse(string(b), o)
	var bad *dotenv.Error
	if errors.As(err, &bad) {
		return nil, &fault.Error{Kind: fault.Value, Why: bad.Error(),
			Hint: "correct that line: NAME=VALUE, quotes closed, as docker compose reads it; import and diff take --dialect for another reader's rules"}
	}
	return parsed, err
}

func readEnvFile(v setting, allow []int) (map[string]string, error) {
	what := fmt.Sprintf("cannot read %s %q", v.from, v.text)
	f, err := trust.Open(v.text, allow)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Usage, What: what, Why: vault.Errno(err),
			Hint: trust.Cure(err, "name a file of NAME=VALUE lines")}
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
		return &fault.Error{Kind: fault.Usage, What: what, Why: "a path has characters that no .env file takes",
			Hint: "name its key with --env NAME=PATH#KEY instead"}
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		_, err = f.WriteString(b.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return &fault.Error{Kind: fault.Usage, What: what, Why: vault.Errno(err),
			Hint: "what was imported is in Vault; the same command again writes the file"}
	}
	return nil
}
