package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var configCommand = &command{
	name: "config", args: "[OPTIONS]", summary: "the values in effect, and where each comes from",
	about: `
Options win over variables, variables over the file of --config, and that over
defaults. Credentials are shown as "set". Nothing is asked of Vault.

The file is YAML; every option that has a variable may stand in it by its long
name. Lists are lists, and a profile says what differs from the top level:

  mount: agenticverz
  paths: [app-prod, database]
  env:
    - DB_PASSWORD=database#POSTGRES_PASSWORD
  command: [uvicorn, "app:app"]
  profiles:
    dev:
      mount: agenticverz-dev
      wait: 5s

A list of a profile takes the place of the top level's. command is started when
there is no --; it is a list of words, which no shell takes apart. Names of files
are relative to the folder of this file, the command's words are not. There are
no anchors and no merges.

It is read when --config or VAULTEXEC_CONFIG names it, and never looked for:
whoever may write it can have the token sent to a server of theirs. No option
takes a secret; the file that holds one is named (token-file, secret-id-file).
The other commands take from it what they have an option for.
`,
	own:    []option{jsonOption},
	shared: []string{groupConfig, groupSecrets, groupChild, groupConnection, groupLogin, groupFailing, groupProcess, groupWatch, "--log-level", "--quiet", "--log-format", "--dumpable", "--help"},
	run:    true,
	do:     (*app).config,
}

// effective is one row of the report.
type effective struct {
	Name   string   `json:"name"`
	Values []string `json:"values"` // "set" for a credential
	From   []string `json:"from"`   // --wait, VAULTEXEC_WAIT, FILE:LINE or default, for each value
}

func (a *app) config(_ context.Context, s *settings, _ []string) error {
	var rows []effective
	for _, o := range s.opts {
		if len(o.env) > 0 {
			rows = append(rows, a.optionRow(s, o))
		}
	}
	for _, v := range []struct {
		name string
		vars []string
	}{{"headers", vaultVar("HEADERS")}, {"ca-cert-bytes", vaultVar("CACERT_BYTES")},
		{"srv-lookup", vaultVar("SRV_LOOKUP")}, {"proxy", proxyVars}} {
		if from, _ := a.first(v.vars); from != "" {
			rows = append(rows, effective{v.name, []string{"set"}, []string{from}})
		}
	}
	rows = append(rows, a.commandRow(s))
	a.showConfig(s, slices.DeleteFunc(rows, func(r effective) bool { return len(r.Values) == 0 }))
	return fault.Join(s.faults)
}

// optionRow is what counts for an option. It has no values when nothing does.
func (a *app) optionRow(s *settings, o option) effective {
	if name, from := a.inPlaceOf(s, o.name); from != "" {
		text := "set"
		if name == "agent-address" {
			text = shown(option{}, a.getenv(from))
		}
		return effective{name, []string{text}, []string{from}}
	}
	list := s.all(o.name)
	if !o.list {
		list = []setting{s.one(o.name)}
	}
	row := effective{Name: o.name}
	for _, v := range list {
		if why := o.mismatch(v.text); why != "" {
			s.bad(v, why, "")
		}
		if v.text != "" || v.origin != fromDefault {
			row.add(shown(o, v.text), v.where())
		}
	}
	return row
}

// commandRow is the command, from behind -- or from the file.
func (a *app) commandRow(s *settings) effective {
	row := effective{Name: commandKey}
	for _, w := range a.command {
		row.add(shown(option{}, w), "--")
	}
	if a.command == nil {
		for _, v := range s.file[commandKey] {
			row.add(shown(option{}, v.text), v.where())
		}
	}
	return row
}

func (r *effective) add(value, from string) {
	r.Values, r.From = append(r.Values, value), append(r.From, from)
}

// inPlaceOf finds the variable that counts in place of an option. It holds a credential itself, as VAULT_TOKEN does, or
// the Agent's address.
func (a *app) inPlaceOf(s *settings, name string) (instead, from string) {
	var vars []string
	switch name {
	case "address":
		if s.one(name).origin == fromOption {
			return "", ""
		}
		from, _ = a.first(vaultVar("AGENT_ADDR"))
		return "agent-address", from
	case "token-file":
		vars = tokenVars
	case "wrapped-token-file":
		vars = wrappedTokenVars
	case "secret-id-file":
		vars = secretIDVars
	case "wrapped-secret-id-file":
		vars = wrappedSecretIDVars
	case "jwt-file":
		vars = jwtVars
	case "password-file":
		vars = passwordVars
	case "github-token-file":
		vars = githubTokenVars
	default:
		return "", ""
	}
	if c := a.credential(s, name, vars); !c.text.Empty() {
		return strings.TrimSuffix(name, "-file"), c.from
	}
	return "", ""
}

// where names the place that a value stands at.
func (v setting) where() string {
	switch v.origin {
	case fromDefault:
		return "default"
	case fromFile:
		return v.place
	}
	return v.from
}

// shown is a value as it may be printed. A role id is half a secret.
func shown(o option, text string) string {
	switch u, err := url.Parse(text); {
	case o.name == "role-id":
		return "set"
	case err == nil && u.User != nil && u.Host != "":
		u.User = nil
		return u.String() + " (with a user name)"
	case vault.LooksSecret(text):
		return "set"
	case o.arg == "" && o.name != "" && text != "":
		return strings.ToLower(text)
	}
	return text
}

func (a *app) showConfig(s *settings, rows []effective) {
	if s.bool("json") {
		a.ui.reportJSON(struct {
			Options []effective `json:"options"`
		}{rows})
		return
	}
	w := tabwriter.NewWriter(a.ui.stdout, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		if r.Name == commandKey { // one line, as it would be typed
			words := make([]string, len(r.Values))
			for i, v := range r.Values {
				words[i] = shellQuote(v)
			}
			r.Values, r.From = []string{strings.Join(words, " ")}, r.From[:1]
		}
		for i, v := range r.Values {
			name := r.Name
			if i > 0 {
				name = ""
			}
			if v == "" {
				v = `""`
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", name, oneLine(v), oneLine(r.From[i]))
		}
	}
	_ = w.Flush()
}
