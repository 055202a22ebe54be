package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var getCommand = &command{
	name: "get", args: "PATH[@VERSION][#KEY]", summary: "names and version; a value with #KEY and --reveal",
	about: `
Without --reveal no value is printed, wherever the output goes. With it the one
value goes to standard output as it is; a line break is added on a terminal only.
`,
	own: []option{
		{name: "reveal", group: groupOwn, usage: "print the value of #KEY"},
		{name: "versions", group: groupOwn, usage: "show each version: when, by whom (where Vault tells: 1.21 and later), and whether it still lives"},
		jsonOption,
	},
	shared: withKV, least: 1, most: 1,
	do: (*app).get,
}

func (a *app) get(ctx context.Context, s *settings, words []string) error {
	var (
		p   vault.Path
		key string
		err error
	)
	if strings.Contains(words[0], "#") {
		p, key, err = vault.ParseKeyRef(words[0], s.mount())
	} else {
		p, err = vault.ParsePath(words[0], s.mount())
	}
	if err != nil {
		return err
	}
	reveal := s.bool("reveal")
	switch {
	case reveal && key == "":
		return &fault.Error{Kind: fault.Usage, What: "cannot reveal a whole secret",
			Hint: "name one key: vaultexec get --reveal PATH#KEY"}
	case s.bool("versions") && p.Fields != "":
		return vault.NoFields(p)
	case s.bool("versions") && (key != "" || p.Version != 0):
		return &fault.Error{Kind: fault.Usage, What: "--versions is for a whole secret",
			Hint: "leave #KEY and @VERSION out"}
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		if s.bool("versions") {
			return a.getVersions(ctx, c, s, p)
		}
		secret, err := a.readSecret(ctx, c, s, p, "get")
		if err != nil {
			return err
		}
		if key != "" {
			return a.getKey(s, secret, key, reveal)
		}
		a.showSecret(s, secret)
		return nil
	})
}

// readSecret reads a secret that a command looks at, and makes none. verb is what cannot be done when that fails.
func (a *app) readSecret(ctx context.Context, c *vault.Client, s *settings, p vault.Path, verb string) (
	secret *vault.Secret, err error) {
	err = a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
		secret, err = c.Read(ctx, p, vault.ReadOptions{KVVersion: s.kvVersion(), NoLease: true})
		return err
	})
	if err != nil {
		return nil, advise(ctx, c, s, p, err)
	}
	if secret.Unread() {
		if _, f := c.CanBeRead(ctx, secret); f != nil {
			return nil, f
		}
		path := "/" + secret.Path.String()
		if secret.Path.Fields != "" {
			path = "'" + path + "'"
		}
		return nil, &fault.Error{Kind: fault.Usage, What: "cannot " + verb + " " + secret.Path.String(),
			Why: fmt.Sprintf("reading from %s (%s) may create something",
				secret.Engine.Mount, secret.Engine.Type),
			Hint: "what it makes is for a command: vaultexec --path " + path + " -- COMMAND"}
	}
	return secret, nil
}

// secretReport is what get shows.
type secretReport struct {
	Path    string   `json:"path"`
	Engine  string   `json:"engine,omitempty"` // where it is not KV
	KV      int      `json:"kv_version"`
	Version int      `json:"version,omitempty"`
	Created string   `json:"created,omitempty"`
	Expires string   `json:"expires,omitempty"` // under delete_version_after
	Keys    []string `json:"keys,omitempty"`
	Key     string   `json:"key,omitempty"`
	Value   *string  `json:"value,omitempty"` // with --reveal only
}

func reportOf(secret *vault.Secret) secretReport {
	p := secret.Path
	p.Version = 0
	r := secretReport{Path: p.String(), KV: secret.Engine.KV, Version: secret.Version, Created: secret.CreatedTime,
		Expires: secret.DeletedTime}
	if r.KV == 0 {
		r.Engine = secret.Engine.Type
	}
	return r
}

func (r secretReport) head() string {
	if r.KV == 0 {
		return r.Path + ": " + r.Engine
	}
	if r.KV == 1 {
		return r.Path + ": kv version 1, without versions"
	}
	head := fmt.Sprintf("%s: version %d, %s", r.Path, r.Version, shortTime(r.Created))
	if r.Expires != "" {
		head += ", deleted by Vault at " + shortTime(r.Expires)
	}
	return head
}

func (a *app) showSecret(s *settings, secret *vault.Secret) {
	r := reportOf(secret)
	r.Keys = slices.Sorted(maps.Keys(secret.Values))
	if s.bool("json") {
		a.ui.reportJSON(r)
		return
	}
	a.ui.printf("%s\n", oneLine(r.head()))
	for _, k := range r.Keys {
		a.ui.printf("  %s\n", oneLine(k))
	}
}

func (a *app) getKey(s *settings, secret *vault.Secret, key string, reveal bool) error {
	value, no := secret.Find(key)
	if no != nil {
		return &fault.Error{Kind: fault.Missing, What: fmt.Sprintf("cannot get %s#%s", secret.Path, key),
			Why: no.Why, Hint: no.Hint}
	}
	r := reportOf(secret)
	r.Key = key
	if !reveal {
		if s.bool("json") {
			a.ui.reportJSON(r)
			return nil
		}
		a.ui.printf("%s\n  %s\n", oneLine(r.head()), oneLine(key))
		return nil
	}
	text, err := value.Text()
	if err != nil {
		return &fault.Error{Kind: fault.Value, What: fmt.Sprintf("cannot get %s#%s", secret.Path, key),
			Why: "the value is " + err.Error(), Hint: "write one with vaultexec rotate"}
	}
	if s.bool("json") {
		plain := text.Reveal()
		r.Value = &plain
		a.ui.reportJSON(r)
		return nil
	}
	a.ui.printf("%s", text.Reveal())
	if f := a.ui.written.file(); f != nil && isTerminal(f) {
		a.ui.printf("\n")
	}
	return nil
}

func (a *app) getVersions(ctx context.Context, c *vault.Client, s *settings, p vault.Path) error {
	typed := p
	p, engine, err := a.resolve(ctx, c, s, p)
	if err != nil {
		return err
	}
	if engine.KV != 2 {
		return &fault.Error{Kind: fault.Usage, What: "cannot show the versions of " + p.String(),
			Why: "only KV version 2 keeps versions", Hint: "leave --versions out"}
	}
	var list []vault.VersionInfo
	err = a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
		list, err = c.Versions(ctx, p)
		return err
	})
	if err != nil {
		return advise(ctx, c, s, typed, err)
	}
	if s.bool("json") {
		a.ui.reportJSON(struct {
			Path     string              `json:"path"`
			Versions []vault.VersionInfo `json:"versions"`
		}{p.String(), list})
		return nil
	}
	a.ui.printf("%s\n", oneLine(p.String()))
	w := tabwriter.NewWriter(a.ui.stdout, 0, 8, 2, ' ', 0)
	for _, v := range list {
		created, deleted := shortTime(v.Created), ""
		if v.CreatedBy != "" {
			created += " by " + v.CreatedBy
		}
		if v.Deleted != "" && !v.Destroyed {
			deleted = shortTime(v.Deleted)
			if v.DeletedBy != "" {
				deleted += " by " + v.DeletedBy
			}
		}
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(
			fmt.Sprintf("%d\t%s\t%s\t%s", v.Version, v.State, oneLine(created), oneLine(deleted)), "\t"))
	}
	return w.Flush()
}
