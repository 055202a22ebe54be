package vault

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Session is a client and the way it gets its token. It is safe for use by several goroutines.
//
// Login comes first. What reads secrets runs inside Do, which logs in again when the token is found to be no longer
// valid. A process that stays runs Keep beside it, and everybody calls Revoke at the end.
type Session struct {
	Client *Client

	auth *authenticator // nil for a token that is handed in, and for an Agent
	conf LoginConfig

	// logins serializes what changes the token. A channel, so that waiting for it can be given up.
	logins   chan struct{}
	refusals refusals
	spent    Text // the wrapping token in a token file that was used up

	mu       sync.Mutex
	current  *grant
	changed  chan struct{} // closed when current changes
	former   []*grant      // tokens that another took the place of, the newest last
	reserve  time.Duration // what replacing the leases of a token takes
	mostUses int           // the most requests that one call of Do made
	ended    bool          // Revoke was called
	news     tokenNews     // for --status
}

// refusals keeps the distance between refused logins.
type refusals struct {
	count int
	next  time.Time
	why   string
	tried *attempt // with other credentials there is no reason to wait
}

// refusalDelay is the wait after the nth refused login in a row: tries lock accounts and use up secret ids.
func refusalDelay(n int) time.Duration {
	return min(time.Minute<<min(n-1, 4), 15*time.Minute)
}

// NewSession makes a session that logs in as conf says.
func NewSession(c *Client, conf LoginConfig) *Session {
	for _, source := range []*Source{&conf.Token, &conf.WrappedToken, &conf.RoleID, &conf.SecretID,
		&conf.WrappedSecretID, &conf.JWT, &conf.Password, &conf.GitHubToken} {
		*source = c.Secrets.noted(*source)
	}
	s := &Session{Client: c, conf: conf, logins: make(chan struct{}, 1), changed: make(chan struct{})}
	handedIn := conf.Method == AuthToken && conf.WrappedToken == nil
	if !handedIn && conf.Method != AuthAgent {
		s.auth = &authenticator{client: c, conf: conf}
	}
	return s
}

// NewTokenSession makes a session whose token is handed in: from a variable, a file or the Vault CLI. source is asked
// at every login, so that a file that is replaced is read again. Such a token is never revoked.
func NewTokenSession(c *Client, source Source) *Session {
	return NewSession(c, LoginConfig{Method: AuthToken, Token: source})
}

// Own reports whether vaultexec itself obtains the tokens, by a login or by unwrapping.
func (s *Session) Own() bool { return s.auth != nil }

// Method is the method of the login.
func (s *Session) Method() Method { return s.conf.Method }

// Mount is the mount of the auth method, "" where there is none.
func (s *Session) Mount() string {
	if s.auth == nil || s.conf.Method == AuthToken {
		return ""
	}
	return s.auth.mount()
}

// LeaveWrapped lets the session fail rather than use up a wrapping token.
func (s *Session) LeaveWrapped() { s.conf.noUnwrap = true }

// lock waits until no other login is under way. After Revoke there is no further login: a read that fails because its
// token was just revoked must not get a new one.
func (s *Session) lock(ctx context.Context) error {
	select {
	case s.logins <- struct{}{}:
		if s.hasEnded() {
			s.unlock()
			return &fault.Error{Kind: fault.BadToken, What: "cannot log in", Why: "the session is over"}
		}
		return nil
	case <-ctx.Done():
		return s.Client.transportError(request{what: "cannot log in"}, ctx.Err())
	}
}

func (s *Session) unlock() { <-s.logins }

func (s *Session) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// state returns the token's grant, nil before the login, and a channel that is closed when it changes.
func (s *Session) state() (*grant, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.changed
}

// set makes g the current grant, or none.
func (s *Session) set(g *grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.current; old != nil && g != nil {
		s.former = append(s.former, old)
		s.former = s.former[max(0, len(s.former)-maxFormer):]
	}
	s.current = g
	close(s.changed)
	s.changed = make(chan struct{})
	s.news.toldLocked()
	if g == nil {
		s.Client.SetToken(Text{})
		return
	}
	s.Client.SetToken(g.token)
}

// update changes the current grant if it is still that of token.
func (s *Session) update(token Text, change func(*grant)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || !s.current.token.Equal(token) {
		return
	}
	g := *s.current
	change(&g)
	s.current = &g
	close(s.changed)
	s.changed = make(chan struct{})
	s.news.toldLocked()
}

// Prepare asks a person for what the login needs, if anything. It comes before any waiting for Vault is counted: people
// may take their time. A login with a browser is done then; Vault is waited for as patience says, from now on.
func (s *Session) Prepare(ctx context.Context, patience Patience) error {
	if s.conf.Method == AuthOIDC {
		return s.visit(ctx, patience)
	}
	if s.conf.Ask == nil {
		return nil
	}
	return s.conf.Ask(ctx)
}

// Login makes sure that there is a token. It is done once; Relogin does it again.
func (s *Session) Login(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if g, _ := s.state(); g != nil {
		return nil
	}
	g, err := s.obtain(ctx)
	if err != nil {
		return err
	}
	s.set(&g)
	return nil
}

// Relogin gets another token in place of stale, unless somebody else already did. After a refused login it repeats the
// same credentials only after 1, 2, 4, 8 and then every 15 minutes; until then the failure says when (RetryAfter). A
// Vault that is away is not a refusal. A token that was handed in is read again; if it is still stale the failure is
// fault.BadToken.
func (s *Session) Relogin(ctx context.Context, stale Text) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	old, _ := s.state()
	if old != nil && !old.token.Equal(stale) {
		return nil
	}
	if s.conf.Method == AuthAgent {
		return nil
	}
	_, leased := s.Client.tokenUse()
	g, err := s.obtain(ctx)
	if err != nil {
		return err
	}
	if !g.own && g.token.Equal(stale) {
		return &fault.Error{Kind: fault.BadToken, What: "cannot log in again", Why: whyBadToken,
			Hint: "put a valid token where this one came from (--token-file, the Vault CLI's own store); it is read again"}
	}
	s.set(&g)
	// What may still live is of no use to anybody. But its leases would end with it, and a child still works with them:
	// see Drop.
	if old != nil && !leased {
		s.Drop(ctx, old.token)
	}
	return nil
}

