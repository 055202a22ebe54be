package cli

import (
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestMain(m *testing.M) {
	vaulttest.InRoot()
	vaulttest.Main(m)
}
