package vault

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// This file finds out what a read does at an engine that is not KV, without doing it. Vault's own help tells every
// token which paths there are and whether they can be read. Whether a read makes something, only people know.

// paths are beginnings of paths below the mount, by the type of the engine.
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

func (t paths) hold(e Engine, p Path) bool {
	return slices.ContainsFunc(t[e.Type],
		func(begin string) bool { return strings.HasPrefix(p.within(e.Mount).Name, begin) })
}

// Creates says what reading p does beside it, "creates a lease"; "" when it makes nothing.
func (e Engine) Creates(p Path) string {
	switch {
	case e.KV != 0, harmless.hold(e, p):
		return ""
	case e.Type == identityMount:
		return "creates a token"
	case lending.hold(e, p):
		return "creates a lease"
	}
	return "may create a lease"
}

// Unread reports whether the secret was left alone because reading it may make something.
func (s *Secret) Unread() bool { return s.Engine.KV == 0 && s.Values == nil }

// CanBeRead reports why nobody can read the path of a secret that was not read, nil when it can be read or nothing is
// known. The failure is the one that a read would give.
func (c *Client) CanBeRead(ctx context.Context, s *Secret) *fault.Error {
	if s.Engine.Type == identityMount || lending.hold(s.Engine, s.Path) {
		return nil
	}
	p := s.Path
	a, err := c.do(ctx, request{what: cannotRead(p), path: p.Mount + "/" + p.Name, query: url.Values{"help": {"1"}}})
	if err != nil {
		if f := fault.Of(err); f.Cause == fault.NoPath {
			return f
		}
		return nil
	}
	var help struct {
		OpenAPI struct {
			Paths map[string]struct {
				Get *struct {
					Parameters []struct {
						Name     string `json:"name"`
						Required bool   `json:"required"`
					} `json:"parameters"`
				} `json:"get"`
			} `json:"paths"`
		} `json:"openapi"`
	}
	if a.raw.into(&help) != nil || len(help.OpenAPI.Paths) == 0 {
		return nil
	}
	for _, path := range help.OpenAPI.Paths {
		if path.Get == nil {
			continue
		}
		listed := false // a list is a GET with ?list=true
		for _, param := range path.Get.Parameters {
			listed = listed || param.Name == "list" && param.Required
		}
		if !listed {
			return nil
		}
	}
	f := &fault.Error{Kind: fault.Missing, Cause: fault.Unsupported, What: cannotRead(p), Why: whyUnsupported}
	notReadable(f, s.Engine)
	return f
}

// notReadable explains a path that is written to, listed, or both.
func notReadable(f *fault.Error, e Engine) {
	if f.Cause == fault.Unsupported && f.Hint == "" {
		f.Hint = fmt.Sprintf("in a %s engine this path is for writing (to issue, sign or encrypt something) or listing, and vaultexec only reads: let the program ask Vault itself, with --keep-token",
			e.Type)
	}
}
