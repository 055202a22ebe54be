package launcher

import "os"

// killsItself is this test's program as one that is to be killed, for TestKilledDuringAChange.
func killsItself() {
	if how := os.Getenv(dieAt); how != "" {
		changer(how)
	}
}
