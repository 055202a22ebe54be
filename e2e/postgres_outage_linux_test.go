package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Whatever becomes of Vault, the lease, the role or the database: the command keeps running with what it has, the log
// says so once, new credentials follow as soon as there can be any, and they are not asked for in a flood.

// wantCalm: since a time, new credentials were asked for once a second at the most.
func (l *leased) wantCalm(since time.Time) {
	l.t.Helper()
	n := l.proxy.Count(func(r vaulttest.Request) bool { return r.Path == l.db+"/creds/app" && r.At.After(since) })
	if most := 2 + int(time.Since(since)/time.Second); n > most {
		l.t.Errorf("new credentials were asked for %d times in %v, want %d at most", n, time.Since(since).Round(time.Second), most)
	}
}

// leases lists the leases of the role app.
func (l *leased) leases() []string {
	l.t.Helper()
	status, out := l.srv.Do(l.t, "LIST", "sys/leases/lookup/"+l.db+"/creds/app", nil)
	if status == http.StatusNotFound {
		return nil
	}
	data, _ := out["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	var ids []string
	for _, k := range keys {
		ids = append(ids, fmt.Sprintf("%s/creds/app/%s", l.db, k))
	}
	return ids
}

// dead waits until the running command has been refused for its password.
func (l *leased) dead() {
	l.t.Helper()
	user := l.last().a
	l.until("the password to be refused", func() bool {
		return slices.ContainsFunc(l.failures(), func(f refusal) bool { return f.user == user && f.login() })
	})
}

// replaced waits for the nth command, with other credentials than all before it, and that none of its questions fails.
func (l *leased) replaced(n int) {
	l.t.Helper()
	l.waitAnswer(n)
	starts := l.starts()
	for _, before := range starts[:n-1] {
		if before.a == starts[n-1].a {
			l.t.Errorf("start %d has the credentials of an earlier one", n)
		}
	}
	for _, f := range l.failures() {
		if f.user == starts[n-1].a {
			l.t.Errorf("with the new credentials: %v", f)
		}
	}
}

// TestPostgresVaultAwayForARenewal: Vault is killed, or sealed, when the lease is due for renewal, and back before its
// end. The command is not touched and keeps its credentials.
func TestPostgresVaultAwayForARenewal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ away, back func(*leased) }{
		"killed": {func(l *leased) { l.srv.Kill() }, func(l *leased) { l.srv.Restart(l.t); l.srv.Unseal(l.t) }},
		"sealed": {func(l *leased) { l.srv.Seal(l.t) }, func(l *leased) { l.srv.Unseal(l.t) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLeased(t, onDisk, false, 24*time.Second, time.Hour)
			l.run()
			only := l.last()
			until := l.validUntil(only.a)
			c.away(l)
			l.until("a renewal to be tried", func() bool { return l.asked("sys/leases/renew") > 0 })
			c.back(l)
			l.until("the renewal", func() bool { return l.validUntil(only.a) > until })
			l.onlyChild(only)
			l.wantStarts(1)
			if n := l.reads(); n != 1 {
				t.Errorf("%d credentials were asked for, want 1", n)
			}
			if list := l.warnings(); len(list) != 1 {
				t.Errorf("warnings: %q", list)
			}
			l.end()
			l.wantFailures(0)
		})
	}
}

// TestPostgresVaultAwayForAReplacement: Vault is away when new credentials are to be read, and until the old ones have
// died. The command is not touched meanwhile; it gets new ones when Vault is back.
func TestPostgresVaultAwayForAReplacement(t *testing.T) {
	t.Parallel()
	l := newLeased(t, onDisk, false, 6*time.Second, 6*time.Second)
	l.run()
	only := l.last()
	l.srv.Kill()
	l.dead() // the database itself refuses it, some seconds after the lease's end
	l.onlyChild(only)
	l.wantWarnings(2) // the lease cannot be replaced; and then, that it has ended
	l.srv.Restart(t)
	l.srv.Unseal(t)
	l.replaced(2)
	l.replaced(3) // and so on, as if nothing had been
	l.end()
	l.waitNoRole()
}

