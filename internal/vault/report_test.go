package vault_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// What is told of a token: when it ends, renewals, and trouble until it is over. Whoever wants to know is told each time.
func TestReport(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.srv.Must(t, "POST", r.at(), map[string]any{"token_ttl": "3s", "token_max_ttl": "1h"})
	proxy := vaulttest.NewProxy(t, r.srv)
	s := newSession(t, proxy.Addr, r.conf())
	news := make(chan struct{}, 1)
	s.OnNews(func() {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	if rep, ok := s.Report(); ok || !rep.Ends.IsZero() || rep.Method != "approle" {
		t.Errorf("before the login: %+v", rep)
	}
	begun := time.Now()
	login(t, s)
	rep, ok := s.Report()
	if left := rep.Ends.Sub(begun); !ok || left < 2*time.Second || left > 3*time.Second+time.Since(begun) || rep.Renewals != 0 || rep.Failing {
		t.Errorf("after the login: %+v", rep)
	}
	keep(t, s)
	// told waits for a report of which something holds: news has to come before each.
	told := func(what string, holds func() bool) {
		t.Helper()
		wait.Until(t, time.Minute, what, func() bool {
			select {
			case <-news:
				rep, ok = s.Report()
				return holds()
			default:
				return false
			}
		})
	}
	told("a renewal", func() bool { return rep.Renewals > 0 && rep.Ends.Sub(begun) > 3*time.Second })
	proxy.Set(vaulttest.Reset)
	told("trouble", func() bool { return rep.Failing })
	if rep.Failure.Kind != fault.Away || rep.FailedAt.Before(begun) {
		t.Errorf("%+v", rep.Failure)
	}
	proxy.Clear()
	told("the end of it", func() bool { return !rep.Failing && rep.Failure != nil })
	if text := fmt.Sprintf("%+v %#v", rep, rep); strings.Contains(text, s.Client.Token().Reveal()) {
		t.Error("the report shows the token")
	}
	n := s.Client.Requests()
	if n["2xx"] < 2 || n["none"] < 1 || n["3xx"] != 0 || len(n) != 5 {
		t.Errorf("%v", n)
	}
	before := n["4xx"]
	if err := r.read(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	proxy.Set(vaulttest.Errors(403, "permission denied"))
	_ = r.read(t.Context(), s)
	proxy.Set(vaulttest.Errors(503, "Vault is sealed"))
	_ = r.read(t.Context(), s)
	if n := s.Client.Requests(); n["4xx"] <= before || n["5xx"] == 0 {
		t.Errorf("%v", n)
	}
}
