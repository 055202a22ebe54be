package vault

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// This file finds out what a read does at an engine that is not KV, without doing it. Vault's own help tells every
// token which paths there are and whether they can be read. Whether a read makes something, only people know.

// paths are beginnings of paths below the mount, by the type of the engine; with a * whole paths.
type paths map[string][]string

// harmless can be read as often as one likes: nothing is made, and nothing ends earlier.
var harmless = paths{
	"database": {"static-creds/"},
	"ldap":     {"static-cred/"},
	"openldap": {"static-cred/"},
	"aws":      {"static-creds/"},
	"totp":     {"code/"},
	"pki":      {"cert/", "issuer/"},
	"transit":  {"keys/"},
}

// fleeting give something else from time to time, or at every read, though nothing was written.
var fleeting = paths{"totp": {"code/"}}

// lending make a lease when they are read.
var lending = paths{
	"database": {"creds/"},
	"aws":      {"creds/", "sts/"},
	"rabbitmq": {"creds/"},
	"consul":   {"creds/"},
	"nomad":    {"creds/"},
	"ldap":     {"creds/"},
	"openldap": {"creds/"},
	"azure":    {"creds/"},
}

// making are written to, and answer with what they have made. Some of them can be read as well.
var making = paths{
	"pki":          {"issue/", "sign/"},
	"ssh":          {"issue/", "sign/", "creds/"},
	"transit":      {"datakey/", "random"},
	"kubernetes":   {"creds/"},
	"aws":          {"creds/", "sts/"},
	"terraform":    {"creds/"},
	"mongodbatlas": {"creds/"},
	"gcp": {"key/", "token/", "roleset/*/key", "roleset/*/token", "static-account/*/key", "static-account/*/token",
		"impersonated-account/*/token"},
}

func (t paths) hold(e Engine, p Path) bool {
	name := p.within(e.Mount).Name
	return slices.ContainsFunc(t[e.Type], func(begin string) bool {
		whole, _ := path.Match(begin, name)
		return whole || strings.HasPrefix(name, begin)
	})
}

// Creates says what reading p does beside it, "creates a lease"; "" when it makes nothing.
func (e Engine) Creates(p Path) string {
	name := p.within(e.Mount).Name
	switch {
	case e.KV != 0, p.Fields == "" && harmless.hold(e, p):
		return ""
	case e.Type == identityMount:
		return "creates a token"
	case lending.hold(e, p), p.Fields != "" && strings.HasPrefix(name, "creds/"):
		return "creates a lease"
	case p.Fields != "" && (e.Type == "pki" || e.Type == "ssh") &&
		(strings.Contains(name, "issue/") || strings.Contains(name, "sign")):
		return "issues a certificate"
	case p.Fields != "":
		return "may create something"
	}
	return "may create a lease"
}

// Unread reports whether the secret was left alone because reading it may make something.
func (s *Secret) Unread() bool { return s.Engine.KV == 0 && s.Values == nil }

// CanBeRead says which capability the path of a secret takes that was not read, and reports why nobody can read it,
// nil when it can be read or nothing is known. The failure is the one that a read would give.
func (c *Client) CanBeRead(ctx context.Context, s *Secret) (capability string, f *fault.Error) {
	made := s.Path.Fields != ""
	if !made && (s.Engine.Type == identityMount || lending.hold(s.Engine, s.Path)) {
		return "read", nil
	}
	u, err := c.usage(ctx, s.Path)
	switch {
	case fault.Has(err, fault.NoPath):
		return "", fault.Of(err)
	case err != nil:
		return "", nil
	case made:
		return u.judge(s.Path, s.Engine)
	case !u.known, u.read:
		return "read", nil
	}
	f = &fault.Error{Kind: fault.Missing, Cause: fault.Unsupported, What: cannotRead(s.Path), Why: whyUnsupported}
	notReadable(f, s.Engine, s.Path)
	return "", f
}

// notReadable explains a path that is written to, listed, or both.
func notReadable(f *fault.Error, e Engine, p Path) {
	switch {
	case f.Cause != fault.Unsupported || f.Hint != "":
	case p.Fields == "" && making.hold(e, p):
		f.Hint = fmt.Sprintf("it makes what it answers with: give it the fields that it takes, as in '/%s?%s'",
			EscapePath(p.whole()), exampleFields(e))
	default:
		f.Hint = fmt.Sprintf("in a %s engine this path is for writing or listing: if a write answers with something, give the fields that it takes, as in '/%s?NAME=VALUE'; otherwise let the program ask Vault itself, with --keep-token",
			e.Type, EscapePath(p.whole()))
	}
}

// exampleFields are what paths of an engine that make something are mostly given.
func exampleFields(e Engine) string {
	switch e.Type {
	case "pki":
		return "common_name=app.example&ttl=24h"
	case "kubernetes":
		return "kubernetes_namespace=default&ttl=1h"
	case "transit":
		return "bits=256"
	}
	return "NAME=VALUE"
}
