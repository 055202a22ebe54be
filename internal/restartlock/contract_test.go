package restartlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// What both engines promise is tested with both, on real servers.

// patience is generous. No verdict hangs on it.
const patience = 2 * time.Minute

// server is a lock with three places on a real server.
type server struct {
	engine  func(t *testing.T) Engine // another process's
	short   func(Engine)              // gives it the shortest lifetime that the server takes
	holders func() ([]string, error)  // by the server's own word
	steal   func(t *testing.T)        // takes place 0 from whoever has it, as an operator may
	freeze  func()
	thaw    func()
	kill    func()
	restart func(t *testing.T)
}

// kinds start a server of each engine, or share one.
var kinds = map[string]func(t *testing.T, own bool) *server{"kubernetes": onKubernetes, "consul": onConsul}

func onKubernetes(t *testing.T, own bool) *server {
	var k *enginetest.Kubernetes
	if own {
		k = enginetest.NewKubernetes(t)
	} else {
		k = enginetest.SharedKubernetes(t)
	}
	ns := k.Namespace(t)
	k.Leases(t, ns, "api", 3)
	pod := k.Account(t, ns, enginetest.Rule("api", 3))
	return &server{
		engine:  func(t *testing.T) Engine { return opened(t, "kubernetes:api", pod.Getenv, pod.Dir) },
		short:   func(e Engine) { e.(*leases).lifetime = time.Second },
		holders: func() ([]string, error) { return k.Holders(ns, "api", 3) },
		steal: func(t *testing.T) {
			l := k.Lease(t, ns, "api", 0)
			l["spec"].(map[string]any)["holderIdentity"] = "operator"
			k.Must(t, "PUT", "/apis/coordination.k8s.io/v1/namespaces/"+ns+"/leases/api-0", l)
		},
		freeze: k.Freeze, thaw: k.Thaw, kill: k.Kill, restart: func(t *testing.T) { k.Restart(t) },
	}
}

func onConsul(t *testing.T, own bool) *server {
	var c *enginetest.Consul
	if own {
		c = enginetest.NewConsul(t)
	} else {
		c = enginetest.SharedConsul(t)
	}
	name := c.Name()
	env := c.Env(c.Token(t, enginetest.Policy(name)))
	return &server{
		engine:  func(t *testing.T) Engine { return opened(t, "consul:"+name, enginetest.Getenv(env), "") },
		short:   func(e Engine) { e.(*consul).ttl, e.(*consul).delay = time.Second, time.Second },
		holders: func() ([]string, error) { return c.Holders(name, 3) },
		steal:   func(t *testing.T) { c.Destroy(t, "vaultexec restart lock "+name) },
		freeze:  c.Freeze, thaw: c.Thaw, kill: c.Kill, restart: func(t *testing.T) { c.Restart(t) },
	}
}

func opened(t *testing.T, lock string, env func(string) string, folder string) Engine {
	t.Helper()
	spec, err := Parse(lock)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(spec, env, folder, nil)
	if err != nil {
		t.Fatalf("%v (%s)", err, fault.Of(err).Hint)
	}
	t.Cleanup(e.Close)
	return e
}

// each runs a test on both.
func each(t *testing.T, own bool, f func(t *testing.T, s *server)) {
	for name, start := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, start(t, own))
		})
	}
}

func inTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v (%s)", what, err, fault.Of(err).Hint)
	}
}

func take(t *testing.T, e Engine, place int, want bool) {
	t.Helper()
	ctx := inTime(t)
	v, err := e.Look(ctx, place)
	must(t, "Look", err)
	got, err := e.Take(ctx, place)
	must(t, "Take", err)
	if got != want {
		t.Fatalf("place %d: taken %v, want %v; the look before it: %+v", place, got, want, v)
	}
}

func (s *server) holder(t *testing.T, place int) string {
	t.Helper()
	all, err := s.holders()
	must(t, "holders", err)
	return all[place]
}

