package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Leases beside other things: secrets of a KV engine that are denied or bad, and roles whose password Vault changes.

// TestPostgresBesideADeniedPath: the policy for a KV secret is taken away while leases go on. The command keeps its last
// value and gets new credentials when it needs some, not at every look.
func TestPostgresBesideADeniedPath(t *testing.T) {
	t.Parallel()
	l := newLeased(t, inMemory, false, 4*time.Second, 8*time.Second)
	l.put("app", "B=kept")
	l.run("--env", "B=app#B", "--watch", "--interval", "300ms")
	l.allow(false, false)
	l.replaced(2)
	l.replaced(3)
	for _, s := range l.starts() {
		if s.b != "kept" {
			t.Errorf("a command without the last value of the denied secret: %q", s.b)
		}
	}
	l.wantFailures(0)
	l.wantWarnings(2) // the look at the metadata and the read of the data may each be told
	if n, starts := l.reads(), len(l.starts()); n > starts+1 {
		t.Errorf("%d credentials for %d commands", n, starts)
	}
	before := len(l.starts())
	l.allow(true, false)
	l.put("app", "B=changed")
	l.until("the new value", func() bool { return l.last().b == "changed" })
	if n := len(l.starts()); n > before+2 {
		t.Errorf("%d starts for one change", n-before)
	}
	l.end()
	l.waitNoRole()
}

// TestPostgresBesideABadValue: a change of a KV secret makes the command fail. It goes back to the old value, with
// credentials that live, and the rejected version is not tried again when these are replaced.
func TestPostgresBesideABadValue(t *testing.T) {
	t.Parallel()
	l := newLeased(t, inMemory, false, 8*time.Second, 24*time.Second)
	l.put("app", "B=good")
	l.run("--env", "B=app#B", "--watch", "--interval", "200ms", "--probation", "30s")
	l.put("app", "B=fail")
	l.until("the bad value to be tried", func() bool { return l.noted("start ", "") >= 2 && l.starts()[1].b == "fail" })
	l.waitAnswer(3)
	back := l.starts()[2]
	if back.b != "good" {
		t.Errorf("after the rollback the value is %q", back.b)
	}
	l.until("credentials that are replaced later", func() bool { return l.last().a != back.a })
	l.until("them again", func() bool { s := l.starts(); return l.last().a != back.a && s[len(s)-2].a != back.a })
	fails := 0
	for _, s := range l.starts() {
		if s.b == "fail" {
			fails++
		}
	}
	if fails != 1 {
		t.Errorf("the bad value was tried %d times, want 1", fails)
	}
	l.wantFailures(0)
	if n, starts := l.reads(), len(l.starts()); n > starts {
		t.Errorf("%d credentials for %d commands", n, starts)
	}
	l.put("app", "B=better")
	l.until("a better value", func() bool { return l.last().b == "better" })
	l.end()
	l.waitNoRole()
}

// TestPostgresTokenEnds: the token that vaultexec logs in for lives shorter than the lease, which ends with it. New
// credentials, of the next token, are there in time.
func TestPostgresTokenEnds(t *testing.T) {
	t.Parallel()
	l := newLeased(t, inMemory, false, time.Hour, 2*time.Hour)
	mount, role, roleID, secretID := l.scope.AppRole(l.policy, "default")
	l.srv.Must(t, "POST", "auth/"+mount+"/role/"+role, map[string]any{
		"token_policies": []string{l.policy, "default"}, "token_ttl": "6s", "token_max_ttl": "12s",
	})
	l.token = ""
	l.env = append(l.env, "VAULTEXEC_AUTH_MOUNT="+mount, "VAULTEXEC_ROLE_ID="+roleID, "VAULTEXEC_SECRET_ID="+secretID)
	l.run()
	l.replaced(2)
	l.replaced(3)
	l.wantFailures(0)
	if n, starts := l.reads(), len(l.starts()); n > starts+1 {
		t.Errorf("%d credentials for %d commands", n, starts)
	}
	l.end()
	l.waitNoRole()
}

// static makes a static role of an existing login.
func (l *leased) static(when, what string) {
	l.t.Helper()
	l.pg.Query(l.t, "create role batch login password 'x'")
	l.srv.Must(l.t, "POST", l.db+"/static-roles/batch", map[string]any{"db_name": "pg", "username": "batch", when: what})
}

// lastRotation asks Vault when it last changed the password of the static role.
func (l *leased) lastRotation() (rotation string, ttl json.Number) {
	l.t.Helper()
	out := l.srv.Must(l.t, "GET", l.db+"/static-creds/batch", nil)
	data, _ := out["data"].(map[string]any)
	password, _ := data["password"].(string)
	vaulttest.Secret(password)
	rotation, _ = data["last_vault_rotation"].(string)
	ttl, _ = data["ttl"].(json.Number)
	return rotation, ttl
}

