package launcher

import (
	"errors"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// CopyReport is what a run would find in the file of --fallback.
type CopyReport struct {
	File string
	None bool          // there is none yet
	Age  time.Duration // of one that could be used
	Flaw error         // why it could not; nil when it could
}

// report looks at the copy, and changes nothing. It is nil without --fallback.
func (g *lastGood) report(now time.Time) *CopyReport {
	if g == nil {
		return nil
	}
	r := &CopyReport{File: g.File}
	h, payload, err := g.read()
	r.Age = h.Age(now)
	switch {
	case errors.Is(err, errNoCopy):
		r.None = true
	case err == nil && g.foreign(h) != "":
		err = errors.New(g.foreign(h))
	case err == nil:
		_, err = g.judge(h, payload, r.Age)
	}
	clear(payload)
	if err != nil {
		r.Flaw = err
	}
	return r
}

// instead adds to the failure of a look what the copy would do for a run.
func (r *CopyReport) instead(failure error) error {
	switch {
	case r == nil || !isAway(failure):
		return failure
	case r.Flaw != nil:
		return because(failure, r.Flaw)
	}
	f := *fault.Of(failure)
	f.AddHint("a run would start with the last-good copy, which is " + duration(r.Age) + " old")
	return &f
}
