package launcher

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/restartlock"
)

// How the queue (queue.go) takes a place in the restart lock, keeps it, and gives it back.

// try tries to take a place. With --canary what the others have found out decides: what was bad is not tried, what was good may be
// done in any place, and what nobody has tried is for the holder of the first.
func (q *queue) try(ctx context.Context, w wants) time.Duration {
	if w.number != q.asking {
		q.asking, q.asked, q.looked, q.told, q.usable, q.warned = w.number, time.Now(), false, false, false, false
	}
	places := q.places()
	if w.set != "" {
		o, known, err := q.outcomeOf(ctx, w.set)
		switch {
		case err != nil:
			return q.again(ctx, err)
		case known && !o.Good:
			return q.answer(ctx, w, queueEvent{event: evTriedBad{}, tried: o})
		case !known:
			places = []int{0}
		}
	}
	if q.unsure >= 0 && !slices.Contains(places, q.unsure) { // one process has one place
		if d := q.giveUp(ctx); q.unsure >= 0 {
			return d
		}
	}
	var holders []string
	var broken error
	for _, p := range places {
		taken, holder, err := q.take(ctx, p)
		switch {
		case taken:
			return q.tryHeld(ctx, w)
		case err != nil && (ctx.Err() != nil || !ofOnePlace(err)):
			return q.again(ctx, err)
		case err != nil:
			broken = err
			q.sureOf(p)
			continue
		}
		q.usable = true
		if holder != "" && !slices.Contains(holders, holder) {
			holders = append(holders, holder)
		}
	}
	switch {
	case broken != nil && !q.usable:
		return q.again(ctx, broken)
	case broken != nil && !q.warned:
		q.warned = true
		q.warns("not every place in the restart lock can be used: "+broken.Error(), hinted(broken)...)
	}
	if !q.told && len(holders) > 0 {
		q.told = true
		q.says("the change waits for a place in the restart lock", "paths", w.what, "held_by", strings.Join(holders, ", "))
	}
	return q.again(ctx, nil)
}

// places are those that are looked at now. Which comes first differs, so that not all wait for the same one.
func (q *queue) places() []int {
	if !q.looked {
		q.looked, q.next = true, rand.IntN(q.lock.Limit)
	}
	if q.unsure >= 0 { // it may be ours
		q.next = q.unsure
	}
	looks := mostLooks
	if q.pause() > oneLook {
		looks = 1
	}
	var list []int
	for range min(looks, q.lock.Limit) {
		list = append(list, q.next)
		q.next = (q.next + 1) % q.lock.Limit
	}
	return list
}

func (q *queue) take(ctx context.Context, place int) (taken bool, holder string, err error) {
	var view restartlock.View
	if err = q.do(ctx, func(ctx context.Context) (err error) {
		view, err = q.lock.Engine.Look(ctx, place)
		return err
	}); err != nil {
		return false, "", err
	}
	if !view.Free {
		q.sureOf(place)
		return false, view.Holder, nil
	}
	begun := time.Now()
	if err = q.do(ctx, func(ctx context.Context) (err error) {
		taken, err = q.lock.Engine.Take(ctx, place)
		return err
	}); err != nil {
		if !ofOnePlace(err) {
			q.unsure, q.unsureUntil = place, begun.Add(q.lock.Engine.Lifetime())
		}
		return false, "", err
	}
	q.sureOf(place)
	if !taken {
		return false, "", nil
	}
	q.works()
	q.place, q.since = place, begun
	q.isRenewed(begun)
	return true, "", nil
}

// ofOnePlace reports whether a failure is that of one place, and the others may do: there are fewer than --restart-limit says, or no
// more are allowed.
func ofOnePlace(err error) bool { return fault.Is(err, fault.Missing) || fault.Is(err, fault.Denied) }

// sureOf notes that it is known who has a place.
func (q *queue) sureOf(place int) {
	if q.unsure == place {
		q.unsure = -1
	}
}

// giveUp gives back the place that a request without an answer may have taken. If that cannot be done, it ends by itself.
func (q *queue) giveUp(ctx context.Context) time.Duration {
	err := q.do(ctx, func(ctx context.Context) error { return q.lock.Engine.Release(ctx, q.unsure) })
	if ctx.Err() != nil {
		return 0
	}
	if err != nil && time.Now().Before(q.unsureUntil) {
		q.failed(err)
		return heldRetry
	}
	q.unsure = -1
	return 0
}

