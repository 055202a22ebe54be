package restartlock

import (
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }
