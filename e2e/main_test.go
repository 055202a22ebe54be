// Package e2e tries the built program from outside, against a real Vault.
package e2e

import (
	"os"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestMain(m *testing.M) {
	vaulttest.InRoot()
	vaulttest.Main(m)
}

// soak is true for the full length: VAULTEXEC_TEST_SOAK=1.
var soak = os.Getenv("VAULTEXEC_TEST_SOAK") == "1"
