package vault

import (
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// What anybody may know of a session (--status): nothing here is secret.

// TokenReport is what anybody may know of the token in use.
type TokenReport struct {
	Method   Method
	Ends     time.Time // unless it is renewed; zero if it never expires, or if that is not known
	Renewals int       // successful ones, of all tokens of the session
	Failure  *fault.Error
	FailedAt time.Time // of Failure; zero for none
	Failing  bool      // nothing has worked since
}

// tokenNews is the part of a report that the session itself does not need.
type tokenNews struct {
	tell     func()
	renewals int
	failure  *fault.Error
	failedAt time.Time
	failing  bool
}

// OnNews sets a function that is called whenever Report has something new. It must neither block nor call the session. Call
// OnNews before the first login.
func (s *Session) OnNews(tell func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.news.tell = tell
}

// toldLocked is called with s.mu held.
func (n *tokenNews) toldLocked() {
	if n.tell != nil {
		n.tell()
	}
}

// Report is what anybody may know of the token now; ok is false if there is none.
func (s *Session) Report() (r TokenReport, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.news
	r = TokenReport{Method: s.conf.Method, Renewals: n.renewals, Failure: n.failure, FailedAt: n.failedAt, Failing: n.failing}
	if s.current != nil {
		r.Ends = s.current.ends()
	}
	return r, s.current != nil
}

// noteTending records whether a renewal or login worked. nil is success.
func (s *Session) noteTending(f *fault.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.news.failing = f != nil; f != nil {
		s.news.failure, s.news.failedAt = f, time.Now()
	}
	s.news.toldLocked()
}

func (s *Session) noteRenewal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.news.renewals++
}

// answered counts requests by the status of their answer; 0 is no answer.
func (c *Client) answered(status int) { c.answers[min(max(status/100, 0), len(c.answers)-1)].Add(1) }

// Requests counts requests by the class of their answer: "2xx" to "5xx", and "none" for those without.
func (c *Client) Requests() map[string]int {
	counts := map[string]int{}
	for i, name := range [...]string{"none", "2xx", "2xx", "3xx", "4xx", "5xx"} { // a 1xx never gets here
		counts[name] += int(c.answers[i].Load())
	}
	return counts
}
