package vault

import (
	"fmt"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// missingRule is the Err of a denial: the rule that a policy lacks.
type missingRule struct{ rule string }

func (m *missingRule) Error() string { return "the token's policies need: " + m.rule }

// needs makes the hint of a denial of the one rule that would have allowed it. more is added to it.
func needs(path, capability string, more ...string) func(*fault.Error) {
	return func(f *fault.Error) {
		f.Hint, f.Err = PolicyHint(path, capability)+strings.Join(more, ""), &missingRule{policyRule(path, capability)}
	}
}

func policyRule(path, capability string) string {
	return fmt.Sprintf("path %q { capabilities = [%q] }", path, capability)
}

// PolicyHint is the policy rule that would allow it, and a word on what a narrow policy hides.
func PolicyHint(path, capability string) string {
	return (&missingRule{policyRule(path, capability)}).Error() +
		" (a narrow policy shows a missing secret as denied, too)"
}

// Denied is the failure of what a policy does not allow, with the rule that would.
func Denied(what, why, path, capability string) *fault.Error {
	f := &fault.Error{Kind: fault.Denied, What: what, Why: why}
	needs(path, capability)(f)
	return f
}
