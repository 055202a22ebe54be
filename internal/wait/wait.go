// Package wait polls conditions in tests. A bare sleep in a test is either too short on a busy machine or too long on
// every other one; a condition with a generous cap is neither.
package wait

import "time"

// Interval lies between two looks at a condition.
const Interval = 5 * time.Millisecond

// TB is what Until needs of *testing.T.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// For looks at cond until it is true or limit has passed, and says which. It looks at least once, and once more after
// the limit, so that a machine that froze in between is not taken for a failure.
func For(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return cond()
		}
		time.Sleep(Interval)
	}
}

// Until is For that fails the test, naming what it waited for.
func Until(t TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !For(limit, cond) {
		t.Fatalf("waited %v in vain for %s", limit, what)
	}
}
