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

// tokenLife is the life of the token that was read, as a lease without an ID. It ends, and nothing can be done about
// that.
func tokenLife(s *Secret) Lease {
	var seconds int
	if s.Values["ttl"].into(&seconds) != nil || seconds <= 0 {
		return Lease{}
	}
	return Lease{Duration: time.Duration(seconds) * time.Second}
}

// noEntity is in Vault's refusal to sign a token about nobody, which is no matter of policies.
const noEntity = "no entity associated with the request's token"
