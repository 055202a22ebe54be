package vault

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// need is what a token needs next.
type need uint8

const (
	needNothing need = iota // it never ends, or nobody can say when
	needLookup              // it was handed in, and its life is not known
	needRenewal
	needLogin // another one in its place
)

// Shares of a token's life. Renewals are spread so that what was started together does not ask together.
const (
	renewShare  = 2.0 / 3
	loginShare  = 5.0 / 6
	renewSpread = 0.1 // of the share, before it
)

// soonest bounds how often a token of a very short life is tended.
const soonest = time.Second

// next says what the token needs and when. spread in [0,1) moves the time. It is pure: it does not ask time.Now.
// reserve is what has to be done with another token before this one ends: a login comes so much earlier.
func (g *grant) next(spread float64, reserve time.Duration) (need, time.Time) {
	switch {
	case !g.known && !g.asked:
		return needLookup, g.at
	case !g.known || g.life <= 0:
		return needNothing, time.Time{}
	}
	share, n := loginShare, needLogin
	if g.renewable {
		share, n = renewShare, needRenewal
	}
	wait := time.Duration(float64(g.life) * share * (1 - renewSpread*spread))
	if n == needLogin {
		wait = max(min(wait, g.life-reserve), g.life/2)
	}
	return n, g.at.Add(max(wait, min(soonest, g.life/2)))
}

// renewed is the grant after a renewal that was asked for at the time at. A token has met its longest life
// (token_max_ttl, explicit_max_ttl) when Vault says that it capped the renewal, or when two renewals in a row did not
// move its end. Less life than before is not enough: the role's token_ttl may have been lowered.
func (g *grant) renewed(a *Answer, at time.Time) grant {
	r := *g
	r.at, r.life = at, time.Duration(a.Auth.LeaseDuration)*time.Second
	r.stuck, r.died = 0, time.Time{}
	if r.life < g.life && r.at.Add(r.life).Before(g.at.Add(g.life+time.Second)) {
		r.stuck = g.stuck + 1
	}
	r.renewable = a.Auth.Renewable && !a.capped() && r.stuck < maxStuck
	return r
}

// maxStuck is how many renewals may leave the end where it was, or before it. One may do so by chance, or because what
// it asks for has become less.
const maxStuck = 2

// capped reports whether Vault says that it gave less than it was asked for, because the longest life has no more left.
func (a *Answer) capped() bool {
	return slices.ContainsFunc(a.Warnings,
		func(w string) bool { return strings.Contains(w, "value is capped accordingly") })
}

// Keep keeps the token alive until ctx ends. It renews at about two thirds of its life, and logs in again before a
// token ends that cannot be renewed. It sends nothing where nothing can be done: for a root token, an Agent's, or one
// whose life cannot be found out. It looks a handed-in token up once (which costs a use of a use-limited one). It says
// once that such a token will end, and reads it again where it came from. While Vault is away it tries again for ever,
// with one line at the beginning and one at the end.
func (s *Session) Keep(ctx context.Context, log *slog.Logger) {
	k := keeper{session: s, log: log}
	var of *grant // that spread was drawn for
	var spread float64
	for ctx.Err() == nil {
		jumped := s.Client.Clock.Jumped()
		g, changed := s.state()
		n, at := needNothing, time.Time{}
		if g != nil {
			if g != of { // once a grant, or every wake-up would bring it forward
				of, spread = g, rand.Float64()
			}
			n, at = g.next(spread, s.reserved())
			k.announce(g)
		}
		if n == needNothing {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if d := s.Client.Clock.Left(at); d > 0 && !sleepUnless(ctx, changed, jumped, d) {
			continue
		}
		pause := k.tend(ctx, n, g)
		if pause > 0 {
			sleepUnless(ctx, changed, jumped, pause)
		}
	}
}

// sleepUnless reports whether it slept to the end. A changed token, a suspended machine and the end of ctx cut it
// short.
func sleepUnless(ctx context.Context, changed, jumped <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-changed:
		return false
	case <-jumped:
		return false
	case <-ctx.Done():
		return false
	}
}

