package main

import (
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Which secrets are taken, while they change under a running command.

// A change that takes a required variable away is not used; one that gives it again is.
func TestWatchRequire(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	first, second := vaulttest.Canary("A"), vaulttest.Canary("A")
	w.put("app", "A="+first, "B=1")
	w.start("--path", "app", "--require", "B")
	w.waitA(first)
	w.put("app", "A="+second)
	w.waitLog(logUnused, 1)
	w.waitLog("cannot do without B: required", 1)
	w.looks(2, 1)
	w.wantStarts(1)
	w.put("app", "A="+second, "B=2")
	w.waitA(second)
	w.waitLog(logUsable, 1)
	w.stop()
	w.wantStarts(2)
}
