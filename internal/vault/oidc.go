package vault

import (
	"strings"
	"time"
)

// Of the reserved mount identity one path can be read: identity/oidc/token/ROLE, a JWT about the token's entity, signed
// anew at every read. It has no lease and nothing to renew: its data says how long it lives.

const (
	identityMount = "identity"
	oidcTokens    = "oidc/token/"
)

// identityToken finds the engine of such a path. Nobody has to be asked for it, it has its place in every namespace.
func identityToken(p Path) (Engine, bool) {
	e := Engine{Mount: identityMount, Type: identityMount}
	role, ok := strings.CutPrefix(p.whole(), identityMount+"/"+oidcTokens)
	return e, ok && role != "" && !strings.Contains(role, "/") && !p.Folder
}

// ownLife is the life of what ends by itself, as a lease without an ID: nothing can be done about that end. A token says
// how long it lives, a certificate until when.
func (s *Secret) ownLife() Lease {
	var seconds int64
	switch {
	case s.Engine.Type == identityMount:
		_ = s.Values["ttl"].into(&seconds)
	case s.Path.Fields != "" && s.Values["expiration"].into(&seconds) == nil && seconds > 0:
		now := s.Date
		if now.IsZero() {
			now = time.Now()
		}
		seconds = max(seconds-now.Unix(), 1)
	}
	return Lease{Duration: time.Duration(min(max(seconds, 0), longestLife)) * time.Second}
}

// longestLife is in seconds. A time.Duration holds no more than 292 years.
const longestLife = 100 * 365 * 24 * 3600

// noEntity is in Vault's refusal to sign a token about nobody, which is no matter of policies.
const noEntity = "no entity associated with the request's token"
