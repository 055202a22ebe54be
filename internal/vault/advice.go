package vault

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Advise tries to better the hint of a failure about p, as it was written, by asking Vault. For a missing secret it
// names the nearest existing name, when the token may list. For a path that begins with its mount it names the path
// that was meant. For a mount that nobody named it names the mounts that the token sees. It takes at most two requests
// and one second, and leaves the failure as it is when they do not help.
func (c *Client) Advise(ctx context.Context, p Path, f *fault.Error, mountIsDefault bool) {
	if f.Kind != fault.Missing && f.Kind != fault.Denied {
		return
	}
	if _, ok := identityToken(p); ok { // no mount of secrets was meant
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if f.Kind == fault.Missing && f.Cause != fault.NoMount && f.Hint == "" {
		f.Hint = c.nearestName(ctx, p)
	}
	if f.Kind == fault.Missing && f.Hint != "" {
		return
	}
	if hint := c.Meant(ctx, p, false); hint != "" {
		adviseMeant(f, hint, p)
		return
	}
	if f.Kind == fault.Denied && p.Fields != "" { // its hint is the rule that it takes
		return
	}
	if f.Kind == fault.Denied && !mountIsDefault && !strings.Contains(p.Name, "/") { // not written like another mount's
		return
	}
	mounts, err := c.VisibleMounts(ctx)
	if err != nil || len(mounts) == 0 {
		return
	}
	if hint := c.otherMount(p, mounts); hint != "" && p.Mount != "" {
		adviseMeant(f, hint, p)
		return
	}
	adviseMounts(f, p, mounts, mountIsDefault)
}

// adviseMounts names the mounts of secrets that the token sees, where none of them is the one of p; of a path with
// fields, the other mounts.
func adviseMounts(f *fault.Error, p Path, mounts []Engine, mountIsDefault bool) {
	isIn := func(m Engine) bool { return p.isIn(m.Mount) }
	if slices.ContainsFunc(mounts, isIn) {
		return
	}
	var names []string
	for _, m := range mounts {
		if (m.KV != 0) == (p.Fields == "") && !slices.Contains(reserved, m.Mount) {
			names = append(names, m.Mount)
		}
	}
	switch {
	case len(names) == 0:
	case p.Mount == defaultMount && mountIsDefault:
		f.Hint = fmt.Sprintf("no --mount was given, so %q was used; the token can see: %s", p.Mount,
			strings.Join(names, ", "))
	case f.Kind == fault.Missing, p.Mount == "", mountIsDefault:
		f.Hint = "the token can see the mounts: " + strings.Join(names, ", ")
	}
}

// defaultMount is what --mount is when nobody gives it.
const defaultMount = "secret"

// isIn reports whether the mount is where p is.
func (p Path) isIn(mount string) bool {
	return p.Mount == mount || p.Mount == "" && strings.HasPrefix(p.Name, mount+"/")
}

// nearestName asks for the names beside a secret that does not exist.
func (c *Client) nearestName(ctx context.Context, p Path) string {
	engine, known := c.mounts.find(p)
	if !known {
		return ""
	}
	p = p.within(engine.Mount)
	if p.Folder {
		return c.nearestFolder(ctx, engine, p)
	}
	dir, base := "", p.Name
	if i := strings.LastIndexByte(p.Name, '/'); i >= 0 {
		dir, base = p.Name[:i+1], p.Name[i+1:]
	}
	names, err := c.List(ctx, engine, dir)
	if err != nil || slices.Contains(names, base) {
		return ""
	}
	if slices.Contains(names, base+"/") {
		return fmt.Sprintf("it is a folder: --path '%s/*' takes every secret directly in it", EscapePath(dir+base))
	}
	near := Nearest(base, names)
	if near == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", dir+near)
}

// Nearest returns the name that a person most likely meant, or "" when none is close.
func Nearest(name string, names []string) string {
	best, bestDistance := "", len(name)/2+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(strings.TrimSuffix(n, "/"))); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two strings, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
