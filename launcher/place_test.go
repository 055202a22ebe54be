package launcher

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Where there are fewer places than --restart-limit says, those that there are do, whichever one a process looks at first.
func TestQueueMissingPlaces(t *testing.T) {
	for _, limit := range []int{2, 3, 5} {
		inQueues(t, limit, 12, false, func(m *lockModel, fleet []*queue, said *lockedText) {
			m.with(func() { m.made = 1 })
			for _, q := range fleet {
				q.ask("", "app 1 → 2", time.Time{})
				hearsTurn(t, q, 10*time.Second)
				q.leave()
			}
			if n := strings.Count(said.String(), "cannot be used"); n > 3*len(fleet) {
				t.Errorf("limit %d: said %d times", limit, n)
			}
		})
	}
}

// A later set of versions is for the first place alone. Another one that is held is kept for as long as the command is on trial: more than
// there are places would be, otherwise.
func TestQueueKeepsThePlaceOfATrial(t *testing.T) {
	inQueues(t, 2, 2, true, func(m *lockModel, fleet []*queue, _ *lockedText) {
		first, second := fleet[0], fleet[1]
		first.ask("two", "", time.Time{})
		hearsTurn(t, first, time.Second)
		first.tell("two", true)
		time.Sleep(time.Second)
		second.ask("two", "", time.Time{})
		hearsTurn(t, second, time.Minute)
		second.ask("three", "", time.Now().Add(time.Minute))
		for range 50 {
			time.Sleep(time.Second)
			if by := m.by(1); by != "pod-1" {
				t.Fatalf("%q has the place of the one on trial", by)
			}
		}
		time.Sleep(15 * time.Second)
		if by := m.by(1); by != "" {
			t.Errorf("%s still has the place", by)
		}
		first.leave()
		hearsTurn(t, second, time.Minute)
		if by := m.by(0); by != "pod-1" {
			t.Errorf("%q has the first place", by)
		}
	})
}

// A request for a place may be cut off when it has taken one: that is given back at the end, and when the place is wanted no longer.
func TestQueueTakesWithoutAnAnswer(t *testing.T) {
	for name, end := range map[string]func(q *queue){
		"left":   func(q *queue) { q.leave() },
		"closed": func(q *queue) { q.close(context.Background(), false) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &lockModel{places: make([]modelPlace, 1)}
				q := newQueue(RestartLock{Engine: deafTake{holder{m, "pod-0"}}, Limit: 1}, slog.New(slog.DiscardHandler))
				q.ask("", "", time.Time{})
				wait := time.Now().Add(time.Minute)
				for m.by(0) == "" && time.Now().Before(wait) {
					time.Sleep(time.Millisecond)
				}
				if m.by(0) == "" {
					t.Fatal("no place is taken")
				}
				end(q)
				time.Sleep(lockRequest + heldRetry)
				synctest.Wait()
				if by := m.by(0); by != "" {
					t.Errorf("%s still has the place", by)
				}
				q.stop()
			})
		})
	}
}

// deafTake takes a place, and its answer is lost.
type deafTake struct{ holder }

func (d deafTake) Take(ctx context.Context, i int) (bool, error) {
	_, _ = d.holder.Take(ctx, i)
	<-ctx.Done()
	return false, errors.New("no answer in time")
}

// A place that was taken from a slow engine is renewed all the same.
func TestQueueOfASlowEngine(t *testing.T) {
	inQueues(t, 1, 1, true, func(m *lockModel, fleet []*queue, _ *lockedText) {
		m.with(func() { m.slow = 3 * time.Second })
		fleet[0].ask("two", "", time.Time{})
		hearsTurn(t, fleet[0], time.Minute)
		time.Sleep(time.Minute)
		if by := m.by(0); by != "pod-0" {
			t.Errorf("%q has the place", by)
		}
		m.with(func() { m.slow = 0 })
	})
}

// Whoever loses a place while something else is asked for goes on asking.
func TestQueueLosesAPlaceAndAsks(t *testing.T) {
	inQueues(t, 2, 2, true, func(m *lockModel, fleet []*queue, _ *lockedText) {
		first, second := fleet[0], fleet[1]
		first.ask("two", "", time.Time{})
		hearsTurn(t, first, time.Second)
		first.tell("two", true)
		time.Sleep(time.Second)
		second.ask("two", "", time.Time{})
		hearsTurn(t, second, time.Minute)
		second.ask("three", "", time.Now().Add(time.Hour)) // for the first place alone
		time.Sleep(time.Second)
		m.with(func() { m.places[1] = modelPlace{"somebody", time.Now().Add(time.Minute)} })
		time.Sleep(placeLife)
		first.leave()
		for {
			if ev, yes := hears(t, second, 2*time.Minute).event.(evTurn); yes && ev.set == "three" {
				break
			}
		}
		m.with(func() { m.places[1] = modelPlace{} })
	})
}
