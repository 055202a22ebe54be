package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/restartlock"
)

// The queue is tested on the clock of a bubble, with places in memory. Real engines are tried in internal/restartlock and e2e.

const placeLife = 15 * time.Second

// lockModel is what an engine keeps for all.
type lockModel struct {
	mu       sync.Mutex
	places   []modelPlace
	outcomes []restartlock.Outcome
	away     bool // it does not answer
	slow     time.Duration
	made     int // how many of the places there are; 0 for all
	requests int
}

type modelPlace struct {
	by    string
	until time.Time
}

// holder is one process of the fleet.
type holder struct {
	*lockModel
	name string
}

func (h holder) Name() string            { return "model:test" }
func (h holder) Lifetime() time.Duration { return placeLife }
func (h holder) Close()                  {}

// answers runs f on what is kept, unless nothing answers: then the request ends with its context.
func (h holder) answers(ctx context.Context, f func() error) error {
	h.mu.Lock()
	slow := h.slow
	h.mu.Unlock()
	time.Sleep(slow)
	h.mu.Lock()
	h.requests++
	if !h.away {
		defer h.mu.Unlock()
		return f()
	}
	h.mu.Unlock()
	<-ctx.Done()
	return &fault.Error{Kind: fault.Away, What: "cannot ask the model", Why: "no answer in time"}
}

func (h holder) free(i int) bool {
	p := h.places[i]
	return p.by == "" || p.by == h.name || !time.Now().Before(p.until)
}

func (h holder) Look(ctx context.Context, i int) (v restartlock.View, err error) {
	err = h.answers(ctx, func() error {
		if h.made > 0 && i >= h.made {
			return &fault.Error{Kind: fault.Missing, What: "cannot look at the model", Why: "there is no such place"}
		}
		if v.Free = h.free(i); !v.Free {
			v.Holder = h.places[i].by
		}
		return nil
	})
	return v, err
}

func (h holder) Take(ctx context.Context, i int) (taken bool, err error) {
	err = h.answers(ctx, func() error {
		if taken = h.free(i); taken {
			h.places[i] = modelPlace{h.name, time.Now().Add(placeLife)}
		}
		return nil
	})
	return taken, err
}

func (h holder) Renew(ctx context.Context, i int) error {
	return h.answers(ctx, func() error {
		if h.places[i].by != h.name {
			return restartlock.ErrLost
		}
		h.places[i].until = time.Now().Add(placeLife)
		return nil
	})
}

func (h holder) Release(ctx context.Context, i int) error {
	return h.answers(ctx, func() error {
		if h.places[i].by == h.name {
			h.places[i] = modelPlace{}
		}
		return nil
	})
}

func (h holder) Outcomes(ctx context.Context) (list []restartlock.Outcome, err error) {
	err = h.answers(ctx, func() error { list = append(list, h.outcomes...); return nil })
	return list, err
}

func (h holder) Leave(ctx context.Context, o restartlock.Outcome) error {
	return h.answers(ctx, func() error { h.outcomes = append([]restartlock.Outcome{o}, h.outcomes...); return nil })
}

func (h holder) Check(context.Context, int) error { return errors.New("not asked for here") }

func (m *lockModel) with(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *lockModel) by(i int) (name string) {
	m.with(func() {
		if p := m.places[i]; time.Now().Before(p.until) {
			name = p.by
		}
	})
	return name
}

// inQueues runs f with a fleet in a bubble.
func inQueues(t *testing.T, limit, size int, canary bool, f func(m *lockModel, fleet []*queue, said *lockedText)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &lockModel{places: make([]modelPlace, limit)}
		said := &lockedText{}
		log := slog.New(slog.NewTextHandler(said, nil))
		var fleet []*queue
		for i := range size {
			name := fmt.Sprintf("pod-%d", i)
			fleet = append(fleet, newQueue(RestartLock{Engine: holder{m, name}, Limit: limit, Canary: canary, Holder: name}, log))
		}
		f(m, fleet, said)
		for _, q := range fleet {
			q.close(t.Context(), false)
		}
		for i := range limit {
			if by := m.by(i); by != "" {
				t.Errorf("%s still has place %d", by, i)
			}
		}
	})
}

