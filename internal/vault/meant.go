package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// The Vault CLI and the API begin a path with its mount: secret/app, secret/data/app. Here a relative path belongs to
// --mount, so "secret/app" names the secret secret/app of the mount secret. Whoever types that nearly always means
// another secret.

// Meant says what a path that is written as the Vault CLI takes it probably means, "" when it does not look like that.
// Whether a path begins with its own mount can be seen. Whether it begins with another one, Vault is asked, if ask is
// set.
func (c *Client) Meant(ctx context.Context, p Path, ask bool) string {
	if p.Mount == "" || p.Mount == identityMount {
		return "" // written with a slash in front, which names the mount
	}
	if hint := c.startsWith(p, p.Mount); hint != "" {
		return hint
	}
	if !ask || !strings.Contains(p.Name, "/") {
		return ""
	}
	mounts, err := c.VisibleMounts(ctx)
	if err != nil {
		return ""
	}
	return c.otherMount(p, mounts)
}

// otherMount looks for a mount that the name of p begins with.
func (c *Client) otherMount(p Path, mounts []Engine) string {
	for _, m := range mounts {
		if slices.Contains(reserved, m.Mount) {
			continue
		}
		if hint := c.startsWith(p, m.Mount); hint != "" {
			return hint
		}
	}
	return ""
}

// startsWith says how p is written if its name begins with this mount by mistake.
func (c *Client) startsWith(p Path, mount string) string {
	searched := fmt.Sprintf("%q was looked for in the mount %q: ", strings.TrimSuffix(p.Name, "/"), p.Mount)
	rest, ok := strings.CutPrefix(p.Name, mount+"/")
	switch {
	case p.Name == mount:
		return searched + fmt.Sprintf("it is a mount itself, and `vaultexec list /%s` shows what is in it", mount)
	case !ok, rest == "" && !p.Folder:
		return ""
	}
	if e, known := c.mounts.find(Path{Mount: mount, Name: "x"}); known && e.KV == 2 {
		if inner, cut := strings.CutPrefix(rest, "data/"); cut && inner != "" {
			rest = inner // the path of the API
		}
	}
	if p.Folder {
		rest += "*"
	}
	version := Path{Version: p.Version}.String()
	whole := fmt.Sprintf("%q", "/"+mount+"/"+writtenAs(rest)+version)
	if mount != p.Mount {
		return searched + fmt.Sprintf("write %s, with a slash in front, for that of the mount %q", whole, mount)
	}
	return searched + fmt.Sprintf("write %q, or %s with its mount", writtenAs(rest)+version, whole)
}

// writtenAs is EscapePath for what may end in the asterisk of a folder.
func writtenAs(name string) string {
	if dir, ok := strings.CutSuffix(name, "*"); ok {
		return EscapePath(dir) + "*"
	}
	return EscapePath(name)
}

// adviseMeant gives f the hint that Meant finds. A policy that would allow the very name comes after it.
func adviseMeant(f *fault.Error, hint string, p Path) {
	var lacks *missingRule
	if f.Kind == fault.Denied && errors.As(f.Err, &lacks) {
		hint += fmt.Sprintf("; for %s itself, %s", p, lacks)
	}
	f.Cause, f.Hint = fault.OtherPath, hint
}
