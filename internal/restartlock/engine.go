// Package restartlock has the engines of --restart-lock: a fleet shares a small number of places, and a process restarts its
// command only while it holds one. It knows nothing of Vault, of secrets or of commands.
package restartlock

import (
	"context"
	"errors"
	"time"
)

// ErrLost is a place that is another's by now, or nobody's.
var ErrLost = errors.New("the place is lost")

// Engine is what the fleet has already, and what keeps the places 0 … N-1 of one lock. Each method sends a few requests at most, and
// ctx is the limit of each of them. A failure is a *fault.Error with a hint: fault.Away where waiting can help, fault.Denied with the
// rule that is missing, fault.Missing for an object that was never made, fault.Address where TLS is refused.
// An Engine is used by one goroutine at a time.
type Engine interface {
	// Name is the lock as the log names it: "kubernetes:shop/api".
	Name() string
	// Lifetime is how long a place outlives a holder that says nothing more.
	Lifetime() time.Duration
	// Look reads a place.
	Look(ctx context.Context, place int) (View, error)
	// Take takes a place that the last Look at it saw free. false: somebody else was faster.
	Take(ctx context.Context, place int) (bool, error)
	// Renew tells the engine that the holder of the place lives. ErrLost, when it has it no longer.
	Renew(ctx context.Context, place int) error
	// Release gives the place back. One that is lost already is no failure.
	Release(ctx context.Context, place int) error
	// Outcomes reads what was left at the lock by those who tried a change first.
	Outcomes(ctx context.Context) ([]Outcome, error)
	// Leave leaves an outcome there, beside those of others. Only the holder of place 0 calls it.
	Leave(ctx context.Context, o Outcome) error
	// Check finds out whether the place could be taken: that the engine answers, has the place, and allows what taking it needs. It
	// changes nothing that others see.
	Check(ctx context.Context, place int) error
	// Close ends what the engine keeps open.
	Close()
}

// View is what a look at a place found.
type View struct {
	Free   bool
	Holder string // who has it; "" when nobody
}

// Outcome is what became of a set of versions at whoever tried it first. It holds no value, and nothing that is made of one.
type Outcome struct {
	Set  string    `json:"set"` // names the set of versions
	Good bool      `json:"good"`
	By   string    `json:"by"`   // who tried it
	At   time.Time `json:"at"`   // by that one's clock
	What string    `json:"what"` // the versions, for people
}

// MostOutcomes is how many outcomes are kept: fleets with different secrets may share a lock, and a change may follow another.
const MostOutcomes = 16
