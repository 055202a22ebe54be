package vault

import (
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Of the reserved mount identity one path is a source: identity/oidc/token/ROLE, a JWT about the token's entity, signed anew at
// every read. It has no lease and nothing to renew: its data says how long it lives.

const (
	identityMount = "identity"
	oidcTokens    = "oidc/token/"
)

// identityToken finds the engine of such a path. Nobody has to be asked for it, it has its place in every namespace.
func identityToken(p Path) (Engine, bool) {
	e := Engine{Mount: identityMount, Type: identityMount}
	full := p.Name
	if p.Mount != "" {
		full = p.Mount + "/" + p.Name
	}
	role, ok := strings.CutPrefix(full, identityMount+"/"+oidcTokens)
	return e, ok && role != "" && !strings.Contains(role, "/") && !p.Folder
}

// tokenLife is the life of the token that was read, as a lease without an ID: it ends, and nothing can be done about it.
func tokenLife(s *Secret) Lease {
	var seconds int
	if s.Values["ttl"].into(&seconds) != nil || seconds <= 0 {
		return Lease{}
	}
	return Lease{Duration: time.Duration(seconds) * time.Second}
}

// withoutEntity explains a refusal that is no matter of policies.
func withoutEntity(f *fault.Error) {
	if strings.Contains(f.Why, "no entity") {
		f.Kind = fault.Denied
		f.Hint = "a token that no auth method gave (root, `vault token create`) belongs to no entity: log in with one, as approle or kubernetes"
	}
}
