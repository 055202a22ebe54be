package launcher

import (
	"os"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The client refuses to be made while these are set.
func TestMain(m *testing.M) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") {
			_ = os.Unsetenv(name)
		}
	}
	killsItself()
	vaulttest.Main(m)
}
