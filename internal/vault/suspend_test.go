package vault_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// A machine that wakes up tends its token at once: Vault has counted the hours in which the machine's own timers stood still.
func TestKeepSuspended(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		role  map[string]any
		slept time.Duration
		what  func(vaulttest.Request) bool
	}{
		{"renewed", map[string]any{"token_ttl": "1h", "token_max_ttl": "24h"}, 45 * time.Minute, isRenewal},
		{"batch, logged in again", map[string]any{"token_ttl": "1h", "token_type": "batch"}, 55 * time.Minute, func(q vaulttest.Request) bool { return isLogin(q) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRole(t)
			r.srv.Must(t, "POST", r.at(), c.role)
			proxy := vaulttest.NewProxy(t, r.srv)
			var asleep atomic.Int64
			before := -1
			machine := clock.New(func() time.Time {
				if before >= 0 && proxy.Count(c.what) > before { // what comes after the sleep has nothing to do with it
					return time.Now()
				}
				return time.Now().Add(time.Duration(asleep.Load()))
			}, nil)
			s := vault.NewSession(newClient(t, vault.Config{Address: proxy.Addr, TestOnlyClock: machine}), r.conf())
			login(t, s)
			before = proxy.Count(c.what)
			log, _ := keep(t, s)
			asleep.Store(int64(c.slept / 4)) // a nap changes nothing
			machine.Jump()
			asleep.Store(int64(c.slept))
			machine.Jump()
			wait.Until(t, time.Minute, fmt.Sprintf("a token that is tended after %v of sleep", c.slept), func() bool { return proxy.Count(c.what) > before })
			if n := proxy.Count(c.what) - before; n != 1 {
				t.Errorf("tended %d times", n)
			}
			if log.count("level=WARN") != 0 {
				t.Errorf("warnings where nothing is wrong: %s", log)
			}
		})
	}
}
