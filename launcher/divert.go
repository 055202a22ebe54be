package launcher

import "time"

// What supervise.go carries out before a command with held sockets is told to stop and another one follows: new connections
// wait for the next command, in a socket of its own, and the one that serves answers first what has reached it. A server
// that is told to stop may close connections that it has accepted, before it has read the request (uvicorn does).

const (
	// quietLimit is how long a command may take to keep up with what comes in. One that does not is told to stop as it is:
	// what waits in its queue stays there for the next one.
	quietLimit = 2 * time.Second
	// afterDiverted covers the moment in which a connection has left the queue and is not known as accepted yet.
	afterDiverted = 30 * time.Millisecond
)

// divert begins.
func (s *supervisor) divert() {
	s.divertSince, s.emptySince = time.Now(), time.Time{}
	s.diverted = s.held.divert(true)
}

// lookAtRequests looks at the requests that the command has, while new ones wait for the next command.
func (s *supervisor) lookAtRequests() {
	if !s.machine.isDiverting() {
		return
	}
	s.diverted = s.diverted || s.held.divert(false) || time.Since(s.divertSince) >= quietLimit
	switch {
	case !s.diverted:
	case !s.held.left(s.sockets):
		s.happened(evDrained{})
	default:
		s.lookAtQueue(s.sockets, afterDiverted)
	}
}

// lookAtQueue tells the machine when nothing has waited for a command for some time.
func (s *supervisor) lookAtQueue(of socketSet, settled time.Duration) {
	switch {
	case !s.held.drained(of):
		s.emptySince = time.Time{}
	case s.emptySince.IsZero():
		s.emptySince = time.Now()
	case time.Since(s.emptySince) >= settled:
		s.happened(evDrained{})
	}
}

// divert has new connections wait for the next command, where they can. It is called until it reports that they do.
func (s *sockets) divert(first bool) (done bool) {
	done = true
	if s != nil {
		for _, g := range s.groups {
			done = g.Divert(first) && done
		}
	}
	return done
}

// left reports whether new connections no longer go to all of a command's sockets.
func (s *sockets) left(set socketSet) bool {
	for i, own := range set {
		if s.groups[i].Current() != own {
			return true
		}
	}
	return false
}

// leaveSockets: the command has ended. If new connections wait for the next one, its own sockets are closed.
func (s *supervisor) leaveSockets() {
	if !s.held.left(s.sockets) {
		return
	}
	for i, own := range s.sockets {
		if g := s.held.groups[i]; g.Current() != own {
			_ = g.Retire(own)
		}
	}
	s.sockets = nil // the next one gets the others
}
