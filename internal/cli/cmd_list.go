package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var listCommand = &command{
	name: "list", args: "[PATH]", summary: "names below PATH, or of the whole mount",
	about: `
Names of folders end in a slash. A leading slash names the mount itself, and
"vaultexec list /" lists the mounts that the token can see.
`,
	own: []option{jsonOption}, shared: withKV, most: 1,
	do: (*app).list,
}

func (a *app) list(ctx context.Context, s *settings, words []string) error {
	if len(words) == 1 && strings.Trim(words[0], "/") == "" && words[0] != "" {
		return a.listMounts(ctx, s)
	}
	dir, err := vault.Path{Mount: s.mount()}, error(nil)
	if len(words) == 1 {
		if dir, err = vault.ParseDir(words[0], dir.Mount); err != nil {
			return err
		}
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		p, engine, err := a.resolve(ctx, c, s, dir)
		if err != nil {
			return err
		}
		below := strings.TrimSuffix(p.Name, "/")
		if below != "" {
			below += "/"
		}
		var names []string
		err = a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
			names, err = c.List(ctx, engine, below)
			return err
		})
		if err != nil {
			if f := fault.Of(err); f.Kind == fault.Missing {
				f.Why = "there is nothing below it"
			}
			return advise(ctx, c, s, dir, err)
		}
		if s.bool("json") {
			a.ui.reportJSON(struct {
				Path  string   `json:"path"`
				Names []string `json:"names"`
			}{engine.Mount + "/" + below, names})
			return nil
		}
		for _, n := range names {
			a.ui.printf("%s\n", oneLine(n))
		}
		return nil
	})
}

func (a *app) listMounts(ctx context.Context, s *settings) error {
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		var mounts []vault.Engine
		err := a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
			mounts, err = c.VisibleMounts(ctx)
			return err
		})
		if err == nil {
			a.showMounts(s, mounts)
		}
		return err
	})
}

func (a *app) showMounts(s *settings, mounts []vault.Engine) {
	type mount struct {
		Mount string `json:"mount"`
		Type  string `json:"type"`
		KV    int    `json:"kv_version,omitempty"`
	}
	list, width := []mount{}, 0
	for _, m := range mounts {
		list = append(list, mount{m.Mount, m.Type, m.KV})
		width = max(width, len(m.Mount))
	}
	if s.bool("json") {
		a.ui.reportJSON(struct {
			Mounts []mount `json:"mounts"`
		}{list})
		return
	}
	for _, m := range mounts {
		a.ui.printf("%s\n", oneLine(fmt.Sprintf("%-*s  %s", width+1, m.Mount+"/", m)))
	}
}
