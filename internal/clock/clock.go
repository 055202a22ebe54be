// Package clock knows that a machine may have been suspended. Go's timers and time.Until go by the monotonic clock,
// which stands still during that, on Linux as on macOS. The lives of tokens and leases do not: a server counts them.
// The wall clock goes on, but somebody may set it back. So what is due is due as soon as either of the two says so.
package clock

import (
	"sync"
	"time"
)

// Clock compares the two clocks of a machine. It is safe for use by several goroutines.
type Clock struct {
	wall  func() time.Time
	watch func(jumped func())

	start  sync.Once
	mu     sync.Mutex
	jumped chan struct{}
}

// Machine is the clock of this machine.
var Machine = New(time.Now, watch)

// New makes a clock whose second opinion is wall. The first call of Jumped starts watch, which may be nil, in a
// goroutine of its own. watch calls its argument whenever the wall clock was set or the machine has slept.
func New(wall func() time.Time, watch func(jumped func())) *Clock {
	return &Clock{wall: wall, watch: watch, jumped: make(chan struct{})}
}

// Left is how long it is until at, which is a reading of time.Now with something added to it. It is negative when at is
// over by one of the clocks.
func (c *Clock) Left(at time.Time) time.Duration {
	return min(time.Until(at), at.Round(0).Sub(c.wall().Round(0)))
}

// Jumped returns a channel that is closed when Left may have become less than a timer knows.
func (c *Clock) Jumped() <-chan struct{} {
	if c.watch != nil {
		c.start.Do(func() { go c.watch(c.Jump) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jumped
}

// Jump wakes everybody who waits for a jump.
func (c *Clock) Jump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.jumped)
	c.jumped = make(chan struct{})
}

// Where the kernel does not tell of a jump, the clocks are compared from time to time.
const (
	comparePeriod = time.Minute
	drift         = 2 * time.Second // more than NTP moves a clock in a minute, less than matters to a lease
)

// compare calls jumped when the wall clock has gone further than the ticks, and ends with them.
func compare(ticks <-chan time.Time, wall func() time.Time, jumped func()) {
	begun, then := time.Now(), wall()
	for range ticks {
		went, gone := time.Since(begun), wall().Round(0).Sub(then.Round(0))
		if gone-went > drift {
			jumped()
		}
		begun, then = time.Now(), wall()
	}
}

func compareForEver(jumped func()) { compare(time.Tick(comparePeriod), time.Now, jumped) }