// lockedText is what all of a fleet have said.
type lockedText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hears waits for the next event of a queue.
func hears(t *testing.T, q *queue, within time.Duration) queueEvent {
	t.Helper()
	select {
	case ev := <-q.events():
		return ev
	case <-time.After(within):
		t.Fatalf("nothing within %v", within)
	}
	return queueEvent{}
}

func hearsTurn(t *testing.T, q *queue, within time.Duration) {
	t.Helper()
	if ev, yes := hears(t, q, within).event.(evTurn); !yes {
		t.Fatalf("hears %T", ev)
	}
}

// Each of a fleet gets its turn, and never more than there are places.
func TestQueueOfAFleet(t *testing.T) {
	inQueues(t, 3, 20, false, func(m *lockModel, fleet []*queue, _ *lockedText) {
		var done sync.WaitGroup
		var mu sync.Mutex
		now, most := 0, 0
		for _, q := range fleet {
			done.Go(func() {
				q.ask("", "app 1 → 2", time.Time{})
				ev := <-q.events()
				if !q.meant(ev) {
					t.Errorf("%+v is not meant", ev)
				}
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(time.Minute) // on the bubble's clock: longer than a place lives
				mu.Lock()
				now--
				mu.Unlock()
				q.leave()
			})
		}
		done.Wait()
		synctest.Wait()
		if most != 3 {
			t.Errorf("%d at once, want 3", most)
		}
	})
}

// What asks no longer gets nothing, and what it got meanwhile goes back.
func TestQueueLeft(t *testing.T) {
	inQueues(t, 1, 2, false, func(m *lockModel, fleet []*queue, _ *lockedText) {
		first, second := fleet[0], fleet[1]
		first.ask("", "", time.Time{})
		hearsTurn(t, first, time.Second)
		second.ask("", "", time.Time{})
		time.Sleep(time.Minute)
		second.leave()
		first.leave()
		time.Sleep(time.Minute)
		if by := m.by(0); by != "" {
			t.Errorf("%s has the place", by)
		}
		second.ask("", "", time.Time{})
		hearsTurn(t, second, time.Second)
	})
}

// A holder that is gone loses its place when it has said nothing for as long as a place lives.
func TestQueueHolderDies(t *testing.T) {
	inQueues(t, 1, 2, false, func(m *lockModel, fleet []*queue, _ *lockedText) {
		fleet[0].ask("", "", time.Time{})
		hearsTurn(t, fleet[0], time.Second)
		fleet[0].stop() // without a word
		fleet[1].ask("", "", time.Time{})
		hearsTurn(t, fleet[1], 2*placeLife)
		if by := m.by(0); by != "pod-1" {
			t.Errorf("%s has the place", by)
		}
	})
}

// An engine that does not answer is said once, and asked again; a place that was not renewed for so long counts as lost.
func TestQueueEngineAway(t *testing.T) {
	inQueues(t, 1, 2, false, func(m *lockModel, fleet []*queue, said *lockedText) {
		q := fleet[0]
		time.Sleep(time.Second)
		m.with(func() { m.away = true })
		q.ask("", "", time.Time{})
		time.Sleep(5 * time.Minute)
		m.with(func() { m.away = false })
		hearsTurn(t, q, lastPoll+lockRequest)
		m.with(func() { m.away = true })
		time.Sleep(10 * time.Second)
		m.with(func() { m.away = false })
		time.Sleep(time.Minute)
		if q.expired() {
			t.Error("a place that is renewed counts as lost")
		}
		m.with(func() { m.away = true })
		if _, lost := hears(t, q, placeLife+2*lockRequest).event.(evTurnLost); !lost {
			t.Error("it is not lost")
		}
		m.with(func() { m.away = false })
		for _, text := range []string{"cannot be used now", "can be used again", "is lost"} {
			if n := strings.Count(said.String(), text); n == 0 || n > 3 {
				t.Errorf("%q is said %d times:\n%s", text, n, said)
			}
		}
	})
}