func TestTakeRenewRelease(t *testing.T) {
	each(t, false, func(t *testing.T, s *server) {
		a, b, ctx := s.engine(t), s.engine(t), inTime(t)
		if v, err := a.Look(ctx, 0); err != nil || !v.Free || v.Holder != "" {
			t.Fatalf("a new place: %+v, %v", v, err)
		}
		take(t, a, 0, true)
		first := s.holder(t, 0)
		if host, random, found := strings.Cut(first, "_"); !found || host == "" || len(random) != 16 {
			t.Errorf("it is held by %q", first)
		}
		if v, err := b.Look(ctx, 0); err != nil || v.Free || v.Holder != first {
			t.Errorf("another sees %+v, %v", v, err)
		}
		take(t, b, 0, false)
		take(t, b, 1, true) // the next place is its own affair
		for range 3 {
			must(t, "Renew", a.Renew(ctx, 0))
		}
		must(t, "Release by one that does not have it", s.engine(t).Release(ctx, 0))
		if got := s.holder(t, 0); got != first {
			t.Errorf("then it is held by %q", got)
		}
		must(t, "Release", a.Release(ctx, 0))
		must(t, "Release again", a.Release(ctx, 0))
		if got := s.holder(t, 0); got != "" {
			t.Errorf("after the release it is held by %q", got)
		}
		c := s.engine(t)
		take(t, c, 0, true) // at once
		if err := a.Renew(ctx, 0); !errors.Is(err, ErrLost) {
			t.Errorf("Renew of what was given back: %v", err)
		}
		must(t, "Release of what another has by now", a.Release(ctx, 0))
		if got := s.holder(t, 0); got == "" || got == first {
			t.Errorf("the third is held by %q", got)
		}
		take(t, a, 2, true) // it can take one again
		must(t, "Release", a.Release(ctx, 2))
	})
}

func TestLostPlace(t *testing.T) {
	each(t, false, func(t *testing.T, s *server) {
		e, ctx := s.engine(t), inTime(t)
		take(t, e, 0, true)
		must(t, "Renew", e.Renew(ctx, 0))
		s.steal(t)
		if err := e.Renew(ctx, 0); !errors.Is(err, ErrLost) {
			t.Errorf("Renew: %v", err)
		}
		must(t, "Release", e.Release(ctx, 0))
	})
}

// A holder that says nothing more loses its place, one that renews it keeps it.
func TestCrash(t *testing.T) {
	each(t, false, func(t *testing.T, s *server) {
		dead, alive, other, ctx := s.engine(t), s.engine(t), s.engine(t), inTime(t)
		s.short(dead)
		s.short(alive)
		take(t, dead, 0, true)
		take(t, alive, 1, true)
		kept := s.holder(t, 1)
		began := time.Now()
		wait.Until(t, patience, "the place of the dead", func() bool {
			must(t, "Renew", alive.Renew(ctx, 1))
			if v, err := other.Look(ctx, 1); err != nil || v.Free {
				t.Fatalf("the place of the living: %+v, %v", v, err)
			}
			v, err := other.Look(ctx, 0)
			must(t, "Look", err)
			if !v.Free {
				return false
			}
			taken, err := other.Take(ctx, 0)
			must(t, "Take", err)
			return taken
		})
		t.Logf("taken %v after the last word", time.Since(began).Round(10*time.Millisecond))
		if got := s.holder(t, 1); got != kept {
			t.Errorf("the place of the living is held by %q", got)
		}
		if err := dead.Renew(ctx, 0); !errors.Is(err, ErrLost) {
			t.Errorf("Renew of the dead: %v", err)
		}
	})
}

func TestOneOfManyWins(t *testing.T) {
	each(t, false, func(t *testing.T, s *server) {
		const many = 20
		engines := make([]Engine, many)
		for i := range engines {
			engines[i] = s.engine(t)
		}
		ctx := inTime(t)
		for round := range 3 {
			// All have seen it free before the first one takes it.
			for _, e := range engines {
				if v, err := e.Look(ctx, round); err != nil || !v.Free {
					t.Fatalf("%+v, %v", v, err)
				}
			}
			var winners []int
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i, e := range engines {
				wg.Go(func() {
					won, err := e.Take(ctx, round)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Errorf("%v", err)
					}
					if won {
						winners = append(winners, i)
					}
				})
			}
			wg.Wait()
			if len(winners) != 1 {
				t.Fatalf("round %d: %d have won", round, len(winners))
			}
			must(t, "Renew", engines[winners[0]].Renew(ctx, round))
			must(t, "Release", engines[winners[0]].Release(ctx, round))
		}
	})
}