// keeper is the state of one Keep.
type keeper struct {
	session   *Session
	log       *slog.Logger
	fails     int    // in a row
	announced string // the trouble that was; "" when there is none
	ending    Text   // the token whose end was announced
}

// announce says once that a handed-in token will end.
func (k *keeper) announce(g *grant) {
	if g.own || !g.known || g.life <= 0 || g.renewable || k.ending.Equal(g.token) {
		return
	}
	k.ending = g.token
	k.log.Warn(
		"the token will expire and cannot be renewed further; put a new one where it came from: it is read again",
		"ends", g.at.Add(g.life).UTC().Format(time.RFC3339))
}

// tend does what the token needs, and returns how long to wait before the next try if that failed.
func (k *keeper) tend(ctx context.Context, n need, g *grant) time.Duration {
	s := k.session
	var err error
	switch n {
	case needLookup:
		var found grant
		found, err = s.lookup(ctx, g.token)
		if err == nil {
			s.update(g.token, func(g *grant) { *g = found })
		} else if !fault.Is(err, fault.Away, fault.Address, fault.BadToken) {
			// Not allowed to ask (the default policy is missing): it shows when it ends.
			s.update(g.token, func(g *grant) { g.asked = true })
			k.log.Debug("cannot find out when the token expires", "why", fault.Of(err).Error())
			err = nil
		}
	case needRenewal:
		err = s.renew(ctx, g, k.log)
	case needLogin:
		if err = s.Relogin(ctx, g.token); err == nil {
			k.log.Info("logged in again", "method", string(s.Method()))
		}
	}
	if fault.Is(err, fault.BadToken) && n != needLogin {
		s.died(g.token)
		if err = s.Relogin(ctx, g.token); err == nil {
			k.log.Info("the token was no longer valid; logged in again", "method", string(s.Method()))
		}
	}
	return k.outcome(ctx, err, g)
}

// outcome keeps the books of trouble and says how long to wait.
func (k *keeper) outcome(ctx context.Context, err error, g *grant) time.Duration {
	if err == nil {
		if k.announced != "" {
			k.log.Info("the token is in order again", "trouble", k.announced)
		}
		k.fails, k.announced = 0, ""
		k.session.noteTending(nil)
		return 0
	}
	if ctx.Err() != nil || k.session.hasEnded() {
		return 0
	}
	f := fault.Of(err)
	k.session.noteTending(f)
	k.fails++
	if k.announced == "" && (f.Kind != fault.BadToken || g.known && k.session.Client.Clock.Left(g.at.Add(g.life)) < 0) {
		k.announced = f.Why
		attrs := []any{}
		if f.Hint != "" {
			attrs = append(attrs, "hint", f.Hint)
		}
		k.log.Warn(f.Error(), attrs...)
	}
	switch f.Kind {
	case fault.Away:
		return max(backoff(k.fails+3), f.RetryAfter)
	case fault.Refused:
		return min(max(f.RetryAfter, time.Second), rereadEvery) // a changed credential is tried at once
	}
	return rereadEvery/2 + rand.N(rereadEvery/2)
}

// rereadEvery is how often files are read again while the credentials in them do not work.
const rereadEvery = 30 * time.Second

// renew asks for more life. What cannot be renewed is noted, so that a login comes before its end.
func (s *Session) renew(ctx context.Context, g *grant, log *slog.Logger) error {
	at := time.Now()
	a, err := s.Client.do(ctx, request{what: "cannot renew the token", method: http.MethodPut, auth: true,
		path: "auth/token/renew-self", body: func() any { return struct{}{} }, token: &g.token})
	switch {
	case err == nil && a.Auth != nil:
		s.noteRenewal()
		s.update(g.token, func(g *grant) { *g = g.renewed(a, at) })
		log.Debug("the token is renewed", "duration",
			(time.Duration(a.Auth.LeaseDuration) * time.Second).String())
		return nil
	case err == nil:
		return notVaults("cannot renew the token", "")
	case fault.Is(err, fault.Away, fault.Address, fault.BadToken):
		return err
	}
	// Not renewable after all, its longest life reached, or no policy for it (the default one is missing).
	log.Debug("the token cannot be renewed", "why", fault.Of(err).Error())
	s.update(g.token, func(g *grant) { g.renewable = false })
	return nil
}
