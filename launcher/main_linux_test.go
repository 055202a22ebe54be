package launcher

import (
	"os"

	"github.com/agenticverz/vaultexec/internal/gatetest"
)

// killsItself is this test's program as one that is to be killed, for TestKilledDuringAChange, or as a server, for
// TestWarmingServers.
func killsItself() {
	gatetest.Main()
	if how := os.Getenv(dieAt); how != "" {
		changer(how)
	}
}
