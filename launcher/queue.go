package launcher

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/restartlock"
)

// RestartLock is what --restart-lock asks for.
type RestartLock struct {
	Engine   restartlock.Engine // nil for none
	Limit    int                // how many places there are
	Wait     time.Duration      // for one of them; 0 for ever
	Required bool
	Canary   bool
	Holder   string // who this is, as it is left for the others
}

const (
	firstPoll   = time.Second      // from one try for a place to the next: a quarter of what was waited so far,
	lastPoll    = time.Minute      // and so long at the most. Where many wait, one of them is always about to try
	mostLooks   = 3                // at places, in one try
	oneLook     = 15 * time.Second // whoever tries less often than that looks at one place each time
	heldRetry   = time.Second      // for a request about a place that is held
	tellRetry   = 5 * time.Second  // for an outcome that could not be left
	tellFor     = 10 * time.Minute // no longer than that
	lockRequest = 5 * time.Second  // the limit of one request; less where the places have a short life
)

// queue takes a place in the lock, holds it and gives it back, in a goroutine of its own: an engine that does not answer holds up
// nothing else. The main goroutine says what it wants, and gets a queueEvent. All methods of a nil queue do nothing.
type queue struct {
	lock RestartLock
	log  *slog.Logger
	out  chan queueEvent
	wake chan struct{}
	done chan struct{}
	stop context.CancelFunc

	mu    sync.Mutex
	wants wants
	valid time.Time // until when the place is ours, whatever happens to others; zero when none is held

	// The rest belongs to the goroutine.
	place       int // -1 for none
	given       int // the number of what was wanted and answered
	renewed     time.Time
	since       time.Time // the place was taken
	asking      int       // the number of what is being tried for
	asked       time.Time // since when
	told        bool      // the wait for it was logged
	looked      bool      // since what is wanted is tried for
	next        int       // the place that is looked at first
	unsure      int       // the place that a request without an answer may have taken; -1 for none
	unsureUntil time.Time // by itself
	usable      bool      // so was a place, since what is wanted is tried for
	warned      bool      // another one was not, and that was said
	trouble     time.Time
	outcome     []telling
}

// wants is what the main goroutine wants.
type wants struct {
	number int // of the question; 0 for none yet
	place  bool
	set    string            // with --canary: what would be tried
	what   string            // the same for people
	named  map[string]string // what, by set, since a place is wanted
	until  time.Time         // a place that is held already is needed
	tell   []telling
}

// telling is an outcome that is to be left, and until when that is tried.
type telling struct {
	restartlock.Outcome
	until time.Time
}

// queueEvent is what the main goroutine hears. number is that of what it wanted.
type queueEvent struct {
	number int
	event  event
	tried  restartlock.Outcome // of an evTriedBad
}

func newQueue(lock RestartLock, log *slog.Logger) *queue {
	if lock.Engine == nil {
		return nil
	}
	q := &queue{lock: lock, log: log, out: make(chan queueEvent), wake: make(chan struct{}, 1),
		done: make(chan struct{}), place: -1, unsure: -1}
	ctx, cancel := context.WithCancel(context.Background())
	q.stop = cancel
	go func() {
		defer close(q.done)
		q.run(ctx)
	}()
	return q
}

// ask asks for a place. One that is held already is needed until the given time, whatever is asked for: the command is on trial.
func (q *queue) ask(set, what string, until time.Time) {
	q.want(func(w *wants) {
		if !w.place {
			w.named = map[string]string{}
		}
		w.number, w.place, w.set, w.what = w.number+1, true, set, what
		w.named[set], w.until = what, until
	})
}

// leave gives the place back, or asks for it no longer.
func (q *queue) leave() { q.want(func(w *wants) { w.place = false }) }

// tell leaves what became of a set of versions that a place was asked for.
func (q *queue) tell(set string, good bool) {
	q.want(func(w *wants) {
		now := time.Now()
		w.tell = append(w.tell, telling{restartlock.Outcome{Set: set, Good: good, By: q.lock.Holder, At: now.UTC(), What: w.named[set]},
			now.Add(tellFor)})
	})
}