func TestOutcomes(t *testing.T) {
	each(t, false, func(t *testing.T, s *server) {
		ctx := inTime(t)
		if list, err := s.engine(t).Outcomes(ctx); err != nil || len(list) != 0 {
			t.Fatalf("%v, %v", list, err)
		}
		holder := s.engine(t)
		take(t, holder, 0, true)
		leave := func(many int, prefix string) {
			var wg sync.WaitGroup
			for i := range many {
				e := s.engine(t)
				wg.Go(func() {
					o := Outcome{Set: fmt.Sprint(prefix, i), Good: i%2 == 0, By: "host <1>", At: time.Unix(1700000000, 0).UTC(), What: "app-prod \"2\""}
					if err := e.Leave(ctx, o); err != nil {
						t.Errorf("%v", err)
					}
				})
			}
			wg.Wait()
		}
		// As many at the same time as are kept: all are.
		leave(MostOutcomes, "first ")
		list, err := holder.Outcomes(ctx)
		must(t, "Outcomes", err)
		seen := map[string]bool{}
		for _, o := range list {
			if o.By != "host <1>" || o.What != "app-prod \"2\"" || !o.At.Equal(time.Unix(1700000000, 0)) {
				t.Errorf("%+v", o)
			}
			seen[o.Set] = true
		}
		if len(list) != MostOutcomes || len(seen) != MostOutcomes {
			t.Errorf("%d outcomes are kept, %d of them different", len(list), len(seen))
		}
		// Of more the oldest go, and the newest come first.
		leave(4, "second ")
		must(t, "Leave", holder.Leave(ctx, Outcome{Set: "last"}))
		list, err = holder.Outcomes(ctx)
		must(t, "Outcomes", err)
		if len(list) != MostOutcomes || list[0].Set != "last" {
			t.Fatalf("%d outcomes, the first is %+v", len(list), list[0])
		}
		for i, o := range list {
			if isNew := strings.HasPrefix(o.Set, "second "); i > 0 && isNew != (i < 5) {
				t.Errorf("outcome %d is %q", i, o.Set)
			}
		}
		must(t, "Renew after outcomes", holder.Renew(ctx, 0))
		must(t, "Release", holder.Release(ctx, 0))
		if list, err = holder.Outcomes(ctx); err != nil || len(list) != MostOutcomes {
			t.Errorf("after the release: %d outcomes, %v", len(list), err)
		}
	})
}

// methods are all that send something.
func methods(e Engine) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Look":     func(ctx context.Context) error { _, err := e.Look(ctx, 1); return err },
		"Take":     func(ctx context.Context) error { _, err := e.Take(ctx, 1); return err },
		"Renew":    func(ctx context.Context) error { return e.Renew(ctx, 0) },
		"Outcomes": func(ctx context.Context) error { _, err := e.Outcomes(ctx); return err },
		"Leave":    func(ctx context.Context) error { return e.Leave(ctx, Outcome{Set: "x"}) },
		"Check":    func(ctx context.Context) error { return e.Check(ctx, 0) },
		"Release":  func(ctx context.Context) error { return e.Release(ctx, 0) },
	}
}

