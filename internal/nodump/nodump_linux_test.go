package nodump_test

import (
	"testing"

	"golang.org/x/sys/unix"

	_ "github.com/agenticverz/vaultexec/internal/nodump"
)

// The process is undumpable before whatever imports this package is initialized.
func TestNoDump(t *testing.T) {
	if dumpableAtStart != 0 || errAtStart != nil {
		t.Errorf("PR_GET_DUMPABLE is %d, %v", dumpableAtStart, errAtStart)
	}
}

var dumpableAtStart, errAtStart = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
