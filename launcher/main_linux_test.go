package launcher

import "os"

// killsItself is this test's program as one that is to be killed, for TestKilledDuringAChange, or as a server, for
// TestWarmingServers.
func killsItself() {
	if gate := os.Getenv(warmGate); gate != "" {
		warmServer(gate)
	}
	if how := os.Getenv(dieAt); how != "" {
		changer(how)
	}
}
