package vault

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Forever is the Wait of somebody who does not give up.
const Forever time.Duration = -1

const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 5 * time.Second
)

// Patience bounds how long a Vault that is away is waited for.
type Patience struct {
	Wait   time.Duration      // over all attempts; 0 means one attempt, Forever no bound
	Start  time.Time          // when the wait began; zero for the call of Do
	Files  bool               // a credential file that is missing or empty is waited for as well
	Notice func(*fault.Error) // called when waiting begins and when its cause changes; may be nil
	Over   func()             // called when a wait that Notice was called for has ended; may be nil
}

// WaitEnd is when a wait ends that began then; zero for one without an end.
func WaitEnd(start time.Time, wait time.Duration) time.Time {
	if wait == Forever {
		return time.Time{}
	}
	return start.Add(wait)
}

// Do calls attempt until it does not fail with something that waiting can cure, until Wait is over or ctx is done.
// Delays grow from 0.1 s to 5 s with jitter, and are never shorter than what the server asked for.
func (p Patience) Do(ctx context.Context, attempt func(context.Context) error) error {
	start := p.Start
	if start.IsZero() {
		start = time.Now()
	}
	if p.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(p.Wait))
		defer cancel()
	}
	var announced *fault.Error // the last one that Notice got
	defer func() {
		if announced != nil && p.Over != nil {
			p.Over()
		}
	}()
	for n := 1; ; n++ {
		err := attempt(ctx)
		f := p.awayIn(err)
		if f == nil || p.Wait == 0 {
			return err
		}
		if ctx.Err() == nil {
			if p.Notice != nil && (announced == nil || !f.SameWhy(announced)) {
				p.Notice(f)
				announced = f
			}
			if sleep(ctx, max(backoff(n), f.RetryAfter)) {
				continue
			}
		}
		if p.Wait > 0 && time.Since(start) >= p.Wait {
			return gaveUp(f, n, p.Wait, announced)
		}
		return err // the caller's own context ended
	}
}

// awayIn returns the failure to wait for, or nil when some failure in err cannot be cured by waiting.
func (p Patience) awayIn(err error) *fault.Error {
	all := fault.All(err)
	for _, f := range all {
		if !f.Kind.Retryable() && !(p.Files && f.Passing) {
			return nil
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// gaveUp names the cause that was waited for. The end of the wait may just have cut off the last attempt itself.
func gaveUp(f *fault.Error, n int, wait time.Duration, announced *fault.Error) error {
	e := *f
	if announced != nil && n > 1 {
		e.Why = announced.Why
	}
	e.Why += ", for " + wait.String()
	return &e
}

// backoff is the delay after the nth attempt.
func backoff(n int) time.Duration {
	d := lastDelay
	if n < 7 {
		d = min(firstDelay<<(n-1), lastDelay)
	}
	return d/2 + rand.N(d/2+1)
}

// sleep reports whether it slept to the end; not when ctx ends within d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
