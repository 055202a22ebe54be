package e2e

import (
	"fmt"
	"strings"
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

// allowList adds to the policy what a folder needs.
func (w *watched) allowList() *watched {
	w.t.Helper()
	rule := fmt.Sprintf("path \"%s/*\" { capabilities = [\"read\", \"list\"] }", w.mount)
	w.srv.Policy(w.t, w.policy, rule)
	return w
}

// What is new in a folder, or in one that was not there, changes there or goes, reaches the command, one restart each; what happens in a folder below does not.
func TestWatchFolder(t *testing.T) {
	t.Parallel()
	for _, kv := range []int{1, 2} {
		t.Run(fmt.Sprint("kv", kv), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, kv).allowList()
			first, second, third := vaulttest.Canary("A"), vaulttest.Canary("A"), vaulttest.Canary("A")
			w.put("app/one", "A="+first)
			w.start("--path", "app/*", "--optional-path", "later/*")
			w.waitA(first)
			w.put("app/two", "B=2")
			w.until("a child with B", func() bool { return w.last().b == "2" })
			w.put("app/below/x", "C=3")
			w.put("app/one", "A="+second)
			w.waitA(second)
			if c := w.last().c; c != "" {
				t.Error("the folder in the folder was entered")
			}
			if kv == 1 {
				w.srv.Must(t, "DELETE", w.mount+"/app/two", nil)
			} else {
				w.kvCall("DELETE", "metadata", "app/two", nil)
			}
			w.until("a child without B", func() bool { return w.last().b == "" })
			w.put("app/one", "A="+third)
			w.waitA(third)
			w.put("later/x", "C=3")
			w.until("a child with C", func() bool { return w.last().c == "3" })
			w.stop()
			w.wantStarts(6)
			lines := w.lines(logRestart)
			if len(lines) != 5 {
				t.Fatalf("%d decisions, want 5", len(lines))
			}
			two := w.mount + "/app/two absent → 1"
			if kv == 1 {
				two = w.mount + "/app/two changed"
			}
			for i, want := range []struct{ names, paths string }{
				{"+B", w.mount + "/app/* changed, " + two}, {"A", ""}, {"-B", w.mount + "/app/* changed"}, {"A", ""}, {"+C", ""},
			} {
				paths := lines[i].str("paths")
				if lines[i].str("names") != want.names || want.paths != "" && paths != want.paths || want.paths == "" && strings.Contains(paths, "two") {
					t.Errorf("decision %d: %v", i, lines[i])
				}
			}
		})
	}
}

// A folder that is emptied, or may no longer be listed, leaves the command as it is; a secret in it that cannot be used does so,
// too, until it can.
func TestWatchFolderUnusable(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2).allowList()
	first, second := vaulttest.Canary("A"), vaulttest.Canary("A")
	w.put("app/one", "A="+first)
	w.start("--path", "app/*", "--log-level", "debug")
	w.waitA(first)
	w.put("app/bad", "A=2") // collides
	w.waitLog(logUnused, 1)
	w.put("app/bad", "B=2") // the secret that was never used is looked at
	w.until("a child with B", func() bool { return w.last().b == "2" })
	w.waitLog(logUsable, 1)
	w.kvCall("DELETE", "data", "app/bad", nil)
	w.until("a child without B", func() bool { return w.last().b == "" })
	w.kvCall("DELETE", "data", "app/one", nil)
	w.waitLog("every secret in it is deleted", 1)
	w.kvCall("DELETE", "metadata", "app/one", nil)
	w.kvCall("DELETE", "metadata", "app/bad", nil)
	w.waitLog("no such folder, or nothing in it", 1)
	w.wantStarts(3)
	w.put("app/one", "A="+second)
	w.waitA(second)
	w.srv.Policy(t, w.policy, w.rules(true)) // without list
	w.waitLog(logTrouble, 1)
	w.allowList()
	w.waitLog(logOver, 1)
	w.stop()
	w.wantStarts(4)
}
