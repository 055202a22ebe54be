package vault

import (
	"context"
	"slices"
	"time"
)

// Leases end with the token that made them. So a session remembers the tokens that others took the place of, and when
// each of them ends.

// maxFormer bounds how many are remembered.
const maxFormer = 16

// Changed returns a channel that is closed when the token changes, or what is known of it.
func (s *Session) Changed() <-chan struct{} {
	_, changed := s.state()
	return changed
}

// Holds reports whether t is the token in use.
func (s *Session) Holds(t Text) bool {
	g, _ := s.state()
	return g != nil && g.token.Equal(t)
}

// TokenEnds is when a token ends that this session has or had: the zero time when it need not end, as long as it is
// renewed, and when nothing is known.
func (s *Session) TokenEnds(t Text) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.current; g != nil && g.token.Equal(t) {
		if g.renewable && g.died.IsZero() {
			return time.Time{}
		}
		return g.ends()
	}
	for _, g := range s.former {
		if g.token.Equal(t) {
			return g.ends()
		}
	}
	return time.Time{}
}

// ends is when the token ends unless it is renewed.
func (g *grant) ends() time.Time {
	switch {
	case !g.died.IsZero():
		return g.died
	case !g.known || g.life <= 0:
		return time.Time{}
	}
	return g.at.Add(g.life)
}

// over reports whether the token has ended.
func (s *Session) over(g *grant) bool {
	end := g.ends()
	return !end.IsZero() && s.Client.Clock.Left(end) <= 0
}

// died notes that Vault refuses a token.
func (s *Session) died(t Text) {
	s.mu.Lock()
	known := s.current != nil && s.current.token.Equal(t) && !s.current.died.IsZero()
	s.mu.Unlock()
	if !known {
		s.update(t, func(g *grant) { g.died = time.Now() })
	}
}

// Reserve has a login come so long before the end of a token that cannot be renewed: time to replace its leases.
func (s *Session) Reserve(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserve = d
}

func (s *Session) reserved() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserve
}

// Drop revokes a token that another took the place of, once nothing depends on it any more.
func (s *Session) Drop(ctx context.Context, t Text) {
	s.mu.Lock()
	i := slices.IndexFunc(s.former, func(g *grant) bool { return g.token.Equal(t) })
	var old *grant
	if i >= 0 {
		old = s.former[i]
		s.former = slices.Delete(s.former, i, i+1)
	}
	s.mu.Unlock()
	if old == nil {
		return
	}
	// Whoever ends Keep just now does not know of it any more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
	defer cancel()
	s.revoke(ctx, old)
}

// EndsLeases reports whether the leases of this session end with its token, which Revoke revokes.
func (s *Session) EndsLeases() bool {
	g, _ := s.state()
	return g != nil && g.own && g.kind != "batch" && !s.conf.ThroughAgent
}

// CountsUses reports whether the token is good for a number of requests only. None of these is spent as a courtesy.
func (s *Session) CountsUses() bool {
	g, _ := s.state()
	return g != nil && g.uses > 0
}
