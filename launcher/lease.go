package launcher

import (
	"math/rand/v2"
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// lease is the life of one lease, or of what ends by itself without one. It is renewed as long as that moves its end,
// at two thirds of its life. It is replaced, which takes a read of its path, so early that the command is restarted
// with the new credentials before the old ones end.
type lease struct {
	vault.Lease
	full time.Duration // what it was granted at first
	ends time.Time     // unless its token ends before
	next time.Time     // when something is to be done

	last    bool // its end does not move any more, or nobody may move it
	gone    bool // Vault does not know it any more
	stuck   int  // renewals in a row that did not move its end
	retries int  // renewals in a row that Vault did not answer
	asked   int  // how often new credentials were asked for
	busy    bool // a renewal is under way
	orphan  bool // another token took the place of the one that made it
	overdue bool // that it has ended was said
}

// haste is how much time a change takes that has to be over before a lease ends.
type haste struct {
	margin time.Duration // --lease-margin; 0 for a tenth of the life
	settle time.Duration
	stop   time.Duration // --stop-timeout
}

// Pauses between two tries to get new credentials: the first, which is doubled, and the longest once the old ones have
// ended.
const (
	firstAsk = 5 * time.Second
	lastAsk  = time.Minute
)

// startRoom is how long a start is thought to take.
const startRoom = 2 * time.Second

// reserve is how long before the end of a life of this length new credentials are read.
func (h haste) reserve(life time.Duration) time.Duration {
	return min(h.marginOf(life)+h.settle, life/2)
}

// hold is how long before its end the command must be told to stop.
func (h haste) hold(life time.Duration) time.Duration {
	return min(h.stop+startRoom, h.marginOf(life), life/2)
}

func (h haste) marginOf(life time.Duration) time.Duration {
	if h.margin != 0 {
		return h.margin
	}
	return max(life/10, h.stop)
}

// granted begins with a lease, or goes on with one that was renewed: at is when that was asked for.
func (l *lease) granted(g vault.Lease, at time.Time, h haste) {
	if l.full == 0 {
		l.full = g.Duration
	}
	l.Lease, l.ends, l.retries = g, at.Add(g.Duration), 0
	l.plan(at, h)
}

// plan sets when the lease needs something next: a renewal at about two thirds of its life, but so early that enough is
// left when Vault does not move its end; or a replacement.
func (l *lease) plan(at time.Time, h haste) {
	if l.last || !l.Renewable {
		l.last, l.next = true, l.ends.Add(-h.reserve(l.full))
		return
	}
	life := max(l.Duration/3*2, 0)
	replace := l.ends.Add(-h.reserve(min(l.full, l.Duration))) // a role may give less by now, for good
	l.next = earlier(at.Add(life-rand.N(life/10+1)), replace)
}

// goesOn reports whether a renewal shows that further ones will do. One that gives less than before may mean that the
// role gives less by now. A lease is at its longest life if Vault says that it capped it, or if two renewals in a row
// did not move it.
func (l *lease) goesOn(renewed vault.Lease, now time.Time) bool {
	switch {
	case renewed.Duration <= 0:
		return false
	case renewed.Capped:
		return renewed.Duration > l.full/2 // there is time to renew it once more before it is replaced
	case renewed.Duration >= l.Duration, now.Add(renewed.Duration).After(l.ends.Add(time.Second)):
		l.stuck = 0
		return true
	}
	l.stuck++
	return l.stuck < 2
}

// renewed takes in how a renewal went that was asked for at the time at.
func (l *lease) renewed(g vault.Lease, err error, at time.Time, h haste, c *clock.Clock) {
	switch {
	case err == nil:
		l.last = !l.goesOn(g, at) || !g.Renewable
		l.granted(g, at, h)
	case vault.NoLease(err):
		l.lost(at)
	case general(err) && c.Left(l.ends) > 0:
		l.retries++
		pause := min(time.Second<<min(l.retries, 6), max(c.Left(l.ends)/4, time.Second))
		l.next = earlier(at.Add(pause), later(at.Add(time.Second), l.ends.Add(-h.reserve(l.full))))
		if c.Left(l.ends) <= h.reserve(l.full) { // a read may get through where a renewal did not
			l.last = true
		}
	default:
		l.last = true
		l.plan(at, h)
	}
}

// lost: Vault does not know the lease. What it was granted for has ended, or will not be ended by anybody.
func (l *lease) lost(now time.Time) {
	l.gone, l.last = true, true
	l.ends, l.next = earlier(l.ends, now), now
}

// hasLeft takes in how much of the lease's life is left at a time. It may be less than was granted: Vault was restored
// from a snapshot, or somebody has renewed the lease for less.
func (l *lease) hasLeft(left time.Duration, at time.Time, h haste) {
	const round = 2 * time.Second // Vault cuts fractions off
	if end := at.Add(left + round); end.Before(l.ends) {
		l.ends = end
		l.next = earlier(l.next, later(at, end.Add(-h.reserve(l.full))))
	}
}

// tokenEnds brings the end of a lease forward to that of the token that made it: with that it ends, whatever was
// granted. isCurrent says that no other token is in use, with which something better could be read.
func (l *lease) tokenEnds(end time.Time, isCurrent bool, now time.Time, h haste) {
	if end.IsZero() || l.gone {
		return
	}
	l.ends = earlier(l.ends, end)
	if !isCurrent && !l.orphan {
		l.orphan, l.last = true, true
		l.next = earlier(l.next, later(now, l.ends.Add(-h.reserve(l.full))))
	}
}

// ask notes that new credentials are asked for, and when they will be again, should they not have come.
func (l *lease) ask(now time.Time, c *clock.Clock) {
	most := maxMiss
	if c.Left(l.ends) <= 0 {
		most = lastAsk
	}
	l.next = now.Add(max(c.Left(l.ends)/3, min(firstAsk<<min(l.asked, 6), most)))
	l.asked++
}

// actBy is the time by which the command must be told to stop that has it.
func (l *lease) actBy(h haste) time.Time { return l.ends.Add(-h.hold(l.full)) }
