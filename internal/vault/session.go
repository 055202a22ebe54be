package vault

import (
	"context"
	"sync"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Session is a client and the way it gets its token.
type Session struct {
	Client *Client
	source func(ctx context.Context) (Text, error)

	mu       sync.Mutex
	loggedIn bool
}

// NewTokenSession makes a session whose token is handed in: from a variable, a file or the Vault CLI. source is asked at
// every login, so that a file that is replaced is read again. Such a token is never renewed by force nor revoked.
func NewTokenSession(c *Client, source func(context.Context) (Text, error)) *Session {
	return &Session{Client: c, source: source}
}

// Login makes sure that there is a token. It is done once; Relogin does it again.
func (s *Session) Login(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loggedIn {
		return nil
	}
	t, err := s.source(ctx)
	if err != nil {
		return fault.Of(err)
	}
	s.Client.SetToken(t)
	s.loggedIn = true
	return nil
}

// Do calls f with a valid token.
func (s *Session) Do(ctx context.Context, f func(context.Context) error) error { return f(ctx) }