// obtain gets a token: by reading it where it was handed in, or by a login.
func (s *Session) obtain(ctx context.Context) (grant, error) {
	if s.auth == nil {
		g := grant{}
		if s.conf.Method == AuthAgent {
			g.known = true
			return g, nil
		}
		t, err := s.conf.Token(ctx)
		if w := wrapInfoIn(err); w != nil {
			return s.unwrapHandedIn(ctx, w.token)
		}
		if err != nil {
			return g, fault.Of(err)
		}
		g.token = t
		return g, nil
	}
	a, err := s.auth.gather(ctx)
	if err != nil {
		return grant{}, err
	}
	if err := s.refusals.check(a, s.auth.what(), time.Now()); err != nil {
		return grant{}, err
	}
	g, err := s.auth.send(ctx, a)
	switch {
	case err == nil:
		s.refusals = refusals{}
	case fault.Is(err, fault.Refused):
		s.refusals.note(a, fault.Of(err), time.Now())
	}
	return g, err
}

// check fails while the distance to the last refused login is too small.
func (r *refusals) check(a *attempt, what string, now time.Time) error {
	wait := r.next.Sub(now)
	if r.count == 0 || wait <= 0 || !a.same(r.tried) {
		return nil
	}
	return &fault.Error{Kind: fault.Refused, What: what, RetryAfter: wait,
		Why:  fmt.Sprintf("the login was refused (%s), and the next try is at %s", r.why, r.next.Format(time.TimeOnly)),
		Hint: "other credentials are tried at once"}
}

func (r *refusals) note(a *attempt, f *fault.Error, now time.Time) {
	r.count++
	d := refusalDelay(r.count)
	r.next, r.why, r.tried = now.Add(d), f.Why, a
	f.RetryAfter = d
}

// Do runs f, after a login where there was none yet. If f fails because the token is not valid, Do logs in again, once,
// and runs f again: with a login of our own, or with a handed-in token that has changed where it came from. f must be
// able to run twice.
func (s *Session) Do(ctx context.Context, f func(context.Context) error) error {
	if g, _ := s.state(); g != nil && g.own && g.uses > 0 {
		if uses, _ := s.Client.tokenUse(); uses > 0 && g.uses-uses < s.usesNeeded() {
			_ = s.Relogin(ctx, g.token) // f tells whether the token is any good
		}
	}
	g, _ := s.state() // before f: somebody else may log in while it runs
	if g == nil {     // Vault was away at the start
		if err := s.Login(ctx); err != nil {
			return err
		}
		g, _ = s.state()
	}
	err := s.run(ctx, f)
	if g == nil || !badToken(err) {
		return err
	}
	s.died(g.token)
	if again := s.Relogin(ctx, g.token); again != nil {
		if fault.Is(again, fault.BadToken) {
			return err // it names what could not be done
		}
		return again
	}
	err = s.run(ctx, f)
	if g, _ := s.state(); badToken(err) && g != nil && g.uses > 0 {
		for _, e := range fault.All(err) {
			e.Hint = fmt.Sprintf("the login gives tokens that are good for %d requests: that is too few for these paths (token_num_uses of the role)",
				g.uses)
		}
	}
	return err
}

// run counts the requests that f makes with the token.
func (s *Session) run(ctx context.Context, f func(context.Context) error) error {
	before, _ := s.Client.tokenUse()
	err := f(ctx)
	after, _ := s.Client.tokenUse()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mostUses = max(s.mostUses, after-before)
	return err
}

// usesNeeded is what a token must be good for before f is run again; one more is for its revocation.
func (s *Session) usesNeeded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.mostUses, 1) + 1
}

// badToken reports whether any failure in err is that of the token.
func badToken(err error) bool {
	for _, f := range fault.All(err) {
		if f.Kind == fault.BadToken {
			return true
		}
	}
	return false
}

// revokeLimit bounds a revocation, which is a courtesy: a token that it does not reach ends by itself.
const revokeLimit = time.Second

// Revoke ends the token if vaultexec itself obtained it, as a best effort within a second or until ctx ends. It leaves
// alone a token that was handed in, an Agent's, and a batch token. It waits for a login that is under way, so that its
// token does not stay behind. Afterwards the session has ended.
func (s *Session) Revoke(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, revokeLimit)
	defer cancel()
	if !s.Own() || s.lock(ctx) != nil {
		return
	}
	defer s.unlock()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	if g, _ := s.state(); g != nil {
		s.revoke(ctx, g)
		s.set(nil)
	}
	s.mu.Lock()
	former := s.former
	s.former = nil
	s.mu.Unlock()
	for _, g := range former { // on which leases hung
		s.revoke(ctx, g)
	}
}

// revoke says nothing of failures: the token may have ended, or its policies may not allow it.
func (s *Session) revoke(ctx context.Context, g *grant) {
	if !g.own || g.kind == "batch" || g.token.Empty() || s.conf.ThroughAgent || s.Client.Agent() || s.over(g) {
		return
	}
	_, _ = s.Client.do(ctx, request{what: "cannot revoke the token", method: http.MethodPut, auth: true,
		path: "auth/token/revoke-self", token: &g.token})
}