// TestPostgresLeaseRevoked: somebody revokes the lease by hand. With --watch and the right to look leases up the next
// look finds it; otherwise the next renewal.
func TestPostgresLeaseRevoked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lookup bool
		ttl    time.Duration
		args   []string
	}{
		"look":                {true, time.Hour, []string{"--watch", "--interval", "300ms"}},
		"renewal":             {false, 6 * time.Second, nil},
		"renewal, with watch": {false, 6 * time.Second, []string{"--watch", "--interval", "300ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLeased(t, inMemory, c.lookup, c.ttl, 2*time.Hour)
			l.run(c.args...)
			ids := l.leases()
			if len(ids) != 1 {
				t.Fatalf("%d leases, want 1", len(ids))
			}
			l.srv.Must(t, "PUT", "sys/leases/revoke", map[string]any{"lease_id": ids[0], "sync": true})
			l.replaced(2)
			l.wantStarts(2)
			if n := l.reads(); n != 2 {
				t.Errorf("%d credentials were made, want 2", n)
			}
			// Who may not look is not asked for at every look.
			if n := l.asked("sys/leases/lookup"); !c.lookup && n > 1 {
				t.Errorf("%d lookups without the right to", n)
			}
			l.end()
			l.waitNoRole()
		})
	}
}

// TestPostgresSnapshot: Vault is restored from a snapshot that was taken before the lease, which it then does not know.
func TestPostgresSnapshot(t *testing.T) {
	t.Parallel()
	l := newLeased(t, onDisk, false, 6*time.Second, time.Hour)
	snapshot := l.snapshot()
	l.run()
	orphan := l.last().a
	l.srv.Must(t, "POST", "sys/storage/raft/snapshot-force", snapshot)
	l.srv.Unseal(t)
	l.replaced(2)
	until := l.validUntil(l.last().a)
	l.until("a renewal", func() bool { return l.validUntil(l.last().a) > until })
	l.wantStarts(2)
	l.end()
	wait.Until(t, limit, "only the orphan to be left", seldom(func() bool {
		roles, err := l.roles()
		return err == nil && slices.Equal(roles, []string{orphan})
	}))
}

// snapshot takes one of a raft server.
func (l *leased) snapshot() []byte {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.srv.Addr+"/v1/sys/storage/raft/snapshot", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", l.srv.RootToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || len(data) < 1000 {
		l.t.Fatalf("a snapshot of %d bytes, status %d: %v", len(data), resp.StatusCode, err)
	}
	return data
}

// TestPostgresNoNewCredentials: the role is deleted in Vault, or the database is down, when new credentials are to be
// read. There is one warning for each thing that is wrong, the command keeps running, and when it is over it gets new
// ones.
func TestPostgresNoNewCredentials(t *testing.T) {
	t.Parallel()
	const ttl, most = 4 * time.Second, 8 * time.Second
	for name, c := range map[string]struct{ away, back func(*leased) }{
		"role deleted": {
			func(l *leased) { l.srv.Must(l.t, "DELETE", l.db+"/roles/app", nil) },
			func(l *leased) { l.srv.PostgresRole(l.t, l.db, "app", ttl, most) },
		},
		"database down": {
			func(l *leased) { l.pg.Stop() },
			func(l *leased) { l.pg.Start(l.t) },
		},
		"creation refused": {
			func(l *leased) {
				l.srv.Must(l.t, "POST", l.db+"/roles/app", map[string]any{"creation_statements": "SELECT no_such_function()"})
			},
			func(l *leased) { l.srv.PostgresRole(l.t, l.db, "app", ttl, most) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLeased(t, inMemory, false, ttl, most)
			l.run()
			only := l.last()
			since := time.Now()
			c.away(l)
			l.until("three tries for new credentials, and a warning", func() bool { return l.reads() >= 4 && len(l.warnings()) > 0 })
			l.onlyChild(only)
			l.wantCalm(since)
			l.wantWarnings(2) // that the lease cannot be renewed, and that there are no new credentials
			l.wantStarts(1)
			c.back(l)
			l.replaced(2)
			if n := len(l.leases()); n > 2 {
				t.Errorf("%d leases for one command", n)
			}
			l.end()
		})
	}
}

// TestPostgresPostponed: whatever else postpones a restart, none is postponed until the credentials have died; and a hook
// that fails at every try does not make new credentials at each.
func TestPostgresPostponed(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"hook":       {"--on-change-hook", "false"},
		"min-uptime": {"--min-uptime", "1h"},
		"splay":      {"--splay", "24h"},
		"settle":     {"--settle", "1h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLeased(t, inMemory, false, 6*time.Second, 12*time.Second)
			l.run(args...)
			l.replaced(2)
			l.replaced(3)
			l.wantFailures(0)
			if n := l.reads(); n > 2*len(l.starts()) {
				t.Errorf("%d credentials for %d commands", n, len(l.starts()))
			}
			l.end()
			l.waitNoRole()
		})
	}
}