// waitRotation waits until Vault changes the password, and returns when that was, by Vault's clock, which is this machine's:
// a busy test may see it late.
func (l *leased) waitRotation(most time.Duration) time.Time {
	l.t.Helper()
	before, _ := l.lastRotation()
	now := before
	wait.Until(l.t, most, "a rotation", seldom(func() bool { now, _ = l.lastRotation(); return now != before }))
	at, err := time.Parse(time.RFC3339Nano, now)
	if err != nil {
		l.t.Fatal(err)
	}
	return at
}

// noTTL: that a ttl counts down is no change, and no line says so. Beside a new password it is one.
func (l *leased) noTTL() {
	l.t.Helper()
	for _, line := range l.lines("") {
		if names := line.str("names"); strings.Contains(names, "ttl") && !strings.Contains(names, "password") {
			l.t.Errorf("the log names the ttl: %v", line)
		}
	}
}

// Every key of the static role becomes a variable; the querier takes two of them.
func (l *leased) runStatic(args ...string) {
	l.t.Helper()
	path := "/" + l.db + "/static-creds/batch"
	l.runWith("static-creds/batch", append([]string{"--watch", "--path", path, "--prefix", "DB_"}, args...)...)
}

// TestPostgresStaticRole: Vault changes the password of an existing login from time to time. That is noticed when its
// ttl is over, however long the interval is.
func TestPostgresStaticRole(t *testing.T) {
	t.Parallel()
	l := newLeased(t, inMemory, false, time.Hour, time.Hour)
	l.static("rotation_period", "8s")
	l.runStatic("--interval", "1h")
	isRead := func(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, "/static-creds/batch") }
	for n := 2; n <= 3; n++ {
		rotated := l.waitRotation(limit)
		l.until("a read after the rotation", func() bool {
			return l.proxy.Count(func(r vaulttest.Request) bool { return isRead(r) && r.At.After(rotated) }) > 0
		})
		l.waitAnswerSince(n, rotated)
	}
	l.wantStarts(3)
	l.noTTL()
	if n := l.asked("sys/leases/"); n > 0 {
		t.Errorf("%d requests about a lease, and there is none", n)
	}
	l.end()
}

// waitAnswerSince is waitAnswer for credentials whose user stays the same.
func (l *leased) waitAnswerSince(n int, since time.Time) {
	l.t.Helper()
	l.waitStarts(n)
	if at := l.starts()[n-1].at(); at.Before(since) {
		l.t.Errorf("start %d was at %s, before the rotation at %s", n, at.Format(time.TimeOnly), since.Format(time.TimeOnly))
	}
	l.until(fmt.Sprintf("an answer for start %d", n), func() bool { return l.noted("asked ", "|batch") >= n })
}

// TestPostgresStaticRoleStays: as long as nothing is rotated nothing is restarted, though each look finds another ttl.
// A rotation by hand arrives with the next look.
func TestPostgresStaticRoleStays(t *testing.T) {
	t.Parallel()
	l := newLeased(t, inMemory, false, time.Hour, time.Hour)
	l.static("rotation_period", "1h")
	l.runStatic("--interval", "200ms")
	only := l.last()
	_, first := l.lastRotation()
	wait.Until(t, limit, "the ttl to count down", seldom(func() bool { _, now := l.lastRotation(); return now != first }))
	l.looks(10, 1)
	l.onlyChild(only)
	l.wantStarts(1)
	l.noTTL()
	rotated := time.Now()
	l.srv.Must(t, "POST", l.db+"/rotate-role/batch", nil)
	l.waitAnswerSince(2, rotated)
	l.looks(5, 1)
	l.wantStarts(2)
	l.noTTL()
	l.end()
}

// TestPostgresStaticSchedule: with a schedule the ttl in Vault's answer is the time until the next date, which begins
// anew at the very second of a date. Vault changes the password up to five seconds after that, when it looks at its
// queue: a read in between finds the old password, and a whole ttl to go.
func TestPostgresStaticSchedule(t *testing.T) {
	t.Parallel()
	if vaulttest.OpenBao(t) {
		t.Skip("OpenBao has no rotation_schedule")
	}
	l := newLeased(t, inMemory, false, time.Hour, time.Hour)
	l.static("rotation_schedule", "* * * * *") // every minute, at :00
	l.runStatic("--interval", "1h")
	rotated := l.waitRotation(2 * limit)
	l.waitStarts(2)
	if late := l.starts()[1].at().Sub(rotated); late > 10*time.Second {
		t.Errorf("the rotation was noticed %v after it", late)
	}
	l.noTTL()
	l.end()
}