// A server that is stopped takes connections and answers nothing: every call ends with its ctx, one with a connection that is kept and
// one with a new one. Then the server goes on, and so does the engine.
func TestFrozenServer(t *testing.T) {
	each(t, true, func(t *testing.T, s *server) {
		warm, cold, ctx := s.engine(t), s.engine(t), inTime(t)
		take(t, warm, 0, true)
		for _, e := range []Engine{warm, cold} {
			if _, err := e.Look(ctx, 1); err != nil { // Take sends something only after it
				t.Fatal(err)
			}
		}
		cold.Close()
		s.freeze()
		t.Cleanup(s.thaw)
		for name, e := range map[string]Engine{"with a connection": warm, "with a new connection": cold} {
			for method, call := range methods(e) {
				if e == cold && (method == "Renew" || method == "Release") && onlyHolders(e) {
					continue // it holds nothing, and sends nothing
				}
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				done := make(chan error, 1)
				go func() { done <- call(ctx) }()
				select {
				case err := <-done:
					if !fault.Is(err, fault.Away) || ctx.Err() == nil {
						t.Errorf("%s %s: %v", method, name, err)
					}
				case <-time.After(patience): // a call without a limit never ends
					t.Fatalf("%s %s does not end with its ctx", method, name)
				}
				cancel()
			}
		}
		s.thaw()
		// What was sent before may be done by now or not: the place is this engine's, or can be taken.
		wait.Until(t, patience, "the place after the thaw", func() bool {
			if warm.Renew(ctx, 0) == nil {
				return true
			}
			if v, err := warm.Look(ctx, 0); err != nil || !v.Free {
				return false
			}
			taken, err := warm.Take(ctx, 0)
			return err == nil && taken
		})
	})
}

// onlyHolders: Consul's engine sends a renewal only when it has a session.
func onlyHolders(e Engine) bool {
	_, ok := e.(*consul)
	return ok
}

// A server that is killed and comes back with its data: the holder keeps its place.
func TestRestartedServer(t *testing.T) {
	each(t, true, func(t *testing.T, s *server) {
		e, other, ctx := s.engine(t), s.engine(t), inTime(t)
		take(t, e, 0, true)
		must(t, "Leave", e.Leave(ctx, Outcome{Set: "x", Good: true}))
		holder := s.holder(t, 0)
		s.kill()
		if err := e.Renew(ctx, 0); !fault.Is(err, fault.Away) {
			t.Errorf("Renew without a server: %v", err)
		}
		if _, err := other.Look(ctx, 0); !fault.Is(err, fault.Away) {
			t.Errorf("Look without a server: %v", err)
		}
		s.restart(t)
		wait.Until(t, patience, "the renewal", func() bool {
			err := e.Renew(ctx, 0)
			if err != nil && !fault.Is(err, fault.Away) {
				t.Fatal(err)
			}
			return err == nil
		})
		if got := s.holder(t, 0); got != holder {
			t.Errorf("it is held by %q", got)
		}
		take(t, other, 0, false)
		if list, err := other.Outcomes(ctx); err != nil || len(list) != 1 {
			t.Errorf("%v, %v", list, err)
		}
		must(t, "Release", e.Release(ctx, 0))
		take(t, other, 0, true)
	})
}

// Check changes nothing that others see.
func TestCheckChangesNothing(t *testing.T) {
	each(t, false, func(t *testing.T, s *server) {
		holder, other, ctx := s.engine(t), s.engine(t), inTime(t)
		must(t, "Check", other.Check(ctx, 0)) // of one that nobody has had yet
		take(t, holder, 0, true)
		before, err := s.holders()
		must(t, "holders", err)
		for _, e := range []Engine{holder, other} {
			for place := range 3 {
				must(t, "Check", e.Check(ctx, place))
			}
		}
		if after, err := s.holders(); err != nil || !slices.Equal(before, after) {
			t.Errorf("held by %q before and by %q after it, %v", before, after, err)
		}
		must(t, "Renew", holder.Renew(ctx, 0))
		must(t, "Release", holder.Release(ctx, 0))
		take(t, other, 0, true)
	})
}

// A failure says its host and never a credential.
func noSecret(t *testing.T, err error) {
	t.Helper()
	e := fault.Of(err)
	text := fmt.Sprintf("%v %+v %s %v", err, e, e.Hint, e.Err)
	if vaulttest.Redact(text) != text {
		t.Errorf("a secret shows in %s", vaulttest.Redact(text))
	}
}
