package clock

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
)

// The kernel tells of a clock that was set, and tells again: it does the same when the machine wakes up. The clock is set
// forward by a nanosecond.
func TestKernelTells(t *testing.T) {
	jumps := make(chan struct{}, 100)
	go watch(func() { jumps <- struct{}{} })
	for range 2 {
		for told := false; !told; {
			if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Usec: 1}}); err == unix.EPERM {
				needs.Missing(t, "the right to set the clock (CAP_SYS_TIME)")
			} else if err != nil {
				t.Fatalf("cannot set the clock: %v", err)
			}
			select {
			case <-jumps:
				told = true
			case <-time.After(10 * time.Millisecond): // the timer may not have been set yet
			}
		}
	}
}