// A process that was stopped for longer than a place lives notices it by the clock, before the engine has told it.
func TestQueueExpired(t *testing.T) {
	inQueues(t, 1, 1, false, func(m *lockModel, fleet []*queue, _ *lockedText) {
		q := fleet[0]
		q.ask("", "", time.Time{})
		hearsTurn(t, q, time.Second)
		if q.expired() {
			t.Error("a fresh place counts as lost")
		}
		q.setValid(time.Now().Add(-time.Second)) // as if nothing had run meanwhile
		if !q.expired() {
			t.Error("a place counts as held after its end")
		}
	})
}

// The first tries what is new, the others do what it has found out.
func TestQueueCanary(t *testing.T) {
	for _, good := range []bool{true, false} {
		inQueues(t, 3, 10, true, func(m *lockModel, fleet []*queue, said *lockedText) {
			var done sync.WaitGroup
			var mu sync.Mutex
			tries, alone, turns, refused := 0, true, 0, 0
			for _, q := range fleet {
				done.Go(func() {
					q.ask("two", "app 1 → 2", time.Time{})
					ev := <-q.events()
					mu.Lock()
					if _, bad := ev.event.(evTriedBad); bad {
						if refused++; ev.tried.By == "" || ev.tried.What != "app 1 → 2" || ev.tried.At.IsZero() {
							t.Errorf("told %+v", ev.tried)
						}
						mu.Unlock()
						q.leave()
						return
					}
					first := turns == 0
					if turns++; first {
						tries++
					} else if len(m.outcomes) == 0 {
						alone = false
					}
					mu.Unlock()
					time.Sleep(20 * time.Second)
					if first {
						q.tell("two", good)
					}
					q.leave()
				})
			}
			done.Wait()
			if !alone || good && turns != 10 || !good && (turns != 1 || refused != 9) {
				t.Errorf("good %t: %d turns, %d refused, alone %t\n%s", good, turns, refused, alone, said)
			}
			if len(m.outcomes) != 1 {
				t.Errorf("%d outcomes", len(m.outcomes))
			}
		})
	}
}

// An outcome is left before the place is given back, and as soon as the engine answers again.
func TestQueueTellsLater(t *testing.T) {
	inQueues(t, 1, 1, true, func(m *lockModel, fleet []*queue, _ *lockedText) {
		q := fleet[0]
		q.ask("two", "", time.Time{})
		hearsTurn(t, q, time.Second)
		m.with(func() { m.away = true })
		q.tell("two", false)
		q.leave()
		time.Sleep(2 * time.Minute)
		m.with(func() { m.away = false })
		time.Sleep(tellRetry + lockRequest)
		synctest.Wait()
		m.with(func() {
			if len(m.outcomes) != 1 || m.outcomes[0].Good || m.outcomes[0].Set != "two" {
				t.Errorf("outcomes %+v", m.outcomes)
			}
		})
	})
}

// The end of a process gives its place back, unless the next one needs it.
func TestQueueClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &lockModel{places: make([]modelPlace, 1)}
		for _, keep := range []bool{false, true} {
			q := newQueue(RestartLock{Engine: holder{m, "pod"}, Limit: 1}, slog.New(slog.DiscardHandler))
			q.ask("", "", time.Time{})
			hearsTurn(t, q, time.Second)
			q.close(t.Context(), keep)
			if by := m.by(0); (by != "") != keep {
				t.Errorf("keep %t: %q has the place", keep, by)
			}
		}
	})
}

// Without the option there is nothing.
func TestNoQueue(t *testing.T) {
	q := newQueue(RestartLock{}, nil)
	q.ask("", "", time.Time{})
	q.leave()
	q.tell("two", true)
	q.close(t.Context(), false)
	if q != nil || q.events() != nil || q.expired() {
		t.Error("there is a queue")
	}
}