// says and warns write a line of the log that names the lock.
func (q *queue) says(text string, attrs ...any) {
	q.log.Info(text, append([]any{"lock", q.lock.Engine.Name()}, attrs...)...)
}

func (q *queue) warns(text string, attrs ...any) {
	q.log.Warn(text, append([]any{"lock", q.lock.Engine.Name()}, attrs...)...)
}

func (q *queue) want(change func(*wants)) {
	if q == nil {
		return
	}
	q.mu.Lock()
	change(&q.wants)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// events delivers what the goroutine has to say.
func (q *queue) events() <-chan queueEvent {
	if q == nil {
		return nil
	}
	return q.out
}

// meant reports whether an event answers what is wanted now.
func (q *queue) meant(ev queueEvent) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wants.place && ev.number == q.wants.number
}

// expired reports whether the place may be another's by now, though nobody has said so yet: this process may have been stopped
// for longer than a place lives.
func (q *queue) expired() bool {
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wants.place && !q.valid.IsZero() && time.Now().After(q.valid)
}

// close ends the goroutine, and gives the place back unless keep says that the next process needs the time that it is still held.
func (q *queue) close(ctx context.Context, keep bool) {
	if q == nil {
		return
	}
	q.stop()
	<-q.done
	q.takeTellings()
	for _, t := range q.outcome {
		_ = q.lock.Engine.Leave(ctx, t.Outcome)
	}
	for _, p := range []int{q.place, q.unsure} {
		if p >= 0 && !keep {
			_ = q.lock.Engine.Release(ctx, p)
		}
	}
	q.lock.Engine.Close()
}

func (q *queue) run(ctx context.Context) {
	if err := q.do(ctx, func(ctx context.Context) error {
		_, err := q.lock.Engine.Look(ctx, 0)
		return err
	}); err != nil && ctx.Err() == nil {
		q.failed(err)
	}
	timer := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-q.wake:
		case <-timer.C:
		}
		if d := q.step(ctx); d > 0 {
			timer.Reset(d)
		} else {
			timer.Stop()
			q.lock.Engine.Close()
		}
	}
}

// takeTellings takes over the outcomes that are to be left.
func (q *queue) takeTellings() wants {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.outcome = append(q.outcome, q.wants.tell...)
	q.wants.tell = nil
	return q.wants
}

// step does what is to be done now, and returns when it wants to be called again; 0 for not by itself.
func (q *queue) step(ctx context.Context) time.Duration {
	w := q.takeTellings()
	owed := q.leaveOutcomes(ctx)
	switch {
	case q.place < 0 && w.place && w.number != q.given:
		return q.soonest(owed, q.try(ctx, w))
	case q.place < 0 && !w.place && q.unsure >= 0:
		return q.soonest(owed, q.giveUp(ctx))
	case q.place < 0:
		return owed
	case !w.place && (owed == 0 || time.Now().After(q.validUntil())):
		return q.soonest(owed, q.giveBack(ctx))
	}
	d := q.keep(ctx)
	switch {
	case !w.place || w.number == q.given:
		return q.soonest(owed, d)
	case q.place < 0: // it was lost, and something else is asked for by now
		return q.soonest(owed, q.try(ctx, w))
	}
	return q.soonest(owed, q.tryHeld(ctx, w))
}

func (q *queue) soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// do sends a request whose limit is its context.
func (q *queue) do(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, min(lockRequest, q.lock.Engine.Lifetime()/3))
	defer cancel()
	return f(ctx)
}

// failed says once that the lock cannot be used, and why.
func (q *queue) failed(err error) {
	if q.trouble.IsZero() {
		q.trouble = time.Now()
		q.warns("the restart lock cannot be used now: "+err.Error(), hinted(err)...)
	}
}

// works says once that it can be used again.
func (q *queue) works() {
	if !q.trouble.IsZero() {
		q.says("the restart lock can be used again", "after", duration(time.Since(q.trouble)))
		q.trouble = time.Time{}
	}
}
