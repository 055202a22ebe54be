package launcher

import (
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// record is all that is known of one path, and the only place for it. It has no clock and asks nobody: what a look, a
// read or a renewal found goes in, with the time.
type record struct {
	path vault.Path

	newest vault.Marker // the newest state that was seen
	taken  vault.Marker // the state that the last read took in, or judged
	read   content      // what was read last
	used   content      // the part of it that last made a valid environment, and did not make the command fail

	lease    *lease    // nil unless what was read ends by itself
	rotates  time.Time // a static role's password is changed then by Vault
	awaited  int       // looks that were taken because it is due
	fleeting bool      // it differs at every read, and is left as it was read
	unsure   vault.Marker
	doubted  bool // unsure was seen once, and may be gone at the next look

	unrenewable bool // that its leases cannot be renewed was said

	lag     lag
	trouble trouble
}

// content is what a read of a path gave: a secret, a folder, or a forgiven absence.
type content struct {
	secret  *vault.Secret
	folder  *vault.Folder
	absence error
	marker  vault.Marker
}

// empty reports whether nothing was read yet.
func (c content) empty() bool { return c.secret == nil && c.folder == nil && c.absence == nil }

// lag is a path for which something older was found than before. For a while that is a replica that lags behind. Then
// it counts: Vault was restored from a snapshot.
type lag struct {
	looks int
	since time.Time
}

// How long something older is taken for a replica's.
const (
	lagLooks = 5 // in a row
	lagTime  = 5 * time.Minute
)

// trouble is a path that Vault answers for, and refuses.
type trouble struct {
	err   error     // nil for none
	look  bool      // the last look found it
	read  bool      // a read found it, which a look need not notice
	tries int       // in a row
	next  time.Time // when it is tried again
}

// general reports whether a failure is none of a path: Vault cannot be asked, or takes no token of ours.
func general(err error) bool {
	return fault.Is(err, fault.Away, fault.Address, fault.BadToken, fault.Refused)
}

// sighting is what a look at a path means.
type sighting uint8

const (
	sawSame  sighting = iota // nothing that was not known
	sawNews                  // a state that nobody has acted on
	sawOlder                 // something older than what is known
	sawBack                  // it is still older, and counts from now on
	sawDoubt                 // something else, which another look has to confirm
	sawFleet                 // yet something else: it differs at every read
)

// see takes in the state that a look found. steady says that the content changes only when somebody changes it.
func (r *record) see(m vault.Marker, steady bool, now time.Time) sighting {
	back := false
	if m.OlderThan(r.newest) {
		if !r.lag.older(now) {
			return sawOlder
		}
		back = true
	}
	r.lag = lag{}
	known := m == r.newest
	switch {
	case m == r.taken, known:
		r.newest, r.doubted = m, false
		return sawSame
	case steady || r.doubted && m == r.unsure:
		r.newest, r.doubted = m, false
		if back {
			return sawBack
		}
		return sawNews
	case r.doubted:
		r.fleeting = true
		return sawFleet
	}
	r.unsure, r.doubted = m, true
	return sawDoubt
}

// older counts a sight of something older, and reports whether it counts from now on.
func (l *lag) older(now time.Time) bool {
	if l.looks == 0 {
		l.since = now
	}
	l.looks++
	return l.looks >= lagLooks || now.Sub(l.since) >= lagTime
}

// found takes in the state that a read found. It reports whether the read is to be used (and not the answer of a
// replica that lags behind), and whether the state was not known.
func (r *record) found(m vault.Marker) (usable, moving bool) {
	if r.lease != nil { // what ends by itself is something else at every read
		r.newest = m
		return true, false
	}
	if m.OlderThan(r.newest) {
		return false, true
	}
	moving = m != r.newest
	r.newest, r.lag, r.doubted = m, lag{}, false
	return true, moving
}

// denied notes that Vault refuses the path, and when it is tried again: less and less often.
func (r *record) denied(err error, byRead bool, now time.Time, interval time.Duration, jitter func(time.Duration) time.Duration) {
	t := &r.trouble
	t.err, t.look, t.read = err, t.look || !byRead, t.read || byRead
	t.next = now.Add(nextLook(interval, t.tries+1, jitter))
	t.tries++
}

// rests reports whether the path is in trouble, and its time to be tried again has not come.
func (r *record) rests(now time.Time) bool { return r.trouble.err != nil && now.Before(r.trouble.next) }

// watched reports whether looks are for the path: not for a pinned version, not for what ends by itself, and not for what
// is made from fields, because a look would make another.
func (r *record) watched() bool {
	return r.path.Version == 0 && r.path.Fields == "" && r.lease == nil && !r.fleeting
}

// steady reports whether what the path has is known to change only when somebody changes it.
func (r *record) steady() bool {
	s := r.read.secret
	return s == nil || s.Steady()
}

// kept reports whether a read leaves the path alone, and takes what it has.
func (r *record) kept(now time.Time, leasesOnly bool) bool {
	switch {
	case r.read.empty():
		return false
	case r.lease != nil:
		return !r.lease.last || now.Before(r.lease.next) && r.lease.asked == 0
	case leasesOnly, r.path.Version > 0, r.fleeting:
		return true
	case !r.steady():
		return r.newest == r.taken
	}
	return r.rests(now) && r.newest == r.taken
}

// take takes in what a read gave, which began at the time at.
func (r *record) take(c content, at time.Time, h haste) {
	// What counts down differs at every read, and is none of the marker's: it stays what the command has.
	if c.secret == nil || r.lease != nil || r.read.secret == nil || c.marker != r.read.marker {
		r.read = c
	}
	r.taken, r.trouble = c.marker, trouble{}
	if c.secret == nil {
		r.lease, r.rotates = nil, time.Time{}
		return
	}
	if in, yes := c.secret.Rotates(); yes {
		r.rotatesIn(in, at)
	}
	switch granted := c.secret.Lease; {
	case !granted.Ends():
		r.lease = nil
		r.fleeting = c.secret.Fleeting()
	case r.path.Version == 0:
		r.lease = &lease{}
		r.lease.granted(granted, at, h)
	}
}

// rotationRoom is how long Vault may take for the rotation of a static role that is due.
const rotationRoom = time.Second

// rotatesIn notes when a static role's password is changed.
func (r *record) rotatesIn(in time.Duration, now time.Time) {
	r.rotates, r.awaited = now.Add(in+rotationRoom), 0
}

// rotationLooks is how many looks in a row are for a password that is due to be changed. With a schedule, Vault says how
// long it is until the next but one while it is still about to change this one.
const rotationLooks = 10

// awaits notes that the look at a password that is due to be changed found the old one, and reports whether another look
// is taken soon.
func (r *record) awaits(now time.Time) bool {
	if r.awaited == 0 || r.awaited > rotationLooks {
		return false
	}
	r.rotates = now.Add(rotationRoom)
	return true
}
