// Package e2e tries the built program from outside, against a real Vault.
package e2e

import (
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestMain(m *testing.M) {
	vaulttest.InRoot()
	vaulttest.Main(m)
}