// tryHeld answers what is wanted with the place that is held, if that will do.
func (q *queue) tryHeld(ctx context.Context, w wants) time.Duration {
	first := false
	attrs := []any{"place", q.place, "after", duration(time.Since(q.asked))}
	if w.set != "" {
		o, known, err := q.outcomeOf(ctx, w.set)
		switch {
		case err != nil:
			q.failed(err)
			return heldRetry
		case known && !o.Good:
			return q.answer(ctx, w, queueEvent{event: evTriedBad{}, tried: o})
		case known:
			attrs = append(attrs, "proven_by", o.By)
		case q.place != 0 && time.Now().Before(w.until):
			return max(min(time.Until(w.until), q.lock.Engine.Lifetime()/3), heldRetry)
		case q.place != 0:
			return q.giveBack(ctx)
		default:
			first = true
			attrs = append(attrs, "canary", true)
		}
	}
	q.says("a place in the restart lock is taken", attrs...)
	return q.answer(ctx, w, queueEvent{event: evTurn{w.set, first}})
}

// answer tells the main goroutine what has become of what it wanted.
func (q *queue) answer(ctx context.Context, w wants, ev queueEvent) time.Duration {
	q.given, ev.number = w.number, w.number
	q.send(ctx, ev)
	if q.place >= 0 {
		return max(time.Until(q.renewed.Add(q.lock.Engine.Lifetime()/3)), time.Millisecond) // it may be due by now: an engine may be slow
	}
	return 0
}

func (q *queue) send(ctx context.Context, ev queueEvent) {
	select {
	case q.out <- ev:
	case <-ctx.Done():
	}
}

// again is when the next try comes. err is why this one has failed; nil when the places are taken.
func (q *queue) again(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		q.failed(err)
	} else {
		q.works()
	}
	d := q.pause()
	return d/2 + rand.N(d/2)
}

// pause is the longest time to the next try.
func (q *queue) pause() time.Duration { return min(max(time.Since(q.asked)/4, firstPoll), lastPoll) }

// outcomeOf is what the others have found out about a set of versions.
func (q *queue) outcomeOf(ctx context.Context, set string) (found restartlock.Outcome, known bool, err error) {
	err = q.do(ctx, func(ctx context.Context) error {
		list, err := q.lock.Engine.Outcomes(ctx)
		for _, o := range list {
			if o.Set == set && !known {
				found, known = o, true
			}
		}
		return err
	})
	return found, known, err
}

// keep tells the engine that the holder lives, when it is time for that.
func (q *queue) keep(ctx context.Context) time.Duration {
	life := q.lock.Engine.Lifetime()
	if d := time.Until(q.renewed.Add(life / 3)); d > 0 {
		return d
	}
	begun := time.Now()
	err := q.do(ctx, func(ctx context.Context) error { return q.lock.Engine.Renew(ctx, q.place) })
	switch {
	case err == nil:
		q.works()
		q.isRenewed(begun)
		return life / 3
	case ctx.Err() != nil:
		return 0
	case errors.Is(err, restartlock.ErrLost), begun.After(q.renewed.Add(life)):
		q.lost(ctx)
		return 0
	}
	q.failed(err)
	return min(heldRetry, life/6)
}

func (q *queue) isRenewed(at time.Time) {
	q.renewed = at
	q.setValid(at.Add(q.lock.Engine.Lifetime()))
}

func (q *queue) setValid(until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.valid = until
}

func (q *queue) validUntil() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.valid
}

func (q *queue) lost(ctx context.Context) {
	q.warns("the place in the restart lock is lost; what is under way goes on", "place", q.place, "held", duration(time.Since(q.since)))
	q.place = -1
	q.setValid(time.Time{})
	q.send(ctx, queueEvent{number: q.given, event: evTurnLost{}})
}

// giveBack gives the place back. While the engine does not answer, that is tried for as long as the place lives.
func (q *queue) giveBack(ctx context.Context) time.Duration {
	err := q.do(ctx, func(ctx context.Context) error { return q.lock.Engine.Release(ctx, q.place) })
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		q.failed(err)
		if time.Now().Before(q.renewed.Add(q.lock.Engine.Lifetime())) {
			return heldRetry
		}
	} else {
		q.works()
		q.says("the place in the restart lock is given back", "place", q.place, "held", duration(time.Since(q.since)))
	}
	q.place = -1
	q.setValid(time.Time{})
	if w := q.takeTellings(); w.place && w.number != q.given {
		return q.again(ctx, nil)
	}
	return 0
}

// leaveOutcomes leaves what is to be left, and returns when that is to be tried again; 0 when nothing is owed.
func (q *queue) leaveOutcomes(ctx context.Context) time.Duration {
	for len(q.outcome) > 0 {
		t := q.outcome[0]
		err := q.do(ctx, func(ctx context.Context) error { return q.lock.Engine.Leave(ctx, t.Outcome) })
		switch {
		case ctx.Err() != nil:
			return 0
		case err == nil:
			q.works()
			q.says("the others are told what became of these versions", "paths", t.What, "good", t.Good)
		case time.Now().Before(t.until):
			q.failed(err)
			if q.place >= 0 {
				return heldRetry
			}
			return tellRetry
		default:
			q.warns("the others cannot be told what became of these versions", "paths", t.What, "good", t.Good, "why", err.Error())
		}
		q.outcome = q.outcome[1:]
	}
	return 0
}
