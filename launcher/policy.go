package launcher

import (
	"time"

	"golang.org/x/sys/unix"
)

// OnChange is what --on-change asks for.
type OnChange struct {
	Do     Reaction
	Signal unix.Signal // of ReactSignal
	Code   int         // of ReactExit
}

// Reaction is what is done about a change of the environment.
type Reaction uint8

// The reactions.
const (
	ReactRestart Reaction = iota
	ReactSignal
	ReactExit
	ReactNone
)

// policy is what the options ask for.
type policy struct {
	onChange     Reaction
	exitCode     int // of ReactExit
	settle       time.Duration
	splay        time.Duration
	minUptime    time.Duration
	probation    time.Duration
	rollback     bool
	stopSignal   unix.Signal
	okExit       OKExit
	stopTimeout  time.Duration
	stopExplicit bool                              // --stop-timeout was given: a received SIGTERM has that limit, too
	startFirst   bool                              // --restart-order start-first
	diverts      bool                              // connections can wait for the next child while one still runs
	random       func(time.Duration) time.Duration // uniform in [0, d]
	locks        bool                              // --restart-lock
	lockWait     time.Duration                     // for a place in it; 0 for ever
	lockRequired bool                              // without one there is no restart
	canary       bool                              // the first that has one tries the change for all
}
